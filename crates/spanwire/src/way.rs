//! How batches leave for a destination: made of its settings.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use spanwire_transport::{Protocol, RetryPolicy, Transport};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::client::{BuildError, FOREVER};
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
            Destination::Otlp(otlp) => Self::Otlp(Box::new(OtlpWay::new(otlp, request_bytes_max)?)),
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
        // HTTP has a status for nothing but size, so that smaller requests are worth trying longer.
        let floor_bytes = match otlp.protocol {
            Protocol::Grpc => 64 << 10,
            Protocol::HttpProtobuf | Protocol::HttpJson => 4 << 10,
        };
        Ok(Self {
            transport: Transport::new(&otlp.transport_config()?)?,
            protocol: otlp.protocol,
            retry: RetryPolicy::new(otlp.retry)?,
            retry_if: otlp.retry_if.clone(),
            permits: Semaphore::new(otlp.requests_in_flight_max),
            limit: Mutex::new(SizeLimit::new(request_bytes_max, floor_bytes)),
            quiet_until: Mutex::new(Instant::now()),
        })
    }

    pub(crate) fn limit<T>(&self, work: impl FnOnce(&mut SizeLimit) -> T) -> T {
        work(&mut self.limit.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The collector has asked not to be sent anything for so long ("OTLP/gRPC Throttling" and
    /// "OTLP/HTTP Throttling" in `docs/specification.md`, opentelemetry-proto v1.11.0). Longer than
    /// any batch may wait, it is cut to that.
    pub(crate) fn throttled(&self, delay: Duration) {
        let until = Instant::now() + delay.min(self.elapsed_max());
        let mut quiet_until = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet_until = until.max(*quiet_until);
    }

    /// A place among the requests in flight, once the collector wants to hear of us. A batch whose
    /// last chance comes before that has it at its `deadline`.
    pub(crate) async fn turn(&self, deadline: Option<Instant>) -> Option<SemaphorePermit<'_>> {
        loop {
            self.quiet(deadline).await;
            // Closed never, so there is one.
            let permit = self.permits.acquire().await.ok();
            // Somebody may have been asked for quiet while we waited for a place.
            if self.quiet_left(deadline).is_zero() {
                return permit;
            }
        }
    }

    async fn quiet(&self, deadline: Option<Instant>) {
        loop {
            let left = self.quiet_left(deadline);
            if left.is_zero() {
                return;
            }
            // Not all at the same moment.
            tokio::time::sleep(left + self.spread().mul_f64(fastrand::f64())).await;
        }
    }

    fn quiet_left(&self, deadline: Option<Instant>) -> Duration {
        let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        until.saturating_duration_since(Instant::now())
    }

    /// What batches that may go at the same moment are spread over.
    pub(crate) fn spread(&self) -> Duration {
        self.retry.settings().interval_initial.min(FOREVER)
    }

    /// How long a batch may wait in all; no clock overflows with it.
    pub(crate) fn elapsed_max(&self) -> Duration {
        self.retry.settings().elapsed_max.min(FOREVER)
    }
}
