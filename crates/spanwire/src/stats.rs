use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use spanwire_tracer::{Loss, RecordStats};

/// Why spans were lost.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The queue was full: the collector is slower than the application, or away.
    QueueFull,
    /// The memory for chunks was used up, by more threads than it was sized for.
    Memory,
    /// They ended after the shutdown, or could not be sent before its deadline.
    Shutdown,
    /// A span alone is larger than a request may be or than the queue, or a request larger than the
    /// collector takes.
    TooLarge,
    /// The collector refused them for good, or `RetryIf` forbade another attempt.
    Refused,
    /// Every attempt allowed has failed.
    RetriesExhausted,
    /// The file or stream could not be written.
    WriteFailed,
    /// There is no destination, as `OTEL_TRACES_EXPORTER=none` has it.
    NoDestination,
    /// The request could not be put together, or a callback panicked.
    Internal,
}

impl Reason {
    /// Each reason.
    pub const ALL: &'static [Self] = &[
        Self::QueueFull,
        Self::Memory,
        Self::Shutdown,
        Self::TooLarge,
        Self::Refused,
        Self::RetriesExhausted,
        Self::WriteFailed,
        Self::NoDestination,
        Self::Internal,
    ];

    /// A name for metrics: lower case, with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Memory => "memory",
            Self::Shutdown => "shutdown",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::RetriesExhausted => "retries_exhausted",
            Self::WriteFailed => "write_failed",
            Self::NoDestination => "no_destination",
            Self::Internal => "internal",
        }
    }
}

impl From<Loss> for Reason {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::QueueFull => Self::QueueFull,
            Loss::Memory => Self::Memory,
            Loss::Shutdown => Self::Shutdown,
            _ => Self::Internal,
        }
    }
}

/// Spans lost, by [`Reason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped([u64; Reason::ALL.len()]);

impl Dropped {
    /// Lost for this reason.
    #[must_use]
    pub fn by(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// Lost for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons there were, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().copied().zip(self.0).filter(|&(_, spans)| spans > 0)
    }
}

/// Spans on their way, by where they are.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Started and not ended.
    pub live: u64,
    /// Ended, in a chunk that is not full or is being handed over.
    pub in_chunks: u64,
    /// In full chunks that wait for the exporter.
    pub queued: u64,
    /// In batches: being gathered, sent, or waiting to be sent again.
    pub in_flight: u64,
}

impl Pending {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.live + self.in_chunks + self.queued + self.in_flight
    }
}

/// Where every span is on its way to one destination, in spans. Each stage counts its own.
///
/// `started = exported + rejected + dropped + pending` holds whenever nothing moves, and
/// [`is_balanced`](Self::is_balanced) says so.
///
/// ```
/// use std::time::Duration;
/// use spanwire::{Client, Config, Reason};
///
/// let client = Client::new(Config { destinations: Vec::new(), ..Config::default() })?;
/// client.tracer("shop").start("checkout").end();
/// assert!(client.shutdown_blocking(Duration::from_secs(5)).complete);
/// let stats = client.stats();
/// assert!(stats.is_balanced());
/// assert_eq!(stats.dropped.by(Reason::NoDestination), 1);
/// # Ok::<(), spanwire::BuildError>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Where they go: `otlp to` and the URL without what may be secret, `console`, `otlp/stdout`,
    /// `file:` and a path, or `none`.
    pub destination: String,
    /// Started and sampled.
    pub started: u64,
    /// Accepted by the collector.
    pub exported: u64,
    /// Refused one by one by the collector, in a partial success.
    pub rejected: u64,
    /// Lost.
    pub dropped: Dropped,
    /// On their way.
    pub pending: Pending,
    /// Requests answered with success.
    pub requests: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Bytes of requests before compression.
    pub bytes: u64,
    /// Bytes of requests as sent, once each.
    pub bytes_sent: u64,
    /// How often the exporter was started again after a panic.
    pub restarts: u64,
    /// The last failure with its causes, or what the collector said to a partial success.
    pub last_error: Option<String>,
}

impl Stats {
    /// Whether each span started is in exactly one place.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.started == self.exported + self.rejected + self.dropped.total() + self.pending.total()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, exported, rejected, dropped, pending, .. } = self;
        write!(
            f,
            "{started} started = {exported} exported + {rejected} rejected + {} dropped + {} pending",
            dropped.total(),
            pending.total(),
        )?;
        for (reason, spans) in dropped.iter() {
            write!(f, "; dropped {}: {spans}", reason.name())?;
        }
        Ok(())
    }
}

/// What is counted before the destinations part.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    dropped: [AtomicU64; Reason::ALL.len()],
    gathered: AtomicU64,
    restarts: AtomicU64,
}

impl Intake {
    /// Out of a chunk, into the batch being gathered.
    pub(crate) fn gathered(&self, spans: usize) {
        add(&self.gathered, spans as u64);
    }

    pub(crate) fn gathered_spans(&self) -> usize {
        usize::try_from(self.gathered.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Out of that batch, into the accounts of all destinations, which have counted them by now.
    pub(crate) fn handed_on(&self, spans: usize) {
        self.gathered.fetch_sub(spans as u64, Ordering::Relaxed);
    }

    /// Lost for every destination.
    pub(crate) fn dropped(&self, spans: usize, reason: Reason) {
        add(&self.dropped[reason as usize], spans as u64);
    }

    pub(crate) fn restarted(&self) {
        add(&self.restarts, 1);
    }
}

/// What one destination counts.
#[derive(Debug, Default)]
pub(crate) struct Account {
    exported: AtomicU64,
    rejected: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
    in_flight: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
    bytes_sent: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Account {
    pub(crate) fn taken(&self, spans: usize) {
        add(&self.in_flight, spans as u64);
    }

    pub(crate) fn exported(&self, spans: usize, rejected: u64) {
        let rejected = rejected.min(spans as u64);
        add(&self.exported, spans as u64 - rejected);
        add(&self.rejected, rejected);
        add(&self.requests, 1);
        self.in_flight.fetch_sub(spans as u64, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, spans: usize, reason: Reason) {
        add(&self.dropped[reason as usize], spans as u64);
        self.in_flight.fetch_sub(spans as u64, Ordering::Relaxed);
    }

    pub(crate) fn encoded(&self, bytes: usize, bytes_sent: usize) {
        add(&self.bytes, bytes as u64);
        add(&self.bytes_sent, bytes_sent as u64);
    }

    pub(crate) fn failed(&self) {
        add(&self.failures, 1);
    }

    pub(crate) fn set_last_error(&self, text: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// The whole account: what was recorded, what is common to all destinations, and its own.
    pub(crate) fn stats(
        &self,
        destination: &str,
        recorded: &RecordStats,
        queued: u64,
        intake: &Intake,
    ) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut dropped = self.dropped.each_ref().map(load);
        for (dropped, common) in dropped.iter_mut().zip(&intake.dropped) {
            *dropped += load(common);
        }
        for loss in Loss::ALL {
            dropped[Reason::from(loss) as usize] += recorded.lost(loss);
        }
        Stats {
            destination: destination.to_owned(),
            started: recorded.started(),
            exported: load(&self.exported),
            rejected: load(&self.rejected),
            dropped: Dropped(dropped),
            pending: Pending {
                live: recorded.live(),
                in_chunks: recorded.in_chunks(),
                queued,
                in_flight: load(&intake.gathered) + load(&self.in_flight),
            },
            requests: load(&self.requests),
            failures: load(&self.failures),
            bytes: load(&self.bytes),
            bytes_sent: load(&self.bytes_sent),
            restarts: load(&intake.restarts),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
