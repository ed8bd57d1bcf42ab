//! The exporter's thread: takes finished spans, batches them, sends them, accounts for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use spanwire_batcher::{Batch, Batcher, Overflow, Queue, Refusal, Weigh};
use spanwire_codec::encode::EncodedResource;
use spanwire_tracer::{Loss, Outlet, Provider, TracedChunk, TracedSlice};
use spanwire_transport::{Backoff, Body, RetryPolicy, Transport};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::Report;
use crate::config::RetryIf;
use crate::item::{self, Item, Queued};
use crate::stats::{Counters, Reason, Stats};

/// What recording threads and the exporter's thread share.
pub(crate) struct Shared {
    queue: Queue<Queued>,
    overflow: Overflow,
    wake: Notify,
    /// Bytes in the queue at which the exporter is woken before its next tick.
    wake_bytes: usize,
    counters: Counters,
}

impl Shared {
    pub(crate) fn new(queue: Queue<Queued>, overflow: Overflow, wake_bytes: usize) -> Self {
        let (wake, counters) = (Notify::new(), Counters::default());
        Self { queue, overflow, wake, wake_bytes, counters }
    }

    pub(crate) fn stats(&self, provider: &Provider) -> Stats {
        self.counters.stats(&provider.stats(), self.queue.stats().queued())
    }
}

/// The recording threads' side.
pub(crate) struct QueueOutlet(pub(crate) Arc<Shared>);

impl Outlet for QueueOutlet {
    fn accept(&self, chunk: TracedChunk) -> Result<(), Loss> {
        let Self(shared) = self;
        let shed = |oldest: Queued| {
            shared.counters.dropped(oldest.chunk.chunk.discard(), Reason::QueueFull);
        };
        match shared.queue.push(Queued::new(chunk), shared.overflow, shed) {
            Ok(pushed) => {
                // Once for each crossing, so that a wake-up pays for many chunks.
                if pushed.crossed(shared.wake_bytes) {
                    shared.wake.notify_one();
                }
                Ok(())
            }
            Err(refused) => {
                // Whoever is refused has not been heard: the queue may have filled in one go.
                shared.wake.notify_one();
                Err(match refused.reason {
                    Refusal::Closed => Loss::Shutdown,
                    Refusal::Full | Refusal::TimedOut | Refusal::TooLarge => Loss::QueueFull,
                })
            }
        }
    }
}

/// What a client asks of the exporter.
pub(crate) enum Command {
    /// Send what has ended so far.
    Flush { deadline: Instant, reply: Reply },
    /// The same, and then stop.
    Shutdown { deadline: Instant, reply: Reply },
}

/// Called once, with what became of it.
pub(crate) type Reply = Box<dyn FnOnce(Report) + Send>;

/// A flush that waits for its last batch.
struct Flush {
    /// Batches spawned before it was complete; later ones are not its business.
    batches: u64,
    deadline: Instant,
    before: Stats,
    reply: Reply,
}

/// A batch on its way.
struct Held {
    number: u64,
    spans: usize,
    bytes: usize,
}

/// What a batch's task needs.
pub(crate) struct Line {
    pub(crate) transport: Transport,
    pub(crate) retry: RetryPolicy,
    pub(crate) retry_if: RetryIf,
    pub(crate) permits: Semaphore,
}

pub(crate) struct Exporter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) provider: Provider,
    pub(crate) line: Arc<Line>,
    pub(crate) resource: EncodedResource,
    pub(crate) request_bytes_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) tick: Duration,
    pub(crate) batcher: Batcher<Item>,
    pub(crate) state: State,
}

#[derive(Default)]
pub(crate) struct State {
    tasks: JoinSet<Result<u64, Reason>>,
    held: HashMap<Id, Held>,
    held_bytes: usize,
    batches: u64,
    flushes: Vec<Flush>,
}

impl Exporter {
    /// Runs until a shutdown is done.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        loop {
            let flush_deadline = self.state.flushes.iter().map(|flush| flush.deadline).min();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Flush { deadline, reply }) => self.flush(deadline, reply),
                    Some(Command::Shutdown { deadline, reply }) => {
                        return self.shut_down(deadline, reply).await;
                    }
                    // The client is gone without a word: its thread was killed within `drop`.
                    None => return self.shut_down(Instant::now(), Box::new(drop)).await,
                },
                () = shared.wake.notified() => self.fill(),
                _ = tick.tick() => self.collect(),
                Some(joined) = self.state.tasks.join_next_with_id() => {
                    self.settle(joined);
                    self.fill();
                }
                () = sleep_until(flush_deadline) => {}
            }
            self.answer_flushes();
        }
    }

    /// Takes what waits in the queue, as far as there is memory for requests.
    fn fill(&mut self) {
        while self.state.held_bytes < self.in_flight_bytes_max {
            let Some(queued) = self.shared.queue.pop() else { return };
            self.take(queued);
        }
    }

    /// Takes what is finished anywhere and sends it, however little it is.
    fn collect(&mut self) {
        self.fill();
        if self.state.held_bytes < self.in_flight_bytes_max {
            self.sweep();
        }
        while let Some(batch) = self.batcher.flush() {
            self.send(batch);
        }
    }

    fn take(&mut self, queued: Queued) {
        if let Some(slice) = queued.chunk.take() {
            self.add(slice);
        }
    }

    fn sweep(&mut self) {
        let mut taken: Vec<TracedSlice> = Vec::new();
        self.provider.sweep(|slice| taken.push(slice));
        for slice in taken {
            self.add(slice);
        }
    }

    fn add(&mut self, slice: TracedSlice) {
        self.shared.counters.taken(slice.slice.spans);
        self.state.held_bytes += slice.slice.held_bytes;
        let batches: Vec<_> = self.batcher.push(slice.into(), Instant::now().into_std()).collect();
        for batch in batches {
            self.send(batch);
        }
    }

    fn send(&mut self, batch: Batch<Item>) {
        let spans = batch.spans;
        let bytes = batch.items.iter().map(Weigh::held_bytes).sum();
        let body = Body::new(item::request(&self.resource, batch.items), spans);
        if spans == 1 && body.len() > self.request_bytes_max {
            self.shared.counters.dropped_in_flight(spans, Reason::TooLarge);
            self.state.held_bytes -= bytes;
            return;
        }
        self.state.batches += 1;
        let (line, shared) = (Arc::clone(&self.line), Arc::clone(&self.shared));
        let task =
            self.state.tasks.spawn(async move { deliver(&line, &shared.counters, body).await });
        let held = Held { number: self.state.batches, spans, bytes };
        self.state.held.insert(task.id(), held);
    }

    /// Accounts for a batch that is done, or whose task was aborted or panicked.
    fn settle(&mut self, joined: Result<(Id, Result<u64, Reason>), JoinError>) {
        let (id, outcome) = match joined {
            Ok((id, outcome)) => (id, outcome),
            Err(error) if error.is_cancelled() => (error.id(), Err(Reason::Shutdown)),
            Err(error) => (error.id(), Err(Reason::Internal)),
        };
        let Some(held) = self.state.held.remove(&id) else { return };
        self.state.held_bytes -= held.bytes;
        match outcome {
            Ok(rejected) => self.shared.counters.exported(held.spans, rejected),
            Err(reason) => self.shared.counters.dropped_in_flight(held.spans, reason),
        }
    }

    /// Starts sending everything there is, beyond what memory for requests is set aside: the spans
    /// take their memory already, and somebody waits for them.
    fn collect_all(&mut self) {
        while let Some(queued) = self.shared.queue.pop() {
            self.take(queued);
        }
        self.sweep();
        while let Some(batch) = self.batcher.flush() {
            self.send(batch);
        }
    }

    fn flush(&mut self, deadline: Instant, reply: Reply) {
        let before = self.shared.stats(&self.provider);
        self.collect_all();
        let batches = self.state.batches;
        self.state.flushes.push(Flush { batches, deadline, before, reply });
    }

    fn answer_flushes(&mut self) {
        if self.state.flushes.is_empty() {
            return;
        }
        let oldest = self.state.held.values().map(|held| held.number).min().unwrap_or(u64::MAX);
        let now = Instant::now();
        let ready = |flush: &mut Flush| flush.batches < oldest || flush.deadline <= now;
        let flushes: Vec<_> = self.state.flushes.extract_if(.., ready).collect();
        for Flush { batches, before, reply, .. } in flushes {
            let after = self.shared.stats(&self.provider);
            reply(Report::between(&before, &after, batches < oldest));
        }
    }

    async fn shut_down(mut self, deadline: Instant, reply: Reply) {
        let before = self.shared.stats(&self.provider);
        self.provider.close();
        self.shared.queue.close();
        self.collect_all();
        let complete = loop {
            tokio::select! {
                joined = self.state.tasks.join_next_with_id() => match joined {
                    Some(joined) => self.settle(joined),
                    None => break true,
                },
                () = tokio::time::sleep_until(deadline) => break false,
            }
            self.answer_flushes();
        };
        self.state.tasks.abort_all();
        while let Some(joined) = self.state.tasks.join_next_with_id().await {
            self.settle(joined);
        }
        // What ended between the closing and the last look at each thread's chunk.
        self.provider.abandon();
        self.answer_flushes();
        let after = self.shared.stats(&self.provider);
        reply(Report::between(&before, &after, complete));
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Sends one batch until it is accepted or given up; returns how many spans were rejected.
async fn deliver(line: &Line, counters: &Counters, body: Body) -> Result<u64, Reason> {
    let bytes = body.len();
    let encoded = line.transport.encode(&body).await.map_err(|error| {
        counters.note(&error);
        Reason::Internal
    })?;
    // Compressed, the spans' own memory is free again.
    drop(body);
    counters.encoded(bytes, encoded.len());
    let mut backoff = Backoff::new(line.retry, Instant::now().into_std());
    loop {
        // Held for the attempt only: a batch that waits keeps no other from being sent.
        let permit = line.permits.acquire().await;
        let sent = line.transport.send(&encoded).await;
        drop(permit);
        let error = match sent {
            Ok(accepted) => return Ok(accepted.rejected_spans),
            Err(error) => error,
        };
        counters.failed(&error);
        let retry = match line.retry_if.allows(&error) {
            true => error.retry(),
            false => spanwire_transport::Retry::Never,
        };
        if retry == spanwire_transport::Retry::Never {
            return Err(Reason::Refused);
        }
        match backoff.wait_after(retry, Instant::now().into_std(), fastrand::u64(..)) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(Reason::RetriesExhausted),
        }
    }
}
