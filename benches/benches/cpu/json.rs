//! OTLP/JSON both ways.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use spanwire_benches::fixtures::Requests;
use spanwire_codec::json;

/// An export request of 1,000 spans of eight attributes, from and to OTLP/JSON.
///
/// Spanwire goes from wire bytes to text and from text to wire bytes, as a client or a collector
/// needs it. The rivals' rows start and end with the structs of `opentelemetry-proto`, which is less
/// than that; "prost, then serde_json" is the same work.
pub(crate) fn all(criterion: &mut Criterion) {
    let bytes = Requests::new(1_000).encoded();
    let (ours, theirs) = write(criterion, &bytes);
    read(criterion, "spanwire's text", &ours);
    // Theirs has each field that has its default too.
    read(criterion, "serde_json's text", &theirs);
}

/// Times the writing, and returns both texts.
fn write(criterion: &mut Criterion, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let structs = ExportTraceServiceRequest::decode(bytes).expect("valid");
    let mut group = criterion.benchmark_group("json_write_1000_spans");
    group.throughput(Throughput::Elements(1_000));
    let mut ours = Vec::new();
    group.bench_function("spanwire", |b| {
        b.iter(|| {
            ours.clear();
            json::write_request(black_box(bytes), &mut ours).expect("valid");
            black_box(&ours);
        });
    });
    let mut theirs = Vec::new();
    group.bench_function("serde_json", |b| {
        b.iter(|| {
            theirs.clear();
            serde_json::to_writer(&mut theirs, black_box(&structs)).expect("valid");
            black_box(&theirs);
        });
    });
    group.bench_function("prost, then serde_json", |b| {
        b.iter(|| {
            let structs = ExportTraceServiceRequest::decode(black_box(bytes)).expect("valid");
            theirs.clear();
            serde_json::to_writer(&mut theirs, &structs).expect("valid");
            black_box(&theirs);
        });
    });
    group.finish();
    // A filter may have left the rows out.
    (ours, theirs) = (Vec::new(), Vec::new());
    json::write_request(bytes, &mut ours).expect("valid");
    serde_json::to_writer(&mut theirs, &structs).expect("valid");
    (ours, theirs)
}

/// Reads a text. The SIMD parsers read into the same structs as serde_json, in their fastest form
/// without unsafe code: simd-json parses in place with buffers that are reused, on a copy of the text
/// that is not timed; it finds out at run time what the processor has, sonic-rs when it is compiled.
fn read(criterion: &mut Criterion, whose: &str, text: &[u8]) {
    let expected: ExportTraceServiceRequest = serde_json::from_slice(text).expect("valid");
    let ours = json::read_request(text).expect("valid");
    assert_eq!(ExportTraceServiceRequest::decode(&ours[..]).expect("valid"), expected);

    let mut group = criterion.benchmark_group("json_read_1000_spans");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function(BenchmarkId::new("spanwire", whose), |b| {
        b.iter(|| json::read_request(black_box(text)).expect("valid"));
    });
    group.bench_function(BenchmarkId::new("serde_json", whose), |b| {
        b.iter(|| {
            serde_json::from_slice::<ExportTraceServiceRequest>(black_box(text)).expect("valid")
        });
    });

    let mut buffers = simd_json::Buffers::new(text.len());
    let mut read = |text: &mut [u8]| -> ExportTraceServiceRequest {
        simd_json::serde::from_slice_with_buffers(text, &mut buffers).expect("valid")
    };
    assert_eq!(read(&mut text.to_vec()), expected);
    group.bench_function(BenchmarkId::new("simd-json", whose), |b| {
        // Dropped within, as in the other rows.
        let read = |text: &mut Vec<u8>| drop(black_box(read(text)));
        b.iter_batched_ref(|| text.to_vec(), read, BatchSize::LargeInput);
    });

    let read = |text| -> ExportTraceServiceRequest { sonic_rs::from_slice(text).expect("valid") };
    assert_eq!(read(text), expected);
    group.bench_function(BenchmarkId::new("sonic-rs", whose), |b| b.iter(|| read(black_box(text))));
    group.finish();
}
