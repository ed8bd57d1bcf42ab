//! What a queue takes, sheds and gives back, and that threads racing for it lose nothing.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use spanwire_batcher::{
    Bounds, InvalidBounds, Overflow, PushError, Pushed, Queue, QueueStats, Refusal, Weigh,
};

/// An item that can be told from others.
#[derive(Debug, Clone, PartialEq)]
struct Chunk {
    id: u64,
    spans: usize,
    bytes: usize,
}

impl Weigh for Chunk {
    fn spans(&self) -> usize {
        self.spans
    }
    fn wire_bytes(&self) -> usize {
        self.bytes
    }
    fn held_bytes(&self) -> usize {
        self.bytes
    }
}

/// Longer than any test should run: a wait that ends by it fails its test.
const FOREVER: Duration = Duration::from_secs(30);
const BLOCK: Overflow = Overflow::Block { timeout: FOREVER };

fn queue(items_max: usize, bytes_max: usize) -> Queue<Chunk> {
    Queue::new(Bounds::new(items_max, bytes_max).expect("test bounds are in range"))
}

/// A chunk of `bytes` bytes and as many spans.
fn chunk(id: u64, bytes: usize) -> Chunk {
    let spans = bytes;
    Chunk { id, spans, bytes }
}

/// Pushes where nothing is to be evicted.
fn push(queue: &Queue<Chunk>, item: Chunk, overflow: Overflow) -> Result<Pushed, (u64, Refusal)> {
    queue
        .push(item, overflow, |shed| panic!("evicted {shed:?}"))
        .map_err(|refused| (refused.item.id, refused.reason))
}

fn fill(queue: &Queue<Chunk>, sizes: &[usize]) {
    for (id, &bytes) in (0..).zip(sizes) {
        push(queue, chunk(id, bytes), Overflow::DropNewest).expect("the queue has room");
    }
}

fn ids(queue: &Queue<Chunk>) -> Vec<u64> {
    std::iter::from_fn(|| queue.pop()).map(|item| item.id).collect()
}

#[test]
fn items_leave_in_the_order_they_came() {
    let queue = queue(8, 100);
    fill(&queue, &[1, 2, 3]);
    assert_eq!((queue.len(), queue.bytes()), (3, 6));
    assert_eq!(ids(&queue), [0, 1, 2]);
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
}

#[test]
fn the_newest_is_handed_back_when_the_slots_are_taken() {
    let queue = queue(2, 100);
    fill(&queue, &[1, 1]);
    assert_eq!(push(&queue, chunk(9, 1), Overflow::DropNewest), Err((9, Refusal::Full)));
    assert_eq!(ids(&queue), [0, 1]);
}

#[test]
fn the_newest_is_handed_back_when_its_bytes_do_not_fit() {
    let queue = queue(8, 100);
    fill(&queue, &[60]);
    assert_eq!(push(&queue, chunk(9, 41), Overflow::DropNewest), Err((9, Refusal::Full)));
    assert!(push(&queue, chunk(9, 40), Overflow::DropNewest).is_ok());
    assert_eq!(queue.bytes(), 100);
}

#[test]
fn as_many_of_the_oldest_are_evicted_as_are_needed_and_each_is_counted() {
    let queue = queue(8, 100);
    fill(&queue, &[10, 20, 30, 40]);
    let mut shed = Vec::new();
    let pushed = queue
        .push(chunk(9, 25), Overflow::DropOldest, |item| shed.push(item.id))
        .expect("the oldest make room");
    assert_eq!(shed, [0, 1]);
    assert_eq!((pushed.items, pushed.bytes), (3, 95));
    assert_eq!(queue.stats().evicted, 30);
    assert_eq!(ids(&queue), [2, 3, 9]);
}

#[test]
fn an_item_larger_than_the_queue_is_refused_at_once_and_evicts_nothing() {
    let queue = queue(8, 100);
    fill(&queue, &[10]);
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, BLOCK] {
        assert_eq!(push(&queue, chunk(9, 101), overflow), Err((9, Refusal::TooLarge)));
    }
    assert_eq!(queue.stats().refused_too_large, 303);
    assert_eq!(ids(&queue), [0]);
}

#[test]
fn a_dead_consumer_costs_one_timeout_and_not_one_for_each_push() {
    let timeout = Duration::from_millis(50);
    let block = Overflow::Block { timeout };
    let queue = queue(1, 100);
    fill(&queue, &[1]);

    let start = Instant::now();
    assert_eq!(push(&queue, chunk(1, 1), block), Err((1, Refusal::TimedOut)));
    assert!(start.elapsed() >= timeout);
    for _ in 0..1_000_000 {
        assert_eq!(push(&queue, chunk(2, 1), block), Err((2, Refusal::Full)));
    }

    // A sign of life, and it may wait again.
    assert!(queue.pop().is_some());
    fill(&queue, &[1]);
    assert_eq!(push(&queue, chunk(3, 1), block), Err((3, Refusal::TimedOut)));
    assert_eq!(queue.stats().refused_timed_out, 2);
}

#[test]
fn a_wait_in_vain_does_not_spare_the_next_one_if_the_consumer_was_alive() {
    let timeout = Duration::from_millis(50);
    let block = Overflow::Block { timeout };
    let queue = queue(8, 100);
    fill(&queue, &[50, 50]);
    let waited = AtomicBool::new(false);
    thread::scope(|scope| {
        // Never more than 50 of the 100 bytes are free, so this one waits in vain.
        let greedy = scope.spawn(|| {
            let refused = push(&queue, chunk(9, 100), block);
            waited.store(true, Relaxed);
            refused
        });
        while !waited.load(Relaxed) {
            assert!(queue.pop().is_some());
            push(&queue, chunk(1, 50), Overflow::DropNewest).expect("50 bytes are free");
        }
        assert_eq!(greedy.join().expect("no panic"), Err((9, Refusal::TimedOut)));
    });
    assert_eq!(
        push(&queue, chunk(9, 100), block),
        Err((9, Refusal::TimedOut)),
        "waited again instead of failing at once"
    );
}

#[test]
fn a_timeout_of_zero_never_waits_and_marks_nobody_dead() {
    let timeout = Duration::ZERO;
    let queue = queue(1, 100);
    fill(&queue, &[1]);
    assert_eq!(push(&queue, chunk(1, 1), Overflow::Block { timeout }), Err((1, Refusal::Full)));
    let timeout = Duration::from_millis(1);
    assert_eq!(push(&queue, chunk(1, 1), Overflow::Block { timeout }), Err((1, Refusal::TimedOut)));
}

#[test]
fn a_closed_queue_refuses_pushes_and_gives_out_what_it_holds() {
    let queue = queue(2, 100);
    fill(&queue, &[1, 1]);
    queue.close();
    assert_eq!(push(&queue, chunk(9, 3), Overflow::DropOldest), Err((9, Refusal::Closed)));
    assert_eq!(queue.stats().refused_closed, 3);
    assert!(!queue.is_finished());
    assert_eq!(queue.bytes(), 2);
    assert_eq!(ids(&queue), [0, 1]);
    assert!(queue.is_finished());
}

#[test]
fn an_open_queue_is_never_finished() {
    assert!(!queue(1, 1).is_finished());
}

#[test]
fn drain_takes_the_oldest_up_to_its_maximum_and_frees_their_room() {
    let queue = queue(4, 100);
    fill(&queue, &[10, 20, 30, 40]);
    let mut taken = Vec::new();
    assert_eq!(queue.drain(3, |item| taken.push(item.id)), 3);
    assert_eq!(taken, [0, 1, 2]);
    assert_eq!((queue.len(), queue.bytes()), (1, 40));
    assert_eq!(queue.drain(0, |item| taken.push(item.id)), 0);
    assert_eq!(queue.drain(3, |item| taken.push(item.id)), 1);
    assert_eq!(queue.drain(3, |item| taken.push(item.id)), 0);
    assert_eq!(queue.stats().popped, 100);
}

#[test]
fn a_panic_while_draining_keeps_the_account() {
    let queue = queue(4, 100);
    fill(&queue, &[10, 20, 30]);
    let drained = catch_unwind(AssertUnwindSafe(|| {
        queue.drain(4, |item| assert_ne!(item.id, 1, "the consumer fails"))
    }));
    assert!(drained.is_err());
    assert_eq!((queue.len(), queue.bytes()), (1, 30));
    assert_eq!((queue.stats().popped, queue.stats().queued()), (30, 30));
}

#[test]
fn a_weight_that_changes_while_queued_is_given_back_as_it_was_taken() {
    struct Growing(AtomicUsize);
    impl Weigh for Growing {
        fn spans(&self) -> usize {
            self.0.load(Relaxed)
        }
        fn wire_bytes(&self) -> usize {
            self.0.load(Relaxed)
        }
        fn held_bytes(&self) -> usize {
            self.0.fetch_add(1, Relaxed)
        }
    }
    let queue = Queue::new(Bounds::new(4, 100).expect("test bounds are in range"));
    let item = Growing(AtomicUsize::new(10));
    assert!(queue.push(item, Overflow::DropNewest, drop).is_ok());
    assert!(queue.pop().is_some_and(|item| item.spans() == 11));
    assert_eq!((queue.bytes(), queue.stats().queued()), (0, 0));
}

#[test]
fn a_push_tells_whether_the_queue_was_empty_and_which_thresholds_it_crossed() {
    let queue = queue(8, 100);
    let first = push(&queue, chunk(0, 40), Overflow::DropNewest).expect("there is room");
    assert!(first.to_empty());
    assert_eq!([40, 41].map(|bytes| first.crossed(bytes)), [true, false]);
    let second = push(&queue, chunk(1, 40), Overflow::DropNewest).expect("there is room");
    assert!(!second.to_empty());
    assert_eq!([40, 41, 80, 81].map(|bytes| second.crossed(bytes)), [false, true, true, false]);
}

#[test]
fn fill_follows_the_bound_that_is_nearer() {
    let queue = queue(4, 100);
    assert_eq!(queue.fill(), 0.0);
    fill(&queue, &[10]);
    assert_eq!(queue.fill(), 0.25);
    fill(&queue, &[80]);
    assert_eq!(queue.fill(), 0.9);
}

#[test]
fn bounds_that_a_queue_cannot_count_are_refused() {
    for items_max in [0, 1 << 23] {
        let refused = Err(InvalidBounds::Items { items_max });
        assert_eq!(Bounds::new(items_max, 1), refused);
    }
    for bytes_max in [0, 1 << 40] {
        let refused = Err(InvalidBounds::Bytes { bytes_max });
        assert_eq!(Bounds::new(1, bytes_max), refused);
    }
    assert!(Bounds::new((1 << 23) - 1, (1 << 40) - 1).is_ok());
}

#[test]
fn debug_and_display_show_no_items() {
    let queue = queue(1, 4);
    let refused = queue
        .push(chunk(7777, 5), Overflow::DropNewest, drop)
        .expect_err("5 bytes are more than 4");
    assert_eq!(refused.to_string(), "queue refused the item: larger than the whole queue");
    assert!(!format!("{refused:?} {queue:?}").contains("7777"));
}

/// One step of a random run on one thread.
#[derive(Debug, Clone)]
enum Step {
    Push { bytes: usize, evict: bool },
    Pop,
    Drain(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..60, any::<bool>()).prop_map(|(bytes, evict)| Step::Push { bytes, evict }),
        1 => Just(Step::Pop),
        1 => (0usize..5).prop_map(Step::Drain),
    ]
}

proptest! {
    /// On one thread, the queue is a `VecDeque` that checks two sums.
    #[test]
    fn a_queue_does_what_its_description_says(
        items_max in 1usize..8,
        bytes_max in 1usize..200,
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let queue = queue(items_max, bytes_max);
        let mut model: VecDeque<Chunk> = VecDeque::new();
        let mut stats = QueueStats::default();
        let held = |model: &VecDeque<Chunk>| model.iter().map(|item| item.bytes).sum::<usize>();

        for (id, step) in (0..).zip(steps) {
            match step {
                Step::Push { bytes, evict } => {
                    let mut shed = Vec::new();
                    let overflow = if evict { Overflow::DropOldest } else { Overflow::DropNewest };
                    let answer = queue
                        .push(chunk(id, bytes), overflow, |item| shed.push(item))
                        .map_err(|PushError { reason, .. }| reason);

                    let fits = |model: &VecDeque<Chunk>| {
                        model.len() < items_max && held(model) + bytes <= bytes_max
                    };
                    let mut expected_shed = Vec::new();
                    while evict && bytes <= bytes_max && !fits(&model) {
                        expected_shed.extend(model.pop_front());
                    }
                    prop_assert_eq!(&shed, &expected_shed);
                    stats.evicted += shed.iter().map(|item| item.spans as u64).sum::<u64>();
                    if bytes > bytes_max {
                        prop_assert_eq!(answer, Err(Refusal::TooLarge));
                        stats.refused_too_large += bytes as u64;
                    } else if !fits(&model) {
                        prop_assert_eq!(answer, Err(Refusal::Full));
                        stats.refused_full += bytes as u64;
                    } else {
                        let pushed = answer?;
                        model.push_back(chunk(id, bytes));
                        stats.pushed += bytes as u64;
                        prop_assert_eq!(pushed.items, model.len());
                        prop_assert_eq!(pushed.bytes, held(&model));
                    }
                }
                Step::Pop => {
                    let item = queue.pop();
                    stats.popped += item.as_ref().map_or(0, |item| item.spans as u64);
                    prop_assert_eq!(item, model.pop_front());
                }
                Step::Drain(items) => {
                    let mut taken = Vec::new();
                    prop_assert_eq!(queue.drain(items, |item| taken.push(item)), taken.len());
                    stats.popped += taken.iter().map(|item| item.spans as u64).sum::<u64>();
                    let items = items.min(model.len());
                    prop_assert_eq!(taken, model.drain(..items).collect::<Vec<_>>());
                }
            }
            prop_assert_eq!((queue.len(), queue.bytes()), (model.len(), held(&model)));
            prop_assert_eq!(queue.stats(), stats);
            prop_assert_eq!(stats.queued(), held(&model) as u64);
        }
    }
}

const PRODUCERS: u64 = 8;
const PUSHES: u64 = 20_000;
/// Every how many pops a racing consumer lets the producers get ahead of it.
const REST_EVERY: usize = 64;

/// Many producers against one consumer and an observer of the bounds, each id told apart.
fn race(
    items_max: usize,
    bytes_max: usize,
    overflow: impl Fn(u64) -> Overflow + Sync,
) -> QueueStats {
    let began = Instant::now();
    let queue = queue(items_max, bytes_max);
    // How often each item has left, whichever way.
    let left: Vec<AtomicU64> = (0..PRODUCERS * PUSHES).map(|_| AtomicU64::new(0)).collect();
    let leave = |item: &Chunk| {
        left[item.id as usize].fetch_add(1, Relaxed);
    };
    let start = Barrier::new(PRODUCERS as usize + 1);
    let (mut popped, refused) = (0, AtomicU64::new(0));

    thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let (queue, start, refused) = (&queue, &start, &refused);
                let (leave, overflow) = (&leave, &overflow);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..PUSHES {
                        let id = producer * PUSHES + n;
                        let item = chunk(id, 1 + (id % 13) as usize);
                        if let Err(back) = queue.push(item, overflow(id), |shed| leave(&shed)) {
                            refused.fetch_add(back.item.spans as u64, Relaxed);
                            leave(&back.item);
                        }
                    }
                })
            })
            .collect();
        let observer = scope.spawn(|| {
            start.wait();
            while !queue.is_finished() && began.elapsed() < FOREVER {
                assert!(queue.len() <= items_max && queue.bytes() <= bytes_max);
                let stats = queue.stats();
                assert!(stats.pushed >= stats.popped + stats.evicted, "{stats:?}");
                thread::yield_now();
            }
        });
        let consumer = scope.spawn(|| {
            let mut popped = 0;
            for round in 0.. {
                if queue.is_finished() || began.elapsed() >= FOREVER {
                    break;
                }
                if round % REST_EVERY == 0 {
                    thread::yield_now();
                }
                let mut take = |item: Chunk| {
                    popped += item.spans as u64;
                    leave(&item);
                };
                if round % 2 == 0 {
                    queue.drain(3, take);
                } else if let Some(item) = queue.pop() {
                    take(item);
                }
            }
            popped
        });
        // Closed before a failure is told of, or the others would wait for ever.
        let finished: Vec<_> = producers.into_iter().map(|p| p.join()).collect();
        queue.close();
        assert!(finished.iter().all(Result::is_ok));
        observer.join().expect("no bound is passed");
        popped = consumer.join().expect("the consumer doesn't panic");
    });

    assert!(began.elapsed() < FOREVER, "a wake-up was lost");
    assert!(left.iter().all(|times| times.load(Relaxed) == 1));
    let stats = queue.stats();
    assert_eq!((queue.len(), queue.bytes(), stats.queued()), (0, 0, 0));
    assert_eq!(stats.popped, popped);
    assert_eq!(stats.refused_full, refused.into_inner());
    let all: u64 = (0..PRODUCERS * PUSHES).map(|id| 1 + id % 13).sum();
    assert_eq!(stats.pushed + stats.refused_full, all);
    stats
}

#[test]
fn racing_producers_that_drop_the_newest_lose_nothing_uncounted() {
    let stats = race(16, 100, |_| Overflow::DropNewest);
    assert!(stats.refused_full > 0 && stats.evicted == 0, "{stats:?}");
}

#[test]
fn racing_producers_that_drop_the_oldest_lose_nothing_uncounted() {
    let stats = race(16, 100, |_| Overflow::DropOldest);
    assert!(stats.evicted > 0, "{stats:?}");
}

#[test]
fn racing_producers_that_block_lose_nothing_at_all() {
    let stats = race(2, 20, |_| BLOCK);
    assert_eq!(stats.pushed, stats.popped);
}

#[test]
fn racing_producers_of_every_policy_lose_nothing_uncounted() {
    race(4, 40, |id| match id % 3 {
        0 => Overflow::DropNewest,
        1 => Overflow::DropOldest,
        _ => BLOCK,
    });
}

/// The rule of "Waking the consumer": a wake-up that is missed would leave the consumer asleep, and
/// the producers waiting for it until their timeout.
#[test]
fn a_consumer_that_sleeps_only_when_the_queue_is_empty_is_always_woken() {
    let began = Instant::now();
    let queue = queue(4, 100);
    thread::scope(|scope| {
        let consumer = scope.spawn(|| {
            let mut items = 0;
            while !queue.is_finished() && began.elapsed() < FOREVER {
                if queue.is_empty() {
                    thread::park();
                }
                items += queue.drain(4, drop);
            }
            items as u64
        });
        let sleeper = consumer.thread().clone();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|_| {
                let (queue, sleeper) = (&queue, sleeper.clone());
                scope.spawn(move || {
                    for id in 0..PUSHES {
                        let pushed = push(queue, chunk(id, 1), BLOCK).expect("a wake-up was lost");
                        if pushed.to_empty() {
                            sleeper.unpark();
                        }
                    }
                })
            })
            .collect();
        let finished: Vec<_> = producers.into_iter().map(|p| p.join()).collect();
        queue.close();
        sleeper.unpark();
        assert!(finished.iter().all(Result::is_ok));
        assert_eq!(consumer.join().expect("the consumer doesn't panic"), PRODUCERS * PUSHES);
    });
}

#[test]
fn each_crossing_of_a_threshold_is_seen_by_exactly_one_push() {
    let queue = queue(1 << 16, 1 << 20);
    let crossings = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            scope.spawn(|| {
                for id in 0..1_000 {
                    let pushed = push(&queue, chunk(id, 7), Overflow::DropNewest);
                    let crossed = pushed.expect("there is room").crossed(25_000);
                    crossings.fetch_add(u64::from(crossed), Relaxed);
                }
            });
        }
    });
    assert!(queue.bytes() > 25_000);
    assert_eq!(crossings.into_inner(), 1);
}
