//! From what code has set and what the environment says to the settings in effect.
//!
//! Pure: variables come in by a function. Sources: `configuration/sdk-environment-variables.md`,
//! `configuration/common.md` and `protocol/exporter.md`, opentelemetry-specification v1.60.

mod read;
mod settings;
mod show;
mod value;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use spanwire_transport::Protocol;

use self::read::{Given, SAMPLER_ARGUMENT};
use self::settings::SETTINGS;
use crate::config::Config;
use crate::destination::{Destination, Endpoint, Otlp};
use crate::explain::{Explanation, Setting, Source, Warning};

/// Where variables are looked up.
#[derive(Clone, Default)]
pub(crate) enum Environment {
    #[default]
    Process,
    Nowhere,
    Function(Arc<Lookup>),
}

pub(crate) type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

impl Environment {
    pub(crate) fn get(&self, name: &str) -> Option<OsString> {
        match self {
            Self::Process => std::env::var_os(name),
            Self::Nowhere => None,
            Self::Function(lookup) => lookup(name),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "Process",
            Self::Nowhere => "Nowhere",
            Self::Function(_) => "Function",
        })
    }
}

/// A member of what `OTEL_TRACES_EXPORTER` stands for.
#[derive(Clone, Debug)]
pub(crate) enum Exporter {
    /// The [`Otlp`] of a [`Draft`].
    Main,
    Other(Destination),
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => f.write_str("otlp"),
            Self::Other(destination) => destination.fmt(f),
        }
    }
}

/// Settings on their way, with the main OTLP destination apart: variables and the builder's words
/// are about that one.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// All but the destinations.
    pub(crate) config: Config,
    pub(crate) otlp: Otlp,
    pub(crate) exporters: Vec<Exporter>,
    /// Destinations beside these, which only code can have.
    pub(crate) further: Vec<Destination>,
}

impl Default for Draft {
    fn default() -> Self {
        Config::default().into()
    }
}

impl From<Config> for Draft {
    fn from(mut config: Config) -> Self {
        let destinations = std::mem::take(&mut config.destinations);
        let mut draft =
            Self { config, otlp: Otlp::default(), exporters: Vec::new(), further: Vec::new() };
        draft.set_destinations(destinations);
        draft
    }
}

impl Draft {
    /// The first OTLP destination becomes the main one.
    pub(crate) fn set_destinations(&mut self, destinations: Vec<Destination>) {
        let mut main = None;
        self.further.clear();
        self.exporters = destinations
            .into_iter()
            .map(|destination| match destination {
                Destination::Otlp(otlp) if main.is_none() => {
                    main = Some(*otlp);
                    Exporter::Main
                }
                other => Exporter::Other(other),
            })
            .collect();
        self.otlp = main.unwrap_or_default();
    }

    /// The settings in effect: what code says, which is what differs from the defaults and what is
    /// in `set`, over what `lookup` finds, over the defaults.
    pub(crate) fn resolve(
        mut self,
        set: &BTreeSet<&'static str>,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> (Config, Explanation) {
        let defaults = Self::default();
        let in_code: Vec<bool> = SETTINGS
            .iter()
            .map(|known| set.contains(known.name) || (known.show)(&self) != (known.show)(&defaults))
            .collect();
        let variables = Variables { lookup };
        let mut warnings = Warnings::default();
        let mut sources = Vec::with_capacity(SETTINGS.len());
        for (known, in_code) in SETTINGS.iter().zip(in_code) {
            let unset = if in_code { Source::Code } else { Source::Default };
            if in_code && !known.merges {
                sources.push(unset);
                continue;
            }
            let taken = known.variables.iter().find(|variable| {
                let Some(text) = variables.get(variable, &mut warnings) else { return false };
                let mut given =
                    Given { variable, text: &text, variables: &variables, warnings: &mut warnings };
                match (known.read)(&mut self, &mut given) {
                    Ok(()) => true,
                    Err(problem) => {
                        let takes = known.takes;
                        warnings.add(variable, format!("{problem}; ignored, as it takes {takes}"));
                        false
                    }
                }
            });
            sources.push(match taken {
                Some(variable) if in_code => Source::CodeAnd(variable),
                Some(variable) => Source::Variable(variable),
                None => unset,
            });
        }
        self.settle(&mut sources, &variables, &mut warnings);
        let settings = SETTINGS
            .iter()
            .zip(sources)
            // How to talk to a collector is not in effect where there is none.
            .filter(|(known, _)| self.has_main() || !known.name.starts_with("otlp."))
            .map(|(known, source)| Setting { name: known.name, value: (known.show)(&self), source })
            .collect();
        (self.into_config(), Explanation { settings, warnings: warnings.0 })
    }

    /// What concerns several settings at once.
    fn settle(
        &mut self,
        sources: &mut [Source],
        variables: &Variables<'_>,
        warnings: &mut Warnings,
    ) {
        self.otlp.endpoints = self.otlp.addresses();
        if self.has_main() {
            self.check_ports(warnings);
            self.check_identity(warnings);
        }

        // One variable may say several things.
        for (name, key) in [("service_name", SERVICE_NAME), ("service_version", SERVICE_VERSION)] {
            let source = source_of(sources, name);
            if *source == Source::Default && self.config.resource.attributes.get(key).is_some() {
                *source = Source::Variable("OTEL_RESOURCE_ATTRIBUTES");
            }
        }

        let batch = &mut self.config.batch;
        if let Some(queue) = batch.queue_spans_max.filter(|queue| *queue < batch.spans_max) {
            // "Must be less than or equal to OTEL_BSP_MAX_QUEUE_SIZE."
            let queue_source = *source_of(sources, "batch.queue_spans_max");
            let source = source_of(sources, "batch.spans_max");
            if *source == Source::Default {
                *source = queue_source;
            } else {
                let spans = batch.spans_max;
                let problem = format!("{spans} is more than the queue's {queue}, which is used");
                warnings.add("batch.spans_max", problem);
            }
            batch.spans_max = queue;
        }

        if variables.is_set(SAMPLER_ARGUMENT) && !variables.is_set("OTEL_TRACES_SAMPLER") {
            let problem = "of no effect without OTEL_TRACES_SAMPLER";
            warnings.add(SAMPLER_ARGUMENT, problem.into());
        }
        for name in ["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"] {
            if variables.is_set(name) {
                let problem = "configuration files are not supported; the other variables are used";
                warnings.add(name, problem.into());
            }
        }
    }

    /// A certificate without its key is as good as none, and the other way round.
    fn check_identity(&mut self, warnings: &mut Warnings) {
        let Otlp { client_certificate, client_key, .. } = &self.otlp;
        let alone = match (client_certificate, client_key) {
            (Some(_), None) => ("otlp.client_certificate", "otlp.client_key"),
            (None, Some(_)) => ("otlp.client_key", "otlp.client_certificate"),
            _ => return,
        };
        warnings.add(alone.0, format!("of no effect without {}", alone.1));
    }

    /// The two protocols have a port each, and mixing them up is the commonest mistake.
    fn check_ports(&self, warnings: &mut Warnings) {
        let (protocol, other_port, usual, meant) = match self.otlp.protocol {
            Protocol::Grpc => ("grpc", "4318", "HTTP", "http/protobuf"),
            Protocol::HttpProtobuf => ("http/protobuf", "4317", "gRPC", "grpc"),
            Protocol::HttpJson => ("http/json", "4317", "gRPC", "grpc"),
        };
        if self.otlp.endpoints.iter().any(|endpoint| port(endpoint) == Some(other_port)) {
            let problem = format!(
                "{other_port} is the usual port of {usual}, and the protocol is {protocol}; \
                 OTEL_EXPORTER_OTLP_PROTOCOL={meant} or another port is probably meant"
            );
            warnings.add("otlp.endpoints", problem);
        }
    }

    fn has_main(&self) -> bool {
        self.exporters.iter().any(|exporter| matches!(exporter, Exporter::Main))
    }

    fn into_config(self) -> Config {
        let Self { mut config, otlp, exporters, further } = self;
        let mut otlp = Some(otlp);
        let exporters = exporters.into_iter().filter_map(|exporter| match exporter {
            Exporter::Main => otlp.take().map(Destination::from),
            Exporter::Other(destination) => Some(destination),
        });
        config.destinations = exporters.chain(further).collect();
        config
    }
}

const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";

/// The source of the setting of this name, one of [`SETTINGS`].
fn source_of<'a>(sources: &'a mut [Source], name: &str) -> &'a mut Source {
    let at = SETTINGS.iter().position(|known| known.name == name);
    &mut sources[at.expect("the name stands in the table")]
}

fn port(endpoint: &Endpoint) -> Option<&str> {
    let (_, rest) = endpoint.url().split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once(':')?.1)
}

/// Variables as texts.
struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

/// No variable needs more; what is longer was not meant for us.
const VALUE_BYTES_MAX: usize = 64 << 10;

impl Variables<'_> {
    /// `None` where it is unset, empty, or no text that could be used; the latter with a warning.
    fn get(&self, name: &'static str, warnings: &mut Warnings) -> Option<String> {
        let value = (self.lookup)(name)?;
        if value.len() > VALUE_BYTES_MAX {
            warnings.add(name, format!("longer than {VALUE_BYTES_MAX} bytes; it is ignored"));
            return None;
        }
        match value.into_string() {
            // An empty one counts as unset ("Parsing empty value").
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(_) => {
                warnings.add(name, "not UTF-8; it is ignored".into());
                None
            }
        }
    }

    /// As [`get`](Self::get), without a warning.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name)?.into_string().ok().filter(|text| text.len() <= VALUE_BYTES_MAX)
    }

    fn is_set(&self, name: &str) -> bool {
        (self.lookup)(name).is_some_and(|value| !value.is_empty())
    }
}

/// Each once, in the order in which they came up.
#[derive(Default)]
struct Warnings(Vec<Warning>);

impl Warnings {
    fn add(&mut self, about: &'static str, problem: String) {
        let warning = Warning { about, problem };
        // A general variable may stand behind several settings.
        if !self.0.contains(&warning) {
            self.0.push(warning);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;
    use spanwire_transport::{InvalidConfig, RetryPolicy};

    use super::*;

    /// Values that some variable understands, or nearly.
    const HINTS: &[&str] = &[
        "",
        "0",
        "1",
        "4294967295",
        "-1",
        "true",
        "none",
        "grpc",
        "http/json",
        "brotli",
        "h:4317",
        "http://h:4318",
        "https://h",
        "unix:/x",
        "http://[::1",
        "a=1,b=%41,c",
        "console,none,file:///%20,otlp",
        "traceidratio",
        "0.5",
        "b3,jaeger",
        "debug",
        "socks5://u:p@h",
        "http://u:p@h:1",
    ];

    fn variables() -> impl Strategy<Value = Vec<Option<OsString>>> {
        let names = SETTINGS.iter().flat_map(|known| known.variables).count() + OTHERS.len();
        let value = prop_oneof![
            4 => Just(None),
            4 => prop::sample::select(HINTS).prop_map(|hint| Some(hint.into())),
            1 => "\\PC{0,40}".prop_map(|text| Some(text.into())),
            1 => prop::collection::vec(any::<u8>(), 0..40)
                .prop_map(|bytes| Some(OsString::from_vec(bytes))),
        ];
        prop::collection::vec(value, names)
    }

    const OTHERS: [&str; 4] = [SAMPLER_ARGUMENT, "NO_PROXY", "REQUEST_METHOD", "OTEL_CONFIG_FILE"];

    proptest! {
        /// Faults 139.
        #[test]
        fn any_environment_gives_settings_that_work(values in variables()) {
            let names = SETTINGS.iter().flat_map(|known| known.variables).chain(&OTHERS);
            let variables: Vec<_> = names.zip(values).collect();
            let lookup = |name: &str| {
                variables.iter().find(|(known, _)| **known == name)?.1.clone()
            };
            let (config, explanation) = Config::from_environment(lookup);
            for destination in &config.destinations {
                if let Destination::Otlp(otlp) = destination {
                    let transport = otlp.transport_config();
                    // Not every build has TLS; that is an error rather than plain text.
                    let works = matches!(transport, Ok(_) | Err(InvalidConfig::Tls));
                    prop_assert!(works, "{:?}", transport);
                    prop_assert!(RetryPolicy::new(otlp.retry).is_ok());
                }
            }
            let batch = &config.batch;
            prop_assert!(batch.spans_max > 0);
            prop_assert!(batch.queue_spans_max.is_none_or(|queue| queue >= batch.spans_max));
            prop_assert!(explanation.to_string().len() < 20_000);
            prop_assert!(explanation.settings().len() <= SETTINGS.len());
        }
    }
}
