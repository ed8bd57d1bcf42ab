use crate::net::check_host_port;
use crate::processor::MemoryLimiter;
use crate::section::Section;

/// What runs beside the pipelines.
#[derive(Clone, Debug, PartialEq)]
pub enum Extension {
    /// `health_check`: tells over HTTP whether the collector works.
    HealthCheck(HealthCheck),
    /// `zpages`: shows over HTTP what runs.
    Zpages(Zpages),
    /// `memory_limiter`: as the processor of that name, and before spans are read.
    MemoryLimiter(MemoryLimiter),
}

/// `health_check` (`extension/healthcheckextension/README.md` of the Go Collector's contrib
/// repository).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where it listens, as `host:port`; `localhost:13133` by default.
    pub endpoint: String,
    /// The path that answers; `/` by default.
    pub path: String,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { endpoint: "localhost:13133".into(), path: "/".into() }
    }
}

/// `zpages` (`extension/zpagesextension/README.md` of the Go Collector).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zpages {
    /// Where it listens, as `host:port`; `localhost:55679` by default.
    pub endpoint: String,
}

impl Default for Zpages {
    fn default() -> Self {
        Self { endpoint: "localhost:55679".into() }
    }
}

impl HealthCheck {
    pub(crate) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        section.unsupported(&["response_body", "use_v2", "component_health", "http", "grpc"]);
        section.without_effect(&[(
            "check_collector_pipeline",
            "the Go Collector ignores it too; health is that of the pipelines in any case",
        )]);
        let endpoint = server(&section).unwrap_or(default.endpoint);
        let path = section.string("path").filter(|path| !path.is_empty());
        if path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            section
                .error("path", format!("{} does not start with a slash", section.path_of("path")));
        }
        section.finish();
        Self { endpoint, path: path.unwrap_or(default.path) }
    }
}

impl Zpages {
    pub(crate) fn read(section: Section<'_>) -> Self {
        section.unsupported(&["expvar"]);
        let endpoint = server(&section).unwrap_or(Self::default().endpoint);
        section.finish();
        Self { endpoint }
    }
}

/// Reads the address and what else the Go Collector has for every HTTP server.
fn server(section: &Section<'_>) -> Option<String> {
    section.unsupported(&["tls", "auth", "cors", "response_headers", "middlewares"]);
    const SMALL: &str = "its requests are small and bounded";
    section.without_effect(&[
        ("max_request_body_size", SMALL),
        ("compression_algorithms", SMALL),
        ("include_metadata", SMALL),
        ("read_timeout", SMALL),
        ("read_header_timeout", SMALL),
        ("write_timeout", SMALL),
        ("idle_timeout", SMALL),
        ("keep_alives_enabled", SMALL),
    ]);
    section.choice("transport", &[("tcp", ())]);
    let endpoint = section.string("endpoint").filter(|endpoint| !endpoint.is_empty())?;
    check_host_port(section, "endpoint", &endpoint);
    Some(endpoint)
}
