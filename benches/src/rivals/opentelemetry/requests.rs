//! The spans of [`Requests`] as `opentelemetry_sdk` records and holds them.

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
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span, Status};
    use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
    use opentelemetry_sdk::trace::Sampler;
    use prost::Message as _;
    use spanwire_codec::encode;

    use super::*;
    use crate::fixtures::{ATTRIBUTES, Mix};
    use crate::rivals::{self, AttributesGiven};

    fn decoded(framed: &[u8]) -> Vec<Span> {
        ScopeSpans::decode(framed).expect("framed spans are a ScopeSpans").spans
    }

    /// Ours, and theirs with an unset status left out: ours is, theirs is sent empty; they mean the
    /// same.
    fn both(ours: &[spanwire_model::Span], theirs: Vec<SpanData>) -> (Vec<Span>, Vec<Span>) {
        let mut framed = Vec::new();
        encode::put_batch(ours, &mut framed);
        let mut theirs: Vec<Span> = theirs.into_iter().map(Span::from).collect();
        theirs.iter_mut().for_each(leave_out_unset_status);
        (decoded(&framed), theirs)
    }

    fn leave_out_unset_status(span: &mut Span) {
        span.status = span.status.take().filter(|status| *status != Status::default());
    }

    #[test]
    fn a_span_has_the_same_content_whoever_encodes_it() {
        let requests = Requests::new(2_000);
        let (ours, theirs) = both(&requests.model(), requests.span_data());
        assert_eq!(ours, theirs);
        assert!(ours.iter().all(|span| span.attributes.len() == ATTRIBUTES));
    }

    #[test]
    fn a_trace_has_the_same_content_whoever_encodes_it() {
        let mix = Mix::new(2_002);
        let (ours, theirs) = both(&mix.model(), mix.span_data());
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 2_002);
        let mut failed = ours.iter().filter(|span| !span.events.is_empty());
        assert!(failed.all(|span| span.status.as_ref().is_some_and(|status| status.code == 2)));
        assert_eq!(ours.iter().filter(|span| !span.links.is_empty()).count(), 2_002 / 4);
        assert_eq!(ours.iter().filter(|span| span.parent_span_id.is_empty()).count(), 501);
    }

    #[test]
    fn a_request_has_the_same_content_whoever_encodes_it() {
        let requests = Requests::new(10);
        let ours = ExportTraceServiceRequest::decode(&requests.encoded()[..]).expect("decodes");
        let resource_spans = group_spans_by_resource_and_scope(requests.span_data(), &resource());
        let mut theirs = ExportTraceServiceRequest { resource_spans };
        let scopes = theirs.resource_spans.iter_mut().flat_map(|one| &mut one.scope_spans);
        scopes.flat_map(|one| &mut one.spans).for_each(leave_out_unset_status);
        assert_eq!(ours, theirs);
    }

    /// What either SDK makes of recording the same. So few spans that they fit into a thread's first
    /// chunk, which no outlet sees.
    fn recorded(
        with_ours: impl FnOnce(&spanwire_tracer::Tracer),
        with_theirs: impl FnOnce(&opentelemetry_sdk::trace::SdkTracer),
    ) -> (Vec<Span>, Vec<Span>) {
        let provider = spanwire_tracer::Provider::builder().build(|_| Ok(()));
        with_ours(&provider.tracer(SCOPE));
        let mut ours = Vec::new();
        provider.sweep(|taken| ours.extend(decoded(&taken.slice.bytes)));

        let (processor, spans) = rivals::Keep::new();
        with_theirs(&rivals::opentelemetry(Sampler::AlwaysOn, processor).tracer(SCOPE));
        let mut theirs: Vec<Span> = spans.try_iter().map(Span::from).collect();
        theirs.iter_mut().for_each(leave_out_unset_status);
        (ours, theirs)
    }

    #[test]
    fn a_recorded_span_has_the_same_attributes_in_either_sdk() {
        let requests = Requests::new(5);
        let (ours, theirs) = recorded(
            |tracer| requests.iter().for_each(|request| request.record(tracer)),
            |tracer| requests.iter().for_each(|request| request.record_opentelemetry(tracer)),
        );
        assert_eq!((ours.len(), theirs.len()), (5, 5));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours.attributes, theirs.attributes);
            assert_eq!((&ours.name, ours.kind), (&theirs.name, theirs.kind));
        }
    }

    #[test]
    fn a_recorded_trace_is_the_same_in_either_sdk_but_for_its_ids_and_times() {
        // Whose parent is which place in its trace, for ids that each SDK draws for itself.
        let family = |spans: &[Span]| -> Vec<Option<usize>> {
            let place = |id: &[u8]| spans.iter().position(|span| span.span_id == id);
            spans.iter().map(|span| place(&span.parent_span_id)).collect()
        };
        let without_ids = |mut spans: Vec<Span>| {
            for span in &mut spans {
                (span.trace_id, span.span_id, span.parent_span_id) = Default::default();
                (span.start_time_unix_nano, span.end_time_unix_nano, span.flags) = (0, 0, 0);
                span.events.iter_mut().for_each(|event| event.time_unix_nano = 0);
                for link in &mut span.links {
                    (link.trace_id, link.span_id, link.flags) = Default::default();
                }
            }
            spans
        };
        let mix = Mix::new(8);
        for given in [AttributesGiven::AtTheStart, AttributesGiven::WhereRecording] {
            let (ours, theirs) = recorded(
                |tracer| mix.record(tracer),
                |tracer| mix.record_opentelemetry(tracer, given),
            );
            assert_eq!(family(&ours), family(&theirs), "{given:?}");
            assert_eq!(family(&ours)[..4], [Some(1), Some(3), Some(3), None]);
            assert_eq!(without_ids(ours), without_ids(theirs), "{given:?}");
        }
    }
}
