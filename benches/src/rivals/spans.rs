//! The spans of [`fixtures`](crate::fixtures) as `opentelemetry_sdk` records and holds them.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanBuilder, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;

use crate::fixtures::{
    DURATION_NANOS, METHOD, NAME, PORT, ROUTE, Request, Requests, SCOPE, SERVER, SERVICE,
    USER_AGENT, start_nanos, trace_id,
};

impl Requests {
    /// The finished spans as `opentelemetry_sdk` holds them.
    #[must_use]
    pub fn span_data(&self) -> Vec<SpanData> {
        let scope = InstrumentationScope::builder(SCOPE).build();
        (1..).zip(self.iter()).map(|(number, request)| request.span_data(number, &scope)).collect()
    }
}

/// The spans' resource, as `opentelemetry-otlp` keeps it.
#[must_use]
pub fn resource() -> ResourceAttributesWithSchema {
    (&Resource::builder_empty().with_service_name(SERVICE).build()).into()
}

impl Request {
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

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
    use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
    use opentelemetry_sdk::trace::Sampler;
    use prost::Message as _;
    use spanwire_codec::encode;

    use super::*;
    use crate::fixtures::ATTRIBUTES;
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
    fn a_request_has_the_same_content_whoever_encodes_it() {
        let requests = Requests::new(10);
        let ours = ExportTraceServiceRequest::decode(&requests.encoded()[..]).expect("decodes");
        let resource_spans = group_spans_by_resource_and_scope(requests.span_data(), &resource());
        let mut theirs = ExportTraceServiceRequest { resource_spans };
        let scopes = theirs.resource_spans.iter_mut().flat_map(|one| &mut one.scope_spans);
        scopes.flat_map(|one| &mut one.spans).for_each(|span| span.status = None);
        assert_eq!(ours, theirs);
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
