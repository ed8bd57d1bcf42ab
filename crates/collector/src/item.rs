//! A request on its way to one destination, and the claim that accounts for its spans.

use std::any::Any;
use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use spanwire_batcher::{Split, Weigh};
use spanwire_codec::split;
use spanwire_receiver::{Budget, Compressed};

use crate::delivery::Answer;
use crate::exporter::Place;
use crate::ledger::{DropReason, Ledger};

/// An encoded `ExportTraceServiceRequest` in pieces that joined are its bytes.
///
/// A clone copies pointers: destinations share the bytes.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) pieces: Pieces,
    pub(crate) bytes: usize,
    pub(crate) spans: usize,
    /// What decompresses to exactly these bytes, as a peer sent it; it keeps its own room.
    pub(crate) compressed: Option<Arc<Compressed>>,
    /// Keeps what the pieces occupy in the budget of the process.
    pub(crate) hold: Option<Hold>,
}

/// Keeps room in the budget until it is dropped.
pub(crate) type Hold = Arc<dyn Any + Send + Sync>;

/// Mostly one: what a peer sent in one frame is one piece.
#[derive(Clone)]
pub(crate) enum Pieces {
    One(Bytes),
    Several(Arc<[Bytes]>),
}

impl Pieces {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Bytes> {
        match self {
            Self::One(bytes) => std::slice::from_ref(bytes).iter(),
            Self::Several(pieces) => pieces.iter(),
        }
    }

    /// The bytes in one piece: a copy where they are in several.
    pub(crate) fn joined(&self) -> Bytes {
        match self {
            Self::One(bytes) => bytes.clone(),
            Self::Several(pieces) => pieces.concat().into(),
        }
    }
}

impl From<Vec<Bytes>> for Pieces {
    fn from(mut pieces: Vec<Bytes>) -> Self {
        match pieces.len() {
            1 => Self::One(pieces.swap_remove(0)),
            _ => Self::Several(pieces.into()),
        }
    }
}

/// A request, or a part of one, that a destination has accepted.
pub(crate) struct Item {
    pub(crate) request: Request,
    pub(crate) claim: Claim,
    /// Its place in the queue, given back when it leaves the queue for a batch or a consumer.
    pub(crate) place: Option<Place>,
}

impl Item {
    /// A request for the queue; its spans are in the ledger once they are in the queue.
    pub(crate) fn new(
        request: Request,
        ledger: &Arc<Ledger>,
        answer: Option<Answer>,
        place: Place,
    ) -> Self {
        let claim = Claim { ledger: Arc::clone(ledger), spans: request.spans, answer };
        Self { request, claim, place: Some(place) }
    }

    /// Items of requests within two limits; this one as it is where it is within them, or where
    /// nothing can be cut. What that copies is charged to `budget`, as the spans are taken over.
    pub(crate) fn within(
        mut self,
        spans_max: usize,
        bytes_max: usize,
        budget: &Arc<Budget>,
    ) -> Vec<Self> {
        let Request { spans, bytes, .. } = self.request;
        if spans <= 1 || (spans <= spans_max && bytes <= bytes_max) {
            return vec![self];
        }
        let whole = self.request.pieces.joined();
        match split::request(&whole, spans_max, bytes_max) {
            // What was the whole's is the parts' now.
            Ok(parts) if parts.len() > 1 => {
                let copied = copied(&whole, &parts);
                self.request.hold = Some(match &self.request.pieces {
                    Pieces::One(_) => Arc::new((self.request.hold.take(), budget.charge(copied))),
                    // In place of what they were, there is one copy.
                    Pieces::Several(_) => Arc::new(budget.charge(whole.len() + copied)),
                });
                parts.into_iter().map(|part| self.part(part)).collect()
            }
            Ok(_) | Err(_) => vec![self],
        }
    }

    fn part(&mut self, part: split::Part) -> Self {
        self.claim.spans -= part.spans;
        Self {
            request: Request {
                pieces: part.pieces.into(),
                bytes: part.bytes,
                spans: part.spans,
                compressed: None,
                hold: self.request.hold.clone(),
            },
            claim: Claim {
                ledger: Arc::clone(&self.claim.ledger),
                spans: part.spans,
                answer: self.claim.answer.clone(),
            },
            place: None,
        }
    }
}

/// Bytes of `parts` that are no slices of the `whole`. What parts have in common counts once.
fn copied(whole: &Bytes, parts: &[split::Part]) -> usize {
    let mut seen = HashSet::new();
    let pieces = parts.iter().flat_map(|part| &part.pieces);
    let new = pieces.filter(|piece| !is_slice(piece, whole) && seen.insert(piece.as_ptr()));
    new.map(Bytes::len).sum()
}

/// Whether a piece lies within these bytes.
pub(crate) fn is_slice(piece: &Bytes, of: &Bytes) -> bool {
    of.as_ptr_range().contains(&piece.as_ptr())
}

impl Weigh for Item {
    fn spans(&self) -> usize {
        self.request.spans
    }

    fn wire_bytes(&self) -> usize {
        self.request.bytes
    }

    fn held_bytes(&self) -> usize {
        self.request.bytes
    }
}

impl Split for Item {
    /// A request is cut before it is queued, once; what is too large after that travels alone.
    fn split(self, _spans_max: usize, _bytes_max: usize) -> (Self, Option<Self>) {
        (self, None)
    }
}

/// Spans that are in the ledger as queued, until it is said what became of them. A claim that is
/// dropped before is counted all the same.
pub(crate) struct Claim {
    ledger: Arc<Ledger>,
    spans: usize,
    answer: Option<Answer>,
}

impl Claim {
    /// The destination took all but `rejected` of them.
    pub(crate) fn sent(mut self, rejected: u64, message: Option<&str>) {
        let spans = mem::take(&mut self.spans);
        self.ledger.sent(spans, rejected);
        if let (Some(answer), true) = (&self.answer, rejected > 0 || message.is_some()) {
            answer.rejected(rejected, message);
        }
    }

    /// The spans were not let into the queue, nor into the ledger: they are the sender's still.
    pub(crate) fn withdraw(mut self) {
        self.spans = 0;
        self.answer = None;
    }

    pub(crate) fn dropped(mut self, why: DropReason, message: &str) {
        self.drop_rest(why, message);
    }

    fn drop_rest(&mut self, why: DropReason, message: &str) {
        let spans = mem::take(&mut self.spans);
        if spans == 0 {
            return;
        }
        self.ledger.dropped(spans, why);
        let Some(answer) = &self.answer else { return };
        match why {
            DropReason::Rejected | DropReason::TooLarge => {
                answer.rejected(spans as u64, Some(message));
            }
            DropReason::QueueFull
            | DropReason::RetriesExhausted
            | DropReason::WriteFailed
            | DropReason::Shutdown
            | DropReason::Internal => answer.gave_up(spans as u64, message),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Work that ends halfway was ended for want of time, unless a fault of our own did it.
        let why = match std::thread::panicking() {
            true => DropReason::Internal,
            false => DropReason::Shutdown,
        };
        self.drop_rest(why, "the collector gave up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(ledger: &Arc<Ledger>, spans: usize) -> Claim {
        assert!(ledger.accept(spans, || None::<()>).is_none(), "it is taken");
        Claim { ledger: Arc::clone(ledger), spans, answer: None }
    }

    #[test]
    fn parts_of_a_request_in_pieces_hold_the_copy_that_they_were_cut_from_and_their_envelopes() {
        // Two spans, of a kind each.
        let bytes = [0x0A, 10, 0x12, 8, 0x12, 2, 0x30, 1, 0x12, 2, 0x30, 2];
        let (ledger, budget) = (Arc::<Ledger>::default(), Arc::new(Budget::new(20)));
        let items = |pieces: Vec<Bytes>| {
            let hold = Some(Arc::new(budget.reserve(20).expect("a fresh budget")) as Hold);
            let (bytes, pieces) = (bytes.len(), pieces.into());
            let request = Request { pieces, bytes, spans: 2, compressed: None, hold };
            let item = Item { request, claim: claim(&ledger, 2), place: None };
            item.within(1, usize::MAX, &budget)
        };
        let parts = items(vec![Bytes::copy_from_slice(&bytes)]);
        assert_eq!((parts.len(), budget.bytes()), (2, 20 + 2 * 4), "beside the limit of 20");
        drop(parts);
        let mut parts = items(bytes.chunks(7).map(Bytes::copy_from_slice).collect());
        assert_eq!((parts.len(), budget.bytes()), (2, 12 + 2 * 4), "in place of what came");
        parts.pop();
        assert_eq!(budget.bytes(), 20, "they share it");
        drop(parts);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn what_is_given_up_halfway_is_counted_by_whether_that_was_a_fault() {
        let ledger = Arc::<Ledger>::default();
        let (first, second) = (claim(&ledger, 3), claim(&ledger, 5));
        drop(first);
        let faulty = std::thread::spawn(move || {
            let _claim = second;
            panic!("a fault, as this test needs one");
        });
        assert!(faulty.join().is_err());
        let account = ledger.read();
        assert_eq!(account.dropped(DropReason::Shutdown), 3);
        assert_eq!(account.dropped(DropReason::Internal), 5);
        assert_eq!((account.queued, account.imbalance()), (0, 0));
    }

    #[test]
    fn what_the_queue_does_not_take_was_never_accepted() {
        let ledger = Arc::<Ledger>::default();
        let other = claim(&ledger, 2);
        let before = ledger.read();
        let claim = Claim { ledger: Arc::clone(&ledger), spans: 7, answer: None };
        let claim = ledger.accept(7, || Some(claim)).expect("it is closed");
        claim.withdraw();
        assert_eq!(ledger.read(), before);
        other.sent(0, None);
        assert_eq!(ledger.read().sent, 2);
    }
}
