//! The exporter's thread: takes finished spans, batches them, and hands each batch to every
//! destination.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use spanwire_batcher::{Batch, Batcher, Strategy, Weigh};
use spanwire_codec::encode::EncodedResource;
use spanwire_tracer::{HandOvers, Provider, TracedSlice};
use spanwire_transport::Body;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::{FOREVER, Report};
use crate::diagnostics::{Diagnostics, Kind};
use crate::item::{self, Item};
use crate::line::{Claim, Line};
use crate::shared::Shared;
use crate::stats::{Account, Reason, Stats};

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
    stage: Stage,
    deadline: Instant,
    before: Vec<Stats>,
    reply: Reply,
}

/// How far a flush has come.
enum Stage {
    /// Nobody has looked at it yet.
    New,
    /// Some of what it is about is still on its way from a thread to the queue.
    HandOvers(HandOvers),
    /// All of it is in batches, or among the first so many spans ever pushed to the queue.
    Queued(u64),
    /// All of it is in batches up to this number; later ones are not its business.
    Batches(u64),
}

/// Between two looks for a chunk that a thread is about to hand over.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(1);

/// After a panic, before the exporter goes on: one that comes again and again costs no core.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Where each span is, for every destination.
#[derive(Clone)]
pub(crate) struct Accounts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) provider: Provider,
    pub(crate) lines: Arc<[Arc<Line>]>,
    /// Stands for the destinations where there are none.
    pub(crate) nowhere: Arc<Account>,
}

impl Accounts {
    /// One for each destination, in the order they were given.
    pub(crate) fn stats(&self) -> Vec<Stats> {
        if self.provider.is_inherited() {
            // What is there is a copy that somebody may have been in the middle of.
            let empty = |name: &str| Stats { destination: name.into(), ..Stats::default() };
            return match &*self.lines {
                [] => vec![empty("none")],
                lines => lines.iter().map(|line| empty(&line.name)).collect(),
            };
        }
        // What left is read before what came: nothing seems to have come from nowhere.
        let of = |name: &str, account: &Account| {
            let queued = self.shared.queue.stats().queued();
            account.stats(name, &self.provider.stats(), queued, &self.shared.intake)
        };
        match &*self.lines {
            [] => vec![of("none", &self.nowhere)],
            lines => lines.iter().map(|line| of(&line.name, &line.account)).collect(),
        }
    }
}

pub(crate) struct Exporter {
    pub(crate) accounts: Accounts,
    pub(crate) resource: EncodedResource,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) tick: Duration,
    pub(crate) strategy: Strategy,
    pub(crate) drop_timeout: Duration,
    pub(crate) batcher: Batcher<Item>,
    pub(crate) diagnostics: Diagnostics,
    pub(crate) state: State,
}

#[derive(Default)]
pub(crate) struct State {
    tasks: JoinSet<()>,
    /// The number of the batch that each task is about.
    batch_of: HashMap<Id, u64>,
    /// Batches that tasks are about, by number, with how many.
    open: BTreeMap<u64, usize>,
    batches: u64,
    /// Memory of what is gathered and not yet a batch.
    gathered_bytes: usize,
    /// Whether the queue is crowded, or was when some of what is gathered was taken from it: taken past
    /// a full destination, it must not go there after all.
    crowded: bool,
    flushes: Vec<Flush>,
    /// Spans dropped for each destination, as last told to people.
    told: Vec<u64>,
    /// Whether what there is now is the last.
    closing: bool,
}

impl Exporter {
    /// Runs until a shutdown is done, whatever panics meanwhile.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            if catch_panics(self.work(&mut commands)).await.is_ok() {
                return;
            }
            self.accounts.shared.intake.restarted();
            self.write_off();
            self.diagnostics.say(Kind::Restarted, std::time::Instant::now(), || {
                "the exporter panicked and was started again".into()
            });
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// Counts what a panic has taken along: gathered, as was noted, and not in the batcher.
    fn write_off(&mut self) {
        let intake = &self.accounts.shared.intake;
        let lost = intake.gathered_spans().saturating_sub(self.batcher.spans());
        intake.dropped(lost, Reason::Internal);
        intake.handed_on(lost);
        self.state.gathered_bytes = self.batcher.held_bytes();
    }

    async fn work(&mut self, commands: &mut mpsc::Receiver<Command>) {
        // The first tick after one interval: at once, it would find the first span or miss it.
        let mut tick = tokio::time::interval_at(Instant::now() + self.tick, self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.accounts.shared);
        loop {
            let flush_deadline = self.flush_deadline();
            let held_back_until = self.held_back_until();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Flush { deadline, reply }) => self.flush(deadline, reply),
                    Some(Command::Shutdown { deadline, reply }) => {
                        return self.shut_down(commands, deadline, reply).await;
                    }
                    // The client is gone without a word: its thread was killed within `drop`, or
                    // found no room for one.
                    None => {
                        let deadline = Instant::now() + self.drop_timeout.min(FOREVER);
                        return self.shut_down(commands, deadline, Box::new(drop)).await;
                    }
                },
                () = shared.wake.notified() => self.fill(),
                _ = tick.tick() => self.collect(),
                Some(joined) = self.state.tasks.join_next_with_id() => self.settle(joined),
                () = sleep_until(held_back_until) => self.fill(),
                () = sleep_until(flush_deadline) => {}
            }
            self.answer_flushes();
        }
    }

    /// Takes what waits in the queue, as far as there is memory for requests.
    fn fill(&mut self) {
        self.look_at_queue();
        // Those that are pushed meanwhile have a round of their own, after commands and answers.
        let mut waiting = self.accounts.shared.queue.len();
        while waiting > 0 && self.has_room() {
            let taken = self.take(waiting.min(self.chunks_of_room()));
            if taken == 0 {
                return;
            }
            waiting -= taken;
        }
        if !self.has_room() {
            // Memory is the limit now: what is gathered cannot grow any more, so it goes.
            self.send_gathered();
        } else if !self.accounts.shared.queue.is_empty() {
            self.accounts.shared.wake.notify_one();
        }
    }

    fn look_at_queue(&mut self) {
        let crowded = self.accounts.shared.is_crowded();
        self.state.crowded = crowded || (self.state.crowded && self.state.gathered_bytes > 0);
    }

    /// Whether one more chunk may be taken from the queue. A destination that is full holds the
    /// others back for a while; after that, what comes is lost for it alone.
    fn has_room(&self) -> bool {
        let (lines, gathered) = (&self.accounts.lines, self.state.gathered_bytes);
        let mut room = lines.is_empty();
        for line in lines.iter() {
            if !line.is_full(gathered) {
                room = true;
            } else if self.holds_back(line) {
                return false;
            }
        }
        room && gathered < self.in_flight_bytes_max
    }

    /// How many chunks may be taken at once: what the fullest of those that are not full has room
    /// for.
    fn chunks_of_room(&self) -> usize {
        let gathered = self.state.gathered_bytes;
        let rooms = self.accounts.lines.iter().map(|line| line.room_bytes(gathered));
        let least = rooms.filter(|&room| room > 0).min().unwrap_or(usize::MAX);
        let least = least.min(self.in_flight_bytes_max.saturating_sub(gathered));
        least.div_ceil(self.accounts.provider.pool().chunk_bytes().max(1)).min(TAKEN_AT_ONCE_MAX)
    }

    /// Whether the others wait for this one, which is full.
    fn holds_back(&self, line: &Line) -> bool {
        let alone = self.accounts.lines.len() == 1;
        alone || !(line.is_stuck(Instant::now().into_std()) || self.state.crowded)
    }

    /// When the first of those that hold the others back will count as stuck.
    fn held_back_until(&self) -> Option<Instant> {
        let lines = self.accounts.lines.iter();
        let full = lines.filter(|line| line.is_full(self.state.gathered_bytes));
        let holding = full.filter(|line| self.accounts.lines.len() > 1 && self.holds_back(line));
        holding.filter_map(|line| line.stuck_at()).min().map(Instant::from_std)
    }

    /// Takes what is finished anywhere and sends it, as far as its time has come.
    fn collect(&mut self) {
        self.look_at_queue();
        if self.has_room() {
            self.sweep();
        } else {
            // An outage may be long.
            self.accounts.provider.follow_wall_clock();
        }
        self.fill();
        self.tell_of_losses(false);
        match self.strategy {
            Strategy::SizeFirst => {}
            // Each tick is one age apart, so that everything gathered is that old at the next one.
            Strategy::TimeFirst | Strategy::Hybrid => self.send_gathered(),
        }
    }

    fn send_gathered(&mut self) {
        while let Some(batch) = self.batcher.flush() {
            self.send(batch);
        }
    }

    /// Takes up to so many of the oldest chunks from the queue; returns how many there were.
    ///
    /// Their room is given back in one go, so that a thread that waits for it is woken once.
    fn take(&mut self, chunks_max: usize) -> usize {
        let mut slices: Vec<TracedSlice> = Vec::with_capacity(chunks_max.min(TAKEN_AT_ONCE_MAX));
        let Shared { intake, .. } = &*self.accounts.shared;
        let taken = self.accounts.shared.drain(chunks_max, |queued| {
            if let Some(slice) = queued.chunk.take() {
                intake.gathered(slice.slice.spans);
                slices.push(slice);
            }
        });
        slices.into_iter().for_each(|slice| self.add(slice));
        taken
    }

    fn sweep(&mut self) -> HandOvers {
        let mut taken: Vec<TracedSlice> = Vec::new();
        let intake = &self.accounts.shared.intake;
        let missed = self.accounts.provider.sweep(|slice| {
            intake.gathered(slice.slice.spans);
            taken.push(slice);
        });
        for mut slice in taken {
            // The chunk goes on being filled: its memory is its thread's share. The bytes themselves
            // are what is held here.
            slice.slice.held_bytes = slice.slice.bytes.len();
            self.add(slice);
        }
        missed
    }

    fn add(&mut self, slice: TracedSlice) {
        self.state.gathered_bytes += slice.slice.held_bytes;
        let batches: Vec<_> = self.batcher.push(slice.into(), Instant::now().into_std()).collect();
        for batch in batches {
            self.send(batch);
        }
    }

    /// Hands a batch to every destination.
    fn send(&mut self, batch: Batch<Item>) {
        let spans = batch.spans;
        let bytes: usize = batch.items.iter().map(Weigh::held_bytes).sum();
        let body = Body::new(item::request(&self.resource, batch.items), spans);
        self.state.batches += 1;
        let Accounts { shared, lines, .. } = &self.accounts;
        for line in lines.iter() {
            let pass_over = line.is_full(bytes) && !self.holds_back(line) && !self.state.closing;
            let mut claim = Claim::new(Arc::clone(line), spans, bytes + REQUEST_OVERHEAD);
            if pass_over {
                claim.dropped_rest(Reason::QueueFull);
                continue;
            }
            let task = Arc::clone(line).deliver(claim, body.clone());
            let task = self.state.tasks.spawn(task);
            self.state.batch_of.insert(task.id(), self.state.batches);
            *self.state.open.entry(self.state.batches).or_default() += 1;
        }
        if lines.is_empty() {
            shared.intake.dropped(spans, Reason::NoDestination);
        }
        shared.intake.handed_on(spans);
        self.state.gathered_bytes -= bytes;
    }

    /// A task is over; what it was about has been accounted for, even if it panicked.
    fn settle(&mut self, joined: Result<(Id, ()), JoinError>) {
        let id = joined.map_or_else(|error| error.id(), |(id, ())| id);
        let Some(batch) = self.state.batch_of.remove(&id) else { return };
        if let Entry::Occupied(mut tasks) = self.state.open.entry(batch) {
            *tasks.get_mut() -= 1;
            if *tasks.get() == 0 {
                tasks.remove();
            }
        }
    }

    /// Says how many spans were lost since it last did, if any; the `last` time whatever was said
    /// just before.
    fn tell_of_losses(&mut self, last: bool) {
        let Self { accounts, state, .. } = self;
        state.told.resize(accounts.lines.len(), 0);
        let stats = accounts.stats();
        for ((line, stats), told) in accounts.lines.iter().zip(&stats).zip(&mut state.told) {
            let dropped = stats.dropped.total();
            if dropped == *told {
                continue;
            }
            let message = || {
                let reasons = stats.dropped.iter();
                let reasons: Vec<_> =
                    reasons.map(|(reason, spans)| format!("{} {spans}", reason.name())).collect();
                format!("{}: {dropped} spans lost so far: {}", line.name, reasons.join(", "))
            };
            // A copy has said nothing yet.
            let unheard = last.then(|| line.diagnostics.clone());
            let diagnostics = unheard.as_ref().unwrap_or(&line.diagnostics);
            if diagnostics.say(Kind::Dropped, std::time::Instant::now(), message) {
                *told = dropped;
            }
        }
    }

    /// Starts sending everything there is, beyond what memory for requests is set aside: for the
    /// shutdown, when no more comes.
    ///
    /// First the threads' own chunks: one that leaves its thread after that look goes to the queue,
    /// which comes next. Returns those that were in between.
    fn collect_all(&mut self) -> HandOvers {
        let missed = self.sweep();
        let mut waiting = self.accounts.shared.queue.len();
        while waiting > 0 {
            match self.take(waiting.min(TAKEN_AT_ONCE_MAX)) {
                0 => break,
                taken => waiting -= taken,
            }
        }
        self.send_gathered();
        missed
    }

    fn flush(&mut self, deadline: Instant, reply: Reply) {
        let before = self.accounts.stats();
        self.state.flushes.push(Flush { stage: Stage::New, deadline, before, reply });
    }

    /// When the next flush wants to be looked at.
    fn flush_deadline(&self) -> Option<Instant> {
        let soon = Instant::now() + HAND_OVER_PAUSE;
        let flushes = self.state.flushes.iter();
        flushes
            .map(|flush| match flush.stage {
                // Room for requests wakes the exporter by itself. With room, what is not taken yet is
                // still being pushed, and the end of a push wakes nobody.
                Stage::Queued(_) if self.has_room() => soon.min(flush.deadline),
                Stage::New | Stage::Queued(_) | Stage::Batches(_) => flush.deadline,
                Stage::HandOvers(_) => soon.min(flush.deadline),
            })
            .min()
    }

    fn answer_flushes(&mut self) {
        for mut flush in std::mem::take(&mut self.state.flushes) {
            flush.stage = self.advance(flush.stage);
            let settled = match flush.stage {
                Stage::Batches(batches) => {
                    self.oldest_batch().is_none_or(|oldest| batches < oldest)
                }
                Stage::New | Stage::HandOvers(_) | Stage::Queued(_) => false,
            };
            if settled || flush.deadline <= Instant::now() {
                let after = self.accounts.stats();
                (flush.reply)(Report::between(&flush.before, &after, settled));
            } else {
                self.state.flushes.push(flush);
            }
        }
    }

    /// Takes a flush as far as it goes: from the threads' chunks over the queue into batches, at the
    /// pace that memory for requests allows.
    fn advance(&mut self, mut stage: Stage) -> Stage {
        loop {
            stage = match stage {
                // As many flushes as there may be, requests stay within their memory.
                Stage::New if !self.has_room() => return stage,
                Stage::New => Stage::HandOvers(self.sweep()),
                Stage::HandOvers(missed) if missed.is_empty() => {
                    Stage::Queued(self.accounts.shared.queue.stats().pushed)
                }
                Stage::HandOvers(missed) if missed.are_over() => {
                    let again = missed.missed_again(self.sweep());
                    if !again.is_empty() {
                        return Stage::HandOvers(again);
                    }
                    Stage::HandOvers(again)
                }
                Stage::HandOvers(_) => {
                    // A thread may be waiting for room.
                    self.fill();
                    return stage;
                }
                Stage::Queued(pushed) => {
                    self.fill();
                    let queue = self.accounts.shared.queue.stats();
                    if queue.popped + queue.evicted < pushed {
                        return stage;
                    }
                    self.send_gathered();
                    Stage::Batches(self.state.batches)
                }
                Stage::Batches(_) => return stage,
            };
        }
    }

    fn oldest_batch(&self) -> Option<u64> {
        self.state.open.first_key_value().map(|(&batch, _)| batch)
    }

    async fn shut_down(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        deadline: Instant,
        reply: Reply,
    ) {
        let before = self.accounts.stats();
        self.state.closing = true;
        // What ended before the call first; then nothing more is recorded, and what ended meanwhile.
        self.collect_all();
        self.accounts.provider.close();
        self.collect_all();
        self.accounts.shared.queue.close();
        self.accounts.lines.iter().for_each(|line| line.waits.hurry());
        let complete = loop {
            // Closed, the queue still takes what was being pushed; threads it refused keep theirs.
            let more = !self.collect_all().is_empty() || !self.accounts.shared.queue.is_finished();
            self.answer_flushes();
            if !more && self.state.tasks.is_empty() {
                break true;
            }
            let flush_deadline = self.flush_deadline();
            tokio::select! {
                Some(joined) = self.state.tasks.join_next_with_id() => self.settle(joined),
                Some(command) = commands.recv() => match command {
                    Command::Flush { deadline, reply } | Command::Shutdown { deadline, reply } => {
                        self.flush(deadline, reply);
                    }
                },
                () = sleep_until(flush_deadline) => {}
                () = tokio::time::sleep(HAND_OVER_PAUSE), if more => {}
                () = tokio::time::sleep_until(deadline) => break false,
            }
        };
        self.state.tasks.abort_all();
        while let Some(joined) = self.state.tasks.join_next_with_id().await {
            self.settle(joined);
        }
        // What is left in spite of all: nobody will take it any more.
        let Shared { intake, .. } = &*self.accounts.shared;
        self.accounts.shared.drain(usize::MAX, |queued| {
            intake.dropped(queued.chunk.chunk.discard(), Reason::Shutdown);
        });
        self.accounts.provider.abandon();
        self.tell_of_losses(true);
        // Whoever asks from now on learns that there is nobody; those who came too late for an answer
        // of their own have this one.
        commands.close();
        let after = self.accounts.stats();
        while let Ok(Command::Flush { reply: late, .. } | Command::Shutdown { reply: late, .. }) =
            commands.try_recv()
        {
            late(Report::between(&before, &after, complete));
        }
        for flush in self.state.flushes.drain(..) {
            (flush.reply)(Report::between(&flush.before, &after, complete));
        }
        reply(Report::between(&before, &after, complete));
    }
}

/// Chunks taken from the queue in one go: 1 MiB, so that a thread that is woken for the room has a
/// while to fill it, and its processor something in cache to fill.
const TAKEN_AT_ONCE_MAX: usize = 16;

/// Memory a request takes beside its spans' bytes: a task, headers, a frame.
const REQUEST_OVERHEAD: usize = 4 << 10;

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What the future panicked with, instead of its result.
async fn catch_panics(work: impl Future<Output = ()>) -> std::thread::Result<()> {
    let mut work = pin!(work);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
