//! Spans as a web service records them: eight attributes by the HTTP semantic conventions v1.44.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanBuilder, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use spanwire_model as model;
use spanwire_tracer::{SpanKind, Tracer};

/// Attributes of each span.
pub const ATTRIBUTES: usize = 8;

/// What the spans' service is called.
pub const SERVICE: &str = "shop";

/// What records the spans.
pub const SCOPE: &str = "spanwire-benches";

const NAME: &str = "GET /api/v1/orders/{id}";
const METHOD: &str = "GET";
const ROUTE: &str = "/api/v1/orders/{id}";
const SERVER: &str = "shop.example.com";
const PORT: i64 = 443;
const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// Different requests before they repeat: enough that no two neighbours are alike.
const VARIETY: usize = 1024;

/// Requests a web service answered, the same ones in every run.
#[derive(Clone, Debug)]
pub struct Requests {
    requests: Vec<Request>,
    count: usize,
}

/// One request; each is one span.
#[derive(Clone, Debug)]
pub struct Request {
    path: String,
    client: String,
    status: i64,
}

impl Requests {
    /// So many requests.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(4318);
        let mut request = || Request {
            path: format!("/api/v1/orders/{:08x}", random.u32(..)),
            client: format!("198.51.100.{}", random.u8(100..)),
            status: random.choice([200, 200, 200, 304, 404, 500]).unwrap_or(200),
        };
        Self { requests: (0..count.min(VARIETY)).map(|_| request()).collect(), count }
    }

    /// Each request in order.
    pub fn iter(&self) -> impl Iterator<Item = &Request> + Clone {
        self.requests.iter().cycle().take(self.count)
    }

    /// The finished spans as Spanwire holds them.
    ///
    /// # Panics
    ///
    /// Never: ids count from one.
    #[must_use]
    pub fn model(&self) -> Vec<model::Span> {
        (1..).zip(self.iter()).map(|(number, request)| request.model(number)).collect()
    }

    /// The finished spans as `opentelemetry_sdk` holds them.
    #[must_use]
    pub fn span_data(&self) -> Vec<SpanData> {
        let scope = InstrumentationScope::builder(SCOPE).build();
        (1..).zip(self.iter()).map(|(number, request)| request.span_data(number, &scope)).collect()
    }

    /// One export request with all the spans, encoded by `opentelemetry-proto`.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let resource_spans = group_spans_by_resource_and_scope(self.span_data(), &resource());
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }
}

/// The spans' resource, as `opentelemetry-otlp` keeps it.
#[must_use]
pub fn resource() -> ResourceAttributesWithSchema {
    (&Resource::builder_empty().with_service_name(SERVICE).build()).into()
}

impl Request {
    /// Records it as a root span that ends at once. Every text is borrowed.
    #[inline]
    pub fn record(&self, tracer: &Tracer) {
        let mut span = tracer.span(NAME).kind(SpanKind::Server).start();
        span.set_attribute("http.request.method", METHOD);
        span.set_attribute("http.route", ROUTE);
        span.set_attribute("url.path", &self.path);
        span.set_attribute("server.address", SERVER);
        span.set_attribute("server.port", PORT);
        span.set_attribute("client.address", &self.client);
        span.set_attribute("user_agent.original", USER_AGENT);
        span.set_attribute("http.response.status_code", self.status);
    }

    /// Records it the same way with `opentelemetry_sdk`.
    ///
    /// All attributes are given at the start, in one vector of the right size, which is the
    /// cheapest way there; constant texts are static, the two others must be owned.
    #[inline]
    pub fn record_opentelemetry<T: opentelemetry::trace::Tracer>(&self, tracer: &T) {
        let builder = SpanBuilder::from_name(NAME)
            .with_kind(opentelemetry::trace::SpanKind::Server)
            .with_attributes(self.key_values());
        drop(tracer.build(builder));
    }

    fn key_values(&self) -> Vec<KeyValue> {
        vec![
            KeyValue::new("http.request.method", METHOD),
            KeyValue::new("http.route", ROUTE),
            KeyValue::new("url.path", self.path.clone()),
            KeyValue::new("server.address", SERVER),
            KeyValue::new("server.port", PORT),
            KeyValue::new("client.address", self.client.clone()),
            KeyValue::new("user_agent.original", USER_AGENT),
            KeyValue::new("http.response.status_code", self.status),
        ]
    }

    fn model(&self, number: u64) -> model::Span {
        let trace = model::TraceId::new(trace_id(number)).expect("numbers count from one");
        let id = model::SpanId::new(number).expect("numbers count from one");
        let context = model::SpanContext::new(trace, id, model::TraceFlags::SAMPLED);
        let mut span = model::Span::new(context, NAME);
        span.kind = model::SpanKind::Server;
        span.start_time_unix_nano = start_nanos(number);
        span.end_time_unix_nano = start_nanos(number) + DURATION_NANOS;
        span.attributes.set("http.request.method", METHOD);
        span.attributes.set("http.route", ROUTE);
        span.attributes.set("url.path", self.path.clone());
        span.attributes.set("server.address", SERVER);
        span.attributes.set("server.port", PORT);
        span.attributes.set("client.address", self.client.clone());
        span.attributes.set("user_agent.original", USER_AGENT);
        span.attributes.set("http.response.status_code", self.status);
        span
    }

    fn span_data(&self, number: u64, scope: &InstrumentationScope) -> SpanData {
        let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(start_nanos(number));
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(trace_id(number)),
                SpanId::from(number),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: opentelemetry::trace::SpanKind::Server,
            name: NAME.into(),
            start_time: start,
            end_time: start + Duration::from_nanos(DURATION_NANOS),
            attributes: self.key_values(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: opentelemetry::trace::Status::Unset,
            instrumentation_scope: scope.clone(),
        }
    }
}

const DURATION_NANOS: u64 = 1_234_567;

/// 2025-01-01, a microsecond later for each span.
fn start_nanos(number: u64) -> u64 {
    1_735_689_600_000_000_000 + number * 1_000
}

fn trace_id(number: u64) -> u128 {
    u128::from(number) << 64 | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
    use opentelemetry_sdk::trace::Sampler;
    use spanwire_codec::encode;

    use super::*;
    use crate::rivals;

    fn decoded(framed: &[u8]) -> Vec<Span> {
        ScopeSpans::decode(framed).expect("framed spans are a ScopeSpans").spans
    }

    #[test]
    fn a_span_has_the_same_content_whoever_encodes_it() {
        let requests = Requests::new(2_000);
        let mut framed = Vec::new();
        encode::put_batch(&requests.model(), &mut framed);
        let ours = decoded(&framed);
        let mut theirs: Vec<Span> = requests.span_data().into_iter().map(Span::from).collect();
        // An unset status is left out here and sent empty there; they mean the same.
        theirs.iter_mut().for_each(|span| span.status = None);
        assert_eq!(ours, theirs);
        assert!(ours.iter().all(|span| span.attributes.len() == ATTRIBUTES));
    }

    #[test]
    fn a_recorded_span_has_the_same_attributes_in_either_sdk() {
        // So few that they fit into a thread's first chunk, which no outlet sees.
        let requests = Requests::new(5);

        let provider = spanwire_tracer::Provider::builder().build(|_| Ok(()));
        let tracer = provider.tracer(SCOPE);
        requests.iter().for_each(|request| request.record(&tracer));
        let mut ours = Vec::new();
        provider.sweep(|taken| ours.extend(decoded(&taken.slice.bytes)));

        let (processor, spans) = rivals::Keep::new();
        let provider = rivals::opentelemetry(Sampler::AlwaysOn, processor);
        let tracer = provider.tracer(SCOPE);
        requests.iter().for_each(|request| request.record_opentelemetry(&tracer));
        let theirs: Vec<Span> = spans.try_iter().map(Span::from).collect();

        assert_eq!((ours.len(), theirs.len()), (5, 5));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours.attributes, theirs.attributes);
            assert_eq!((&ours.name, ours.kind), (&theirs.name, theirs.kind));
        }
    }
}
