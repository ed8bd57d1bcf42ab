//! Who may touch which bytes of a chunk: the one argument that its unsafe code rests on.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// A place in a chunk: after so many spans, which is after so many bytes.
///
/// Packed into one word so that both numbers are published together; a place further on is a
/// greater word, because spans lead and neither number ever shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) spans: u32,
    pub(crate) bytes: u32,
}

impl Place {
    #[inline]
    fn pack(self) -> u64 {
        u64::from(self.spans) << 32 | u64::from(self.bytes)
    }

    fn unpack(word: u64) -> Self {
        Self { spans: (word >> 32) as u32, bytes: word as u32 }
    }
}

/// Two marks in a chunk: up to `published` the writer is done, up to `claimed` readers have it.
///
/// - Bytes past `published` belong to the one writer.
/// - Bytes before `published` are never written again.
/// - Each byte before `published` is claimed once, by whichever reader moved `claimed` past it.
#[derive(Debug)]
pub(crate) struct Ledger {
    published: AtomicU64,
    claimed: AtomicU64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { published: AtomicU64::new(0), claimed: AtomicU64::new(0) }
    }

    /// Makes everything before `place` readable. Only the writer calls it, with growing places.
    #[inline]
    pub(crate) fn publish(&self, place: Place) {
        // Release: whoever sees this place also sees the bytes before it.
        self.published.store(place.pack(), Ordering::Release);
    }

    /// What is published.
    pub(crate) fn published(&self) -> Place {
        Place::unpack(self.published.load(Ordering::Acquire))
    }

    /// What is claimed.
    pub(crate) fn claimed(&self) -> Place {
        Place::unpack(self.claimed.load(Ordering::Acquire))
    }

    /// Claims what is published and not yet claimed; its bytes are readable for good.
    pub(crate) fn claim(&self) -> Option<(Place, Place)> {
        let published = self.published.load(Ordering::Acquire);
        // Of two readers, the one that saw less may come second; `max` leaves it nothing instead
        // of moving the mark back.
        let claimed = self.claimed.fetch_max(published, Ordering::AcqRel);
        (claimed < published).then(|| (Place::unpack(claimed), Place::unpack(published)))
    }

    /// Starts anew. `&mut` proves that no writer and no reader is left.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(all(test, loom))]
mod tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// The chunk's protocol over cells that loom watches for races.
    #[test]
    fn readers_see_whole_spans_each_claimed_once_in_every_interleaving() {
        loom::model(|| {
            let ledger = Arc::new(Ledger::new());
            let cells = Arc::new([UnsafeCell::new(0u8), UnsafeCell::new(0u8)]);
            let writer = thread::spawn({
                let (ledger, cells) = (ledger.clone(), cells.clone());
                move || {
                    for at in 0..2u32 {
                        cells[at as usize].with_mut(|cell| {
                            #[expect(unsafe_code, reason = "loom's cell checks the exclusivity")]
                            // SAFETY: the cell lies past `published`, so it is the writer's.
                            unsafe {
                                *cell = 7;
                            }
                        });
                        ledger.publish(Place { spans: at + 1, bytes: at + 1 });
                    }
                }
            });
            let read = |ledger: &Ledger, cells: &[UnsafeCell<u8>; 2]| -> u32 {
                let Some((from, to)) = ledger.claim() else { return 0 };
                for at in from.bytes..to.bytes {
                    cells[at as usize].with(|cell| {
                        #[expect(unsafe_code, reason = "loom's cell checks the absence of writers")]
                        // SAFETY: the cell lies before `published`, so nobody writes it.
                        let value = unsafe { *cell };
                        assert_eq!(value, 7);
                    });
                }
                to.spans - from.spans
            };
            let reader = thread::spawn({
                let (ledger, cells) = (ledger.clone(), cells.clone());
                move || read(&ledger, &cells)
            });
            let mut spans = read(&ledger, &cells);
            spans += reader.join().expect("reader");
            writer.join().expect("writer");
            spans += read(&ledger, &cells);
            assert_eq!(spans, 2);
        });
    }
}
