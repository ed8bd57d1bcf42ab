//! When a batch is complete, in virtual time.

use std::time::{Duration, Instant};

use proptest::prelude::{Just, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use spanwire_batcher::{Batch, Batcher, Complete, Limits, Split, Strategy, Weigh};

/// Spans as their sizes in bytes; a property test makes each size tell the span apart.
#[derive(Debug, Clone, PartialEq)]
struct Chunk(Vec<usize>);

impl Weigh for Chunk {
    fn spans(&self) -> usize {
        self.0.len()
    }
    fn wire_bytes(&self) -> usize {
        self.0.iter().sum()
    }
    fn held_bytes(&self) -> usize {
        self.wire_bytes()
    }
}

impl Split for Chunk {
    fn split(mut self, spans_max: usize, bytes_max: usize) -> (Self, Option<Self>) {
        let mut bytes = 0;
        let fitting = self.0.iter().take(spans_max).take_while(|&&span| {
            bytes += span;
            bytes <= bytes_max
        });
        let cut = fitting.count().max(1).min(self.0.len());
        let rest = self.0.split_off(cut);
        (self, (!rest.is_empty()).then_some(Self(rest)))
    }
}

const AGE_MAX: Duration = Duration::from_secs(5);
const MS: Duration = Duration::from_millis(1);

fn batcher(strategy: Strategy, spans_max: usize, bytes_max: usize) -> Batcher<Chunk> {
    let limits = Limits::new(spans_max, bytes_max, AGE_MAX).expect("test limits are above zero");
    Batcher::new(limits, strategy)
}

/// `spans` spans of one byte.
fn chunk(spans: usize) -> Chunk {
    Chunk(vec![1; spans])
}

fn sizes(batch: &Batch<Chunk>) -> Vec<usize> {
    batch.items.iter().flat_map(|item| item.0.clone()).collect()
}

/// The batches that come of `spans`, pushed one by one and flushed at the end.
fn batches(spans_max: usize, bytes_max: usize, spans: &[usize]) -> Vec<Vec<usize>> {
    let mut batcher = batcher(Strategy::Hybrid, spans_max, bytes_max);
    let now = Instant::now();
    let mut batches = Vec::new();
    for &span in spans {
        batches.extend(batcher.push(Chunk(vec![span]), now).map(|b| sizes(&b)));
    }
    while let Some(batch) = batcher.flush() {
        batches.push(sizes(&batch));
    }
    batches
}

/// Spans and reason of each batch.
fn shape(batches: impl Iterator<Item = Batch<Chunk>>) -> Vec<(usize, Complete)> {
    batches.map(|batch| (batch.spans, batch.reason)).collect()
}

/// Faults 99.
#[test]
fn oversized_span_travels_alone() {
    assert_eq!(batches(8, 100, &[10, 500, 10]), [vec![10], vec![500], vec![10]]);
}

#[test]
fn a_batch_is_complete_with_the_span_that_fills_it() {
    assert_eq!(batches(2, 100, &[1, 1, 1]), [vec![1, 1], vec![1]]);
    assert_eq!(batches(8, 100, &[60, 40, 1]), [vec![60, 40], vec![1]]);
}

#[test]
fn a_batch_is_complete_before_the_span_that_would_take_it_over() {
    assert_eq!(batches(8, 100, &[60, 41]), [vec![60], vec![41]]);
}

#[test]
fn an_item_that_fits_a_batch_is_never_split() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 1000);
    let now = Instant::now();
    assert_eq!(shape(batcher.push(chunk(4), now)), []);
    assert_eq!(
        shape(batcher.push(chunk(7), now)),
        [(4, Complete::Spans)],
        "7 more don't fit beside 4, and fit alone"
    );
}

#[test]
fn an_oversized_item_leaves_in_several_batches_and_its_rest_waits_for_more() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 1000);
    let now = Instant::now();
    assert_eq!(shape(batcher.push(chunk(3), now)), []);
    assert_eq!(
        shape(batcher.push(chunk(25), now)),
        [(3, Complete::Spans), (10, Complete::Spans), (10, Complete::Spans)]
    );
    assert_eq!(batcher.spans(), 5);
    assert_eq!(shape(batcher.push(chunk(5), now)), [(10, Complete::Spans)]);
}

#[test]
fn an_item_over_the_byte_limit_is_split_at_span_boundaries() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 100);
    let item = Chunk(vec![40, 40, 40, 500, 30]);
    let batches: Vec<_> = batcher.push(item, Instant::now()).collect();
    assert_eq!(batches.iter().map(sizes).collect::<Vec<_>>(), [vec![40, 40], vec![40], vec![500]]);
    assert!(batches.iter().all(|b| b.reason == Complete::Bytes));
    assert_eq!(batcher.flush().map(|batch| batch.bytes), Some(30));
}

#[test]
fn a_batch_is_complete_when_its_oldest_span_reaches_the_age() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 100);
    let start = Instant::now();
    assert_eq!(batcher.deadline(), None);
    assert_eq!(shape(batcher.push(chunk(1), start)), []);
    assert_eq!(shape(batcher.push(chunk(1), start + 4_000 * MS)), []);
    assert_eq!(batcher.deadline(), Some(start + AGE_MAX));
    assert!(batcher.poll(start + 4_999 * MS).is_none());

    let batch = batcher.poll(start + AGE_MAX).expect("the age is reached");
    assert_eq!((batch.spans, batch.reason), (2, Complete::Age));
    assert_eq!(batch.oldest, start);
    assert_eq!(batcher.deadline(), None);
}

#[test]
fn a_push_after_the_deadline_completes_the_batch_it_joins() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 100);
    let start = Instant::now();
    assert_eq!(shape(batcher.push(chunk(1), start)), []);
    assert_eq!(shape(batcher.push(chunk(1), start + AGE_MAX)), [(2, Complete::Age)]);
}

#[test]
fn an_age_of_zero_completes_each_push() {
    let limits = Limits::new(10, 100, Duration::ZERO).expect("an age of zero is allowed");
    let mut batcher = Batcher::new(limits, Strategy::Hybrid);
    let now = Instant::now();
    assert_eq!(shape(batcher.push(chunk(1), now)), [(1, Complete::Age)]);
}

#[test]
fn an_age_past_the_end_of_the_clock_is_never_reached() {
    let limits = Limits::new(10, 100, Duration::MAX).expect("any age is allowed");
    let mut batcher = Batcher::new(limits, Strategy::Hybrid);
    let now = Instant::now();
    assert_eq!(shape(batcher.push(chunk(1), now)), []);
    assert_eq!(batcher.deadline(), None);
    assert!(batcher.poll(now + 1_000_000 * AGE_MAX).is_none());
}

/// Faults 136.
#[test]
fn time_that_goes_back_makes_no_span_younger() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 100);
    let start = Instant::now();
    assert_eq!(shape(batcher.push(chunk(1), start + 10 * MS)), []);
    assert_eq!(shape(batcher.push(chunk(1), start)), []);
    assert_eq!(batcher.deadline(), Some(start + AGE_MAX));
}

#[test]
fn time_first_looks_at_age_and_bytes_but_not_at_count() {
    let mut batcher = batcher(Strategy::TimeFirst, 2, 100);
    let start = Instant::now();
    assert_eq!(shape(batcher.push(chunk(50), start)), []);
    assert_eq!(shape(batcher.push(chunk(51), start)), [(50, Complete::Bytes)]);
    assert_eq!(batcher.deadline(), Some(start + AGE_MAX));
    assert_eq!(
        batcher.poll(start + AGE_MAX).map(|b| (b.spans, b.reason)),
        Some((51, Complete::Age))
    );
}

#[test]
fn size_first_looks_at_count_and_bytes_but_not_at_age() {
    let mut batcher = batcher(Strategy::SizeFirst, 2, 100);
    let start = Instant::now();
    assert_eq!(shape(batcher.push(chunk(1), start)), []);
    assert_eq!(batcher.deadline(), None);
    let later = start + 1_000 * AGE_MAX;
    assert!(batcher.poll(later).is_none());
    assert_eq!(shape(batcher.push(chunk(1), later)), [(2, Complete::Spans)]);
    assert_eq!(shape(batcher.push(Chunk(vec![100]), later)), [(1, Complete::Bytes)]);
}

#[test]
fn flush_returns_what_is_pending_and_then_nothing() {
    let mut batcher = batcher(Strategy::SizeFirst, 10, 100);
    assert_eq!(shape(batcher.push(chunk(3), Instant::now())), []);
    assert_eq!(batcher.flush().map(|b| (b.spans, b.reason)), Some((3, Complete::Flush)));
    assert!(batcher.flush().is_none());
}

#[test]
fn an_item_without_spans_is_discarded() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 100);
    assert_eq!(shape(batcher.push(chunk(0), Instant::now())), []);
    assert_eq!(batcher.deadline(), None);
    assert!(batcher.flush().is_none());
}

#[test]
fn batches_not_fetched_are_due_at_once_and_come_first() {
    let mut batcher = batcher(Strategy::SizeFirst, 10, 100);
    let now = Instant::now();
    let completed = batcher.push(chunk(25), now);
    assert_eq!(completed.len(), 2);
    drop(completed);

    assert_eq!(batcher.spans(), 25);
    assert_eq!(batcher.deadline(), Some(now));
    assert_eq!(batcher.poll(now).map(|b| b.spans), Some(10));
    assert_eq!(batcher.flush().map(|b| (b.spans, b.reason)), Some((10, Complete::Spans)));
    assert_eq!(batcher.flush().map(|b| (b.spans, b.reason)), Some((5, Complete::Flush)));
}

#[test]
fn what_is_over_lowered_limits_is_complete_as_it_stands() {
    let mut batcher = batcher(Strategy::SizeFirst, 10, 100);
    let now = Instant::now();
    assert_eq!(shape(batcher.push(chunk(8), now)), []);
    let limits = batcher.limits().with_spans_max(5).expect("5 is above zero");
    batcher.set_limits(limits);

    assert_eq!(batcher.deadline(), Some(now));
    assert_eq!(batcher.poll(now).map(|b| (b.spans, b.reason)), Some((8, Complete::Spans)));
    assert_eq!(shape(batcher.push(chunk(5), now)), [(5, Complete::Spans)]);
}

#[test]
fn overhead_is_kept_free_in_each_batch() {
    let limits = Limits::new(100, 100, AGE_MAX)
        .and_then(|limits| limits.with_overhead(20))
        .expect("80 bytes are left");
    let mut batcher = Batcher::new(limits, Strategy::Hybrid);
    let now = Instant::now();
    assert_eq!(shape(batcher.push(chunk(79), now)), []);
    assert_eq!(shape(batcher.push(chunk(2), now)), [(79, Complete::Bytes)]);
    assert_eq!(shape(batcher.push(chunk(78), now)), [(80, Complete::Bytes)]);
}

#[test]
fn stats_count_batches_by_reason_and_how_full_they_were() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 100);
    let now = Instant::now();
    assert_eq!(batcher.stats().mean_fill(), 0.0);
    assert_eq!(batcher.push(chunk(10), now).count(), 1);
    assert_eq!(batcher.push(Chunk(vec![500]), now).count(), 1);
    assert_eq!(batcher.push(chunk(4), now).count(), 0);
    assert!(batcher.poll(now + AGE_MAX).is_some());
    assert_eq!(batcher.push(Chunk(vec![60]), now).count(), 0);
    assert!(batcher.flush().is_some());

    let stats = batcher.stats();
    assert_eq!([stats.by_spans, stats.by_bytes, stats.by_age, stats.by_flush], [1, 1, 1, 1]);
    assert_eq!((stats.batches(), stats.spans, stats.bytes), (4, 16, 574));
    assert_eq!(stats.mean_spans(), 4.0);
    assert!((stats.mean_fill() - (1.0 + 1.0 + 0.4 + 0.6) / 4.0).abs() < 1e-9);
}

/// Says that it can be split, and gives everything back.
#[derive(Debug)]
struct Stubborn;

impl Weigh for Stubborn {
    fn spans(&self) -> usize {
        100
    }
    fn wire_bytes(&self) -> usize {
        100
    }
    fn held_bytes(&self) -> usize {
        100
    }
}

impl Split for Stubborn {
    fn split(self, _: usize, _: usize) -> (Self, Option<Self>) {
        (Self, Some(Self))
    }
}

#[test]
fn a_split_that_gets_nowhere_does_not_hold_up_the_thread() {
    let limits = Limits::new(10, 1000, AGE_MAX).expect("test limits are above zero");
    let mut batcher = Batcher::new(limits, Strategy::Hybrid);
    assert_eq!(batcher.push(Stubborn, Instant::now()).count(), 2);
}

#[test]
fn debug_shows_sizes_and_not_the_items() {
    let mut batcher = batcher(Strategy::Hybrid, 10, 10_000);
    assert_eq!(batcher.push(Chunk(vec![7777]), Instant::now()).count(), 0);
    let shown = format!("{batcher:?}");
    assert!(shown.contains("spans: 1, bytes: 7777"), "{shown}");
    assert!(!shown.contains("Chunk"), "{shown}");
}

const STRATEGIES: [Strategy; 3] = [Strategy::TimeFirst, Strategy::SizeFirst, Strategy::Hybrid];

/// One step of a random run.
#[derive(Debug, Clone)]
enum Step {
    Push(Vec<usize>),
    /// Fetches only so many of the batches completed.
    PushAndFetch(Vec<usize>, usize),
    Wait(Duration),
    Flush,
    SpansMax(usize),
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let item = || prop::collection::vec(1usize..60, 0..30);
    prop::collection::vec(
        prop_oneof![
            6 => item().prop_map(Step::Push),
            1 => (item(), 0usize..3).prop_map(|(item, n)| Step::PushAndFetch(item, n)),
            3 => (0u32..4_000).prop_map(|ms| Step::Wait(ms * MS)),
            1 => Just(Step::Flush),
            1 => (1usize..40).prop_map(Step::SpansMax),
        ],
        0..60,
    )
}

proptest! {
    #[test]
    fn every_span_leaves_in_exactly_one_batch_in_order_and_within_the_limits(
        steps in steps(),
        strategy in prop::sample::select(&STRATEGIES[..]),
        spans_max in 1usize..40,
        bytes_max in 20usize..400,
    ) {
        let mut batcher = batcher(strategy, spans_max, bytes_max);
        let mut now = Instant::now();
        let mut pushed = Vec::new();
        let mut left = Vec::new();
        // The largest of the limits in force while the pending batch was filled.
        let mut spans_limit = spans_max;

        for step in steps.into_iter().chain([Step::Flush]) {
            let mut fetched = Vec::new();
            match step {
                Step::Push(item) => {
                    pushed.extend(&item);
                    fetched.extend(batcher.push(Chunk(item), now));
                }
                Step::PushAndFetch(item, n) => {
                    pushed.extend(&item);
                    fetched.extend(batcher.push(Chunk(item), now).take(n));
                }
                Step::Wait(time) => {
                    now += time;
                    let deadline = batcher.deadline();
                    while let Some(batch) = batcher.poll(now) {
                        prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                        fetched.push(batch);
                    }
                    // Polled until there is nothing: what is pending now is not due.
                    prop_assert!(batcher.deadline().is_none_or(|deadline| deadline > now));
                }
                Step::Flush => {
                    fetched.extend(std::iter::from_fn(|| batcher.flush()));
                    prop_assert_eq!(batcher.spans(), 0);
                }
                Step::SpansMax(spans_max) => {
                    let limits = batcher.limits().with_spans_max(spans_max)?;
                    batcher.set_limits(limits);
                    spans_limit = spans_limit.max(spans_max);
                }
            }
            for batch in fetched {
                let spans = sizes(&batch);
                prop_assert!(batch.items.iter().all(|item| !item.0.is_empty()));
                prop_assert_eq!(batch.spans, spans.len());
                prop_assert_eq!(batch.bytes, spans.iter().sum::<usize>());
                prop_assert!(batch.spans >= 1);
                prop_assert!(batch.bytes <= bytes_max || batch.spans == 1);
                prop_assert!(batch.oldest <= now);
                match strategy {
                    Strategy::TimeFirst => prop_assert!(batch.reason != Complete::Spans),
                    Strategy::SizeFirst => prop_assert!(batch.reason != Complete::Age),
                    Strategy::Hybrid => {}
                }
                if strategy != Strategy::TimeFirst {
                    prop_assert!(batch.spans <= spans_limit);
                }
                if batch.reason == Complete::Age {
                    prop_assert!(now - batch.oldest >= AGE_MAX);
                }
                left.extend(spans);
            }
            prop_assert_eq!(left.len() + batcher.spans(), pushed.len());
            // With nothing pending and nothing complete, later batches know only the last limit.
            if batcher.spans() == 0 {
                spans_limit = batcher.limits().spans_max();
            }
        }

        prop_assert_eq!(&left, &pushed);
        prop_assert_eq!(batcher.stats().spans, pushed.len() as u64);
        prop_assert_eq!(batcher.stats().bytes, pushed.iter().sum::<usize>() as u64);
        prop_assert!((0.0..=1.0).contains(&batcher.stats().mean_fill()));
    }
}
