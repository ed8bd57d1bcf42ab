//! Every setting: its name, its variables, how these are read, and how it is shown.

use std::time::Duration;

use spanwire_batcher::{Overflow, Strategy};
use spanwire_transport::{Compression, Pem, Protocol};

use super::read::{self, Given};
use super::value::{self, Problem};
use super::{Draft, show};
use crate::diagnostics::{Diagnostics, Severity};
use crate::explain::shown;

/// One setting.
pub(super) struct Known {
    /// The path of its field in `Config`, or in the main `Otlp` after `otlp.`.
    pub(super) name: &'static str,
    /// The variables that set it, the strongest first.
    pub(super) variables: &'static [&'static str],
    /// What these take, as the documentation and warnings have it.
    pub(super) takes: &'static str,
    /// Whether the variable adds to what code says, rather than being ignored then.
    pub(super) merges: bool,
    /// Takes a variable's value, or says why it cannot be used.
    pub(super) read: fn(&mut Draft, &mut Given<'_>) -> Result<(), Problem>,
    /// The value for people, without secrets.
    pub(super) show: fn(&Draft) -> String,
}

/// A setting that only code can change.
const fn code(name: &'static str, show: fn(&Draft) -> String) -> Known {
    Known { name, variables: &[], takes: "", merges: false, read: |_, _| Ok(()), show }
}

const fn variable(
    name: &'static str,
    variables: &'static [&'static str],
    takes: &'static str,
    read: fn(&mut Draft, &mut Given<'_>) -> Result<(), Problem>,
    show: fn(&Draft) -> String,
) -> Known {
    Known { name, variables, takes, merges: false, read, show }
}

/// Two forms of an exporter's variable: for traces, and for all signals.
macro_rules! otlp {
    ($name:literal) => {
        &[concat!("OTEL_EXPORTER_OTLP_TRACES_", $name), concat!("OTEL_EXPORTER_OTLP_", $name)]
    };
}

/// Reads a limit into a field of `config.limits`.
macro_rules! limit {
    ($field:ident, $variables:expr) => {
        variable(
            concat!("limits.", stringify!($field)),
            &$variables,
            COUNT,
            |draft, given| {
                draft.config.limits.$field = value::integer(given.text, 0..=u32::MAX)?;
                Ok(())
            },
            |draft| show::limit(draft.config.limits.$field),
        )
    };
}

const BOOLEAN: &str = "`true`; anything else is false";
const COUNT: &str = "a number from 0";
const POSITIVE: &str = "a number from 1";
const MILLIS: &str = "milliseconds";
const PEM: &str = "the path of a PEM file";

/// In the order in which they are read: what others depend on comes first.
pub(super) static SETTINGS: &[Known] = &[
    variable(
        "disabled",
        &["OTEL_SDK_DISABLED"],
        BOOLEAN,
        |draft, given| {
            draft.config.disabled = given.boolean();
            Ok(())
        },
        |draft| show::yes(draft.config.disabled),
    ),
    variable(
        "service_name",
        &["OTEL_SERVICE_NAME"],
        "text",
        |draft, given| {
            draft.config.service_name = given.text.into();
            Ok(())
        },
        |draft| {
            show::attribute(draft, "service.name", &draft.config.service_name, "unknown_service")
        },
    ),
    code("service_version", |draft| {
        show::attribute(draft, "service.version", &draft.config.service_version, "none")
    }),
    Known {
        merges: true,
        ..variable(
            "resource",
            &["OTEL_RESOURCE_ATTRIBUTES"],
            "`key=value,key2=value2`, percent-encoded",
            read::resource,
            |draft| {
                let attributes = draft.config.resource.attributes.iter();
                show::list(attributes.map(|entry| shown(entry.key.as_str(), 60)))
            },
        )
    },
    code("detect_resource", |draft| show::yes(draft.config.detect_resource)),
    variable(
        "destinations",
        &["OTEL_TRACES_EXPORTER"],
        "a list of `otlp`, `console`, `otlp/stdout`, `file:PATH`; or `none`",
        read::exporters,
        |draft| show::names(&draft.exporters),
    ),
    code("further_destinations", |draft| show::names(&draft.further)),
    variable(
        "otlp.protocol",
        otlp!("PROTOCOL"),
        "`grpc`, `http/protobuf`, `http/json`",
        |draft, given| {
            let protocol = value::one_of(given.text, &PROTOCOLS)?;
            // Only code can have asked for it so far.
            if (protocol, draft.otlp.compression) == (Protocol::Grpc, Compression::Brotli) {
                return Err("gRPC has no brotli, which the program asks for".into());
            }
            draft.otlp.protocol = protocol;
            Ok(())
        },
        |draft| show::name_of(&PROTOCOLS, draft.otlp.protocol),
    ),
    variable(
        "otlp.insecure",
        otlp!("INSECURE"),
        BOOLEAN,
        |draft, given| {
            draft.otlp.insecure = given.boolean();
            Ok(())
        },
        |draft| show::yes(draft.otlp.insecure),
    ),
    variable(
        "otlp.endpoints",
        otlp!("ENDPOINT"),
        "a URL: for traces as it is; for all signals a base, to which HTTP appends `/v1/traces`",
        read::endpoint,
        |draft| match draft.otlp.endpoints.as_slice() {
            [] => "localhost".into(),
            endpoints => {
                show::list(endpoints.iter().map(|endpoint| shown(&endpoint.to_string(), 200)))
            }
        },
    ),
    Known {
        merges: true,
        ..variable(
            "otlp.headers",
            otlp!("HEADERS"),
            "`name=value,name2=value2`, percent-encoded",
            |draft, given| {
                let headers = given.entries(value::headers(given.text))?;
                let code = std::mem::take(&mut draft.otlp.headers);
                let is_new = |name: &str| !code.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
                let added = headers.into_iter().filter(|(name, _)| is_new(name)).collect();
                draft.otlp.headers = [code, added].concat();
                Ok(())
            },
            |draft| {
                let names = draft.otlp.headers.iter();
                show::list(names.map(|(name, _)| format!("{}: (hidden)", shown(name, 60))))
            },
        )
    },
    variable(
        "otlp.ca",
        otlp!("CERTIFICATE"),
        PEM,
        |draft, given| {
            draft.otlp.ca = Some(Pem::File(given.text.into()));
            Ok(())
        },
        |draft| show::pem(draft.otlp.ca.as_ref()),
    ),
    variable(
        "otlp.client_certificate",
        otlp!("CLIENT_CERTIFICATE"),
        PEM,
        |draft, given| {
            draft.otlp.client_certificate = Some(Pem::File(given.text.into()));
            Ok(())
        },
        |draft| show::pem(draft.otlp.client_certificate.as_ref()),
    ),
    variable(
        "otlp.client_key",
        otlp!("CLIENT_KEY"),
        PEM,
        |draft, given| {
            draft.otlp.client_key = Some(Pem::File(given.text.into()));
            Ok(())
        },
        |draft| show::pem(draft.otlp.client_key.as_ref()),
    ),
    code("otlp.server_name", |draft| match &draft.otlp.server_name {
        Some(name) => shown(name, 200),
        None => "the endpoint's host".into(),
    }),
    variable(
        "otlp.proxy",
        &["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        "`http://user:password@host:port`; `NO_PROXY` or `no_proxy` is what goes without",
        read::proxy,
        |draft| show::proxy(&draft.otlp.proxy),
    ),
    variable(
        "otlp.compression",
        otlp!("COMPRESSION"),
        "`none`, `gzip`, `zstd`, `brotli` (HTTP only)",
        |draft, given| {
            let compression = value::one_of(given.text, &COMPRESSIONS)?;
            if (draft.otlp.protocol, compression) == (Protocol::Grpc, Compression::Brotli) {
                return Err("gRPC has no brotli".into());
            }
            draft.otlp.compression = compression;
            Ok(())
        },
        |draft| show::name_of(&COMPRESSIONS, draft.otlp.compression),
    ),
    code("otlp.compression_bytes_min", |draft| show::bytes(draft.otlp.compression_bytes_min)),
    code("otlp.connect_timeout", |draft| show::timeout(draft.otlp.connect_timeout)),
    variable(
        "otlp.request_timeout",
        otlp!("TIMEOUT"),
        "milliseconds; 0 is no limit",
        |draft, given| {
            draft.otlp.request_timeout = value::duration(given.text)?;
            Ok(())
        },
        |draft| show::timeout(draft.otlp.request_timeout),
    ),
    code("otlp.keep_alive_interval", |draft| match draft.otlp.keep_alive_interval {
        Duration::ZERO => "no probes".into(),
        interval => format!("{interval:?}"),
    }),
    code("otlp.keep_alive_timeout", |draft| format!("{:?}", draft.otlp.keep_alive_timeout)),
    code("otlp.idle_connections_max", |draft| draft.otlp.idle_connections_max.to_string()),
    code("otlp.idle_timeout", |draft| format!("{:?}", draft.otlp.idle_timeout)),
    code("otlp.connection_age_max", |draft| show::timeout(draft.otlp.connection_age_max)),
    code("otlp.requests_in_flight_max", |draft| draft.otlp.requests_in_flight_max.to_string()),
    code("otlp.retry.attempts_max", |draft| draft.otlp.retry.attempts_max.to_string()),
    variable(
        "otlp.retry.elapsed_max",
        &["OTEL_BSP_EXPORT_TIMEOUT"],
        "milliseconds for all attempts; 0 is no limit",
        |draft, given| {
            let timeout = value::duration(given.text)?;
            // To the policy zero means a single attempt.
            draft.otlp.retry.elapsed_max = if timeout.is_zero() { FOREVER } else { timeout };
            Ok(())
        },
        |draft| match draft.otlp.retry.elapsed_max {
            FOREVER => "no limit".into(),
            elapsed_max => format!("{elapsed_max:?}"),
        },
    ),
    code("otlp.retry.interval_initial", |draft| format!("{:?}", draft.otlp.retry.interval_initial)),
    code("otlp.retry.interval_max", |draft| format!("{:?}", draft.otlp.retry.interval_max)),
    code("otlp.retry.multiplier", |draft| draft.otlp.retry.multiplier.to_string()),
    code("otlp.retry.randomization", |draft| draft.otlp.retry.randomization.to_string()),
    code("otlp.retry_if", |draft| draft.otlp.retry_if.to_string()),
    variable(
        "batch.age_max",
        &["OTEL_BSP_SCHEDULE_DELAY"],
        MILLIS,
        |draft, given| {
            draft.config.batch.age_max = value::duration(given.text)?;
            Ok(())
        },
        |draft| format!("{:?}", draft.config.batch.age_max),
    ),
    variable(
        "batch.spans_max",
        &["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"],
        POSITIVE,
        |draft, given| {
            draft.config.batch.spans_max = value::integer(given.text, 1..=u32::MAX)? as usize;
            Ok(())
        },
        |draft| draft.config.batch.spans_max.to_string(),
    ),
    variable(
        "batch.queue_spans_max",
        &["OTEL_BSP_MAX_QUEUE_SIZE"],
        POSITIVE,
        |draft, given| {
            let spans = value::integer(given.text, 1..=u32::MAX)? as usize;
            draft.config.batch.queue_spans_max = Some(spans);
            Ok(())
        },
        |draft| match draft.config.batch.queue_spans_max {
            Some(spans) => spans.to_string(),
            None => "as memory allows".into(),
        },
    ),
    code("batch.request_bytes_max", |draft| show::bytes(draft.config.batch.request_bytes_max)),
    code("batch.memory_bytes_max", |draft| show::bytes(draft.config.batch.memory_bytes_max)),
    code("batch.strategy", |draft| match draft.config.batch.strategy {
        Strategy::TimeFirst => "time first".into(),
        Strategy::SizeFirst => "size first".into(),
        Strategy::Hybrid => "hybrid".into(),
    }),
    code("batch.overflow", |draft| match draft.config.batch.overflow {
        Overflow::DropNewest => "drop newest".into(),
        Overflow::DropOldest => "drop oldest".into(),
        Overflow::Block { timeout } => format!("block for {timeout:?}"),
    }),
    variable(
        "sampler",
        &["OTEL_TRACES_SAMPLER"],
        "`always_on`, `always_off`, `traceidratio`, or one of these after `parentbased_`; \
         `OTEL_TRACES_SAMPLER_ARG` is the ratio, 0 to 1",
        read::sampler,
        |draft| shown(&draft.config.sampler.description(), 200),
    ),
    variable(
        "propagators",
        &["OTEL_PROPAGATORS"],
        "a list of `tracecontext`, `baggage`, `b3`, `b3multi`; or `none`",
        read::propagators,
        |draft| draft.config.propagators.to_string(),
    ),
    limit!(attributes, ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"]),
    limit!(
        attribute_value_length,
        ["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"]
    ),
    code("limits.attribute_value_depth", |draft| {
        draft.config.limits.attribute_value_depth.to_string()
    }),
    limit!(events, ["OTEL_SPAN_EVENT_COUNT_LIMIT"]),
    limit!(event_attributes, ["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"]),
    limit!(links, ["OTEL_SPAN_LINK_COUNT_LIMIT"]),
    limit!(link_attributes, ["OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"]),
    variable(
        "diagnostics",
        &["OTEL_LOG_LEVEL"],
        "`none`, `error`, `warn`, `info`, `debug`",
        |draft, given| {
            let severities = Severity::ALL.map(|severity| (severity.name(), Some(severity)));
            let names = [&[("none", None)], &severities[..]].concat();
            draft.config.diagnostics = match value::one_of(given.text, &names)? {
                Some(least) => Diagnostics::stderr(least),
                None => Diagnostics::off(),
            };
            Ok(())
        },
        |draft| draft.config.diagnostics.to_string(),
    ),
    code("drop_timeout", |draft| format!("{:?}", draft.config.drop_timeout)),
];

const PROTOCOLS: [(&str, Protocol); 3] = [
    ("grpc", Protocol::Grpc),
    ("http/protobuf", Protocol::HttpProtobuf),
    ("http/json", Protocol::HttpJson),
];

const COMPRESSIONS: [(&str, Compression); 4] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("zstd", Compression::Zstd),
    ("brotli", Compression::Brotli),
];

/// "Timeout" in `configuration/common.md` lets a very long time stand for none; 49 days.
const FOREVER: Duration = Duration::from_millis(u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `docs/CONFIGURATION.md`.
    fn table() -> String {
        let defaults = Draft::default();
        let mut table = String::from("| setting | default | variables | they take |\n");
        table.push_str("| --- | --- | --- | --- |\n");
        for known in SETTINGS {
            let variables: Vec<_> =
                known.variables.iter().map(|name| format!("`{name}`")).collect();
            table.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                known.name,
                (known.show)(&defaults),
                variables.join(", "),
                known.takes,
            ));
        }
        table
    }

    #[test]
    fn the_documentation_has_every_setting_as_it_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIGURATION.md");
        let page = std::fs::read_to_string(path).expect("the page");
        let table = table();
        assert!(page.contains(&table), "docs/CONFIGURATION.md lacks this table:\n{table}");
    }

    #[test]
    fn names_are_unique_and_only_what_has_variables_says_what_they_take() {
        for (number, known) in SETTINGS.iter().enumerate() {
            let unique = SETTINGS[..number].iter().all(|other| other.name != known.name);
            assert!(unique, "{}", known.name);
            assert_eq!(known.takes.is_empty(), known.variables.is_empty(), "{}", known.name);
        }
    }
}
