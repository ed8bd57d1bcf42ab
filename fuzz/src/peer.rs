//! The ends of real sockets that inputs travel over, one set a process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spanwire_receiver::{Accepted, Received, Receiver};
use spanwire_transport::{Body, Encoded, Protocol, SendError, Transport, TransportConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A runtime on the calling thread, so that what it runs is seen by the fuzzer.
pub(crate) struct Ends {
    runtime: Runtime,
    // Serves until it is dropped.
    _receiver: Receiver,
    receiver_address: SocketAddr,
    connection: Option<TcpStream>,
    /// Spans in the requests that the receiver has handed on.
    received: Arc<Mutex<usize>>,
    answer: Arc<Mutex<Answer>>,
    http: (Transport, Encoded),
    grpc: (Transport, Encoded),
}

/// What a server answers, whoever asks.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names and values, no line breaks in either. In gRPC these are the trailers.
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// The ends, for one input at a time.
pub(crate) fn ends() -> MutexGuard<'static, Ends> {
    static ENDS: OnceLock<Mutex<Ends>> = OnceLock::new();
    let ends = ENDS.get_or_init(|| Mutex::new(Ends::start()));
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The largest body the receiver takes, so that the smallest bomb is one.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Spans in the request that is sent to the answering server.
pub(crate) const SPANS_SENT: usize = 7;

impl Ends {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime without threads");
        let received = Arc::new(Mutex::new(0));
        let answer = Arc::new(Mutex::new(Answer::default()));
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();

        let sink = received.clone();
        let receiver = Receiver::builder()
            .http(any)
            .http_request_bytes_max(REQUEST_BYTES_MAX)
            .bind(move |received: Received| {
                *lock(&sink) += received.spans;
                async { Ok(Accepted::default()) }
            });
        let receiver = runtime.block_on(receiver).expect("loopback has free ports");
        let receiver_address = receiver.http_address().expect("HTTP is served");
        let listen = || runtime.block_on(TcpListener::bind(any)).expect("loopback has free ports");
        let (http, grpc) = (listen(), listen());
        let (http_address, grpc_address) =
            (http.local_addr().expect("bound"), grpc.local_addr().expect("bound"));
        runtime.spawn(serve_http(http, answer.clone()));
        runtime.spawn(serve_grpc(grpc, answer.clone()));
        let client = |protocol, address| {
            let config = TransportConfig::new(protocol, &format!("http://{address}"))
                .expect("a valid address")
                .request_timeout(Duration::from_secs(5));
            let body = Body::new([Bytes::from_static(&[0x0A, 0])], SPANS_SENT);
            runtime.block_on(async {
                let transport = Transport::new(&config).expect("within a runtime");
                let encoded = transport.encode(&body).await.expect("nothing to compress");
                (transport, encoded)
            })
        };
        Self {
            http: client(Protocol::HttpProtobuf, http_address),
            grpc: client(Protocol::Grpc, grpc_address),
            _receiver: receiver,
            receiver_address,
            connection: None,
            received,
            answer,
            runtime,
        }
    }

    /// Sends a request over HTTP/1.1; returns the status, the body of the answer, and how many spans
    /// were handed on.
    pub(crate) fn request(&mut self, headers: &str, body: &[u8]) -> (u16, Vec<u8>, usize) {
        *lock(&self.received) = 0;
        let mut request = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: fuzz\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let (address, kept) = (self.receiver_address, self.connection.take());
        let (status, body, kept) = self.runtime.block_on(async {
            let exchange = async {
                // A kept connection may have been closed behind the answer to the last request.
                if let Some(kept) = kept
                    && let Ok(answer) = exchange(kept, &request).await
                {
                    return Ok(answer);
                }
                exchange(TcpStream::connect(address).await?, &request).await
            };
            let answer = tokio::time::timeout(Duration::from_secs(5), exchange).await;
            answer.expect("no answer within 5 s").expect("an answer on a new connection")
        });
        self.connection = kept;
        (status, body, *lock(&self.received))
    }

    /// What the client makes of this answer.
    pub(crate) fn answer(
        &mut self,
        protocol: Protocol,
        answer: Answer,
    ) -> Result<spanwire_transport::Accepted, SendError> {
        *lock(&self.answer) = answer;
        let (transport, encoded) = match protocol {
            Protocol::Grpc => &self.grpc,
            Protocol::HttpProtobuf | Protocol::HttpJson => &self.http,
        };
        self.runtime.block_on(transport.send(encoded))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request and its answer; the connection too, unless the server closes it.
async fn exchange(
    mut tcp: TcpStream,
    request: &[u8],
) -> std::io::Result<(u16, Vec<u8>, Option<TcpStream>)> {
    tcp.write_all(request).await?;
    let (head, mut body) = read_head(&mut tcp).await?;
    let field = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let len = field("content-length:").and_then(|len| len.parse().ok()).unwrap_or(0);
    while body.len() < len {
        if tcp.read_buf(&mut body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let closes = field("connection:").is_some_and(|value| value == "close");
    Ok((status, body, (!closes).then_some(tcp)))
}

/// The head of an HTTP/1.1 message, in lower case, and what came of its body.
async fn read_head(tcp: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let body = read.split_off(at + 4);
            return Ok((String::from_utf8_lossy(&read).to_lowercase(), body));
        }
        if tcp.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Answers each request over HTTP/1.1 with what is to be answered, byte by byte.
async fn serve_http(listener: TcpListener, answer: Arc<Mutex<Answer>>) {
    while let Ok((mut tcp, _)) = listener.accept().await {
        let answer = answer.clone();
        tcp.set_nodelay(true).ok();
        tokio::spawn(async move {
            while let Ok((head, mut body)) = read_head(&mut tcp).await {
                let len = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let len = len.and_then(|len| len.trim().parse().ok()).unwrap_or(0);
                while body.len() < len {
                    if !matches!(tcp.read_buf(&mut body).await, Ok(1..)) {
                        return;
                    }
                }
                let answer = lock(&answer).clone();
                let mut out = format!("HTTP/1.1 {} Whatever\r\n", answer.status).into_bytes();
                for (name, value) in &answer.headers {
                    out.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
                }
                // These have no body, whatever their headers say.
                if matches!(answer.status, 204 | 304) {
                    out.extend_from_slice(b"\r\n");
                } else {
                    out.extend(format!("content-length: {}\r\n\r\n", answer.body.len()).bytes());
                    out.extend_from_slice(&answer.body);
                }
                if tcp.write_all(&out).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Answers each call over HTTP/2 with what is to be answered as body and trailers.
async fn serve_grpc(listener: TcpListener, answer: Arc<Mutex<Answer>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let answer = answer.clone();
        // Body and trailers are written apart; the second would wait for the first to be confirmed.
        tcp.set_nodelay(true).ok();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let answer = answer.clone();
            async move {
                drop(request.into_body().collect().await);
                let Answer { status, headers, body } = lock(&answer).clone();
                let mut trailers = HeaderMap::new();
                for (name, value) in headers {
                    if let Ok(value) = HeaderValue::from_bytes(&value) {
                        trailers.insert(name, value);
                    }
                }
                let body = Full::new(Bytes::from(body));
                let body = body.with_trailers(async { Some(Ok(trailers)) });
                http::Response::builder()
                    .status(status)
                    .header("content-type", "application/grpc")
                    .header("grpc-encoding", "gzip")
                    .body(body)
            }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(connection.serve_connection(TokioIo::new(tcp), service));
    }
}
