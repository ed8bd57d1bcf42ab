//! How variables are read that take more than one value of one type.

use spanwire_model::Resource;
use spanwire_tracer::propagation::Propagators;
use spanwire_tracer::sampler::{InvalidSampler, Sampler};
use spanwire_transport::{InvalidConfig, Proxy, TransportConfig};

use super::value::{self, Listed, Problem};
use super::{Draft, Variables, Warnings};
use crate::destination::Endpoint;
use crate::explain::shown;

/// The value of a variable.
pub(super) struct Given<'a> {
    pub(super) variable: &'static str,
    /// Not empty, without blanks around it.
    pub(super) text: &'a str,
    pub(super) variables: &'a Variables<'a>,
    pub(super) warnings: &'a mut Warnings,
}

impl Given<'_> {
    fn warn(&mut self, problem: Option<Problem>) {
        if let Some(problem) = problem {
            self.warnings.add(self.variable, problem);
        }
    }

    /// The entries that could be read, if any.
    pub(super) fn entries<T>(&mut self, listed: Listed<T>) -> Result<Vec<T>, Problem> {
        match listed {
            Listed { entries, problem } if entries.is_empty() => {
                Err(problem.unwrap_or_else(|| "it names nothing".into()))
            }
            Listed { entries, problem } => {
                self.warn(problem);
                Ok(entries)
            }
        }
    }

    /// A variable that goes with this one.
    fn other(&mut self, name: &'static str) -> Option<String> {
        self.variables.get(name, self.warnings)
    }

    pub(super) fn boolean(&mut self) -> bool {
        let (value, problem) = value::boolean(self.text);
        self.warn(problem);
        value
    }
}

/// What the text adds goes under all that code says: attributes, service name and version.
pub(super) fn resource(draft: &mut Draft, given: &mut Given<'_>) -> Result<(), Problem> {
    let found = Resource::parse_attributes(given.text).map_err(|error| error.to_string())?;
    let config = &mut draft.config;
    for entry in found.into_parts().0 {
        let named = match entry.key.as_str() {
            "service.name" => !config.service_name.is_empty(),
            "service.version" => !config.service_version.is_empty(),
            _ => false,
        };
        if !named && config.resource.attributes.get(entry.key.as_str()).is_none() {
            config.resource.attributes.set(entry.key, entry.value);
        }
    }
    Ok(())
}

pub(super) fn endpoint(draft: &mut Draft, given: &mut Given<'_>) -> Result<(), Problem> {
    let url = String::from(given.text);
    // The base is for all signals, the exact one for this.
    let endpoint = match given.variable {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Endpoint::Exact(url),
        _ => Endpoint::Base(url),
    };
    let endpoint = draft.otlp.with_scheme(endpoint);
    let checked = match &endpoint {
        Endpoint::Base(url) => TransportConfig::new(draft.otlp.protocol, url),
        Endpoint::Exact(url) => TransportConfig::with_url(draft.otlp.protocol, url),
    };
    match checked {
        // Rather an error than spans sent elsewhere, or in the clear.
        Ok(_) | Err(InvalidConfig::Tls) => {
            draft.otlp.endpoints = vec![endpoint];
            Ok(())
        }
        Err(InvalidConfig::Endpoint { reason, .. }) => Err(reason.into()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn sampler(draft: &mut Draft, given: &mut Given<'_>) -> Result<(), Problem> {
    let argument = given.other(SAMPLER_ARGUMENT);
    draft.config.sampler = match Sampler::named(given.text, argument.as_deref()) {
        Ok(sampler) => sampler,
        // "The implementation MUST behave as if OTEL_TRACES_SAMPLER_ARG is not set."
        Err(error @ InvalidSampler::Argument { .. }) => {
            let problem = format!("{}; ignored", shown(&error.to_string(), 200));
            given.warnings.add(SAMPLER_ARGUMENT, problem);
            error.fallback()
        }
        Err(error) => return Err(shown(&error.to_string(), 200)),
    };
    Ok(())
}

pub(super) const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

pub(super) fn propagators(draft: &mut Draft, given: &mut Given<'_>) -> Result<(), Problem> {
    let parsed = Propagators::parse(given.text);
    let names = given.text.split(',').filter(|name| !name.trim().is_empty()).count();
    let problem = parsed.refused.first().map(|refused| shown(&refused.to_string(), 200));
    match problem {
        Some(problem) if parsed.refused.len() == names => Err(problem),
        problem => {
            given.warn(problem);
            draft.config.propagators = parsed.propagators;
            Ok(())
        }
    }
}

/// Each variable that cannot be used is left out by itself.
pub(super) fn proxy(draft: &mut Draft, given: &mut Given<'_>) -> Result<(), Problem> {
    let mut left_out: Vec<&str> = Vec::new();
    loop {
        let lookup = |name: &str| match left_out.contains(&name) {
            true => None,
            false => given.variables.text(name),
        };
        match Proxy::environment(lookup) {
            Ok(proxy) => {
                draft.otlp.proxy = proxy;
                return Ok(());
            }
            Err(InvalidConfig::Proxy { setting, reason }) if !left_out.contains(&setting) => {
                given.warnings.add(setting, format!("{reason}; ignored"));
                left_out.push(setting);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

pub(super) fn exporters(draft: &mut Draft, given: &mut Given<'_>) -> Result<(), Problem> {
    let value::Exporters { says_none, listed } = value::exporters(given.text);
    draft.exporters = if says_none && listed.entries.is_empty() {
        given.warn(listed.problem);
        Vec::new()
    } else {
        given.entries(listed)?
    };
    Ok(())
}
