//! Records spans and encodes each once, where it ends, into its thread's chunk of OTLP wire bytes.
//!
//! This crate decides what is sampled, which ids and times a span gets, and who its parent is. It
//! sends nothing and starts no thread: full chunks go to an [`Outlet`], and whoever sends calls
//! [`Provider::sweep`] for what is not full yet.
//!
//! # Guarantees
//!
//! - Starting, filling and ending a span takes no lock that threads share, makes no system call and
//!   writes no cache line that another thread writes (a trace state has a shared reference count);
//!   once warm it allocates nothing, whatever the keys and values are, up to some 4 KiB of attributes and
//!   as much of events and links. (What goes further allocates, as do events of more than eight
//!   attributes, links with attributes, errors and maps.) Once a chunk, which is some 150 spans,
//!   the thread exchanges it under a lock of its own and calls the outlet. In the first 10 ms of a
//!   process, before its clock is calibrated, times are asked for under a shared lock.
//! - Each span started and sampled is in exactly one place: open, in a chunk, or counted as lost
//!   for a reason ([`RecordStats`]). A thread that ends hands its chunk over.
//! - A span that is not sampled is never encoded.
//! - Durations come from a monotonic clock and are never negative; start times follow the wall clock.
//! - Attribute keys are unique, the last one wins; what limits cut is counted in the span.
//! - Headers of peers cost bounded time and memory.
//! - A panic of the application's while a span is open, or in code of its own that recording calls,
//!   ends the span and harms nothing else; one in a sampler or an outlet goes no further than that.
//! - A child of `fork` neither hands on its parent's spans nor repeats its ids, nor waits for its
//!   threads ([`Provider::is_inherited`]).
//!
//! Unsafe code reads the processor's counter and asks to be told of forks, one line each; the memory
//! that threads share is `spanwire-pool`'s.
//!
//! # Where spans may be recorded
//!
//! On every thread, in destructors, while unwinding, in a thread's last moments. Not in a signal
//! handler: recording takes no lock once warm, yet it may at any time have to take one or to
//! allocate, and the thread that was interrupted may hold the same. Then it would wait for itself.
//! What a handler has to tell goes into an atomic or down a pipe, to a thread that records it.
//!
//! # Memory
//!
//! Finished spans take what the pool's budget allows; what does not fit is lost and counted
//! ([`Loss::Memory`]). An open span takes what is set on it, within its
//! [`Limits`](spanwire_model::Limits), of which the lengths of values are unlimited by default, as
//! the specification has it. A thread keeps 32 idle records of a few kilobytes for each tracer it
//! uses. Where the system itself has no memory left, allocating ends the process, as it does
//! everywhere in Rust: nothing here can give it back, and nothing here grows until that happens.
//!
//! # Example
//!
//! ```
//! use spanwire_codec::view;
//! use spanwire_tracer::{Loss, Provider};
//!
//! let provider = Provider::builder().build(|_full_chunk| Err(Loss::QueueFull));
//! let tracer = provider.tracer("shop");
//! tracer.in_span("checkout", |span| {
//!     span.set_attribute("cart.items", 3);
//!     tracer.start("charge card").end();
//! });
//!
//! let mut names = Vec::new();
//! provider.sweep(|taken| {
//!     for span in view::framed(&taken.slice.bytes) {
//!         names.push(String::from_utf8_lossy(span.name()).into_owned());
//!     }
//! });
//! assert_eq!(names, ["charge card", "checkout"]); // in the order they ended
//! ```

pub mod baggage;
mod clock;
mod context;
mod fork;
mod outlet;
pub mod propagation;
mod provider;
mod random;
mod record;
pub mod sampler;
mod sink;
mod span;
mod tracer;

pub use baggage::Baggage;
pub use context::{Context, ContextGuard, InContext, WithContext};
pub use outlet::{Loss, Outlet, TracedChunk, TracedScope, TracedSlice};
pub use propagation::Propagators;
pub use provider::{HandOvers, Provider, ProviderBuilder, RecordStats};
pub use sampler::Sampler;
pub use sink::suppress_on_this_thread;
pub use span::{Span, SpanBuilder};
pub use spanwire_model::{SpanContext, SpanKind, Status, Value};
pub use tracer::Tracer;
