//! What a runtime of the current thread keeps to.

use std::collections::HashSet;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Poll;

use spanwire_runtime::{Builder, InvalidSetting};

#[test]
fn settings_that_cannot_work_are_errors_that_name_them() {
    let builder = Builder::current_thread;
    let zero = |setting| InvalidSetting::Zero { setting };
    let cases = [
        (builder().blocking_threads_max(0), zero("blocking_threads_max")),
        (builder().event_interval(0), zero("event_interval")),
        (builder().global_queue_interval(0), zero("global_queue_interval")),
        (builder().stack_bytes((64 << 10) - 1), InvalidSetting::Stack { bytes: 65_535 }),
        (builder().stack_bytes(usize::MAX), InvalidSetting::Stack { bytes: usize::MAX }),
        (builder().thread_name("two\0names"), InvalidSetting::ThreadName),
    ];
    for (builder, expected) in cases {
        let error = builder.build().expect_err("it cannot work");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let invalid = error.get_ref().and_then(|source| source.downcast_ref());
        assert_eq!(invalid, Some(&expected));
    }
}

#[test]
fn work_beyond_the_blocking_threads_waits_for_one_of_them() {
    let runtime = Builder::current_thread().blocking_threads_max(2).build().expect("valid");
    let busy = Arc::new(Barrier::new(3));
    let occupied: Vec<_> = (0..2)
        .map(|_| {
            let busy = Arc::clone(&busy);
            runtime.spawn_blocking(move || {
                busy.wait();
                std::thread::current().id()
            })
        })
        .collect();
    // A third thread would be started for these while the first two are held.
    let waiting = (0..64).map(|_| runtime.spawn_blocking(|| std::thread::current().id()));
    let tasks: Vec<_> = occupied.into_iter().chain(waiting).collect();
    busy.wait();
    let mut threads = HashSet::new();
    runtime.block_on(async {
        for task in tasks {
            threads.insert(task.await.expect("no panic"));
        }
    });
    assert_eq!(threads.len(), 2);
}

/// Gives way once, to be polled again as soon as it is this future's turn.
async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A task that counts how often it runs, and never waits.
fn spin() -> Arc<AtomicU32> {
    let polls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&polls);
    tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            give_way().await;
        }
    });
    polls
}

#[test]
fn busy_tasks_run_as_often_as_the_event_interval_says_before_anything_else_is_looked_at() {
    for interval in [1, 7, 61, 1000] {
        let builder = Builder::current_thread().event_interval(interval);
        builder.build().expect("valid").block_on(async {
            let polls = spin();
            give_way().await;
            let before = polls.load(Ordering::Relaxed);
            give_way().await;
            assert_eq!(polls.load(Ordering::Relaxed) - before, interval);
        });
    }
}

#[test]
fn a_task_from_outside_waits_for_as_many_others_as_the_global_queue_interval_says() {
    // (interval, polls of another task that pass at least and at most)
    for (interval, least, most) in [(5, 0, 5), (1000, 900, 1000)] {
        let builder = Builder::current_thread().global_queue_interval(interval);
        let runtime = builder.build().expect("valid");
        let handle = runtime.handle().clone();
        let passed = runtime.block_on(async {
            let polls = spin();
            give_way().await;
            let before = polls.load(Ordering::Relaxed);
            let outside = std::thread::spawn(move || {
                handle.spawn(async move { polls.load(Ordering::Relaxed) - before })
            });
            outside.join().expect("no panic").await.expect("no panic")
        });
        assert!((least..=most).contains(&passed), "{passed} with an interval of {interval}");
    }
}
