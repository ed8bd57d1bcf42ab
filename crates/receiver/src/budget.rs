//! The bytes of requests in flight, counted exactly and never over their limits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit on bytes, shared by every connection of a receiver.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl Budget {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0) }
    }

    /// Takes `more` bytes, or none and answers `false`.
    fn take(&self, more: usize) -> bool {
        // Relaxed: the counter guards no other memory, only its own sum.
        let taken = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(more).filter(|sum| *sum <= self.bytes_max)
        });
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What is taken now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What one connection may take out of the receiver's budget: a limit of its own within it.
#[derive(Debug)]
pub(crate) struct Share {
    own: Budget,
    budget: Arc<Budget>,
}

impl Share {
    pub(crate) fn new(bytes_max: usize, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { own: Budget::new(bytes_max), budget })
    }

    /// Takes `bytes` until the reservation is dropped; `None` if the share or the budget does not
    /// have them.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation { share: Arc::clone(self), bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }
}

/// Bytes taken out of a [`Share`]; they go back on drop, which may come long after the connection's
/// end.
#[must_use = "dropping a reservation gives its bytes back"]
pub(crate) struct Reservation {
    share: Arc<Share>,
    bytes: usize,
}

impl Reservation {
    /// Takes `more` bytes, or none and answers `false`.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let Share { own, budget } = &*self.share;
        if !own.take(more) {
            return false;
        }
        if !budget.take(more) {
            own.give_back(more);
            return false;
        }
        self.bytes += more;
        true
    }

    /// Gives back what is held beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        // A locked subtraction of nothing costs as much as one of something.
        if surplus > 0 {
            self.share.own.give_back(surplus);
            self.share.budget.give_back(surplus);
            self.bytes -= surplus;
        }
    }

    /// What is held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Share {
    /// A share that is a whole budget of its own.
    pub(crate) fn alone(bytes_max: usize) -> Arc<Self> {
        Self::new(bytes_max, Arc::new(Budget::new(bytes_max)))
    }

    /// What is taken of the budget now.
    pub(crate) fn bytes(&self) -> usize {
        self.budget.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_beyond_the_limit_takes_nothing() {
        let share = Share::alone(100);
        let first = share.reserve(60).expect("60 of 100 are free");
        assert!(share.reserve(41).is_none());
        assert_eq!(share.bytes(), 60);
        let second = share.reserve(40).expect("40 of 100 are free");
        assert_eq!(share.bytes(), 100);
        drop((first, second));
        assert_eq!(share.bytes(), 0);
    }

    #[test]
    fn a_reservation_that_cannot_grow_keeps_what_it_has() {
        let share = Share::alone(100);
        let mut held = share.reserve(60).expect("60 of 100 are free");
        assert!(!held.grow(41));
        assert!(!held.grow(usize::MAX));
        assert_eq!((held.bytes(), share.bytes()), (60, 60));
        held.shrink(10);
        assert_eq!((held.bytes(), share.bytes()), (10, 10));
        held.shrink(50);
        assert_eq!(share.bytes(), 10);
    }

    /// Faults 98.
    #[test]
    fn a_share_ends_before_the_budget_and_leaves_the_rest_to_others() {
        let budget = Arc::new(Budget::new(100));
        let [noisy, quiet] = [(); 2].map(|()| Share::new(60, Arc::clone(&budget)));
        let mut held = noisy.reserve(50).expect("50 of 60 are free");
        assert!(noisy.reserve(11).is_none());
        assert!(!held.grow(11));
        let other = quiet.reserve(50).expect("50 of 100 are free");
        // The share has room now, and the budget has not: neither is taken from.
        assert!(noisy.reserve(10).is_none());
        assert_eq!(budget.bytes(), 100);
        drop(other);
        assert!(noisy.reserve(10).is_some());
        drop(held);
        assert!(noisy.reserve(60).is_some(), "all of the share came back");
        assert_eq!(budget.bytes(), 0);
    }
}
