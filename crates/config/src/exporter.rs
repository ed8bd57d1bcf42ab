use std::path::PathBuf;
use std::time::Duration;

use crate::otlp_exporter::OtlpExporter;
use crate::section::Section;

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub enum Exporter {
    /// `otlp`, `otlp_grpc`: OTLP over gRPC.
    OtlpGrpc(OtlpExporter),
    /// `otlphttp`, `otlp_http`: OTLP over HTTP.
    OtlpHttp(OtlpExporter),
    /// `debug`: a description of them in the log.
    Debug(Debug),
    /// `file`: a file of JSON lines.
    File(File),
    /// `nop`: nowhere.
    Nop,
}

/// `debug` (`exporter/debugexporter/README.md` of the Go Collector).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debug {
    /// How much is said about each request; [`Verbosity::Basic`] by default.
    pub verbosity: Verbosity,
    /// Messages of each second that are all logged; 2 by default.
    pub sampling_initial: u32,
    /// Of the further ones each so many-th is logged; 1 by default, which is all of them.
    pub sampling_thereafter: u32,
    /// Whether it goes to the collector's own log, or to standard output; true by default.
    pub use_internal_logger: bool,
}

/// How much the debug exporter says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verbosity {
    /// A line for each request, with its number of spans.
    #[default]
    Basic,
    /// A line for each span.
    Normal,
    /// Every field of each span.
    Detailed,
}

impl Default for Debug {
    fn default() -> Self {
        Self {
            verbosity: Verbosity::Basic,
            sampling_initial: 2,
            sampling_thereafter: 1,
            use_internal_logger: true,
        }
    }
}

impl Debug {
    pub(crate) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        section.unsupported(&["output_paths", "sending_queue"]);
        let verbosities = [
            ("basic", Verbosity::Basic),
            ("normal", Verbosity::Normal),
            ("detailed", Verbosity::Detailed),
        ];
        let count = |key| {
            let count = section.number(key, 0..=u64::from(u32::MAX));
            count.and_then(|count| u32::try_from(count).ok())
        };
        let debug = Self {
            verbosity: section.choice("verbosity", &verbosities).unwrap_or_default(),
            sampling_initial: count("sampling_initial").unwrap_or(default.sampling_initial),
            sampling_thereafter: count("sampling_thereafter")
                .unwrap_or(default.sampling_thereafter),
            use_internal_logger: section
                .boolean("use_internal_logger")
                .unwrap_or(default.use_internal_logger),
        };
        section.finish();
        debug
    }
}

/// `file` (`exporter/fileexporter/README.md` of the Go Collector's contrib repository). Its
/// `compression`, `encoding` and `group_by` are not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The file; never empty after loading.
    pub path: PathBuf,
    /// Whether what is in the file stays; false by default. Never together with `rotation`.
    pub append: bool,
    /// The form of what is written.
    pub format: FileFormat,
    /// When a new file is begun; never if `None`.
    pub rotation: Option<Rotation>,
    /// How often what was written is handed to the operating system; 1 s by default, never zero.
    pub flush_interval: Duration,
}

/// The form of a file of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// One request of OTLP/JSON a line (OTLP file exporter specification).
    #[default]
    Json,
}

/// When a file is full and what becomes of old ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The size in MB at which a new file is begun; 100 by default.
    pub max_megabytes: u32,
    /// Days after which an old file is removed; never if `None`.
    pub max_days: Option<u32>,
    /// Old files that are kept; 100 by default, and all if zero.
    pub max_backups: u32,
    /// Whether old files are named by local time; by UTC by default.
    pub localtime: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_megabytes: 100, max_days: None, max_backups: 100, localtime: false }
    }
}

impl Default for File {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            append: false,
            format: FileFormat::Json,
            rotation: None,
            flush_interval: Duration::from_secs(1),
        }
    }
}

impl File {
    pub(crate) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        section.unsupported(&[
            "compression",
            "encoding",
            "encoding_extension",
            "create_directory",
            "directory_permissions",
        ]);
        if let Some(group_by) = section.section("group_by") {
            group_by.unsupported(&["enabled"]);
            group_by.without_effect(&[
                ("resource_attribute", "it is not enabled"),
                ("max_open_files", "it is not enabled"),
            ]);
            group_by.finish();
        }
        let file = Self {
            path: section.string("path").map(PathBuf::from).unwrap_or_default(),
            append: section.boolean("append").unwrap_or_default(),
            format: format(&section),
            rotation: section.section_if_set("rotation").map(Rotation::read),
            flush_interval: section.interval("flush_interval").unwrap_or(default.flush_interval),
        };
        // A path of another type has been reported.
        if !section.has("path") {
            section.findings.error(section.place, format!("{} has no path", section.path));
        }
        if file.append && file.rotation.is_some() {
            section.error("append", format!("{} cannot both append and rotate", section.path));
        }
        section.finish();
        file
    }
}

fn format(section: &Section<'_>) -> FileFormat {
    let formats = [("json", Some(FileFormat::Json)), ("proto", None)];
    match section.choice("format", &formats) {
        Some(Some(format)) => format,
        Some(None) => {
            section.findings.unsupported(
                section.place_of("format"),
                format!("{} cannot be proto", section.path_of("format")),
                Some("it can be json".into()),
            );
            FileFormat::Json
        }
        None => FileFormat::Json,
    }
}

impl Rotation {
    fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        let number = |key, min| {
            let number = section.number(key, min..=u64::from(u32::MAX));
            number.and_then(|number| u32::try_from(number).ok())
        };
        let rotation = Self {
            max_megabytes: number("max_megabytes", 1).unwrap_or(default.max_megabytes),
            max_days: number("max_days", 0).filter(|days| *days > 0),
            max_backups: number("max_backups", 0).unwrap_or(default.max_backups),
            localtime: section.boolean("localtime").unwrap_or_default(),
        };
        section.finish();
        rotation
    }
}
