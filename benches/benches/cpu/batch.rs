//! Finished spans until a batch of them is complete.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _,
};
use spanwire_batcher::{Batch, Batcher, Bounds, Limits, Overflow, Queue, Split, Strategy, Weigh};
use spanwire_benches::fixtures::Requests;
use spanwire_codec::{encode, split, view};
use spanwire_pool::{Chunk, ChunkPool, ChunkSettings, ChunkWriter, Slice};

/// So many finished spans of eight attributes, handed over one by one where they end, until the
/// exporter's side has a batch of all of them.
///
/// | row | what a span goes through |
/// | --- | --- |
/// | spanwire | copied, encoded, into a chunk; chunks go through the queue to the batcher on its thread |
/// | opentelemetry_sdk | the batch processor's channel, and its thread's vector |
///
/// In either row waking that thread is included, and being woken by the batch that it hands back.
/// Making the spans and dropping the batch is not timed.
pub(crate) fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    for count in [10, 100, 1_000, 10_000] {
        group.throughput(Throughput::Elements(count as u64));
        let requests = Requests::new(count);

        let mut encoded = Vec::new();
        encode::put_batch(&requests.model(), &mut encoded);
        let spans = framed(&encoded);
        let hand_over = HandOver::new(count);
        group.bench_function(BenchmarkId::new("spanwire", count), |b| {
            b.iter_custom(|batches| {
                let batch = || {
                    let start = Instant::now();
                    let batch = hand_over.batch(&spans);
                    let elapsed = start.elapsed();
                    assert_eq!(batch.spans, count);
                    elapsed
                };
                std::iter::repeat_with(batch).take(batches as usize).sum()
            });
        });

        let (sender, batches) = channel();
        // Their export starts with the last span; the timer has no part in it. While its thread is
        // at work it may take a few spans early, so they come as one batch or as several.
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(count)
            .with_max_export_batch_size(count)
            .with_scheduled_delay(Duration::from_secs(3_600))
            .build();
        let processor =
            BatchSpanProcessor::builder(HandOn(sender)).with_batch_config(config).build();
        let finished = requests.span_data();
        group.bench_function(BenchmarkId::new("opentelemetry_sdk", count), |b| {
            b.iter_custom(|times| {
                let batch = || {
                    let spans = finished.clone();
                    let start = Instant::now();
                    spans.into_iter().for_each(|span| processor.on_end(span));
                    let mut arrived = 0;
                    while arrived < count {
                        let batch = batches.recv().expect("the processor has its exporter");
                        arrived += batch.len();
                    }
                    let elapsed = start.elapsed();
                    assert_eq!(arrived, count);
                    elapsed
                };
                std::iter::repeat_with(batch).take(times as usize).sum()
            });
        });
    }
    group.finish();
}

/// Each framed span by itself.
fn framed(encoded: &[u8]) -> Vec<&[u8]> {
    let mut rest = encoded;
    let mut spans = Vec::new();
    while !rest.is_empty() {
        let (span, after) = rest.split_at(split::prefix(rest, 1, usize::MAX).bytes);
        spans.push(span);
        rest = after;
    }
    assert_eq!(spans.len(), view::framed(encoded).count());
    spans
}

/// What lies between the end of a span and a batch.
///
/// The pieces are the client's, and so is the order they come in: pool, queue, batcher. Around them,
/// the client's exporter is a task that a Tokio runtime wakes, and its chunks and slices name the scope
/// of their spans; here a thread parks, and there is one scope.
struct HandOver {
    pool: ChunkPool,
    queue: Arc<Queue<Queued>>,
    /// `None` once it is joined.
    consumer: Option<JoinHandle<()>>,
    batches: Receiver<Batch<Item>>,
}

/// Bytes in the queue at which the consumer is woken while spans still come: a quarter of the largest
/// request, as in the client.
const WAKE_BYTES: usize = 1 << 20;

impl HandOver {
    fn new(spans_max: usize) -> Self {
        let bounds = Bounds::new(CHUNKS_MAX, 64 << 20).expect("neither is zero");
        let queue = Arc::new(Queue::new(bounds));
        let (sender, batches) = channel();
        let shared = Arc::clone(&queue);
        let consumer = thread::spawn(move || consume(&shared, spans_max, &sender));
        let pool = ChunkPool::new(ChunkSettings::default());
        Self { pool, queue, consumer: Some(consumer), batches }
    }

    fn batch(&self, spans: &[&[u8]]) -> Batch<Item> {
        let next = || self.pool.take(usize::MAX).expect("64 MiB hold them");
        let mut writer = next();
        for span in spans {
            let copy = |out: &mut [u8]| out.copy_from_slice(span);
            if writer.append(span.len(), copy).is_err() {
                self.push(&writer);
                writer = next();
                writer.append(span.len(), copy).expect("an empty chunk has room");
            }
        }
        self.push(&writer);
        self.wake();
        self.batches.recv().expect("the last span completes the batch")
    }

    fn push(&self, writer: &ChunkWriter) {
        let queued = Queued { spans: writer.spans(), chunk: writer.chunk() };
        match self.queue.push(queued, Overflow::DropNewest, |_| {}) {
            Ok(pushed) if pushed.crossed(WAKE_BYTES) => self.wake(),
            Ok(_) => {}
            Err(refused) => panic!("the queue holds them: {:?}", refused.reason),
        }
    }

    fn wake(&self) {
        self.consumer.iter().for_each(|consumer| consumer.thread().unpark());
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.queue.close();
        self.wake();
        let consumer = self.consumer.take().map(JoinHandle::join);
        assert!(thread::panicking() || consumer.is_none_or(|joined| joined.is_ok()));
    }
}

/// The consumer's thread, until the queue is closed. It may park whenever there is nothing to take:
/// whoever pushes wakes it once everything is pushed.
fn consume(queue: &Queue<Queued>, spans_max: usize, batches: &Sender<Batch<Item>>) {
    let limits = Limits::new(spans_max, 64 << 20, Duration::from_secs(3_600));
    let mut batcher = Batcher::new(limits.expect("none is zero"), Strategy::default());
    let mut slices = Vec::new();
    while !queue.is_finished() {
        if queue.drain(CHUNKS_MAX, |queued| slices.extend(queued.chunk.take())) == 0 {
            thread::park();
        }
        for slice in slices.drain(..) {
            for batch in batcher.push(Item(slice), Instant::now()) {
                batches.send(batch).expect("somebody waits for it");
            }
        }
    }
}

const CHUNKS_MAX: usize = 1_024;

/// A full chunk on its way to the consumer.
struct Queued {
    chunk: Chunk,
    spans: usize,
}

impl Weigh for Queued {
    fn spans(&self) -> usize {
        self.spans
    }

    fn wire_bytes(&self) -> usize {
        self.chunk.capacity()
    }

    fn held_bytes(&self) -> usize {
        self.chunk.capacity()
    }
}

/// Framed spans out of a chunk.
struct Item(Slice);

impl Weigh for Item {
    fn spans(&self) -> usize {
        self.0.spans
    }

    fn wire_bytes(&self) -> usize {
        self.0.bytes.len()
    }

    fn held_bytes(&self) -> usize {
        self.0.held_bytes
    }
}

impl Split for Item {
    fn split(mut self, spans_max: usize, bytes_max: usize) -> (Self, Option<Self>) {
        let first = split::prefix(&self.0.bytes, spans_max, bytes_max);
        let bytes: Bytes = self.0.bytes.split_to(first.bytes);
        let part = Slice { bytes, spans: first.spans, held_bytes: 0 };
        self.0.spans -= first.spans;
        let is_all = self.0.bytes.is_empty();
        (Self(part), (!is_all).then_some(self))
    }
}

/// Hands each batch to the thread that waits for it.
#[derive(Debug)]
struct HandOn(Sender<Vec<SpanData>>);

impl SpanExporter for HandOn {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        // Nobody waits for the batch any more once the benchmark is over.
        drop(self.0.send(batch));
        Ok(())
    }
}
