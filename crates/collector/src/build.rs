//! From settings to parts: what is the same as before is taken over, the rest is made.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spanwire_config::{self as config, ComponentId, Config};
use spanwire_processors::{InvalidAction, InvalidSampler};
use spanwire_receiver::{BindError, Budget, Builder, Cors, Pem, Receiver, ServerTls, TlsVersion};
use spanwire_transport::InvalidConfig;

use crate::destination::{self, Plan};
use crate::exporter::Exporter;
use crate::intake::{Feed, Intake};
use crate::ledger::{Flow, Ledger};
use crate::limits;
use crate::pipeline::{Pipeline, Processor};
use crate::service::Graph;
use crate::sockets::{self, Socket};
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
    ledgers: BTreeMap<ComponentId, Arc<Ledger>>,
    pub(crate) sockets: Vec<(String, Socket)>,
    budget: Arc<Budget>,
}

impl Standing {
    pub(crate) fn of(graph: &Graph) -> Self {
        let mut sockets = Vec::new();
        for source in graph.sources.values() {
            // One that cannot be shared is bound anew, and that fails while the old one stands.
            let shares = |(name, one): &(String, Socket)| Some((name.clone(), one.share().ok()?));
            sockets.extend(source.sockets().iter().filter_map(shares));
        }
        Self {
            plans: destination::plans(&graph.config),
            exporters: graph.exporters.clone(),
            pipelines: graph.pipelines.clone(),
            ledgers: graph.ledgers.clone(),
            sockets,
            budget: Arc::clone(&graph.budget),
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
    pub(crate) budget: Arc<Budget>,
}

/// Makes everything that does not stand already. Nothing that stands is changed.
pub(crate) async fn parts(
    config: &Config,
    standing: Option<&Standing>,
) -> Result<Parts, StartError> {
    let mut exporters = BTreeMap::new();
    let plans = destination::plans(config);
    let keep_compressed = plans.values().any(Plan::forwards_compressed);
    for (id, plan) in plans {
        let stands = standing.filter(|standing| standing.plans.get(&id) == Some(&plan));
        let exporter = match stands.and_then(|standing| standing.exporters.get(&id)) {
            Some(exporter) => Arc::clone(exporter),
            None => {
                // An id keeps its account, whatever stands for it.
                let ledger = standing.and_then(|standing| standing.ledgers.get(&id));
                Arc::new(plan.start(&id, ledger.cloned().unwrap_or_default())?)
            }
        };
        exporters.insert(id, exporter);
    }
    let mut pipelines = BTreeMap::new();
    for (id, settings) in &config.service.pipelines {
        let before = standing.and_then(|standing| standing.pipelines.get(id));
        let pipeline = pipeline(id, settings, config, &exporters, before)?;
        pipelines.insert(id.clone(), Arc::new(pipeline));
    }
    // Another limit is another budget: receivers are made anew with it.
    let limits = limits::of(config);
    let same_limits = standing.filter(|standing| limits::of(&standing.config) == limits);
    let budget = same_limits.map(|standing| Arc::clone(&standing.budget));
    let budget = budget.unwrap_or_else(|| Arc::new(Budget::new(limits.bytes())));
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
                && standing.plans.values().any(Plan::forwards_compressed) == keep_compressed
        };
        if same_limits.filter(same).is_some() {
            feeds.push((id.clone(), fed));
            continue;
        }
        let config::Receiver::Otlp(settings) = settings;
        let builder =
            Receiver::builder().budget(Arc::clone(&budget)).keep_compressed(keep_compressed);
        sources.insert(
            id.clone(),
            source(id, settings, builder, standing, Intake::new(fed, Arc::clone(&budget))).await?,
        );
    }
    Ok(Parts { sources, feeds, pipelines, exporters, budget })
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
    mut builder: Builder,
    standing: Option<&Standing>,
    intake: Arc<Intake>,
) -> Result<Source, StartError> {
    let mut sockets = Vec::new();
    let (grpc_max, http_max) = request_bytes_max(settings, intake.budget().bytes_max());
    builder = builder.grpc_request_bytes_max(grpc_max).http_request_bytes_max(http_max);
    if let Some(grpc) = &settings.grpc {
        for (_, socket) in sockets::of(id, "grpc", &grpc.endpoint, standing, &mut sockets).await? {
            builder = match socket {
                Socket::Tcp(listener) => builder.grpc_listener(listener),
                Socket::Unix(socket) => builder.grpc_unix_socket(socket),
            };
        }
        if let Some(tls) = &grpc.tls {
            builder = builder.grpc_tls(server_tls(tls));
        }
        builder = of_grpc(grpc, builder);
    }
    if let Some(http) = &settings.http {
        for (_, socket) in sockets::of(id, "http", &http.endpoint, standing, &mut sockets).await? {
            builder = match socket {
                Socket::Tcp(listener) => builder.http_listener(listener),
                Socket::Unix(socket) => builder.http_unix_socket(socket),
            };
        }
        builder = builder.http_traces_path(&http.traces_url_path);
        if let Some(tls) = &http.tls {
            builder = builder.http_tls(server_tls(tls));
        }
        if let Some(cors) = &http.cors {
            builder = builder.cors(Cors {
                allowed_origins: cors.allowed_origins.clone(),
                allowed_headers: cors.allowed_headers.clone(),
                max_age: cors.max_age,
            });
        }
        if let Some(timeout) = http.read_header_timeout.filter(|timeout| !timeout.is_zero()) {
            builder = builder.header_read_timeout(timeout);
        }
    }
    let receiver = builder
        .bind(Feed(Arc::clone(&intake)))
        .await
        .map_err(|source| StartError::Receiver { id: id.clone(), source })?;
    Ok(Source { receiver, intake, sockets: Mutex::new(sockets) })
}

/// The largest requests of gRPC and HTTP, in bytes: no larger than half of the memory, as a request
/// may be there compressed and decompressed at once. What is not served takes the other's limit.
fn request_bytes_max(settings: &config::OtlpReceiver, memory: usize) -> (usize, usize) {
    let grpc = settings.grpc.as_ref().map(|grpc| grpc.max_recv_msg_size_bytes);
    let http = settings.http.as_ref().map(|http| http.max_request_body_size);
    let fits = |bytes: Option<usize>| bytes.unwrap_or(usize::MAX).min(memory / 2).max(1);
    (fits(grpc.or(http)), fits(http.or(grpc)))
}

fn of_grpc(grpc: &config::GrpcServer, mut builder: Builder) -> Builder {
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
    builder
}

/// The configuration has exactly one of file and text, of either.
fn server_tls(tls: &config::ServerTls) -> ServerTls {
    let pem = |file: &Option<PathBuf>, text: &Option<config::Secret>| match (file, text) {
        (Some(file), _) => Pem::File(file.clone()),
        (None, text) => {
            Pem::Bytes(text.as_ref().map(|text| text.expose().into()).unwrap_or_default())
        }
    };
    let chain = pem(&tls.cert_file, &tls.cert_pem);
    let mut server = ServerTls::new(chain, pem(&tls.key_file, &tls.key_pem));
    if let Some(ca) = &tls.client_ca_file {
        server = server.client_ca(Pem::File(ca.clone()));
    }
    if let Some(interval) = tls.reload_interval {
        server = server.reload_interval(interval);
    }
    server.min_version(match tls.min_version {
        config::TlsVersion::Tls12 => TlsVersion::V1_2,
        config::TlsVersion::Tls13 => TlsVersion::V1_3,
    })
}

/// What gRPC servers have by default (keepalive `ServerParameters` of grpc-go): two hours and 20 s.
const KEEPALIVE: (Duration, Duration) = (Duration::from_hours(2), Duration::from_secs(20));
const AGE_GRACE: Duration = Duration::from_secs(30);
