//! The traces of [`Mix`](crate::fixtures::Mix) as `opentelemetry_sdk` records and holds them.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Event, Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status,
    TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use spanwire_model as model;

use crate::fixtures::{
    DURATION_NANOS, Fact, Mix, Place, SCOPE, SPANS_OF_TRACE, Sample, start_nanos,
};

/// When a span is given its attributes and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributesGiven {
    /// With the start, in one vector: the cheapest way for a span that is kept.
    AtTheStart,
    /// After it, and only if the span is recording: the cheapest way for one that is not.
    WhereRecording,
}

impl Mix {
    /// The finished spans as `opentelemetry_sdk` holds them.
    #[must_use]
    pub fn span_data(&self) -> Vec<SpanData> {
        let scope = InstrumentationScope::builder(SCOPE).build();
        self.samples().map(|(place, sample)| sample.span_data(place, &scope)).collect()
    }

    /// Records the spans the same way with `opentelemetry_sdk`, static texts as such.
    pub fn record_opentelemetry<T: Tracer>(&self, tracer: &T, given: AttributesGiven) {
        for trace in self.traces() {
            let mut open = [const { None::<T::Span> }; SPANS_OF_TRACE];
            for (at, sample) in trace.iter().enumerate() {
                let context =
                    |place: Option<usize>| Some(open.get(place?)?.as_ref()?.span_context().clone());
                let parent = match context(sample.parent) {
                    Some(parent) => Context::new().with_remote_span_context(parent),
                    None => Context::new(),
                };
                let linked = context(sample.link);
                let builder = SpanBuilder::from_name(sample.name).with_kind(kind(sample.kind));
                let mut span = match given {
                    AttributesGiven::AtTheStart => {
                        let mut builder = builder.with_attributes(key_values(&sample.attributes));
                        builder.links = linked.map(|linked| vec![Link::with_context(linked)]);
                        tracer.build_with_context(builder, &parent)
                    }
                    AttributesGiven::WhereRecording => {
                        let mut span = tracer.build_with_context(builder, &parent);
                        if span.is_recording() {
                            span.set_attributes(key_values(&sample.attributes));
                            linked.into_iter().for_each(|linked| span.add_link(linked, Vec::new()));
                        }
                        span
                    }
                };
                if span.is_recording() {
                    if let Some((name, facts)) = &sample.event {
                        span.add_event(*name, key_values(facts));
                    }
                    span.set_status(status(&sample.status));
                }
                open[at] = Some(span);
            }
            open.into_iter().rev().flatten().for_each(drop);
        }
    }
}

impl Sample {
    fn span_data(&self, place: Place, scope: &InstrumentationScope) -> SpanData {
        let time = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        let context = |number: u64| {
            SpanContext::new(
                TraceId::from(place.trace_id()),
                SpanId::from(number),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            )
        };
        let mut events = SpanEvents::default();
        events.events.extend(self.event.iter().map(|(name, facts)| {
            Event::new(*name, time(place.event_nanos()), key_values(facts), 0)
        }));
        let mut links = SpanLinks::default();
        links.links.extend(self.link.map(|at| Link::with_context(context(place.sibling(at)))));
        let start = start_nanos(place.number);
        SpanData {
            span_context: context(place.number),
            parent_span_id: self
                .parent
                .map_or(SpanId::INVALID, |at| SpanId::from(place.sibling(at))),
            parent_span_is_remote: false,
            span_kind: kind(self.kind),
            name: self.name.into(),
            start_time: time(start),
            end_time: time(start + DURATION_NANOS),
            attributes: key_values(&self.attributes),
            dropped_attributes_count: 0,
            events,
            links,
            status: status(&self.status),
            instrumentation_scope: scope.clone(),
        }
    }
}

fn key_values(facts: &[(&'static str, Fact)]) -> Vec<KeyValue> {
    let value = |fact: &Fact| match fact {
        Fact::Static(text) => Value::from(*text),
        Fact::Text(text) => Value::from(text.clone()),
        Fact::Int(number) => Value::from(*number),
        Fact::Bool(truth) => Value::from(*truth),
    };
    facts.iter().map(|(key, fact)| KeyValue::new(*key, value(fact))).collect()
}

fn kind(kind: model::SpanKind) -> SpanKind {
    match kind {
        model::SpanKind::Server => SpanKind::Server,
        model::SpanKind::Client => SpanKind::Client,
        model::SpanKind::Producer => SpanKind::Producer,
        model::SpanKind::Consumer => SpanKind::Consumer,
        model::SpanKind::Internal | model::SpanKind::Unspecified => SpanKind::Internal,
    }
}

fn status(status: &model::Status) -> Status {
    match status {
        model::Status::Unset => Status::Unset,
        model::Status::Ok => Status::Ok,
        model::Status::Error { message } => Status::error(message.as_str().to_owned()),
    }
}
