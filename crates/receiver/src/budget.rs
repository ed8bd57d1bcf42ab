//! The bytes of requests in flight, counted exactly and never over their limits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit on bytes held, shared by whoever takes from it.
///
/// A receiver has one of its own, of [`in_flight_bytes_max`](crate::Builder::in_flight_bytes_max),
/// unless [`Builder::budget`](crate::Builder::budget) gives it one that others take from as well:
/// further receivers, or a source of spans that is none.
///
/// ```
/// use std::sync::Arc;
///
/// use spanwire_receiver::Budget;
///
/// let budget = Arc::new(Budget::new(1 << 20));
/// let held = budget.reserve(1000).expect("a fresh budget");
/// assert_eq!(budget.bytes(), 1000);
/// assert!(budget.reserve(1 << 20).is_none(), "all or nothing");
/// drop(held);
/// assert_eq!(budget.bytes(), 0);
/// ```
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl Budget {
    /// An empty budget of `bytes_max` bytes.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0) }
    }

    /// The most that can be taken, in bytes.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What is taken now, in bytes. One atomic load.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes `bytes` until the reservation is dropped; `None` if they are not there. Costs an
    /// allocation.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        Share::new(usize::MAX, usize::MAX, Arc::clone(self)).reserve(bytes)
    }

    /// Takes `more` bytes if no more than `most` are taken then, or none and answers `false`. `most`
    /// may depend on what is taken before.
    fn take(&self, more: usize, most: impl Fn(usize) -> usize) -> bool {
        // Relaxed: the counter guards no other memory, only its own sum.
        let taken = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(more).filter(|sum| *sum <= most(taken))
        });
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one connection may take out of a budget: limits of its own within it.
#[derive(Debug)]
pub(crate) struct Share {
    /// Bounded by what one request may take while the connection has no other.
    own: Budget,
    /// What several requests may take together.
    several_bytes_max: usize,
    budget: Arc<Budget>,
}

impl Share {
    /// `one_bytes_max` bounds a request that is the connection's only one, `several_bytes_max` all
    /// of them where there are more: a connection of many streams leaves room for the others even
    /// where the largest request takes the whole budget.
    pub(crate) fn new(
        several_bytes_max: usize,
        one_bytes_max: usize,
        budget: Arc<Budget>,
    ) -> Arc<Self> {
        Arc::new(Self { own: Budget::new(one_bytes_max), several_bytes_max, budget })
    }

    /// Takes `bytes` until the reservation is dropped; `None` if the share or the budget does not
    /// have them.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation { share: Arc::clone(self), bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }

    /// Takes `more` bytes for a request that has `held` already.
    fn take(&self, held: usize, more: usize) -> bool {
        let most = |taken| match taken == held {
            true => self.own.bytes_max,
            false => self.several_bytes_max,
        };
        if !self.own.take(more, most) {
            return false;
        }
        if !self.budget.take(more, |_| self.budget.bytes_max) {
            self.own.give_back(more);
            return false;
        }
        true
    }
}

/// Bytes taken out of a [`Budget`]; they go back on drop, which may come long after the end of the
/// connection that they came by.
#[must_use = "dropping a reservation gives its bytes back"]
pub struct Reservation {
    share: Arc<Share>,
    bytes: usize,
}

impl Reservation {
    /// What is held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `more` bytes, or none and answers `false`. The limits are those of the budget, and of
    /// the connection that the first bytes came by.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let taken = self.share.take(self.bytes, more);
        if taken {
            self.bytes += more;
        }
        taken
    }

    /// Gives back what is held beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        // A locked subtraction of nothing costs as much as one of something.
        if surplus > 0 {
            self.share.own.give_back(surplus);
            self.share.budget.give_back(surplus);
            self.bytes -= surplus;
        }
    }

    /// Parts with `bytes` of what is held, at most all, for somebody who drops them at another time.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { share: Arc::clone(&self.share), bytes }
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
        Self::new(bytes_max, bytes_max, Arc::new(Budget::new(bytes_max)))
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
        let [noisy, quiet] = [(); 2].map(|()| Share::new(60, 60, Arc::clone(&budget)));
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

    /// Faults 98.
    #[test]
    fn one_request_may_take_what_several_together_may_not() {
        let budget = Arc::new(Budget::new(100));
        let share = Share::new(50, 100, Arc::clone(&budget));
        let mut large = share.reserve(90).expect("alone on its connection");
        assert!(large.grow(10), "and still alone");
        large.shrink(40);
        assert!(share.reserve(11).is_none(), "no longer alone");
        let small = share.reserve(10).expect("within the part of several");
        assert!(!large.grow(1));
        drop(small);
        assert!(large.grow(60));
        assert_eq!(budget.bytes(), 100);
    }

    #[test]
    fn what_is_split_off_goes_back_at_its_own_time() {
        let share = Share::alone(100);
        let mut held = share.reserve(60).expect("60 of 100 are free");
        let part = held.split(20);
        assert_eq!((held.bytes(), part.bytes(), share.bytes()), (40, 20, 60));
        drop(held);
        assert_eq!(share.bytes(), 20);
        drop(part);
        assert_eq!(share.bytes(), 0);
    }
}
