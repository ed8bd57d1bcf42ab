//! The request that is sent again and again.

use std::ops::Range;

use bytes::BytesMut;
use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
use spanwire_codec::view::Request;
use spanwire_model::{
    Attributes, KeyValue, Resource, Scope, Span, SpanContext, SpanId, SpanKind, TraceFlags, TraceId,
};

/// Names one run, so that its spans are told from those of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run(u64);

impl Run {
    /// A new one, by chance.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }

    /// The run of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The first half of its spans' trace ids.
    pub(crate) const fn prefix(self) -> [u8; PREFIX_LEN] {
        self.0.to_be_bytes()
    }
}

/// A whole export request, encoded once, of which each request is a copy with other ids and times.
///
/// All that differs is of fixed width and at known places: of the trace id the second half, which
/// is the request's number; the span id, which is the span's own number; start and end.
///
/// The spans are those of a web service: by default eight attributes of OpenTelemetry's semantic
/// conventions for HTTP, with other values in each.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    spans: Vec<Places>,
}

/// Where in the template the changing fields of a span lie, and how long it took.
#[derive(Clone, Copy, Debug)]
struct Places {
    request: usize,
    span_id: usize,
    start: usize,
    end: usize,
    duration_nanos: u64,
}

impl Template {
    /// Encodes `spans` spans of `attributes` attributes each.
    #[must_use]
    pub fn new(run: Run, spans: u32, attributes: u32) -> Self {
        let mut random = fastrand::Rng::with_seed(4317);
        let models: Vec<Span> =
            (1..=spans).map(|number| span(run, number, attributes, &mut random)).collect();
        let mut framed = Vec::new();
        encode::put_batch(&models, &mut framed);
        let mut resource = Resource::default();
        resource.attributes.set("service.name", "shop");
        resource.attributes.set("service.version", "1.4.2");
        resource.attributes.set("host.name", "shop-7d9c5b6f4-x2x8k");
        let resource = EncodedResource::new(&resource);
        let scope = EncodedScope::new(&Scope::new("spanwire-load"));
        let mut bytes = Vec::new();
        resource.put_header(scope.field_len(framed.len()), &mut bytes);
        scope.put_header(framed.len(), &mut bytes);
        bytes.extend_from_slice(&framed);
        let spans = places(&bytes, &models);
        Self { bytes, spans }
    }

    /// Spans in each request.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of each request in protobuf, before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// A copy, to be [written](Self::write) over.
    #[must_use]
    pub fn copy(&self) -> BytesMut {
        BytesMut::from(&self.bytes[..])
    }

    /// Makes `copy` the request of this number, whose spans ended at `now` in nanoseconds since the
    /// Unix epoch. Costs a few nanoseconds a span; what else is in `copy` stays.
    ///
    /// # Panics
    ///
    /// If `copy` is shorter than what [`copy`](Self::copy) returns.
    pub fn write(&self, request: u64, now: u64, copy: &mut [u8]) {
        let numbers = self.span_numbers(request);
        for (places, number) in self.spans.iter().zip(numbers) {
            let mut put = |at: usize, word: [u8; 8]| copy[at..at + 8].copy_from_slice(&word);
            put(places.request, request.to_be_bytes());
            put(places.span_id, number.to_be_bytes());
            put(places.start, now.wrapping_sub(places.duration_nanos).to_le_bytes());
            put(places.end, now.to_le_bytes());
        }
    }

    /// The numbers of a request's spans: those of request 0 begin with 1.
    #[must_use]
    pub fn span_numbers(&self, request: u64) -> Range<u64> {
        let spans = self.spans.len() as u64;
        let first = request.saturating_mul(spans).saturating_add(1);
        first..first.saturating_add(spans)
    }
}

fn span(run: Run, number: u32, attributes: u32, random: &mut fastrand::Rng) -> Span {
    let trace = u128::from(run.number()) << 64 | u128::from(number);
    let trace = TraceId::new(trace).expect("numbers count from one");
    let id = SpanId::new(number.into()).expect("numbers count from one");
    let mut span =
        Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "GET /api/v1/orders/{id}");
    span.kind = SpanKind::Server;
    span.end_time_unix_nano = END_MARK;
    span.start_time_unix_nano = END_MARK - random.u64(200_000..20_000_000);
    let all = http_attributes(random);
    let further = (all.len()..).map(|i| {
        KeyValue::new(format!("app.attribute.{i}"), format!("value-{:08x}", random.u32(..)))
    });
    span.attributes = Attributes::new();
    let wanted = all.into_iter().chain(further).take(attributes as usize);
    wanted.for_each(|attribute| span.attributes.push(attribute));
    span
}

/// What a web server records of a request, by the HTTP semantic conventions v1.44.
fn http_attributes(random: &mut fastrand::Rng) -> [KeyValue; 8] {
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    let status: i64 = random.choice([200, 200, 200, 304, 404, 500]).unwrap_or(200);
    [
        KeyValue::new("http.request.method", "GET"),
        KeyValue::new("http.route", "/api/v1/orders/{id}"),
        KeyValue::new("url.path", format!("/api/v1/orders/{:08x}", random.u32(..))),
        KeyValue::new("server.address", "shop.example.com"),
        KeyValue::new("server.port", 443_i64),
        KeyValue::new("client.address", format!("198.51.100.{}", random.u8(100..))),
        KeyValue::new("user_agent.original", agent),
        KeyValue::new("http.response.status_code", status),
    ]
}

/// Finds the fields of the spans in `request` that change.
fn places(request: &[u8], models: &[Span]) -> Vec<Places> {
    let view = Request::parse(request).expect("the encoder writes requests");
    let scopes = view.resource_spans().flat_map(|resource| resource.scope_spans());
    let spans = scopes.flat_map(|scope| scope.spans());
    let place = |(span, model): (spanwire_codec::view::Span<'_>, &Span)| {
        let body = span.bytes();
        // The view borrows from the request, so their addresses tell the distance.
        let base = body.as_ptr().addr() - request.as_ptr().addr();
        let find = |field: &[u8]| {
            let mut at = body.windows(field.len()).enumerate().filter(|(_, w)| *w == field);
            let found = at.next().map(|(i, _)| base + i).expect("the encoder writes the field");
            assert!(at.next().is_none(), "a field that is not one of a kind");
            found
        };
        let trace_id = find(&[&TRACE_ID[..], &model.context.trace_id.to_bytes()].concat());
        let span_id = find(&[&SPAN_ID[..], &model.context.span_id.to_bytes()].concat());
        let start = find(&with_tag(START_TAG, model.start_time_unix_nano));
        let end = find(&with_tag(END_TAG, model.end_time_unix_nano));
        Places {
            request: trace_id + TRACE_ID.len() + PREFIX_LEN,
            span_id: span_id + SPAN_ID.len(),
            start: start + 1,
            end: end + 1,
            duration_nanos: model.end_time_unix_nano - model.start_time_unix_nano,
        }
    };
    spans.zip(models).map(place).collect()
}

fn with_tag(tag: u8, word: u64) -> Vec<u8> {
    [&[tag][..], &word.to_le_bytes()].concat()
}

pub(crate) const PREFIX_LEN: usize = 8;

// Tags, with the lengths of ids, of `message Span` in `trace/v1/trace.proto`, opentelemetry-proto
// v1.11.0: the field's number times 8, and 2 for bytes or 1 for fixed64.
pub(crate) const TRACE_ID: [u8; 2] = [1 << 3 | 2, 16];
pub(crate) const SPAN_ID: [u8; 2] = [2 << 3 | 2, 8];
const START_TAG: u8 = 7 << 3 | 1;
const END_TAG: u8 = 8 << 3 | 1;

/// 2026-01-01, until a request is written.
const END_MARK: u64 = 1_767_225_600_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(template: &Template, request: u64, now: u64) -> BytesMut {
        let mut copy = template.copy();
        template.write(request, now, &mut copy);
        copy
    }

    #[test]
    fn each_request_has_its_own_ids_and_times_and_is_otherwise_the_same() {
        let template = Template::new(Run::new(0xAB), 3, 8);
        let bytes = written(&template, 7, 1_000_000_000_000);
        let view = Request::parse(&bytes).expect("a request");
        let spans = view.resource_spans().flat_map(|r| r.scope_spans()).flat_map(|s| s.spans());
        let spans: Vec<_> = spans.collect();
        assert_eq!(spans.len(), 3);
        for (span, number) in spans.iter().zip(22_u64..) {
            assert_eq!(span.check(), Ok(()));
            assert_eq!(span.trace_id(), Some((0xAB_u128 << 64 | 7).to_be_bytes()));
            assert_eq!(span.span_id(), Some(number.to_be_bytes()));
            assert_eq!(span.end_time_unix_nano(), 1_000_000_000_000);
            let took = span.end_time_unix_nano() - span.start_time_unix_nano();
            assert!((200_000..20_000_000).contains(&took), "{took} ns");
            assert_eq!(span.attributes().count(), 8);
        }
        let again = written(&template, 7, 1_000_000_000_000);
        assert_eq!(bytes, again);
        let other = written(&template, 8, 1_000_000_000_001);
        let changed = bytes.iter().zip(&other).filter(|(a, b)| a != b).count();
        assert!((1..=3 * 32).contains(&changed), "{changed} bytes");
    }

    #[test]
    fn a_copy_that_was_sent_before_can_be_written_over() {
        let template = Template::new(Run::new(1), 5, 8);
        let mut used = written(&template, 1_000_000, u64::MAX);
        template.write(2, 77, &mut used);
        assert_eq!(used, written(&template, 2, 77));
    }

    #[test]
    fn spans_of_neighbouring_requests_are_numbered_without_gap() {
        let template = Template::new(Run::new(1), 5, 0);
        assert_eq!(template.span_numbers(0), 1..6);
        assert_eq!(template.span_numbers(1), 6..11);
    }

    #[test]
    fn a_span_has_as_many_attributes_as_asked_for() {
        for attributes in [0, 3, 8, 50] {
            let template = Template::new(Run::new(1), 2, attributes);
            let bytes = template.copy();
            let view = Request::parse(&bytes).expect("a request");
            let spans = view.resource_spans().flat_map(|r| r.scope_spans()).flat_map(|s| s.spans());
            for span in spans {
                let mut keys: Vec<_> = span.attributes().map(|attribute| attribute.key()).collect();
                keys.sort_unstable();
                keys.dedup();
                assert_eq!(keys.len(), attributes as usize);
            }
        }
    }

    #[test]
    fn a_span_by_default_has_the_size_that_published_figures_have() {
        let template = Template::new(Run::new(u64::MAX), 1_000, 8);
        let bytes = template.bytes() / 1_000;
        assert!((400..=430).contains(&bytes), "{bytes} bytes a span");
    }
}
