//! What recording, encoding and reading cost, beside the rivals in the same run.
//!
//! Rows of one group do the same work; the ratio between them is the result, not the time. A recorded
//! span is timed on its own thread up to where it is handed over to whatever exports it:
//!
//! | row | what a span has gone through when the clock stops |
//! | --- | --- |
//! | spanwire | encoded to OTLP bytes in its thread's chunk; full chunks handed over |
//! | fastrace | in the queue to the collector thread, not encoded |
//! | opentelemetry_sdk | in the batch processor's queue, not encoded |
//! | opentelemetry_sdk, spans dropped | dropped where it ends: what the SDK costs at least |
//! | tracing-opentelemetry | as opentelemetry_sdk, on which it stands |
//!
//! Queues are emptied after each [`SPANS_AT_ONCE`] spans while the clock stands still, so that no
//! rival gets away with dropping what does not fit, and none has to wait for its other thread.

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use fastrace::prelude::SpanContext;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanBuilder, Tracer as _, TracerProvider as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler as SdkSampler, SdkTracer, SdkTracerProvider,
};
use prost::Message as _;
use spanwire_benches::fixtures::{self, Requests, SCOPE};
use spanwire_benches::rivals::{self, Discard};
use spanwire_benches::tracers;
use spanwire_codec::view::Request;
use spanwire_codec::{encode, json};
use spanwire_pool::{ChunkPool, ChunkSettings, ChunkWriter};
use spanwire_tracer::{Sampler, Tracer};
use tracing_subscriber::layer::SubscriberExt as _;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let rivals = Rivals::start();

    span_without_attributes(&mut criterion, &rivals);
    span_with_5_attributes(&mut criterion, &rivals);
    span_not_sampled(&mut criterion);
    concurrency(&mut criterion, &rivals);
    encode_1000_spans(&mut criterion);
    read_1000_spans(&mut criterion);
    json_1000_spans(&mut criterion);
    chunk(&mut criterion);
    clock(&mut criterion);
    criterion.final_summary();
}

/// Start and end of one sampled root span on one thread.
fn span_without_attributes(criterion: &mut Criterion, rivals: &Rivals) {
    let mut group = criterion.benchmark_group("span_without_attributes");
    let (provider, tracer) = spanwire(Sampler::default());
    let sweep = || drop(provider.sweep(|slice| drop(black_box(slice))));
    record(&mut group, "spanwire", sweep, || tracer.start(black_box("checkout")).end());
    record(&mut group, "fastrace", fastrace::flush, || {
        drop(fastrace::Span::root(black_box("checkout"), SpanContext::random()));
    });
    record(
        &mut group,
        "opentelemetry_sdk",
        || rivals.flush(),
        || {
            drop(rivals.batching.start(black_box("checkout")));
        },
    );
    record(
        &mut group,
        "opentelemetry_sdk, spans dropped",
        || {},
        || {
            drop(rivals.dropping.start(black_box("checkout")));
        },
    );
    record(
        &mut group,
        "tracing-opentelemetry",
        || rivals.flush(),
        || {
            drop(tracing::info_span!("checkout"));
        },
    );
    group.finish();
}

/// The same with three strings, an integer and a boolean.
///
/// Spanwire borrows the strings, which need not be static. The others are given what is cheapest
/// for them: static strings, which need no copy, and all attributes in one go where that is faster.
/// fastrace has no other values than strings, so the integer becomes one.
fn span_with_5_attributes(criterion: &mut Criterion, rivals: &Rivals) {
    const METHOD: &str = "POST";
    const ROUTE: &str = "/api/v1/orders/{id}/checkout";
    const USER: &str = "user-7f3a9c";
    const ITEMS: i64 = 3;
    const MEMBER: bool = true;

    let mut group = criterion.benchmark_group("span_with_5_attributes");
    let (provider, tracer) = spanwire(Sampler::default());
    let sweep = || drop(provider.sweep(|slice| drop(black_box(slice))));
    let owned = [METHOD, ROUTE, USER].map(String::from);
    record(&mut group, "spanwire", sweep, || {
        let [method, route, user] = black_box(&owned);
        let mut span = tracer.start(black_box("checkout"));
        span.set_attribute("http.request.method", method);
        span.set_attribute("http.route", route);
        span.set_attribute("user.id", user);
        span.set_attribute("cart.items", black_box(ITEMS));
        span.set_attribute("user.member", black_box(MEMBER));
    });
    record(&mut group, "fastrace", fastrace::flush, || {
        let span = fastrace::Span::root(black_box("checkout"), SpanContext::random());
        drop(span.with_properties(|| {
            [
                ("http.request.method", Cow::Borrowed(black_box(METHOD))),
                ("http.route", Cow::Borrowed(black_box(ROUTE))),
                ("user.id", Cow::Borrowed(black_box(USER))),
                ("cart.items", Cow::Owned(black_box(ITEMS).to_string())),
                ("user.member", Cow::Borrowed(if black_box(MEMBER) { "true" } else { "false" })),
            ]
        }));
    });
    let opentelemetry = |tracer: &SdkTracer| {
        let builder = SpanBuilder::from_name(black_box("checkout")).with_attributes(vec![
            KeyValue::new("http.request.method", black_box(METHOD)),
            KeyValue::new("http.route", black_box(ROUTE)),
            KeyValue::new("user.id", black_box(USER)),
            KeyValue::new("cart.items", black_box(ITEMS)),
            KeyValue::new("user.member", black_box(MEMBER)),
        ]);
        drop(tracer.build(builder));
    };
    record(&mut group, "opentelemetry_sdk", || rivals.flush(), || opentelemetry(&rivals.batching));
    record(
        &mut group,
        "opentelemetry_sdk, spans dropped",
        || {},
        || {
            opentelemetry(&rivals.dropping);
        },
    );
    record(
        &mut group,
        "tracing-opentelemetry",
        || rivals.flush(),
        || {
            drop(tracing::info_span!(
                "checkout",
                http.request.method = black_box(METHOD),
                http.route = black_box(ROUTE),
                user.id = black_box(USER),
                cart.items = black_box(ITEMS),
                user.member = black_box(MEMBER),
            ));
        },
    );
    group.finish();
}

/// A span that the sampler does not want.
fn span_not_sampled(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("span_not_sampled");
    let (_provider, tracer) = spanwire(Sampler::AlwaysOff);
    group.bench_function("spanwire", |b| b.iter(|| tracer.start(black_box("checkout")).end()));
    group.bench_function("fastrace", |b| {
        b.iter(|| {
            let parent = SpanContext::random().sampled(false);
            drop(fastrace::Span::root(black_box("checkout"), parent));
        });
    });
    let tracer = rivals::opentelemetry(SdkSampler::AlwaysOff, Discard).tracer(SCOPE);
    group.bench_function("opentelemetry_sdk", |b| {
        b.iter(|| drop(tracer.start(black_box("checkout"))));
    });
    group.finish();
}

/// One and two threads that record spans of eight attributes at once.
///
/// The SDK drops each span where it ends: the queue that its threads would share is left out.
fn concurrency(criterion: &mut Criterion, rivals: &Rivals) {
    let mut group = criterion.benchmark_group("concurrency");
    let requests = Requests::new(1024);
    let (_provider, ours) = spanwire(Sampler::default());
    let theirs = &rivals.dropping;
    for threads in [1, 2] {
        group.throughput(Throughput::Elements(threads));
        group.bench_function(BenchmarkId::new("spanwire", threads), |b| {
            b.iter_custom(|count| {
                at_once(threads, count, &requests, |request| request.record(&ours))
            });
        });
        group.bench_function(BenchmarkId::new("opentelemetry_sdk, spans dropped", threads), |b| {
            b.iter_custom(|count| {
                at_once(threads, count, &requests, |request| request.record_opentelemetry(theirs))
            });
        });
    }
    group.finish();
}

/// The time in which each of the threads has recorded `count` spans.
fn at_once(
    threads: u64,
    count: u64,
    requests: &Requests,
    record: impl Fn(&fixtures::Request) + Sync,
) -> Duration {
    let barrier = Barrier::new(threads as usize);
    let work = || {
        barrier.wait();
        let start = Instant::now();
        let spans = requests.iter().cycle().take(count as usize);
        spans.for_each(|request| record(black_box(request)));
        start.elapsed()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("records")).max().unwrap_or_default()
    })
}

/// Finished spans of eight attributes to wire bytes.
fn encode_1000_spans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_1000_spans");
    group.throughput(Throughput::Elements(1_000));
    let requests = Requests::new(1_000);

    let spans = requests.model();
    let mut out = Vec::new();
    group.bench_function("spanwire", |b| {
        b.iter(|| {
            out.clear();
            encode::put_batch(black_box(&spans), &mut out);
            black_box(&out);
        });
    });

    let (spans, resource) = (requests.span_data(), rivals::resource());
    let messages = |spans| ExportTraceServiceRequest {
        resource_spans: group_spans_by_resource_and_scope(spans, &resource),
    };
    // The copy comes first because a retry may need the spans again.
    group.bench_function("opentelemetry-otlp, gRPC: copy, convert, prost", |b| {
        b.iter(|| messages(black_box(&spans).clone()).encode_to_vec());
    });
    group.bench_function("opentelemetry-otlp, HTTP: convert, prost", |b| {
        b.iter_batched(
            || spans.clone(),
            |spans| messages(spans).encode_to_vec(),
            criterion::BatchSize::LargeInput,
        );
    });
    let ready = messages(spans.clone());
    group.bench_function("prost alone", |b| b.iter(|| black_box(&ready).encode_to_vec()));
    group.finish();
}

/// An export request of 1,000 spans of eight attributes.
fn read_1000_spans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read_1000_spans");
    let bytes = Requests::new(1_000).encoded();
    group.throughput(Throughput::Bytes(bytes.len() as u64));

    group.bench_function("spanwire: framing", |b| {
        b.iter(|| Request::parse(black_box(&bytes)).expect("valid").spans());
    });
    group.bench_function("spanwire: framing, then name and ids of each span", |b| {
        b.iter(|| {
            let request = Request::parse(black_box(&bytes)).expect("valid");
            for span in spans(&request) {
                black_box((span.name(), span.trace_id(), span.span_id(), span.parent_span_id()));
            }
        });
    });
    group.bench_function("spanwire: framing, then each span down to its attributes", |b| {
        b.iter(|| {
            let request = Request::parse(black_box(&bytes)).expect("valid");
            spans(&request).filter(|span| span.check().is_ok()).count()
        });
    });
    group.bench_function("prost", |b| {
        b.iter(|| ExportTraceServiceRequest::decode(black_box(&bytes[..])).expect("valid"));
    });
    group.finish();
}

fn spans<'a>(request: &Request<'a>) -> impl Iterator<Item = spanwire_codec::view::Span<'a>> {
    request
        .resource_spans()
        .flat_map(|resource_spans| resource_spans.scope_spans())
        .flat_map(|scope_spans| scope_spans.spans())
}

/// An export request of 1,000 spans of eight attributes, from and to OTLP/JSON.
///
/// Spanwire goes from wire bytes to text and from text to wire bytes, as a client or a collector
/// needs it. The rival's rows start and end with its structs, which is less than that; the row with
/// `prost` is the same work.
fn json_1000_spans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json_1000_spans");
    group.throughput(Throughput::Elements(1_000));
    let bytes = Requests::new(1_000).encoded();
    let structs = ExportTraceServiceRequest::decode(&bytes[..]).expect("valid");

    let mut text = Vec::new();
    group.bench_function("write: spanwire", |b| {
        b.iter(|| {
            text.clear();
            json::write_request(black_box(&bytes), &mut text).expect("valid");
            black_box(&text);
        });
    });
    let mut theirs = Vec::new();
    group.bench_function("write: serde_json", |b| {
        b.iter(|| {
            theirs.clear();
            serde_json::to_writer(&mut theirs, black_box(&structs)).expect("valid");
            black_box(&theirs);
        });
    });
    group.bench_function("write: prost, then serde_json", |b| {
        b.iter(|| {
            let structs = ExportTraceServiceRequest::decode(black_box(&bytes[..])).expect("valid");
            theirs.clear();
            serde_json::to_writer(&mut theirs, &structs).expect("valid");
            black_box(&theirs);
        });
    });
    text.clear();
    json::write_request(&bytes, &mut text).expect("valid");

    // Theirs has each field that has its default too.
    for (whose, text) in [("spanwire's", &text), ("serde_json's", &theirs)] {
        group.bench_function(format!("read {whose} text: spanwire"), |b| {
            b.iter(|| json::read_request(black_box(text)).expect("valid"));
        });
        group.bench_function(format!("read {whose} text: serde_json"), |b| {
            b.iter(|| {
                serde_json::from_slice::<ExportTraceServiceRequest>(black_box(text)).expect("valid")
            });
        });
    }
    group.finish();
}

/// A finished span of 200 bytes into its thread's chunk, from which another thread may take it at
/// any time: the pool's chunk beside the same thing in safe code.
fn chunk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk");
    let span = [7_u8; 200];
    group.throughput(Throughput::Bytes(span.len() as u64));

    let pool = ChunkPool::new(ChunkSettings::default());
    let next = || pool.take(usize::MAX).expect("one chunk is in use at a time");
    let mut writer = next();
    let append = |writer: &mut ChunkWriter| {
        writer.append(span.len(), |out| out.copy_from_slice(black_box(&span)))
    };
    group.bench_function("ChunkWriter", |b| {
        b.iter(|| {
            if append(&mut writer).is_err() {
                black_box(writer.chunk().take());
                writer = next();
                append(&mut writer).expect("an empty chunk has room");
            }
        });
    });

    let chunk_bytes = ChunkSettings::default().chunk_bytes;
    let shared = Mutex::new(Vec::with_capacity(chunk_bytes));
    group.bench_function("Mutex<Vec<u8>>", |b| {
        b.iter(|| {
            let mut bytes = black_box(&shared).lock().unwrap_or_else(PoisonError::into_inner);
            if bytes.len() + span.len() > chunk_bytes {
                black_box(&mut *bytes).clear();
            }
            bytes.extend_from_slice(black_box(&span));
        });
    });
    group.finish();
}

/// The two clock readings of a span.
fn clock(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clock");
    group.bench_function("time stamp counter, twice", |b| {
        b.iter(|| (fastant::Instant::now(), fastant::Instant::now()));
    });
    group.bench_function("Instant, twice", |b| b.iter(|| (Instant::now(), Instant::now())));
    group.bench_function("SystemTime, twice", |b| {
        b.iter(|| (SystemTime::now(), SystemTime::now()));
    });
    group.finish();
}

fn spanwire(sampler: Sampler) -> (spanwire_tracer::Provider, Tracer) {
    let provider = tracers::spanwire(sampler);
    let tracer = provider.tracer(SCOPE);
    (provider, tracer)
}

/// Times `record`, and calls `hand_over` after each [`SPANS_AT_ONCE`] spans without timing it.
fn record(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    hand_over: impl Fn(),
    record: impl Fn(),
) {
    // What is not timed takes several times as long as what is.
    group.measurement_time(Duration::from_secs(1));
    group.bench_function(name, |b| {
        b.iter_custom(|count| {
            let mut elapsed = Duration::ZERO;
            let mut left = count;
            while left > 0 {
                let spans = left.min(SPANS_AT_ONCE);
                let start = Instant::now();
                for _ in 0..spans {
                    record();
                }
                elapsed += start.elapsed();
                hand_over();
                left -= spans;
            }
            elapsed
        });
    });
}

/// Fits into the SDK's default queue of 2,048 spans, and into fastrace's of 10,240 messages, of which
/// a root span takes three.
const SPANS_AT_ONCE: u64 = 1_000;

/// The rivals that are set up once: fastrace and tracing are so by nature.
struct Rivals {
    provider: SdkTracerProvider,
    batching: SdkTracer,
    dropping: SdkTracer,
}

impl Rivals {
    fn start() -> Self {
        rivals::start_fastrace();
        // The SDK's default.
        let sampler = SdkSampler::ParentBased(Box::new(SdkSampler::AlwaysOn));
        // A batch larger than what is recorded at once, so that the processor's thread sleeps
        // meanwhile instead of competing for the queue.
        let batch = BatchConfigBuilder::default().with_max_export_batch_size(2_048).build();
        let processor = BatchSpanProcessor::builder(Discard).with_batch_config(batch).build();
        let provider = rivals::opentelemetry(sampler.clone(), processor);
        // Without the code location, thread and module that the layer adds by default, so that its
        // spans hold what the others' hold.
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SCOPE))
            .with_location(false)
            .with_tracked_inactivity(false)
            .with_threads(false)
            .with_target(false);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(subscriber).expect("it is the only one");
        Self {
            batching: provider.tracer(SCOPE),
            dropping: rivals::opentelemetry(sampler, Discard).tracer(SCOPE),
            provider,
        }
    }

    fn flush(&self) {
        self.provider.force_flush().expect("the exporter drops everything");
    }
}
