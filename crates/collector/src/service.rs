//! A configuration made into running parts, and put in the place of an older one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use spanwire_config::{ComponentId, Config};
use spanwire_model::{Resource, Scope};
use spanwire_receiver::Budget;
use tokio::task::{JoinHandle, JoinSet};

use crate::build::{self, StartError};
use crate::collect::Inlet;
use crate::exporter::Exporter;
use crate::intake::Intake;
use crate::ledger::{DropReason, Ledger};
use crate::pages;
use crate::pipeline::Pipeline;
use crate::source::Source;
use crate::stats::{ExporterStats, StageStats, Stats};

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
    graph: Arc<Mutex<Graph>>,
    /// One reload after the other.
    reloading: tokio::sync::Mutex<()>,
}

/// Everything that runs by one configuration.
pub(crate) struct Graph {
    pub(crate) config: Config,
    pub(crate) sources: BTreeMap<ComponentId, Arc<Source>>,
    pub(crate) pipelines: BTreeMap<ComponentId, Arc<Pipeline>>,
    pub(crate) exporters: BTreeMap<ComponentId, Arc<Exporter>>,
    /// The accounts of all destinations there ever were.
    pub(crate) ledgers: BTreeMap<ComponentId, Arc<Ledger>>,
    pub(crate) servers: pages::Servers,
    pub(crate) budget: Arc<Budget>,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// What a reload has left behind, until it has ended.
    retired: Vec<Retired>,
    inlets: Vec<(String, Weak<Intake>)>,
    stopping: bool,
}

/// A part that has no place any more, and the task in which it ends.
struct Retired {
    part: Left,
    ending: JoinHandle<()>,
}

enum Left {
    Source(Arc<Source>),
    Exporter(Arc<Exporter>),
}

/// What a shutdown came to.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Spans accepted and not sent by the deadline.
    pub spans_lost: u64,
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
        let parts = build::parts(&config, None).await?;
        let graph = Arc::new(Mutex::new(Graph {
            sources: shared(parts.sources),
            pipelines: parts.pipelines,
            ledgers: ledgers(&parts.exporters).collect(),
            exporters: parts.exporters,
            servers: pages::Servers::default(),
            budget: parts.budget,
            started: Instant::now(),
            started_at: SystemTime::now(),
            retired: Vec::new(),
            inlets: Vec::new(),
            stopping: false,
            config: config.clone(),
        }));
        let servers = pages::prepare(&config, &graph, &pages::Servers::default()).await?;
        lock(&graph).servers.run(servers);
        Ok(Self { graph, reloading: tokio::sync::Mutex::default() })
    }

    /// Puts another configuration in the place of the one that runs.
    ///
    /// What is the same in both goes on running: sockets stay open, queues keep what they hold. New
    /// parts are built beside the old ones and take over when all of them stand. Destinations that
    /// are gone send what they hold.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then everything runs on as before.
    pub async fn reload(&self, config: Config) -> Result<(), StartError> {
        let _one_at_a_time = self.reloading.lock().await;
        let standing = {
            let graph = lock(&self.graph);
            build::Standing::of(&graph)
        };
        let parts = build::parts(&config, Some(&standing)).await?;
        let servers_now = lock(&self.graph).servers.clone();
        let servers = pages::prepare(&config, &self.graph, &servers_now).await?;

        // From here on nothing fails.
        let mut graph = lock(&self.graph);
        let graph = &mut *graph;
        let stays: Vec<_> = parts.feeds.iter().map(|(id, _)| id.clone()).collect();
        for (id, pipelines) in parts.feeds {
            if let Some(source) = graph.sources.get(&id) {
                source.intake.feed(pipelines);
            }
        }
        let before = std::mem::replace(&mut graph.sources, shared(parts.sources));
        for (id, source) in before {
            if stays.contains(&id) {
                graph.sources.insert(id, source);
            } else {
                // Those of its requests that come from here on go to the new destinations.
                source.intake.feed(fed_by(&id, &config, &parts.pipelines));
                graph.retire(Left::Source(source));
            }
        }
        for (name, intake) in &graph.inlets {
            if let Some(intake) = intake.upgrade() {
                intake.feed(
                    parts.pipelines.values().filter(|one| one.id == *name).cloned().collect(),
                );
            }
        }
        graph.inlets.retain(|(_, intake)| intake.strong_count() > 0);
        graph.servers.run(servers);
        graph.pipelines = parts.pipelines;
        graph.budget = parts.budget;
        graph.ledgers.extend(ledgers(&parts.exporters));
        for (id, exporter) in std::mem::replace(&mut graph.exporters, parts.exporters) {
            match graph.exporters.get(&id) {
                Some(now) if Arc::ptr_eq(now, &exporter) => {}
                Some(now) => {
                    let now = Arc::clone(now);
                    graph.replace(exporter, now);
                }
                None => graph.retire(Left::Exporter(exporter)),
            }
        }
        graph.retired.retain(|retired| !retired.ending.is_finished());
        graph.config = config;
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
        let end = tokio::time::Instant::now() + deadline.min(DEADLINE_MAX);
        let (sources, exporters) = {
            let mut graph = lock(&self.graph);
            graph.stopping = true;
            graph.all()
        };
        // Requests that wait for room in a queue have it while destinations still send.
        let mut closing = JoinSet::new();
        for source in sources {
            closing.spawn(async move { source.receiver.shutdown(deadline / 2).await });
        }
        let mut connections_cut = 0;
        while let Some(closed) = closing.join_next().await {
            connections_cut += closed.map_or(0, |closed| closed.connections_cut);
        }
        let mut draining = JoinSet::new();
        for exporter in exporters {
            draining.spawn(async move { exporter.drain(end).await });
        }
        while draining.join_next().await.is_some() {}
        let graph = lock(&self.graph);
        // What is queued still is on its way to being dropped.
        let lost = |ledger: &Arc<Ledger>| {
            let account = ledger.read();
            account.dropped(DropReason::Shutdown) + account.queued
        };
        Shutdown { spans_lost: graph.ledgers.values().map(lost).sum(), connections_cut }
    }
}

/// The pipelines of a configuration that a receiver feeds.
fn fed_by(
    id: &ComponentId,
    config: &Config,
    pipelines: &BTreeMap<ComponentId, Arc<Pipeline>>,
) -> Vec<Arc<Pipeline>> {
    let fed = config.service.pipelines.iter().filter(|(_, one)| one.receivers.contains(id));
    fed.filter_map(|(id, _)| pipelines.get(id).cloned()).collect()
}

fn shared(sources: BTreeMap<ComponentId, Source>) -> BTreeMap<ComponentId, Arc<Source>> {
    sources.into_iter().map(|(id, source)| (id, Arc::new(source))).collect()
}

fn ledgers(
    exporters: &BTreeMap<ComponentId, Arc<Exporter>>,
) -> impl Iterator<Item = (ComponentId, Arc<Ledger>)> {
    exporters.iter().map(|(id, exporter)| (id.clone(), Arc::clone(exporter.ledger())))
}

impl Graph {
    fn retire(&mut self, part: Left) {
        let ending = match &part {
            Left::Source(source) => {
                let source = Arc::clone(source);
                tokio::spawn(async move { source.retire().await })
            }
            Left::Exporter(exporter) => {
                let exporter = Arc::clone(exporter);
                tokio::spawn(async move { exporter.drain(far()).await })
            }
        };
        self.retired.push(Retired { part, ending });
    }

    fn replace(&mut self, before: Arc<Exporter>, now: Arc<Exporter>) {
        let part = Left::Exporter(Arc::clone(&before));
        let ending = tokio::spawn(async move { before.hand_over(now, far()).await });
        self.retired.push(Retired { part, ending });
    }

    /// Every receiver and destination that is there, those that are ending included.
    fn all(&mut self) -> (Vec<Arc<Source>>, Vec<Arc<Exporter>>) {
        let mut sources: Vec<_> = std::mem::take(&mut self.sources).into_values().collect();
        let mut exporters = Vec::new();
        for retired in self.retired.drain(..) {
            match retired.part {
                Left::Source(source) => sources.push(source),
                Left::Exporter(exporter) => exporters.push(exporter),
            }
        }
        exporters.extend(self.exporters.values().cloned());
        (sources, exporters)
    }

    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let stage = |id: &str, pipeline: Option<&str>, flow: &crate::ledger::Flow| {
            let (passed, id) = (flow.read(), id.to_owned());
            let pipeline = pipeline.map(str::to_owned);
            StageStats { id, pipeline, incoming: passed.incoming, outgoing: passed.outgoing }
        };
        let pipelines = self.pipelines.values();
        let processors = pipelines.clone().flat_map(|pipeline| {
            pipeline
                .processors
                .iter()
                .map(|processor| stage(&processor.id, Some(&pipeline.id), &processor.flow))
        });
        let exporters = self.ledgers.iter().map(|(id, ledger)| {
            let exporter = self.exporters.get(id);
            let account = ledger.read();
            let ailment = exporter.and_then(|exporter| {
                exporter.log().flush(now);
                exporter.health().ailment(now, account.queued > 0)
            });
            ExporterStats {
                exporter: id.to_string(),
                account,
                queue_size: exporter.map_or(0, |exporter| exporter.queue_size()),
                queue_capacity: exporter.map_or(0, |exporter| exporter.capacity()),
                failing: ailment.map(|ailment| (ailment.lasted.as_secs(), ailment.error.into())),
            }
        });
        Stats {
            receivers: self.sources.iter().flat_map(|(id, source)| source.stats(id)).collect(),
            pipelines: pipelines
                .clone()
                .map(|pipeline| stage(&pipeline.id, None, &pipeline.flow))
                .collect(),
            processors: processors.collect(),
            exporters: exporters.collect(),
        }
    }

    fn addresses(&self) -> Vec<(String, String)> {
        let sources = self.sources.iter().flat_map(|(id, source)| source.addresses(id));
        sources.chain(self.servers.addresses()).collect()
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
            exporter.log().flush(now);
            let ailment = exporter.health().ailment(now, exporter.account().queued > 0)?;
            (ailment.lasted >= AILING_AFTER).then(|| {
                let text = format!(
                    "fails for {} s, {} attempts: {}",
                    ailment.lasted.as_secs(),
                    ailment.attempts,
                    ailment.error
                );
                (exporter.id().to_owned(), text)
            })
        };
        self.exporters.values().filter_map(ailment).collect()
    }
}

/// A destination that fails for less may just be starting again.
const AILING_AFTER: Duration = Duration::from_secs(10);

/// Deadlines beyond this are as good as this.
const DEADLINE_MAX: Duration = Duration::from_hours(24);

fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + DEADLINE_MAX
}

pub(crate) fn lock(graph: &Mutex<Graph>) -> std::sync::MutexGuard<'_, Graph> {
    graph.lock().unwrap_or_else(PoisonError::into_inner)
}
