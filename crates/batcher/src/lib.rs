//! Hands finished spans over between threads, sheds by policy when there are too many, and groups
//! them into batches bounded by count, bytes and age.
//!
//! ```text
//! many threads                                     one exporter thread
//! push(item, Overflow) ──> Queue<T> ──pop, drain──> Batcher<T> ──poll(now)──> Batch<T>
//!                          slots and held bytes     spans, wire bytes, age
//! ```
//!
//! What travels is generic: anything that can [`Weigh`] itself. In Spanwire an item is a chunk of
//! many encoded spans, so a limit that counted items would say nothing; every limit here is exact
//! in spans or in bytes.
//!
//! The crate only *decides*. It starts no task, does no I/O and knows no protocol; [`Batcher`] and
//! [`Adaptive`] read no clock either: the caller passes `now` in and sends what comes out, so tests
//! run in virtual time. The one exception is [`Overflow::Block`], which has to wait on a real one.
//!
//! # Guarantees
//!
//! - **Every span leaves once.** A span pushed into a [`Queue`] is popped, evicted or handed back
//!   exactly once, and [`QueueStats`] counts which; a span pushed into a [`Batcher`] leaves in
//!   exactly one [`Batch`], in push order. The batcher sheds nothing: that is the queue's decision.
//! - **The queue's bounds are never passed**, not even for an instant while threads race.
//! - **A batch stays within its [`Limits`]**, except that a span larger than `bytes_max` travels
//!   alone, for the sender to judge.
//! - **A dead consumer costs a blocking producer one timeout**, not one for each push.
//! - **Pushing and popping take no lock**, except where [`Overflow::Block`] has to wait.
//!
//! # Example
//!
//! A batch completes by size while spans come fast, and by age when they stop:
//!
//! ```
//! use std::time::{Duration, Instant};
//! use spanwire_batcher::{
//!     Batcher, Bounds, Complete, Limits, Overflow, Queue, Split, Strategy, Weigh,
//! };
//!
//! /// Encoded spans, one buffer each.
//! struct Chunk(Vec<Vec<u8>>);
//!
//! impl Weigh for Chunk {
//!     fn spans(&self) -> usize { self.0.len() }
//!     fn wire_bytes(&self) -> usize { self.0.iter().map(Vec::len).sum() }
//!     fn held_bytes(&self) -> usize { self.0.iter().map(Vec::capacity).sum() }
//! }
//!
//! impl Split for Chunk {
//!     fn split(mut self, spans_max: usize, bytes_max: usize) -> (Self, Option<Self>) {
//!         let mut bytes = 0;
//!         let fitting = self.0.iter().take(spans_max).take_while(|span| {
//!             bytes += span.len();
//!             bytes <= bytes_max
//!         });
//!         let cut = fitting.count().max(1);
//!         let rest = self.0.split_off(cut.min(self.0.len()));
//!         (self, (!rest.is_empty()).then_some(Chunk(rest)))
//!     }
//! }
//!
//! // Application threads push; what the queue evicts or refuses is counted where it was lost.
//! let queue = Queue::new(Bounds::new(64, 1 << 20)?);
//! let mut lost = 0;
//! for spans in [300, 300, 50] {
//!     let chunk = Chunk(vec![vec![0; 100]; spans]);
//!     if let Err(refused) = queue.push(chunk, Overflow::DropOldest, |shed| lost += shed.spans()) {
//!         lost += refused.item.spans();
//!     }
//! }
//!
//! // The exporter thread batches: at most 512 spans, 4 MiB and 200 ms.
//! let limits = Limits::new(512, 4 << 20, Duration::from_millis(200))?;
//! let mut batcher = Batcher::new(limits, Strategy::Hybrid);
//! let now = Instant::now();
//! let mut sent = Vec::new();
//! while let Some(chunk) = queue.pop() {
//!     sent.extend(batcher.push(chunk, now).map(|batch| (batch.spans, batch.reason)));
//! }
//! // 300 and 300 don't fit together; 300 and 50 do, and wait for more until the deadline.
//! assert_eq!(sent, [(300, Complete::Spans)]);
//! assert_eq!(batcher.deadline(), Some(now + Duration::from_millis(200)));
//!
//! let later = now + Duration::from_millis(200);
//! let batch = batcher.poll(later).expect("the deadline is reached");
//! assert_eq!((batch.spans, batch.bytes, batch.reason), (350, 35_000, Complete::Age));
//! assert_eq!(lost, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod adaptive;
mod batch;
mod limits;
mod queue;
mod weigh;

pub use adaptive::{Adaptive, InvalidSizeRange, Measurement, SizeRange, Targets};
pub use batch::{Batch, Batcher, BatcherStats, Complete, Completed};
pub use limits::{InvalidLimits, Limits, Strategy};
pub use queue::{Bounds, InvalidBounds, Overflow, PushError, Pushed, Queue, QueueStats, Refusal};
pub use weigh::{Split, Weigh};
