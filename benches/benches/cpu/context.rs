//! Ids, span contexts, and their way into headers and back.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::Criterion;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    SpanContext as SdkSpanContext, TraceContextExt as _, TraceFlags, TraceState,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use spanwire_benches::fixtures::SCOPE;
use spanwire_benches::tracers;
use spanwire_model::TraceId;
use spanwire_tracer::propagation::{Propagator, Propagators, TRACEPARENT};
use spanwire_tracer::{Sampler, Tracer};

pub(crate) fn all(criterion: &mut Criterion) {
    let provider = tracers::spanwire(Sampler::AlwaysOff);
    let tracer = provider.tracer(SCOPE);
    trace_id(criterion, &tracer);
    trace_id_to_hex(criterion);
    span_context(criterion, &tracer);
    propagation(criterion);
}

/// A new random trace id.
///
/// Spanwire draws ids where a span starts and nowhere else, so its row is the start and end of a root
/// span that is not sampled: a trace id, and with it a span id and the sampler's decision.
fn trace_id(criterion: &mut Criterion, tracer: &Tracer) {
    let mut group = criterion.benchmark_group("trace_id");
    group.bench_function("spanwire", |b| {
        b.iter(|| tracer.span(black_box("checkout")).root().start().context().trace_id);
    });
    let ids = RandomIdGenerator::default();
    group.bench_function("opentelemetry_sdk", |b| b.iter(|| black_box(&ids).new_trace_id()));
    group.bench_function("fastrace", |b| b.iter(fastrace::collector::TraceId::random));
    group.finish();
}

/// A trace id as 32 hex digits: on the stack, or as a new `String`.
fn trace_id_to_hex(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("trace_id_to_hex");
    let number = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    let id = TraceId::new(number).expect("not zero");
    group.bench_function("spanwire", |b| b.iter(|| black_box(id).to_hex()));
    group.bench_function("format!", |b| b.iter(|| format!("{:032x}", black_box(number))));
    group.finish();
}

/// A whole new span context: trace id, span id, flags, no trace state.
///
/// Spanwire's row is a root span that is not sampled, whose context is copied: see [`trace_id`].
fn span_context(criterion: &mut Criterion, tracer: &Tracer) {
    let mut group = criterion.benchmark_group("span_context");
    group.bench_function("spanwire", |b| {
        b.iter(|| tracer.span(black_box("checkout")).root().start().context().clone());
    });
    let ids = RandomIdGenerator::default();
    group.bench_function("opentelemetry_sdk", |b| {
        b.iter(|| {
            let (trace_id, span_id) = (black_box(&ids).new_trace_id(), ids.new_span_id());
            SdkSpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE)
        });
    });
    group.finish();
}

/// A context into a map of headers and out of one, by W3C Trace Context, without a trace state.
///
/// Either client fills and reads the same kind of map with its own propagator. It is emptied before
/// each filling, and its texts are owned: the SDK hands over a `String`, Spanwire a text that is copied
/// into one. Where the trace state is empty, the SDK writes an empty `tracestate` all the same, a
/// second header; Spanwire leaves it out.
fn propagation(criterion: &mut Criterion) {
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut received = Headers::default();
    received.0.insert(TRACEPARENT.to_owned(), header.to_owned());
    let propagators = Propagators::new([Propagator::TraceContext]);
    let ours = propagators.extract(|name| received.get(name));
    assert!(ours.span().is_some());
    let propagator = TraceContextPropagator::new();
    let theirs = propagator.extract(&received);
    assert!(theirs.span().span_context().is_valid());

    let mut group = criterion.benchmark_group("propagation_inject");
    let mut sent = Headers::default();
    group.bench_function("spanwire", |b| {
        b.iter(|| {
            sent.0.clear();
            propagators.inject(black_box(&ours), |name, value| sent.set(name, value.to_owned()));
            assert_eq!(black_box(&sent).0.len(), 1);
        });
    });
    group.bench_function("opentelemetry_sdk", |b| {
        b.iter(|| {
            sent.0.clear();
            propagator.inject_context(black_box(&theirs), &mut sent);
            assert_eq!(black_box(&sent).0.len(), 2);
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("propagation_extract");
    group.bench_function("spanwire", |b| {
        b.iter(|| {
            let headers = black_box(&received);
            propagators.extract(|name| headers.get(name))
        });
    });
    let empty = opentelemetry::Context::new();
    group.bench_function("opentelemetry_sdk", |b| {
        b.iter(|| propagator.extract_with_context(&empty, black_box(&received)));
    });
    group.finish();
}

/// Headers by their names in lower case, which either client gives: nothing needs to be converted, as
/// the SDK's own carrier for a `HashMap` would do with each name.
#[derive(Debug, Default)]
struct Headers(HashMap<String, String>);

impl Injector for Headers {
    fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }
}

impl Extractor for Headers {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}
