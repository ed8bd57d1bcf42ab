//! A run from its first request to its report.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
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
use crate::settings::{InvalidSettings, Settings};
use crate::tally::Excused;
use crate::template::{Run, Template};

/// A load and where it goes.
#[must_use = "nothing is sent before it is run"]
pub struct Load {
    settings: Settings,
    run: Run,
    endpoint: String,
    target: Option<u32>,
    arrivals: Option<Box<dyn Arrivals>>,
    answer_time_max: Duration,
}

/// Ends a run early. A clone ends the same run.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<u32>);

/// How far a run is.
#[non_exhaustive]
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
        Self(watch::Sender::new(0))
    }
}

impl Stop {
    /// No further request is sent; those in flight are waited for, and reported. Asked a second
    /// time, what has not arrived is not waited for.
    pub fn stop(&self) {
        self.0.send_modify(|asked| *asked = asked.saturating_add(1));
    }

    fn asked(&self) -> u32 {
        *self.0.borrow()
    }

    fn is_stopped(&self) -> bool {
        self.asked() > 0
    }
}

impl Load {
    /// To the OTLP receiver at `endpoint`, a base URL: HTTP appends `v1/traces`.
    pub fn new(settings: Settings, run: Run, endpoint: impl Into<String>) -> Self {
        let endpoint = endpoint.into();
        let answer_time_max = ANSWER_TIME_MAX;
        Self { settings, run, endpoint, target: None, arrivals: None, answer_time_max }
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
        let Self { settings, run, endpoint, target, mut arrivals, answer_time_max } = self;
        settings.check()?;
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
        let config = transport_config(&settings, &endpoint)?.request_timeout(answer_time_max);
        let time = settings.warm_up + settings.duration;
        let template = Template::new(run, settings.spans_per_request.get(), settings.attributes);
        let shared = Arc::new(Shared {
            rate: settings.rate,
            schedule: Schedule::new(settings.rate, settings.spans_per_request, time),
            template,
            warm_up: settings.warm_up,
            grace: answer_time_max,
            next: AtomicU64::new(0),
            progress: Counters::default(),
            excused: Mutex::new(Excused::new(u64::from(settings.spans_per_request.get()))),
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
                let spans = account.requests_end * spans_per_request;
                let accepted = account.warm_up.spans_accepted + account.measured.spans_accepted;
                let excused = shared.excused.lock().unwrap_or_else(PoisonError::into_inner);
                Some(waiting.settle(&mut **arrivals, &excused, spans, accepted)?)
            }
            None => None,
        };
        let last = account.last_answer.unwrap_or(measured_from);
        // A closed loop may end before its time, where its spans run out of numbers.
        let is_early = stop.is_stopped() || settings.rate == Rate::Max;
        let over = last.max(if is_early { observed.end.min(end) } else { end });
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
            let account = Arc::new(Mutex::new(Account::default()));
            let mut own = Vec::new();
            for _ in 0..share {
                let transport = Transport::new(config)?;
                let connection = Connection::new(
                    Arc::clone(shared),
                    transport,
                    settings.in_flight_max,
                    Arc::clone(&account),
                );
                own.push(Arc::new(connection));
            }
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(RunError::Generator)?;
            let report_ready = report_ready.clone();
            let (begin, begun) = mpsc::channel();
            let thread = thread::Builder::new()
                .name(format!("load-{worker}"))
                .spawn(move || work(&runtime, &own, &account, &report_ready, &begun));
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
    account: &Mutex<Account>,
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
        Ok(std::mem::take(&mut *account.lock().unwrap_or_else(PoisonError::into_inner)))
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
    // Another process may have its id by now.
    let cpu = last.target_cpu.zip(first.target_cpu);
    let cpu = cpu.and_then(|(last, first)| last.checked_sub(first));
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
        excused: &Excused,
        spans: u64,
        accepted: u64,
    ) -> Result<Delivery, RunError> {
        let begun = Instant::now();
        // An interrupt that ended the sending does not end the waiting; the next one does, also where
        // it came while requests were in flight.
        let asked_max = u32::from(self.stop.is_stopped());
        loop {
            let arrived = arrivals.arrived().map_err(RunError::Arrivals)?;
            let is_over = begun.elapsed() >= self.settle || self.stop.asked() > asked_max;
            // Only once enough has arrived can all of it have.
            if arrived.distinct >= accepted || is_over {
                let missing = arrivals.missing(spans).map_err(RunError::Arrivals)?;
                let lost = excused.lost(&missing);
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
    /// Nobody could want this, or nothing bear it.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
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

/// How long a request may go without an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// From the moment all connections are open to the first request: for all threads to hear of it.
const START_DELAY: Duration = Duration::from_millis(5);

const LOOK: Duration = Duration::from_millis(100);
const LOOK_SOON: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn a_target_that_hangs_holds_up_no_run() {
        // It takes connections and never answers: of a hundred requests one is in flight at a time.
        let target = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", target.local_addr().expect("bound"));
        let options = "load --rate 1000 --warm-up 0 --duration 0.1 --spans-per-request 1 \
                       --connections 1 --in-flight-max 1 --protocol http/protobuf";
        let settings = Line::parse_from(options.split_whitespace()).settings;
        let mut load = Load::new(settings, Run::random(), endpoint);
        load.answer_time_max = Duration::from_millis(200);
        let report = load.run(&Stop::default(), drop).expect("a report");
        assert_eq!((report.measured.requests, report.measured.requests_failed()), (100, 100));
        assert!(report.measured.failures["not sent"].requests >= 90, "{report}");
        assert!(report.elapsed < Duration::from_secs(5), "{report}");
    }
}
