//! A run from its first request to its report.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use spanwire_transport::{Compression, InvalidConfig, Transport, TransportConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::arrivals::{Arrivals, half_of_the_cores};
use crate::connection::{Account, Connection, Counters, OpenError, Shared};
use crate::ledger::Ledger;
use crate::process::{Process, own_cpu};
use crate::report::{Delivery, Report, TargetUse};
use crate::schedule::{Rate, Schedule};
use crate::settings::Settings;
use crate::template::{Run, Template};

/// A load and where it goes.
#[must_use = "nothing is sent before it is run"]
pub struct Load {
    settings: Settings,
    run: Run,
    endpoint: String,
    target: Option<u32>,
    arrivals: Option<Box<dyn Arrivals>>,
}

/// Ends a run early. A clone ends the same run.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Time since the first request was due.
    pub elapsed: Duration,
    /// Spans sent, warm-up included.
    pub spans_sent: u64,
    /// Spans that the target took over.
    pub spans_accepted: u64,
    /// Requests that failed.
    pub requests_failed: u64,
}

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    /// No further request is sent; those in flight are waited for, and reported. Asked a second
    /// time, what has not arrived is not waited for.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }
}

impl Load {
    /// To the OTLP receiver at `endpoint`, a base URL: HTTP appends `v1/traces`.
    pub fn new(settings: Settings, run: Run, endpoint: impl Into<String>) -> Self {
        Self { settings, run, endpoint: endpoint.into(), target: None, arrivals: None }
    }

    /// Measures the CPU and the memory of this process, which must run on this machine. Its counter
    /// of peak memory begins anew where that is permitted.
    pub fn target(mut self, pid: u32) -> Self {
        self.target = Some(pid);
        self
    }

    /// Asks here which spans arrived. Without it, lost and duplicated ones are not known.
    pub fn arrivals(mut self, arrivals: impl Arrivals + 'static) -> Self {
        self.arrivals = Some(Box::new(arrivals));
        self
    }

    /// Sends until the time is over or `stop` says so, waits for what is in flight, and for what has
    /// been accepted to arrive. Calls `watch` ten times a second meanwhile.
    ///
    /// Blocks; the requests run on threads of their own, half as many as there are cores.
    ///
    /// # Errors
    ///
    /// [`RunError`]: nothing was sent, or what is known of it is not worth a report. That the target
    /// fails is no error, but what the report is about.
    pub fn run(self, stop: &Stop, watch: impl FnMut(Progress)) -> Result<Report, RunError> {
        let Self { settings, run, endpoint, target, mut arrivals } = self;
        if let Rate::Spans(rate) = settings.rate {
            let seconds = (settings.warm_up + settings.duration).as_secs_f64();
            if rate.get() as f64 * seconds > Ledger::SPANS_MAX as f64 {
                return Err(RunError::TooMany);
            }
        }
        let mut target = match target {
            Some(pid) => {
                Some(Process::new(pid).map_err(|source| RunError::Target { pid, source })?)
            }
            None => None,
        };
        let config = transport_config(&settings, &endpoint)?;
        let time = settings.warm_up + settings.duration;
        let template = Template::new(run, settings.spans_per_request.get(), settings.attributes);
        let shared = Arc::new(Shared {
            rate: settings.rate,
            schedule: Schedule::new(settings.rate, settings.spans_per_request, time),
            template,
            warm_up: settings.warm_up,
            next: AtomicU64::new(0),
            progress: Counters::default(),
            stop: stop.0.subscribe(),
        });

        let workers = Workers::start(&settings, &config, &shared)?;
        let start = workers.begin()?;
        let (measured_from, end) = (start + settings.warm_up, start + time);
        let moments = [start, measured_from, end];
        let observed = observe(&workers, &shared, moments, stop, target.as_mut(), watch);
        let account = workers.join()?;

        let spans_per_request = shared.template.spans() as u64;
        let delivery = match &mut arrivals {
            Some(arrivals) => {
                let waiting = Waiting { settle: settings.settle, stop };
                Some(waiting.settle(&mut **arrivals, &account, spans_per_request)?)
            }
            None => None,
        };
        let last = account.last_answer.unwrap_or(measured_from);
        let over = last.max(if stop.is_stopped() { observed.end } else { end });
        Ok(Report {
            url: config.url(),
            request_bytes: shared.template.bytes(),
            stopped: stop.is_stopped(),
            elapsed: over.saturating_duration_since(measured_from),
            warm_up: account.warm_up,
            measured: account.measured,
            generator_cpu: observed.generator_cpu,
            observed_for: observed.time,
            observed_spans: observed.spans,
            target: observed.target,
            delivery,
            settings,
        })
    }
}

fn transport_config(settings: &Settings, endpoint: &str) -> Result<TransportConfig, RunError> {
    let mut config = TransportConfig::new(settings.protocol, endpoint)?
        .compression(settings.compression)?
        // HTTP/1.1 keeps as many connections as it has requests in flight.
        .idle_connections(settings.in_flight_max.get() as usize, Duration::ZERO);
    if settings.compression != Compression::None {
        config = config.compression_bytes_min(0);
    }
    Ok(config)
}

/// The threads that send, each with its own runtime and its share of the connections, so that no
/// request goes from one thread to another.
struct Workers {
    threads: Vec<thread::JoinHandle<io::Result<Account>>>,
    ready: mpsc::Receiver<Result<(), OpenError>>,
    begin: Vec<mpsc::Sender<Instant>>,
}

impl Workers {
    fn start(
        settings: &Settings,
        config: &TransportConfig,
        shared: &Arc<Shared>,
    ) -> Result<Self, RunError> {
        let connections = settings.connections.get() as usize;
        let count = half_of_the_cores().min(connections);
        let (report_ready, ready) = mpsc::channel();
        let mut workers = Self { threads: Vec::new(), ready, begin: Vec::new() };
        for worker in 0..count {
            let share = (worker..connections).step_by(count).len();
            let mut own = Vec::new();
            for _ in 0..share {
                let transport = Transport::new(config)?;
                let in_flight_max: NonZeroU32 = settings.in_flight_max;
                own.push(Arc::new(Connection::new(Arc::clone(shared), transport, in_flight_max)));
            }
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(RunError::Generator)?;
            let report_ready = report_ready.clone();
            let (begin, begun) = mpsc::channel();
            let thread = thread::Builder::new()
                .name(format!("load-{worker}"))
                .spawn(move || work(&runtime, &own, &report_ready, &begun));
            workers.threads.push(thread.map_err(RunError::Generator)?);
            workers.begin.push(begin);
        }
        Ok(workers)
    }

    /// Waits until all connections are open and lets all threads begin at once.
    fn begin(&self) -> Result<Instant, RunError> {
        for _ in &self.threads {
            let ready = self.ready.recv().map_err(|_gone| gone())?;
            ready.map_err(|error| match error {
                OpenError::Encode(source) => RunError::Encode(source),
                OpenError::Send(source) => RunError::Connect(source),
            })?;
        }
        let start = Instant::now() + START_DELAY;
        self.begin.iter().try_for_each(|begin| begin.send(start)).map_err(|_gone| gone())?;
        Ok(start)
    }

    fn is_finished(&self) -> bool {
        self.threads.iter().all(thread::JoinHandle::is_finished)
    }

    fn join(self) -> Result<Account, RunError> {
        let mut all = Account::default();
        for thread in self.threads {
            let account = thread.join().map_err(|_panic| gone())?;
            all.merge(account.map_err(RunError::Generator)?);
        }
        Ok(all)
    }
}

fn gone() -> RunError {
    RunError::Generator(io::Error::other("a thread of the generator ended early"))
}

/// The life of one thread.
fn work(
    runtime: &Runtime,
    connections: &[Arc<Connection>],
    ready: &mpsc::Sender<Result<(), OpenError>>,
    begun: &mpsc::Receiver<Instant>,
) -> io::Result<Account> {
    let opened = runtime.block_on(async {
        for connection in connections {
            connection.open().await?;
        }
        Ok(())
    });
    // Nobody listens, or begins, where another thread failed; then there is nothing to do.
    let _ = ready.send(opened);
    let Ok(start) = begun.recv() else { return Ok(Account::default()) };
    runtime.block_on(async {
        let run = |connection: &Arc<Connection>| tokio::spawn(Arc::clone(connection).run(start));
        let running: Vec<_> = connections.iter().map(run).collect();
        for connection in running {
            connection.await.map_err(io::Error::other)??;
        }
        let mut all = Account::default();
        connections.iter().for_each(|connection| all.merge(connection.take_account()));
        Ok(all)
    })
}

/// What was read beside the requests, between two moments.
struct Observed {
    end: Instant,
    time: Duration,
    /// Accepted meanwhile.
    spans: u64,
    generator_cpu: Duration,
    target: Option<TargetUse>,
}

/// One reading.
struct Reading {
    at: Instant,
    spans: u64,
    generator_cpu: Duration,
    target_cpu: Option<Duration>,
}

impl Reading {
    fn take(shared: &Shared, target: Option<&Process>) -> Self {
        Self {
            at: Instant::now(),
            spans: shared.progress.accepted.load(Ordering::Relaxed),
            generator_cpu: own_cpu(),
            // A target that is gone shows in the answers.
            target_cpu: target.and_then(|target| target.cpu().ok()),
        }
    }
}

/// Watches the workers to their end, and the processes from the end of the warm-up on.
fn observe(
    workers: &Workers,
    shared: &Shared,
    [start, measured_from, end]: [Instant; 3],
    stop: &Stop,
    mut target: Option<&mut Process>,
    mut watch: impl FnMut(Progress),
) -> Observed {
    let mut first = Reading::take(shared, target.as_deref());
    let mut is_measuring = false;
    while !workers.is_finished() {
        let now = Instant::now();
        if !is_measuring && now >= measured_from {
            is_measuring = true;
            if let Some(target) = &mut target {
                target.reset_memory_peak();
            }
            first = Reading::take(shared, target.as_deref());
        }
        let counters = &shared.progress;
        watch(Progress {
            elapsed: now.saturating_duration_since(start),
            spans_sent: counters.sent.load(Ordering::Relaxed),
            spans_accepted: counters.accepted.load(Ordering::Relaxed),
            requests_failed: counters.failed.load(Ordering::Relaxed),
        });
        let is_ending = stop.is_stopped() || now + LOOK > end;
        let next = now + if is_ending { LOOK_SOON } else { LOOK };
        let next = if is_measuring { next } else { next.min(measured_from) };
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let last = Reading::take(shared, target.as_deref());
    let cpu = last.target_cpu.zip(first.target_cpu).map(|(last, first)| last - first);
    Observed {
        end: last.at,
        time: last.at - first.at,
        spans: last.spans - first.spans,
        generator_cpu: last.generator_cpu - first.generator_cpu,
        target: target.map(|target| TargetUse { cpu, memory_peak: target.memory_peak().ok() }),
    }
}

/// Waiting for what was accepted to arrive.
struct Waiting<'a> {
    settle: Duration,
    stop: &'a Stop,
}

impl Waiting<'_> {
    fn settle(
        &self,
        arrivals: &mut dyn Arrivals,
        account: &Account,
        spans_per_request: u64,
    ) -> Result<Delivery, RunError> {
        let begun = Instant::now();
        let spans = account.requests_end * spans_per_request;
        let accepted = account.warm_up.spans_accepted + account.measured.spans_accepted;
        // An interrupt that ended the sending does not end the waiting; the next one does.
        let stopped = self.stop.0.subscribe();
        loop {
            let arrived = arrivals.arrived().map_err(RunError::Arrivals)?;
            let is_over = begun.elapsed() >= self.settle || stopped.has_changed().unwrap_or(true);
            // Only once enough has arrived can all of it have.
            if arrived.distinct >= accepted || is_over {
                let missing = arrivals.missing(spans).map_err(RunError::Arrivals)?;
                let lost = account.excused.lost(&missing, spans_per_request);
                if lost == 0 || is_over {
                    let settled_after = begun.elapsed();
                    return Ok(Delivery { arrived, lost, settled_after });
                }
            }
            thread::sleep(LOOK_SOON);
        }
    }
}

/// Why there is no report.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The endpoint, or what is asked of it, is refused.
    #[error("the target cannot be used")]
    Config(#[from] InvalidConfig),
    /// More spans than can be numbered.
    #[error("more spans than the 2^36 that can be told apart; lower --rate or --duration")]
    TooMany,
    /// Requests like these cannot be sent at all.
    #[error("requests of this size cannot be sent; lower --spans-per-request or --attributes")]
    Encode(#[source] spanwire_transport::EncodeError),
    /// Nobody listens at the endpoint.
    #[error("the target cannot be reached; is it running, and is --endpoint right?")]
    Connect(#[source] spanwire_transport::SendError),
    /// The target's process cannot be read.
    #[error("process {pid} cannot be read in /proc")]
    Target {
        /// Its id.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The generator lacks something of the operating system's.
    #[error("the generator failed")]
    Generator(#[source] io::Error),
    /// What arrived cannot be asked for.
    #[error("the receiver does not tell what arrived")]
    Arrivals(#[source] io::Error),
}

/// From the moment all connections are open to the first request: for all threads to hear of it.
const START_DELAY: Duration = Duration::from_millis(5);

const LOOK: Duration = Duration::from_millis(100);
const LOOK_SOON: Duration = Duration::from_millis(10);
