//! What becomes of the figures where several threads, or several requests, are at it at once.
//!
//! Wall time is what is taken, but for `runtime`, from the moment at which all threads stand ready to
//! that at which the last is done, and it is divided by what all of them did. So with perfect scaling
//! the time a span is halved on two threads and stays there on a machine of two cores, however many
//! threads share them; where threads get in each other's way it rises again.
//!
//! Threads are spread over the cores and stay where they are put: on a busy machine the system may
//! well put two of them on one core, and its choice is not what is to be measured. Where the system
//! does not let them, that is said.

use std::cell::Cell;
use std::collections::VecDeque;
use std::error::Error;
use std::hint::black_box;
use std::iter;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, Once, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use crossbeam_queue::ArrayQueue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor};
use spanwire_batcher::{Bounds, InvalidBounds, Overflow, Queue, Weigh};
use spanwire_benches::fixtures::{Request, Requests, SCOPE};
use spanwire_benches::process;
use spanwire_benches::rivals::{self, Discard};
use spanwire_benches::sink::{self, Kind, Sink, Taken};
use spanwire_benches::tracers;
use spanwire_tracer::{Sampler, TracedChunk};
use spanwire_transport::{Body, Encoded, Protocol, Transport, TransportConfig};
use tokio::runtime::{self, Runtime};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    if sink::serve_if_asked()? {
        return Ok(());
    }
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    record_on_threads(&mut criterion);
    exports_in_flight(&mut criterion)?;
    hand_over(&mut criterion)?;
    queue(&mut criterion)?;
    served_by(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// Spans of eight attributes recorded on so many threads with one tracer.
///
/// | row | what a span has gone through when the clock stops |
/// | --- | --- |
/// | spanwire | encoded to OTLP bytes in its thread's chunk; full chunks handed over |
/// | opentelemetry_sdk, spans dropped | dropped where it ends: no queue for threads to meet at |
/// | opentelemetry_sdk | in the batch processor's queue, which all threads share, not encoded |
/// | fastrace | in its thread's queue to the collector thread, not encoded |
fn record_on_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_on_threads");
    let requests = Requests::new(SPANS_AT_ONCE);
    rivals::start_fastrace();
    for threads in [1, 2, 4, 8, 16] {
        group.throughput(Throughput::Elements((threads * SPANS_AT_ONCE) as u64));
        let mut row = |name, record: &(dyn Fn(&Request) + Sync), hand_over: &(dyn Fn() + Sync)| {
            let record = || requests.iter().for_each(record);
            group.bench_function(BenchmarkId::new(name, threads), |b| {
                b.iter_custom(|rounds| on_threads(threads, rounds as usize, record, hand_over));
            });
        };

        let provider = tracers::spanwire(Sampler::default());
        let tracer = provider.tracer(SCOPE);
        let sweep = || drop(provider.sweep(|slice| drop(black_box(slice))));
        row("spanwire", &|request| request.record(&tracer), &sweep);

        let dropping = rivals::opentelemetry(rivals::default_sampler(), Discard).tracer(SCOPE);
        row(
            "opentelemetry_sdk, spans dropped",
            &|request| request.record_opentelemetry(&dropping),
            &|| {},
        );

        // The default queue, or one that holds what is recorded between two flushes, and one more;
        // batches are as large. So none is full, which would wake the processor's thread meanwhile.
        let queue = (threads * SPANS_AT_ONCE + 1).max(2_048);
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(queue)
            .with_max_export_batch_size(queue)
            .build();
        let processor = BatchSpanProcessor::builder(Discard).with_batch_config(batch).build();
        let provider = rivals::opentelemetry(rivals::default_sampler(), processor);
        let batching = provider.tracer(SCOPE);
        row("opentelemetry_sdk", &|request| request.record_opentelemetry(&batching), &|| {
            provider.force_flush().expect("it drops everything");
        });

        row("fastrace", &Request::record_fastrace, &fastrace::flush);
    }
    group.finish();
}

/// Spans that each thread records in one go. After it, queues are emptied while the clock stands
/// still, so that nobody gets away with dropping what does not fit. A root span takes three of the
/// 10,240 messages that fastrace's queue of each thread holds.
const SPANS_AT_ONCE: usize = 1_000;

/// The rounds before those that count: threads are new in each measurement, and so are their queues,
/// chunks and heaps, of which fastrace's queue takes longest to be touched once.
const ROUNDS_OF_WARM_UP: usize = 4;

/// The time that all threads took for so many rounds: of each the time from when the first thread
/// starts to when the last is done.
fn on_threads(
    threads: usize,
    rounds: usize,
    record: impl Fn() + Sync,
    hand_over: impl Fn() + Sync,
) -> Duration {
    let (start_line, finish) = (StartLine::new(threads), Barrier::new(threads));
    let round = &|round| {
        start_line.wait(round);
        let start = Instant::now();
        record();
        let end = Instant::now();
        if finish.wait().is_leader() {
            hand_over();
        }
        finish.wait();
        (start, end)
    };
    let rounds = ROUNDS_OF_WARM_UP + rounds;
    let work = &|thread| {
        stay_on_core(thread);
        (0..rounds).map(round).collect::<Vec<_>>()
    };
    let times: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|at| scope.spawn(move || work(at))).collect();
        threads.into_iter().map(|thread| thread.join().expect("records")).collect()
    });
    let wall = |round| {
        let times = || times.iter().map(|thread| thread[round]);
        let start = times().map(|(start, _)| start).min();
        let end = times().map(|(_, end)| end).max();
        end.zip(start).map_or(Duration::ZERO, |(end, start)| end - start)
    };
    (ROUNDS_OF_WARM_UP..rounds).map(wall).sum()
}

/// Keeps this thread on a core.
#[expect(clippy::print_stderr, reason = "what is printed is for who runs the benchmark")]
fn stay_on_core(index: usize) {
    static SAID: Once = Once::new();
    if let Err(error) = process::stay_on_core(index) {
        SAID.call_once(|| eprintln!("threads run where the system puts them: {error}"));
    }
}

/// Where threads wait for each other before the clock starts.
///
/// The last one to arrive lets all go at once. To be woken by it, as from a barrier, would take a
/// thread as long as recording a hundred spans.
struct StartLine {
    threads: usize,
    arrived: AtomicUsize,
}

impl StartLine {
    fn new(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0) }
    }

    fn wait(&self, round: usize) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < self.threads * (round + 1) {
            // More threads than cores arrive only if those here let them.
            thread::yield_now();
        }
    }
}

/// Requests of 100 spans over one gRPC connection, so many in flight all the time. Time is for each
/// request.
fn exports_in_flight(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("exports_in_flight");
    let mut sink = Sink::spawn(Kind::OneWorker)?;
    for in_flight in [1, 10, 100] {
        let sender = Sender::new(&mut sink, 1, in_flight, 100)?;
        group.throughput(Throughput::Elements(in_flight as u64));
        group.bench_function(BenchmarkId::new("spanwire", in_flight), |b| {
            b.iter_custom(|count| sender.send(count));
        });
        sender.all_arrived(&mut sink)?;
    }
    group.finish();
    Ok(())
}

/// Requests of ten spans that a receiver serves, 100 of them in flight over four gRPC connections:
/// small and many, so that it is tasks that cost the receiver, and not bytes. What is taken is the CPU
/// time of the receiver's process, of all its threads, for each request.
fn served_by(criterion: &mut Criterion) -> Result<()> {
    const IN_FLIGHT: usize = 100;
    let mut group = criterion.benchmark_group("runtime");
    group.throughput(Throughput::Elements(IN_FLIGHT as u64));
    let mut row = |name, kind| {
        let mut sink = Sink::spawn(kind)?;
        let sender = Sender::new(&mut sink, 4, IN_FLIGHT, 10)?;
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let mut cpu_time = || sink.cpu_time().expect("the sink answers");
                let before = cpu_time();
                sender.send(count);
                cpu_time() - before
            });
        });
        sender.all_arrived(&mut sink)
    };
    row("spanwire, current_thread", Kind::CurrentThread)?;
    row("tokio's default, multi_thread", Kind::TokioDefault)?;
    group.finish();
    Ok(())
}

/// Sends the same request again and again.
struct Sender {
    runtime: Runtime,
    /// One for each connection.
    transports: Vec<Arc<Transport>>,
    encoded: Encoded,
    in_flight: usize,
    before: Taken,
    sent: Cell<u64>,
}

impl Sender {
    fn new(sink: &mut Sink, connections: usize, in_flight: usize, spans: usize) -> Result<Self> {
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let config = TransportConfig::new(Protocol::Grpc, &sink.grpc_url())?;
        let transport = || Ok(Arc::new(Transport::new(&config)?));
        let transports: Vec<_> =
            iter::repeat_with(transport).take(connections).collect::<Result<_>>()?;
        let body = Body::new([Bytes::from(Requests::new(spans).encoded())], spans);
        let encoded = runtime.block_on(transports[0].encode(&body))?;
        let before = sink.taken()?;
        Ok(Self { runtime, transports, encoded, in_flight, before, sent: Cell::new(0) })
    }

    /// The time in which each of the lanes has sent `count` requests, one after the other.
    fn send(&self, count: u64) -> Duration {
        let start = Instant::now();
        let lane = |transport: &Arc<Transport>| {
            let (transport, encoded) = (transport.clone(), self.encoded.clone());
            self.runtime.spawn(async move {
                for _ in 0..count {
                    let accepted = transport.send(&encoded).await;
                    let accepted = accepted.expect("the sink takes everything");
                    assert_eq!(accepted.rejected_spans, 0);
                }
            })
        };
        let transports = self.transports.iter().cycle().take(self.in_flight);
        let lanes: Vec<_> = transports.map(lane).collect();
        for lane in lanes {
            self.runtime.block_on(lane).expect("no panic");
        }
        self.sent.set(self.sent.get() + count * self.in_flight as u64);
        start.elapsed()
    }

    fn all_arrived(&self, sink: &mut Sink) -> Result<()> {
        let spans = self.sent.get() * self.encoded.spans() as u64;
        sink.taken_since(self.before, spans)?;
        Ok(())
    }
}

/// What threads hand over: as large as what Spanwire's threads do, a chunk with its scope and the
/// number of its spans.
struct Item([usize; WORDS]);

const WORDS: usize = mem::size_of::<TracedChunk>() / mem::size_of::<usize>() + 1;

impl Weigh for Item {
    fn spans(&self) -> usize {
        1
    }

    fn wire_bytes(&self) -> usize {
        mem::size_of::<Self>()
    }

    fn held_bytes(&self) -> usize {
        mem::size_of::<Self>()
    }
}

/// Most items in each of the queues compared.
const ITEMS_MAX: usize = 1_024;

/// A bounded queue from many threads to one.
trait HandOver: Sync {
    /// Hands the item back if there is no room.
    fn push(&self, item: Item) -> std::result::Result<(), Item>;
    fn pop(&self) -> Option<Item>;
    /// Takes what is there at once; returns how many.
    fn drain(&self, take: &mut dyn FnMut(Item)) -> usize;
}

/// Takes all items by exchanging the whole list for an empty one, which is the cheapest.
#[derive(Default)]
struct Locked {
    items: Mutex<VecDeque<Item>>,
    /// Of the one consumer.
    empty: Mutex<VecDeque<Item>>,
}

impl Locked {
    fn items(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandOver for Locked {
    fn push(&self, item: Item) -> std::result::Result<(), Item> {
        push_within_bound(&mut self.items(), item)
    }

    fn pop(&self) -> Option<Item> {
        self.items().pop_front()
    }

    fn drain(&self, take: &mut dyn FnMut(Item)) -> usize {
        let mut taken = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut *taken, &mut *self.items());
        taken.drain(..).map(take).count()
    }
}

/// Looks whether there is something under the reader's lock, which producers don't hold for that
/// long; everything else writes.
impl HandOver for RwLock<VecDeque<Item>> {
    fn push(&self, item: Item) -> std::result::Result<(), Item> {
        push_within_bound(&mut self.write().unwrap_or_else(PoisonError::into_inner), item)
    }

    fn pop(&self) -> Option<Item> {
        if self.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return None;
        }
        self.write().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn drain(&self, take: &mut dyn FnMut(Item)) -> usize {
        let mut items = self.write().unwrap_or_else(PoisonError::into_inner);
        items.drain(..).map(take).count()
    }
}

fn push_within_bound(items: &mut VecDeque<Item>, item: Item) -> std::result::Result<(), Item> {
    if items.len() >= ITEMS_MAX {
        return Err(item);
    }
    items.push_back(item);
    Ok(())
}

impl HandOver for ArrayQueue<Item> {
    fn push(&self, item: Item) -> std::result::Result<(), Item> {
        Self::push(self, item)
    }

    fn pop(&self) -> Option<Item> {
        Self::pop(self)
    }

    fn drain(&self, take: &mut dyn FnMut(Item)) -> usize {
        iter::from_fn(|| Self::pop(self)).take(ITEMS_MAX).map(take).count()
    }
}

/// Bounded in bytes too, and counts what passes.
impl HandOver for Queue<Item> {
    fn push(&self, item: Item) -> std::result::Result<(), Item> {
        match Self::push(self, item, Overflow::DropNewest, drop) {
            Ok(_pushed) => Ok(()),
            Err(refused) => Err(refused.item),
        }
    }

    fn pop(&self) -> Option<Item> {
        Self::pop(self)
    }

    fn drain(&self, take: &mut dyn FnMut(Item)) -> usize {
        Self::drain(self, ITEMS_MAX, take)
    }
}

fn spanwire_queue() -> std::result::Result<Queue<Item>, InvalidBounds> {
    Ok(Queue::new(Bounds::new(ITEMS_MAX, ITEMS_MAX * mem::size_of::<Item>())?))
}

/// Items from so many producers to one consumer, which takes them one by one. Time is for each item.
/// In Spanwire an item is a chunk of some 150 spans.
fn hand_over(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("hand_over");
    let pop = |queue: &dyn HandOver, take: &mut dyn FnMut(Item)| match queue.pop() {
        Some(item) => {
            take(item);
            1
        }
        None => 0,
    };
    for producers in [1, 2, 4] {
        group.throughput(Throughput::Elements((producers * ITEMS_AT_ONCE) as u64));
        let mut row = |name, queue: &dyn HandOver| {
            group.bench_function(BenchmarkId::new(name, producers), |b| {
                b.iter_custom(|times| pass(producers, times, queue, pop));
            });
        };
        row("mutex", &Locked::default());
        row("rwlock", &RwLock::new(VecDeque::new()));
        row("ArrayQueue", &ArrayQueue::new(ITEMS_MAX));
        row("spanwire", &spanwire_queue()?);
    }
    group.finish();
    Ok(())
}

/// Items from two producers to one consumer, which takes all that are there each time it looks. Time
/// is for each item, pushed and drained.
fn queue(criterion: &mut Criterion) -> Result<()> {
    const PRODUCERS: usize = 2;
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements((PRODUCERS * ITEMS_AT_ONCE) as u64));
    let mut row = |name, queue: &dyn HandOver| {
        group.bench_function(name, |b| {
            b.iter_custom(|times| pass(PRODUCERS, times, queue, |queue, take| queue.drain(take)));
        });
    };
    row("spanwire", &spanwire_queue()?);
    row("mutex", &Locked::default());
    row("rwlock", &RwLock::new(VecDeque::new()));
    row("ArrayQueue", &ArrayQueue::new(ITEMS_MAX));
    group.finish();
    Ok(())
}

/// Items that each producer pushes in one run.
const ITEMS_AT_ONCE: usize = 10_000;

/// The time in which each of the producers has pushed its items so many times, and the consumer has all
/// of them. Whoever finds no room, or nothing to take, lets another thread run.
fn pass(
    producers: usize,
    times: u64,
    queue: &dyn HandOver,
    take: impl Fn(&dyn HandOver, &mut dyn FnMut(Item)) -> usize + Sync,
) -> Duration {
    let count = times as usize * ITEMS_AT_ONCE;
    let start_line = StartLine::new(producers + 1);
    let produce = &|producer| {
        stay_on_core(producer);
        start_line.wait(0);
        for number in 0..count {
            let mut item = Item([number; WORDS]);
            while let Err(refused) = queue.push(item) {
                item = refused;
                thread::yield_now();
            }
        }
    };
    let consume = || {
        stay_on_core(producers);
        let (mut taken, mut sum) = (0, 0);
        start_line.wait(0);
        let start = Instant::now();
        while taken < producers * count {
            match take(queue, &mut |item| sum += item.0[WORDS - 1]) {
                0 => thread::yield_now(),
                some => taken += some,
            }
        }
        (start.elapsed(), sum)
    };
    let (elapsed, sum) = thread::scope(|scope| {
        (0..producers).for_each(|producer| drop(scope.spawn(move || produce(producer))));
        scope.spawn(consume).join().expect("consumes")
    });
    assert_eq!(sum, producers * (0..count).sum::<usize>(), "each item came once");
    elapsed
}
