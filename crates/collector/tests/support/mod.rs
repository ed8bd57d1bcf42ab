//! A destination that remembers what came, a sender that numbers its spans, and a collector between.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod process;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use spanwire_collector::{Account, Collector};
use spanwire_config::{Compat, Config, Source};
use spanwire_receiver::{Accepted, Received, Receiver, Refusal};
use spanwire_transport::{Body, Compression, Protocol, SendError, Transport, TransportConfig};
use tokio::sync::Semaphore;

/// A request of spans numbered from `first`.
pub(crate) fn request(first: u64, spans: u64) -> Bytes {
    named(first, spans, "GET /checkout")
}

pub(crate) fn named(first: u64, spans: u64, name: &str) -> Bytes {
    let span = |number: u64| Span {
        trace_id: u128::from(number / 10 + 1).to_be_bytes().to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000 + number,
        end_time_unix_nano: 1_700_000_000_001_000_000 + number,
        attributes: vec![text("http.request.method", "GET")],
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "shop")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: (first..first + spans).map(span).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec().into()
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// How often each span came, by its number, and what each request held.
#[derive(Default)]
pub(crate) struct Arrived {
    spans: Mutex<HashMap<u64, usize>>,
    requests: Mutex<Vec<ExportTraceServiceRequest>>,
    pub(crate) attempts: AtomicUsize,
}

impl Arrived {
    pub(crate) fn take(&self, request: &Bytes) {
        let request = ExportTraceServiceRequest::decode(request.clone()).expect("protobuf");
        let mut arrived = self.spans.lock().expect("no panic");
        for span in spans_of(&request) {
            let id: [u8; 8] = span.span_id[..].try_into().expect("eight bytes");
            *arrived.entry(u64::from_be_bytes(id) - 1).or_default() += 1;
        }
        self.requests.lock().expect("no panic").push(request);
    }

    /// Numbers below `count` that never came, and spans that came more than once.
    pub(crate) fn missing(&self, count: u64) -> Vec<u64> {
        let arrived = self.spans.lock().expect("no panic");
        (0..count).filter(|number| !arrived.contains_key(number)).collect()
    }

    pub(crate) fn duplicates(&self) -> usize {
        let arrived = self.spans.lock().expect("no panic");
        arrived.values().map(|times| times - 1).sum()
    }

    pub(crate) fn count(&self) -> usize {
        self.spans.lock().expect("no panic").len()
    }

    pub(crate) fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.requests.lock().expect("no panic").clone()
    }
}

pub(crate) fn spans_of(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans)
}

pub(crate) type Answer = Result<Accepted, Refusal>;

/// A receiver that answers as it is told and remembers what it took.
pub(crate) async fn destination(
    answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
) -> (Receiver, Arc<Arrived>) {
    destination_at("127.0.0.1:0".parse().expect("an address"), Arc::default(), answer).await
}

pub(crate) async fn destination_at(
    address: SocketAddr,
    arrived: Arc<Arrived>,
    answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
) -> (Receiver, Arc<Arrived>) {
    let taking = Arc::clone(&arrived);
    let sink = move |received: Received| {
        taking.attempts.fetch_add(1, Ordering::Relaxed);
        let answer = answer(&received);
        if answer.is_ok() {
            taking.take(&received.request);
        }
        async move { answer }
    };
    let receiver = Receiver::builder().grpc(address).bind(sink).await.expect("a free port");
    (receiver, arrived)
}

/// The same, and each request waits for a permit of `gate` before it is answered; when the gate is
/// closed, none does.
pub(crate) async fn destination_behind(
    gate: &Arc<Semaphore>,
    answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
) -> (Receiver, Arc<Arrived>) {
    let (arrived, gate) = (Arc::<Arrived>::default(), Arc::clone(gate));
    let (taking, answer) = (Arc::clone(&arrived), Arc::new(answer));
    let sink = move |received: Received| {
        taking.attempts.fetch_add(1, Ordering::Relaxed);
        let (gate, taking, answer) = (Arc::clone(&gate), Arc::clone(&taking), Arc::clone(&answer));
        async move {
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            let answer = answer(&received);
            if answer.is_ok() {
                taking.take(&received.request);
            }
            answer
        }
    };
    let any = "127.0.0.1:0".parse().expect("an address");
    (Receiver::builder().grpc(any).bind(sink).await.expect("a free port"), arrived)
}

/// A destination that takes nothing, as long as what comes with it is true.
pub(crate) async fn away() -> (Receiver, Arc<Arrived>, Arc<AtomicBool>) {
    let away = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&away);
    let answer = move |_: &Received| match asked.load(Ordering::Relaxed) {
        true => Err(Refusal::Unavailable { retry_after: None }),
        false => Ok(Accepted::default()),
    };
    let (destination, arrived) = destination(answer).await;
    (destination, arrived, away)
}

pub(crate) fn takes_all(_: &Received) -> Answer {
    Ok(Accepted::default())
}

pub(crate) fn config(yaml: &str) -> Config {
    let loaded = Config::load(&[Source::Yaml(yaml.into())], &[], &|_| None, Compat::Strict);
    loaded.unwrap_or_else(|report| panic!("{report}")).config
}

/// OTLP on free ports to one destination, tried again soon.
pub(crate) fn to(destination: &Receiver, more: &str) -> String {
    let address = destination.grpc_address().expect("served");
    to_address(address, more)
}

pub(crate) fn to_address(address: SocketAddr, more: &str) -> String {
    format!(
        "
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: 127.0.0.1:0 }}, http: {{ endpoint: 127.0.0.1:0 }} }} }} }}
exporters:
  otlp:
    endpoint: {address}
    tls: {{ insecure: true }}
    compression: none
    retry_on_failure: {{ initial_interval: 20ms, max_interval: 50ms }}
{more}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [otlp] }} }}
"
    )
}

/// What a collector has counted for one destination, of whichever configuration.
pub(crate) fn account(collector: &Collector, exporter: &str) -> Account {
    let stats = collector.stats();
    let found = stats.exporters.iter().find(|one| one.exporter == exporter);
    found.unwrap_or_else(|| panic!("{exporter} in {:?}", stats.exporters)).account
}

/// The address of a part of a collector.
pub(crate) fn address(collector: &Collector, part: &str) -> String {
    let addresses = collector.addresses();
    let found = addresses.iter().find(|(name, _)| name.contains(part));
    found.unwrap_or_else(|| panic!("{part} in {addresses:?}")).1.clone()
}

/// Sends to a collector as a client does.
pub(crate) struct Sender(Transport);

impl Sender {
    pub(crate) fn new(collector: &Collector, protocol: Protocol) -> Self {
        Self::compressing(collector, protocol, Compression::None)
    }

    pub(crate) fn compressing(
        collector: &Collector,
        protocol: Protocol,
        compression: Compression,
    ) -> Self {
        let part = if protocol == Protocol::Grpc { "grpc" } else { "http" };
        let url = format!("http://{}", address(collector, part));
        let config = TransportConfig::new(protocol, &url)
            .and_then(|config| config.compression(compression))
            .expect("a good address");
        Self(Transport::new(&config).expect("good settings"))
    }

    pub(crate) async fn send(&self, request: Bytes, spans: u64) -> Result<Told, SendError> {
        let body = Body::new([request], spans as usize);
        let encoded = self.0.encode(&body).await.expect("it can be sent");
        let accepted = self.0.send(&encoded).await?;
        Ok(Told { rejected: accepted.rejected_spans, message: accepted.message })
    }
}

/// What a sender is told of spans that were taken.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) rejected: u64,
    pub(crate) message: Option<Box<str>>,
}

/// Looks until it is so, and fails after half a minute.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The conservation law, at this very moment.
pub(crate) fn assert_balanced(collector: &Collector) {
    let stats = collector.stats();
    assert!(stats.is_balanced(), "{stats:?}");
}
