use std::path::PathBuf;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debug {
    /// How much is said about each request; [`Verbosity::Basic`] by default.
    pub verbosity: Verbosity,
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

impl Debug {
    pub(crate) fn read(section: Section<'_>) -> Self {
        const ALL: &str = "every request is shown";
        section.unsupported(&["output_paths", "sending_queue"]);
        section.without_effect(&[
            ("sampling_initial", ALL),
            ("sampling_thereafter", ALL),
            ("use_internal_logger", "spans go to standard output, and the log to standard error"),
        ]);
        let verbosities = [
            ("basic", Verbosity::Basic),
            ("normal", Verbosity::Normal),
            ("detailed", Verbosity::Detailed),
        ];
        let verbosity = section.choice("verbosity", &verbosities).unwrap_or_default();
        section.finish();
        Self { verbosity }
    }
}

/// `file` (`exporter/fileexporter/README.md` of the Go Collector's contrib repository). Its
/// `compression`, `encoding` and `group_by` are not supported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// The file; never empty after loading.
    pub path: PathBuf,
    /// Whether what is in the file stays; false by default. Never together with `rotation`.
    pub append: bool,
    /// The form of what is written.
    pub format: FileFormat,
    /// When a new file is begun; never if `None`.
    pub rotation: Option<Rotation>,
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
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_megabytes: 100, max_days: None, max_backups: 100 }
    }
}

impl File {
    pub(crate) fn read(section: Section<'_>) -> Self {
        section.unsupported(&[
            "compression",
            "encoding",
            "encoding_extension",
            "create_directory",
            "directory_permissions",
        ]);
        section.without_effect(&[("flush_interval", "each request is written when it comes")]);
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
            format: section
                .choice_beside("format", &[("json", FileFormat::Json)], &["proto"])
                .unwrap_or_default(),
            rotation: section.section_if_set("rotation").map(Rotation::read),
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

impl Rotation {
    fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        section
            .without_effect(&[("localtime", "old files are named by the milliseconds since 1970")]);
        let number = |key, min| {
            let number = section.number(key, min..=u64::from(u32::MAX));
            number.and_then(|number| u32::try_from(number).ok())
        };
        let rotation = Self {
            max_megabytes: number("max_megabytes", 1).unwrap_or(default.max_megabytes),
            max_days: number("max_days", 0).filter(|days| *days > 0),
            max_backups: number("max_backups", 0).unwrap_or(default.max_backups),
        };
        section.finish();
        rotation
    }
}
