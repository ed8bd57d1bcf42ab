use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use spanwire_batcher::{Batcher, Bounds, InvalidBounds, InvalidLimits, Queue};
use spanwire_codec::encode::EncodedResource;
use spanwire_model::{Resource, Scope, Text};
use spanwire_pool::{ChunkPool, ChunkSettings};
use spanwire_tracer::{Provider, Tracer};
use spanwire_transport::{
    InvalidConfig, InvalidRetrySettings, Protocol, RetryPolicy, Transport, TransportConfig,
};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::builder::Builder;
use crate::config::Config;
use crate::exporter::{Command, Exporter, Line, QueueOutlet, Reply, Shared, State};
use crate::stats::Stats;

/// Records spans and sends them to an OTLP collector.
///
/// Clones are the same client. It has a thread and a runtime of its own and can be made, used and
/// dropped anywhere: without a runtime, within one, in a destructor. Dropping the last clone shuts
/// it down, waiting for about [`Config::drop_timeout`] at most; tracers do not keep it alive.
///
/// ```no_run
/// use std::time::Duration;
/// use spanwire::Client;
///
/// let client = Client::builder()
///     .service_name("shop")
///     .endpoint("http://collector:4317")
///     .build()?;
/// let tracer = client.tracer("checkout");
/// tracer.in_span("charge card", |span| span.set_attribute("payment.amount", 4200));
///
/// let report = client.shutdown_blocking(Duration::from_secs(5));
/// assert!(report.complete, "{report}");
/// # Ok::<(), spanwire::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    provider: Provider,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    drop_timeout: Duration,
}

/// Why a client could not be made.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Endpoint, header, compression or TLS.
    #[error("cannot send to this endpoint with these settings")]
    Transport(#[from] InvalidConfig),
    /// Retry settings.
    #[error("unusable retry settings")]
    Retry(#[from] InvalidRetrySettings),
    /// Batch limits.
    #[error("unusable batch limits")]
    Batch(#[from] InvalidLimits),
    /// Memory for the queue.
    #[error("unusable memory limit")]
    Memory(#[from] InvalidBounds),
    /// No request may be in flight, so none could ever be sent.
    #[error("requests_in_flight_max must be at least 1")]
    NoRequests,
    /// Not even one full chunk would fit into the queue.
    #[error(
        "memory_bytes_max is {bytes}, too little for one chunk of spans; 1 MiB is a small value"
    )]
    TooLittleMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// Requests larger than OTLP lets a client send.
    #[error("request_bytes_max is {bytes}, more than the {REQUEST_BYTES_MAX} OTLP allows")]
    RequestBytes {
        /// What was asked for.
        bytes: usize,
    },
    /// Runtime or thread.
    #[error("cannot start the exporter's thread")]
    Thread(#[from] io::Error),
}

/// What a client may send, uncompressed ("Maximum Request Size" in `docs/specification.md`,
/// opentelemetry-proto v1.11.0).
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// Room for commands nobody has looked at yet; a caller beyond waits.
const COMMANDS_MAX: usize = 64;

/// As good as for ever, and no clock overflows: 30 years.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// What a reply may be late by, for a blocked caller's patience.
const REPLY_GRACE: Duration = Duration::from_secs(1);

impl Client {
    /// A builder with the defaults of [`Config`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client with these settings.
    ///
    /// # Errors
    ///
    /// [`BuildError`] for settings that cannot work. A collector that is not there is no error: spans
    /// wait for it within the limits.
    pub fn new(config: Config) -> Result<Self, BuildError> {
        let batch = &config.batch;
        let pool = ChunkPool::new(ChunkSettings {
            bytes_max: batch.memory_bytes_max,
            // Idle memory is of use up to what a queue can hold.
            trim_threshold_bytes: batch.queue_bytes(),
            ..ChunkSettings::default()
        });
        let retry = RetryPolicy::new(config.retry)?;
        let resource = EncodedResource::new(&resource(&config));
        let limits =
            spanwire_batcher::Limits::new(batch.spans_max, batch.request_bytes_max, batch.age_max)?
                .with_overhead(resource.request_len(0) + HEADER_GROWTH)?;
        if config.requests_in_flight_max == 0 {
            return Err(BuildError::NoRequests);
        }
        if batch.queue_bytes() < ChunkSettings::default().chunk_bytes {
            return Err(BuildError::TooLittleMemory { bytes: batch.memory_bytes_max });
        }
        if batch.request_bytes_max > REQUEST_BYTES_MAX {
            return Err(BuildError::RequestBytes { bytes: batch.request_bytes_max });
        }

        let queue_bytes = batch.queue_bytes();
        // As many slots as the smallest chunks could fill.
        let smallest = ChunkSettings::default().initial_bytes;
        let queue = Queue::new(Bounds::new((queue_bytes / smallest).max(1), queue_bytes)?);
        let wake_bytes = batch.request_bytes_max.min(queue_bytes) / 4;
        let shared = Arc::new(Shared::new(queue, batch.overflow, wake_bytes));
        let provider = Provider::builder()
            .sampler(config.sampler.clone())
            .limits(config.limits)
            .pool(pool)
            .build(QueueOutlet(Arc::clone(&shared)));

        let transport_config = transport_config(&config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut runtime = OwnRuntime(Some(runtime));
        let transport = runtime.enter(|| Transport::new(&transport_config))?;
        let exporter = Exporter {
            shared: Arc::clone(&shared),
            provider: provider.clone(),
            line: Arc::new(Line {
                transport,
                retry,
                retry_if: config.retry_if,
                permits: Semaphore::new(config.requests_in_flight_max),
            }),
            resource,
            request_bytes_max: batch.request_bytes_max,
            in_flight_bytes_max: batch.in_flight_bytes(),
            // An interval of zero would be a busy loop, and a panic in Tokio.
            tick: batch.age_max.clamp(Duration::from_millis(1), FOREVER),
            strategy: batch.strategy,
            batcher: Batcher::new(limits, batch.strategy),
            state: State::default(),
        };
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        std::thread::Builder::new()
            .name("spanwire-export".into())
            .spawn(move || runtime.run(exporter.run(received)))?;
        let drop_timeout = config.drop_timeout;
        Ok(Self { inner: Arc::new(Inner { provider, shared, commands, drop_timeout }) })
    }

    /// A tracer for a library of this name, the same one each time. It records as long as the client
    /// lives.
    #[must_use]
    pub fn tracer(&self, name: impl Into<Text>) -> Tracer {
        self.inner.provider.tracer(name)
    }

    /// A tracer for a scope with version, attributes or schema.
    #[must_use]
    pub fn tracer_of(&self, scope: &Scope) -> Tracer {
        self.inner.provider.tracer_of(scope)
    }

    /// Sends every span that has ended so far and waits until each is accepted or lost, at most
    /// `within`.
    ///
    /// Works on any runtime and without one.
    pub async fn flush(&self, within: Duration) -> Report {
        self.ask(within, |deadline, reply| Command::Flush { deadline, reply }).await
    }

    /// [`flush`](Self::flush) for code that is not async; blocks the thread.
    pub fn flush_blocking(&self, within: Duration) -> Report {
        self.inner.ask_blocking(within, |deadline, reply| Command::Flush { deadline, reply })
    }

    /// Sends what has ended so far, waits at most `within`, and stops: spans that end later are
    /// lost and counted. Once it is done, a second one returns at once.
    pub async fn shutdown(&self, within: Duration) -> Report {
        self.ask(within, |deadline, reply| Command::Shutdown { deadline, reply }).await
    }

    /// [`shutdown`](Self::shutdown) for code that is not async; blocks the thread.
    pub fn shutdown_blocking(&self, within: Duration) -> Report {
        self.inner.ask_blocking(within, |deadline, reply| Command::Shutdown { deadline, reply })
    }

    /// Where every span is; to be read at any time.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    async fn ask(
        &self,
        within: Duration,
        command: impl FnOnce(Instant, Reply) -> Command,
    ) -> Report {
        let (sender, receiver) = oneshot::channel();
        // The exporter keeps the deadline: the caller's runtime may have no timer.
        let reply = Box::new(move |report| {
            // A caller that was cancelled meanwhile wants no report.
            let _unheard = sender.send(report);
        });
        if self.inner.commands.send(command(deadline(within), reply)).await.is_err() {
            return self.inner.report_of_the_end();
        }
        receiver.await.unwrap_or_else(|_| self.inner.report_of_the_end())
    }
}

/// By the real clock: a caller's runtime may have another one, in tests.
fn deadline(within: Duration) -> Instant {
    Instant::from_std(std::time::Instant::now() + within.min(FOREVER))
}

/// The exporter's runtime, which may also be dropped within another one: where no client comes of it.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn enter<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let _entered = self.0.as_ref().map(Runtime::enter);
        work()
    }

    fn run(mut self, exporter: impl Future<Output = ()>) {
        if let Some(runtime) = self.0.take() {
            runtime.block_on(exporter);
        }
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Dropped as it is, it would panic within a runtime: it waits for its threads.
            runtime.shutdown_background();
        }
    }
}

/// Bytes by which the lengths in a request's header may grow with its spans.
const HEADER_GROWTH: usize = 10;

impl Inner {
    fn stats(&self) -> Stats {
        self.shared.stats(&self.provider)
    }

    fn ask_blocking(
        &self,
        within: Duration,
        command: impl FnOnce(Instant, Reply) -> Command,
    ) -> Report {
        let (sender, receiver) = sync_channel(1);
        let reply = Box::new(move |report| {
            // A caller whose patience has ended wants no report.
            let _unheard = sender.try_send(report);
        });
        // `blocking_send` would panic within a runtime; a full channel means 64 callers at once.
        if self.commands.try_send(command(deadline(within), reply)).is_err() {
            return self.report_of_the_end();
        }
        let patience = within.saturating_add(REPLY_GRACE);
        receiver.recv_timeout(patience).unwrap_or_else(|_| self.report_of_the_end())
    }

    /// For a caller whom nobody answers: after the end, or too late.
    fn report_of_the_end(&self) -> Report {
        let stats = self.stats();
        Report::between(&stats, &stats, stats.pending.total() == stats.pending.live)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let within = self.drop_timeout;
        let shutdown = |deadline, reply| Command::Shutdown { deadline, reply };
        // Nobody is left to read it; the counts were there to be read before.
        let _report = self.ask_blocking(within, shutdown);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.stats())
    }
}

/// What a flush or a shutdown achieved, in spans.
#[must_use = "says whether everything was delivered"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether all of it was settled, one way or the other, before the deadline.
    pub complete: bool,
    /// Accepted by the collector meanwhile.
    pub exported: u64,
    /// Refused by a partial success meanwhile.
    pub rejected: u64,
    /// Lost meanwhile, for whatever reason; [`Client::stats`] has the reasons.
    pub dropped: u64,
    /// Ended and still on their way.
    pub pending: u64,
}

impl Report {
    pub(crate) fn between(before: &Stats, after: &Stats, complete: bool) -> Self {
        Self {
            complete,
            exported: after.exported - before.exported,
            rejected: after.rejected - before.rejected,
            dropped: after.dropped.total() - before.dropped.total(),
            pending: after.pending.total() - after.pending.live,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exported, rejected, dropped, pending, .. } = self;
        let done = if self.complete { "complete" } else { "deadline passed" };
        write!(
            f,
            "{done}: {exported} exported, {rejected} rejected, {dropped} dropped, {pending} pending"
        )
    }
}

/// What is sent of where the client runs: what the code says over what is detected.
fn resource(config: &Config) -> Resource {
    let mut code =
        Resource { schema_url: config.resource.schema_url.clone(), ..Resource::default() };
    let named =
        [("service.name", &config.service_name), ("service.version", &config.service_version)];
    for (key, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
        code.attributes.set(key, value.clone());
    }
    for entry in &config.resource.attributes {
        code.attributes.set(entry.key.clone(), entry.value.clone());
    }
    match config.detect_resource {
        true => Resource::detect(|name| std::env::var(name).ok()).resource.merge(code),
        false => code,
    }
}

fn transport_config(config: &Config) -> Result<TransportConfig, InvalidConfig> {
    let localhost = match config.protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::HttpProtobuf | Protocol::HttpJson => "http://localhost:4318",
    };
    let endpoint = config.endpoint.as_deref().unwrap_or(localhost);
    let mut transport = TransportConfig::new(config.protocol, endpoint)?
        .compression(config.compression)?
        .compression_bytes_min(config.compression_bytes_min)
        .connect_timeout(config.connect_timeout)
        .request_timeout(config.request_timeout)
        .keep_alive(config.keep_alive_interval, config.keep_alive_timeout)
        .idle_connections(config.idle_connections_max, config.idle_timeout);
    for (name, value) in &config.headers {
        transport = transport.header(name, value)?;
    }
    Ok(transport)
}
