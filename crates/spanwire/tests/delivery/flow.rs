//! The way of spans as it should be, and each end of it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spanwire::{
    BatchConfig, BuildError, Client, Compression, InContext, Overflow, Protocol, Reason, Sampler,
    Status,
};
use spanwire_codec::view::Request;
use spanwire_receiver::{Accepted, Refusal};

use crate::support::{Collector, LONG, PROTOCOLS, SECOND, assert_balanced, black_hole, client};

fn small_memory(overflow: Overflow) -> BatchConfig {
    BatchConfig {
        memory_bytes_max: 1 << 20,
        age_max: Duration::from_millis(20),
        overflow,
        ..BatchConfig::default()
    }
}

#[test]
fn spans_of_many_threads_arrive_once_each_over_every_protocol_and_compression() {
    const THREADS: usize = 8;
    const SPANS: usize = 500;
    // Brotli is not among what the receiver takes; the transport's own tests have it.
    let compressions = [Compression::None, Compression::Gzip, Compression::Zstd];
    for protocol in PROTOCOLS {
        for compression in compressions {
            let collector = Collector::start();
            let client =
                collector.client(protocol).compression(compression).build().expect("valid");
            let tracer = client.tracer("threads");
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let tracer = tracer.clone();
                    std::thread::spawn(move || {
                        for span in 0..SPANS {
                            let mut span = tracer.start(&format!("{thread}/{span}"));
                            span.set_attribute("thread", thread as i64);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
            let report = client.flush_blocking(LONG);
            assert!(report.complete, "{protocol:?} {compression:?}: {report} {:?}", client.stats());
            let exported = client.stats().exported; // some were on their way before the flush
            assert_eq!(exported, (THREADS * SPANS) as u64, "{protocol:?} {compression:?}");
            let names = collector.names();
            assert_eq!(names.len(), THREADS * SPANS);
            assert!(names.values().all(|&times| times == 1));
            assert_balanced(&client);
        }
    }
}

#[test]
fn a_nested_request_keeps_its_structure_across_threads_and_tasks() {
    let collector = Collector::start();
    let client = collector.client(Protocol::Grpc).build().expect("valid");
    let tracer = client.tracer("nesting");
    let root = tracer.start("root");
    let context = root.as_current();
    std::thread::spawn({
        let (tracer, context) = (tracer.clone(), context.clone());
        move || {
            let _attached = context.attach();
            tracer.start("on a thread").end();
        }
    })
    .join()
    .expect("no panic");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let task = runtime.spawn({
        let tracer = tracer.clone();
        let span = tracer.span("task").parent(root.context()).start();
        async move {
            tokio::task::yield_now().await;
            tracer.start("in the task").end();
        }
        .in_span(span)
    });
    runtime.block_on(task).expect("no panic");
    let trace_id = root.context().trace_id;
    root.end();
    assert!(client.flush_blocking(LONG).complete);

    let mut parents = Vec::new();
    for request in collector.requests() {
        for resource in Request::parse(&request).expect("valid").resource_spans() {
            for span in resource.scope_spans().flat_map(|scope| scope.spans()) {
                assert_eq!(span.trace_id(), Some(trace_id.to_bytes()));
                let name = String::from_utf8_lossy(span.name()).into_owned();
                parents.push((name, span.span_id(), span.parent_span_id()));
            }
        }
    }
    let id = |name: &str| parents.iter().find(|span| span.0 == name).expect("arrived").1;
    let parent = |name: &str| parents.iter().find(|span| span.0 == name).expect("arrived").2;
    assert_eq!(parents.len(), 4);
    assert_eq!(parent("root"), None);
    assert_eq!(parent("on a thread"), id("root"));
    assert_eq!(parent("task"), id("root"));
    assert_eq!(parent("in the task"), id("task"));
    assert_balanced(&client);
}

/// Faults 96, 119.
#[test]
fn what_waits_while_the_receiver_is_away_arrives_when_it_is_back() {
    let collector = Collector::start();
    let batch = BatchConfig { age_max: Duration::from_millis(20), ..BatchConfig::default() };
    let client = collector.client(Protocol::Grpc).batch(batch).build().expect("valid");
    let tracer = client.tracer("outage");
    for span in 0..1_000 {
        tracer.start(&format!("before {span}")).end();
    }
    assert!(client.flush_blocking(LONG).complete);
    let stopped = collector.stop();
    for span in 0..1_000 {
        tracer.start(&format!("during {span}")).end();
    }
    let report = client.flush_blocking(Duration::from_millis(200));
    assert!(!report.complete && report.pending == 1_000, "{report}");
    assert_balanced(&client);
    let collector = stopped.restart();
    for span in 0..1_000 {
        tracer.start(&format!("after {span}")).end();
    }
    let report = client.flush_blocking(LONG);
    assert!(report.complete && report.pending == 0, "{report}: {:?}", client.stats());
    let names = collector.names();
    assert_eq!(names.len(), 3_000);
    let stats = client.stats();
    assert_eq!((stats.exported, stats.dropped.total()), (3_000, 0));
    assert!(stats.failures > 0 && stats.last_error.is_some());
    assert_balanced(&client);
}

/// Faults 96, 126, 137, 142.
#[test]
fn with_the_receiver_away_every_policy_bounds_memory_and_accounts_for_each_span() {
    const THREADS: u64 = 4;
    const SPANS: u64 = 10_000; // 4 MiB and more, four times what there is
    let block = Overflow::Block { timeout: Duration::from_millis(100) };
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, block] {
        let (_listener, endpoint) = black_hole();
        let config = small_memory(overflow);
        let client = client(&endpoint).batch(config).build().expect("valid");
        let tracer = client.tracer("away");
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let tracer = tracer.clone();
                std::thread::spawn(move || {
                    for _ in 0..SPANS {
                        let mut span = tracer.start("a span of about one hundred bytes");
                        span.set_attribute("an.attribute", "to make it a little longer");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let stats = client.stats();
        assert_eq!(stats.started, THREADS * SPANS);
        assert!(stats.dropped.by(Reason::QueueFull) > 0, "{overflow:?}: {stats}");
        assert!(stats.pending.total() > 0, "{overflow:?}: {stats}");
        assert_balanced(&client);

        let before = Instant::now();
        let report = client.shutdown_blocking(Duration::from_millis(100));
        assert!(before.elapsed() < 5 * SECOND, "the deadline holds");
        assert!(!report.complete, "{report}");
        let stats = client.stats();
        assert_eq!(stats.dropped.total(), THREADS * SPANS, "{overflow:?}: {stats}");
        assert_eq!(stats.pending.total(), 0, "{overflow:?}: {stats}");
        assert_balanced(&client);
    }
}

#[test]
fn blocking_loses_nothing_of_a_burst_far_larger_than_the_memory() {
    const SPANS: u64 = 50_000;
    let collector = Collector::start();
    let config = small_memory(Overflow::Block { timeout: LONG });
    let client = collector.client(Protocol::Grpc).batch(config).build().expect("valid");
    let tracer = client.tracer("burst");
    for _ in 0..SPANS {
        let mut span = tracer.start("a span of about one hundred bytes");
        span.set_attribute("an.attribute", "to make it a little longer");
    }
    let report = client.flush_blocking(LONG);
    assert!(report.complete, "{report}");
    let stats = client.stats();
    assert_eq!((stats.exported, stats.dropped.total()), (SPANS, 0), "{stats}");
    assert_eq!(collector.names().values().sum::<usize>() as u64, SPANS);
    assert_balanced(&client);
}

#[test]
fn a_batch_that_memory_does_not_let_grow_is_sent_without_waiting_for_its_age() {
    const SPANS: u64 = 20_000;
    let collector = Collector::start();
    let age_max = Duration::from_secs(3600);
    let overflow = Overflow::Block { timeout: LONG };
    let config = BatchConfig { age_max, ..small_memory(overflow) };
    let client = collector.client(Protocol::Grpc).batch(config).build().expect("valid");
    let tracer = client.tracer("memory");
    for _ in 0..SPANS {
        let mut span = tracer.start("a span of about one hundred bytes");
        span.set_attribute("an.attribute", "to make it a little longer");
    }
    assert!(client.flush_blocking(LONG).complete);
    assert_eq!(client.stats().exported, SPANS);
    assert_balanced(&client);
}

#[test]
fn what_ended_before_a_flush_or_shutdown_is_part_of_it_whatever_other_threads_do() {
    let collector = Collector::start();
    for round in 0..20 {
        let client = collector.client(Protocol::Grpc).build().expect("valid");
        let tracer = client.tracer("busy");
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (tracer, stop, ended) = (tracer.clone(), stop.clone(), ended.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        tracer.start("busy").end();
                        ended.fetch_add(1, Ordering::Release);
                    }
                })
            })
            .collect();
        while ended.load(Ordering::Acquire) < 500 {
            std::thread::yield_now();
        }
        let before = ended.load(Ordering::Acquire);
        let report = match round % 2 {
            0 => client.flush_blocking(LONG),
            _ => client.shutdown_blocking(LONG),
        };
        let exported = client.stats().exported;
        stop.store(true, Ordering::Relaxed);
        assert!(report.complete, "{report}");
        assert!(exported >= before, "{before} had ended, {exported} were exported");
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert!(client.shutdown_blocking(LONG).complete);
        assert_balanced(&client);
    }
}

#[test]
fn a_flush_completes_while_threads_wait_for_room_without_end() {
    let collector = Collector::start();
    let config = small_memory(Overflow::Block { timeout: LONG });
    let client = collector.client(Protocol::HttpJson).batch(config).build().expect("valid");
    let tracer = client.tracer("pressure");
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (tracer, stop) = (tracer.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    tracer.start("pressure").end();
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let report = client.flush_blocking(LONG);
        assert!(report.complete, "{report}");
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert!(client.shutdown_blocking(LONG).complete);
    assert_eq!(client.stats().dropped.total(), 0, "{}", client.stats());
    assert_balanced(&client);
}

/// Faults 132.
#[test]
fn settings_that_cannot_work_are_an_error_within_a_runtime_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let refused = Client::builder().endpoint("no URL at all").build();
        assert!(matches!(refused, Err(BuildError::Transport(_))), "{refused:?}");
        let batch = BatchConfig { memory_bytes_max: 1 << 16, ..BatchConfig::default() };
        let refused = Client::builder().batch(batch).build();
        assert!(matches!(refused, Err(BuildError::TooLittleMemory { .. })), "{refused:?}");
        let refused = Client::builder().requests_in_flight_max(0).build();
        assert!(matches!(refused, Err(BuildError::NoRequests)), "{refused:?}");
    });
}

/// Faults 131.
#[test]
fn deadlines_hold_while_another_caller_waits_for_a_dead_endpoint() {
    let (_listener, endpoint) = black_hole();
    let client = client(&endpoint).build().expect("valid");
    client.tracer("deadline").start("undeliverable").end();
    let patient = client.clone();
    let patient = std::thread::spawn(move || patient.shutdown_blocking(3 * SECOND));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let before = Instant::now();
    let report = runtime.block_on(client.flush(Duration::from_millis(100)));
    assert!(before.elapsed() < 2 * SECOND, "the flush waited for the shutdown");
    assert!(!report.complete);
    assert!(!patient.join().expect("no panic").complete);
    assert_balanced(&client);
}

#[test]
fn endless_deadlines_are_no_deadlines() {
    let collector = Collector::start();
    let batch = BatchConfig { age_max: Duration::MAX, ..BatchConfig::default() };
    let client = collector.client(Protocol::Grpc).batch(batch).build().expect("valid");
    client.tracer("endless").start("span").end();
    assert!(client.flush_blocking(Duration::MAX).complete);
    assert!(client.shutdown_blocking(Duration::MAX).complete);
    assert_eq!(collector.names()["span"], 1);
}

#[test]
fn a_span_larger_than_the_queue_does_not_silence_its_thread() {
    let collector = Collector::start();
    let config = small_memory(Overflow::DropNewest);
    let client = collector.client(Protocol::Grpc).batch(config).build().expect("valid");
    let tracer = client.tracer("huge");
    tracer.start("huge").set_attribute("text", "x".repeat(700 << 10));
    assert!(client.flush_blocking(LONG).complete);
    tracer.start("after").end();
    assert!(client.flush_blocking(LONG).complete);
    assert_eq!(collector.names().len(), 2, "{}", client.stats());
    assert_balanced(&client);
}

/// Faults 100.
#[test]
fn a_partial_success_counts_what_was_rejected_and_is_not_repeated() {
    let collector = Collector::start_with(|received| {
        Ok(Accepted { rejected_spans: received.spans as u64 / 10, message: "too old".into() })
    });
    for protocol in PROTOCOLS {
        let client = collector.client(protocol).build().expect("valid");
        let tracer = client.tracer("partial");
        (0..100).for_each(|_| tracer.start("one of a hundred").end());
        let report = client.flush_blocking(LONG);
        assert_eq!((report.exported, report.rejected), (90, 10), "{protocol:?}: {report}");
        let stats = client.stats();
        assert_eq!(stats.requests, 1);
        assert!(stats.last_error.is_some_and(|said| said.contains("too old")));
        assert_balanced(&client);
    }
}

/// Faults 104.
#[test]
fn a_refusal_for_good_drops_the_batch_and_says_why() {
    let collector =
        Collector::start_with(|_| Err(Refusal::Invalid { message: "no such tenant".into() }));
    for protocol in PROTOCOLS {
        let client = collector.client(protocol).build().expect("valid");
        client.tracer("refused").start("unwanted").end();
        let report = client.flush_blocking(LONG);
        assert!(report.complete && report.dropped == 1, "{protocol:?}: {report}");
        let stats = client.stats();
        assert_eq!(stats.dropped.by(Reason::Refused), 1);
        assert!(
            stats.last_error.as_deref().is_some_and(|e| e.contains("no such tenant")),
            "{stats:?}"
        );
        assert_balanced(&client);
    }
}

/// Faults 105.
#[test]
fn a_throttled_batch_is_sent_again_until_it_is_taken() {
    let attempts = AtomicUsize::new(0);
    let collector =
        Collector::start_with(move |_| match attempts.fetch_add(1, Ordering::Relaxed) {
            0..3 => Err(Refusal::Unavailable { retry_after: None }),
            _ => Ok(Accepted::default()),
        });
    let client = collector.client(Protocol::HttpProtobuf).build().expect("valid");
    client.tracer("throttled").start("wanted").end();
    let report = client.flush_blocking(LONG);
    assert!(report.complete && report.exported == 1, "{report}");
    assert_eq!(client.stats().failures, 3);
    assert_eq!(collector.names().len(), 1);
    assert_balanced(&client);
}

/// Faults 106, 109. A collector that asks for quiet gets it from all batches, those too that waited
/// for their turn when it asked.
#[test]
fn while_the_collector_wants_quiet_no_batch_is_sent() {
    const QUIET: Duration = Duration::from_secs(1);
    let asked_at = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&asked_at);
    let collector = Collector::start_with(move |_| {
        let mut asked_at = seen.lock().expect("no panic");
        match *asked_at {
            None => {
                *asked_at = Some(Instant::now());
                Err(Refusal::Unavailable { retry_after: Some(QUIET) })
            }
            Some(at) if at.elapsed() < QUIET => {
                Err(Refusal::Invalid { message: "it was to be quiet".into() })
            }
            Some(_) => Ok(Accepted::default()),
        }
    });
    for protocol in PROTOCOLS {
        *asked_at.lock().expect("no panic") = None;
        let batch = BatchConfig { spans_max: 10, ..BatchConfig::default() };
        let client = collector.client(protocol).requests_in_flight_max(1).batch(batch);
        let client = client.build().expect("valid");
        let tracer = client.tracer("throttled");
        (0..100).for_each(|_| tracer.start("one of ten batches").end());
        let report = client.flush_blocking(LONG);
        assert!(report.complete && report.dropped == 0, "{protocol:?}: {report}");
        assert_eq!(client.stats().exported, 100);
        assert_balanced(&client);
    }
}

/// Faults 135.
#[test]
fn a_thread_that_ends_leaves_its_spans_behind_and_no_memory() {
    let collector = Collector::start();
    let client = collector.client(Protocol::Grpc).build().expect("valid");
    let tracer = client.tracer("short");
    for thread in 0..1_000 {
        let tracer = tracer.clone();
        std::thread::spawn(move || tracer.start(&format!("{thread}")).end()).join().expect("ends");
    }
    assert_eq!(client.stats().pending.in_chunks, 0, "the threads are gone");
    assert!(client.flush_blocking(LONG).complete);
    assert_eq!(collector.names().len(), 1_000);
    assert_balanced(&client);
}

/// Faults 2.
#[test]
fn spans_that_are_not_sampled_never_travel() {
    let collector = Collector::start();
    let client =
        collector.client(Protocol::Grpc).sampler(Sampler::AlwaysOff).build().expect("valid");
    let tracer = client.tracer("off");
    let mut span = tracer.start("not sampled");
    span.set_attribute("kept", false);
    assert!(!span.is_recording() && !span.context().is_sampled());
    span.end();
    assert!(client.flush_blocking(LONG).complete);
    assert_eq!(client.stats().started, 0);
    assert!(collector.requests().is_empty(), "no empty envelope either");
}

/// Faults 129, 131.
#[test]
fn flush_and_shutdown_work_from_everywhere_and_twice() {
    let collector = Collector::start();
    let record = |client: &Client| {
        let mut span = client.tracer("anywhere").start("span");
        span.set_status(Status::Ok);
    };
    // Without a runtime; a second shutdown finds nothing to do.
    let client = collector.client(Protocol::Grpc).build().expect("valid");
    record(&client);
    assert_eq!(client.shutdown_blocking(LONG).exported, 1);
    assert!(client.shutdown_blocking(LONG).complete);
    assert_balanced(&client);

    // Within a runtime of one thread, in both forms; the blocking one blocks that thread only.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("without timers");
    runtime.block_on(async {
        let client = collector.client(Protocol::Grpc).build().expect("valid");
        record(&client);
        assert_eq!(client.flush(LONG).await.exported, 1);
        record(&client);
        assert_eq!(client.flush_blocking(LONG).exported, 1);
        record(&client);
        assert_eq!(client.shutdown(LONG).await.exported, 1);
        assert!(client.shutdown(LONG).await.complete);
        assert_balanced(&client);
    });

    // By the last drop, within a runtime and while unwinding.
    runtime.block_on(async {
        let client = collector.client(Protocol::Grpc).build().expect("valid");
        record(&client);
    });
    let unwound = std::panic::catch_unwind(|| {
        let client = collector.client(Protocol::Grpc).build().expect("valid");
        record(&client);
        std::panic::resume_unwind(Box::new("the application's own"));
    });
    assert!(unwound.is_err());
    assert_eq!(collector.names()["span"], 6);
}

/// Faults 141.
#[test]
fn a_span_that_ends_after_the_shutdown_is_lost_and_counted() {
    let collector = Collector::start();
    let client = collector.client(Protocol::Grpc).build().expect("valid");
    let tracer = client.tracer("late");
    let open = tracer.start("still open");
    assert!(client.shutdown_blocking(LONG).complete);
    assert_eq!(client.stats().pending.live, 1);
    open.end();
    let late = tracer.start("too late");
    assert!(!late.is_recording() && !late.context().is_sampled());
    let stats = client.stats();
    assert_eq!((stats.pending.live, stats.dropped.by(Reason::Shutdown)), (0, 1));
    assert_balanced(&client);
}

#[test]
fn shutdown_returns_by_its_deadline_with_an_endpoint_that_never_answers() {
    let (_listener, endpoint) = black_hole();
    for endpoint in [endpoint.as_str(), "http://127.0.0.1:1"] {
        let client = client(endpoint).build().expect("valid");
        client.tracer("deadline").start("undeliverable").end();
        let before = Instant::now();
        let report = client.shutdown_blocking(Duration::from_millis(300));
        assert!(before.elapsed() < 2 * SECOND);
        assert!(!report.complete && report.dropped == 1, "{endpoint}: {report}");
        assert_balanced(&client);
    }
}

#[test]
fn many_tasks_share_one_client() {
    let collector = Collector::start();
    let client = collector.client(Protocol::HttpProtobuf).build().expect("valid");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let tasks: Vec<_> = (0..1_000)
            .map(|task| {
                let client = client.clone();
                tokio::spawn(async move {
                    let tracer = client.tracer("tasks");
                    let span = tracer.start(&format!("task {task}"));
                    tokio::task::yield_now().await;
                    span.end();
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        assert!(client.flush(LONG).await.complete);
    });
    assert_eq!(collector.names().len(), 1_000);
    assert_balanced(&client);
}

/// Pitfall 15.
#[test]
fn a_batch_that_waits_for_its_next_attempt_holds_up_no_other() {
    let collector = Collector::start_with(|received| {
        let request = Request::parse(&received.request).expect("the receiver checked it");
        let mut scopes = request.resource_spans().flat_map(|resource| resource.scope_spans());
        match scopes.any(|scope| scope.spans().any(|span| span.name() == b"unwelcome")) {
            true => Err(Refusal::Unavailable { retry_after: None }),
            false => Ok(Accepted::default()),
        }
    });
    for protocol in PROTOCOLS {
        let client = collector.client(protocol).requests_in_flight_max(1).build().expect("valid");
        let tracer = client.tracer("retry");
        tracer.start("unwelcome").end();
        assert!(!client.flush_blocking(Duration::from_millis(50)).complete);
        for _ in 0..10 {
            tracer.start("welcome").end();
            let report = client.flush_blocking(Duration::from_millis(200));
            assert!(!report.complete, "the first one still waits: {report}");
        }
        assert_eq!(client.stats().exported, 10, "{protocol:?}");
        assert!(!client.shutdown_blocking(Duration::from_millis(50)).complete);
        assert_balanced(&client);
    }
}
