//! The bytes of requests in flight, counted exactly and never over their limit.

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
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes: AtomicUsize::new(0) })
    }

    /// Takes `bytes` out of the budget until the reservation is dropped; `None` if they are not there.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation { budget: Arc::clone(self), bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }

    /// What is taken now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Bytes taken out of a [`Budget`]; they go back on drop.
#[must_use = "dropping a reservation gives its bytes back"]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Takes `more` bytes, or none and answers `false`.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let Budget { bytes_max, bytes } = &*self.budget;
        // Relaxed: the counter guards no other memory, only its own sum.
        let taken = bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(more).filter(|sum| sum <= bytes_max)
        });
        if taken.is_ok() {
            self.bytes += more;
        }
        taken.is_ok()
    }

    /// Gives back what is held beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.budget.bytes.fetch_sub(surplus, Ordering::Relaxed);
        self.bytes -= surplus;
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
mod tests {
    use super::*;

    #[test]
    fn a_reservation_beyond_the_limit_takes_nothing() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).expect("60 of 100 are free");
        assert!(budget.reserve(41).is_none());
        assert_eq!(budget.bytes(), 60);
        let second = budget.reserve(40).expect("40 of 100 are free");
        assert_eq!(budget.bytes(), 100);
        drop((first, second));
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_reservation_that_cannot_grow_keeps_what_it_has() {
        let budget = Budget::new(100);
        let mut held = budget.reserve(60).expect("60 of 100 are free");
        assert!(!held.grow(41));
        assert!(!held.grow(usize::MAX));
        assert_eq!((held.bytes(), budget.bytes()), (60, 60));
        held.shrink(10);
        assert_eq!((held.bytes(), budget.bytes()), (10, 10));
        held.shrink(50);
        assert_eq!(budget.bytes(), 10);
    }
}
