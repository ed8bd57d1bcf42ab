//! What the servers for people and their tools show.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use http::StatusCode;
use serde_json::json;
use spanwire_config::{Config, Extension, MetricNames, MetricsLevel, Setting};

use crate::admin::{self, Page, Server};
use crate::metrics;
use crate::service::{Graph, lock};
use crate::sockets;
use crate::start_error::StartError;
use crate::stats::Stats;

/// What a server shows.
#[derive(Clone)]
enum Kind {
    Metrics { names: MetricNames, level: MetricsLevel },
    Health { path: String },
    Pipelines,
}

/// The servers that stand.
#[derive(Clone, Default)]
pub(crate) struct Servers(Vec<Arc<Standing>>);

/// A server of a configuration, by the address that it has there.
struct Standing {
    endpoint: String,
    listener: Listener,
    _server: Server,
    shown: Arc<Mutex<Shown>>,
}

/// A share of a server's socket, for whoever takes its place.
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// What it is named and what it shows, which a reload may change.
struct Shown {
    name: String,
    kind: Kind,
}

/// The servers of a configuration that is about to run, and what they are to show then.
pub(crate) struct Prepared(Vec<(Place, Shown)>);

/// Where a server is.
enum Place {
    Stands(Arc<Standing>),
    /// At an address of the configuration.
    New(String, tokio::net::TcpListener, Listener),
}

struct Wanted {
    name: String,
    setting: Setting,
    endpoint: String,
    kind: Kind,
}

/// What is to listen for people and their tools: where that is set, and addresses as in the
/// configuration.
pub(crate) fn endpoints(config: &Config) -> impl Iterator<Item = (Setting, String)> {
    wanted(config).into_iter().map(|one| (one.setting, one.endpoint))
}

fn wanted(config: &Config) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let metrics = &config.service.telemetry.metrics;
    if let Some(address) = &metrics.address {
        let (name, endpoint) = ("metrics".to_owned(), address.clone());
        let kind = Kind::Metrics { names: metrics.names, level: metrics.level };
        let setting = Setting::section("service").key("telemetry").key("metrics");
        wanted.push(Wanted { name, setting, endpoint, kind });
    }
    for id in &config.service.extensions {
        let (endpoint, kind) = match config.extensions.get(id) {
            Some(Extension::HealthCheck(check)) => {
                (&check.endpoint, Kind::Health { path: check.path.clone() })
            }
            Some(Extension::Zpages(zpages)) => (&zpages.endpoint, Kind::Pipelines),
            _ => continue,
        };
        let setting = Setting::component("extensions", id).key("endpoint");
        wanted.push(Wanted { name: id.to_string(), setting, endpoint: endpoint.clone(), kind });
    }
    wanted
}

/// Listens for the servers that are wanted, except where one stands at the address. None of them
/// answers, and those that stand go on with what they show, until [`Servers::run`].
pub(crate) async fn prepare(config: &Config, standing: &Servers) -> Result<Prepared, StartError> {
    let mut prepared: Vec<(Place, Shown)> = Vec::new();
    for Wanted { name, setting, endpoint, kind } in wanted(config) {
        let cannot = |source| StartError::Listen {
            setting: setting.clone(),
            endpoint: endpoint.clone(),
            source,
        };
        let free = |one: &&Arc<Standing>| {
            let is_used =
                |place: &Place| matches!(place, Place::Stands(used) if Arc::ptr_eq(used, one));
            !prepared.iter().any(|(place, _)| is_used(place))
        };
        let place = match standing.at(&endpoint, &name, free).await.map_err(cannot)? {
            Some(stands) => Place::Stands(stands),
            None => standing.listen(&endpoint).await.map_err(cannot)?,
        };
        prepared.push((place, Shown { name, kind }));
    }
    Ok(Prepared(prepared))
}

impl Servers {
    /// Puts what was prepared in the place of what is there. Servers stand in the graph that they
    /// show.
    pub(crate) fn run(&mut self, prepared: Prepared, graph: &Weak<Mutex<Graph>>) {
        let servers = prepared.0.into_iter().map(|(place, shown)| match place {
            Place::Stands(server) => {
                *server.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
                server
            }
            Place::New(endpoint, socket, listener) => {
                let shown = Arc::new(Mutex::new(shown));
                let (shows, graph) = (Arc::clone(&shown), Weak::clone(graph));
                let page = move |path: &str| {
                    let kind = shows.lock().unwrap_or_else(PoisonError::into_inner).kind.clone();
                    Some(kind.page(path, &*graph.upgrade()?))
                };
                let _server = Server::spawn(socket, page);
                Arc::new(Standing { endpoint, listener, _server, shown })
            }
        });
        self.0 = servers.collect();
    }

    /// Listens on the first address of a name that can be had.
    async fn listen(&self, endpoint: &str) -> io::Result<Place> {
        let stands: Vec<_> = self.0.iter().map(|one| &one.listener.socket).collect();
        let mut unavailable = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in sockets::addresses(endpoint).await? {
            match sockets::bind(address, &stands).await {
                Ok(socket) => {
                    let address = socket.local_addr()?;
                    let share = Listener { socket: socket.try_clone()?, address };
                    let socket = tokio::net::TcpListener::from_std(socket)?;
                    return Ok(Place::New(endpoint.to_owned(), socket, share));
                }
                Err(error) => unavailable = error,
            }
        }
        Err(unavailable)
    }

    /// Names and addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|one| {
            let shown = one.shown.lock().unwrap_or_else(PoisonError::into_inner);
            (shown.name.clone(), one.listener.address.to_string())
        })
    }

    /// The free server at an address: as it is written, and of the same name if there is one, as
    /// several may be at port 0; or where the address leads.
    async fn at(
        &self,
        endpoint: &str,
        name: &str,
        free: impl Fn(&&Arc<Standing>) -> bool,
    ) -> io::Result<Option<Arc<Standing>>> {
        let same = |one: &&Arc<Standing>| one.endpoint == endpoint;
        let named = |one: &&Arc<Standing>| {
            one.shown.lock().unwrap_or_else(PoisonError::into_inner).name == name
        };
        let all = || self.0.iter().filter(&free);
        let found = all().filter(same).find(named).or_else(|| all().find(same));
        if found.is_some() || self.0.is_empty() {
            return Ok(found.cloned());
        }
        let addresses = sockets::addresses(endpoint).await?;
        Ok(all().find(|one| addresses.contains(&one.listener.address)).cloned())
    }
}

impl Kind {
    fn page(&self, path: &str, graph: &Mutex<Graph>) -> Page {
        let now = Instant::now();
        match self {
            Self::Metrics { names, level } if path == METRICS => {
                let (stats, started) = {
                    let graph = lock(graph);
                    (graph.stats(now), graph.started)
                };
                let text = metrics::page(&stats, started, *names, *level);
                (StatusCode::OK, admin::PROMETHEUS, text)
            }
            Self::Health { path: wanted } if path == wanted => health(&lock(graph), now),
            Self::Pipelines if path == PIPELINES => {
                let stats = lock(graph).stats(now);
                (StatusCode::OK, admin::TEXT, pipelines(&stats))
            }
            Self::Pipelines if path == "/" => {
                (StatusCode::OK, admin::TEXT, format!("{PIPELINES}\n"))
            }
            Self::Metrics { .. } => elsewhere(METRICS),
            Self::Health { path } => elsewhere(path),
            Self::Pipelines => elsewhere(PIPELINES),
        }
    }
}

const METRICS: &str = "/metrics";
const PIPELINES: &str = "/debug/pipelinez";

/// For a path that has no page.
fn elsewhere(page: &str) -> Page {
    (StatusCode::NOT_FOUND, admin::TEXT, format!("not found; there is {page}\n"))
}

/// 200 while everything works, 503 with what does not.
fn health(graph: &Graph, now: Instant) -> Page {
    let ailments = graph.ailments(now);
    let uptime = format!("{:.1}s", graph.started.elapsed().as_secs_f64());
    let since = rfc3339(graph.started_at);
    let (status, text) = match ailments.is_empty() {
        true => (StatusCode::OK, "Server available"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "Server not available"),
    };
    let ailing: serde_json::Map<_, _> =
        ailments.into_iter().map(|(id, text)| (id, json!(text))).collect();
    let body = json!({ "status": text, "upSince": since, "uptime": uptime, "ailing": ailing });
    (status, admin::JSON, format!("{body}\n"))
}

/// A time as text, in UTC and to the second (RFC 3339). Days become dates as in "`civil_from_days`"
/// of <https://howardhinnant.github.io/date_algorithms.html>, whose years begin in March.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (since / 86_400 + 719_468, since % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn pipelines(stats: &Stats) -> String {
    let mut text = String::from("receivers\n");
    // A string takes whatever is written to it.
    let _infallible = (|| {
        for one in &stats.receivers {
            writeln!(
                text,
                "  {} {}  accepted {}  refused {}  failed {}  connections {}",
                one.receiver,
                one.transport,
                one.accepted,
                one.refused,
                one.failed,
                one.connections.open
            )?;
        }
        writeln!(text, "pipelines")?;
        for one in &stats.pipelines {
            let (pipeline, passed) = (&one.pipeline, &one.passed);
            writeln!(
                text,
                "  {pipeline}  accepted {} = sampled out {} + forwarded {}",
                passed.accepted, passed.sampled_out, passed.forwarded
            )?;
            for one in stats.processors.iter().filter(|one| one.pipeline == *pipeline) {
                writeln!(text, "    {}  in {}  out {}", one.processor, one.incoming, one.outgoing)?;
            }
        }
        writeln!(text, "exporters")?;
        for one in &stats.exporters {
            let account = &one.account;
            writeln!(
                text,
                "  {}  accepted {} = sampled out {} + sent {} + rejected {} + dropped {} + queued {}  \
                 queue {} of {}, requests in flight {}{}",
                one.exporter,
                account.accepted,
                account.sampled_out,
                account.sent,
                account.rejected,
                account.dropped_in_all(),
                account.queued,
                one.queue_size,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_dates_in_utc() {
        let text = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    /// A destination that accepts connections and answers nothing, a span on its way to it, and what
    /// health says after a time.
    #[tokio::test]
    async fn health_is_503_while_a_destination_takes_nothing_though_nothing_fails() {
        use spanwire_model::{Resource, Scope, Span, SpanContext, SpanId, TraceFlags, TraceId};

        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let yaml = format!(
            "
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: 127.0.0.1:0 }} }} }} }}
exporters: {{ otlphttp: {{ endpoint: 'http://{}', timeout: 0 }} }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [otlphttp] }} }}
",
            silent.local_addr().expect("its address")
        );
        let source = spanwire_config::Source::Yaml(yaml);
        let loaded = Config::load(&[source], &[], &|_| None, spanwire_config::Compat::Strict);
        let config = loaded.unwrap_or_else(|report| panic!("{report}")).config;
        let collector = crate::Collector::start(config).await.expect("it starts");
        let at = |after: u64| {
            let (status, _, text) =
                health(&lock(&collector.graph), Instant::now() + Duration::from_secs(after));
            (status.as_u16(), text)
        };
        assert_eq!(at(1_000).0, 200, "there is nothing to take");
        let inlet = collector.inlet("traces", &Resource::default(), &Scope::new("test"));
        let inlet = inlet.expect("the pipeline");
        let ids = (TraceId::new(1).expect("not zero"), SpanId::new(1).expect("not zero"));
        let context = SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED);
        inlet.collect(&Span::new(context, "one".to_owned())).expect("there is room");
        let since = Instant::now();
        while collector.stats().exporters[0].account.requests_in_flight == 0 {
            assert!(since.elapsed() < Duration::from_secs(30), "it is not sent");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(at(25).0, 200, "it may answer yet");
        let (status, text) = at(40);
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("\"otlphttp\":\"has taken nothing for "), "{text}");
        assert!(text.contains("spans that wait: 1"), "{text}");
    }
}
