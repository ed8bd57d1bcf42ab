use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use spanwire_batcher::{Overflow, Strategy};
use spanwire_model::{Limits, Resource};
use spanwire_tracer::Sampler;
use spanwire_tracer::propagation::Propagators;
use spanwire_transport::Compression;

use crate::destination::{Destination, Otlp};
use crate::diagnostics::Diagnostics;
use crate::environment::Draft;
use crate::explain::Explanation;

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
    /// Where spans go. Each destination gets every span, and has a share of the memory for requests,
    /// retries and an account of its own. One whose share is used up holds the others back until it
    /// has settled nothing for five seconds, or the queue is half full (with
    /// [`Overflow::Block`] only the former); from then on it loses spans for itself alone. None:
    /// spans are recorded, dropped and counted.
    pub destinations: Vec<Destination>,
    /// Which spans are recorded.
    pub sampler: Sampler,
    /// What one span may hold.
    pub limits: Limits,
    /// Which headers contexts travel in; for whoever reads and writes headers with
    /// [`Propagators`].
    pub propagators: Propagators,
    /// How spans are gathered.
    pub batch: BatchConfig,
    /// How long dropping the last [`Client`](crate::Client) may wait for what is still to be sent.
    pub drop_timeout: Duration,
    /// Where the exporter says what people should know.
    pub diagnostics: Diagnostics,
    /// Records nothing and starts nothing, as `OTEL_SDK_DISABLED` has it.
    pub disabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_name: String::new(),
            service_version: String::new(),
            resource: Resource::default(),
            detect_resource: true,
            destinations: vec![Destination::default()],
            sampler: Sampler::default(),
            limits: Limits::default(),
            propagators: Propagators::default(),
            batch: BatchConfig::default(),
            drop_timeout: Duration::from_secs(5),
            diagnostics: Diagnostics::default(),
            disabled: false,
        }
    }
}

impl Config {
    /// The defaults with what the environment says over them, as `lookup` finds it, and what came
    /// of it.
    ///
    /// Nothing in the environment can fail this or make a configuration that is refused for its
    /// form: what cannot be used is ignored, and [`Explanation::warnings`] says so.
    ///
    /// ```
    /// use spanwire::{Client, Config};
    ///
    /// let (mut config, explanation) = Config::from_environment(|name| std::env::var_os(name));
    /// config.service_name = "shop".into();
    /// for warning in explanation.warnings() {
    ///     eprintln!("{warning}");
    /// }
    /// # let _ = config;
    /// ```
    ///
    /// Which variables there are stands in `docs/CONFIGURATION.md`.
    #[must_use]
    pub fn from_environment(lookup: impl Fn(&str) -> Option<OsString>) -> (Self, Explanation) {
        Draft::default().resolve(&BTreeSet::new(), &lookup)
    }

    /// Settings for production, where the network costs more than the processor and an outage of the
    /// collector should be survived: gzip, more requests in flight, and four times the memory.
    #[must_use]
    pub fn production() -> Self {
        let batch = BatchConfig::default();
        let otlp =
            Otlp { compression: Compression::Gzip, requests_in_flight_max: 8, ..Otlp::default() };
        Self {
            destinations: vec![otlp.into()],
            batch: BatchConfig { memory_bytes_max: 4 * batch.memory_bytes_max, ..batch },
            drop_timeout: Duration::from_secs(10),
            ..Self::default()
        }
    }
}

/// How finished spans are gathered, and what happens when there are too many.
///
/// ```
/// use std::time::Duration;
/// use spanwire::{BatchConfig, Overflow};
///
/// // A job that must not lose a span, and has the time to wait for a slow collector.
/// let batch = BatchConfig {
///     overflow: Overflow::Block { timeout: Duration::from_secs(30) },
///     memory_bytes_max: 16 << 20,
///     ..BatchConfig::default()
/// };
/// assert_eq!(batch.spans_max, 4096);
/// ```
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
    /// Most spans that wait for the exporter. None: as many as
    /// [`memory_bytes_max`](Self::memory_bytes_max) has room for, which is a bound in any case.
    ///
    /// Spans are queued a chunk at a time, some 150 of them, so the queue is full when one more
    /// chunk would be too much.
    pub queue_spans_max: Option<usize>,
    /// What happens when the queue is full, or the memory is used up. A thread that
    /// [blocks](Overflow::Block) waits for each of the two as long as the timeout says, once in a chunk.
    pub overflow: Overflow,
    /// Most bytes of memory for spans on their way, all places together. Compressed copies of
    /// requests in flight come on top, and the JSON of those that go as `http/json`.
    pub memory_bytes_max: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            // Twice as many, and a request is out of the cache by the time it is sent. Half as many,
            // and over a round trip of 50 ms four requests in flight are less than 300,000 spans a
            // second.
            spans_max: 4096,
            request_bytes_max: 4 << 20,
            age_max: Duration::from_secs(1),
            strategy: Strategy::Hybrid,
            queue_spans_max: None,
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

    // What is left, an eighth, is for the chunks that threads are filling; the provider shares it out.
}
