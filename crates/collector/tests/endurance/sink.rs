//! A destination that knows each span by its number and conducts itself as it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spanwire_load::{Arrived, Ledger, Run};
use spanwire_receiver::{Accepted, Received, Receiver, Refusal};
use tokio::time::{Instant, sleep, sleep_until};

/// What a destination does with requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Conduct {
    /// Takes all it gets, each request after so long.
    Takes(Duration),
    /// Takes so many spans a second.
    Paced(u32),
    /// Refuses every tenth request, which may come again.
    RefusesEveryTenth,
    /// Takes every tenth request and never answers it, the others after so long.
    LeavesEveryTenth(Duration),
}

/// A destination, whether anybody can reach it or not: it enters spans before it answers for them.
pub(crate) struct Sink {
    /// One for each run.
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    conduct: Mutex<Conduct>,
    requests: AtomicU64,
    refused: AtomicU64,
    entered: AtomicU64,
    unanswered: AtomicU64,
    /// When the spans that are here by now are taken.
    taken_by: Mutex<Instant>,
}

impl Sink {
    pub(crate) fn new(runs: &[Run], conduct: Conduct) -> Arc<Self> {
        Arc::new(Self {
            ledgers: runs.iter().map(|run| Arc::new(Mutex::new(Ledger::new(*run)))).collect(),
            conduct: Mutex::new(conduct),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            taken_by: Mutex::new(Instant::now()),
        })
    }

    /// Serves OTLP by both transports until what is returned is dropped, which cuts its connections
    /// and closes its ports as the end of a process would.
    pub(crate) async fn serve(self: &Arc<Self>, grpc: SocketAddr) -> Receiver {
        let taking = Arc::clone(self);
        let sink = move |received: Received| Arc::clone(&taking).take(received);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Receiver::builder().grpc(grpc).http(any).bind(sink).await.expect("free ports")
    }

    async fn take(self: Arc<Self>, received: Received) -> Result<Accepted, Refusal> {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let conduct = *self.conduct.lock().expect("no panic");
        if let Conduct::RefusesEveryTenth = conduct
            && nth.is_multiple_of(10)
        {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Unavailable { retry_after: None });
        }
        for ledger in &self.ledgers {
            ledger.lock().expect("no panic").enter(&received.request).expect("a request");
        }
        let spans = received.spans as u64;
        self.entered.fetch_add(spans, Ordering::Relaxed);
        let mut unanswered = Unanswered { sink: &self, spans };
        match conduct {
            Conduct::Takes(after) => sleep(after).await,
            Conduct::Paced(per_second) => sleep_until(self.pace(spans, per_second)).await,
            Conduct::RefusesEveryTenth => {}
            Conduct::LeavesEveryTenth(_) if nth.is_multiple_of(10) => std::future::pending().await,
            Conduct::LeavesEveryTenth(after) => sleep(after).await,
        }
        unanswered.spans = 0;
        Ok(Accepted::default())
    }

    /// When so many spans more are taken, one after the other.
    fn pace(&self, spans: u64, per_second: u32) -> Instant {
        let mut taken_by = self.taken_by.lock().expect("no panic");
        let time = Duration::from_secs_f64(spans as f64 / f64::from(per_second));
        *taken_by = (*taken_by).max(Instant::now()) + time;
        *taken_by
    }

    /// From the next request on.
    pub(crate) fn conduct(&self, conduct: Conduct) {
        *self.conduct.lock().expect("no panic") = conduct;
    }

    /// What arrived of each run.
    pub(crate) fn ledger(&self, run: usize) -> &Arc<Mutex<Ledger>> {
        &self.ledgers[run]
    }

    /// The same in figures.
    pub(crate) fn arrived(&self, run: usize) -> Arrived {
        self.ledgers[run].lock().expect("no panic").arrived()
    }

    /// Spans that arrived, each as often as it came.
    pub(crate) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// Requests that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Spans that arrived in requests whose sender went away before they were answered.
    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }
}

/// Spans that were entered and not answered for, should this be dropped.
struct Unanswered<'a> {
    sink: &'a Sink,
    spans: u64,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.sink.unanswered.fetch_add(self.spans, Ordering::Relaxed);
    }
}
