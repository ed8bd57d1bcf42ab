//! Finished spans to wire bytes, and wire bytes to what a reader wants of them.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use prost::Message as _;
use spanwire_benches::fixtures::{Requests, spans};
use spanwire_benches::rivals;
use spanwire_codec::encode;
use spanwire_codec::view::Request;

pub(crate) fn all(criterion: &mut Criterion) {
    encode_1000_spans(criterion);
    read_1000_spans(criterion);
}

/// Finished spans of eight attributes to wire bytes.
///
/// | row | from what, into what |
/// | --- | --- |
/// | spanwire | spans of the model, into a vector that is reused |
/// | opentelemetry-otlp, gRPC: … | the SDK's spans; copied first, because a retry may need them again |
/// | opentelemetry-otlp, HTTP: … | the SDK's spans, which the conversion takes over |
/// | prost | messages that are ready, into a vector that is reused: only the last step |
fn encode_1000_spans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_1000_spans");
    group.throughput(Throughput::Elements(1_000));
    let requests = Requests::new(1_000);

    let finished = requests.model();
    let mut out = Vec::new();
    group.bench_function("spanwire", |b| {
        b.iter(|| {
            out.clear();
            encode::put_batch(black_box(&finished), &mut out);
            black_box(&out);
        });
    });

    let (finished, resource) = (requests.span_data(), rivals::resource());
    let messages = |spans| ExportTraceServiceRequest {
        resource_spans: group_spans_by_resource_and_scope(spans, &resource),
    };
    group.bench_function("opentelemetry-otlp, gRPC: copy, convert, prost", |b| {
        b.iter(|| messages(black_box(&finished).clone()).encode_to_vec());
    });
    group.bench_function("opentelemetry-otlp, HTTP: convert, prost", |b| {
        b.iter_batched(
            || finished.clone(),
            |spans| messages(spans).encode_to_vec(),
            BatchSize::LargeInput,
        );
    });
    let ready = messages(finished.clone());
    group.bench_function("prost", |b| {
        b.iter(|| {
            out.clear();
            black_box(&ready).encode(&mut out).expect("a vector grows");
            black_box(&out);
        });
    });
    group.finish();
}

/// An export request of 1,000 spans of eight attributes.
///
/// | row | what is known afterwards |
/// | --- | --- |
/// | spanwire, framing | how many spans there are, and that their framing is sound |
/// | spanwire, check | and that each span is sound down to its attributes |
/// | spanwire, name and ids | framing, then name, ids, kind and times of each span, in one scan |
/// | prost | everything, as messages on the heap, which are dropped again |
fn read_1000_spans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read_1000_spans");
    let bytes = Requests::new(1_000).encoded();
    group.throughput(Throughput::Elements(1_000));

    group.bench_function("spanwire, framing", |b| {
        b.iter(|| Request::parse(black_box(&bytes)).expect("valid").spans());
    });
    group.bench_function("spanwire, check", |b| {
        b.iter(|| {
            let request = Request::parse(black_box(&bytes)).expect("valid");
            spans(&request).filter(|span| span.check().is_ok()).count()
        });
    });
    group.bench_function("spanwire, name and ids", |b| {
        b.iter(|| {
            let request = Request::parse(black_box(&bytes)).expect("valid");
            for span in spans(&request) {
                black_box(span.head());
            }
        });
    });
    group.bench_function("prost", |b| {
        b.iter(|| ExportTraceServiceRequest::decode(black_box(&bytes[..])).expect("valid"));
    });
    group.finish();
}
