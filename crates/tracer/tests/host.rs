//! Whatever panics around recording, the application goes on and every span is accounted for.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use spanwire_pool::{ChunkPool, ChunkSettings};
use spanwire_tracer::sampler::{Sample, Sampler, SamplingParameters};
use spanwire_tracer::{Context, Loss, Outlet, Provider, Span, TracedChunk, Tracer};

/// A panic that prints nothing.
fn fault() -> ! {
    resume_unwind(Box::new("a fault of the application's own"))
}

/// Whether `work` panics.
fn panics(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

/// Chunks of a few spans.
fn small_chunks() -> ChunkPool {
    let settings = ChunkSettings { initial_bytes: 1024, chunk_bytes: 1024, ..Default::default() };
    ChunkPool::new(settings)
}

/// Counts the spans it gets, unless it is broken.
#[derive(Clone, Default)]
struct Sink {
    spans: Arc<AtomicU64>,
    broken: Arc<AtomicBool>,
}

impl Sink {
    fn check(&self) {
        if self.broken.load(Ordering::Relaxed) {
            fault();
        }
    }

    /// What came in and what a sweep still finds.
    fn spans(&self, provider: &Provider) -> u64 {
        let mut swept = 0;
        assert!(provider.sweep(|slice| swept += slice.slice.spans as u64).is_empty());
        self.spans.fetch_add(swept, Ordering::Relaxed) + swept
    }
}

impl Outlet for Sink {
    fn accept(&self, chunk: TracedChunk) -> Result<(), Loss> {
        self.check();
        let spans = chunk.take().map_or(0, |taken| taken.slice.spans as u64);
        self.spans.fetch_add(spans, Ordering::Relaxed);
        Ok(())
    }

    fn make_room(&self, waited: Duration) -> bool {
        self.check();
        waited < Duration::from_millis(1)
    }
}

/// Its own text is a fault.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        fault()
    }
}

impl std::error::Error for Unspeakable {}

/// Faults 127.
#[test]
fn a_panic_within_a_call_that_records_ends_the_span_and_harms_no_other() {
    let sink = Sink::default();
    let provider = Provider::builder().build(sink.clone());
    let tracer = provider.tracer("t");
    let faults: [fn(&mut Span); 4] = [
        |span| span.add_event("half", std::iter::once_with(|| fault())),
        |span| {
            let context = span.context().clone();
            span.add_link(&context, std::iter::once_with(|| fault()));
        },
        |span| span.record_error(&Unspeakable),
        |_| fault(),
    ];
    for broken in faults {
        let outer = tracer.start("outer");
        assert!(panics(|| tracer.in_span("broken", broken)));
        assert!(Context::current().span().is_none());
        outer.end();
        let elsewhere = tracer.clone();
        std::thread::spawn(move || elsewhere.start("another thread's").end()).join().expect("ends");
    }
    let stats = provider.stats();
    assert_eq!((stats.started(), stats.recorded(), stats.live()), (12, 12, 0));
    assert_eq!(sink.spans(&provider), 12);
}

/// Faults 127.
#[test]
fn a_thread_that_panics_hands_over_what_it_recorded() {
    let sink = Sink::default();
    let provider = Provider::builder().build(sink.clone());
    let tracer = provider.tracer("t");
    let thread = std::thread::spawn(move || {
        tracer.start("ended").end();
        let _open = tracer.start("open");
        fault();
    });
    assert!(thread.join().is_err());
    assert_eq!(sink.spans.load(Ordering::Relaxed), 2, "without a sweep");
    assert_eq!(provider.stats().recorded(), 2);
}

/// Faults 128.
#[test]
fn a_panic_of_an_outlet_is_a_refusal_and_the_spans_stay() {
    let sink = Sink::default();
    let provider = Provider::builder().pool(small_chunks()).build(sink.clone());
    let tracer = provider.tracer("t");
    let record = |spans: usize| (0..spans).for_each(|_| tracer.start("some span").end());
    sink.broken.store(true, Ordering::Relaxed);
    record(50);
    let stats = provider.stats();
    assert_eq!(stats.recorded() + stats.lost(Loss::QueueFull), 50);
    assert!(stats.recorded() > 5 && stats.lost(Loss::QueueFull) > 5);
    assert_eq!((stats.in_chunks(), stats.live()), (stats.recorded(), 0));
    sink.broken.store(false, Ordering::Relaxed);
    record(50);
    let stats = provider.stats();
    assert_eq!(stats.recorded() + stats.lost(Loss::QueueFull), 100);
    assert_eq!(sink.spans(&provider), stats.recorded(), "it goes on where it was");
}

/// Faults 128.
#[test]
fn a_panic_while_an_outlet_makes_room_loses_the_span_for_want_of_memory() {
    let sink = Sink::default();
    sink.broken.store(true, Ordering::Relaxed);
    let pool = ChunkPool::new(ChunkSettings { bytes_max: 100, ..Default::default() });
    let provider = Provider::builder().pool(pool).build(sink);
    provider.tracer("t").start("nowhere to go").end();
    let stats = provider.stats();
    assert_eq!((stats.lost(Loss::Memory), stats.recorded(), stats.live()), (1, 0, 0));
}

/// Faults 128, 135.
#[test]
fn a_panic_of_an_outlet_in_a_threads_last_moments_leaves_its_spans_to_the_sweep() {
    let sink = Sink::default();
    let provider = Provider::builder().build(sink.clone());
    let tracer = provider.tracer("t");
    sink.broken.store(true, Ordering::Relaxed);
    std::thread::spawn(move || tracer.start("short").end()).join().expect("no abort");
    sink.broken.store(false, Ordering::Relaxed);
    assert_eq!(sink.spans(&provider), 1);
}

/// Everything that drops, in the order in which it drops.
struct Held(#[expect(dead_code, reason = "held to be dropped")] Vec<Box<dyn std::any::Any>>);

/// Faults 129.
#[test]
fn a_provider_dropped_while_its_thread_unwinds_loses_nothing_and_does_not_abort() {
    for order in 0..6 {
        for broken in [false, true] {
            let sink = Sink::default();
            let unwinds = sink.clone();
            let thread = std::thread::spawn(move || {
                let provider = Provider::builder().pool(small_chunks()).build(unwinds.clone());
                let tracer = provider.tracer("t");
                (0..20).for_each(|_| tracer.start("ended").end());
                unwinds.broken.store(broken, Ordering::Relaxed);
                let open: Vec<Span> = (0..20).map(|_| tracer.start("open")).collect();
                let mut held: Vec<Box<dyn std::any::Any>> =
                    vec![Box::new(provider), Box::new(tracer), Box::new(open)];
                held.rotate_left(order % 3);
                if order >= 3 {
                    held.swap(0, 1);
                }
                let _held = Held(held);
                fault();
            });
            assert!(thread.join().is_err(), "unwound, not aborted");
            let arrived = sink.spans.load(Ordering::Relaxed);
            assert!(if broken { arrived < 40 } else { arrived == 40 }, "{arrived}");
        }
    }
}

/// Faults 129.
#[test]
fn spans_started_while_a_thread_unwinds_are_recorded() {
    struct RecordsWhereDropped(Tracer);

    impl Drop for RecordsWhereDropped {
        fn drop(&mut self) {
            self.0.in_span("cleaning up", |span| span.set_attribute("is.unwinding", true));
        }
    }

    let sink = Sink::default();
    let provider = Provider::builder().build(sink.clone());
    let records = RecordsWhereDropped(provider.tracer("t"));
    assert!(panics(move || {
        let _records = records;
        fault();
    }));
    assert_eq!(sink.spans(&provider), 1);
}

/// Faults 128.
#[test]
fn a_sampler_that_panics_leaves_spans_unsampled_and_the_rest_at_work() {
    struct Faulty;

    impl Sample for Faulty {
        fn sample(&self, parameters: &SamplingParameters<'_>) -> bool {
            if parameters.name == "broken" { fault() } else { true }
        }

        fn description(&self) -> String {
            "Faulty".into()
        }
    }

    let sink = Sink::default();
    let sampler = Sampler::custom(Faulty);
    let provider = Provider::builder().sampler(sampler.clone()).build(sink.clone());
    let tracer = provider.tracer("t");
    for _ in 0..3 {
        assert!(!tracer.start("broken").is_recording());
        assert!(tracer.start("fine").is_recording());
    }
    assert_eq!(sampler.panics(), 3);
    assert_eq!(sink.spans(&provider), 3);
}
