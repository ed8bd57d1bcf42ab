//! A collector on a loopback port that answers what a test tells it, over HTTP/1.1 and HTTP/2, with
//! and without TLS.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use prost::Message as _;
use spanwire_codec::message::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use spanwire_transport::{Accepted, Body, SendError, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A request as the collector saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) version: Version,
    /// As it was written: a proxy sees scheme and host in it.
    pub(crate) uri: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Runs until it is dropped, its connections with it.
pub(crate) struct Collector {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    _accepting: JoinSet<()>,
}

enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// `None` is a client that went away in the handshake.
    async fn accept(&self) -> io::Result<Option<Box<dyn Io>>> {
        Ok(match self {
            Self::Tcp(listener) => Some(Box::new(listener.accept().await?.0)),
            Self::Tls(listener, acceptor) => {
                let (socket, _) = listener.accept().await?;
                acceptor.accept(socket).await.ok().map(|stream| Box::new(stream) as Box<dyn Io>)
            }
            #[cfg(unix)]
            Self::Unix(listener) => Some(Box::new(listener.accept().await?.0)),
        })
    }
}

/// A connection of any kind.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Collector {
    pub(crate) async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Reply>> + Send + 'static,
    {
        Self::start_on(ANY_PORT, true, answer).await
    }

    /// Starts again where another one was.
    pub(crate) async fn restart<F, A>(addr: SocketAddr, answer: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Reply>> + Send + 'static,
    {
        Self::start_on(addr, true, answer).await
    }

    /// Speaks TLS.
    pub(crate) async fn with_tls<F, A>(config: rustls::ServerConfig, answer: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Reply>> + Send + 'static,
    {
        Self::with_tls_on(ANY_PORT, config, answer).await
    }

    /// Speaks TLS where another one was.
    pub(crate) async fn with_tls_on<F, A>(
        addr: SocketAddr,
        config: rustls::ServerConfig,
        answer: F,
    ) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Reply>> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::serve(addr, Listener::Tls(listener, acceptor), true, answer)
    }

    /// Listens on a Unix socket, which has no address.
    #[cfg(unix)]
    pub(crate) fn on_socket<F, A>(path: &std::path::Path, answer: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Reply>> + Send + 'static,
    {
        let listener = tokio::net::UnixListener::bind(path).expect("a free path");
        Self::serve(ANY_PORT, Listener::Unix(listener), true, answer)
    }

    async fn start_on<F, A>(addr: SocketAddr, reads_bodies: bool, answer: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Reply>> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        Self::serve(addr, Listener::Tcp(listener), reads_bodies, answer)
    }

    fn serve<F, A>(addr: SocketAddr, listener: Listener, reads_bodies: bool, answer: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Reply>> + Send + 'static,
    {
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let mut accepting = JoinSet::new();
        let (connections_made, requests) = (connections.clone(), seen.clone());
        accepting.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok(socket) = listener.accept().await {
                let Some(socket) = socket else { continue };
                connections_made.fetch_add(1, Ordering::SeqCst);
                let (answer, requests) = (answer.clone(), requests.clone());
                serving.spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let (answer, requests) = (answer.clone(), requests.clone());
                        async move {
                            let seen = read(request, reads_bodies).await;
                            requests.lock().expect("no panic").push(seen.clone());
                            Ok::<_, Infallible>(answer(seen).await)
                        }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // A client that hangs up is part of many tests.
                    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { addr, connections, seen, _accepting: accepting }
    }

    /// Answers every request with the same reply.
    pub(crate) async fn answering(
        reply: impl Fn() -> Response<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |_| std::future::ready(reply())).await
    }

    /// Answers every request with the same reply, before and instead of reading its body.
    pub(crate) async fn refusing(
        reply: impl Fn() -> Response<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(ANY_PORT, false, move |_| std::future::ready(reply())).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn https_url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "requests");
        seen[0].clone()
    }
}

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn read(request: Request<Incoming>, reads_body: bool) -> Seen {
    let (head, body) = request.into_parts();
    Seen {
        version: head.version,
        uri: head.uri.to_string(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: head.headers,
        body: match reads_body {
            true => body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
            false => Bytes::new(),
        },
    }
}

/// The body of an answer: frames in order, then, if asked for, 64 KiB pieces without end.
pub(crate) struct Reply {
    frames: VecDeque<Frame<Bytes>>,
    endless: bool,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let endless = self.endless.then(|| Frame::data(Bytes::from(vec![0; 64 * 1024])));
        Poll::Ready(self.frames.pop_front().or(endless).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && !self.endless
    }
}

/// What a test sends: 40 KiB in one small and one large piece, 10 spans.
pub(crate) fn body() -> Body {
    let large: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
    Body::new([Bytes::from_static(b"header"), Bytes::from(large)], 10)
}

pub(crate) async fn send_to(transport: &Transport) -> Result<Accepted, SendError> {
    let encoded = transport.encode(&body()).await.expect("within limits");
    transport.send(&encoded).await
}

/// The whole chain of an error in one line.
pub(crate) fn causes(error: &SendError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(current) = cause {
        text += &format!(": {current}");
        cause = current.source();
    }
    text
}

/// A port of this machine where nobody listens.
pub(crate) async fn dead_addr() -> SocketAddr {
    let listener = TcpListener::bind(ANY_PORT).await.expect("a free port");
    listener.local_addr().expect("bound")
}

/// An HTTP answer with `headers` and `body`.
pub(crate) fn http(
    status: u16,
    headers: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Response<Reply> {
    let body = body.into();
    let frames = (!body.is_empty()).then(|| Frame::data(body)).into_iter().collect();
    reply(status, headers, Reply { frames, endless: false })
}

/// An HTTP answer that never ends.
pub(crate) fn endless(status: u16, headers: &[(&'static str, &str)]) -> Response<Reply> {
    reply(status, headers, Reply { frames: VecDeque::new(), endless: true })
}

/// A gRPC answer: headers, the message's frame, trailers.
pub(crate) fn grpc(message: &[u8], trailers: &[(&'static str, &str)]) -> Response<Reply> {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    grpc_raw(framed, &[], trailers)
}

/// A gRPC answer of any bytes, with more `headers`.
pub(crate) fn grpc_raw(
    body: Vec<u8>,
    headers: &[(&'static str, &str)],
    trailers: &[(&'static str, &str)],
) -> Response<Reply> {
    let mut frames = VecDeque::new();
    if !body.is_empty() {
        frames.push_back(Frame::data(Bytes::from(body)));
    }
    frames.push_back(Frame::trailers(header_map(trailers)));
    let mut response = reply(200, headers, Reply { frames, endless: false });
    response.headers_mut().insert("content-type", "application/grpc".parse().expect("valid"));
    response
}

/// A gRPC answer that everything went well.
pub(crate) fn grpc_ok() -> Response<Reply> {
    grpc(&[], &[("grpc-status", "0")])
}

/// An encoded `ExportTraceServiceResponse` with a partial success.
pub(crate) fn partial(rejected_spans: i64, error_message: &str) -> Vec<u8> {
    let error_message = error_message.to_owned();
    let partial = ExportTracePartialSuccess { rejected_spans, error_message };
    ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
}

fn reply(status: u16, headers: &[(&'static str, &str)], body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().expect("a status");
    *response.headers_mut() = header_map(headers);
    response
}

fn header_map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (http::HeaderName::from_static(name), value.parse().expect("a header value"))
    };
    pairs.iter().map(pair).collect()
}
