//! Memory for spans on their way: chunks of bytes, pooled objects, and the budget that bounds them.
//!
//! A [`ChunkWriter`] belongs to one thread, which appends encoded spans without a lock. Any other
//! thread may take the finished spans at any time through a [`Chunk`], without a copy and without
//! disturbing the writer. This crate decides when memory is reused and freed; it does not know what
//! a span looks like, starts no task and reads no clock.
//!
//! # Guarantees
//!
//! - Each span appended is taken exactly once, whole, in order.
//! - Bytes held by chunks, idle ones included, never exceed the budget.
//! - A chunk's memory is reused only after the writer and the last `Bytes` of it are gone.
//!
//! # Example
//!
//! ```
//! use spanwire_pool::{ChunkPool, ChunkSettings};
//!
//! let pool = ChunkPool::new(ChunkSettings { bytes_max: 4 << 10, ..Default::default() });
//! let mut writer = pool.take(0).expect("the first chunk fits");
//! assert!(pool.take(0).is_none(), "the budget is one chunk");
//!
//! let reader = writer.chunk();
//! let taker = std::thread::spawn(move || loop {
//!     if let Some(slice) = reader.take() {
//!         return slice.bytes;
//!     }
//! });
//! writer.append(5, |bytes| bytes.copy_from_slice(b"spans")).expect("room");
//! assert_eq!(taker.join().expect("taker"), "spans");
//! ```
//!
//! # Unsafe code
//!
//! `chunk.rs` shares a buffer between its writer and its readers. Why that is sound stands beside
//! each line; the protocol itself, two atomic words, is checked in every interleaving by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p spanwire-pool --lib --release ledger`.

mod budget;
mod chunk;
mod chunk_pool;
mod ledger;
mod object_pool;

pub use budget::{Budget, Reservation};
pub use chunk::{Chunk, ChunkFull, ChunkWriter, Slice, Space};
pub use chunk_pool::{ChunkPool, ChunkSettings};
pub use object_pool::{ObjectPool, Pooled, Reset};
