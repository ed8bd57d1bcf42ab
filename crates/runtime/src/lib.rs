//! Tokio runtimes with settings for telemetry, checked before a thread is started.
//!
//! [`Builder`] decides what a runtime of ours is by default and which settings can work. It adds no
//! scheduler, spawns no task, keeps no global runtime, and takes nothing from the environment; the
//! standard library takes the default of a thread's stack from `RUST_MIN_STACK`.
//!
//! # Guarantees
//!
//! - A setting that cannot work is an error of [`Builder::build`], which names it. Tokio itself
//!   panics on some, as the system's threads do, and on others only once a thread is wanted.
//! - Time and sockets are switched on.
//! - Every thread it starts has the name and the stack that were asked for, and there are never more
//!   than were asked for. The thread that calls `block_on` keeps its own.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use spanwire_runtime::Builder;
//!
//! # fn main() -> std::io::Result<()> {
//! let runtime = Builder::current_thread().thread_name("lookups").blocking_threads_max(2).build()?;
//! runtime.block_on(async {
//!     let slow = tokio::time::sleep(Duration::from_secs(60));
//!     assert!(tokio::time::timeout(Duration::from_millis(1), slow).await.is_err());
//!     let name = || std::thread::current().name().map(str::to_owned);
//!     let name = tokio::task::spawn_blocking(name).await.expect("no panic");
//!     assert_eq!(name.as_deref(), Some("lookups"));
//! });
//!
//! let refused = Builder::current_thread().event_interval(0).build().err();
//! assert_eq!(
//!     refused.map(|error| error.to_string()).as_deref(),
//!     Some("event_interval must be at least 1")
//! );
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod builder;

pub use builder::{Builder, InvalidSetting};
