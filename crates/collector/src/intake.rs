//! Where a receiver hands its requests: to each pipeline it feeds.

use std::sync::{Arc, PoisonError, RwLock};

use spanwire_receiver::{Accepted, Received, Refusal, Sink, Transport};

use crate::item::{Pieces, Request};
use crate::ledger::Flow;
use crate::pipeline::Pipeline;

/// The pipelines of one receiver; a reload puts others in their place.
pub(crate) struct Intake {
    pipelines: RwLock<Arc<[Arc<Pipeline>]>>,
    /// What came and what was taken over, by transport.
    pub(crate) grpc: Flow,
    pub(crate) http: Flow,
}

impl Intake {
    pub(crate) fn new(pipelines: Vec<Arc<Pipeline>>) -> Arc<Self> {
        let pipelines = RwLock::new(pipelines.into());
        Arc::new(Self { pipelines, grpc: Flow::default(), http: Flow::default() })
    }

    /// Requests that come from here on go to these pipelines.
    pub(crate) fn feed(&self, pipelines: Vec<Arc<Pipeline>>) {
        *self.pipelines.write().unwrap_or_else(PoisonError::into_inner) = pipelines.into();
    }

    fn pipelines(&self) -> Arc<[Arc<Pipeline>]> {
        Arc::clone(&self.pipelines.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn take(&self, received: Received) -> Result<Accepted, Refusal> {
        let request = Request {
            pieces: Pieces::One(received.request.clone()),
            bytes: received.request.len(),
            spans: received.spans,
            compressed: received
                .compressed
                .as_ref()
                .map(|compressed| (compressed.encoding, compressed.bytes.clone())),
            hold: Some(Arc::new(received)),
        };
        let pipelines = self.pipelines();
        let mut answer = Accepted::default();
        for pipeline in pipelines.iter() {
            let accepted = pipeline.accept(request.clone()).await?;
            answer.rejected_spans = answer.rejected_spans.max(accepted.rejected_spans);
            if answer.message.is_empty() {
                answer.message = accepted.message;
            }
        }
        Ok(answer)
    }
}

/// The sink of a receiver.
pub(crate) struct Feed(pub(crate) Arc<Intake>);

impl Sink for Feed {
    async fn accept(&self, received: Received) -> Result<Accepted, Refusal> {
        let (spans, transport) = (received.spans, received.transport);
        let outcome = self.0.take(received).await;
        let flow = match transport {
            Transport::Grpc => &self.0.grpc,
            Transport::Http => &self.0.http,
        };
        flow.passed(spans, if outcome.is_ok() { spans } else { 0 });
        outcome
    }
}
