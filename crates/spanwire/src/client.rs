use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use spanwire_batcher::{Batcher, Bounds, InvalidBounds, InvalidLimits, Queue};
use spanwire_codec::encode::EncodedResource;
use spanwire_model::{Resource, Scope, Text};
use spanwire_pool::{ChunkPool, ChunkSettings};
use spanwire_tracer::propagation::Propagators;
use spanwire_tracer::{Provider, Tracer};
use spanwire_transport::{InvalidConfig, InvalidRetrySettings};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::builder::Builder;
use crate::config::Config;
use crate::destination::Destination;
use crate::explain::Explanation;
use crate::exporter::{Accounts, Command, Exporter, Reply, State};
use crate::line::Line;
use crate::shared::{QueueOutlet, Shared};
use crate::stats::Stats;
use crate::way::Way;

/// Records spans and sends them to an OTLP collector.
///
/// Clones are the same client. It has a thread and a runtime of its own and can be made, used and
/// dropped anywhere: without a runtime, within one, in a destructor. Dropping the last clone shuts
/// it down, waiting for [`Config::drop_timeout`] at most, and a second more while a callback of yours
/// blocks its thread; tracers do not keep it alive. In a fork of its process a client records and sends
/// nothing, and every call returns at once; the child may make a client of its own.
///
/// ```no_run
/// use std::time::Duration;
/// use spanwire::Client;
///
/// let client = Client::builder()
///     .service_name("shop")
///     .endpoint("http://collector:4318")
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
    accounts: Accounts,
    commands: mpsc::Sender<Command>,
    explanation: Explanation,
    propagators: Propagators,
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
    /// A file could not be opened.
    #[error("cannot write spans to {destination}")]
    Output {
        /// Where to.
        destination: String,
        /// Why not.
        source: io::Error,
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

/// Between two looks for that room, of a caller that blocks its thread.
const COMMAND_PAUSE: Duration = Duration::from_millis(1);

/// As good as for ever, and no clock overflows: 30 years.
pub(crate) const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

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
        Self::builder().environment(false).config(config).build()
    }

    pub(crate) fn explained(config: Config, explanation: Explanation) -> Result<Self, BuildError> {
        if config.disabled {
            return Ok(Self::disabled(&config, explanation));
        }
        config.diagnostics.explain(&explanation, std::time::Instant::now());
        let batch = &config.batch;
        let pool = ChunkPool::new(ChunkSettings {
            bytes_max: batch.memory_bytes_max,
            // Idle memory is of use up to what a queue can hold.
            trim_threshold_bytes: batch.queue_bytes(),
            ..ChunkSettings::default()
        });
        let resource = EncodedResource::new(&resource(&config));
        let limits =
            spanwire_batcher::Limits::new(batch.spans_max, batch.request_bytes_max, batch.age_max)?
                .with_overhead(resource.request_len(0) + HEADER_GROWTH)?;
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
        let shared =
            Arc::new(Shared::new(queue, batch.queue_spans_max, batch.overflow, wake_bytes));
        let provider = Provider::builder()
            .sampler(config.sampler.clone())
            .limits(config.limits)
            .pool(pool)
            .build(QueueOutlet(Arc::clone(&shared)));

        // Its blocking threads look names up and write files.
        let runtime =
            spanwire_runtime::Builder::current_thread().thread_name("spanwire-block").build()?;
        let runtime = OwnRuntime(Some(runtime));
        let lines = runtime.enter(|| lines(&config, &shared))?;
        let accounts = Accounts { shared, provider, lines, nowhere: Arc::default() };
        let exporter = Exporter {
            accounts: accounts.clone(),
            resource,
            in_flight_bytes_max: batch.in_flight_bytes(),
            // An interval of zero would be a busy loop, and a panic in Tokio.
            tick: batch.age_max.clamp(Duration::from_millis(1), FOREVER),
            strategy: batch.strategy,
            drop_timeout: config.drop_timeout,
            batcher: Batcher::new(limits, batch.strategy),
            diagnostics: config.diagnostics.clone(),
            state: State::default(),
        };
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        std::thread::Builder::new().name("spanwire-export".into()).spawn(move || {
            // What it records would be about the sending of what it records.
            spanwire_tracer::suppress_on_this_thread();
            runtime.run(exporter.run(received));
        })?;
        Ok(Self::of(accounts, commands, &config, explanation))
    }

    fn of(
        accounts: Accounts,
        commands: mpsc::Sender<Command>,
        config: &Config,
        explanation: Explanation,
    ) -> Self {
        let (propagators, drop_timeout) = (config.propagators.clone(), config.drop_timeout);
        let inner = Inner { accounts, commands, explanation, propagators, drop_timeout };
        Self { inner: Arc::new(inner) }
    }

    /// Records nothing, has no thread and no socket, and is as good as shut down.
    fn disabled(config: &Config, explanation: Explanation) -> Self {
        let provider = Provider::disabled();
        let shared = Arc::new(Shared::disabled());
        let accounts = Accounts { shared, provider, lines: Arc::new([]), nowhere: Arc::default() };
        // Nobody is there to answer a command, which callers take for the end.
        let (commands, _) = mpsc::channel(1);
        Self::of(accounts, commands, config, explanation)
    }

    /// A tracer for a library of this name, the same one each time. It records as long as the client
    /// lives.
    #[must_use]
    pub fn tracer(&self, name: impl Into<Text>) -> Tracer {
        self.inner.accounts.provider.tracer(name)
    }

    /// A tracer for a scope with version, attributes or schema.
    ///
    /// ```
    /// use spanwire::{Client, Config, Scope};
    ///
    /// # let client = Client::new(Config { destinations: Vec::new(), ..Config::default() })?;
    /// let scope = Scope { version: env!("CARGO_PKG_VERSION").into(), ..Scope::new("checkout") };
    /// let tracer = client.tracer_of(&scope);
    /// # tracer.start("span").end();
    /// # Ok::<(), spanwire::BuildError>(())
    /// ```
    #[must_use]
    pub fn tracer_of(&self, scope: &Scope) -> Tracer {
        self.inner.accounts.provider.tracer_of(scope)
    }

    /// Sends every span that has ended so far and waits until each is accepted or lost, at most
    /// `within`.
    ///
    /// Works on any runtime and without one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use spanwire::{Client, Config};
    ///
    /// # async fn before_the_process_is_frozen() -> Result<(), spanwire::BuildError> {
    /// let client = Client::new(Config::default())?;
    /// let report = client.flush(Duration::from_secs(2)).await;
    /// if !report.complete {
    ///     eprintln!("not all has arrived: {report}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
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

    /// Where every span is; to be read at any time. With several destinations this is the account
    /// of the first; [`stats_of_all`](Self::stats_of_all) has the others.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.accounts.stats().swap_remove(0)
    }

    /// Where every span is, for each destination in the order they were given.
    ///
    /// ```
    /// use spanwire::{Client, Config};
    ///
    /// let client = Client::new(Config { destinations: Vec::new(), ..Config::default() })?;
    /// for stats in client.stats_of_all() {
    ///     println!("{}: {stats}", stats.destination); // "none: 0 started = …"
    /// }
    /// # Ok::<(), spanwire::BuildError>(())
    /// ```
    #[must_use]
    pub fn stats_of_all(&self) -> Vec<Stats> {
        self.inner.accounts.stats()
    }

    /// Each setting in effect, and where it comes from.
    #[must_use]
    pub fn explain(&self) -> &Explanation {
        &self.inner.explanation
    }

    /// How contexts travel to other processes: what [`Config::propagators`] says.
    #[must_use]
    pub fn propagators(&self) -> &Propagators {
        &self.inner.propagators
    }

    async fn ask(
        &self,
        within: Duration,
        command: impl FnOnce(Instant, Reply) -> Command,
    ) -> Report {
        if self.inner.accounts.provider.is_inherited() {
            return Report::default();
        }
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
    fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.0.as_ref().map(Runtime::enter);
        work()
    }

    fn run(self, exporter: impl Future<Output = ()>) {
        if let Some(runtime) = &self.0 {
            runtime.block_on(exporter);
        }
        // And the drop does not wait for a write to a pipe that nobody reads.
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
    fn ask_blocking(
        &self,
        within: Duration,
        command: impl FnOnce(Instant, Reply) -> Command,
    ) -> Report {
        if self.accounts.provider.is_inherited() {
            return Report::default();
        }
        let (sender, receiver) = sync_channel(1);
        let reply = Box::new(move |report| {
            // A caller whose patience has ended wants no report.
            let _unheard = sender.try_send(report);
        });
        let since = std::time::Instant::now();
        let mut command = command(deadline(within), reply);
        // `blocking_send` would panic within a runtime; a full channel means 64 callers at once.
        while let Err(refused) = self.commands.try_send(command) {
            match refused {
                TrySendError::Full(again) if since.elapsed() < within => command = again,
                TrySendError::Full(_) | TrySendError::Closed(_) => return self.report_of_the_end(),
            }
            std::thread::sleep(COMMAND_PAUSE);
        }
        let patience = within.saturating_sub(since.elapsed()).saturating_add(REPLY_GRACE);
        receiver.recv_timeout(patience).unwrap_or_else(|_| self.report_of_the_end())
    }

    /// For a caller whom nobody answers: after the end, or too late.
    fn report_of_the_end(&self) -> Report {
        let stats = self.accounts.stats();
        let done = |stats: &Stats| stats.pending.total() == stats.pending.live;
        Report::between(&stats, &stats, stats.iter().all(done))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.accounts.provider.is_inherited() {
            // Never the last sender: the end of the channel would be told to a thread not in here.
            std::mem::forget(self.commands.clone());
            return;
        }
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

/// What a flush or a shutdown achieved, in spans. With several destinations a span counts once for
/// each.
#[non_exhaustive]
#[must_use = "says whether everything was delivered"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    pub(crate) fn between(before: &[Stats], after: &[Stats], complete: bool) -> Self {
        let start = Self { complete, ..Self::default() };
        before.iter().zip(after).fold(start, |sum, (before, after)| Self {
            complete,
            exported: sum.exported + after.exported - before.exported,
            rejected: sum.rejected + after.rejected - before.rejected,
            dropped: sum.dropped + after.dropped.total() - before.dropped.total(),
            pending: sum.pending + after.pending.total() - after.pending.live,
        })
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
        true => Resource::detect(surroundings).resource.merge(code),
        false => code,
    }
}

/// The environment but for the settings in it, which the configuration has or was told to leave.
fn surroundings(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|_| !name.starts_with("OTEL_"))
}

fn lines(config: &Config, shared: &Arc<Shared>) -> Result<Arc<[Arc<Line>]>, BuildError> {
    let share = config.batch.in_flight_bytes() / config.destinations.len().max(1);
    let request_bytes_max = config.batch.request_bytes_max;
    let line = |destination: &Destination| {
        let way = Way::new(destination, request_bytes_max)?;
        let (name, diagnostics) = (destination.to_string(), config.diagnostics.clone());
        Ok(Arc::new(Line::new(name, way, share, diagnostics, Arc::clone(shared))))
    };
    config.destinations.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Diagnostics;
    use crate::stats::Reason;

    /// Faults 128. What a panic took along, as it would by unwinding out of the gathering.
    #[test]
    fn spans_that_a_panic_of_the_exporter_took_along_are_counted() {
        let config = Config {
            destinations: Vec::new(),
            diagnostics: Diagnostics::off(),
            ..Config::default()
        };
        let client = Client::new(config).expect("valid");
        client.inner.accounts.shared.intake.gathered(7);
        let command = Command::Flush {
            deadline: deadline(FOREVER),
            reply: Box::new(|_| panic!("on the exporter's own thread")),
        };
        client.inner.commands.try_send(command).expect("room for a command");
        assert!(client.flush_blocking(Duration::from_secs(30)).complete);
        let stats = client.stats();
        assert_eq!((stats.dropped.by(Reason::Internal), stats.pending.in_flight), (7, 0));
    }

    /// Faults 131.
    #[test]
    fn callers_beyond_the_room_for_commands_wait_for_it_within_their_time() {
        let config = Config {
            destinations: Vec::new(),
            diagnostics: Diagnostics::off(),
            ..Config::default()
        };
        let client = Client::new(config).expect("valid");
        let accounts = client.inner.accounts.clone();
        client.tracer("crowd").start("span").end();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let busy = Command::Flush {
            deadline: deadline(FOREVER),
            reply: Box::new(move |_| assert!(released.recv().is_err())),
        };
        client.inner.commands.try_send(busy).expect("room for a command");
        let flush = || Command::Flush { deadline: deadline(FOREVER), reply: Box::new(drop) };
        while client.inner.commands.capacity() < COMMANDS_MAX {
            std::thread::yield_now();
        }
        while client.inner.commands.try_send(flush()).is_ok() {}
        client.tracer("crowd").start("span").end();
        let since = std::time::Instant::now();
        assert!(!client.flush_blocking(Duration::from_millis(20)).complete);
        assert!(since.elapsed() >= Duration::from_millis(20));
        std::thread::scope(|scope| {
            let last = scope.spawn(move || drop(client));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!last.is_finished());
            drop(release);
        });
        let stats = accounts.stats().swap_remove(0);
        assert_eq!(stats.dropped.by(Reason::NoDestination), 2, "{stats}");
    }

    /// Faults 128. Pitfall 11.
    #[test]
    fn an_exporter_that_panics_is_started_again_and_goes_on() {
        let config = Config {
            destinations: Vec::new(),
            diagnostics: Diagnostics::off(),
            ..Config::default()
        };
        let client = Client::new(config).expect("valid");
        let tracer = client.tracer("restart");
        for panics in 1..=2 {
            tracer.start("span").end();
            let command = Command::Flush {
                deadline: deadline(FOREVER),
                reply: Box::new(|_| panic!("on the exporter's own thread")),
            };
            client.inner.commands.try_send(command).expect("room for a command");
            tracer.start("span").end();
            let report = client.flush_blocking(Duration::from_secs(30));
            assert!(report.complete, "{report}");
            let stats = client.stats();
            assert_eq!(stats.restarts, panics);
            assert_eq!(stats.dropped.by(Reason::NoDestination), 2 * panics);
            assert!(stats.is_balanced(), "{stats}");
        }
    }
}
