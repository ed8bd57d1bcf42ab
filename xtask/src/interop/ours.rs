//! Our two ends: the receiver that peers send to, and the spans that our client sends to peers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::Value as Json;
use spanwire::{BatchConfig, Client, Compression, Protocol, Tracer};
use spanwire_model::{
    Event, KeyValue, Link, Resource, Scope, Span, SpanContext, SpanId, SpanKind, Status, Text,
    TraceFlags, TraceId, TraceState, Value,
};
use spanwire_receiver::{
    Accepted, Encoding, Reason, Received, Receiver, Stats, Transport, TransportStats,
};
use tokio::runtime::Runtime;

use super::document::{document, documents};

/// Our receiver on free ports of localhost.
pub(super) struct Collector {
    runtime: Runtime,
    receiver: Receiver,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// What the receiver's sink was given.
struct Request {
    transport: Transport,
    encoding: Encoding,
    bytes: Bytes,
    spans: usize,
}

impl Collector {
    pub(super) fn start() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        let sink = move |received: Received| {
            let Received { transport, encoding, spans, .. } = received;
            let request = Request { transport, encoding, spans, bytes: received.request.clone() };
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            std::future::ready(Ok(Accepted::default()))
        };
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let receiver = Receiver::builder().grpc(any_port).http(any_port).bind(sink);
        let receiver = runtime.block_on(receiver).map_err(|error| error.to_string())?;
        Ok(Self { runtime, receiver, requests })
    }

    pub(super) fn address(&self, protocol: Protocol) -> Result<SocketAddr, String> {
        let address = match protocol {
            Protocol::Grpc => self.receiver.grpc_address(),
            Protocol::HttpProtobuf | Protocol::HttpJson => self.receiver.http_address(),
        };
        address.ok_or_else(|| "the receiver has no such port".to_owned())
    }

    pub(super) fn endpoint(&self, protocol: Protocol) -> Result<String, String> {
        self.address(protocol).map(|address| format!("http://{address}"))
    }

    /// Stops it; the documents of what it was given.
    ///
    /// # Errors
    ///
    /// Where what it has counted is not what its sink was given, or came another way.
    pub(super) fn finish(
        self,
        protocol: Protocol,
        compression: Compression,
    ) -> Result<Vec<Json>, String> {
        self.runtime.block_on(self.receiver.shutdown(Duration::from_secs(5)));
        let stats = self.receiver.stats();
        let requests =
            std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner));
        check_account(&stats, &requests)?;
        check_way(&stats, &requests, protocol, compression)?;
        let mut all = Vec::new();
        for request in &requests {
            all.extend(documents(&request.bytes)?);
        }
        Ok(all)
    }
}

/// What the receiver has counted is what its sink was given. The sink answers at once, so that no
/// request is cancelled between the two.
fn check_account(stats: &Stats, requests: &[Request]) -> Result<(), String> {
    for (transport, stats) in [(Transport::Grpc, &stats.grpc), (Transport::Http, &stats.http)] {
        let given = requests.iter().filter(|request| request.transport == transport);
        let (given, spans) =
            given.fold((0, 0), |(given, spans), request| (given + 1, spans + request.spans as u64));
        let counted = (stats.requests_accepted, stats.spans_accepted);
        if (given, spans) != counted || stats.spans_rejected > 0 {
            return Err(format!("{transport:?}: the sink has {spans} spans, but {stats:?}"));
        }
        if stats.refused(Reason::Panic).requests > 0 {
            return Err(format!("{transport:?}: a panic: {stats:?}"));
        }
    }
    match (stats.in_flight_bytes, stats.connections_open) {
        (0, 0) => Ok(()),
        _ => Err(format!("not at rest after its end: {stats:?}")),
    }
}

/// Every request came by this protocol, and compressed or not as it should.
fn check_way(
    stats: &Stats,
    requests: &[Request],
    protocol: Protocol,
    compression: Compression,
) -> Result<(), String> {
    let (transport, encoding, stats) = match protocol {
        Protocol::Grpc => (Transport::Grpc, Encoding::Protobuf, &stats.grpc),
        Protocol::HttpProtobuf => (Transport::Http, Encoding::Protobuf, &stats.http),
        Protocol::HttpJson => (Transport::Http, Encoding::Json, &stats.http),
    };
    if let Some(other) = requests
        .iter()
        .find(|request| (request.transport, request.encoding) != (transport, encoding))
    {
        return Err(format!("a request came by {:?} in {:?}", other.transport, other.encoding));
    }
    let TransportStats { wire_bytes, request_bytes, .. } = *stats;
    let is_smaller = wire_bytes < request_bytes / 2;
    match compression == Compression::None {
        // JSON is larger than protobuf, and compressed smaller still.
        true if is_smaller => Err(format!("{wire_bytes} bytes came compressed, uncalled for")),
        false if !is_smaller => Err(format!("{wire_bytes} bytes came, not compressed")),
        _ => Ok(()),
    }
}

/// Sends spans with our client; their documents.
///
/// # Errors
///
/// Where the client can't be built, or its own account isn't that all was exported.
pub(super) fn send(
    endpoint: &str,
    protocol: Protocol,
    compression: Compression,
    count: u64,
) -> Result<Vec<Json>, String> {
    let mut resource = Resource::default();
    resource.attributes.set("service.name", "interop");
    resource.attributes.set("service.instance.id", "spanwire");
    let client = Client::builder()
        .service_name("interop")
        .resource_attribute("service.instance.id", "spanwire")
        .detect_resource(false)
        .endpoint(endpoint)
        .protocol(protocol)
        .compression(compression)
        .batch(BatchConfig { spans_max: 256, ..BatchConfig::default() })
        .build()
        .map_err(|error| format!("{error:?}"))?;
    let mut full = Scope::new("interop.full");
    full.version = "1.2.3".into();
    full.schema_url = "https://example.com/2".into();
    full.attributes.set("scope.kind", "full");
    let scopes = [Scope::new("interop.plain"), full];
    let tracers: Vec<Tracer> = scopes.iter().map(|scope| client.tracer_of(scope)).collect();

    let mut made = Vec::new();
    let mut before: Option<SpanContext> = None;
    for n in 0..count {
        let of = (n % 2) as usize;
        let span = record(&tracers[of], n, before.as_ref());
        made.push(document(&resource, &scopes[of], &span));
        before = Some(span.context);
    }
    let report = client.shutdown_blocking(Duration::from_secs(60));
    let stats = client.stats();
    if !report.complete || !stats.is_balanced() || stats.exported != count {
        return Err(format!("{report}; {stats}"));
    }
    Ok(made)
}

/// Records one span of those that `send.py` makes with its SDK: each fourth is a root, each tenth has
/// a parent elsewhere, the others are children of the one before. The span as data beside it.
fn record(tracer: &Tracer, n: u64, before: Option<&SpanContext>) -> Span {
    const KINDS: [SpanKind; 5] = [
        SpanKind::Internal,
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Producer,
        SpanKind::Consumer,
    ];
    let elsewhere = elsewhere(n, TraceFlags::SAMPLED, "vendor=v,other=w");
    let parent = match n {
        _ if n % 10 == 9 => Some(&elsewhere),
        _ if n.is_multiple_of(4) => None,
        _ => before,
    };
    let name =
        if n.is_multiple_of(3) { format!("span {n}") } else { format!("span {n} größe ✓") };
    let start_time_unix_nano = 1_700_000_000_123_456_789 + n * 1_000_000;
    let builder =
        tracer.span(&name).kind(KINDS[(n % 5) as usize]).start_time(time(start_time_unix_nano));
    let mut span = match parent {
        Some(parent) => builder.parent(parent),
        None => builder.root(),
    }
    .start();

    let mut made = Span::new(span.context().clone(), name.clone());
    made.kind = KINDS[(n % 5) as usize];
    made.parent_span_id = parent.map(|parent| parent.span_id);
    let is_remote = parent.is_some_and(|parent| parent.is_remote);
    made.flags = Span::flags_of(span.context().flags, is_remote);
    made.start_time_unix_nano = start_time_unix_nano;
    made.end_time_unix_nano = start_time_unix_nano + 1 + n;
    if !n.is_multiple_of(7) {
        for (key, value) in attributes(n) {
            span.set_attribute(key, value.clone());
            made.attributes.set(key, value);
        }
    }
    for event in 0..n % 4 {
        let (at, name) = (start_time_unix_nano + event, format!("event {event}"));
        let text = "x".repeat(event as usize);
        let entries = [("n", Value::from(event)), ("text", Value::from(text))];
        span.add_event_at(time(at), &name, entries.clone());
        made.events.push(Event {
            time_unix_nano: at,
            name: Text::from(name),
            attributes: entries.map(|(key, value)| KeyValue::new(key, value)).to_vec(),
            dropped_attributes_count: 0,
        });
    }
    if let (true, Some(before)) = (n.is_multiple_of(5), before) {
        let entries = [("link.n", Value::from(n)), ("link.kind", Value::from("before"))];
        span.add_link(before, entries.clone());
        made.links.push(link(before, entries.map(|(key, of)| KeyValue::new(key, of)).to_vec()));
    }
    if n.is_multiple_of(6) {
        let linked = self::elsewhere(n + 1, TraceFlags::default(), "linked=yes");
        span.add_link(&linked, []);
        made.links.push(link(&linked, Vec::new()));
    }
    made.status = match n % 3 {
        0 => Status::Unset,
        1 => Status::Ok,
        _ if n.is_multiple_of(2) => Status::Error { message: Text::default() },
        _ => Status::Error { message: "it failed: größe".into() },
    };
    span.set_status(made.status.clone());
    span.end_at(time(made.end_time_unix_nano));
    made
}

/// Every kind of value, and those at the edges of each.
fn attributes(n: u64) -> Vec<(&'static str, Value<'static>)> {
    let signed = n as i64;
    let nested = Value::map([
        ("a", Value::Int(1)),
        ("b", Value::map([("c", Value::Array(vec![true.into(), "d".into(), Value::Empty]))])),
    ]);
    let mut attributes = vec![
        ("string", format!("value {n}").into()),
        ("string.empty", "".into()),
        ("string.unicode", "größe ✓ 𝕏 \0 \u{202e} \"\\\n".into()),
        ("bool", n.is_multiple_of(2).into()),
        ("int", (signed - 500).into()),
        ("int.max", i64::MAX.into()),
        ("int.min", i64::MIN.into()),
        ("double", (n as f64 / 7.0).into()),
        ("double.whole", (n as f64).into()),
        ("double.small", f64::from_bits(1).into()),
        ("double.negative.zero", (-0.0).into()),
        ("double.nan", f64::NAN.into()),
        ("double.infinite", f64::NEG_INFINITY.into()),
        ("array.string", Value::Array(vec!["a".into(), "".into(), n.to_string().into()])),
        ("array.int", Value::Array(vec![signed.into(), (-signed).into(), 0.into()])),
        ("array.double", Value::Array(vec![0.5.into(), (-1.25).into(), 1e300.into()])),
        ("array.mixed", Value::Array(vec![true.into(), 1.into(), 2.0.into(), "three".into()])),
        ("array.empty", Value::Array(Vec::new())),
        ("bytes", vec![n as u8; (n % 32) as usize].into()),
        ("map", nested),
        ("empty", Value::Empty),
    ];
    if n % 50 == 1 {
        attributes.push(("string.long", "ä".repeat(5000).into()));
    }
    attributes
}

/// The context of a span of another process.
fn elsewhere(n: u64, flags: TraceFlags, trace_state: &str) -> SpanContext {
    let (Some(trace_id), Some(span_id)) =
        (TraceId::new(u128::from(n) << 64 | 0xABCD), SpanId::new(n + 1))
    else {
        unreachable!("neither number is zero")
    };
    let mut context = SpanContext::new(trace_id, span_id, flags);
    context.is_remote = true;
    context.trace_state = TraceState::parse(trace_state).unwrap_or_default();
    context
}

fn link(context: &SpanContext, attributes: Vec<KeyValue>) -> Link {
    let flags = Span::flags_of(context.flags, context.is_remote);
    Link { context: context.clone(), flags, attributes, dropped_attributes_count: 0 }
}

fn time(unix_nano: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nano)
}
