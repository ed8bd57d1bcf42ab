//! From settings to parts: what is the same as before is taken over, the rest is made, and nothing of
//! it runs yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use spanwire_config::{ComponentId, Config};
use spanwire_receiver::Budget;

use crate::destination;
use crate::exporter::{Destination, Exporter, Settings};
use crate::intake::Intake;
use crate::limits;
use crate::listens;
use crate::pages;
use crate::pipeline::{Pipeline, Step};
use crate::service::Graph;
use crate::sockets::{self, Socket};
use crate::source::{Plan, Port, Source};
use crate::start_error::StartError;
use crate::steps;

/// What runs before a reload; nothing, before the start.
pub(crate) struct Standing {
    config: Config,
    plans: BTreeMap<ComponentId, destination::Plan>,
    exporters: BTreeMap<ComponentId, Arc<Exporter>>,
    pipelines: BTreeMap<ComponentId, Arc<Pipeline>>,
    sources: BTreeMap<Port, Arc<Source>>,
    sockets: Vec<(String, Socket)>,
    budget: Arc<Budget>,
    pub(crate) pages: pages::Servers,
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
            sources: graph.sources.clone(),
            sockets,
            budget: Arc::clone(&graph.budget),
            pages: graph.pages.clone(),
            config: graph.config.clone(),
        }
    }

    /// Whether a server is there that one of the same port takes the place of.
    pub(crate) fn serves(&self, port: &Port) -> bool {
        self.sources.contains_key(port)
    }
}

/// The parts of one configuration. Nothing of them runs, and what stands is as it was; dropping them
/// leaves nothing behind.
pub(crate) struct Prepared {
    pub(crate) destinations: Vec<(ComponentId, Made)>,
    /// What the queue of each of them may hold.
    pub(crate) queue_bytes_max: usize,
    /// By pipeline, its processors in order.
    pub(crate) steps: Vec<(ComponentId, Vec<(ComponentId, Step)>)>,
    /// All that are to serve, and of those that do not stand already what they are made of.
    pub(crate) ports: BTreeMap<Port, Option<Bound>>,
    /// What all requests may hold.
    pub(crate) bytes_max: usize,
}

/// What a server is made of, and the sockets that it is to serve on, by endpoint.
pub(crate) type Bound = (Plan, Vec<(String, Socket)>);

/// A destination.
pub(crate) enum Made {
    Stands(Arc<Exporter>),
    New(Settings, Destination),
}

/// Makes everything that does not stand already, sockets last.
pub(crate) async fn prepare(config: &Config, standing: &Standing) -> Result<Prepared, StartError> {
    if let Some(twice) = listens::check(config).into_iter().next() {
        return Err(twice);
    }
    let plans = destination::plans(config);
    let mut destinations = Vec::new();
    for (id, plan) in &plans {
        let same = standing.plans.get(id) == Some(plan);
        let made = match standing.exporters.get(id).filter(|_| same) {
            Some(exporter) => Made::Stands(Arc::clone(exporter)),
            None => {
                let (settings, destination) = plan.parts(id)?;
                Made::New(settings, destination)
            }
        };
        destinations.push((id.clone(), made));
    }
    let steps = config.service.pipelines.iter().map(|(id, pipeline)| {
        let processors = pipeline.processors.iter();
        let settings = processors.filter_map(|id| Some((id, config.processors.get(id)?)));
        let steps = settings.filter_map(|(id, settings)| {
            let step = steps::step(id, settings).transpose()?;
            Some(step.map(|step| (id.clone(), step)))
        });
        Ok((id.clone(), steps.collect::<Result<_, _>>()?))
    });
    let steps = steps.collect::<Result<_, _>>()?;
    let bytes_max = limits::of(config).bytes();
    // The limit of the one that there is changes when nothing can go wrong with the rest.
    let budget = Arc::new(Budget::new(bytes_max));
    let mut ports = BTreeMap::new();
    for (id, server) in listens::servers(config) {
        let pipelines = config.service.pipelines.values();
        let fed = pipelines.filter(|pipeline| pipeline.receivers.contains(id));
        let led_to = fed.flat_map(|pipeline| &pipeline.exporters);
        let coding = |id| plans.get(id).and_then(destination::Plan::forwarded_coding);
        let mut keeps = Vec::new();
        for coding in led_to.filter_map(coding) {
            if !keeps.contains(&coding) {
                keeps.push(coding);
            }
        }
        let port = (id.clone(), server.protocol());
        let plan = Plan::new(server, keeps, bytes_max);
        let stands = standing.sources.get(&port).is_some_and(|source| source.plan == plan);
        let made = match stands {
            true => None,
            false => {
                plan.server.check(id, Arc::clone(&budget)).await?;
                let endpoint = plan.server.endpoint();
                let sockets = sockets::of(&port, endpoint, &standing.sockets).await?;
                Some((plan, sockets))
            }
        };
        ports.insert(port, made);
    }
    let queue_bytes_max = destination::queue_bytes_max(config);
    Ok(Prepared { destinations, queue_bytes_max, steps, ports, bytes_max })
}

/// Lets the servers serve that do not stand already; they are added to `sources`. What they take goes
/// to the pipelines that stand until they are fed by others, or is refused where there are none.
pub(crate) async fn serve(
    prepared: &mut Prepared,
    standing: &Standing,
    sources: &mut Vec<Source>,
) -> Result<(), StartError> {
    for (port, made) in &mut prepared.ports {
        let Some((plan, sockets)) = made.take() else { continue };
        let pipelines = fed_by(&port.0, &standing.config, &standing.pipelines);
        let intake = Intake::new(pipelines, Arc::clone(&standing.budget));
        let served = Source::serve(port.clone(), plan, sockets, intake).await;
        let wrong = |source| StartError::Receiver { setting: port.1.setting(&port.0), source };
        sources.push(served.map_err(wrong)?);
    }
    Ok(())
}

/// The pipelines of a configuration that a receiver feeds.
pub(crate) fn fed_by(
    id: &ComponentId,
    config: &Config,
    pipelines: &BTreeMap<ComponentId, Arc<Pipeline>>,
) -> Vec<Arc<Pipeline>> {
    let fed = config.service.pipelines.iter().filter(|(_, one)| one.receivers.contains(id));
    fed.filter_map(|(id, _)| pipelines.get(id).cloned()).collect()
}
