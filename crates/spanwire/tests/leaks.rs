//! What spans, tracers and clients take from the heap they give back, counted by the allocator: a test
//! binary of its own, with a single test.
//!
//! What is guaranteed:
//!
//! - Finished spans that were taken and dropped leave nothing behind but the chunks that the pool
//!   keeps for the next ones, which are as many as were once in use together.
//! - A provider is freed with its last handle and its last thread. A thread that lives on keeps its
//!   records and its chunk of it until it next records with another one.
//! - There is no cycle of ours: chunks know their pool weakly, and threads a tracer's handles.
//! - An outlet that holds its own provider or tracer is a cycle of the user's. It is freed once the
//!   outlet lets go, and until then it holds no more than the provider, however many spans come.
//! - A client that is shut down and dropped leaves nothing behind, also where a callback of the
//!   user's holds one of its tracers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dhat::HeapStats;
use spanwire::{Client, Diagnostics, Protocol, Tracer};
use spanwire_receiver::{Accepted, Received, Receiver};
use spanwire_tracer::{Provider, TracedChunk};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const SPANS: usize = 10_000;
const ROUNDS: usize = 10;

/// Longer than anything here takes; reached only by a test that fails.
const LONG: Duration = Duration::from_secs(30);

#[test]
fn everything_taken_from_the_heap_is_given_back() {
    let _profiler = dhat::Profiler::builder().testing().build();
    spans_leave_nothing_behind_but_the_chunks_kept_for_the_next_ones();
    a_thread_that_lives_on_keeps_one_provider_at_most();
    a_cycle_through_an_outlet_does_not_grow_and_is_freed_once_it_is_broken();
    a_client_that_was_shut_down_leaves_nothing_behind();
}

fn spans_leave_nothing_behind_but_the_chunks_kept_for_the_next_ones() {
    let round = |provider: &Provider, tracer: &Tracer| {
        on_a_thread(|| record(tracer));
        drop(provider.sweep(drop));
    };
    let all = || {
        let provider = Provider::builder().build(take);
        let tracer = provider.tracer("leaks");
        let held = held_after_each(|| round(&provider, &tracer));
        assert_eq!(held[ROUNDS - 1], held[0], "after each round: {held:?}");
        assert_eq!(provider.stats().recorded(), (SPANS * ROUNDS) as u64);
    };
    // The first one in a process also makes what all of them share.
    all();
    let before = held_bytes();
    all();
    assert_eq!(held_bytes(), before, "once the provider is gone");
}

fn a_thread_that_lives_on_keeps_one_provider_at_most() {
    let round = || record(&Provider::builder().build(take).tracer("leaks"));
    on_a_thread(|| {
        let held = held_after_each(round);
        assert_eq!(held[ROUNDS - 1], held[0], "after each provider: {held:?}");
    });
    let before = held_bytes();
    on_a_thread(round);
    assert_eq!(held_bytes(), before, "once the thread is gone");
}

fn a_cycle_through_an_outlet_does_not_grow_and_is_freed_once_it_is_broken() {
    let before = held_bytes();
    let own = Arc::new(Mutex::new(None::<Tracer>));
    let held_by_outlet = Arc::clone(&own);
    let provider = Provider::builder().build(move |chunk: TracedChunk| {
        let _own = &held_by_outlet;
        take(chunk)
    });
    let tracer = provider.tracer("leaks");
    *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(tracer.clone());

    let held = held_after_each(|| on_a_thread(|| record(&tracer)));
    assert_eq!(held[ROUNDS - 1], held[0], "after each round: {held:?}");
    drop((provider, tracer));
    assert!(held_bytes() > before, "the outlet still holds its tracer");
    let last = own.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop((own, last));
    assert_eq!(held_bytes(), before, "once the outlet has let go");
}

fn a_client_that_was_shut_down_leaves_nothing_behind() {
    let collector = Collector::start();
    let round = || {
        // A callback that holds a tracer of the client that calls it.
        let own = Arc::new(OnceLock::<Tracer>::new());
        let told = Arc::clone(&own);
        let client = Client::builder()
            .environment(false)
            .protocol(Protocol::HttpProtobuf)
            .endpoint(collector.endpoint.as_str())
            .diagnostics(Diagnostics::to(move |_| drop(told.get().cloned())))
            .build()
            .expect("a client");
        let tracer = client.tracer("leaks");
        own.set(tracer.clone()).expect("set once");
        on_a_thread(|| record(&tracer));
        let report = client.shutdown_blocking(LONG);
        assert!(report.complete, "{report}");
        let stats = client.stats();
        assert!(stats.exported + stats.dropped.total() == SPANS as u64, "{stats}");
    };
    // The first ones also make what the runtime and the receiver keep.
    (0..2).for_each(|_| round());
    collector.wait_until_idle();
    let before = held_bytes();
    for _ in 0..ROUNDS {
        round();
    }
    collector.wait_until_idle();
    // The exporter's thread ends by itself, after it has answered.
    let deadline = Instant::now() + LONG;
    while held_bytes() > before {
        assert!(Instant::now() < deadline, "{before} bytes before, {} after", held_bytes());
        thread::yield_now();
    }
}

fn take(chunk: TracedChunk) -> Result<(), spanwire_tracer::Loss> {
    drop(chunk.take());
    Ok(())
}

/// Spans with a child each, attributes, an event, and now and then a link.
fn record(tracer: &Tracer) {
    let text = String::from("a text that is no constant");
    for number in 0..SPANS / 2 {
        let parent = tracer.start("GET /users/{id}");
        let mut span = tracer.span("SELECT users").parent(parent.context()).start();
        span.set_attribute("db.system.name", "postgresql");
        span.set_attribute(&text, &text);
        span.set_attribute("db.response.returned_rows", number);
        span.add_event("cache miss", [("cache.key", text.as_str().into())]);
        if number % 100 == 0 {
            span.add_link(parent.context(), [("link.reason", text.as_str().into())]);
        }
    }
}

/// Runs it on a thread of its own, which is gone afterwards with all it held.
fn on_a_thread(work: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(work).join()).expect("no panic");
}

fn held_bytes() -> usize {
    HeapStats::get().curr_bytes
}

/// Bytes held after each of [`ROUNDS`] rounds.
fn held_after_each(round: impl Fn()) -> [usize; ROUNDS] {
    let mut held = [0; ROUNDS];
    for held in &mut held {
        round();
        *held = held_bytes();
    }
    held
}

/// A receiver on a runtime of its own, which takes everything and keeps nothing.
struct Collector {
    runtime: tokio::runtime::Runtime,
    receiver: Receiver,
    endpoint: String,
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let bind = Receiver::builder()
            .http(SocketAddr::from(([127, 0, 0, 1], 0)))
            .bind(async |_received: Received| Ok(Accepted::default()));
        let receiver = runtime.block_on(bind).expect("a free port");
        let address = receiver.http_address().expect("bound");
        Self { runtime, receiver, endpoint: format!("http://{address}") }
    }

    /// Until the last client's connection is gone.
    fn wait_until_idle(&self) {
        let deadline = Instant::now() + LONG;
        while self.receiver.stats().connections_open > 0 {
            assert!(Instant::now() < deadline, "a connection is still open");
            self.runtime.block_on(tokio::task::yield_now());
        }
    }
}
