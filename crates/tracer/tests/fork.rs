//! A child of `fork` repeats nothing of its parent's and never waits for the parent's threads.
#![cfg(unix)]

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::trace::v1 as oracle;
use prost::Message;
use spanwire_model::{SpanContext, SpanId};
use spanwire_pool::{ChunkPool, ChunkSettings};
use spanwire_tracer::{Loss, Provider, Span, TracedChunk};

/// How long a child may take. None needs a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(10);

const TRACE_ID_BYTES: usize = 16;
const SPAN_ID_BYTES: usize = 8;

#[expect(unsafe_code, reason = "there is no safe fork")]
fn fork() -> libc::pid_t {
    // SAFETY: the child runs this crate's code and that of the allocator, which the C library keeps
    // whole over a fork, and leaves by `_exit`.
    unsafe { libc::fork() }
}

#[expect(unsafe_code, reason = "to leave a child without running its parent's destructors")]
fn exit_at_once(code: i32) -> ! {
    // SAFETY: takes a number and does not come back.
    unsafe { libc::_exit(code) }
}

#[expect(unsafe_code, reason = "a child that was forked has no `std::process::Child`")]
fn reap(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` lives for the whole call; `child` is a child of this process, not yet reaped.
    let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(reaped, child);
    status
}

#[expect(unsafe_code, reason = "a child that was forked has no `std::process::Child`")]
fn kill(child: libc::pid_t) {
    // SAFETY: takes numbers only; `child` is not reaped yet, so the number is nobody else's.
    unsafe { libc::kill(child, libc::SIGKILL) };
}

/// What `work` returns in a forked child.
///
/// Panics when the child does, and when it takes longer than [`PATIENCE`].
fn in_child(work: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let child = fork();
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        let worked = catch_unwind(AssertUnwindSafe(work));
        let failed = worked.is_err();
        // What a child prints nobody shows.
        let bytes = worked.unwrap_or_else(|panic| match panic.downcast::<String>() {
            Ok(message) => message.into_bytes(),
            Err(panic) => panic.downcast::<&str>().map_or("?", |text| *text).into(),
        });
        let written = File::from(OwnedFd::from(writer)).write_all(&bytes);
        exit_at_once(i32::from(failed || written.is_err()));
    }
    drop(writer);
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = File::from(OwnedFd::from(reader)).read_to_end(&mut bytes);
        sender.send(read.map(|_| bytes)).expect("waited for");
    });
    // Another test's child may have this pipe open too; then its end comes with that one's.
    let bytes = received.recv_timeout(PATIENCE);
    if bytes.is_err() {
        kill(child);
    }
    let status = reap(child);
    let bytes = bytes.expect("the child hangs").expect("readable");
    assert_eq!(status, 0, "{}", String::from_utf8_lossy(&bytes));
    bytes
}

/// Times of day that all clocks here agree on.
fn unix_nano() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_nanos()).expect("before 2554")
}

/// Records a few spans with a new provider, checks that each arrives, and returns their ids.
fn record_anew() -> Vec<u8> {
    const SPANS: usize = 300;
    // Large enough for all of them in one, so that a sweep finds them.
    let pool = ChunkPool::new(ChunkSettings { initial_bytes: 64 << 10, ..Default::default() });
    let provider = Provider::builder().pool(pool).build(|_| Err(Loss::QueueFull));
    assert!(!provider.is_inherited());
    let tracer = provider.tracer("child");
    let before = unix_nano();
    let ids = |span: Span| {
        assert!(span.is_recording());
        let SpanContext { trace_id, span_id, .. } = span.context();
        [&trace_id.to_bytes()[..], &span_id.to_bytes()].concat()
    };
    let mut all: Vec<u8> = (0..SPANS / 2).flat_map(|_| ids(tracer.start("anew"))).collect();
    let elsewhere = tracer.clone();
    let others = thread::spawn(move || -> Vec<u8> {
        (SPANS / 2..SPANS).flat_map(|_| ids(elsewhere.start("anew"))).collect()
    });
    all.extend(others.join().expect("a child has threads too"));
    let after = unix_nano();

    let mut spans = Vec::new();
    let hand_overs = provider.sweep(|slice| {
        let decoded = oracle::ScopeSpans::decode(&slice.slice.bytes[..]);
        spans.extend(decoded.expect("whole spans").spans);
    });
    assert!(hand_overs.is_empty());
    assert_eq!(spans.len(), SPANS);
    // The clock's own precision.
    let slack = 1_000_000;
    for span in spans {
        assert!(before <= span.start_time_unix_nano + slack);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(span.end_time_unix_nano <= after + slack);
    }
    let stats = provider.stats();
    assert_eq!((stats.started(), stats.recorded(), stats.live()), (300, 300, 0));
    all
}

/// Does everything there is to do with what the parent left.
fn use_up(provider: Provider, open: Span) {
    assert!(provider.is_inherited());
    let tracer = provider.tracer("parent");
    assert!(!tracer.start("not recorded").is_recording());
    drop(open);
    let other = provider.tracer("asked for in the child");
    other.in_span("not recorded", |span| assert!(!span.is_recording()));
    assert!(provider.sweep(|_| panic!("the parent's span")).is_empty());
    provider.close();
    provider.abandon();
    let stats = provider.stats();
    assert_eq!((stats.started(), stats.recorded(), stats.in_chunks()), (0, 0, 0));
    assert_eq!(stats.lost(Loss::Shutdown), 0);
    drop((tracer, other, provider));
}

/// Faults 133.
#[test]
fn a_child_forked_while_threads_record_and_sweep_repeats_nothing_and_never_hangs() {
    const FORKS: usize = 60;
    const CHUNK_BYTES: usize = 2 << 10;

    // Small chunks, so that the locks and queues behind them are in use all the time.
    let pool = ChunkPool::new(ChunkSettings {
        initial_bytes: CHUNK_BYTES,
        chunk_bytes: CHUNK_BYTES,
        ..ChunkSettings::default()
    });
    let provider = Provider::builder().pool(pool).build(|chunk: TracedChunk| {
        drop(chunk.take());
        Ok(())
    });
    let done = AtomicBool::new(false);
    let mut children = Vec::new();
    let mut parents = HashSet::new();

    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let tracer = provider.tracer("parent");
                    (0..50).for_each(|_| tracer.start("recorded by the parent").end());
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                provider.sweep(drop);
                let _stats = provider.stats();
            }
        });
        let forked = catch_unwind(AssertUnwindSafe(|| {
            let tracer = provider.tracer("parent");
            for _ in 0..FORKS {
                tracer.start("before").end();
                let open = tracer.start("open");
                children.extend(in_child(|| {
                    use_up(provider.clone(), tracer.start("opened in the child"));
                    record_anew()
                }));
                let after = tracer.start("after");
                assert!(after.is_recording() && open.is_recording());
                parents.extend([open, after].map(|span| span.context().span_id));
            }
        }));
        done.store(true, Ordering::Relaxed);
        forked.expect("each child does as it should");
    });

    let mut trace_ids = HashSet::new();
    let mut span_ids = HashSet::new();
    for ids in children.chunks_exact(TRACE_ID_BYTES + SPAN_ID_BYTES) {
        let (trace_id, span_id) = ids.split_at(TRACE_ID_BYTES);
        assert!(trace_ids.insert(trace_id), "a trace id in two children");
        assert!(span_ids.insert(span_id), "a span id in two children");
        let span_id = SpanId::from_bytes(span_id.try_into().expect("8 bytes"));
        assert!(!parents.contains(&span_id.expect("not zero")), "one of the parent's ids");
    }
    assert_eq!(span_ids.len(), FORKS * 300);
    let stats = provider.stats();
    assert!(!provider.is_inherited());
    assert_eq!((stats.recorded(), stats.live()), (stats.started(), 0), "the parent goes on");
}

/// Faults 133.
#[test]
fn a_span_open_at_the_fork_is_ended_by_the_parent_and_discarded_by_the_child() {
    let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
    let tracer = provider.tracer("parent");
    tracer.start("ended before").end();
    let mut open = tracer.start("open");
    let seen_by_child = in_child(|| {
        open.set_attribute("set.by", "the child");
        open.add_event("in the child", []);
        open.end();
        let mut spans = 0;
        provider.sweep(|slice| spans += slice.slice.spans);
        vec![spans as u8]
    });
    assert_eq!(seen_by_child, [0]);
    // The parent's copy of what the child was given ended above.
    let mut names = Vec::new();
    provider.sweep(|slice| {
        let decoded = oracle::ScopeSpans::decode(&slice.slice.bytes[..]).expect("whole spans");
        names.extend(decoded.spans.into_iter().map(|span| (span.name, span.events.len())));
    });
    assert_eq!(names, [("ended before".into(), 0), ("open".into(), 0)]);
}

/// Faults 133.
#[test]
fn a_child_of_a_child_is_a_process_of_its_own() {
    let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
    let ids = in_child(|| {
        let childs = Provider::builder().build(|_| Err(Loss::QueueFull));
        let tracer = childs.tracer("child");
        let open = tracer.start("open");
        let mut ids = in_child(|| {
            assert!(provider.is_inherited() && childs.is_inherited());
            use_up(childs.clone(), open);
            record_anew()
        });
        assert!(tracer.start("goes on").is_recording());
        ids.extend(record_anew());
        ids
    });
    let ids: HashSet<_> = ids.chunks_exact(TRACE_ID_BYTES + SPAN_ID_BYTES).collect();
    assert_eq!(ids.len(), 600);
}

/// Faults 133.
#[test]
fn spans_of_a_child_belong_to_the_span_that_was_current_at_the_fork() {
    let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
    let span = provider.tracer("parent").start("forks");
    let _current = span.enter();
    let trace_ids = in_child(|| {
        let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
        let span = provider.tracer("child").start("in the child");
        span.context().trace_id.to_bytes().to_vec()
    });
    assert_eq!(trace_ids, span.context().trace_id.to_bytes());
}
