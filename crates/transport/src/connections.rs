//! The connections to one endpoint, in generations.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Builder, Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower_service::Service;

use crate::body::Outgoing;
use crate::config::{InvalidConfig, TransportConfig};
use crate::connect::{ConnectError, Connector, Stream};
use crate::endpoint::Endpoint;
use crate::error::{SendError, Source};
use crate::tls::Roots;

/// The pool of one endpoint, which is replaced as a whole.
///
/// A generation ends when one of its connections failed or when it is too old. What is in flight
/// on it finishes there; all that comes later goes over connections made anew, with names looked
/// up and certificates read again.
pub(crate) struct Connections {
    connector: Connector,
    builder: Builder,
    age_max: Option<Duration>,
    current: Mutex<Arc<Generation>>,
}

/// Connections made between two replacements.
pub(crate) struct Generation {
    client: Client<Dialler, Outgoing>,
    /// Its first failure to connect.
    failed: Arc<OnceLock<ConnectError>>,
    born: Instant,
    /// Of this generation, jitter included.
    age_max: Option<Duration>,
}

impl Connections {
    /// Reads the certificates, but for `roots`; dials and spawns nothing.
    pub(crate) fn new(
        config: &TransportConfig,
        endpoint: &Endpoint,
        roots: &Roots,
        now: Instant,
    ) -> Result<Self, InvalidConfig> {
        let connector = Connector::new(config, endpoint, roots)?;
        let builder = builder(config, endpoint);
        let age_max = config.connection_age_max;
        let current = Mutex::new(generation(&builder, &connector, age_max, now));
        Ok(Self { connector, builder, age_max, current })
    }

    /// The generation for a request that starts at `now`.
    pub(crate) fn current(&self, now: Instant) -> Arc<Generation> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_over(now) {
            *current = generation(&self.builder, &self.connector, self.age_max, now);
        }
        Arc::clone(&current)
    }

    /// Ends `failed`, unless another request has done so.
    pub(crate) fn retire(&self, failed: &Arc<Generation>, now: Instant) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, failed) {
            self.connector.rotate();
            *current = generation(&self.builder, &self.connector, self.age_max, now);
        }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Adds to `error` that replaced certificates are not used, where that is so and may be why: in
    /// the handshake, or behind it, as with TLS 1.3 the server's refusal comes after it.
    pub(crate) fn explain(&self, error: SendError) -> SendError {
        let Some(why) = self.connector.unused_files() else { return error };
        let explain = |source| Source::from(UnusedFiles { why, source });
        match error {
            SendError::Connect(source)
                if source.downcast_ref().is_some_and(ConnectError::is_of_tls) =>
            {
                SendError::Connect(explain(source))
            }
            SendError::Disconnect(source) => SendError::Disconnect(explain(source)),
            other => other,
        }
    }
}

impl Generation {
    /// Sends `request` over a connection that is idle, shared, or new.
    pub(crate) async fn send(
        &self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, SendError> {
        self.client.request(request).await.map_err(|error| failure(error, self.failed.get()))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.age_max.is_some_and(|age_max| now.saturating_duration_since(self.born) >= age_max)
    }
}

/// Opens the connections of one generation and keeps why the first one failed.
///
/// Requests that wait for a connection that another one opens hear from the client only that there
/// is none.
#[derive(Clone)]
struct Dialler {
    connector: Connector,
    failed: Arc<OnceLock<ConnectError>>,
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    /// The URL is the endpoint's own, which is known.
    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { connector, failed } = self.clone();
        Box::pin(async move {
            let connection = connector.connect().await;
            connection.inspect_err(|error| {
                failed.get_or_init(|| error.clone());
            })
        })
    }
}

fn builder(config: &TransportConfig, endpoint: &Endpoint) -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    let only_h2 = config.speaks_only_h2();
    let may_be_h2 = only_h2 || endpoint.is_https();
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(config.idle_timeout)
        // None kept would mean a connection for each request; over HTTP/2 there is one for all.
        .pool_max_idle_per_host(config.idle_connections_max.max(usize::from(may_be_h2)))
        .http2_only(only_h2)
        .http2_keep_alive_interval(config.keep_alive_interval)
        .http2_keep_alive_timeout(config.keep_alive_timeout)
        .http2_keep_alive_while_idle(false)
        .http2_initial_max_send_streams(INITIAL_STREAMS)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX);
    builder
}

fn generation(
    builder: &Builder,
    connector: &Connector,
    age_max: Option<Duration>,
    now: Instant,
) -> Arc<Generation> {
    let age_max = age_max.map(|age| jittered(age, fastrand::f64()));
    let failed = Arc::default();
    let dialler = Dialler { connector: connector.clone(), failed: Arc::clone(&failed) };
    Arc::new(Generation { client: builder.build(dialler), failed, born: now, age_max })
}

/// `age` less up to a tenth, by `random` from 0 to 1, so that clients that started together do not
/// come back together.
fn jittered(age: Duration, random: f64) -> Duration {
    age - age.mul_f64(0.1 * random.clamp(0.0, 1.0))
}

/// What `error` means, in a generation whose first connection that failed did so for `first`.
fn failure(error: ClientError, first: Option<&ConnectError>) -> SendError {
    let own = std::iter::successors(Some(&error as &(dyn Error + 'static)), |&e| e.source())
        .find_map(|error| error.downcast_ref::<ConnectError>());
    match own.or(first.filter(|_| error.is_connect())) {
        Some(ConnectError::Refused { proxy, status }) => {
            SendError::Proxy { proxy: proxy.clone(), status: *status }
        }
        Some(cause) => SendError::Connect(cause.clone().into()),
        None if error.is_connect() => SendError::Connect(error.into()),
        None => SendError::Disconnect(Broken(error).into()),
    }
}

/// The client's error without its own first words, which say no more than that there is one.
#[derive(Debug)]
pub(crate) struct Broken(ClientError);

impl Broken {
    /// Whether what came was no head of HTTP/1.1.
    pub(crate) fn is_no_http1(&self) -> bool {
        self.cause().is_some_and(hyper::Error::is_parse)
    }

    /// Whether the connection was closed before the request was on it. A new connection it was: the
    /// client tries again by itself where it was an old one.
    pub(crate) fn is_closed_at_once(&self) -> bool {
        self.cause().is_some_and(|cause| cause.is_canceled() || cause.is_user())
    }

    fn cause(&self) -> Option<&hyper::Error> {
        self.0.source()?.downcast_ref()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(_) if self.is_closed_at_once() => f.write_str("the connection was closed at once"),
            Some(cause) => write!(f, "{cause}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source().filter(|_| !self.is_closed_at_once()).and_then(Error::source)
    }
}

/// A failure while certificates on disk were replaced by something else.
#[derive(Debug)]
struct UnusedFiles {
    why: Arc<InvalidConfig>,
    source: Source,
}

impl fmt::Display for UnusedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files replaced on disk are not used: {}", self.why)?;
        if let Some(cause) = self.why.source() {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl Error for UnusedFiles {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// Requests on a new HTTP/2 connection before the server has said how many it takes at once. Those
/// it does not take it refuses, one by one, and then they wait for seconds to be sent again instead
/// of for one round trip.
const INITIAL_STREAMS: usize = 1;

/// What answers may bring in headers or trailers: details of 64 KiB in base64, and the rest.
const HEADER_LIST_BYTES_MAX: u32 = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;

    fn connections(age_max: Duration, now: Instant) -> Connections {
        let config = TransportConfig::new(Protocol::Grpc, "http://localhost:4317")
            .expect("valid")
            .connection_age_max(age_max);
        let roots = Roots::of(&config).expect("none needed");
        Connections::new(&config, &config.endpoints[0], &roots, now).expect("no TLS")
    }

    /// Faults 97.
    #[test]
    fn a_generation_lasts_for_its_age_less_a_tenth_at_most() {
        let now = Instant::now();
        let connections = connections(Duration::from_secs(100), now);
        let first = connections.current(now);
        let young = connections.current(now + Duration::from_secs(89));
        assert!(Arc::ptr_eq(&first, &young));
        let old = connections.current(now + Duration::from_secs(100));
        assert!(!Arc::ptr_eq(&first, &old));
        assert_eq!(jittered(Duration::from_secs(100), 0.0), Duration::from_secs(100));
        assert_eq!(jittered(Duration::from_secs(100), 1.0), Duration::from_secs(90));
    }

    #[test]
    fn without_a_limit_only_a_failure_ends_a_generation_and_once() {
        let now = Instant::now();
        let connections = connections(Duration::ZERO, now);
        let first = connections.current(now + Duration::from_secs(1_000_000));
        connections.retire(&first, now);
        let second = connections.current(now);
        assert!(!Arc::ptr_eq(&first, &second));
        // A request that failed on the first one too, a little later.
        connections.retire(&first, now);
        assert!(Arc::ptr_eq(&second, &connections.current(now)));
    }
}
