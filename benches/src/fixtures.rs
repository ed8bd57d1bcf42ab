//! Spans as services record them, the same ones in every run.
//!
//! [`Requests`] are what a web service answers: root spans of eight attributes by the HTTP semantic
//! conventions v1.44. [`Mix`] is whole traces, with a database and a message queue in them.

mod mix;

use std::hint::black_box;

use bytes::BufMut;
use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
use spanwire_codec::view;
use spanwire_model as model;
use spanwire_tracer::{Span, SpanKind, Tracer};

#[cfg(feature = "rivals")]
pub(crate) use self::mix::{Fact, Place, Sample};
pub use self::mix::{Mix, SPANS_OF_TRACE};

/// Attributes of each span.
pub const ATTRIBUTES: usize = 8;

/// What the spans' service is called.
pub const SERVICE: &str = "shop";

/// What records the spans.
pub const SCOPE: &str = "spanwire-benches";

pub(crate) const NAME: &str = "GET /api/v1/orders/{id}";
pub(crate) const METHOD: &str = "GET";
pub(crate) const ROUTE: &str = "/api/v1/orders/{id}";
pub(crate) const SERVER: &str = "shop.example.com";
pub(crate) const PORT: i64 = 443;
pub(crate) const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

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
    pub(crate) path: String,
    pub(crate) client: String,
    pub(crate) status: i64,
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

    /// One export request with all the spans.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut spans = Vec::new();
        encode::put_batch(&self.model(), &mut spans);
        request(&spans)
    }
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
}

/// A sampled span of five attributes, three strings, an integer and a boolean, that is open.
#[inline]
pub fn checkout(tracer: &Tracer) -> Span {
    let mut span = tracer.start(black_box("checkout"));
    span.set_attribute("http.request.method", black_box("POST"));
    span.set_attribute("http.route", black_box("/api/v1/orders/{id}/checkout"));
    span.set_attribute("user.id", black_box("user-7f3a9c"));
    span.set_attribute("cart.items", black_box(3));
    span.set_attribute("user.member", black_box(true));
    span
}

/// What goes before framed spans to make an export request of them: the service, and the scope.
#[derive(Debug)]
pub struct Envelope {
    resource: EncodedResource,
    scope: EncodedScope,
}

impl Envelope {
    /// That of all fixtures.
    #[must_use]
    pub fn new() -> Self {
        let mut resource = model::Resource::default();
        resource.attributes.set("service.name", SERVICE);
        let scope = EncodedScope::new(&model::Scope::new(SCOPE));
        Self { resource: EncodedResource::new(&resource), scope }
    }

    /// Length of the header for so many bytes of framed spans.
    #[must_use]
    pub fn header_len(&self, spans_bytes: usize) -> usize {
        self.resource.request_len(self.scope.field_len(spans_bytes)) - spans_bytes
    }

    /// Appends that header.
    pub fn put_header(&self, spans_bytes: usize, out: &mut impl BufMut) {
        self.resource.put_header(self.scope.field_len(spans_bytes), out);
        self.scope.put_header(spans_bytes, out);
    }
}

impl Default for Envelope {
    fn default() -> Self {
        Self::new()
    }
}

/// One export request with these framed spans.
#[must_use]
pub fn request(framed: &[u8]) -> Vec<u8> {
    let envelope = Envelope::new();
    let mut request = Vec::with_capacity(envelope.header_len(framed.len()) + framed.len());
    envelope.put_header(framed.len(), &mut request);
    request.extend_from_slice(framed);
    request
}

/// Each span of a request.
pub fn spans<'a>(request: &view::Request<'a>) -> impl Iterator<Item = view::Span<'a>> {
    request
        .resource_spans()
        .flat_map(|resource_spans| resource_spans.scope_spans())
        .flat_map(|scope_spans| scope_spans.spans())
}

pub(crate) const DURATION_NANOS: u64 = 1_234_567;

/// 2025-01-01, a microsecond later for each span.
pub(crate) fn start_nanos(number: u64) -> u64 {
    1_735_689_600_000_000_000 + number * 1_000
}

pub(crate) fn trace_id(number: u64) -> u128 {
    u128::from(number) << 64 | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
