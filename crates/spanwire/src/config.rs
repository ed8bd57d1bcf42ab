use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use spanwire_batcher::{Overflow, Strategy};
use spanwire_model::{Limits, Resource};
use spanwire_tracer::Sampler;
use spanwire_transport::{Compression, Protocol, RetrySettings, SendError};

/// Everything that can be set on a [`Client`](crate::Client).
///
/// ```
/// use std::time::Duration;
/// use spanwire::{Client, Config, Overflow};
///
/// let mut config = Config::production();
/// config.service_name = "shop".into();
/// config.batch.overflow = Overflow::Block { timeout: Duration::from_millis(50) };
/// let client = Client::new(config)?;
/// # client.shutdown_blocking(Duration::ZERO);
/// # Ok::<(), spanwire::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// `service.name`; `unknown_service:` and the process's name where empty.
    pub service_name: String,
    /// `service.version`; left out where empty.
    pub service_version: String,
    /// Further attributes of the resource. They win over `service_name` and over what is detected.
    pub resource: Resource,
    /// Whether to look for host, process, container and Kubernetes attributes at start.
    pub detect_resource: bool,
    /// How spans travel; gRPC by default.
    pub protocol: Protocol,
    /// The collector's base URL, to which HTTP appends `v1/traces`; by default the standard port
    /// on localhost, 4317 for gRPC and 4318 for HTTP.
    pub endpoint: Option<String>,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// How requests are compressed.
    pub compression: Compression,
    /// Requests below so many bytes are sent as they are.
    pub compression_bytes_min: usize,
    /// Longest time for a connection to be made.
    pub connect_timeout: Duration,
    /// Longest time for one attempt to be answered.
    pub request_timeout: Duration,
    /// Time between two probes of an idle HTTP/2 connection.
    pub keep_alive_interval: Duration,
    /// Longest time for such a probe to be answered.
    pub keep_alive_timeout: Duration,
    /// Idle HTTP connections kept.
    pub idle_connections_max: usize,
    /// How long an idle HTTP connection is kept.
    pub idle_timeout: Duration,
    /// Requests in flight at once: throughput is at most this many requests in one round trip.
    pub requests_in_flight_max: usize,
    /// When and how often a failed request is sent again.
    pub retry: RetrySettings,
    /// Narrows what OTLP allows to be sent again.
    pub retry_if: RetryIf,
    /// Which spans are recorded.
    pub sampler: Sampler,
    /// What one span may hold.
    pub limits: Limits,
    /// How spans are gathered.
    pub batch: BatchConfig,
    /// How long dropping the last [`Client`](crate::Client) may wait for what is still to be sent.
    pub drop_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_name: String::new(),
            service_version: String::new(),
            resource: Resource::default(),
            detect_resource: true,
            protocol: Protocol::Grpc,
            endpoint: None,
            headers: Vec::new(),
            compression: Compression::None,
            // Below it the headers outweigh what compression saves.
            compression_bytes_min: 1 << 10,
            connect_timeout: Duration::from_secs(5),
            // "OTLP Exporter Configuration", opentelemetry-specification v1.60: 10 s.
            request_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
            idle_connections_max: 4,
            idle_timeout: Duration::from_secs(90),
            requests_in_flight_max: 4,
            retry: RetrySettings::default(),
            retry_if: RetryIf::default(),
            sampler: Sampler::default(),
            limits: Limits::default(),
            batch: BatchConfig::default(),
            drop_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Settings for production, where the network costs more than the processor and an outage of the
    /// collector should be survived: gzip, more requests in flight, and four times the memory.
    #[must_use]
    pub fn production() -> Self {
        let batch = BatchConfig::default();
        Self {
            compression: Compression::Gzip,
            requests_in_flight_max: 8,
            batch: BatchConfig { memory_bytes_max: 4 * batch.memory_bytes_max, ..batch },
            drop_timeout: Duration::from_secs(10),
            ..Self::default()
        }
    }
}

/// How finished spans are gathered, and what happens when there are too many.
#[derive(Clone, Debug)]
pub struct BatchConfig {
    /// Most spans in a request.
    pub spans_max: usize,
    /// Most bytes in a request, uncompressed; by default 4 MiB, what servers usually take.
    pub request_bytes_max: usize,
    /// How long a span waits for others at most.
    pub age_max: Duration,
    /// What completes a batch.
    pub strategy: Strategy,
    /// What happens when the queue is full.
    pub overflow: Overflow,
    /// Most bytes of memory for spans on their way, all places together. Compressed copies of
    /// requests in flight come on top.
    pub memory_bytes_max: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            spans_max: 8192,
            request_bytes_max: 4 << 20,
            age_max: Duration::from_secs(1),
            strategy: Strategy::Hybrid,
            overflow: Overflow::DropNewest,
            memory_bytes_max: 64 << 20,
        }
    }
}

/// The parts of [`BatchConfig::memory_bytes_max`], in eighths.
impl BatchConfig {
    /// Full chunks that wait: where a burst goes.
    pub(crate) fn queue_bytes(&self) -> usize {
        self.memory_bytes_max / 8 * 5
    }

    /// Batches being sent or waiting to be sent again.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.memory_bytes_max / 8 * 2
    }

    // What is left, an eighth, is for the chunks that threads are filling.
}

/// A further condition for sending a failed request again.
///
/// It can only forbid: what OTLP does not allow to be repeated never is.
#[derive(Clone, Default)]
pub struct RetryIf(Option<Arc<Allowed>>);

type Allowed = dyn Fn(&SendError) -> bool + Send + Sync;

impl RetryIf {
    /// Retries only failures for which `allowed` says so.
    pub fn new(allowed: impl Fn(&SendError) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(allowed)))
    }

    pub(crate) fn allows(&self, error: &SendError) -> bool {
        self.0.as_ref().is_none_or(|allowed| allowed(error))
    }
}

impl fmt::Debug for RetryIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "RetryIf(a function)"
        } else {
            "RetryIf(as OTLP has it)"
        })
    }
}
