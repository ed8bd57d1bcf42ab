use std::collections::{BTreeMap, BTreeSet};

use crate::id::ComponentId;
use crate::net::check_host_port;
use crate::section::{Section, hint};
use crate::tree::{Node, Place, Value};

/// What is run of all that is defined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// The extensions to start, in this order.
    pub extensions: Vec<ComponentId>,
    /// The ways of spans. Their ids are `traces` or `traces/name`.
    pub pipelines: BTreeMap<ComponentId, Pipeline>,
    /// What the collector says about itself.
    pub telemetry: Telemetry,
}

/// One way of spans: from each of the receivers through all processors in order to all exporters.
///
/// After loading, receivers and exporters are not empty, everything named is defined, and nothing
/// is named twice in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// Where spans come from.
    pub receivers: Vec<ComponentId>,
    /// What happens to them, first to last.
    pub processors: Vec<ComponentId>,
    /// Where they go; each gets all of them.
    pub exporters: Vec<ComponentId>,
}

/// What the collector says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Its log.
    pub logs: Logs,
    /// Its metrics.
    pub metrics: Metrics,
}

/// The collector's own log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// The least important entries that are written.
    pub level: Level,
    /// The form of an entry.
    pub encoding: LogEncoding,
}

/// How important an entry of the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// What happens in the normal course.
    #[default]
    Info,
    /// Something that may become an error.
    Warn,
    /// Something was lost or does not work.
    Error,
}

/// The form of an entry of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogEncoding {
    /// For people.
    #[default]
    Console,
    /// One JSON object a line.
    Json,
}

/// The collector's own metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How many there are.
    pub level: MetricsLevel,
    /// Where Prometheus reads them, as `host:port`; `localhost:8888` by default. Not served if
    /// `None`, which it is whenever `level` is [`MetricsLevel::None`].
    pub address: Option<String>,
    /// How Prometheus reads their names.
    pub names: MetricNames,
}

impl Default for Metrics {
    fn default() -> Self {
        let address = Some("localhost:8888".into());
        Self { level: MetricsLevel::Normal, address, names: MetricNames::default() }
    }
}

/// What is added to the names of metrics for Prometheus: nothing by default, and both where
/// `readers` are written out without saying otherwise (`createDefaultConfig` in
/// `service/telemetry/otelconftelemetry/factory.go` of the Go Collector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricNames {
    /// `_bytes`, `_seconds`. Written as its contrary, `without_units`.
    pub units: bool,
    /// `_total` for counters. Written as its contrary, `without_type_suffix`.
    pub type_suffix: bool,
}

/// How many metrics there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricsLevel {
    /// None.
    None,
    /// The essential ones.
    Basic,
    /// What is usual.
    #[default]
    Normal,
    /// All.
    Detailed,
}

/// What a pipeline may refer to: the components of one section.
pub(crate) struct Defined<'a> {
    /// The name of the section, and of the list in a pipeline.
    pub(crate) section: &'static str,
    pub(crate) ids: BTreeMap<ComponentId, Place>,
    /// The same as texts, once for all references to nothing.
    names: Vec<String>,
    /// Defined, but not usable; a reference to one is dropped without a word, since its definition
    /// was reported.
    pub(crate) dropped: &'a BTreeSet<ComponentId>,
}

impl<'a> Defined<'a> {
    pub(crate) fn new(
        section: &'static str,
        ids: BTreeMap<ComponentId, Place>,
        dropped: &'a BTreeSet<ComponentId>,
    ) -> Self {
        let names = ids.keys().map(ToString::to_string).collect();
        Self { section, ids, names, dropped }
    }

    fn hint(&self, name: &str) -> String {
        let known: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let section = self.section;
        let (are, none) = (format!("defined {section} are"), format!("no {section} are defined"));
        hint(name, &known, &are, &none)
    }
}

/// What of the definitions some pipeline, of whatever signal, refers to.
pub(crate) type Used = BTreeSet<(&'static str, ComponentId)>;

impl Service {
    /// `defined` are receivers, processors and exporters in this order.
    pub(crate) fn read(
        section: Section<'_>,
        defined: &[Defined<'_>; 3],
        extensions: &Defined<'_>,
        used: &mut Used,
    ) -> Self {
        let mut service = Self {
            extensions: references(&section, extensions, used),
            pipelines: BTreeMap::new(),
            telemetry: section.section("telemetry").map(Telemetry::read).unwrap_or_default(),
        };
        let pipelines = section.map("pipelines");
        for (name, entry) in pipelines.into_iter().flatten() {
            let id: ComponentId = match name.parse() {
                Ok(id) => id,
                Err(why) => {
                    let message = format!("{name:?} is not the name of a pipeline");
                    section.findings.error_with_help(entry.key_place, message, format!("{why}"));
                    continue;
                }
            };
            let path = format!("service::pipelines::{id}");
            match id.kind.as_str() {
                "traces" => {
                    if let Some(inner) = Section::new(section.findings, path, entry)
                        && let Some(pipeline) = Pipeline::read(inner, defined, used)
                    {
                        service.pipelines.insert(id, pipeline);
                    }
                }
                "metrics" | "logs" | "profiles" => {
                    section.findings.unsupported(
                        entry.key_place,
                        format!("{path} is not supported: this collector is for traces only"),
                        Some("remove it, or leave it out by --config-compat=warn".into()),
                    );
                    // What only this pipeline uses is not unused for that.
                    mark(&entry.node, defined, used);
                }
                kind => section.findings.error_with_help(
                    entry.key_place,
                    format!("{path} has an unknown signal"),
                    hint(kind, &["traces"], "the only one is", ""),
                ),
            }
        }
        if service.pipelines.is_empty() && pipelines.is_none_or(BTreeMap::is_empty) {
            section.findings.error_with_help(
                section.place_of("pipelines"),
                "service::pipelines has no pipeline",
                "define at least traces:, with receivers and exporters",
            );
        } else if service.pipelines.is_empty() && !section.findings.failed() {
            section.findings.error(section.place_of("pipelines"), "no pipeline is left to run");
        }
        section.finish();
        service
    }
}

impl Pipeline {
    fn read(section: Section<'_>, defined: &[Defined<'_>; 3], used: &mut Used) -> Option<Self> {
        let [receivers, processors, exporters] =
            defined.each_ref().map(|defined| references(&section, defined, used));
        let mut whole = true;
        for (key, list) in [("receivers", &receivers), ("exporters", &exporters)] {
            if !list.is_empty() {
                continue;
            }
            whole = false;
            // What cannot be used has been reported, as an error unless the caller does without.
            if section.has(key) && !section.says_nothing(key) {
                if !section.findings.failed() {
                    section.findings.warning(
                        section.place,
                        format!("{} is left out: none of its {key} can be used", section.path),
                        "it has nothing to do without them",
                    );
                }
            } else {
                let message = format!("{} has no {key}", section.path);
                section.findings.error(section.place_of(key), message);
            }
        }
        section.finish();
        whole.then_some(Self { receivers, processors, exporters })
    }
}

/// Reads a list of ids and reports the ones that are not defined, or there twice.
fn references(section: &Section<'_>, defined: &Defined<'_>, used: &mut Used) -> Vec<ComponentId> {
    let mut ids: Vec<ComponentId> = Vec::new();
    let mut seen = BTreeSet::new();
    for item in section.items(defined.section).unwrap_or_default() {
        let (name, place) = (&item.text, item.node.place);
        let path = section.path_of(defined.section);
        let id: ComponentId = match name.parse() {
            Ok(id) => id,
            Err(why) => {
                let message = format!("{path} lists {:?}, which names no component", item.shown());
                section.findings.error_with_help(place, message, format!("{why}"));
                continue;
            }
        };
        if !seen.insert(id.clone()) {
            section.findings.error(place, format!("{path} names {} twice", item.shown()));
            continue;
        }
        used.insert((defined.section, id.clone()));
        if defined.ids.contains_key(&id) {
            ids.push(id);
        } else if !defined.dropped.contains(&id) {
            let message = format!("{path} refers to {}, which is not defined", item.shown());
            let help = if section.findings.is_full() { String::new() } else { defined.hint(name) };
            section.findings.error_with_help(place, message, help);
        }
    }
    ids
}

/// Notes what a pipeline that is not read refers to.
fn mark(node: &Node, defined: &[Defined<'_>; 3], used: &mut Used) {
    let Value::Map(map) = &node.value else { return };
    for Defined { section, .. } in defined {
        let Some(Value::List(list)) = map.get(*section).map(|entry| &entry.node.value) else {
            continue;
        };
        for node in list {
            if let Value::Scalar(scalar) = &node.value
                && let Ok(id) = scalar.text.parse()
            {
                used.insert((section, id));
            }
        }
    }
}

impl Telemetry {
    fn read(section: Section<'_>) -> Self {
        section.without_effect(&[
            ("traces", "the collector records no spans about itself"),
            ("resource", "the collector's metrics have fixed attributes"),
        ]);
        let telemetry = Self {
            logs: section.section("logs").map(Logs::read).unwrap_or_default(),
            metrics: section.section("metrics").map(Metrics::read).unwrap_or_default(),
        };
        section.finish();
        telemetry
    }
}

impl Logs {
    fn read(section: Section<'_>) -> Self {
        section.unsupported(&["processors", "output_paths"]);
        const FORM: &str = "entries have one form";
        section.without_effect(&[
            ("development", FORM),
            ("disable_caller", FORM),
            ("disable_stacktrace", FORM),
            ("disable_zap_resource", FORM),
            ("initial_fields", FORM),
            ("sampling", "repeated entries are summed up in any case"),
            ("error_output_paths", "the log has no errors of its own"),
        ]);
        let levels = [
            ("debug", Level::Debug),
            ("info", Level::Info),
            ("warn", Level::Warn),
            ("error", Level::Error),
        ];
        let encodings = [("console", LogEncoding::Console), ("json", LogEncoding::Json)];
        let logs = Self {
            level: section.choice("level", &levels).unwrap_or_default(),
            encoding: section.choice("encoding", &encodings).unwrap_or_default(),
        };
        section.finish();
        logs
    }
}

impl Metrics {
    fn read(section: Section<'_>) -> Self {
        section.unsupported(&["views"]);
        let levels = [
            ("none", MetricsLevel::None),
            ("basic", MetricsLevel::Basic),
            ("normal", MetricsLevel::Normal),
            ("detailed", MetricsLevel::Detailed),
        ];
        let level = section.choice("level", &levels).unwrap_or_default();
        let Self { mut address, mut names, .. } = Self::default();
        // Written until v0.122 of the Go Collector, and still found everywhere.
        if let Some(written) = section.string("address") {
            check_host_port(&section, "address", &written);
            address = Some(written);
        }
        if let Some(readers) = section.list("readers") {
            let mut read = Vec::new();
            for (number, node) in readers.iter().enumerate() {
                let path = format!("{}[{number}]", section.path_of("readers"));
                if let Some(reader) = Section::of(section.findings, path, node.place, node) {
                    read.extend(read_reader(reader));
                }
            }
            if read.len() > 1 {
                section.findings.unsupported(
                    section.place_of("readers"),
                    format!(
                        "{} has more than one reader for Prometheus",
                        section.path_of("readers")
                    ),
                    Some("one is served".into()),
                );
            }
            let (first, its) = read.into_iter().next().unzip();
            (address, names) = (first, its.unwrap_or_default());
        }
        section.finish();
        match address {
            Some(_) if level != MetricsLevel::None => Self { level, address, names },
            _ => Self { level, address: None, names: MetricNames::default() },
        }
    }
}

/// The address of a reader that Prometheus pulls from, and the names it has there.
fn read_reader(section: Section<'_>) -> Option<(String, MetricNames)> {
    section.unsupported(&["periodic"]);
    let mut reader = None;
    if let Some(pull) = section.section_if_set("pull") {
        pull.unsupported(&["cardinality_limits", "producers"]);
        if let Some(exporter) = pull.section("exporter") {
            if let Some(prometheus) = exporter.section("prometheus") {
                const LABELS: &str = "labels are those that dashboards expect";
                const STRATEGY: &str = "without_units and without_type_suffix say what names are";
                prometheus.without_effect(&[
                    ("without_scope_info", LABELS),
                    ("with_resource_constant_labels", LABELS),
                    ("translation_strategy", STRATEGY),
                ]);
                let without = |key| prometheus.boolean(key).unwrap_or_default();
                let names = MetricNames {
                    units: !without("without_units"),
                    type_suffix: !without("without_type_suffix"),
                };
                let host = prometheus.string("host").unwrap_or_else(|| "localhost".into());
                let port = prometheus.number("port", 0..=65_535).unwrap_or(8888);
                prometheus.finish();
                // An IPv6 address stands here without brackets.
                let bare = host.contains(':') && !host.starts_with('[');
                let address =
                    if bare { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                reader = Some((address, names));
            }
            exporter.finish();
        }
        pull.finish();
    }
    section.finish();
    reader
}
