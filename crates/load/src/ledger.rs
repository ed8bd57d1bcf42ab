//! Which spans arrived, one by one.

use std::ops::Range;

use spanwire_codec::view::{Malformed, Request, Span};

use crate::template::{PREFIX_LEN, Run, SPAN_ID, TRACE_ID};

/// The spans of one run that arrived, each by its number.
///
/// One bit a span, in pages of 8 KiB; a page of which all spans arrived is given back, so what a
/// long run without losses takes is 16 bytes for 65,536 spans.
#[derive(Debug)]
pub struct Ledger {
    prefix: [u8; PREFIX_LEN],
    pages: Vec<Page>,
    arrived: Arrived,
}

/// How many spans arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Spans of this run, each counted once.
    pub distinct: u64,
    /// How often a span of this run came once more.
    pub duplicated: u64,
    /// Spans of another run, or of something else.
    pub unknown: u64,
}

#[derive(Debug)]
enum Page {
    Empty,
    Part { words: Box<[u64; PAGE_WORDS]>, set: usize },
    Full,
}

impl Ledger {
    /// The most spans a run may have: what a number beyond could make the ledger allocate is bounded
    /// by it, at 16 MiB of empty pages.
    pub const SPANS_MAX: u64 = 1 << 36;

    /// An empty ledger for the spans of `run`.
    #[must_use]
    pub const fn new(run: Run) -> Self {
        let arrived = Arrived { distinct: 0, duplicated: 0, unknown: 0 };
        Self { prefix: run.prefix(), pages: Vec::new(), arrived }
    }

    /// Enters all spans of an encoded export request. Costs some ten nanoseconds a span.
    ///
    /// # Errors
    ///
    /// [`Malformed`], if `request` is none; nothing is entered then.
    pub fn enter(&mut self, request: &[u8]) -> Result<(), Malformed> {
        let request = Request::parse(request)?;
        let scopes = request.resource_spans().flat_map(|resource| resource.scope_spans());
        for span in scopes.flat_map(|scope| scope.spans()) {
            match ids(&span) {
                Some((trace, id)) => self.enter_span(&trace, id),
                None => self.arrived.unknown += 1,
            }
        }
        Ok(())
    }

    fn enter_span(&mut self, trace_id: &[u8; 16], span_id: [u8; 8]) {
        let number = u64::from_be_bytes(span_id);
        if trace_id[..PREFIX_LEN] != self.prefix || number == 0 || number > Self::SPANS_MAX {
            self.arrived.unknown += 1;
            return;
        }
        // At most 2^36, and so a `usize` wherever a ledger of that many spans fits at all.
        let index = (number - 1) as usize;
        let (page, bit) = (index / PAGE_SPANS, index % PAGE_SPANS);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || Page::Empty);
        }
        if self.pages[page].set(bit) {
            self.arrived.distinct += 1;
        } else {
            self.arrived.duplicated += 1;
        }
    }

    /// What was counted so far.
    #[must_use]
    pub const fn arrived(&self) -> Arrived {
        self.arrived
    }

    /// The numbers of those among the first `spans` spans that did not arrive, as ranges in order.
    #[must_use]
    pub fn missing(&self, spans: u64) -> Vec<Range<u64>> {
        let mut missing: Vec<Range<u64>> = Vec::new();
        let mut add = |from: u64, to: u64| match missing.last_mut() {
            Some(last) if last.end == from => last.end = to,
            _ => missing.push(from..to),
        };
        let mut first = 1;
        for page in &self.pages {
            let end = first + PAGE_SPANS as u64;
            match page {
                Page::Full => {}
                Page::Empty => add(first, end),
                Page::Part { words, .. } => {
                    for (word, at) in words.iter().zip((first..).step_by(WORD_SPANS)) {
                        match *word {
                            0 => add(at, at + WORD_SPANS as u64),
                            u64::MAX => {}
                            word => (0..WORD_SPANS as u64)
                                .filter(|bit| word & 1 << bit == 0)
                                .for_each(|bit| add(at + bit, at + bit + 1)),
                        }
                    }
                }
            }
            first = end;
        }
        add(first, u64::MAX);
        missing.retain_mut(|range| {
            range.end = range.end.min(spans.saturating_add(1));
            range.start < range.end
        });
        missing
    }
}

impl Page {
    /// Whether the bit was not set before.
    fn set(&mut self, bit: usize) -> bool {
        if let Self::Empty = self {
            *self = Self::Part { words: Box::new([0; PAGE_WORDS]), set: 0 };
        }
        let Self::Part { words, set } = self else { return false };
        let (word, mask) = (&mut words[bit / WORD_SPANS], 1 << (bit % WORD_SPANS));
        if *word & mask != 0 {
            return false;
        }
        *word |= mask;
        *set += 1;
        if *set == PAGE_SPANS {
            *self = Self::Full;
        }
        true
    }
}

/// A span's ids, unless one has the wrong length.
///
/// Encoders write the ids first, and a look there costs a few nanoseconds, where a walk over the
/// span costs some fifty for each id.
fn ids(span: &Span<'_>) -> Option<([u8; 16], [u8; 8])> {
    let at_the_front = || {
        let rest = span.bytes().strip_prefix(&TRACE_ID)?;
        let (trace, rest) = rest.split_first_chunk()?;
        let (id, _) = rest.strip_prefix(&SPAN_ID)?.split_first_chunk()?;
        Some((*trace, *id))
    };
    at_the_front().or_else(|| span.trace_id().zip(span.span_id()))
}

const WORD_SPANS: usize = 64;
const PAGE_WORDS: usize = 1 << 10;
const PAGE_SPANS: usize = PAGE_WORDS * WORD_SPANS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;

    const RUN: Run = Run::new(42);

    fn request(template: &Template, number: u64) -> Vec<u8> {
        let mut copy = template.copy();
        template.write(number, 1_000_000_000_000, &mut copy);
        copy.to_vec()
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges is what is meant")]
    fn what_came_once_twice_or_never_is_known_span_by_span() {
        let template = Template::new(RUN, 10, 2);
        let mut ledger = Ledger::new(RUN);
        for number in [0, 2, 3, 2] {
            ledger.enter(&request(&template, number)).expect("a request");
        }
        assert_eq!(ledger.arrived(), Arrived { distinct: 30, duplicated: 10, unknown: 0 });
        assert_eq!(ledger.missing(40), [11..21]);
        assert_eq!(ledger.missing(43), [11..21, 41..44]);
        assert_eq!(ledger.missing(15), [11..16]);
        assert_eq!(ledger.missing(10), []);
    }

    #[test]
    fn spans_of_another_run_or_beyond_all_numbers_count_apart() {
        let mut ledger = Ledger::new(RUN);
        ledger.enter(&request(&Template::new(Run::new(41), 10, 0), 0)).expect("a request");
        let far = Ledger::SPANS_MAX / 10;
        ledger.enter(&request(&Template::new(RUN, 10, 0), far)).expect("a request");
        assert_eq!(ledger.arrived().unknown, 10 + 4, "2^36 ends in 6");
        assert_eq!(ledger.arrived().distinct, 6);
        assert!(ledger.enter(b"no request").is_err());
    }

    #[test]
    fn a_full_page_takes_no_memory_and_still_knows_duplicates() {
        let template = Template::new(RUN, 1 << 10, 0);
        let mut ledger = Ledger::new(RUN);
        let requests = (PAGE_SPANS >> 10) as u64;
        (0..requests).for_each(|i| ledger.enter(&request(&template, i)).expect("a request"));
        assert!(matches!(ledger.pages[..], [Page::Full]));
        ledger.enter(&request(&template, 5)).expect("a request");
        assert_eq!(ledger.arrived().duplicated, 1 << 10);
        assert_eq!(ledger.missing(PAGE_SPANS as u64), []);
    }

    #[test]
    fn ids_are_found_wherever_they_lie_in_a_span() {
        let body = |fields: &[&[u8]]| fields.concat();
        let trace: &[u8] = &[&TRACE_ID[..], &[7; 16]].concat();
        let id: &[u8] = &[&SPAN_ID[..], &[9; 8]].concat();
        let kind: &[u8] = &[6 << 3, 2];
        for fields in [[trace, id, kind], [kind, id, trace], [trace, kind, id]] {
            assert_eq!(ids(&Span::new(&body(&fields))), Some(([7; 16], [9; 8])));
        }
        assert_eq!(ids(&Span::new(kind)), None);
    }
}
