use std::time::Duration;

use spanwire_batcher::Overflow;
use spanwire_model::{Limits, Text, Value};
use spanwire_tracer::Sampler;
use spanwire_transport::{Compression, Protocol, RetrySettings, SendError};

use crate::client::{BuildError, Client};
use crate::config::{BatchConfig, Config, RetryIf};

/// Sets up a [`Client`], one word a setting. What a setting means stands at [`Config`]'s fields.
#[must_use = "a builder does nothing until `build`"]
#[derive(Clone, Debug, Default)]
pub struct Builder {
    config: Config,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.config.$name = $name;
            self
        }
    )*};
}

impl Builder {
    /// Starts from these settings instead of the defaults.
    pub fn config(self, config: Config) -> Self {
        Self { config }
    }

    /// `service.name`.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.config.service_name = name.into();
        self
    }

    /// `service.version`.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.config.service_version = version.into();
        self
    }

    /// A further attribute of the resource.
    pub fn resource_attribute(
        mut self,
        key: impl Into<Text>,
        value: impl Into<Value<'static>>,
    ) -> Self {
        self.config.resource.attributes.set(key, value);
        self
    }

    /// The collector's base URL.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.config.endpoint = Some(url.into());
        self
    }

    /// Adds a header to every request.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.headers.push((name.into(), value.into()));
        self
    }

    /// Narrows what may be sent again.
    pub fn retry_if(
        mut self,
        allowed: impl Fn(&SendError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.config.retry_if = RetryIf::new(allowed);
        self
    }

    /// What happens when the queue is full.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.config.batch.overflow = overflow;
        self
    }

    setters! {
        /// How spans travel.
        protocol: Protocol,
        /// How requests are compressed.
        compression: Compression,
        /// Longest time for a connection to be made.
        connect_timeout: Duration,
        /// Longest time for one attempt to be answered.
        request_timeout: Duration,
        /// Time between two probes of an idle HTTP/2 connection.
        keep_alive_interval: Duration,
        /// Longest time for such a probe to be answered.
        keep_alive_timeout: Duration,
        /// Idle HTTP connections kept.
        idle_connections_max: usize,
        /// How long an idle HTTP connection is kept.
        idle_timeout: Duration,
        /// Requests below so many bytes are sent as they are.
        compression_bytes_min: usize,
        /// How long dropping the last client may wait.
        drop_timeout: Duration,
        /// Requests in flight at once.
        requests_in_flight_max: usize,
        /// When and how often a failed request is sent again.
        retry: RetrySettings,
        /// Which spans are recorded.
        sampler: Sampler,
        /// What one span may hold.
        limits: Limits,
        /// How spans are gathered.
        batch: BatchConfig,
        /// Whether to look for host, process, container and Kubernetes attributes.
        detect_resource: bool,
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// As [`Client::new`].
    pub fn build(self) -> Result<Client, BuildError> {
        Client::new(self.config)
    }
}
