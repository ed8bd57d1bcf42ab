//! The client inside somebody's process: callers of every kind, and code of theirs that panics.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use spanwire::{BatchConfig, Client, Diagnostics, Overflow, Protocol, Reason};
use spanwire_receiver::{Accepted, Refusal};
use tokio::runtime::Builder as Runtimes;
use tokio::task::LocalSet;

use crate::support::{Collector, LONG, SECOND, assert_balanced, black_hole, client};

fn record(client: &Client) {
    client.tracer("host").start("span").end();
}

/// Faults 128. Pitfall 11.
#[test]
fn a_callback_that_panics_loses_its_batch_counted_and_the_next_one_arrives() {
    let answers = AtomicUsize::new(0);
    let collector = Collector::start_with(move |_| match answers.fetch_add(1, Ordering::Relaxed) {
        0 => Err(Refusal::Unavailable { retry_after: None }),
        _ => Ok(Accepted::default()),
    });
    let client = collector.client(Protocol::Grpc).retry_if(|_| panic!("the application's own"));
    let client =
        client.diagnostics(Diagnostics::to(|_| panic!("and this one too"))).build().expect("valid");
    record(&client);
    let report = client.flush_blocking(LONG);
    assert!(report.complete && report.dropped == 1, "{report}");
    assert_eq!(client.stats().dropped.by(Reason::Internal), 1);
    record(&client);
    let report = client.flush_blocking(LONG);
    assert!(report.complete && report.exported == 1, "{report}");
    assert_balanced(&client);
}

/// Faults 131, 132: each place to call from, with each kind of endpoint that gives no answer.
#[test]
fn flush_and_shutdown_return_by_their_deadline_from_everywhere_with_dead_endpoints() {
    const WITHIN: Duration = Duration::from_millis(150);
    let (_listener, silent) = black_hole();
    let refused = "http://127.0.0.1:1".to_owned();
    let unknown = "http://no-such-host.invalid:4317".to_owned();
    let timed = |place: &str, endpoint: &str, call: &dyn Fn(&Client)| {
        let client = client(endpoint).drop_timeout(WITHIN).build().expect("valid");
        record(&client);
        let before = Instant::now();
        call(&client);
        let took = before.elapsed();
        assert!(took < SECOND, "{place}, {endpoint}: {took:?}");
        drop(client);
        assert!(before.elapsed() < took + SECOND, "{place}, {endpoint}: drop took too long");
    };
    let incomplete = |report: spanwire::Report| assert!(!report.complete, "{report}");
    for endpoint in [&silent, &refused, &unknown] {
        timed("without a runtime", endpoint, &|client| {
            incomplete(client.flush_blocking(WITHIN));
            incomplete(client.shutdown_blocking(WITHIN));
        });
        timed("from async code on one thread", endpoint, &|client| {
            let runtime = Runtimes::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                incomplete(client.flush(WITHIN).await);
                incomplete(client.shutdown(WITHIN).await);
            });
        });
        timed("blocking within a runtime of one thread", endpoint, &|client| {
            let runtime = Runtimes::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                incomplete(client.flush_blocking(WITHIN));
                incomplete(client.shutdown_blocking(WITHIN));
            });
        });
        timed("on a runtime with a single worker", endpoint, &|client| {
            let runtime =
                Runtimes::new_multi_thread().worker_threads(1).build().expect("a runtime");
            let client = client.clone();
            let task = runtime.spawn(async move {
                incomplete(client.flush_blocking(WITHIN));
                incomplete(client.shutdown(WITHIN).await);
            });
            runtime.block_on(task).expect("no panic");
        });
        timed("from a local set", endpoint, &|client| {
            let runtime = Runtimes::new_current_thread().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async {
                incomplete(client.flush(WITHIN).await);
            });
        });
        timed("twice and at once", endpoint, &|client| {
            let barrier = Arc::new(Barrier::new(8));
            let calls: Vec<_> = (0..8)
                .map(|call| {
                    let (client, barrier) = (client.clone(), Arc::clone(&barrier));
                    std::thread::spawn(move || {
                        barrier.wait();
                        match call % 2 {
                            0 => client.flush_blocking(WITHIN),
                            _ => client.shutdown_blocking(WITHIN),
                        }
                    })
                })
                .collect();
            // One that comes after the first shutdown is over finds nothing left to do.
            for call in calls {
                let _report = call.join().expect("no panic");
            }
            assert_eq!(client.stats().dropped.total(), 1);
        });
        timed("by the drop", endpoint, &|_| {});
        timed("while unwinding", endpoint, &|client| {
            let client = client.clone();
            let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                struct Last(Client);
                impl Drop for Last {
                    fn drop(&mut self) {
                        assert!(!self.0.flush_blocking(WITHIN).complete);
                    }
                }
                let _last = Last(client);
                std::panic::resume_unwind(Box::new("the application's own"));
            }));
            assert!(unwound.is_err());
        });
    }
}

/// Faults 132: made in a runtime that is gone by the time it is used in another.
#[test]
fn a_client_outlives_the_runtime_it_was_made_in() {
    let collector = Collector::start();
    let runtime = || Runtimes::new_current_thread().build().expect("a runtime");
    let client = {
        let gone = runtime();
        gone.block_on(async { collector.client(Protocol::HttpProtobuf).build().expect("valid") })
    };
    runtime().block_on(async {
        record(&client);
        assert_eq!(client.flush(LONG).await.exported, 1);
    });
    assert_eq!(client.shutdown_blocking(LONG).dropped, 0);
    assert_balanced(&client);
}

/// Faults 141.
#[test]
fn after_the_shutdown_every_call_returns_at_once_and_says_so() {
    let collector = Collector::start();
    let client = collector.client(Protocol::Grpc).build().expect("valid");
    record(&client);
    assert!(client.shutdown_blocking(LONG).complete);
    record(&client);
    let before = Instant::now();
    assert!(client.flush_blocking(LONG).complete);
    assert!(client.shutdown_blocking(LONG).complete);
    assert!(before.elapsed() < SECOND);
    assert_eq!((client.stats().exported, collector.names().len()), (1, 1));
    assert_balanced(&client);
}

/// What `OTEL_BSP_MAX_QUEUE_SIZE` bounds.
#[test]
fn a_queue_bounded_in_spans_holds_no_more_whatever_the_policy() {
    let (_listener, endpoint) = black_hole();
    let block = Overflow::Block { timeout: Duration::from_millis(20) };
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, block] {
        let batch = BatchConfig {
            queue_spans_max: Some(2_000),
            spans_max: 500,
            memory_bytes_max: 4 << 20,
            overflow,
            ..BatchConfig::default()
        };
        let client = client(&endpoint).batch(batch).build().expect("valid");
        let tracer = client.tracer("bounded");
        for _ in 0..50_000 {
            tracer.start("a span of about one hundred bytes").end();
            assert!(client.stats().pending.queued <= 2_000 + 600, "{overflow:?}");
        }
        assert!(client.stats().dropped.by(Reason::QueueFull) > 0, "{overflow:?}");
        assert_balanced(&client);
        assert!(!client.shutdown_blocking(Duration::from_millis(50)).complete);
        assert_balanced(&client);
    }
}

/// Half of it is the sign to take what waits: the bound is no limit to how many pass in a tick.
#[test]
fn through_a_queue_bounded_in_spans_many_times_as_many_pass_in_a_tick() {
    const SPANS: u64 = 20_000;
    let collector = Collector::start();
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Block { timeout: LONG }]
    {
        let batch =
            BatchConfig { queue_spans_max: Some(2_048), overflow, ..BatchConfig::default() };
        let client = collector.client(Protocol::Grpc).batch(batch).build().expect("valid");
        let tracer = client.tracer("bounded");
        for span in 0..SPANS {
            tracer.start("a span of about one hundred bytes").end();
            if span % 40 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let report = client.flush_blocking(LONG);
        assert!(report.complete, "{overflow:?}: {report}");
        assert_eq!(client.stats().exported, SPANS, "{overflow:?}: {}", client.stats());
        assert_balanced(&client);
    }
}

/// Faults 138.
#[test]
fn what_callbacks_record_on_the_exporter_s_own_thread_is_not_sent_in_turn() {
    let collector = Collector::start_with(|_| Err(Refusal::Unavailable { retry_after: None }));
    let own: Arc<std::sync::OnceLock<Client>> = Arc::default();
    let within = Arc::clone(&own);
    let client = collector.client(Protocol::Grpc).retry_if(move |_| {
        let tracer = within.get().expect("set before the first span").tracer("loop");
        assert!(!tracer.start("about sending").is_recording());
        true
    });
    let client = client.build().expect("valid");
    own.set(client.clone()).expect("once");
    record(&client);
    assert!(!client.flush_blocking(Duration::from_millis(300)).complete);
    let stats = client.stats();
    assert!(stats.failures > 1, "{stats:?}");
    assert_eq!((stats.started, stats.dropped.by(Reason::Internal)), (1, 0), "{stats}");
    assert!(!client.shutdown_blocking(Duration::from_millis(50)).complete);
    assert_balanced(&client);
}
