//! One connection, and the requests sent over it.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use spanwire_transport::{Body, EncodeError, SendError, Transport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout_at;

use crate::schedule::{Rate, Schedule};
use crate::tally::{Exchange, Excused, Failure, Tally};
use crate::template::Template;
use crate::ticker::Ticker;

/// What all connections of a run share.
pub(crate) struct Shared {
    pub(crate) rate: Rate,
    pub(crate) schedule: Schedule,
    pub(crate) template: Template,
    pub(crate) warm_up: Duration,
    /// How long after the end requests that are due may wait for a place.
    pub(crate) grace: Duration,
    /// The next request's number, which any connection that has a place for it may take.
    pub(crate) next: AtomicU64,
    pub(crate) progress: Counters,
    /// Of all connections, so that a row of failures is one.
    pub(crate) excused: Mutex<Excused>,
    /// How often the run was asked to stop.
    pub(crate) stop: watch::Receiver<u32>,
}

/// What can be watched while a run goes on, in spans.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) accepted: AtomicU64,
    /// In requests.
    pub(crate) failed: AtomicU64,
}

/// A connection with its requests in flight.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    transport: Transport,
    in_flight_max: u32,
    /// One permit for each request that may be in flight.
    places: Arc<Semaphore>,
    /// Requests that were answered, to be written over instead of copying the template anew.
    answered: Mutex<Vec<Bytes>>,
    account: Arc<Mutex<Account>>,
}

/// What became of the requests of one thread's connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) warm_up: Tally,
    pub(crate) measured: Tally,
    /// All request numbers below this one were sent, or are excused.
    pub(crate) requests_end: u64,
    /// When the last answer came.
    pub(crate) last_answer: Option<Instant>,
}

/// When things had to happen to one request.
struct Times {
    due: Instant,
    /// When it was due, or when there was a place for it if it had to wait for one.
    ready: Instant,
    held_back: bool,
    is_measured: bool,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        transport: Transport,
        in_flight_max: NonZeroU32,
        account: Arc<Mutex<Account>>,
    ) -> Self {
        let in_flight_max = in_flight_max.get();
        Self {
            shared,
            transport,
            in_flight_max,
            places: Arc::new(Semaphore::new(in_flight_max as usize)),
            answered: Mutex::default(),
            account,
        }
    }

    /// Opens the connection by a request without spans, so that the first one that counts finds it
    /// open. Whatever the target answers to it is fine.
    pub(crate) async fn open(&self) -> Result<(), OpenError> {
        // Written once only to learn now whether requests of this size can be sent at all.
        let full = Body::new([self.shared.template.copy().freeze()], self.shared.template.spans());
        self.transport.encode(&full).await?;
        let empty = self.transport.encode(&Body::new([], 0)).await?;
        match self.transport.send(&empty).await {
            Err(error @ (SendError::Connect(_) | SendError::Proxy { .. })) => {
                Err(OpenError::Send(error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Sends requests from `start` on, each when it is due, and returns once all are answered. What has
    /// no place among those in flight a while after the end is not sent, and has failed.
    pub(crate) async fn run(self: Arc<Self>, start: Instant) -> io::Result<()> {
        let ticker = Ticker::new()?;
        let mut stop = self.shared.stop.clone();
        let give_up = start + self.shared.schedule.end() + self.shared.grace;
        // A request waited for a place, and those due since then have not all been sent.
        let mut is_behind = false;
        loop {
            let place = match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => place,
                Err(_none_left) => {
                    is_behind = true;
                    let Ok(place) = timeout_at(give_up.into(), self.place()).await else {
                        if *stop.borrow() == 0 {
                            self.fail_the_rest(start);
                        }
                        break;
                    };
                    place?
                }
            };
            if *stop.borrow() > 0 {
                break;
            }
            let now = Instant::now();
            let request = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let since = now.saturating_duration_since(start);
            let Some(due_in) = self.shared.schedule.due(request, since) else {
                // Another connection may have looked at its clock just before, and sends a later one.
                self.skip(request);
                break;
            };
            let due = start + due_in;
            // Never in a closed loop, where a request is due just now.
            is_behind &= due < now;
            if due > now {
                tokio::select! {
                    biased;
                    waited = ticker.until(due) => waited?,
                    // Also when whoever could stop the run is gone.
                    _ = stop.wait_for(|asked| *asked > 0) => {
                        self.skip(request);
                        break;
                    }
                }
            }
            let is_measured = due_in >= self.shared.warm_up;
            let ready = if is_behind { now } else { due };
            let times = Times { due, ready, held_back: is_behind, is_measured };
            tokio::spawn(Arc::clone(&self).exchange(request, times, place));
        }
        let _all = self.places.acquire_many(self.in_flight_max).await.map_err(io::Error::other)?;
        Ok(())
    }

    /// Enters all requests that are due and were not taken by any connection.
    fn fail_the_rest(&self, start: Instant) {
        let now = Instant::now();
        let since = now.saturating_duration_since(start);
        loop {
            let request = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(due_in) = self.shared.schedule.due(request, since) else {
                self.skip(request);
                return;
            };
            let exchange = Exchange {
                spans: self.shared.template.spans() as u64,
                answer: Err(Failure::NoPlace),
                latency: since.saturating_sub(due_in),
                lateness: Duration::ZERO,
                held_back: true,
            };
            self.shared.progress.failed.fetch_add(1, Ordering::Relaxed);
            self.enter(request, exchange, due_in >= self.shared.warm_up, now);
        }
    }

    async fn place(&self) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)
    }

    /// Sends one request and enters its answer. The place is free again afterwards.
    async fn exchange(self: Arc<Self>, request: u64, times: Times, place: OwnedSemaphorePermit) {
        let bytes = self.write(request);
        let spans = self.shared.template.spans();
        let (handed_over, answer) =
            match self.transport.encode(&Body::new([bytes.clone()], spans)).await {
                Ok(encoded) => {
                    let handed_over = Instant::now();
                    self.shared.progress.sent.fetch_add(spans as u64, Ordering::Relaxed);
                    let answer = self.transport.send(&encoded).await;
                    (handed_over, answer.map_err(Failure::Send))
                }
                Err(error) => (Instant::now(), Err(Failure::Encode(error))),
            };
        let now = Instant::now();
        self.give_back(bytes);

        let no_connection = answer.as_ref().err().is_some_and(Failure::is_of_connecting);
        if answer.is_err() {
            self.shared.progress.failed.fetch_add(1, Ordering::Relaxed);
        }
        let exchange = Exchange {
            spans: spans as u64,
            answer,
            latency: now.saturating_duration_since(times.due),
            lateness: handed_over.saturating_duration_since(times.ready),
            held_back: times.held_back,
        };
        let not_taken = self.enter(request, exchange, times.is_measured, now);
        self.shared.progress.accepted.fetch_add(spans as u64 - not_taken, Ordering::Relaxed);
        if no_connection && self.shared.rate == Rate::Max {
            // Nobody there says so at once, and a closed loop would do nothing but ask again.
            tokio::time::sleep(NO_CONNECTION_PAUSE).await;
        }
        drop(place);
    }

    fn write(&self, request: u64) -> Bytes {
        let used = self.answered.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // An answer may come before all of its request has left; such a request is not touched.
        let unshared: Option<BytesMut> = used.and_then(|bytes| bytes.try_into_mut().ok());
        let template = &self.shared.template;
        let mut bytes = unshared.unwrap_or_else(|| template.copy());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        template.write(request, now, &mut bytes);
        bytes.freeze()
    }

    fn give_back(&self, bytes: Bytes) {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }

    /// Notes that a request whose number was taken is not sent.
    fn skip(&self, request: u64) {
        self.excuse(request, self.shared.template.spans() as u64);
    }

    /// Returns how many spans the target did not take over.
    fn enter(&self, request: u64, exchange: Exchange, is_measured: bool, now: Instant) -> u64 {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let not_taken = account.enter(request, exchange, is_measured, now);
        drop(account);
        if not_taken > 0 {
            self.excuse(request, not_taken);
        }
        not_taken
    }

    fn excuse(&self, request: u64, spans: u64) {
        self.shared.excused.lock().unwrap_or_else(PoisonError::into_inner).add(request, spans);
    }
}

impl Account {
    /// Returns how many spans the target did not take over.
    fn enter(&mut self, request: u64, exchange: Exchange, is_measured: bool, now: Instant) -> u64 {
        let tally = if is_measured { &mut self.measured } else { &mut self.warm_up };
        let not_taken = tally.enter(exchange);
        self.requests_end = self.requests_end.max(request + 1);
        self.last_answer = Some(now);
        not_taken
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.warm_up.merge(other.warm_up);
        self.measured.merge(other.measured);
        self.requests_end = self.requests_end.max(other.requests_end);
        self.last_answer = self.last_answer.max(other.last_answer);
    }
}

/// Why a connection cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Send(SendError),
}

const NO_CONNECTION_PAUSE: Duration = Duration::from_millis(100);
