//! How batches leave for a destination: made of its settings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use spanwire_transport::{Protocol, RetryPolicy, Transport};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::client::BuildError;
use crate::destination::{Destination, Otlp, RetryIf};
use crate::lines::LineWriter;
use crate::size::SizeLimit;

/// How batches leave.
pub(crate) enum Way {
    Otlp(Box<OtlpWay>),
    Lines(LinesWay),
}

pub(crate) struct OtlpWay {
    pub(crate) transport: Transport,
    pub(crate) protocol: Protocol,
    pub(crate) retry: RetryPolicy,
    pub(crate) retry_if: RetryIf,
    permits: Semaphore,
    pub(crate) limit: Mutex<SizeLimit>,
    /// Whether the last attempt that ended had failed.
    failing: AtomicBool,
    /// Wakes batches that wait to be sent again.
    sooner: Notify,
    /// The collector has asked for quiet until then.
    quiet_until: Mutex<Instant>,
}

pub(crate) struct LinesWay {
    pub(crate) writer: Arc<LineWriter>,
    /// One batch at a time, so that lines stand in order.
    pub(crate) turn: Semaphore,
}

impl Way {
    /// The way to `destination`. Dials nothing yet.
    pub(crate) fn new(
        destination: &Destination,
        request_bytes_max: usize,
    ) -> Result<Self, BuildError> {
        Ok(match destination {
            Destination::Otlp(otlp) => {
                Self::Otlp(Box::new(OtlpWay::new(otlp, request_bytes_max)?))
            }
            Destination::Console | Destination::JsonLines(_) => Self::Lines(LinesWay {
                writer: Arc::new(LineWriter::open(destination).map_err(|source| {
                    BuildError::Output { destination: destination.to_string(), source }
                })?),
                turn: Semaphore::new(1),
            }),
        })
    }
}

impl OtlpWay {
    fn new(otlp: &Otlp, request_bytes_max: usize) -> Result<Self, BuildError> {
        if otlp.requests_in_flight_max == 0 {
            return Err(BuildError::NoRequests);
        }
        Ok(Self {
            transport: Transport::new(&otlp.transport_config()?)?,
            protocol: otlp.protocol,
            retry: RetryPolicy::new(otlp.retry)?,
            retry_if: otlp.retry_if.clone(),
            permits: Semaphore::new(otlp.requests_in_flight_max),
            limit: Mutex::new(SizeLimit::new(request_bytes_max)),
            failing: AtomicBool::new(false),
            sooner: Notify::new(),
            quiet_until: Mutex::new(Instant::now()),
        })
    }

    /// An attempt has failed in a way that others will too.
    pub(crate) fn failed(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// The collector has asked not to be sent anything for so long ("OTLP/gRPC Throttling" and
    /// "OTLP/HTTP Throttling" in `docs/specification.md`, opentelemetry-proto v1.11.0). Longer than
    /// any batch may wait, it is cut to that.
    pub(crate) fn throttled(&self, delay: Duration) {
        let until = Instant::now() + delay.min(self.retry.settings().elapsed_max);
        let mut quiet_until = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet_until = until.max(*quiet_until);
    }

    /// A place among the requests in flight, once the collector wants to hear of us. A batch whose
    /// last chance comes before that has it at its `deadline`.
    pub(crate) async fn turn(&self, deadline: Option<Instant>) -> Option<SemaphorePermit<'_>> {
        loop {
            let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
            let until = deadline.map_or(until, |deadline| until.min(deadline));
            let quiet = until.saturating_duration_since(Instant::now());
            if quiet.is_zero() {
                // Closed never, so there is one.
                return self.permits.acquire().await.ok();
            }
            // Not all at the same moment.
            let spread = self.retry.settings().interval_initial.mul_f64(fastrand::f64());
            tokio::time::sleep(quiet + spread).await;
        }
    }

    /// The collector takes spans. After an outage those that wait need not sit out their wait.
    pub(crate) fn succeeded(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            self.sooner.notify_waiters();
        }
    }

    /// Ends the waits for the next attempt; for the last chance there is.
    pub(crate) fn hurry(&self) {
        self.sooner.notify_waiters();
    }

    /// Waits until an attempt may be made again. Where the collector itself has set no time, its
    /// taking other spans meanwhile ends the wait, but for a moment that differs from batch to batch.
    pub(crate) async fn pause(&self, wait: Duration, asked: bool) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.sooner.notified(), if !asked => {
                let spread = self.retry.settings().interval_initial.min(wait);
                tokio::time::sleep(spread.mul_f64(fastrand::f64())).await;
            }
        }
    }

    pub(crate) fn limit<T>(&self, work: impl FnOnce(&mut SizeLimit) -> T) -> T {
        work(&mut self.limit.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
