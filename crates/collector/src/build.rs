//! From settings to parts: what is the same as before is taken over, the rest is made.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spanwire_config::{self as config, ComponentId, Config};
use spanwire_processors::{InvalidAction, InvalidSampler};
use spanwire_receiver::{BindError, Receiver};
use spanwire_transport::InvalidConfig;

use crate::destination::{self, Plan};
use crate::exporter::Exporter;
use crate::intake::{Feed, Intake};
use crate::ledger::Flow;
use crate::limits;
use crate::pipeline::{Pipeline, Processor};
use crate::service::Graph;
use crate::source::Source;
use crate::steps;

/// Why a collector does not start, or a reload is not made.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{component}: cannot listen on {endpoint}")]
    Listen {
        /// Of the configuration.
        component: String,
        /// As in the configuration.
        endpoint: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A receiver cannot be made.
    #[error("receiver {id}")]
    Receiver {
        /// Of the configuration.
        id: ComponentId,
        /// What is wrong.
        source: BindError,
    },
    /// A destination cannot be made.
    #[error("exporter {id}")]
    Exporter {
        /// Of the configuration.
        id: ComponentId,
        /// What is wrong.
        source: InvalidConfig,
    },
    /// A setting of a component is out of its range.
    #[error("{id}: {rule}")]
    Setting {
        /// Of the configuration.
        id: ComponentId,
        /// What the range is.
        rule: String,
    },
    /// A file cannot be opened.
    #[error("exporter {id}: cannot open {path}", path = path.display())]
    File {
        /// Of the configuration.
        id: ComponentId,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Actions of a processor cannot be carried out.
    #[error("processor {id}")]
    Action {
        /// Of the configuration.
        id: ComponentId,
        /// What is wrong.
        source: InvalidAction,
    },
    /// A sampler cannot be made.
    #[error("processor {id}")]
    Sampler {
        /// Of the configuration.
        id: ComponentId,
        /// What is wrong.
        source: InvalidSampler,
    },
}

/// What runs before a reload.
pub(crate) struct Standing {
    config: Config,
    plans: BTreeMap<ComponentId, Plan>,
    exporters: BTreeMap<ComponentId, Arc<Exporter>>,
    pipelines: BTreeMap<ComponentId, Arc<Pipeline>>,
    listeners: Vec<(String, TcpListener)>,
}

impl Standing {
    pub(crate) fn of(graph: &Graph) -> Self {
        let listeners = graph.sources.values().flat_map(|source| &source.listeners);
        // One that cannot be shared is bound anew, and that fails while the old one stands.
        let listeners =
            listeners.filter_map(|(name, one)| Some((name.clone(), one.try_clone().ok()?)));
        Self {
            plans: destination::plans(&graph.config),
            exporters: graph.exporters.clone(),
            pipelines: graph.pipelines.clone(),
            listeners: listeners.collect(),
            config: graph.config.clone(),
        }
    }
}

/// The parts of one configuration.
pub(crate) struct Parts {
    /// Receivers that were made.
    pub(crate) sources: BTreeMap<ComponentId, Source>,
    /// Receivers that stand, and the pipelines they are to feed.
    pub(crate) feeds: Vec<(ComponentId, Vec<Arc<Pipeline>>)>,
    pub(crate) pipelines: BTreeMap<ComponentId, Arc<Pipeline>>,
    pub(crate) exporters: BTreeMap<ComponentId, Arc<Exporter>>,
}

/// Makes everything that does not stand already. Nothing that stands is changed.
pub(crate) async fn parts(
    config: &Config,
    standing: Option<&Standing>,
) -> Result<Parts, StartError> {
    let mut exporters = BTreeMap::new();
    for (id, plan) in destination::plans(config) {
        let stands = standing.filter(|standing| standing.plans.get(&id) == Some(&plan));
        let exporter = match stands.and_then(|standing| standing.exporters.get(&id)) {
            Some(exporter) => Arc::clone(exporter),
            None => Arc::new(plan.start(&id)?),
        };
        exporters.insert(id, exporter);
    }
    let mut pipelines = BTreeMap::new();
    for (id, settings) in &config.service.pipelines {
        let before = standing.and_then(|standing| standing.pipelines.get(id));
        let pipeline = pipeline(id, settings, config, &exporters, before)?;
        pipelines.insert(id.clone(), Arc::new(pipeline));
    }
    let (mut sources, mut feeds) = (BTreeMap::new(), Vec::new());
    for (id, settings) in &config.receivers {
        let fed: Vec<_> = config
            .service
            .pipelines
            .iter()
            .filter(|(_, pipeline)| pipeline.receivers.contains(id))
            .filter_map(|(id, _)| pipelines.get(id).cloned())
            .collect();
        if fed.is_empty() {
            continue;
        }
        let same = |standing: &&Standing| {
            standing.config.receivers.get(id) == Some(settings)
                && limits::of(&standing.config) == limits::of(config)
        };
        if standing.filter(same).is_some() {
            feeds.push((id.clone(), fed));
            continue;
        }
        let config::Receiver::Otlp(settings) = settings;
        sources.insert(id.clone(), source(id, settings, config, standing, fed).await?);
    }
    Ok(Parts { sources, feeds, pipelines, exporters })
}

fn pipeline(
    id: &ComponentId,
    settings: &config::Pipeline,
    config: &Config,
    exporters: &BTreeMap<ComponentId, Arc<Exporter>>,
    before: Option<&Arc<Pipeline>>,
) -> Result<Pipeline, StartError> {
    let mut processors = Vec::new();
    for id in &settings.processors {
        let Some(step) = config.processors.get(id).map(|one| steps::step(id, one)) else {
            continue;
        };
        let Some(step) = step? else { continue };
        let counted = before.and_then(|before| {
            before.processors.iter().find(|processor| processor.id == id.to_string())
        });
        let flow = counted.map_or_else(Arc::<Flow>::default, |one| Arc::clone(&one.flow));
        processors.push(Processor { id: id.to_string(), step, flow });
    }
    let exporters = settings.exporters.iter().filter_map(|id| exporters.get(id).cloned());
    Ok(Pipeline {
        id: id.to_string(),
        processors,
        exporters: exporters.collect(),
        flow: before.map_or_else(Arc::default, |before| Arc::clone(&before.flow)),
    })
}

async fn source(
    id: &ComponentId,
    settings: &config::OtlpReceiver,
    config: &Config,
    standing: Option<&Standing>,
    fed: Vec<Arc<Pipeline>>,
) -> Result<Source, StartError> {
    let mut listeners = Vec::new();
    let mut builder = limits::of(config).apply(Receiver::builder());
    if let Some(grpc) = &settings.grpc {
        for listener in listen(id, &grpc.endpoint, standing, &mut listeners).await? {
            builder = builder.grpc_listener(listener);
        }
        builder = builder.grpc_request_bytes_max(grpc.max_recv_msg_size_bytes);
        if let Some(streams) = grpc.max_concurrent_streams {
            builder = builder.streams_max(streams);
        }
        let keepalive = &grpc.keepalive;
        if let Some(age) = keepalive.max_connection_age {
            let grace = keepalive.max_connection_age_grace.unwrap_or(AGE_GRACE);
            builder = builder.connection_age_max(age, grace);
        }
        if let Some(idle) = keepalive.max_connection_idle {
            builder = builder.idle_max(idle);
        }
        if keepalive.time.is_some() || keepalive.timeout.is_some() {
            let time = keepalive.time.unwrap_or(KEEPALIVE.0);
            builder = builder.keep_alive(time, keepalive.timeout.unwrap_or(KEEPALIVE.1));
        }
    }
    if let Some(http) = &settings.http {
        for listener in listen(id, &http.endpoint, standing, &mut listeners).await? {
            builder = builder.http_listener(listener);
        }
        builder = builder.http_request_bytes_max(http.max_request_body_size);
    }
    let intake = Intake::new(fed);
    let receiver = builder
        .bind(Feed(Arc::clone(&intake)))
        .await
        .map_err(|source| StartError::Receiver { id: id.clone(), source })?;
    Ok(Source { receiver, intake, listeners })
}

/// What gRPC servers have by default (keepalive `ServerParameters` of grpc-go): two hours and 20 s.
const KEEPALIVE: (Duration, Duration) = (Duration::from_hours(2), Duration::from_secs(20));
const AGE_GRACE: Duration = Duration::from_secs(30);

/// The sockets of an endpoint: those that stand, or new ones on each address of its name.
async fn listen(
    id: &ComponentId,
    endpoint: &config::Listen,
    standing: Option<&Standing>,
    kept: &mut Vec<(String, TcpListener)>,
) -> Result<Vec<TcpListener>, StartError> {
    let name = endpoint.to_string();
    let cannot = |source| StartError::Listen {
        component: format!("receiver {id}"),
        endpoint: endpoint.to_string(),
        source,
    };
    let stands = standing.map(|standing| &standing.listeners[..]).unwrap_or_default();
    let mut listeners: Vec<TcpListener> = Vec::new();
    for (_, listener) in stands.iter().filter(|(standing, _)| *standing == name) {
        listeners.push(listener.try_clone().map_err(cannot)?);
    }
    if listeners.is_empty() {
        let config::Listen::Tcp(address) = endpoint else {
            let rule = "Unix sockets cannot be listened on yet".to_owned();
            return Err(StartError::Setting { id: id.clone(), rule });
        };
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host(&**address).await.map_err(cannot)?.collect();
        let mut failed = None;
        for address in addresses {
            match bind(address) {
                Ok(listener) => listeners.push(listener),
                // Of `localhost`, a machine may have one address and not the other.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    failed = Some(error);
                }
                Err(error) => return Err(cannot(error)),
            }
        }
        if let (true, Some(error)) = (listeners.is_empty(), failed) {
            return Err(cannot(error));
        }
    }
    for listener in &listeners {
        kept.push((name.clone(), listener.try_clone().map_err(cannot)?));
    }
    Ok(listeners)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
