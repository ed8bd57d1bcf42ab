//! Whether this process is still the one that something was made in.
//!
//! The child of a `fork` has a copy of everything its parent had and one thread: the one that forked.
//! What the parent's other threads were in the middle of stays so for good, a lock that they held or
//! a queue that they were writing to; and what the copies contain is the parent's to send. So
//! whatever may be such a copy remembers the [`generation`] it was made in and is left alone, not
//! even freed, in another.
//!
//! The rest of this crate's state is the process's and goes on in the child: the thread's random
//! generator, which must not draw its parent's numbers again, and the clock, whose lock is held
//! during the fork so that no other thread holds it.
//!
//! A process made by a bare system call, past the C library, is not noticed. One that is made to run
//! another program at once needs no notice.

#[cfg(unix)]
pub(crate) use unix::{generation, watch};

#[cfg(unix)]
mod unix {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use crate::{clock, random};

    static GENERATION: AtomicU32 = AtomicU32::new(0);

    /// How many forks lie between this process and the one in which the first provider was made.
    #[inline]
    pub(crate) fn generation() -> u32 {
        // Relaxed: written while the process has one thread.
        GENERATION.load(Ordering::Relaxed)
    }

    /// Counts forks from now on.
    pub(crate) fn watch() {
        static WATCHING: AtomicBool = AtomicBool::new(false);
        // No lock, which a fork could leave locked: threads that come at the same time may both
        // register, and every handler may run twice.
        if !WATCHING.load(Ordering::Relaxed) {
            #[expect(unsafe_code, reason = "a fork is announced to C functions only")]
            // SAFETY: the three are functions of this signature for as long as the process lives,
            // and none of them unwinds: a panic in them would abort.
            // Worth it: the safe way is to compare `std::process::id()` where a span starts and where
            // it ends, a system call of 139 ns each, when a whole span takes 37 ns. This takes 2
            // instructions a span, of 473 (callgrind; 2 processors of an AMD EPYC, 2026-11-21).
            let refused = unsafe {
                libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child))
            };
            // Refused for want of memory, the next provider tries again.
            WATCHING.store(refused == 0, Ordering::Relaxed);
        }
    }

    extern "C" fn before() {
        clock::hold();
    }

    extern "C" fn after_in_parent() {
        clock::release();
    }

    extern "C" fn after_in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
        // This is the thread that forked: the only one whose generator is still there.
        random::forget_seed();
        clock::release();
    }
}

/// Without `fork` there is one generation.
#[cfg(not(unix))]
pub(crate) fn generation() -> u32 {
    0
}

#[cfg(not(unix))]
pub(crate) fn watch() {}
