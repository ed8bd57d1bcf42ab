//! Recording: a span from its start to where it is handed over to whatever exports it.
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
use std::mem;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, measurement::WallTime};
use fastrace::prelude::SpanContext;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanBuilder, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler as SdkSampler, SdkTracer, SdkTracerProvider,
};
use spanwire_benches::fixtures::SCOPE;
use spanwire_benches::rivals::{self, Discard};
use spanwire_benches::tracers;
use spanwire_model::Attributes;
use spanwire_tracer::{Provider, Sampler, Tracer};
use tracing_subscriber::layer::SubscriberExt as _;

pub(crate) fn all(criterion: &mut Criterion) {
    let clients = Clients::start();
    span(criterion, &clients);
    span_not_sampled(criterion);
    attribute_key(criterion);
}

/// Start and end of one sampled root span on one thread, with so many attributes: in each five of
/// them three strings, an integer and a boolean.
///
/// Spanwire is given each attribute by itself, of strings that need not be static. The others are
/// given what is cheapest for them: static strings, which need no copy, and all attributes in one
/// go, in a vector of the right size. fastrace has no other values than strings, so an integer
/// becomes one. tracing's macro takes 32 fields at most, so it has no rows beyond ten.
fn span(criterion: &mut Criterion, clients: &Clients) {
    let mut group = criterion.benchmark_group("span");
    /// The rows of a span with these attributes, their keys known where they are compiled.
    macro_rules! rows {
        ($count:literal, [$($key:literal: $value:expr),*]) => {
            clients.rows(
                &mut group,
                $count,
                |tracer| {
                    #[allow(unused_mut, reason = "nothing is set on a span without attributes")]
                    let mut span = tracer.start(black_box("checkout"));
                    $(span.set_attribute($key, black_box($value));)*
                    span
                },
                || [$(($key, text(black_box($value)))),*],
                || vec![$(KeyValue::new($key, black_box($value))),*],
            );
            record(
                &mut group,
                BenchmarkId::new("tracing-opentelemetry", $count),
                || clients.flush(),
                || drop(tracing::info_span!("checkout", $($key = black_box($value)),*)),
            );
        };
    }
    rows!(0, []);
    rows!(5, [
        "http.request.method": "POST",
        "http.route": "/api/v1/orders/{id}/checkout",
        "user.id": "user-7f3a9c",
        "cart.items": 3_i64,
        "user.member": true
    ]);
    rows!(10, [
        "http.request.method": "POST",
        "http.route": "/api/v1/orders/{id}/checkout",
        "user.id": "user-7f3a9c",
        "cart.items": 3_i64,
        "user.member": true,
        "server.address": "shop.example.com",
        "client.address": "198.51.100.17",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200_i64,
        "cart.gift": false
    ]);

    // More attributes than anybody writes down: their keys come from a table.
    let table = table();
    for count in [50, 100] {
        let attributes = &table[..count];
        clients.rows(
            &mut group,
            count,
            |tracer| {
                let mut span = tracer.start(black_box("checkout"));
                for (key, value) in black_box(attributes) {
                    match *value {
                        Attribute::Text(text) => span.set_attribute(key, text),
                        Attribute::Int(number) => span.set_attribute(key, number),
                        Attribute::Bool(truth) => span.set_attribute(key, truth),
                    }
                }
                span
            },
            || {
                black_box(attributes).iter().map(|(key, value)| match *value {
                    Attribute::Text(value) => (*key, text(value)),
                    Attribute::Int(value) => (*key, text(value)),
                    Attribute::Bool(value) => (*key, text(value)),
                })
            },
            || {
                let attributes = black_box(attributes).iter();
                attributes
                    .map(|(key, value)| match *value {
                        Attribute::Text(value) => KeyValue::new(*key, value),
                        Attribute::Int(value) => KeyValue::new(*key, value),
                        Attribute::Bool(value) => KeyValue::new(*key, value),
                    })
                    .collect()
            },
        );
    }
    group.finish();
}

/// A span that the sampler does not want.
fn span_not_sampled(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("span_not_sampled");
    let (_provider, tracer) = spanwire(Sampler::AlwaysOff);
    // Each span is shown to somebody, as one that nobody looks at might not be made at all.
    group.bench_function("spanwire", |b| {
        b.iter(|| {
            let span = tracer.start(black_box("checkout"));
            black_box(&span);
            span.end();
        });
    });
    group.bench_function("fastrace", |b| {
        b.iter(|| {
            let parent = SpanContext::random().sampled(false);
            let span = fastrace::Span::root(black_box("checkout"), parent);
            black_box(&span);
            drop(span);
        });
    });
    let tracer = rivals::opentelemetry(SdkSampler::AlwaysOff, Discard).tracer(SCOPE);
    group.bench_function("opentelemetry_sdk", |b| {
        b.iter(|| {
            let span = tracer.start(black_box("checkout"));
            black_box(&span);
            drop(span);
        });
    });
    group.finish();
}

/// One attribute, a boolean, with a key that is static or that is owned.
///
/// | row | what it is set on |
/// | --- | --- |
/// | spanwire, static or owned | the attributes of a span of the model |
/// | spanwire, on a span | an open span, which encodes the key at once, static or not |
/// | opentelemetry_sdk, static or owned | an open span, in whose vector there is room |
///
/// Each [`SET_AT_ONCE`] of them are set one after the other, with keys of their own, so that each is
/// added and none replaced; what they are set on, and making owned keys, is not timed. Spanwire
/// compares a key with those already there, which the SDK leaves out.
fn attribute_key(criterion: &mut Criterion) {
    const STATIC: [&str; SET_AT_ONCE] = [
        "shop.order.field_0",
        "shop.order.field_1",
        "shop.order.field_2",
        "shop.order.field_3",
        "shop.order.field_4",
        "shop.order.field_5",
        "shop.order.field_6",
        "shop.order.field_7",
    ];
    let owned = || STATIC.map(str::to_owned);
    let mut group = criterion.benchmark_group("attribute_key");
    set(&mut group, "spanwire, static", Attributes::new, |attributes| {
        STATIC.iter().for_each(|key| attributes.set(*key, black_box(true)));
    });
    let empty = || (Attributes::new(), owned());
    set(&mut group, "spanwire, owned", empty, |(attributes, keys)| {
        keys.iter_mut().for_each(|key| attributes.set(mem::take(key), black_box(true)));
    });
    let (_provider, tracer) = spanwire(Sampler::default());
    let open = || tracer.start("checkout");
    set(&mut group, "spanwire, on a span", open, |span| {
        STATIC.iter().for_each(|key| span.set_attribute(key, black_box(true)));
    });

    let tracer = rivals::opentelemetry(SdkSampler::AlwaysOn, Discard).tracer(SCOPE);
    let open = || {
        let room = Vec::with_capacity(SET_AT_ONCE);
        tracer.build(SpanBuilder::from_name("checkout").with_attributes(room))
    };
    set(&mut group, "opentelemetry_sdk, static", open, |span| {
        STATIC.iter().for_each(|key| span.set_attribute(KeyValue::new(*key, black_box(true))));
    });
    let open = || (open(), owned());
    set(&mut group, "opentelemetry_sdk, owned", open, |(span, keys)| {
        for key in keys {
            span.set_attribute(KeyValue::new(mem::take(key), black_box(true)));
        }
    });
    group.finish();
}

/// Attributes set one after the other in [`attribute_key`]: as many as the fixtures' spans have.
const SET_AT_ONCE: usize = 8;

/// Times `set` on what `open` gives, and reports it as [`SET_AT_ONCE`] attributes.
fn set<S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    open: impl Fn() -> S,
    set: impl Fn(&mut S),
) {
    group.throughput(criterion::Throughput::Elements(SET_AT_ONCE as u64));
    group.bench_function(name, |b| {
        b.iter_batched_ref(
            &open,
            |span| set(black_box(span)),
            criterion::BatchSize::NumIterations(16),
        );
    });
}

#[derive(Clone, Copy)]
enum Attribute {
    Text(&'static str),
    Int(i64),
    Bool(bool),
}

/// A hundred attributes, mixed as those of smaller spans are.
fn table() -> Vec<(&'static str, Attribute)> {
    let value = |number: usize| match number % 5 {
        0 => Attribute::Text("POST"),
        1 => Attribute::Text("/api/v1/orders/{id}/checkout"),
        2 => Attribute::Text("user-7f3a9c"),
        3 => Attribute::Int(number as i64),
        _ => Attribute::Bool(number.is_multiple_of(2)),
    };
    // Leaked once: the rivals' best form is a static key.
    (0..100).map(|number| (&*format!("shop.order.field_{number}").leak(), value(number))).collect()
}

/// The only kind of value that fastrace has.
fn text(value: impl Text) -> Cow<'static, str> {
    value.text()
}

trait Text {
    fn text(self) -> Cow<'static, str>;
}

impl Text for &'static str {
    fn text(self) -> Cow<'static, str> {
        self.into()
    }
}

impl Text for i64 {
    fn text(self) -> Cow<'static, str> {
        self.to_string().into()
    }
}

impl Text for bool {
    fn text(self) -> Cow<'static, str> {
        if self { "true" } else { "false" }.into()
    }
}

fn spanwire(sampler: Sampler) -> (Provider, Tracer) {
    let provider = tracers::spanwire(sampler);
    let tracer = provider.tracer(SCOPE);
    (provider, tracer)
}

/// Times `record`, and calls `hand_over` after each [`SPANS_AT_ONCE`] spans without timing it.
fn record(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    hand_over: impl Fn(),
    record: impl Fn(),
) {
    group.bench_function(id, |b| {
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

/// Tracers that are set up once: those of fastrace and tracing are so by nature.
struct Clients {
    provider: Provider,
    tracer: Tracer,
    sdk: SdkTracerProvider,
    batching: SdkTracer,
    dropping: SdkTracer,
}

impl Clients {
    fn start() -> Self {
        rivals::start_fastrace();
        let sampler = rivals::default_sampler();
        // A batch larger than what is recorded at once, so that the processor's thread sleeps
        // meanwhile instead of competing for the queue.
        let batch = BatchConfigBuilder::default().with_max_export_batch_size(2_048).build();
        let processor = BatchSpanProcessor::builder(Discard).with_batch_config(batch).build();
        let sdk = rivals::opentelemetry(sampler.clone(), processor);
        // Without the code location, thread and module that the layer adds by default, so that its
        // spans hold what the others' hold.
        let layer = tracing_opentelemetry::layer()
            .with_tracer(sdk.tracer(SCOPE))
            .with_location(false)
            .with_tracked_inactivity(false)
            .with_threads(false)
            .with_target(false);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(subscriber).expect("it is the only one");
        let (provider, tracer) = spanwire(Sampler::default());
        Self {
            provider,
            tracer,
            batching: sdk.tracer(SCOPE),
            dropping: rivals::opentelemetry(sampler, Discard).tracer(SCOPE),
            sdk,
        }
    }

    fn flush(&self) {
        self.sdk.force_flush().expect("the exporter drops everything");
    }

    /// The rows of all clients but tracing, for spans that these functions start or fill.
    fn rows<P: IntoIterator<Item = (&'static str, Cow<'static, str>)>>(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        attributes: usize,
        started: impl Fn(&Tracer) -> spanwire_tracer::Span,
        properties: impl Fn() -> P,
        key_values: impl Fn() -> Vec<KeyValue>,
    ) {
        let id = |name: &str| BenchmarkId::new(name, attributes);
        let sweep = || drop(self.provider.sweep(|slice| drop(black_box(slice))));
        record(group, id("spanwire"), sweep, || started(&self.tracer).end());

        record(group, id("fastrace"), fastrace::flush, || {
            let span = fastrace::Span::root(black_box("checkout"), SpanContext::random());
            drop(if attributes == 0 { span } else { span.with_properties(&properties) });
        });

        let opentelemetry = |tracer: &SdkTracer| {
            let span = SpanBuilder::from_name(black_box("checkout"));
            let span = if attributes == 0 { span } else { span.with_attributes(key_values()) };
            drop(tracer.build(span));
        };
        let flush = || self.flush();
        record(group, id("opentelemetry_sdk"), flush, || opentelemetry(&self.batching));
        let nothing = || {};
        let dropped = id("opentelemetry_sdk, spans dropped");
        record(group, dropped, nothing, || opentelemetry(&self.dropping));
    }
}
