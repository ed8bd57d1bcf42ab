//! What a runtime with worker threads keeps to.

use std::fs;
use std::time::{Duration, Instant};

use spanwire_runtime::{Builder, InvalidSetting};
use tokio::runtime::Runtime;

fn on_worker<T: Send + 'static>(runtime: &Runtime, work: fn() -> T) -> T {
    runtime.block_on(async { tokio::spawn(async move { work() }).await.expect("no panic") })
}

fn on_blocking_thread<T: Send + 'static>(runtime: &Runtime, work: fn() -> T) -> T {
    runtime.block_on(async { tokio::task::spawn_blocking(work).await.expect("no panic") })
}

#[test]
fn there_are_as_many_workers_as_asked_for_and_by_default_as_may_run_at_once() {
    let workers = |builder: Builder| builder.build().expect("valid").metrics().num_workers();
    assert_eq!(workers(Builder::multi_thread().worker_threads(3)), 3);
    let processors = std::thread::available_parallelism().expect("known here").get();
    assert_eq!(workers(Builder::multi_thread()), processors);
}

#[test]
fn a_number_of_workers_that_cannot_work_is_an_error() {
    for threads in [0, 65_536] {
        let error = Builder::multi_thread().worker_threads(threads).build().expect_err("refused");
        let invalid = error.get_ref().and_then(|source| source.downcast_ref());
        assert_eq!(invalid, Some(&InvalidSetting::WorkerThreads { threads }));
    }
}

#[test]
fn the_current_thread_takes_no_notice_of_workers() {
    let runtime = Builder::current_thread().worker_threads(0).build().expect("valid");
    let worker = runtime.block_on(async {
        tokio::spawn(async { std::thread::current().id() }).await.expect("no panic")
    });
    assert_eq!(worker, std::thread::current().id());
}

#[test]
fn workers_and_blocking_threads_have_the_name() {
    let runtime = Builder::multi_thread().worker_threads(1).thread_name("spans").build();
    let runtime = runtime.expect("valid");
    let name = || std::thread::current().name().map(str::to_owned);
    assert_eq!(on_worker(&runtime, name).as_deref(), Some("spans"));
    assert_eq!(on_blocking_thread(&runtime, name).as_deref(), Some("spans"));
    // As the system shows it.
    #[cfg(target_os = "linux")]
    {
        let shown = || fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
        assert_eq!(on_worker(&runtime, shown), "spans\n");
    }
}

/// Size of the mapping that the calling thread's stack is in, without the guard beside it.
#[cfg(target_os = "linux")]
fn stack_bytes() -> usize {
    let local = 0_u8;
    let address = std::ptr::from_ref(&local).addr();
    let maps = fs::read_to_string("/proc/self/maps").expect("readable");
    let sizes = maps.lines().filter_map(|line| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (start..end).contains(&address).then_some(end - start)
    });
    sizes.sum()
}

#[cfg(target_os = "linux")]
#[test]
fn workers_and_blocking_threads_have_the_stack() {
    for bytes in [64 << 10, 128 << 10, 5 << 20] {
        let builder = Builder::multi_thread().worker_threads(1).stack_bytes(bytes);
        let runtime = builder.build().expect("valid");
        for found in [on_worker(&runtime, stack_bytes), on_blocking_thread(&runtime, stack_bytes)] {
            // The system may round up, and keeps the thread's own variables there.
            assert!((bytes..bytes + (64 << 10)).contains(&found), "{found} for {bytes}");
        }
    }
}

#[test]
fn an_idle_blocking_thread_goes_when_its_time_is_over() {
    // One thread, so that work never goes to another while this one is about to become idle.
    let builder = Builder::multi_thread().worker_threads(1).blocking_threads_max(1);
    let id = || std::thread::current().id();
    let kept = builder.clone().build().expect("valid");
    assert_eq!(on_blocking_thread(&kept, id), on_blocking_thread(&kept, id));

    let start = Instant::now();
    let ends = builder.blocking_keep_alive(Duration::ZERO).build().expect("valid");
    let first = on_blocking_thread(&ends, id);
    // Gone at once, or about to be; another follows it sooner or later.
    while on_blocking_thread(&ends, id) == first {
        assert!(start.elapsed() < Duration::from_secs(10), "as long as by default");
        std::thread::yield_now();
    }
}
