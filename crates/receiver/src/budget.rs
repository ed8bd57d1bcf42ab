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
    bytes_max: AtomicUsize,
    bytes: AtomicUsize,
    /// Connections that hold some of it.
    holders: AtomicUsize,
}

impl Budget {
    /// An empty budget of `bytes_max` bytes.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: AtomicUsize::new(bytes_max),
            bytes: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
        }
    }

    /// The most that can be taken, in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Changes the limit for everybody who takes from it, from now on. Nothing is taken back: where
    /// more is taken than the new limit, nothing is given until enough has come back.
    ///
    /// What each connection may take stays the same part of the limit. The largest request of a
    /// receiver stays as well: with less than twice of that, some requests are asked to come back
    /// and never fit.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// What is taken now, in bytes; more than the limit where that was lowered, or where more was
    /// [charged](Self::charge). One atomic load.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes `bytes` until the reservation is dropped; `None` if they are not there. Costs an
    /// allocation.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        Share::whole(Arc::clone(self)).reserve(bytes)
    }

    /// Takes `bytes` whether they are there or not. For memory that is in use already on behalf of
    /// what was taken over: refusing it would be a loss, and what is beyond the limit keeps others
    /// out until it is given back. Costs an allocation.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use spanwire_receiver::Budget;
    /// let budget = Arc::new(Budget::new(1000));
    /// let taken_over = budget.reserve(800).expect("a fresh budget");
    /// let copy = budget.charge(800);
    /// assert_eq!(budget.bytes(), 1600);
    /// drop(taken_over);
    /// assert!(budget.reserve(201).is_none(), "the copy is counted");
    /// ```
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Reservation {
        let share = Share::whole(Arc::clone(self));
        share.own.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Reservation { share, bytes }
    }

    /// Takes `more` bytes if no more than `most` are taken then, and tells what was taken before;
    /// otherwise takes none. `most` may depend on what is taken before.
    fn take(&self, more: usize, most: impl Fn(usize) -> usize) -> Option<usize> {
        // Relaxed: the counter guards no other memory, only its own sum.
        let taken = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(more).filter(|sum| *sum <= most(taken))
        });
        taken.ok()
    }

    /// Tells what was taken before.
    fn give_back(&self, bytes: usize) -> usize {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed)
    }

    /// What all may have together where a connection has `own` of it, all for one request if
    /// `is_one`.
    ///
    /// The last eighth is for those who hold less than the others: a few that send without end must
    /// not leave nothing to the rest, who come again and again. What is the part of each counts one
    /// more than there are, so that there is room for one that holds nothing yet. A request that would
    /// never fit otherwise may have it as well: there cannot be two of that size.
    fn fair_bytes_max(&self, own: usize, is_one: bool) -> usize {
        let bytes_max = self.bytes_max();
        let holders = self.holders.load(Ordering::Relaxed);
        let without_last = bytes_max - bytes_max / 8;
        let is_small = own <= bytes_max / holders.saturating_add(1);
        match is_small || is_one && own > without_last {
            true => bytes_max,
            false => without_last,
        }
    }
}

/// What one connection may take out of a budget: limits of its own within it, which are parts of the
/// budget's and change with it.
#[derive(Debug)]
pub(crate) struct Share {
    /// Bounded by what one request may take while the connection has no other.
    own: Budget,
    /// What several requests may take together.
    several_bytes_max: usize,
    /// The limit of the budget that these two are parts of.
    of_bytes_max: usize,
    /// Whether it is that of a connection, which is to leave room for others.
    is_part: bool,
    budget: Arc<Budget>,
}

impl Share {
    /// `one_bytes_max` bounds a request that is the connection's only one, `several_bytes_max` all
    /// of them where there are more: a connection of many streams leaves room for the others even
    /// where the largest request takes the whole budget.
    #[cfg(test)]
    fn new(several_bytes_max: usize, one_bytes_max: usize, budget: Arc<Budget>) -> Arc<Self> {
        let of_bytes_max = budget.bytes_max();
        Self::part(several_bytes_max, one_bytes_max, of_bytes_max, budget)
    }

    /// The same, where the limits were meant for a budget of `of_bytes_max` bytes.
    pub(crate) fn part(
        several_bytes_max: usize,
        one_bytes_max: usize,
        of_bytes_max: usize,
        budget: Arc<Budget>,
    ) -> Arc<Self> {
        let own = Budget::new(one_bytes_max);
        Arc::new(Self { own, several_bytes_max, of_bytes_max, is_part: true, budget })
    }

    /// All of a budget, for one who is no connection.
    fn whole(budget: Arc<Budget>) -> Arc<Self> {
        let own = Budget::new(usize::MAX);
        let of_bytes_max = budget.bytes_max();
        Arc::new(Self { own, several_bytes_max: usize::MAX, of_bytes_max, is_part: false, budget })
    }

    /// Takes `bytes` until the reservation is dropped; `None` if the share or the budget does not
    /// have them.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation { share: Arc::clone(self), bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }

    /// Takes `more` bytes for a request that has `held` already.
    fn take(&self, held: usize, more: usize) -> bool {
        let bytes_max = self.budget.bytes_max();
        let most = |taken| {
            let part = match taken == held {
                true => self.own.bytes_max(),
                false => self.several_bytes_max,
            };
            match bytes_max == self.of_bytes_max {
                true => part,
                false => scaled(part, bytes_max, self.of_bytes_max),
            }
        };
        let Some(before) = self.own.take(more, most) else {
            return false;
        };
        if before == 0 && more > 0 && self.is_part {
            self.budget.holders.fetch_add(1, Ordering::Relaxed);
        }
        let fair = match self.is_part {
            true => self.budget.fair_bytes_max(before + more, before == held),
            false => bytes_max,
        };
        // Nobody else is there to be fair to.
        let most = |taken| if taken == before { bytes_max } else { fair };
        if self.budget.take(more, most).is_none() {
            self.give_back_own(more);
            return false;
        }
        true
    }

    fn give_back(&self, bytes: usize) {
        self.budget.give_back(bytes);
        self.give_back_own(bytes);
    }

    fn give_back_own(&self, bytes: usize) {
        let before = self.own.give_back(bytes);
        if before == bytes && bytes > 0 && self.is_part {
            self.budget.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// As large a part of `of` as `part` is of `was`.
fn scaled(part: usize, of: usize, was: usize) -> usize {
    let scaled = part as u128 * of as u128 / was.max(1) as u128;
    usize::try_from(scaled).unwrap_or(usize::MAX)
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
            self.share.give_back(surplus);
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
        let other = quiet.reserve(37).expect("up to seven eighths");
        // The share has room now, and the budget has not: neither is taken from.
        assert!(noisy.reserve(10).is_none());
        assert_eq!(budget.bytes(), 87);
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

    /// Faults 98.
    #[test]
    fn a_few_that_want_everything_leave_room_for_one_that_comes_late() {
        for noisy in [1, 2, 8, 64] {
            let budget = Arc::new(Budget::new(6500));
            let share = || Share::new(6500 / 8 * 7, 6500, Arc::clone(&budget));
            let shares: Vec<_> = (0..noisy).map(|_| share()).collect();
            let mut held = Vec::new();
            // One after the other takes more, until none gets any.
            loop {
                let more = shares.iter().filter_map(|share| share.reserve(10));
                let before = held.len();
                held.extend(more);
                if held.len() == before {
                    break;
                }
            }
            let late = share();
            let part = 6500 / (noisy + 2).max(8);
            let first = late.reserve(part / 2).expect("room for one that holds nothing");
            let second = late.reserve(part / 2).expect("and for its next request");
            assert!(budget.bytes() >= 6500 / 8 * 7, "no more is kept than that");
            drop((first, second));
            drop((held, shares));
            assert_eq!((budget.bytes(), budget.holders.load(Ordering::Relaxed)), (0, 0));
        }
    }

    /// Faults 98.
    #[test]
    fn connections_with_a_large_request_each_leave_room_for_one_that_comes_late() {
        let budget = Arc::new(Budget::new(1000));
        let share = || Share::new(750, 1000, Arc::clone(&budget));
        let shares: Vec<_> = (0..20).map(|_| share()).collect();
        let held: Vec<_> = shares.iter().filter_map(|share| share.reserve(120)).collect();
        assert_eq!(held.len(), 7, "more than seven eighths would be taken");
        assert!(share().reserve(100).is_some());
        drop(held);
        // One that fits by itself only is not kept out for good by whoever else is there.
        let small = share().reserve(50).expect("room");
        assert!(share().reserve(700).is_some() && share().reserve(950).is_some());
        drop(small);
        assert_eq!((budget.bytes(), budget.holders.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn what_is_charged_is_counted_beyond_the_limit_and_keeps_others_out() {
        let budget = Arc::new(Budget::new(100));
        let held = budget.reserve(90).expect("90 of 100 are free");
        let copy = budget.charge(70);
        assert_eq!((copy.bytes(), budget.bytes()), (70, 160));
        drop(held);
        assert!(budget.reserve(31).is_none());
        let rest = budget.reserve(30).expect("30 of 100 are free");
        drop(copy);
        assert_eq!(budget.bytes(), 30);
        drop(rest);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_limit_that_is_lowered_takes_nothing_back_and_gives_nothing_until_it_is_kept() {
        let budget = Arc::new(Budget::new(100));
        let [first, mut second] = [60, 40].map(|bytes| budget.reserve(bytes).expect("free"));
        budget.set_bytes_max(50);
        assert_eq!((budget.bytes(), budget.bytes_max()), (100, 50));
        assert!(budget.reserve(1).is_none() && !second.grow(1));
        drop(first);
        assert!(second.grow(10), "what came back is there");
        assert!(budget.reserve(1).is_none());
        budget.set_bytes_max(200);
        let more = budget.reserve(150).expect("150 of 200 are free");
        drop((second, more));
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_share_stays_the_same_part_of_a_budget_whose_limit_changes() {
        let budget = Arc::new(Budget::new(100));
        let share = Share::new(30, 60, Arc::clone(&budget));
        let mut held = share.reserve(20).expect("20 of 60 are free");
        budget.set_bytes_max(1000);
        assert!(held.grow(580) && !held.grow(1), "alone on its connection");
        held.shrink(200);
        let second = share.reserve(100).expect("within the part of several");
        assert!(share.reserve(1).is_none());
        drop(second);
        budget.set_bytes_max(500);
        assert!(!held.grow(101), "300 of 500");
        assert!(held.grow(100));
        drop(held);
        // One that comes now, by settings that were made for the old limit.
        let share = Share::part(30, 60, 100, Arc::clone(&budget));
        assert!(share.reserve(301).is_none() && share.reserve(300).is_some());
        assert_eq!(budget.bytes(), 0);
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
