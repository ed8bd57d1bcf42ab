//! A configuration made into running parts, and put in the place of an older one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use spanwire_config::{self as config, ComponentId, Config};
use spanwire_model::{Resource, Scope};
use spanwire_receiver::Budget;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use crate::build::{self, Made, Prepared, Standing};
use crate::collect::Inlet;
use crate::exporter::Exporter;
use crate::intake::Intake;
use crate::ledger::{Account, Ledger, Passage};
use crate::limits;
use crate::pages;
use crate::pipeline::{Pipeline, Processor, Stages};
use crate::source::{Port, Source};
use crate::start_error::StartError;
use crate::stats::{
    ExporterStats, MemoryStats, PipelineStats, ProcessorStats, ReceiverStats, Stats,
};

/// A running collector.
///
/// Dropping it stops it at once; [`shutdown`](Self::shutdown) sends what it holds first.
///
/// ```
/// use std::time::Duration;
///
/// use spanwire_collector::Collector;
/// use spanwire_config::{Compat, Config, Source};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let yaml = "
/// receivers: { otlp: { protocols: { http: { endpoint: 127.0.0.1:0 } } } }
/// exporters: { nop: }
/// service:
///   telemetry: { metrics: { level: none } }
///   pipelines: { traces: { receivers: [otlp], exporters: [nop] } }
/// ";
/// let source = Source::Yaml(yaml.into());
/// let loaded = Config::load(&[source], &[], &|_name| None, Compat::Strict)?;
/// let collector = Collector::start(loaded.config).await?;
/// let report = collector.shutdown(Duration::from_secs(5)).await;
/// assert_eq!(report.spans_lost, 0);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Collector {
    pub(crate) graph: Arc<Mutex<Graph>>,
    /// One reload after the other.
    reloading: tokio::sync::Mutex<()>,
}

/// Everything that runs by one configuration.
pub(crate) struct Graph {
    pub(crate) config: Config,
    pub(crate) sources: BTreeMap<Port, Arc<Source>>,
    pub(crate) pipelines: BTreeMap<ComponentId, Arc<Pipeline>>,
    pub(crate) exporters: BTreeMap<ComponentId, Arc<Exporter>>,
    pub(crate) pages: pages::Servers,
    /// One for the life of the process; a reload changes its limit.
    pub(crate) budget: Arc<Budget>,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// The accounts of all destinations there ever were.
    ledgers: BTreeMap<ComponentId, Arc<Ledger>>,
    /// Those of all pipelines, likewise.
    passages: BTreeMap<ComponentId, Arc<Passage>>,
    /// What the servers counted that are gone.
    received: BTreeMap<Port, ReceiverStats>,
    /// Servers that a reload has left behind and the tasks in which they end, until they have ended.
    sources_left: Vec<(Arc<Source>, JoinHandle<()>)>,
    /// Destinations, likewise.
    exporters_left: Vec<Arc<Exporter>>,
    inlets: Vec<(String, Weak<Intake>)>,
    stopping: bool,
}

/// What a shutdown came to.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Spans that were held when it began, or taken over after that, and not sent: there was no time,
    /// or the destination refused them, or did not take them for as long as they are tried.
    pub spans_lost: u64,
    /// The same of destinations with `wait_for_result`: no sender was told that these arrived, so it
    /// has them still.
    pub spans_unacknowledged: u64,
    /// Connections of senders that were cut.
    pub connections_cut: usize,
}

impl Collector {
    /// Builds and starts everything that the configuration names, on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`], with the component that cannot be started; nothing runs then.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with I/O and time enabled.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let graph = Arc::new(Mutex::new(Graph::new(limits::of(&config).bytes())));
        let collector = Self { graph, reloading: tokio::sync::Mutex::default() };
        collector.reload(config).await?;
        Ok(collector)
    }

    /// Puts another configuration in the place of the one that runs.
    ///
    /// What is the same in both goes on running: sockets stay open, queues keep what they hold. New
    /// parts are built beside the old ones and take over when all of them stand. Destinations that
    /// are gone send what they hold.
    ///
    /// Whoever does not wait for its end leaves everything as it was.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then everything runs on as before.
    pub async fn reload(&self, config: Config) -> Result<(), StartError> {
        let _one_at_a_time = self.reloading.lock().await;
        let standing = Standing::of(&lock(&self.graph));
        let mut prepared = build::prepare(&config, &standing).await?;
        let pages = pages::prepare(&config, &standing.pages).await?;
        let mut attempt = Attempt::new(&self.graph, &standing, prepared.bytes_max);
        if let Err(error) = build::serve(&mut prepared, &standing, &mut attempt.sources).await {
            for source in attempt.undo() {
                source.receiver.shutdown(Duration::ZERO).await;
            }
            return Err(error);
        }
        let sources = attempt.succeed();
        // From here on nothing fails.
        let mut graph = lock(&self.graph);
        graph.run(config, prepared, sources);
        graph.pages.run(pages, &Arc::downgrade(&self.graph));
        Ok(())
    }

    /// An inlet for spans of this process into a pipeline, say `traces`; `None` if there is none of
    /// that name. A reload feeds the pipeline of that name that then is.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    pub fn inlet(&self, pipeline: &str, resource: &Resource, scope: &Scope) -> Option<Inlet> {
        let mut graph = lock(&self.graph);
        let pipeline = graph.pipelines.values().find(|one| one.id == pipeline)?;
        let name = pipeline.id.clone();
        let intake = Intake::new(vec![Arc::clone(pipeline)], Arc::clone(&graph.budget));
        graph.inlets.push((name, Arc::downgrade(&intake)));
        Some(Inlet::new(intake, resource, scope))
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        lock(&self.graph).stats(Instant::now())
    }

    /// The addresses that receivers and the servers for people listen on, by name.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, String)> {
        lock(&self.graph).addresses()
    }

    /// Takes no more spans, sends what it holds, and stops: all within the deadline.
    pub async fn shutdown(self, deadline: Duration) -> Shutdown {
        self.shutdown_or(deadline, std::future::pending()).await
    }

    /// The same, and all of it ends at once when `at_once` does: what is not sent by then is lost, and
    /// counted.
    pub async fn shutdown_or(
        self,
        deadline: Duration,
        at_once: impl Future<Output = ()>,
    ) -> Shutdown {
        let gone_before = {
            let mut graph = lock(&self.graph);
            graph.stopping = true;
            graph.unsent(Account::gone)
        };
        let connections_cut = tokio::select! {
            cut = self.send_all(deadline) => cut,
            () = at_once => 0,
        };
        // What is queued still is about to be dropped.
        let gone = lock(&self.graph).unsent(|account| account.gone() + account.queued);
        Shutdown {
            spans_lost: gone.lost - gone_before.lost,
            spans_unacknowledged: gone.unacknowledged - gone_before.unacknowledged,
            connections_cut,
        }
    }

    /// Takes no more spans, and sends what it holds, for as long as there is time. Gives the number of
    /// connections that were cut.
    async fn send_all(&self, deadline: Duration) -> usize {
        let end = tokio::time::Instant::now() + deadline.min(DEADLINE_MAX);
        let (sources, exporters) = {
            let graph = lock(&self.graph);
            let sources: Vec<_> = graph.sources().cloned().collect();
            let exporters: Vec<_> = graph.exporters().cloned().collect();
            (sources, exporters)
        };
        // Senders that wait for room in a queue, or for the result, have it while destinations still
        // send, without waiting for batches to grow.
        exporters.iter().for_each(|exporter| exporter.hurry(end));
        let mut closing = JoinSet::new();
        for source in sources {
            closing.spawn(async move { source.receiver.shutdown(deadline / 2).await });
        }
        let mut connections_cut = 0;
        while let Some(closed) = closing.join_next().await {
            connections_cut += closed.map_or(0, |closed| closed.connections_cut);
        }
        lock(&self.graph).inlets().for_each(|(_, inlet)| inlet.feed(Vec::new()));
        exporters.iter().for_each(|exporter| exporter.close());
        for exporter in exporters {
            exporter.ended(end).await;
        }
        connections_cut
    }
}

/// Spans that destinations will not have.
#[derive(Default)]
struct Unsent {
    lost: u64,
    /// Of destinations whose answer the sender waits for.
    unacknowledged: u64,
}

/// Servers of a configuration that does not run yet, made for its memory limit. Without success, all is
/// as before once this is dropped, which may be in the middle of making them.
struct Attempt<'a> {
    graph: &'a Mutex<Graph>,
    standing: &'a Standing,
    sources: Vec<Source>,
    /// The limit by the configuration that runs, until that of another is to stay.
    bytes_max_before: Option<usize>,
}

impl<'a> Attempt<'a> {
    fn new(graph: &'a Mutex<Graph>, standing: &'a Standing, bytes_max: usize) -> Self {
        let budget = Arc::clone(&lock(graph).budget);
        let bytes_max_before = Some(budget.bytes_max());
        budget.set_bytes_max(bytes_max);
        Self { graph, standing, sources: Vec::new(), bytes_max_before }
    }

    fn succeed(mut self) -> Vec<Source> {
        self.bytes_max_before = None;
        mem::take(&mut self.sources)
    }

    /// Gives the servers to which nobody can have sent anything.
    fn undo(&mut self) -> Vec<Source> {
        let Some(bytes_max) = self.bytes_max_before.take() else { return Vec::new() };
        let mut graph = lock(self.graph);
        graph.budget.set_bytes_max(bytes_max);
        let (shared, new): (Vec<_>, Vec<_>) =
            self.sources.drain(..).partition(|source| self.standing.serves(&source.port));
        // Requests may have come by these, which went to what stands. Without a runtime none of it
        // goes on, nor can it end in good order.
        if Handle::try_current().is_ok() {
            shared.into_iter().for_each(|source| graph.retire(Arc::new(source)));
        }
        new
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        drop(self.undo());
    }
}

impl Graph {
    /// Nothing runs yet.
    fn new(bytes_max: usize) -> Self {
        Self {
            config: Config::default(),
            sources: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            exporters: BTreeMap::new(),
            pages: pages::Servers::default(),
            budget: Arc::new(Budget::new(bytes_max)),
            started: Instant::now(),
            started_at: SystemTime::now(),
            ledgers: BTreeMap::new(),
            passages: BTreeMap::new(),
            received: BTreeMap::new(),
            sources_left: Vec::new(),
            exporters_left: Vec::new(),
            inlets: Vec::new(),
            stopping: false,
        }
    }

    /// Lets what was prepared run in the place of what runs.
    fn run(&mut self, config: Config, prepared: Prepared, sources: Vec<Source>) {
        let Prepared { destinations, queue_bytes_max, steps, ports, bytes_max } = prepared;
        let exporters = destinations.into_iter().map(|(id, made)| {
            let exporter = match made {
                Made::Stands(exporter) => {
                    exporter.resize(queue_bytes_max);
                    exporter
                }
                Made::New(settings, destination) => {
                    // An id keeps its account, whatever stands for it.
                    let ledger = Arc::clone(self.ledgers.entry(id.clone()).or_default());
                    let name = id.to_string();
                    let (bytes_max, budget) = (queue_bytes_max, Arc::clone(&self.budget));
                    let exporter =
                        Exporter::spawn(name, settings, destination, ledger, bytes_max, budget);
                    Arc::new(exporter)
                }
            };
            (id, exporter)
        });
        let exporters: BTreeMap<_, _> = exporters.collect();
        let pipelines = steps.into_iter().map(|(id, steps)| {
            let before = self.pipelines.get(&id);
            let mut stages = Stages::default();
            for (id, step) in steps {
                let id = id.to_string();
                let counted =
                    before.and_then(|one| one.stages.processors().find(|one| one.id == id));
                let flow = counted.map(|one| Arc::clone(&one.flow)).unwrap_or_default();
                stages.push(Processor { id, flow }, step);
            }
            let settings = &config.service.pipelines[&id];
            let exporters = settings.exporters.iter().filter_map(|id| exporters.get(id).cloned());
            let passage = Arc::clone(self.passages.entry(id.clone()).or_default());
            let name = id.to_string();
            let pipeline = Pipeline { id: name, stages, exporters: exporters.collect(), passage };
            (id, Arc::new(pipeline))
        });
        self.pipelines = pipelines.collect();
        // All requests that come from here on go there, by whichever server.
        for source in self.sources().map(Arc::as_ref).chain(&sources) {
            source.intake.feed(build::fed_by(&source.port.0, &config, &self.pipelines));
        }
        for (name, intake) in self.inlets() {
            let named = self.pipelines.values().filter(|one| one.id == *name);
            intake.feed(named.cloned().collect());
        }
        self.inlets.retain(|(_, intake)| intake.strong_count() > 0);
        self.forget_ended();
        for source in sources {
            if let Some(before) = self.sources.insert(source.port.clone(), Arc::new(source)) {
                self.retire(before);
            }
        }
        let gone = self.sources.extract_if(.., |port, _| !ports.contains_key(port));
        for (_, source) in gone.collect::<Vec<_>>() {
            self.retire(source);
        }
        for (id, exporter) in mem::replace(&mut self.exporters, exporters) {
            match self.exporters.get(&id) {
                Some(now) if Arc::ptr_eq(now, &exporter) => continue,
                Some(now) => exporter.hand_over(Arc::clone(now)),
                None => exporter.close(),
            }
            self.exporters_left.push(exporter);
        }
        let connections_max = limits::connections_max(bytes_max);
        let receivers = self.sources.values().map(|source| &source.receiver);
        receivers.for_each(|receiver| receiver.set_connections_max(connections_max));
        self.config = config;
    }

    /// Lets go of parts that have ended; what they counted stays.
    fn forget_ended(&mut self) {
        self.exporters_left.retain(|exporter| !exporter.has_ended());
        for (source, _) in self.sources_left.extract_if(.., |(_, ending)| ending.is_finished()) {
            add(&mut self.received, &source);
        }
    }

    fn retire(&mut self, source: Arc<Source>) {
        // At once: whoever connects from here on is served by what stands now.
        source.stop_accepting();
        let retiring = Arc::clone(&source);
        let ending = tokio::spawn(async move { retiring.retire().await });
        self.sources_left.push((source, ending));
    }

    /// All servers, those included that a reload has left behind.
    fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.values().chain(self.sources_left.iter().map(|(source, _)| source))
    }

    /// All destinations, likewise.
    fn exporters(&self) -> impl Iterator<Item = &Arc<Exporter>> {
        self.exporters.values().chain(&self.exporters_left)
    }

    fn inlets(&self) -> impl Iterator<Item = (&String, Arc<Intake>)> {
        self.inlets.iter().filter_map(|(name, intake)| Some((name, intake.upgrade()?)))
    }

    /// Over the accounts of all destinations there ever were.
    fn unsent(&self, spans: impl Fn(&Account) -> u64) -> Unsent {
        let mut unsent = Unsent::default();
        for (id, ledger) in &self.ledgers {
            let id = id.to_string();
            let mut own = self.exporters().filter(|exporter| exporter.id() == id).peekable();
            let waits = own.peek().is_some() && own.all(|exporter| exporter.waits_for_result());
            let of_its_kind = if waits { &mut unsent.unacknowledged } else { &mut unsent.lost };
            *of_its_kind += spans(&ledger.read());
        }
        unsent
    }

    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let processors = self.pipelines.iter().flat_map(|(id, pipeline)| {
            let settings = self.config.service.pipelines.get(id);
            self.processors(settings.map_or(&[][..], |one| &one.processors), pipeline)
        });
        let exporters = self.ledgers.iter().map(|(id, ledger)| {
            let exporter = self.exporters.get(id);
            let account = ledger.read();
            let ailment = exporter.and_then(|exporter| {
                exporter.tell(now);
                exporter.ailment(now)
            });
            let failing = ailment.map(|ailment| (ailment.lasted.as_secs(), ailment.what.error()));
            ExporterStats {
                exporter: id.to_string(),
                account,
                queue_size: exporter.map_or(0, |exporter| exporter.queue_size()),
                queue_capacity: exporter.map_or(0, |exporter| exporter.capacity()),
                batches: exporter.and_then(|exporter| exporter.batches()),
                failing,
            }
        });
        let passages = self.passages.iter().map(|(id, passage)| PipelineStats {
            pipeline: id.to_string(),
            passed: passage.read(),
        });
        // Receivers first: what they have counted by then, pipelines have too.
        let mut receivers = self.received.clone();
        for source in self.sources() {
            source.tell(now);
            add(&mut receivers, source);
        }
        Stats {
            memory: MemoryStats { held: self.budget.bytes(), max: self.budget.bytes_max() },
            receivers: receivers.into_values().collect(),
            pipelines: passages.collect(),
            processors: processors.collect(),
            exporters: exporters.collect(),
        }
    }

    /// Those of a pipeline, in order. A memory limiter is carried out by the receivers, before they
    /// count: what comes to it, it passes on.
    fn processors(&self, ids: &[ComponentId], pipeline: &Pipeline) -> Vec<ProcessorStats> {
        let mut spans = pipeline.passage.read().accepted;
        let mut processors = Vec::new();
        for id in ids {
            let processor = id.to_string();
            let flow = pipeline.stages.processors().find(|one| one.id == processor);
            let is_limiter =
                matches!(self.config.processors.get(id), Some(config::Processor::MemoryLimiter(_)));
            let (incoming, outgoing) = match flow {
                Some(one) => one.flow.read(),
                None if is_limiter => (spans, spans),
                None => continue,
            };
            spans = outgoing;
            let pipeline = pipeline.id.clone();
            processors.push(ProcessorStats { processor, pipeline, incoming, outgoing });
        }
        processors
    }

    fn addresses(&self) -> Vec<(String, String)> {
        let sources = self.sources.values().flat_map(|source| source.addresses());
        sources.chain(self.pages.addresses()).collect()
    }

    /// What is wrong, by component; nothing if all is well.
    pub(crate) fn ailments(&self, now: Instant) -> Vec<(String, String)> {
        if self.stopping {
            return vec![("collector".into(), "is shutting down".into())];
        }
        let ailment = |exporter: &Arc<Exporter>| {
            if exporter.is_dead() {
                return Some((exporter.id().to_owned(), "its worker is gone".to_owned()));
            }
            exporter.tell(now);
            let ailment = exporter.ailment(now)?;
            (ailment.lasted >= AILING_AFTER)
                .then(|| (exporter.id().to_owned(), ailment.to_string()))
        };
        self.exporters.values().filter_map(ailment).collect()
    }
}

/// An id keeps what was counted, whichever server counted it.
fn add(received: &mut BTreeMap<Port, ReceiverStats>, source: &Source) {
    let stats = source.stats();
    match received.entry(source.port.clone()) {
        Entry::Vacant(first) => drop(first.insert(stats)),
        Entry::Occupied(mut before) => before.get_mut().add(stats),
    }
}

/// A destination that fails for less may just be starting again.
const AILING_AFTER: Duration = Duration::from_secs(10);

/// Deadlines beyond this are as good as this.
const DEADLINE_MAX: Duration = Duration::from_hours(24);

pub(crate) fn lock(graph: &Mutex<Graph>) -> std::sync::MutexGuard<'_, Graph> {
    graph.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reload_that_is_not_waited_for_leaves_the_limit_and_the_servers_as_they_were() {
        let config = |limit_mib: u32, more: &str| {
            let yaml = format!(
                "
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: 127.0.0.1:0{more} }} }} }} }}
processors: {{ memory_limiter: {{ check_interval: 1s, limit_mib: {limit_mib} }} }}
exporters: {{ nop: }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines: {{ traces: {{ receivers: [otlp], processors: [memory_limiter], exporters: [nop] }} }}
"
            );
            let source = config::Source::Yaml(yaml);
            let loaded = Config::load(&[source], &[], &|_| None, config::Compat::Strict);
            loaded.unwrap_or_else(|report| panic!("{report}")).config
        };
        let collector = Collector::start(config(64, "")).await.expect("it starts");
        let standing = Standing::of(&lock(&collector.graph));
        let before = (collector.stats().memory, collector.addresses());
        let other = config(32, ", max_recv_msg_size_mib: 1");
        let Ok(mut prepared) = build::prepare(&other, &standing).await else { panic!("valid") };

        let mut attempt = Attempt::new(&collector.graph, &standing, prepared.bytes_max);
        let served = build::serve(&mut prepared, &standing, &mut attempt.sources).await;
        assert!(served.is_ok() && attempt.sources.len() == 1, "it shares the socket");
        assert!(collector.stats().memory.max < before.0.max, "the new server is made for less");
        drop(attempt);
        assert_eq!((collector.stats().memory, collector.addresses()), before);
        let graph = lock(&collector.graph);
        assert_eq!(
            (graph.sources.len(), graph.sources_left.len()),
            (1, 1),
            "what came is answered"
        );
    }
}
