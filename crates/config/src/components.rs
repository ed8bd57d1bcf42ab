use std::fmt;

use crate::exporter::{Debug, Exporter, File};
use crate::extension::{Extension, HealthCheck, Zpages};
use crate::otlp_exporter::OtlpExporter;
use crate::processor::{Action, Batch, MemoryLimiter, ProbabilisticSampler, Processor};
use crate::receiver::{OtlpReceiver, Receiver};
use crate::section::Section;

/// One kind of component that is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// The section of the configuration it stands in: `receivers`, `processors`, `exporters` or
    /// `extensions`.
    pub section: &'static str,
    /// Its type, the part of an id before the slash.
    pub kind: &'static str,
    /// Another name for the same type.
    pub alias: Option<&'static str>,
    /// How far it is to be trusted.
    pub stability: Stability,
}

/// How far a component is to be trusted, in the terms of the OpenTelemetry Collector
/// (`docs/component-stability.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stability {
    /// Ready for limited use; its behaviour may still change.
    Alpha,
    /// Its configuration will not change without a period of grace.
    Beta,
}

impl fmt::Display for Stability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alpha => "alpha",
            Self::Beta => "beta",
        })
    }
}

const fn component(
    section: &'static str,
    kind: &'static str,
    alias: Option<&'static str>,
    stability: Stability,
) -> Component {
    Component { section, kind, alias, stability }
}

/// Every component that is supported, by section.
///
/// ```
/// let exporters: Vec<_> =
///     spanwire_config::components().iter().filter(|c| c.section == "exporters").collect();
/// assert!(exporters.iter().any(|c| c.kind == "otlp" && c.alias == Some("otlp_grpc")));
/// ```
#[must_use]
pub fn components() -> &'static [Component] {
    use Stability::{Alpha, Beta};
    const COMPONENTS: &[Component] = &[
        component("receivers", "otlp", None, Beta),
        component("processors", "attributes", None, Alpha),
        component("processors", "batch", None, Beta),
        component("processors", "memory_limiter", None, Alpha),
        component("processors", "probabilistic_sampler", None, Alpha),
        component("processors", "resource", None, Alpha),
        component("exporters", "debug", None, Alpha),
        component("exporters", "file", None, Alpha),
        component("exporters", "nop", None, Beta),
        component("exporters", "otlp", Some("otlp_grpc"), Beta),
        component("exporters", "otlphttp", Some("otlp_http"), Beta),
        component("extensions", "health_check", None, Alpha),
        component("extensions", "memory_limiter", None, Alpha),
        component("extensions", "zpages", None, Alpha),
    ];
    COMPONENTS
}

/// Whether this is a component of the Go Collector that looks like a misspelt one of ours.
pub(crate) fn is_of_go(section: &str, kind: &str) -> bool {
    const NEAR_OURS: [(&str, &str); 4] = [
        ("receivers", "otap"),
        ("processors", "k8sattributes"),
        ("exporters", "otap"),
        ("extensions", "healthcheckv2"),
    ];
    NEAR_OURS.contains(&(section, kind))
}

/// Reads the settings of a component; `None` if `kind` is not supported.
pub(crate) type Read<T> = fn(kind: &str, section: Section<'_>) -> Option<T>;

pub(crate) fn receiver(kind: &str, section: Section<'_>) -> Option<Receiver> {
    (kind == "otlp").then(|| Receiver::Otlp(OtlpReceiver::read(section)))
}

pub(crate) fn processor(kind: &str, section: Section<'_>) -> Option<Processor> {
    Some(match kind {
        "attributes" => Processor::Attributes(Action::read_all(section, "actions")),
        "batch" => Processor::Batch(Batch::read(section)),
        "memory_limiter" => Processor::MemoryLimiter(MemoryLimiter::read(section)),
        "probabilistic_sampler" => {
            Processor::ProbabilisticSampler(ProbabilisticSampler::read(section))
        }
        "resource" => Processor::Resource(Action::read_all(section, "attributes")),
        _ => return None,
    })
}

pub(crate) fn exporter(kind: &str, section: Section<'_>) -> Option<Exporter> {
    Some(match kind {
        "debug" => Exporter::Debug(Debug::read(section)),
        "file" => Exporter::File(File::read(section)),
        "nop" => {
            section.finish();
            Exporter::Nop
        }
        "otlp" | "otlp_grpc" => Exporter::OtlpGrpc(OtlpExporter::read_grpc(section)),
        "otlphttp" | "otlp_http" => Exporter::OtlpHttp(OtlpExporter::read_http(section)),
        _ => return None,
    })
}

pub(crate) fn extension(kind: &str, section: Section<'_>) -> Option<Extension> {
    Some(match kind {
        "health_check" => Extension::HealthCheck(HealthCheck::read(section)),
        "memory_limiter" => Extension::MemoryLimiter(MemoryLimiter::read(section)),
        "zpages" => Extension::Zpages(Zpages::read(section)),
        _ => return None,
    })
}
