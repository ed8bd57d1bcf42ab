//! What recording stands on: the chunk that a thread shares with its readers, and the clock.

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use criterion::Criterion;
use spanwire_pool::{ChunkPool, ChunkSettings, ChunkWriter};

pub(crate) fn all(criterion: &mut Criterion) {
    chunk(criterion);
    clock(criterion);
}

/// A finished span of 200 bytes into its thread's chunk, from which another thread may take it at
/// any time: the pool's chunk beside the same thing in safe code.
fn chunk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk");
    let span = [7_u8; 200];
    let pool = ChunkPool::new(ChunkSettings::default());
    let next = || pool.take(usize::MAX).expect("one chunk is in use at a time");
    let mut writer = next();
    let append = |writer: &mut ChunkWriter| {
        writer.append(span.len(), |out| out.copy_from_slice(black_box(&span)))
    };
    group.bench_function("ChunkWriter", |b| {
        b.iter(|| {
            if append(&mut writer).is_err() {
                black_box(writer.chunk().take());
                writer = next();
                append(&mut writer).expect("an empty chunk has room");
            }
        });
    });

    let chunk_bytes = ChunkSettings::default().chunk_bytes;
    let shared = Mutex::new(Vec::with_capacity(chunk_bytes));
    group.bench_function("Mutex<Vec<u8>>", |b| {
        b.iter(|| {
            let mut bytes = black_box(&shared).lock().unwrap_or_else(PoisonError::into_inner);
            if bytes.len() + span.len() > chunk_bytes {
                black_box(&mut *bytes).clear();
            }
            bytes.extend_from_slice(black_box(&span));
        });
    });
    group.finish();
}

/// The two clock readings of a span.
fn clock(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clock");
    group.bench_function("time stamp counter, twice", |b| {
        b.iter(|| (fastant::Instant::now(), fastant::Instant::now()));
    });
    group.bench_function("Instant, twice", |b| b.iter(|| (Instant::now(), Instant::now())));
    group.bench_function("SystemTime, twice", |b| {
        b.iter(|| (SystemTime::now(), SystemTime::now()));
    });
    group.finish();
}
