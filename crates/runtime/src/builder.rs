//! The settings: what each is by default, and which can work.

use std::io;
use std::time::Duration;

use tokio::runtime::{self, Runtime};

/// Sets up a Tokio runtime, one word a setting.
///
/// What is not set is as its word says; what that leaves to Tokio is as Tokio 1.54 has it.
///
/// ```
/// use spanwire_runtime::Builder;
///
/// # fn main() -> std::io::Result<()> {
/// # #[cfg(feature = "multi-thread")] {
/// let runtime = Builder::multi_thread().worker_threads(2).thread_name("collector").build()?;
/// assert_eq!(runtime.metrics().num_workers(), 2);
/// # }
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `build`"]
#[derive(Clone, Debug)]
pub struct Builder {
    scheduler: Scheduler,
    thread_name: String,
    stack_bytes: Option<usize>,
    event_interval: Option<u32>,
    global_queue_interval: Option<u32>,
    blocking_threads_max: usize,
    blocking_keep_alive: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Scheduler {
    CurrentThread,
    #[cfg(feature = "multi-thread")]
    MultiThread {
        /// None: as many as the process may use at once.
        workers: Option<usize>,
    },
}

impl Builder {
    /// A runtime without threads of its own: it works on the thread that calls `block_on`.
    ///
    /// For a client, which should take no more of its host than one thread: nothing it does is
    /// handed from one thread to another, and a queue of one thread needs no lock. That saves a receiver
    /// CPU too, so where connections are many, several such runtimes with a share of them each may
    /// cost less than one with workers.
    pub fn current_thread() -> Self {
        Self::new(Scheduler::CurrentThread)
    }

    /// A runtime with worker threads that take over one another's tasks.
    ///
    /// For receivers and collectors, where many connections are to share all processors.
    #[cfg(feature = "multi-thread")]
    pub fn multi_thread() -> Self {
        Self::new(Scheduler::MultiThread { workers: None })
    }

    fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            thread_name: "spanwire".into(),
            stack_bytes: None,
            event_interval: None,
            global_queue_interval: None,
            blocking_threads_max: BLOCKING_THREADS_MAX,
            blocking_keep_alive: Duration::from_secs(10),
        }
    }

    /// Threads that run tasks; 1 to 65,535. A runtime of the current thread takes no notice.
    ///
    /// By default as many as the process may use at once: processors it is bound to, and no more
    /// than a quota of its control group is worth, so that a container with a share of a large machine
    /// does not have threads that only take turns. `TOKIO_WORKER_THREADS` has no say, for it may be
    /// meant for the host's own runtime.
    #[cfg(feature = "multi-thread")]
    pub fn worker_threads(mut self, threads: usize) -> Self {
        if let Scheduler::MultiThread { workers } = &mut self.scheduler {
            *workers = Some(threads);
        }
        self
    }

    /// What workers and blocking threads are called in debuggers, profiles and `/proc`; `spanwire`
    /// by default. Linux shows 15 bytes of it.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// Stack of each worker and blocking thread in bytes, from 64 KiB; 2 MiB by default, or what
    /// `RUST_MIN_STACK` says.
    ///
    /// It is address space, of which only what is touched becomes memory; so less is of use where
    /// address space is limited, and more for deep recursion in tasks.
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = Some(bytes);
        self
    }

    /// How many tasks a thread runs, at least 1, before it looks at sockets and timers, if it does
    /// not run out of tasks before; 61 by default.
    ///
    /// A look is a system call. Fewer tasks between two looks shorten the wait of a ready socket
    /// while many tasks are busy; more of them save calls. Where a thread mostly runs out of tasks
    /// first, as a receiver's does, it makes no difference.
    pub fn event_interval(mut self, tasks: u32) -> Self {
        self.event_interval = Some(tasks);
        self
    }

    /// How many tasks a thread runs, at least 1, before it looks for one that came from outside the
    /// runtime, if it does not run out of its own before.
    ///
    /// By default 31 on the current thread, and with workers as many as take about 200 µs.
    pub fn global_queue_interval(mut self, tasks: u32) -> Self {
        self.global_queue_interval = Some(tasks);
        self
    }

    /// Most threads for `spawn_blocking`, at least 1; 64 by default. They are started when they are
    /// needed; work beyond them waits.
    ///
    /// What blocks here is looking up names and writing files: several at a time at most, unless
    /// something hangs, and then Tokio's 512 threads would be what takes the host down.
    pub fn blocking_threads_max(mut self, threads: usize) -> Self {
        self.blocking_threads_max = threads;
        self
    }

    /// How long an idle blocking thread is kept; 10 s by default, so that work that comes once a
    /// second does not start a thread each time.
    pub fn blocking_keep_alive(mut self, time: Duration) -> Self {
        self.blocking_keep_alive = time;
        self
    }

    /// Builds the runtime and starts its workers, if it has any.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] within an error of the kind [`InvalidInput`](io::ErrorKind::InvalidInput);
    /// any other where the system gives no descriptor for polling.
    ///
    /// # Panics
    ///
    /// As Tokio does where the system refuses to start a worker thread.
    pub fn build(&self) -> io::Result<Runtime> {
        self.check().map_err(|invalid| io::Error::new(io::ErrorKind::InvalidInput, invalid))?;
        let mut builder = match self.scheduler {
            Scheduler::CurrentThread => runtime::Builder::new_current_thread(),
            #[cfg(feature = "multi-thread")]
            Scheduler::MultiThread { workers } => {
                let mut builder = runtime::Builder::new_multi_thread();
                builder.worker_threads(workers.unwrap_or_else(available_parallelism));
                builder
            }
        };
        builder
            .enable_all()
            .thread_name(&self.thread_name)
            .max_blocking_threads(self.blocking_threads_max)
            .thread_keep_alive(self.blocking_keep_alive);
        if let Some(bytes) = self.stack_bytes {
            builder.thread_stack_size(bytes);
        }
        if let Some(tasks) = self.event_interval {
            builder.event_interval(tasks);
        }
        if let Some(tasks) = self.global_queue_interval {
            builder.global_queue_interval(tasks);
        }
        builder.build()
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        let counts = [
            ("blocking_threads_max", self.blocking_threads_max),
            ("event_interval", self.event_interval.map_or(1, |tasks| tasks as usize)),
            ("global_queue_interval", self.global_queue_interval.map_or(1, |tasks| tasks as usize)),
        ];
        if let Some((setting, _)) = counts.into_iter().find(|&(_, count)| count == 0) {
            return Err(InvalidSetting::Zero { setting });
        }
        #[cfg(feature = "multi-thread")]
        if let Scheduler::MultiThread { workers: Some(threads) } = self.scheduler
            && !(1..=WORKER_THREADS_MAX).contains(&threads)
        {
            return Err(InvalidSetting::WorkerThreads { threads });
        }
        if let Some(bytes) = self.stack_bytes
            && !(STACK_BYTES_MIN..=STACK_BYTES_MAX).contains(&bytes)
        {
            return Err(InvalidSetting::Stack { bytes });
        }
        match self.thread_name.contains('\0') {
            true => Err(InvalidSetting::ThreadName),
            false => Ok(()),
        }
    }
}

/// Why a runtime could not be built from its settings.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// There must be one at least.
    #[error("{setting} must be at least 1")]
    Zero {
        /// The word for it.
        setting: &'static str,
    },
    /// No worker, or more than Tokio can count.
    #[error("worker_threads must be 1 to {WORKER_THREADS_MAX}, not {threads}")]
    WorkerThreads {
        /// What was asked for.
        threads: usize,
    },
    /// A stack that a task could overflow at once, or that no system gives.
    #[error("stack_bytes must be {STACK_BYTES_MIN} to {STACK_BYTES_MAX}, not {bytes}")]
    Stack {
        /// What was asked for.
        bytes: usize,
    },
    /// Systems end a name at a NUL byte.
    #[error("thread_name must not contain a NUL byte")]
    ThreadName,
}

#[cfg(feature = "multi-thread")]
fn available_parallelism() -> usize {
    // Unknown on some systems: one worker is right anywhere.
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(WORKER_THREADS_MAX))
}

/// Tokio counts workers in 16 bits.
const WORKER_THREADS_MAX: usize = u16::MAX as usize;

/// Room for the frames of a runtime, a look-up in the system's resolver, which keeps answers on the
/// stack, and a panic with its message.
const STACK_BYTES_MIN: usize = 64 << 10;

/// No task needs as much, and a unit mistaken for another asks for more.
const STACK_BYTES_MAX: usize = 1 << 30;

/// Ten times what is busy at once where nothing hangs, and address space of 128 MiB where all do.
const BLOCKING_THREADS_MAX: usize = 64;
