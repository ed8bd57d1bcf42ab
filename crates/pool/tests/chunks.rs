//! The guarantees of `lib.rs`, each as a test.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use spanwire_pool::{ChunkFull, ChunkPool, ChunkSettings};

fn settings(bytes_max: usize) -> ChunkSettings {
    ChunkSettings {
        initial_bytes: 64,
        growth_factor: 4,
        chunk_bytes: 1024,
        bytes_max,
        trim_threshold_bytes: 2048,
    }
}

#[test]
fn a_chunk_refuses_what_does_not_fit_and_keeps_what_it_has() {
    let pool = ChunkPool::new(settings(1 << 20));
    let mut writer = pool.take(0).expect("budget");
    writer.append(60, |bytes| bytes.fill(1)).expect("room");
    let refused = writer.append(5, |_| panic!("must not be called"));
    assert_eq!(refused, Err(ChunkFull));
    assert_eq!((writer.spans(), writer.room()), (1, 4));
}

#[test]
fn space_that_is_given_up_is_written_to_again() {
    let pool = ChunkPool::new(settings(1 << 20));
    let mut writer = pool.take(0).expect("budget");
    writer.space(5).expect("room").fill(7);
    let unwritten = |writer: &mut spanwire_pool::ChunkWriter| writer.space(5).expect("room")[0];
    assert_ne!(unwritten(&mut writer), 7, "what was there before, in a debug build");
    assert_eq!((writer.spans(), writer.chunk().pending(), writer.room()), (0, 0, 64));
    let mut space = writer.space(2).expect("room");
    space.copy_from_slice(b"ok");
    space.append();
    assert_eq!((writer.spans(), writer.room()), (1, 62));
    assert_eq!(writer.chunk().take().expect("one span").bytes, "ok");
    assert_eq!(writer.space(63).map(drop).err(), Some(ChunkFull));
}

/// Faults 127.
#[test]
fn a_span_whose_writing_panics_is_not_published() {
    let pool = ChunkPool::new(settings(1 << 20));
    let mut writer = pool.take(0).expect("budget");
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _unreachable = writer.append(5, |_| panic!("an encoder's defect"));
    }));
    assert!(unwound.is_err());
    assert!(writer.chunk().take().is_none());
    writer.append(2, |bytes| bytes.copy_from_slice(b"ok")).expect("room");
    assert_eq!(writer.chunk().take().expect("one span").bytes, "ok");
}

#[test]
fn memory_is_reused_only_after_the_last_bytes_are_gone() {
    let pool = ChunkPool::new(settings(64));
    let mut writer = pool.take(0).expect("budget");
    writer.append(3, |bytes| bytes.copy_from_slice(b"abc")).expect("room");
    let slice = writer.chunk().take().expect("a span");
    let tail = slice.bytes.slice(1..);
    drop((writer, slice));
    assert!(pool.take(0).is_none(), "`tail` still holds the only chunk");
    assert_eq!(tail, "bc");
    drop(tail);
    assert_eq!(pool.idle_bytes(), 64);
    let reused = pool.take(0).expect("idle");
    assert_eq!((reused.spans(), reused.room()), (0, 64));
}

#[test]
fn idle_chunks_of_another_size_make_room_in_an_exhausted_budget() {
    let pool = ChunkPool::new(settings(1024));
    drop([pool.take(0), pool.take(1)]);
    assert_eq!(pool.idle_bytes(), 64 + 256);
    assert!(pool.take(2).is_some(), "1024 bytes, once the idle ones are freed");
    assert_eq!(pool.budget().used(), 1024);
}

#[test]
fn idle_memory_stays_under_the_trim_threshold_for_each_size() {
    let pool = ChunkPool::new(settings(1 << 20));
    let writers: Vec<_> = (0..10).map(|_| pool.take(9).expect("budget")).collect();
    drop(writers);
    assert_eq!(pool.idle_bytes(), 2048);
    assert_eq!(pool.budget().used(), 2048);
}

#[test]
fn with_no_room_for_the_size_wanted_a_smaller_chunk_is_taken_that_holds_what_it_must() {
    let pool = ChunkPool::new(settings(1024 + 256 + 64));
    let sizes = |bytes| {
        let chunks = std::iter::from_fn(|| pool.take_for(bytes, usize::MAX));
        chunks.collect::<Vec<_>>().iter().map(|chunk| chunk.room()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(10), [1024, 256, 64]);
    assert_eq!(sizes(65), [1024, 256]);
    let size = |bytes, preferred| pool.take_for(bytes, preferred).map(|chunk| chunk.room());
    assert_eq!([size(10, 300), size(10, 256), size(10, 1)], [Some(256), Some(256), Some(64)]);
    assert_eq!([size(100, 1), size(1000, 1), size(1100, 1)], [Some(256), Some(1024), Some(1100)]);
}

#[test]
fn a_chunk_of_exact_size_is_freed_after_use() {
    let pool = ChunkPool::new(settings(10_000));
    let mut writer = pool.take_for(5_000, 64).expect("budget");
    writer.append(5_000, |bytes| bytes.fill(7)).expect("it is exact");
    assert_eq!(pool.budget().used(), 5_000);
    drop(writer);
    assert_eq!((pool.budget().used(), pool.idle_bytes()), (0, 0));
}

#[test]
fn buffers_outlive_their_pool() {
    let pool = ChunkPool::new(settings(64));
    let mut writer = pool.take(0).expect("budget");
    drop(pool);
    writer.append(1, |bytes| bytes.fill(9)).expect("room");
    assert_eq!(writer.chunk().take().expect("a span").bytes, [9u8][..]);
}

#[test]
fn readers_on_many_threads_take_each_span_exactly_once_while_it_is_written() {
    const SPANS: usize = 20_000;
    let pool = ChunkPool::new(ChunkSettings {
        initial_bytes: SPANS * 4,
        chunk_bytes: SPANS * 4,
        ..ChunkSettings::default()
    });
    let mut writer = pool.take(0).expect("budget");
    let taken = AtomicUsize::new(0);
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let reader = writer.chunk();
            let (taken, sum) = (&taken, &sum);
            scope.spawn(move || {
                while taken.load(Ordering::Relaxed) < SPANS {
                    let Some(slice) = reader.take() else {
                        std::thread::yield_now();
                        continue;
                    };
                    assert_eq!(slice.bytes.len(), slice.spans * 4);
                    let numbers = slice.bytes.chunks_exact(4).map(|bytes| {
                        u32::from_le_bytes(bytes.try_into().expect("chunks of 4")) as usize
                    });
                    sum.fetch_add(numbers.sum(), Ordering::Relaxed);
                    taken.fetch_add(slice.spans, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(move || {
            for number in 0..SPANS as u32 {
                writer
                    .append(4, |bytes| bytes.copy_from_slice(&number.to_le_bytes()))
                    .expect("room");
            }
        });
    });
    assert_eq!(taken.into_inner(), SPANS);
    assert_eq!(sum.into_inner(), SPANS * (SPANS - 1) / 2);
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>),
    Take,
    Discard,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Append),
        2 => Just(Step::Take),
        1 => Just(Step::Discard),
    ]
}

proptest! {
    #[test]
    fn every_span_leaves_once_in_order_or_is_counted_as_discarded(steps in prop::collection::vec(step(), 0..60)) {
        let pool = ChunkPool::new(settings(1 << 20));
        let mut writer = pool.take(2).expect("budget");
        let chunk = writer.chunk();
        let mut waiting: Vec<Vec<u8>> = Vec::new();
        let mut held: Vec<(Bytes, Vec<u8>)> = Vec::new();
        for step in steps {
            match step {
                Step::Append(span) => {
                    let room = writer.room();
                    let result = writer.append(span.len(), |bytes| bytes.copy_from_slice(&span));
                    prop_assert_eq!(result.is_ok(), span.len() <= room);
                    if result.is_ok() {
                        waiting.push(span);
                    }
                }
                Step::Take => match chunk.take() {
                    Some(slice) => {
                        prop_assert_eq!(slice.spans, waiting.len());
                        held.push((slice.bytes, waiting.concat()));
                        waiting.clear();
                    }
                    None => prop_assert!(waiting.is_empty()),
                },
                Step::Discard => {
                    prop_assert_eq!(chunk.discard(), waiting.len());
                    waiting.clear();
                }
            }
            prop_assert_eq!(chunk.pending(), waiting.len());
        }
        // What was taken stays what it was, however much was appended since.
        for (bytes, expected) in held {
            prop_assert_eq!(&bytes[..], &expected[..]);
        }
    }
}
