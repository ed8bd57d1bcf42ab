//! What is recorded is what a plain span with the same history would be, and where it goes.

use std::future::Future as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::trace::v1 as oracle;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use spanwire_codec::{encode, view};
use spanwire_model::{Attributes, Limits, Link, SpanId, TraceFlags, TraceId};
use spanwire_pool::{ChunkPool, ChunkSettings};
use spanwire_tracer::{
    Baggage, Context, InContext, Loss, Provider, Sampler, SpanContext, SpanKind, Status,
    TracedChunk, Value,
};

/// A provider that keeps what is handed over, and a look at all of it.
struct Recorder {
    provider: Provider,
    full: Arc<Mutex<Vec<TracedChunk>>>,
}

impl Recorder {
    fn new(limits: Limits) -> Self {
        let full = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&full);
        let provider = Provider::builder().limits(limits).build(move |chunk| {
            kept.lock().expect("no panic").push(chunk);
            Ok(())
        });
        Self { provider, full }
    }

    /// Every span so far, by the oracle.
    fn spans(&self) -> Vec<oracle::Span> {
        let full = std::mem::take(&mut *self.full.lock().expect("no panic"));
        let mut slices: Vec<_> = full.iter().filter_map(TracedChunk::take).collect();
        self.provider.sweep(|slice| slices.push(slice));
        let decode = |bytes: &[u8]| oracle::ScopeSpans::decode(bytes).expect("whole spans").spans;
        slices.iter().flat_map(|slice| decode(&slice.slice.bytes)).collect()
    }
}

fn recorder() -> Recorder {
    Recorder::new(Limits::default())
}

#[derive(Clone, Debug)]
enum Step {
    Attribute(String, Value<'static>),
    Event(String, Vec<(String, Value<'static>)>),
    Link(u64, Vec<(String, Value<'static>)>),
    Name(String),
    Status(Status),
    Error(String),
}

fn value() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        ".{0,30}".prop_map(|text| Value::String(text.into())),
        any::<i64>().prop_map(Value::Int),
        any::<bool>().prop_map(Value::Bool),
        any::<f64>().prop_map(Value::Double),
        vec(any::<u8>(), 0..200).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(3, 10, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec(("[a-c]", inner), 0..4).prop_map(Value::map),
        ]
    })
}

/// Few distinct keys, so that they meet; some that share length and ending.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![".{0,3}", "[a-f]", Just("one.long.name".into()), Just("two.long.name".into())]
}

fn step() -> impl Strategy<Value = Step> {
    let pairs = || vec((key(), value()), 0..6);
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Step::Attribute(key, value)),
        2 => (".{0,9}", pairs()).prop_map(|(name, pairs)| Step::Event(name, pairs)),
        2 => (1..=u64::MAX, pairs()).prop_map(|(id, pairs)| Step::Link(id, pairs)),
        1 => ".{0,30}".prop_map(Step::Name),
        1 => Just(Step::Status(Status::Ok)),
        1 => ".{0,9}".prop_map(|message| Step::Status(Status::Error { message: message.into() })),
        1 => ".{0,9}".prop_map(Step::Error),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..8u32, 0..40u32, 0..4u32, 0..4u32, 0..4u32, 0..4u32, 0..4u32).prop_map(
        |(attributes, length, depth, events, event_attributes, links, link_attributes)| Limits {
            attributes,
            attribute_value_length: length,
            attribute_value_depth: depth,
            events,
            event_attributes,
            links,
            link_attributes,
        },
    )
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

proptest! {
    /// Faults 34. Pitfall 7.
    #[test]
    fn a_recorded_span_equals_a_plain_one_with_the_same_history(
        steps in vec(step(), 0..30),
        limits in prop_oneof![Just(Limits::default()), limits()],
    ) {
        let recorder = Recorder::new(limits);
        let mut recorded = recorder.provider.tracer("t").span("name").kind(SpanKind::Client).start();
        let mut plain = spanwire_model::Span::new(recorded.context().clone(), "name");
        plain.kind = SpanKind::Client;
        for step in steps {
            match step {
                Step::Attribute(key, value) => {
                    recorded.set_attribute(&key, value.clone());
                    plain.attributes.set_within(key, value, &limits);
                }
                Step::Event(name, pairs) => {
                    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(5);
                    let borrowed = pairs.iter().map(|(key, value)| (&**key, value.clone()));
                    recorded.add_event_at(time, &name, borrowed);
                    plain.add_event(5, name, within(pairs, limits.event_attributes, limits), &limits);
                }
                Step::Link(id, pairs) => {
                    let context = SpanContext::new(
                        TraceId::new(1).expect("not zero"),
                        SpanId::new(id).expect("not zero"),
                        TraceFlags::SAMPLED,
                    );
                    let borrowed = pairs.iter().map(|(key, value)| (&**key, value.clone()));
                    recorded.add_link(&context, borrowed);
                    plain.add_link(context, within(pairs, limits.link_attributes, limits), &limits);
                }
                Step::Name(name) => {
                    recorded.set_name(&name);
                    plain.name = name.into();
                }
                Step::Status(status) => {
                    recorded.set_status(status.clone());
                    if plain.status != Status::Ok {
                        plain.status = status;
                    }
                }
                Step::Error(message) => {
                    let before = plain.status.clone();
                    recorded.record_error(&Failure(message.clone()));
                    plain.record_error(0, &Failure(message), &limits);
                    if before == Status::Ok {
                        plain.status = before;
                    }
                }
            }
        }
        recorded.end();
        let mut spans = recorder.spans();
        prop_assert_eq!(spans.len(), 1);
        let mut span = spans.remove(0);
        let mut framed = Vec::new();
        encode::put_framed(&plain, &mut framed);
        let mut expected = oracle::ScopeSpans::decode(&framed[..]).expect("whole").spans.remove(0);
        // Times are the clock's own; of an attribute set twice only the last place is kept.
        prop_assert!(0 < span.start_time_unix_nano);
        prop_assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        for span in [&mut span, &mut expected] {
            (span.start_time_unix_nano, span.end_time_unix_nano) = (0, 0);
            span.attributes.sort_by(|one, other| one.key.cmp(&other.key));
            span.events.iter_mut().for_each(|event| {
                event.time_unix_nano = event.time_unix_nano.min(5);
                if event.name == "exception" {
                    event.time_unix_nano = 0;
                }
            });
        }
        prop_assert_eq!(span.encode_to_vec(), expected.encode_to_vec());
    }
}

fn within(pairs: Vec<(String, Value<'static>)>, count_max: u32, limits: Limits) -> Attributes {
    let mut attributes = Attributes::new();
    for (key, value) in pairs {
        attributes.set_within(key, value, &Limits { attributes: count_max, ..limits });
    }
    attributes
}

/// Pitfall 7.
#[test]
fn of_attributes_with_one_key_the_last_is_exported_and_no_other() {
    let recorder = recorder();
    let mut span = recorder.provider.tracer("t").start("twice");
    for value in 0..5 {
        span.set_attribute("user.id", value);
        span.set_attribute("user.name", "the same each time");
    }
    let twice = [("key", 1.into()), ("other", 2.into()), ("key", 3.into())];
    span.add_event("event", twice.clone());
    span.add_link(&span.context().clone(), twice);
    span.end();
    let span = &recorder.spans()[0];
    let keys = |attributes: &[common::KeyValue]| {
        attributes.iter().map(|attribute| attribute.key.clone()).collect::<Vec<_>>()
    };
    let value = |attribute: &common::KeyValue| attribute.value.clone().and_then(|any| any.value);
    let int = |number| Some(common::any_value::Value::IntValue(number));
    assert_eq!(keys(&span.attributes), ["user.id", "user.name"]);
    assert_eq!(value(&span.attributes[0]), int(4));
    for attributes in [&span.events[0].attributes, &span.links[0].attributes] {
        assert_eq!(keys(attributes), ["key", "other"]);
        assert_eq!(value(&attributes[0]), int(3));
    }
    assert_eq!(span.dropped_attributes_count, 0);
}

#[test]
fn a_child_has_its_parents_trace_and_flags_and_a_root_starts_a_random_trace() {
    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    let root = tracer.start("root");
    assert!(root.context().flags.is_random() && root.context().flags.is_sampled());
    {
        let _current = root.enter();
        let child = tracer.start("child");
        assert_eq!(child.context().trace_id, root.context().trace_id);
        assert_eq!(child.context().flags, root.context().flags);
        assert_ne!(tracer.span("other").root().start().context().trace_id, root.context().trace_id);
    }
    assert_ne!(tracer.start("after").context().trace_id, root.context().trace_id);
    let root_id = root.context().span_id.to_bytes().to_vec();
    root.end();
    let spans = recorder.spans();
    let parent =
        |name: &str| &spans.iter().find(|span| span.name == name).expect("recorded").parent_span_id;
    assert_eq!(*parent("child"), root_id);
    assert!(parent("root").is_empty() && parent("after").is_empty() && parent("other").is_empty());
    assert!(spans.iter().all(|span| span.flags == 0x103), "sampled, random, parent not remote");
}

/// Pitfall 6.
#[test]
fn a_remote_parent_passes_on_its_trace_state_and_marks_the_flags() {
    let recorder = recorder();
    let headers = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"),
        ("tracestate", "vendor=1"),
        ("baggage", "tenant=7"),
    ];
    let find = |name: &str| headers.iter().find(|header| header.0 == name).map(|header| header.1);
    let context = Context::extract(find);
    assert_eq!(context.baggage().get("tenant").as_deref(), Some("7"));
    let _current = context.attach();
    let span = recorder.provider.tracer("t").start("server");
    let mut sent = Vec::new();
    span.as_current().inject(|name, value| sent.push((name, value.to_owned())));
    let own_id = span.context().span_id;
    assert_eq!(
        sent,
        [
            ("traceparent", format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{own_id}-03")),
            ("tracestate", "vendor=1".into()),
            ("baggage", "tenant=7".into()),
        ]
    );
    span.end();
    let span = &recorder.spans()[0];
    assert_eq!((span.flags, span.trace_state.as_str()), (0x303, "vendor=1"));
}

#[test]
fn contexts_nest_and_guards_may_go_in_any_order() {
    let context = |tenant: &str| Context::new().with_baggage(Baggage::parse(tenant).baggage);
    let current = || Context::current().baggage().as_str().to_owned();
    let outer = context("a=1").attach();
    let inner = context("a=2").attach();
    assert_eq!(current(), "a=2");
    drop(outer);
    assert_eq!(current(), "", "the inner one goes with the outer one");
    let other = context("a=3").attach();
    let last = context("a=4").attach();
    drop(inner);
    assert_eq!(current(), "a=4", "a guard whose context is gone takes nobody else's");
    drop((last, other));
    assert_eq!(current(), "");
}

#[test]
fn a_span_is_current_in_its_future_only_while_that_is_polled() {
    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    let span = tracer.start("task");
    let id = span.context().span_id;
    let current = || Context::current().span().map(|span| span.span_id);
    let mut future = Box::pin(
        async {
            assert_eq!(Context::current().span().map(|span| span.span_id), Some(id));
            std::future::pending::<()>().await;
        }
        .in_span(span),
    );
    let waker = std::task::Waker::noop();
    assert!(future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    assert_eq!(current(), None);
    assert!(recorder.spans().is_empty());
    drop(future);
    assert_eq!(recorder.spans().len(), 1, "a cancelled future ends its span");
}

#[test]
fn times_given_by_the_caller_are_kept() {
    let recorder = recorder();
    let at = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    recorder.provider.tracer("t").span("given").start_time(at(100)).start().end_at(at(250));
    let span = &recorder.spans()[0];
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (100, 250));
}

#[test]
fn a_span_started_here_and_ended_there_is_counted_once() {
    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    for _ in 0..300 {
        let span = tracer.start("moves");
        // Joined by hand: a scope does not wait for the thread's last moments, when its chunk leaves.
        std::thread::spawn(move || span.end()).join().expect("ends");
    }
    let stats = recorder.provider.stats();
    assert_eq!((stats.started(), stats.recorded(), stats.live()), (300, 300, 0));
    assert_eq!(recorder.spans().len(), 300);
}

/// Pitfall 13.
#[test]
fn a_refused_chunk_stays_and_the_newest_spans_are_lost_and_counted() {
    let pool = ChunkPool::new(ChunkSettings {
        initial_bytes: 1024,
        chunk_bytes: 1024,
        ..ChunkSettings::default()
    });
    let provider = Provider::builder().pool(pool).build(|_| Err(Loss::QueueFull));
    let tracer = provider.tracer("t");
    (0..100).for_each(|_| tracer.start("some span").end());
    let stats = provider.stats();
    assert_eq!(stats.started(), 100);
    assert_eq!(stats.recorded() + stats.lost(Loss::QueueFull), 100);
    assert_eq!(stats.in_chunks(), stats.recorded(), "what fitted is still there");
    assert!(stats.recorded() > 5 && stats.lost(Loss::QueueFull) > 50);
}

#[test]
fn a_span_larger_than_any_chunk_gets_one_of_its_own() {
    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    let text = "x".repeat(1 << 20);
    for _ in 0..3 {
        tracer.start("small").end();
        tracer.start("large").set_attribute("text", &text);
    }
    let sizes: Vec<_> = recorder.spans().iter().map(|span| span.attributes.len()).collect();
    assert_eq!(sizes.iter().filter(|&&attributes| attributes == 1).count(), 3);
    assert_eq!(sizes.len(), 6);
}

/// Faults 137. Pitfall 12.
#[test]
fn without_memory_spans_are_lost_for_that_reason() {
    let pool = ChunkPool::new(ChunkSettings { bytes_max: 100, ..ChunkSettings::default() });
    let provider = Provider::builder().pool(pool).build(|_| Ok(()));
    provider.tracer("t").start("nowhere to go").end();
    assert_eq!(provider.stats().lost(Loss::Memory), 1);
}

/// Tracers that take turns on one thread: each has a chunk of its own there, as threads have.
#[test]
fn many_chunks_are_small_enough_that_all_of_them_find_memory() {
    const TRACERS: usize = 128;
    let pool = ChunkPool::new(ChunkSettings { bytes_max: 1 << 20, ..ChunkSettings::default() });
    // What is handed over is free again at once, as with a collector that keeps up.
    let provider = Provider::builder().pool(pool).build(|_| Ok(()));
    let tracers: Vec<_> = (0..TRACERS).map(|scope| provider.tracer(scope.to_string())).collect();
    for _ in 0..400 {
        tracers.iter().for_each(|tracer| tracer.start("a span of some 60 bytes").end());
    }
    let stats = provider.stats();
    assert_eq!((stats.recorded(), stats.lost(Loss::Memory)), (400 * TRACERS as u64, 0));
    let used = provider.pool().budget().used() - provider.pool().idle_bytes();
    assert_eq!(used, TRACERS * ChunkSettings::default().initial_bytes);
}

#[test]
fn where_the_memory_has_no_large_chunk_left_small_ones_take_spans_until_it_is_used_up() {
    let pool = ChunkPool::new(ChunkSettings { bytes_max: 1 << 20, ..ChunkSettings::default() });
    let kept = Mutex::new(Vec::new());
    let provider = Provider::builder().pool(pool).build(move |chunk| {
        kept.lock().expect("no panic").push(chunk);
        Ok(())
    });
    let tracer = provider.tracer("t");
    while provider.stats().lost(Loss::Memory) == 0 {
        tracer.start("a span of some 60 bytes").end();
    }
    assert_eq!(provider.pool().budget().used(), 1 << 20);
}

#[test]
fn chunks_are_as_large_as_what_comes_between_two_sweeps() {
    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    let record = |spans| (0..spans).for_each(|_| tracer.start("a span of some 60 bytes").end());
    let sizes = || {
        let full = std::mem::take(&mut *recorder.full.lock().expect("no panic"));
        full.iter().map(|chunk| chunk.chunk.capacity() >> 10).collect::<Vec<_>>()
    };
    record(4_000);
    assert_eq!(sizes()[..3], [4, 16, 64]);
    for _ in 0..1_000 {
        record(10);
        recorder.provider.sweep(drop);
    }
    assert_eq!(sizes().last(), Some(&4));
    record(4_000);
    assert_eq!(sizes().last(), Some(&64));
}

/// Faults 135.
#[test]
fn threads_that_end_hand_their_chunk_over_and_leave_nothing_behind() {
    const THREADS: usize = 10_000;
    const AT_ONCE: usize = 50;

    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    let mut held_most = 0;
    for _ in 0..THREADS / AT_ONCE {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let tracer = tracer.clone();
                std::thread::spawn(move || tracer.start("short").end())
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("ends"));
        assert_eq!(recorder.full.lock().expect("no panic").len(), AT_ONCE, "without a sweep");
        assert_eq!(recorder.spans().len(), AT_ONCE);
        held_most = held_most.max(recorder.provider.pool().budget().used());
    }
    let stats = recorder.provider.stats();
    assert_eq!((stats.started(), stats.recorded()), (THREADS as u64, THREADS as u64));
    let pool = recorder.provider.pool();
    assert_eq!(pool.budget().used(), pool.idle_bytes(), "no chunk is held any more");
    let chunk_bytes = ChunkSettings::default().initial_bytes;
    assert!(held_most <= 2 * AT_ONCE * chunk_bytes, "{held_most} bytes for {AT_ONCE} threads");
}

/// Faults 130, 135.
#[test]
fn a_span_that_ends_in_a_destructor_of_the_threads_last_moments_is_recorded() {
    thread_local! {
        static LAST: std::cell::RefCell<Option<spanwire_tracer::Span>> = const { std::cell::RefCell::new(None) };
    }
    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    std::thread::spawn(move || {
        // Registered first, so destroyed last on platforms that go backwards; either way it ends
        // where the tracer's own storage may be gone.
        LAST.set(None);
        LAST.set(Some(tracer.start("last")));
    })
    .join()
    .expect("ends");
    assert_eq!(recorder.spans().len(), 1);
}

/// Faults 127.
#[test]
fn a_panic_while_spans_are_open_ends_them() {
    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tracer.in_span("outer", |_| {
            let _inner = tracer.start("inner");
            std::panic::resume_unwind(Box::new("the application's own"));
        })
    }));
    assert!(unwound.is_err());
    assert_eq!(recorder.spans().len(), 2);
    assert!(Context::current().span().is_none());
}

#[test]
fn after_the_closing_spans_are_lost_and_counted_and_new_ones_are_not_recorded() {
    let recorder = recorder();
    let tracer = recorder.provider.tracer("t");
    let open = tracer.start("open");
    tracer.start("before").end();
    recorder.provider.close();
    let after = tracer.span("after").parent(open.context()).start();
    assert!(!after.is_recording());
    assert_eq!(after.context(), open.context(), "callees are children of what was recorded");
    open.end();
    let stats = recorder.provider.stats();
    assert_eq!((stats.started(), stats.live()), (2, 0));
    assert_eq!((stats.lost(Loss::Shutdown), stats.in_chunks()), (1, 1));
    assert_eq!(recorder.spans()[0].name, "before", "what ended before is still there");
}

#[test]
fn a_scope_asked_for_again_has_the_same_tracer_and_no_further_memory() {
    let recorder = recorder();
    let kept = recorder.provider.tracer("kept");
    (0..10_000).for_each(|_| recorder.provider.tracer("kept").start("span").end());
    let used = recorder.provider.pool().budget().used();
    drop(kept);
    // Nobody keeps these: their chunks are handed over when the next tracer comes.
    for tracer in 0..10_000 {
        recorder.provider.tracer(format!("tracer {tracer}")).start("span").end();
        drop(recorder.spans());
    }
    let more = recorder.provider.pool().budget().used();
    assert!(more <= used + (64 << 10), "{used} bytes became {more}");
}

/// Pitfall 1.
#[test]
fn an_unsampled_span_has_ids_and_takes_nothing() {
    let provider = Provider::builder().sampler(Sampler::AlwaysOff).build(|_| panic!("a chunk"));
    let tracer = provider.tracer("t");
    let mut span = tracer.start("off");
    span.set_attribute("kept", false);
    span.add_event("never", []);
    span.add_link(&span.context().clone(), []);
    span.record_error(&Failure("unseen".into()));
    let _current = span.enter();
    let child = tracer.start("child");
    assert_eq!(child.context().trace_id, span.context().trace_id);
    assert_ne!(child.context().span_id, span.context().span_id);
    drop((child, span));
    assert!(provider.sweep(|_| panic!("a span")).is_empty());
    let stats = provider.stats();
    assert_eq!((stats.started(), stats.recorded(), provider.pool().budget().used()), (0, 0, 0));
}

/// Faults 140.
#[test]
fn a_disabled_provider_records_nothing_and_passes_on_what_came() {
    let provider = Provider::disabled();
    let tracer = provider.tracer("t");
    let remote = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"),
        ("tracestate", "vendor=1"),
    ];
    let find = |name: &str| remote.iter().find(|header| header.0 == name).map(|header| header.1);
    let caller = Context::extract(find);
    {
        let _current = caller.attach();
        let span = tracer.start("server");
        let _current = span.enter();
        let mut child = provider.tracer("t").span("client").kind(SpanKind::Client).start();
        child.set_attribute("kept", false);
        assert!(!child.is_recording());
        let mut sent = Vec::new();
        child.as_current().inject(|name, value| sent.push((name, value.to_owned())));
        assert_eq!(sent, remote.map(|(name, value)| (name, value.to_owned())));
        let given = tracer.span("given").parent(child.context()).start();
        assert_eq!(given.context(), child.context());
        let root = tracer.span("root").root().start();
        assert_ne!(root.context().trace_id, child.context().trace_id);
        assert!(!root.context().is_sampled());
    }
    assert!(provider.sweep(|_| panic!("a span")).is_empty());
    let stats = provider.stats();
    assert_eq!((stats.started(), stats.lost(Loss::Shutdown)), (0, 0));
    assert_eq!(provider.pool().budget().used(), 0);
}

#[test]
fn a_link_to_a_remote_context_says_so() {
    let recorder = recorder();
    let mut span = recorder.provider.tracer("t").start("links");
    let context = SpanContext { is_remote: true, ..span.context().clone() };
    span.add_link(&context, [("reason", "retry".into())]);
    span.end();
    let link = &recorder.spans()[0].links[0];
    assert_eq!(link.flags, 0x303);
    let expected =
        Link { context, flags: 0x303, attributes: Vec::new(), dropped_attributes_count: 0 };
    assert_eq!(link.span_id, expected.context.span_id.to_bytes());
}

/// Faults 138.
#[test]
fn a_suppressed_thread_records_nothing_it_starts_and_all_that_ends_on_it() {
    let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
    let tracer = provider.tracer("t");
    let started_elsewhere = tracer.start("started elsewhere");
    let context = started_elsewhere.context().clone();
    let serving = std::thread::spawn(move || {
        tracer.start("before").end();
        spanwire_tracer::suppress_on_this_thread();
        let attached = started_elsewhere.as_current().attach();
        let about_itself = tracer.start("about itself");
        assert!(!about_itself.is_recording());
        assert_eq!(about_itself.context().span_id, context.span_id, "the parent is passed on");
        drop((attached, about_itself));
        started_elsewhere.end();
        assert!(!tracer.start("still suppressed").is_recording());
    });
    serving.join().expect("no panic");
    let mut names = Vec::new();
    provider.sweep(|taken| names.extend(names_of(&taken.slice.bytes)));
    names.sort();
    assert_eq!(names, ["before", "started elsewhere"]);
    assert_eq!((provider.stats().started(), provider.stats().live()), (2, 0));
}

fn names_of(framed: &[u8]) -> Vec<String> {
    let text = |span: view::Span<'_>| String::from_utf8_lossy(span.name()).into_owned();
    view::framed(framed).map(text).collect()
}
