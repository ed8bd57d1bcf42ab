//! What the servers for people and their tools show.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::StatusCode;
use serde_json::json;
use spanwire_config::{Config, Extension};
use tokio::net::TcpListener;

use crate::admin::{self, Page, Server};
use crate::build::StartError;
use crate::metrics;
use crate::service::{Graph, lock};
use crate::stats::Stats;

/// Which server.
enum Kind {
    Metrics,
    Health { path: String },
    Pipelines,
}

/// The servers that a configuration asks for, by what they are and where they listen: two
/// configurations that say the same share one.
pub(crate) fn keys(config: &Config) -> Vec<String> {
    wanted(config).into_iter().map(|(key, ..)| key).collect()
}

fn wanted(config: &Config) -> Vec<(String, String, Kind)> {
    let mut wanted = Vec::new();
    if let Some(address) = &config.service.telemetry.metrics.address {
        wanted.push((format!("metrics {address}"), address.clone(), Kind::Metrics));
    }
    for id in &config.service.extensions {
        match config.extensions.get(id) {
            Some(Extension::HealthCheck(check)) => {
                let (endpoint, path) = (check.endpoint.clone(), check.path.clone());
                let key = format!("{id} {endpoint}{path}");
                wanted.push((key, endpoint, Kind::Health { path }));
            }
            Some(Extension::Zpages(zpages)) => {
                let endpoint = zpages.endpoint.clone();
                wanted.push((format!("{id} {endpoint}"), endpoint, Kind::Pipelines));
            }
            _ => {}
        }
    }
    wanted
}

/// Starts the servers that are wanted and do not stand yet.
pub(crate) async fn serve(
    config: &Config,
    graph: &Arc<Mutex<Graph>>,
    standing: &[String],
) -> Result<Vec<(String, Server)>, StartError> {
    let mut servers = Vec::new();
    for (key, endpoint, kind) in wanted(config) {
        if standing.contains(&key) {
            continue;
        }
        let cannot = |source| StartError::Listen {
            component: key.clone(),
            endpoint: endpoint.clone(),
            source,
        };
        let listener = TcpListener::bind(&*endpoint).await.map_err(cannot)?;
        // Servers stand in the graph that they show.
        let graph = Arc::downgrade(graph);
        let page = move |path: &str| {
            let graph = graph.upgrade()?;
            kind.page(path, &graph)
        };
        servers.push((key.clone(), Server::spawn(listener, page).map_err(cannot)?));
    }
    Ok(servers)
}

impl Kind {
    fn page(&self, path: &str, graph: &Mutex<Graph>) -> Option<Page> {
        let now = Instant::now();
        match self {
            Self::Metrics if path == "/metrics" => {
                let (stats, started) = {
                    let graph = lock(graph);
                    (graph.stats(now), graph.started)
                };
                Some((StatusCode::OK, admin::PROMETHEUS, metrics::page(&stats, started)))
            }
            Self::Health { path: wanted } if path == wanted => Some(health(&lock(graph), now)),
            Self::Pipelines if path == "/debug/pipelinez" => {
                let stats = lock(graph).stats(now);
                Some((StatusCode::OK, admin::TEXT, pipelines(&stats)))
            }
            Self::Metrics | Self::Health { .. } | Self::Pipelines => None,
        }
    }
}

/// 200 while everything works, 503 with what does not.
fn health(graph: &Graph, now: Instant) -> Page {
    let ailments = graph.ailments(now);
    let uptime = format!("{:.1}s", graph.started.elapsed().as_secs_f64());
    let (status, text) = match ailments.is_empty() {
        true => (StatusCode::OK, "Server available"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "Server not available"),
    };
    let ailing: serde_json::Map<_, _> =
        ailments.into_iter().map(|(id, text)| (id, json!(text))).collect();
    let body = json!({ "status": text, "uptime": uptime, "ailing": ailing });
    (status, admin::JSON, format!("{body}\n"))
}

fn pipelines(stats: &Stats) -> String {
    let mut text = String::from("receivers\n");
    // A string takes whatever is written to it.
    let _infallible = (|| {
        for one in &stats.receivers {
            writeln!(
                text,
                "  {} {}  accepted {}  refused {}  failed {}  connections {}",
                one.receiver, one.transport, one.accepted, one.refused, one.failed, one.connections
            )?;
        }
        writeln!(text, "pipelines")?;
        for one in stats.pipelines.iter().chain(&stats.processors) {
            writeln!(text, "  {}  in {}  out {}", one.id, one.incoming, one.outgoing)?;
        }
        writeln!(text, "exporters")?;
        for one in &stats.exporters {
            let account = &one.account;
            writeln!(
                text,
                "  {}  accepted {} = sent {} + rejected {} + dropped {} + queued {}  \
                 requests queued {} of {}, in flight {}{}",
                one.exporter,
                account.accepted,
                account.sent,
                account.rejected,
                account.dropped_in_all(),
                account.queued,
                account.requests_queued,
                one.queue_capacity,
                account.requests_in_flight,
                one.failing.as_ref().map_or_else(String::new, |(seconds, error)| {
                    format!("  failing for {seconds} s: {error}")
                }),
            )?;
        }
        Ok::<_, std::fmt::Error>(())
    })();
    text
}
