//! What it costs to copy, to share and to reuse spans.
//!
//! Rows of one group start from the same spans; what each includes stands with its group. The heap
//! itself, bytes and allocations, is measured by the `heap` binary, whose allocator counts and is slow
//! by it.
//!
//! `cargo bench -p spanwire-benches --bench memory_benchmarks [-- FILTER]`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput};
use opentelemetry::KeyValue;
use spanwire_benches::fixtures::{Envelope, Mix, Requests};
use spanwire_benches::reuse::{
    ReusedSpan, SPANS_AT_ONCE, context, fresh, fresh_batches, pooled_batches,
};
use spanwire_codec::{encode, split, view};
use spanwire_model::Attributes;
use spanwire_pool::{ChunkPool, ChunkSettings, ObjectPool};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    span_deep_clone(&mut criterion);
    span_shared_clone(&mut criterion);
    object_pool(&mut criterion);
    pooled_spans(&mut criterion);
    zero_copy(&mut criterion);
    criterion.final_summary();
}

/// A copy of a finished span with so many attributes, and the end of that copy. In each five of them
/// are three owned strings, which are copied; keys are static in either client.
fn span_deep_clone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("span_deep_clone");
    let requests = Requests::new(1);
    let text = |number: usize| format!("/api/v1/orders/{number:08x}");
    for count in [0, 10, 100] {
        // Leaked, to be static as keys are that stand in the source.
        let keys: Vec<&'static str> =
            (0..count).map(|n| &*format!("shop.order.field_{n}").leak()).collect();

        let mut span = requests.model().remove(0);
        span.attributes = Attributes::new();
        for (number, key) in keys.iter().enumerate() {
            match number % 5 {
                3 => span.attributes.set(*key, number),
                4 => span.attributes.set(*key, true),
                _ => span.attributes.set(*key, text(number)),
            }
        }
        group.bench_function(BenchmarkId::new("spanwire", count), |b| {
            b.iter(|| black_box(&span).clone());
        });

        let mut span = requests.span_data().remove(0);
        let key_value = |(number, key): (usize, &&'static str)| match number % 5 {
            3 => KeyValue::new(*key, number as i64),
            4 => KeyValue::new(*key, true),
            _ => KeyValue::new(*key, text(number)),
        };
        span.attributes = keys.iter().enumerate().map(key_value).collect();
        group.bench_function(BenchmarkId::new("opentelemetry_sdk", count), |b| {
            b.iter(|| black_box(&span).clone());
        });
    }
    group.finish();
}

/// A finished span handed to one more holder, who lets go of it again: a share of the chunk that it
/// was encoded into, beside a share of a span on the heap.
fn span_shared_clone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("span_shared_clone");
    let span = Requests::new(1).model().remove(0);

    let pool = ChunkPool::new(ChunkSettings::default());
    let mut writer = pool.take(0).expect("the budget is not used");
    let mut framed = Vec::new();
    encode::put_framed(&span, &mut framed);
    writer
        .append(framed.len(), |out| out.copy_from_slice(&framed))
        .expect("an empty chunk has room");
    let slice = writer.chunk().take().expect("a span is complete");
    group.bench_function("spanwire", |b| b.iter(|| black_box(&slice.bytes).clone()));

    let shared = Arc::new(span);
    group.bench_function("Arc", |b| b.iter(|| Arc::clone(black_box(&shared))));
    group.finish();
}

/// A span of the model with more attributes and events than it holds by itself, filled and let go of:
/// taken from a pool and reset, or made anew.
fn object_pool(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("object_pool");
    let context = context(1).expect("not zero");
    let pool = ObjectPool::<ReusedSpan>::new(1);
    group.bench_function("spanwire, pooled", |b| {
        b.iter(|| {
            let mut span = pool.take();
            black_box(span.fill(black_box(&context).clone()));
        });
    });
    group.bench_function("spanwire, fresh", |b| {
        b.iter(|| {
            black_box(&fresh(black_box(&context).clone()));
        });
    });
    group.finish();
}

/// Spans as in [`object_pool`], a batch of [`SPANS_AT_ONCE`] in use at a time, again and again.
fn pooled_spans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pooled_spans");
    group.throughput(Throughput::Elements(SPANS_AT_ONCE as u64));
    let mut batch = pooled_batches();
    group.bench_function("spanwire, pooled", |b| b.iter(&mut batch));
    let mut batch = fresh_batches();
    group.bench_function("spanwire, fresh", |b| b.iter(&mut batch));
    group.finish();
}

/// The spans of an encoded request of 1,000, cut into ten requests of 100: each one's header, and its
/// spans as a slice of what is there or as a copy in one buffer of the right size.
fn zero_copy(criterion: &mut Criterion) {
    const SPANS_OF_BATCH: usize = 100;

    let mut group = criterion.benchmark_group("zero_copy");
    group.throughput(Throughput::Elements(1_000));
    let mut spans = Vec::new();
    encode::put_batch(&Mix::new(1_000).model(), &mut spans);
    let spans = Bytes::from(spans);
    let envelope = Envelope::new();

    let sliced = |spans: &Bytes| {
        let mut rest = spans.clone();
        let mut requests = Vec::with_capacity(10);
        while !rest.is_empty() {
            let batch = rest.split_to(split::prefix(&rest, SPANS_OF_BATCH, usize::MAX).bytes);
            let mut header = BytesMut::with_capacity(envelope.header_len(batch.len()));
            envelope.put_header(batch.len(), &mut header);
            requests.push([header.freeze(), batch]);
        }
        requests
    };
    let copied = |spans: &Bytes| {
        let mut rest: &[u8] = spans;
        let mut requests = Vec::with_capacity(10);
        while !rest.is_empty() {
            let batch;
            (batch, rest) = rest.split_at(split::prefix(rest, SPANS_OF_BATCH, usize::MAX).bytes);
            let len = envelope.header_len(batch.len()) + batch.len();
            let mut request = BytesMut::with_capacity(len);
            envelope.put_header(batch.len(), &mut request);
            request.extend_from_slice(batch);
            requests.push(request.freeze());
        }
        requests
    };
    let whole: Vec<Vec<u8>> = sliced(&spans).iter().map(|pieces| pieces.concat()).collect();
    assert_eq!(whole, copied(&spans));
    let count = |request: &Vec<u8>| view::Request::parse(request).expect("valid").spans();
    assert_eq!(whole.iter().map(count).collect::<Vec<_>>(), [SPANS_OF_BATCH; 10]);

    group.bench_function("spanwire, sliced", |b| b.iter(|| sliced(black_box(&spans))));
    group.bench_function("copied", |b| b.iter(|| copied(black_box(&spans))));
    group.finish();
}
