//! `heap`: bytes that spans hold on the heap and how often recording and encoding allocate, Spanwire
//! beside its rivals where they are built in.
//! `heap allocations`: a line of JSON for each hot path, with what one run of it allocates once warm.
//!
//! Counted by an allocator that notes each block; times would mean nothing here.
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::env;
use std::error::Error;
use std::hint::black_box;

use dhat::HeapStats;
use serde_json::json;
use spanwire_benches::fixtures::{Mix, Requests, SCOPE, checkout};
use spanwire_benches::hot_paths::{self, HotPath};
use spanwire_benches::metrics;
use spanwire_benches::reuse::{SPANS_AT_ONCE, context, fresh_batches, pooled_batches};
use spanwire_benches::tracers::Keeping;
use spanwire_codec::encode;
use spanwire_model::{Attributes, Event, Interner, Span, SpanContext, Text, TraceId};
use spanwire_tracer::Provider;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            for count in [100, 1_000, 10_000] {
                heap_of_spans(count);
            }
            allocations()?;
            interned_names();
            pooled_spans();
            Ok(())
        }
        ["allocations"] => hot_path_allocations(),
        _ => Err("usage: heap [allocations]".into()),
    }
}

/// What some work did to the heap.
#[derive(Clone, Copy)]
struct Heap {
    /// Blocks allocated, whether freed since or not.
    allocations: u64,
    /// Bytes of these blocks.
    bytes: u64,
    /// Bytes still held once the result is there.
    held_bytes: usize,
}

/// Does some work, and drops its result uncounted.
fn heap_of<T>(work: impl FnOnce() -> T) -> Heap {
    let _profiler = dhat::Profiler::builder().testing().build();
    let before = HeapStats::get();
    let result = work();
    let after = HeapStats::get();
    drop(black_box(result));
    Heap {
        allocations: after.total_blocks - before.total_blocks,
        bytes: after.total_bytes - before.total_bytes,
        held_bytes: after.curr_bytes - before.curr_bytes,
    }
}

/// What one run of a path does to the heap once it is warm.
fn warm(path: &mut HotPath) -> Heap {
    // Enough to fill chunks of every size and to come round to used ones.
    const WARM_UP_RUNS: usize = 30;

    (0..WARM_UP_RUNS).for_each(|_| path.measured());
    heap_of(|| path.measured())
}

fn hot_path(name: &str) -> Result<HotPath, String> {
    hot_paths::by_name(name).ok_or_else(|| format!("no hot path is called {name:?}"))
}

fn hot_path_allocations() -> Result<(), Box<dyn Error>> {
    for name in hot_paths::names() {
        let heap = warm(&mut hot_path(name)?);
        let Heap { allocations, bytes, .. } = heap;
        let name = json!(name);
        println!(r#"{{"name": {name}, "allocations": {allocations}, "bytes": {bytes}}}"#);
    }
    Ok(())
}

/// Bytes a span takes that has ended and waits to be sent, over traces of all kinds of spans.
///
/// | row | what is held |
/// | --- | --- |
/// | spanwire, encoded | chunks with their unused ends, the thread's records, the list of chunks |
/// | spanwire, model | a vector of `Span`s, with no room to spare |
/// | opentelemetry_sdk | a vector of `SpanData`, with no room to spare |
fn heap_of_spans(count: usize) {
    let report = |function, heap: Heap| {
        let figure = heap.held_bytes as f64 / count as f64;
        metrics::report("heap_of_spans", function, &count.to_string(), "B/span", figure);
    };
    let mix = Mix::new(count);

    let client = Keeping::new();
    let tracer = client.tracer();
    let mut spans = 0;
    let heap = heap_of(|| {
        mix.record(&tracer);
        spans = client.spans().iter().map(|taken| taken.slice.spans).sum();
    });
    assert_eq!(spans, count, "each span is held");
    report("spanwire, encoded", heap);

    report("spanwire, model", heap_of(|| exact(mix.model())));
    #[cfg(feature = "rivals")]
    report("opentelemetry_sdk", heap_of(|| exact(mix.span_data())));
}

fn exact<T>(mut spans: Vec<T>) -> Vec<T> {
    spans.shrink_to_fit();
    spans
}

/// How often something allocates.
fn report_allocations(function: &str, what: &str, allocations: f64) {
    metrics::report("allocations", function, what, "allocations", allocations);
}

fn allocations() -> Result<(), Box<dyn Error>> {
    let ours = |what, heap: Heap| report_allocations("spanwire", what, heap.allocations as f64);

    // A full chunk is dropped as it is: taking its spans out is the exporter's part, and allocates
    // once a chunk.
    let provider = Provider::builder().build(|_full_chunk| Ok(()));
    let tracer = provider.tracer(SCOPE);
    const SPANS: u64 = 10_000;
    let record = || (0..SPANS).for_each(|_| checkout(&tracer).end());
    record();
    let allocations = heap_of(record).allocations;
    report_allocations("spanwire", "span, 5 attributes", allocations as f64 / SPANS as f64);

    let context = context(1).ok_or("an id of one is valid")?;
    ours("model span, 8 attributes and 4 events", heap_of(|| model_span(context)));

    let finished = Requests::new(1_000).model();
    let encode = || {
        let mut out = Vec::new();
        encode::put_batch(&finished, &mut out);
        out
    };
    ours("encode 1,000 spans", heap_of(encode));
    for (path, what) in [
        ("encode_1000_spans", "encode 1,000 spans, vector reused"),
        ("read_1000_spans: framing", "read 1,000 spans: framing"),
        ("read_1000_spans: check", "read 1,000 spans: check"),
        ("read_1000_spans: name and ids", "read 1,000 spans: name and ids"),
    ] {
        ours(what, warm(&mut hot_path(path)?));
    }

    let id = TraceId::new(u128::MAX).ok_or("an id of ones is valid")?;
    ours("trace id to hex", heap_of(|| black_box(id).to_hex()));

    let mut span = tracer.start("checkout");
    ours("attribute with a static key", heap_of(|| span.set_attribute("cart.items", 3)));
    let mut attributes = Attributes::new();
    let set = || attributes.set("cart.items", 3);
    ours("model attribute with a static key", heap_of(set));
    let (mut attributes, key) = (Attributes::new(), String::from("cart.items"));
    let set = || attributes.set(key, 3);
    ours("model attribute with an owned key", heap_of(set));

    #[cfg(feature = "rivals")]
    rivals::allocations();
    Ok(())
}

/// As many attributes and events as a span of the model holds by itself.
fn model_span(context: SpanContext) -> Span {
    const KEYS: [&str; Attributes::INLINE] = [
        "http.request.method",
        "http.route",
        "url.scheme",
        "server.address",
        "server.port",
        "network.protocol.version",
        "http.response.status_code",
        "cache.hit",
    ];
    let mut span = Span::new(context, "GET /users/{id}");
    for (number, key) in (0_i64..).zip(KEYS) {
        match number % 2 {
            0 => span.attributes.set(key, "a text that is static"),
            _ => span.attributes.set(key, number),
        }
    }
    for _ in 0..Span::EVENTS_INLINE {
        span.events.push(Event { name: Text::from_static("cache miss"), ..Event::default() });
    }
    span
}

/// Bytes that the names of 10,000 spans hold, where there are 100 different ones of 50 bytes, read
/// from elsewhere: shared through an interner, whose own tables count, or each a copy of its own. The
/// handles, which are a part of each span, are the same in either row and do not count.
fn interned_names() {
    const SPANS: usize = 10_000;
    const NAMES: usize = 100;

    let read: Vec<String> = (0..SPANS)
        .map(|number| format!("GET /api/v1/customers/{{customer}}/orders/{:010}", number % NAMES))
        .collect();
    assert!(read.iter().all(|name| name.len() == 50));
    let report = |function, heap: Heap| {
        let figure = heap.held_bytes as f64;
        metrics::report("interned_names", function, &SPANS.to_string(), "B", figure);
    };

    let mut names = Vec::with_capacity(SPANS);
    let heap = heap_of(|| {
        let mut interner = Interner::new(1_000, 1 << 20);
        names.extend(read.iter().map(|name| interner.intern(name)));
        interner
    });
    report("spanwire, interned", heap);

    let mut names = Vec::with_capacity(SPANS);
    report("owned", heap_of(|| names.extend(read.iter().cloned().map(Text::from))));
}

/// Allocations that a million spans take which hold more than fits into them, with a batch of
/// [`SPANS_AT_ONCE`] of them in use at a time.
fn pooled_spans() {
    const SPANS: usize = 1_000_000;

    let report = |function, mut batch: Box<dyn FnMut()>| {
        let heap = heap_of(|| (0..SPANS / SPANS_AT_ONCE).for_each(|_| batch()));
        let figure = heap.allocations as f64;
        metrics::report("pooled_spans", function, &SPANS.to_string(), "allocations", figure);
    };
    report("spanwire, pooled", Box::new(pooled_batches()));
    report("spanwire, fresh", Box::new(fresh_batches()));
}

/// The same with `opentelemetry_sdk`.
#[cfg(feature = "rivals")]
mod rivals {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{Span as _, SpanBuilder, Tracer as _, TracerProvider as _};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
    use opentelemetry_sdk::trace::Sampler;
    use prost::Message as _;
    use spanwire_benches::rivals::{self, Discard};

    use super::*;

    pub(super) fn allocations() {
        let theirs = |what, heap: Heap| {
            report_allocations("opentelemetry_sdk", what, heap.allocations as f64)
        };

        let tracer = rivals::opentelemetry(Sampler::AlwaysOn, Discard).tracer(SCOPE);
        let record = || {
            let builder = SpanBuilder::from_name("checkout").with_attributes(vec![
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("http.route", "/api/v1/orders/{id}/checkout"),
                KeyValue::new("user.id", "user-7f3a9c"),
                KeyValue::new("cart.items", 3),
                KeyValue::new("user.member", true),
            ]);
            drop(tracer.build(builder));
        };
        record();
        theirs("span, 5 attributes", heap_of(record));

        let (finished, resource) = (Requests::new(1_000).span_data(), rivals::resource());
        let encode = || {
            let resource_spans = group_spans_by_resource_and_scope(finished, &resource);
            ExportTraceServiceRequest { resource_spans }.encode_to_vec()
        };
        theirs("encode 1,000 spans", heap_of(encode));
        let request = Requests::new(1_000).encoded();
        let read = || ExportTraceServiceRequest::decode(&request[..]).expect("encoded here");
        report_allocations("prost", "read 1,000 spans", heap_of(read).allocations as f64);

        let id = opentelemetry::trace::TraceId::from(u128::MAX);
        theirs("trace id to hex", heap_of(|| black_box(id).to_string()));

        // With room, as a caller who counts allocations gives it: the first growth is not the key's.
        let builder = SpanBuilder::from_name("checkout").with_attributes(Vec::with_capacity(2));
        let mut span = tracer.build(builder);
        let set = || span.set_attribute(KeyValue::new("cart.items", 3));
        theirs("attribute with a static key", heap_of(set));
    }
}
