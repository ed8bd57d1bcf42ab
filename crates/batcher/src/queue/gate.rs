//! Where producers wait for room.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The slow path of a queue whose producers may wait; the fast path only reads one word of it.
///
/// # Why no wake-up is lost
///
/// A producer that waits does, holding the lock: (1) add itself to `state`, (2) try to reserve
/// room, (3) wait, which gives up the lock. Whoever makes room does: (4) release it, (5) read
/// `state`, (6) if anyone is there, take the lock and notify. 1, 2, 4 and 5 are sequentially
/// consistent, so they have one order. Either 4 comes before 2, and the producer finds the room; or
/// 2 comes before 4, so 1 comes before 5, the other side sees the producer, and 6 has to wait for
/// the lock until the producer is in 3, where the notification reaches it.
#[derive(Debug)]
pub(super) struct Gate {
    /// [`STALLED`], and [`ONE_WAITER`] for each thread waiting. Written only with the lock held.
    state: AtomicUsize,
    /// Times the consumer took something while someone waited or the queue was stalled.
    takes: Mutex<u64>,
    freed: Condvar,
}

/// A producer waited in vain and nothing has been popped since.
const STALLED: usize = 1;
const ONE_WAITER: usize = 2;

impl Gate {
    pub(super) fn new() -> Self {
        Self { state: AtomicUsize::new(0), takes: Mutex::new(0), freed: Condvar::new() }
    }

    /// Whether to fail at once rather than wait again for a consumer that shows no sign of life.
    pub(super) fn is_stalled(&self) -> bool {
        self.state.load(Relaxed) & STALLED != 0
    }

    /// The consumer took something, after it gave the room back: one load if nobody waits.
    pub(super) fn taken(&self) {
        if self.state.load(SeqCst) != 0 {
            self.revive();
        }
    }

    /// Room was made, or the queue closed, by someone other than the consumer.
    pub(super) fn notify(&self) {
        if self.state.load(SeqCst) >= ONE_WAITER {
            // Taken and dropped: it is the lock that orders this after the waiter's last try.
            drop(self.lock());
            self.freed.notify_all();
        }
    }

    /// Retries `attempt` whenever room is made, until it gives an answer or `timeout` is over.
    ///
    /// A timeout during which the consumer took nothing marks the queue as stalled. If it did take
    /// something, it is alive and others were faster, so the next push may wait again.
    #[cold]
    pub(super) fn wait<R>(
        &self,
        timeout: Duration,
        mut attempt: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let start = Instant::now();
        let mut takes = self.lock();
        self.state.fetch_add(ONE_WAITER, SeqCst);
        let takes_before = *takes;
        let answer = loop {
            let answer = attempt();
            if answer.is_some() {
                break answer;
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                // Still counted as a waiter, so no take can have passed unseen since the last try.
                if *takes == takes_before {
                    self.state.fetch_or(STALLED, SeqCst);
                }
                break None;
            }
            takes = match self.freed.wait_timeout(takes, left) {
                Ok((takes, _)) => takes,
                Err(poisoned) => poisoned.into_inner().0,
            };
        };
        self.state.fetch_sub(ONE_WAITER, SeqCst);
        answer
    }

    #[cold]
    fn revive(&self) {
        let mut takes = self.lock();
        *takes = takes.wrapping_add(1);
        self.state.fetch_and(!STALLED, SeqCst);
        drop(takes);
        // All, not one: the room may be too small for the one woken and enough for another.
        self.freed.notify_all();
    }

    /// Whether a producer has tried in vain and now waits: with the lock free, it is past its try.
    #[cfg(test)]
    pub(super) fn has_waiter(&self) -> bool {
        let _takes = self.lock();
        self.state.load(SeqCst) >= ONE_WAITER
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // A counter is never half written, so a panic elsewhere leaves nothing to fear here.
        self.takes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Longer than the test should run: a wake-up that is lost fails it.
    const FOREVER: Duration = Duration::from_secs(30);
    /// Long enough for the other thread to pass the lock, if it could.
    const A_WHILE: Duration = Duration::from_millis(50);

    #[test]
    fn room_made_between_a_vain_try_and_the_wait_wakes_the_waiter() {
        for make_known in [Gate::taken, Gate::notify] {
            let (gate, room) = (Gate::new(), AtomicBool::new(false));
            let (tried, wait_for_try) = mpsc::channel();
            let (made_known, wait_for_word) = mpsc::channel();
            thread::scope(|scope| {
                let (gate, room) = (&gate, &room);
                scope.spawn(move || {
                    wait_for_try.recv().expect("the waiter tries");
                    room.store(true, SeqCst);
                    make_known(gate);
                    // The waiter may be gone by now, and has no more to hear.
                    made_known.send(()).ok();
                });
                let mut tries = 0;
                let answer = gate.wait(FOREVER, || {
                    tries += 1;
                    if tries == 1 {
                        tried.send(()).expect("the other thread is there");
                        let word = wait_for_word.recv_timeout(A_WHILE);
                        assert!(word.is_err(), "notified before the wait began");
                        return None;
                    }
                    room.load(SeqCst).then_some(())
                });
                assert_eq!(answer, Some(()));
            });
        }
    }
}
