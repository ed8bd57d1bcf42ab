//! Spans as services record them, the same ones in every run.
//!
//! [`Requests`] are what a web service answers: root spans of eight attributes by the HTTP semantic
//! conventions v1.44. [`Mix`] is whole traces, with a database and a message queue in them.

mod mix;

use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
use spanwire_model as model;
use spanwire_tracer::{SpanKind, Tracer};

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
        encoded(&self.model())
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

/// One export request with these spans.
fn encoded(finished: &[model::Span]) -> Vec<u8> {
    let mut resource = model::Resource::default();
    resource.attributes.set("service.name", SERVICE);
    let resource = EncodedResource::new(&resource);
    let scope = EncodedScope::new(&model::Scope::new(SCOPE));
    let mut spans = Vec::new();
    encode::put_batch(finished, &mut spans);
    let mut request = Vec::new();
    resource.put_header(scope.field_len(spans.len()), &mut request);
    scope.put_header(spans.len(), &mut request);
    request.extend_from_slice(&spans);
    request
}

pub(crate) const DURATION_NANOS: u64 = 1_234_567;

/// 2025-01-01, a microsecond later for each span.
pub(crate) fn start_nanos(number: u64) -> u64 {
    1_735_689_600_000_000_000 + number * 1_000
}

pub(crate) fn trace_id(number: u64) -> u128 {
    u128::from(number) << 64 | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
