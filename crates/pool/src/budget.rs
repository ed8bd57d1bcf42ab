use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on bytes that many holders share, exact at every moment.
///
/// ```
/// use spanwire_pool::Budget;
///
/// let budget = Budget::new(100);
/// let held = budget.reserve(70).expect("70 of 100 are free");
/// assert!(budget.reserve(31).is_none());
/// drop(held);
/// assert_eq!(budget.used(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { shared: Arc::new(Shared { bytes_max, used: AtomicUsize::new(0) }) }
    }

    /// Takes bytes out until the reservation is dropped; `None` where fewer are free.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let bytes_max = self.shared.bytes_max;
        // Relaxed: the number guards no other memory; the read-modify-write keeps it exact.
        self.shared
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= bytes_max)
            })
            .ok()?;
        Some(Reservation { budget: self.clone(), bytes })
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// The bound in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.shared.bytes_max
    }
}

/// Bytes taken out of a [`Budget`]; dropping it gives them back.
#[must_use = "dropping a reservation gives its bytes back"]
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Reservation {
    /// How many bytes are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.shared.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_that_would_overflow_is_refused() {
        let budget = Budget::new(usize::MAX);
        let _held = budget.reserve(10).expect("empty");
        assert!(budget.reserve(usize::MAX).is_none());
    }

    /// Faults 137.
    #[test]
    fn many_threads_never_hold_more_than_the_bound() {
        let budget = Budget::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for size in 0..2_000 {
                        let held = budget.reserve(size % 400);
                        assert!(budget.used() <= 1_000);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
