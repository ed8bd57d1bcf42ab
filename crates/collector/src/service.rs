//! A configuration made into running parts, and put in the place of an older one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use spanwire_config::{ComponentId, Config};
use spanwire_model::{Resource, Scope};
use spanwire_receiver::Budget;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::admin;
use crate::build::{self, StartError};
use crate::collect::Inlet;
use crate::exporter::Exporter;
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
    /// The runtimes that receivers serve connections on; none for the current one.
    workers: Vec<Handle>,
    /// One reload after the other.
    reloading: tokio::sync::Mutex<()>,
}

/// Everything that runs by one configuration.
pub(crate) struct Graph {
    pub(crate) config: Config,
    pub(crate) sources: BTreeMap<ComponentId, Source>,
    pub(crate) pipelines: BTreeMap<ComponentId, Arc<Pipeline>>,
    pub(crate) exporters: BTreeMap<ComponentId, Arc<Exporter>>,
    pub(crate) servers: Vec<(String, admin::Server)>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) started: Instant,
    /// Destinations that a reload has left behind, as long as they have something to send.
    retired: JoinSet<()>,
    stopping: bool,
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
        Self::start_with(config, Vec::new()).await
    }

    /// The same, with the connections of senders served on other runtimes, in turn. Several runtimes
    /// of one thread each serve a request at less cost than one that hands tasks from thread to
    /// thread; the binary has one for each processor. They must outlive the collector.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(config: Config, workers: Vec<Handle>) -> Result<Self, StartError> {
        let parts = build::parts(&config, &workers, None).await?;
        let graph = Arc::new(Mutex::new(Graph {
            sources: parts.sources,
            pipelines: parts.pipelines,
            exporters: parts.exporters,
            servers: Vec::new(),
            budget: parts.budget,
            started: Instant::now(),
            retired: JoinSet::new(),
            stopping: false,
            config: config.clone(),
        }));
        let servers = pages::serve(&config, &graph, &[]).await?;
        lock(&graph).servers = servers;
        Ok(Self { graph, workers, reloading: tokio::sync::Mutex::default() })
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
        let parts = build::parts(&config, &self.workers, Some(&standing)).await?;
        let kept: Vec<String> =
            lock(&self.graph).servers.iter().map(|(key, _)| key.clone()).collect();
        let servers = pages::serve(&config, &self.graph, &kept).await?;

        // From here on nothing fails.
        let mut sources_left = Vec::new();
        {
            let mut graph = lock(&self.graph);
            for (id, intake) in parts.feeds {
                if let Some(source) = graph.sources.get(&id) {
                    source.intake.feed(intake);
                }
            }
            for (id, source) in parts.sources {
                sources_left.extend(graph.sources.insert(id, source));
            }
            let gone: Vec<_> = graph
                .sources
                .keys()
                .filter(|id| !config.receivers.contains_key(*id))
                .cloned()
                .collect();
            sources_left.extend(gone.iter().filter_map(|id| graph.sources.remove(id)));
            let wanted = pages::keys(&config);
            graph.servers.retain(|(key, _)| wanted.contains(key));
            graph.servers.extend(servers);
            graph.pipelines = parts.pipelines;
            graph.budget = parts.budget;
            let before = std::mem::replace(&mut graph.exporters, parts.exporters);
            let now: Vec<_> = graph.exporters.values().map(Arc::as_ptr).collect();
            for exporter in before.into_values() {
                if !now.contains(&Arc::as_ptr(&exporter)) {
                    graph.retired.spawn(async move { exporter.drain(far()).await });
                }
            }
            while graph.retired.try_join_next().is_some() {}
            graph.config = config;
        }
        for source in sources_left {
            source.retire();
        }
        Ok(())
    }

    /// An inlet for spans of this process into a pipeline, say `traces`; `None` if there is none of
    /// that name. A reload leaves it with the pipeline as it was.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    pub fn inlet(&self, pipeline: &str, resource: &Resource, scope: &Scope) -> Option<Inlet> {
        let graph = lock(&self.graph);
        let pipeline = graph.pipelines.values().find(|one| one.id == pipeline)?;
        Some(Inlet::new(Arc::clone(pipeline), resource, scope))
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
        let (sources, exporters, mut retired) = {
            let mut graph = lock(&self.graph);
            graph.stopping = true;
            let sources = std::mem::take(&mut graph.sources);
            let exporters: Vec<_> = graph.exporters.values().cloned().collect();
            (sources, exporters, std::mem::take(&mut graph.retired))
        };
        // Requests that wait for room in a queue have it while destinations still send.
        let mut connections_cut = 0;
        let mut closing = JoinSet::new();
        for source in sources.into_values() {
            closing.spawn(async move { source.receiver.shutdown(deadline / 2).await });
        }
        while let Some(closed) = closing.join_next().await {
            connections_cut += closed.map_or(0, |closed| closed.connections_cut);
        }
        let mut draining = JoinSet::new();
        for exporter in &exporters {
            let exporter = Arc::clone(exporter);
            draining.spawn(async move { exporter.drain(end).await });
        }
        while draining.join_next().await.is_some() {}
        let _in_time =
            tokio::time::timeout_at(end, async { while retired.join_next().await.is_some() {} })
                .await;
        let lost = |exporter: &Arc<Exporter>| exporter.account().dropped_by_shutdown();
        Shutdown { spans_lost: exporters.iter().map(lost).sum(), connections_cut }
    }
}

impl Graph {
    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let stage = |id: String, flow: &crate::ledger::Flow| {
            let passed = flow.read();
            StageStats { id, incoming: passed.incoming, outgoing: passed.outgoing }
        };
        let pipelines = self.pipelines.values();
        let processors = pipelines.clone().flat_map(|pipeline| {
            pipeline.processors.iter().map(|processor| {
                stage(format!("{}/{}", pipeline.id, processor.id), &processor.flow)
            })
        });
        let exporters = self.exporters.values().map(|exporter| ExporterStats {
            exporter: exporter.id().to_owned(),
            account: exporter.account(),
            queue_capacity: exporter.capacity(),
            failing: exporter
                .health()
                .ailment(now)
                .map(|ailment| (ailment.lasted.as_secs(), ailment.error.into())),
        });
        Stats {
            receivers: self.sources.iter().flat_map(|(id, source)| source.stats(id)).collect(),
            pipelines: pipelines
                .clone()
                .map(|pipeline| stage(pipeline.id.clone(), &pipeline.flow))
                .collect(),
            processors: processors.collect(),
            exporters: exporters.collect(),
        }
    }

    fn addresses(&self) -> Vec<(String, String)> {
        let sources = self.sources.iter().flat_map(|(id, source)| source.addresses(id));
        let servers =
            self.servers.iter().map(|(key, server)| (key.clone(), server.address().to_string()));
        sources.chain(servers).collect()
    }

    /// What is wrong, by component; nothing if all is well.
    pub(crate) fn ailments(&self, now: Instant) -> Vec<(String, String)> {
        if self.stopping {
            return vec![("collector".into(), "is shutting down".into())];
        }
        let ailment = |exporter: &Arc<Exporter>| {
            let ailment = exporter.health().ailment(now)?;
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
