use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use spanwire_batcher::Overflow;
use spanwire_model::{Limits, Text, Value};
use spanwire_tracer::Sampler;
use spanwire_tracer::propagation::Propagators;
use spanwire_transport::{Compression, Pem, Protocol, Proxy, RetrySettings, SendError};

use crate::client::{BuildError, Client};
use crate::config::{BatchConfig, Config};
use crate::destination::{Destination, Endpoint, RetryIf};
use crate::diagnostics::Diagnostics;
use crate::environment::{Draft, Environment};
use crate::explain::Explanation;

/// Sets up a [`Client`], one word a setting. What a setting means stands at the fields of [`Config`]
/// and [`Otlp`](crate::Otlp).
///
/// What is not set here comes from the environment, and from the defaults where that says nothing:
/// code, then `OTEL_EXPORTER_OTLP_TRACES_*`, then the general variables, then the default. Words for
/// how spans are sent are about the main destination, an OTLP collector;
/// [`destination`](Self::destination) adds others, which the environment does not change.
///
/// A struct given as a whole, such as a [`BatchConfig`], counts as set where it differs from the
/// defaults. Headers and attributes of the resource are the exception to it all: those of the
/// environment are added to those of the code, which win over equal ones.
///
/// ```
/// use std::time::Duration;
/// use spanwire::{Client, Compression, Destination};
///
/// let builder = Client::builder()
///     .service_name("shop")
///     .endpoint("http://collector:4318")
///     .compression(Compression::Gzip)
///     .request_timeout(Duration::from_secs(3))
///     .destination(Destination::Console);
/// let (config, explanation) = builder.resolve();
/// println!("{explanation}");
/// # assert_eq!(config.destinations.len(), 2);
/// ```
#[must_use = "a builder does nothing until `build`"]
#[derive(Clone, Debug, Default)]
pub struct Builder {
    draft: Draft,
    /// Names of the settings that hold in any case, even where they are as by default.
    set: BTreeSet<&'static str>,
    environment: Environment,
}

/// Words for fields of one struct, whose settings are named as the fields are.
macro_rules! setters {
    ($part:ident, $prefix:literal: $($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.draft.$part.$name = $name;
            self.mark(concat!($prefix, stringify!($name)))
        }
    )*};
}

impl Builder {
    /// Starts from these settings instead of the defaults. Of its destinations the first
    /// [`Destination::Otlp`] becomes the main one.
    pub fn config(mut self, config: Config) -> Self {
        self.draft = config.into();
        self.set.clear();
        self
    }

    /// Whether the environment has a say; by default it has.
    pub fn environment(mut self, environment: bool) -> Self {
        self.environment = if environment { Environment::Process } else { Environment::Nowhere };
        self
    }

    /// Looks variables up by this function instead of in the process's environment.
    pub fn environment_from(
        mut self,
        lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static,
    ) -> Self {
        self.environment = Environment::Function(Arc::new(lookup));
        self
    }

    /// `service.name`.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.draft.config.service_name = name.into();
        self.mark("service_name")
    }

    /// `service.version`.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.draft.config.service_version = version.into();
        self.mark("service_version")
    }

    /// A further attribute of the resource.
    pub fn resource_attribute(
        mut self,
        key: impl Into<Text>,
        value: impl Into<Value<'static>>,
    ) -> Self {
        self.draft.config.resource.attributes.set(key, value);
        self
    }

    /// The collector's base URL, in place of any given before.
    pub fn endpoint(mut self, url: impl Into<Endpoint>) -> Self {
        self.draft.otlp.endpoints = vec![url.into()];
        self.mark("otlp.endpoints")
    }

    /// A further collector, which shares the load with the ones before.
    pub fn further_endpoint(mut self, url: impl Into<Endpoint>) -> Self {
        self.draft.otlp.endpoints.push(url.into());
        self.mark("otlp.endpoints")
    }

    /// Adds a header to every request.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.draft.otlp.headers.push((name.into(), value.into()));
        self
    }

    /// Trusts certificates that lead to these, and no others.
    pub fn ca(mut self, certificates: Pem) -> Self {
        self.draft.otlp.ca = Some(certificates);
        self.mark("otlp.ca")
    }

    /// Shows a certificate, followed by those between it and its root, to a collector that asks for
    /// one.
    pub fn client_certificate(mut self, chain: Pem, key: Pem) -> Self {
        self.draft.otlp.client_certificate = Some(chain);
        self.draft.otlp.client_key = Some(key);
        self.mark("otlp.client_certificate").mark("otlp.client_key")
    }

    /// Expects the collector's certificate to be for this name.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.draft.otlp.server_name = Some(name.into());
        self.mark("otlp.server_name")
    }

    /// Narrows what may be sent again.
    pub fn retry_if(
        mut self,
        allowed: impl Fn(&SendError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.draft.otlp.retry_if = RetryIf::new(allowed);
        self.mark("otlp.retry_if")
    }

    /// When and how often a failed request is sent again.
    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.draft.otlp.retry = retry;
        self
    }

    /// A further destination, which gets every span too. The environment does not change it.
    pub fn destination(mut self, destination: impl Into<Destination>) -> Self {
        self.draft.further.push(destination.into());
        self
    }

    /// These destinations and no others, whatever `OTEL_TRACES_EXPORTER` says. The first
    /// [`Destination::Otlp`] becomes the main one: words about that one belong after this one.
    pub fn destinations(mut self, destinations: impl IntoIterator<Item = Destination>) -> Self {
        self.draft.set_destinations(destinations.into_iter().collect());
        self.set.retain(|name| !name.starts_with("otlp."));
        self.mark("destinations")
    }

    /// How spans are gathered.
    pub fn batch(mut self, batch: BatchConfig) -> Self {
        self.draft.config.batch = batch;
        self
    }

    /// What happens when the queue is full.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.draft.config.batch.overflow = overflow;
        self.mark("batch.overflow")
    }

    /// What one span may hold.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.draft.config.limits = limits;
        self
    }

    setters! { otlp, "otlp.":
        /// How spans travel.
        protocol: Protocol,
        /// Whether a gRPC endpoint without a scheme is `http` rather than `https`.
        insecure: bool,
        /// The proxies on the way.
        proxy: Proxy,
        /// How requests are compressed.
        compression: Compression,
        /// Requests below so many bytes are sent as they are.
        compression_bytes_min: usize,
        /// Longest time for a connection to be made.
        connect_timeout: Duration,
        /// Longest time for one attempt to be answered; zero is no limit.
        request_timeout: Duration,
        /// Time between two probes of an HTTP/2 connection that owes an answer.
        keep_alive_interval: Duration,
        /// Longest time for such a probe to be answered.
        keep_alive_timeout: Duration,
        /// Idle HTTP connections kept.
        idle_connections_max: usize,
        /// How long an idle HTTP connection is kept.
        idle_timeout: Duration,
        /// How long a connection is used before it is made anew; zero is no limit.
        connection_age_max: Duration,
        /// Requests in flight at once.
        requests_in_flight_max: usize,
    }

    setters! { config, "":
        /// Which spans are recorded.
        sampler: Sampler,
        /// Which headers contexts travel in.
        propagators: Propagators,
        /// Whether to look for host, process, container and Kubernetes attributes.
        detect_resource: bool,
        /// How long dropping the last client may wait.
        drop_timeout: Duration,
        /// Where the exporter says what people should know.
        diagnostics: Diagnostics,
        /// Records nothing and starts nothing.
        disabled: bool,
    }

    /// The settings that [`build`](Self::build) would use, and where each comes from.
    #[must_use]
    pub fn resolve(&self) -> (Config, Explanation) {
        self.draft.clone().resolve(&self.set, &|name| self.environment.get(name))
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// As [`Client::new`].
    pub fn build(self) -> Result<Client, BuildError> {
        let (config, explanation) = self.resolve();
        Client::explained(config, explanation)
    }

    fn mark(mut self, setting: &'static str) -> Self {
        self.set.insert(setting);
        self
    }
}
