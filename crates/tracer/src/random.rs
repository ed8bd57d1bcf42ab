//! Random ids, a few instructions each.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use spanwire_model::{SpanId, TraceId};

thread_local! {
    static RANDOM: Cell<Random> = const { Cell::new(Random::UNSEEDED) };
}

/// The ids of a trace and of its first span.
#[inline]
pub(crate) fn ids() -> (TraceId, SpanId) {
    with(|random| (random.trace_id(), random.span_id()))
}

/// The id of a span.
#[inline]
pub(crate) fn span_id() -> SpanId {
    with(Random::span_id)
}

/// Calls `draw` with this thread's generator.
#[inline(always)]
fn with<R>(draw: impl FnOnce(&mut Random) -> R) -> R {
    let mut random = RANDOM.get();
    if random.mask == 0 {
        random = Random::seeded();
    }
    let drawn = draw(&mut random);
    RANDOM.set(random);
    drawn
}

/// Makes this thread's generator draw other numbers than the process it was copied from.
#[cfg(unix)]
pub(crate) fn forget_seed() {
    RANDOM.set(Random::UNSEEDED);
}

/// wyrand (Wang Yi 2019), one multiplication a number, with a second random word for trace ids.
///
/// The generator alone has 64 bits of state: among a million threads that draw ten million ids each,
/// two would likely meet somewhere in its cycle. So half of each trace id is masked with the second
/// word: two threads repeat each other's trace ids only if both words agree. Span ids need to be
/// unique within their trace only. Not for secrets.
#[derive(Clone, Copy, Debug)]
struct Random {
    state: u64,
    /// Zero until seeded, odd from then on.
    mask: u64,
}

impl Random {
    /// To be seeded before the first number is drawn.
    const UNSEEDED: Self = Self { state: 0, mask: 0 };

    #[inline]
    fn span_id(&mut self) -> SpanId {
        loop {
            if let Some(id) = SpanId::new(self.next()) {
                return id;
            }
        }
    }

    #[inline]
    fn trace_id(&mut self) -> TraceId {
        loop {
            let low = self.next();
            let high = self.next() ^ self.mask;
            if let Some(id) = TraceId::new(u128::from(high) << 64 | u128::from(low)) {
                return id;
            }
        }
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.state) * u128::from(self.state ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    #[cold]
    #[inline(never)]
    fn seeded() -> Self {
        let word = |at: u64| {
            // No entropy from the system: std seeds its hashers' keys on its own, and forked
            // processes have the same.
            getrandom::u64()
                .unwrap_or_else(|_| RandomState::new().hash_one((at, std::process::id())))
        };
        Self { state: word(0), mask: word(1) | 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_many_threads_differ() {
        let draw = || {
            let mut random = Random::seeded();
            (0..10_000).map(|_| (random.trace_id(), random.span_id())).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let ids: Vec<_> = threads.into_iter().flat_map(|t| t.join().expect("draws")).collect();
        assert_eq!(ids.iter().map(|ids| ids.0).collect::<HashSet<_>>().len(), 40_000);
        assert_eq!(ids.iter().map(|ids| ids.1).collect::<HashSet<_>>().len(), 40_000);
    }

    #[test]
    fn each_bit_of_an_id_is_set_about_half_the_time() {
        let mut random = Random::seeded();
        let mut set = [0u32; 128];
        for _ in 0..4_000 {
            let id = random.trace_id().get();
            for (bit, set) in set.iter_mut().enumerate() {
                *set += u32::from(id >> bit & 1 == 1);
            }
        }
        // Ten standard deviations (31.6 each) either way.
        assert!(set.iter().all(|set| (1_684..=2_316).contains(set)), "{set:?}");
    }
}
