//! Real peers for the tests: a raw HTTP/1.1 socket, a raw HTTP/2 stream, and requests to send.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::HashMap;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use spanwire_receiver::{Accepted, Builder, Received, Receiver, Refusal, Sink};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Fails the test instead of hanging it.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(15), future).await.expect("the test takes too long")
}

/// Polls until `holds`, or fails.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) async fn start(sink: impl Sink) -> Receiver {
    start_with(sink, |builder| builder).await
}

pub(crate) async fn start_with(
    sink: impl Sink,
    settings: impl FnOnce(Builder) -> Builder,
) -> Receiver {
    let any = "127.0.0.1:0".parse().expect("an address");
    settings(Receiver::builder().grpc(any).http(any))
        .bind(sink)
        .await
        .expect("loopback has free ports")
}

/// A byte budget for so many requests of `len` bytes, the largest there may be, which one connection
/// may use up.
pub(crate) fn room_for(requests: usize, len: usize, builder: Builder) -> Builder {
    builder
        .grpc_request_bytes_max(len)
        .http_request_bytes_max(len)
        .in_flight_bytes_max(requests * len)
        .connection_bytes_max(requests * len)
}

/// Takes everything and remembers nothing.
pub(crate) async fn take_all(_: Received) -> Result<Accepted, Refusal> {
    Ok(Accepted::default())
}

/// A sink that shows each request and answers when it is told to.
pub(crate) struct Gate {
    arrived: mpsc::UnboundedSender<usize>,
    answers: std::sync::Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<usize>, std::sync::Arc<Semaphore>) {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let answers = std::sync::Arc::new(Semaphore::new(0));
        let gate = Self { arrived, answers: answers.clone() };
        (gate, arrivals, answers)
    }
}

impl Sink for Gate {
    async fn accept(&self, received: Received) -> Result<Accepted, Refusal> {
        let _ = self.arrived.send(received.spans);
        let permit = self.answers.acquire().await;
        permit.expect("never closed").forget();
        drop(received);
        Ok(Accepted::default())
    }
}

pub(crate) fn span(number: usize) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: (number as u64 + 1).to_be_bytes().to_vec(),
        name: format!("span number {number}"),
        kind: 1,
        start_time_unix_nano: 1_700_000_000_000_000_000 + number as u64,
        end_time_unix_nano: 1_700_000_000_000_001_000 + number as u64,
        ..Span::default()
    }
}

pub(crate) fn request_of(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

pub(crate) fn request(spans: usize) -> ExportTraceServiceRequest {
    request_of((0..spans).map(span).collect())
}

pub(crate) fn wire(spans: usize) -> Vec<u8> {
    request(spans).encode_to_vec()
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).expect("a vector takes all")
}

pub(crate) fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

pub(crate) fn snappy(data: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(data).expect("short enough")
}

pub(crate) fn snappy_framed(data: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(data).expect("a vector takes all");
    encoder.into_inner().expect("a vector takes all")
}

/// A `google.rpc.Status`, or as much of it as the tests read.
pub(crate) fn status_code(body: &[u8]) -> i32 {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let status = Status::decode(body).expect("a Status");
    assert!(!status.message.is_empty());
    status.code
}

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// An HTTP/1.1 connection, by hand.
pub(crate) struct Http1 {
    pub(crate) tcp: TcpStream,
    read: Vec<u8>,
}

impl Http1 {
    pub(crate) async fn connect(address: Option<SocketAddr>) -> Self {
        let tcp = TcpStream::connect(address.expect("served")).await.expect("it listens");
        Self { tcp, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).await.expect("the connection is open");
    }

    /// One whole answer; 100 Continue counts as one.
    pub(crate) async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.fill().await > 0, "closed before the headers: {self:?}");
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).expect("ASCII");
        let mut lines = head.trim_end().lines();
        let status = lines.next().expect("a status line")[9..12].parse().expect("a status");
        let headers: HashMap<_, _> = lines
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length =
            headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
        while self.read.len() < length {
            assert!(self.fill().await > 0, "closed before the body's end");
        }
        let body = self.read.drain(..length).collect();
        Answer { status, headers, body }
    }

    /// Whether the peer closes, in an orderly way, without another byte.
    pub(crate) async fn closes(&mut self) -> bool {
        self.read.is_empty() && self.fill().await == 0
    }

    async fn fill(&mut self) -> usize {
        soon(self.tcp.read_buf(&mut self.read)).await.expect("no reset")
    }
}

impl std::fmt::Debug for Http1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.read))
    }
}

/// The head of a POST to the traces path. `headers` are whole lines.
pub(crate) fn head(headers: &str, length: usize) -> Vec<u8> {
    format!("POST /v1/traces HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n")
        .into_bytes()
}

pub(crate) const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";
pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

/// Posts one body on a connection of its own.
pub(crate) async fn post(receiver: &Receiver, headers: &str, body: &[u8]) -> Answer {
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[&head(headers, body.len()), body].concat()).await;
    soon(http.answer()).await
}

/// The answer to a gRPC call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) http_status: u16,
    pub(crate) code: u32,
    pub(crate) headers: HeaderMap,
    pub(crate) message: Vec<u8>,
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Http2(pub(crate) h2::client::SendRequest<Bytes>);

/// A gRPC request under way.
pub(crate) struct Stream {
    pub(crate) send: h2::SendStream<Bytes>,
    response: h2::client::ResponseFuture,
}

impl Http2 {
    pub(crate) async fn connect(address: Option<SocketAddr>) -> Self {
        let tcp = TcpStream::connect(address.expect("served")).await.expect("it listens");
        let (client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(client.ready().await.expect("open"))
    }

    pub(crate) async fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut request = Request::post(format!("http://test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.open_request(request.body(()).expect("a request")).await
    }

    pub(crate) async fn open_request(&mut self, request: Request<()>) -> Stream {
        let mut client = self.0.clone().ready().await.expect("open");
        let (response, send) = client.send_request(request, false).expect("a stream");
        Stream { send, response }
    }

    /// A call of the export method with these bytes and headers.
    pub(crate) async fn call(&mut self, headers: &[(&str, &str)], body: &[u8]) -> Call {
        let mut all = vec![("content-type", "application/grpc"), ("te", "trailers")];
        all.extend_from_slice(headers);
        let mut stream = self.open(EXPORT, &all).await;
        stream.data(body, true);
        stream.answer().await
    }
}

impl Stream {
    pub(crate) fn data(&mut self, data: &[u8], end: bool) {
        self.send.send_data(Bytes::copy_from_slice(data), end).expect("open");
    }

    /// Waits for the answer, whatever becomes of it.
    pub(crate) async fn answer_unchecked(self) {
        if let Ok(answer) = self.response.await {
            let mut body = answer.into_body();
            while let Some(Ok(_)) = body.data().await {}
        }
    }

    pub(crate) async fn answer(self) -> Call {
        soon(async {
            let (head, mut body) = self.response.await.expect("an answer").into_parts();
            let mut message = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.expect("the body");
                let _ = body.flow_control().release_capacity(data.len());
                message.extend_from_slice(&data);
            }
            let trailers = body.trailers().await.expect("the trailers").unwrap_or_default();
            let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
            Call {
                http_status: head.status.as_u16(),
                code: status.map_or(u32::MAX, |code| {
                    code.to_str().expect("ASCII").parse().expect("a number")
                }),
                headers: head.headers,
                message,
            }
        })
        .await
    }
}

/// A message with its gRPC prefix.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[flag], &length[..], message].concat()
}
