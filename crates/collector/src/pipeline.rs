//! From a receiver through processors to every destination of a pipeline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spanwire_processors::{Actions, Edited, Sampler};
use spanwire_receiver::{Accepted, Refusal};
use tokio::sync::oneshot;

use crate::delivery::Outcome;
use crate::exporter::{Blocks, Exporter, Full};
use crate::item::Request;
use crate::ledger::Flow;

/// What a processor does to a request. Batching is not one of them: destinations do it, so that
/// each source request keeps an answer of its own.
pub(crate) enum Step {
    /// Attributes of spans.
    Attributes(Actions),
    /// Attributes of resources.
    Resource(Actions),
    Sample(Sampler),
}

/// A step, and what went in and out.
pub(crate) struct Processor {
    /// `attributes/2`, as in the configuration.
    pub(crate) id: String,
    pub(crate) step: Step,
    pub(crate) flow: Arc<Flow>,
}

/// The processors and destinations of one pipeline.
pub(crate) struct Pipeline {
    pub(crate) id: String,
    pub(crate) processors: Vec<Processor>,
    pub(crate) exporters: Vec<Arc<Exporter>>,
    pub(crate) flow: Arc<Flow>,
}

/// How long a sender is asked to wait when a queue is full.
const COME_BACK: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Takes a request to each destination.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where no destination took it, or where one that the sender waits for gave up.
    pub(crate) async fn accept(&self, request: Request) -> Result<Accepted, Refusal> {
        let spans = request.spans;
        let Some(request) = self.process(request)? else {
            self.flow.passed(spans, 0);
            return Ok(Accepted::default());
        };
        let answers = self.fan_out(&request).await?;
        self.flow.passed(spans, request.spans);
        answer(answers, request.spans).await
    }

    /// `None` where nothing is left of it.
    fn process(&self, mut request: Request) -> Result<Option<Request>, Refusal> {
        for processor in &self.processors {
            let spans = request.spans;
            let before = request.pieces.joined();
            let bytes = before.clone();
            let edited = match &processor.step {
                Step::Attributes(actions) => actions.spans(bytes),
                Step::Resource(actions) => actions.resources(bytes),
                Step::Sample(sampler) => sampler.sample(bytes).map(|sampled| sampled.kept),
            };
            // A receiver has checked the request, so this is a fault of our own.
            let Edited { pieces, bytes, spans: kept, .. } =
                edited.map_err(|error| Refusal::Internal { message: error.to_string() })?;
            processor.flow.passed(spans, kept);
            if kept == 0 {
                return Ok(None);
            }
            if !is_untouched(&pieces, &before) {
                request.compressed = None;
            }
            request = Request { pieces: pieces.into(), bytes, spans: kept, ..request };
        }
        Ok(Some(request))
    }

    /// Destinations with room take the request at once, whatever the others do.
    async fn fan_out(&self, request: &Request) -> Result<Vec<oneshot::Receiver<Outcome>>, Refusal> {
        let mut answers = Vec::new();
        let mut full = Vec::new();
        for exporter in &self.exporters {
            match exporter.try_accept(request) {
                Ok(answer) => answers.extend(answer),
                Err(Full) => full.push(exporter),
            }
        }
        let mut taken = self.exporters.len() - full.len();
        let mut refused = false;
        for exporter in full {
            let waits = match exporter.blocks() {
                Blocks::Always => true,
                Blocks::Never => false,
                Blocks::UnlessOthersTake => taken == 0,
            };
            match waits {
                true => match exporter.accept(request).await {
                    Ok(answer) => {
                        answers.extend(answer);
                        taken += 1;
                    }
                    Err(Full) => refused = true,
                },
                false if taken == 0 => {
                    exporter.refuse(request);
                    refused = true;
                }
                false => exporter.shed(request),
            }
        }
        match refused && taken == 0 {
            true => Err(Refusal::Unavailable { retry_after: Some(COME_BACK) }),
            false => Ok(answers),
        }
    }
}

/// Whether the very bytes came out that went in.
fn is_untouched(pieces: &[Bytes], before: &Bytes) -> bool {
    matches!(pieces, [one] if one.as_ptr() == before.as_ptr() && one.len() == before.len())
}

/// Waits for the destinations that the sender is to wait for.
async fn answer(
    answers: Vec<oneshot::Receiver<Outcome>>,
    spans: usize,
) -> Result<Accepted, Refusal> {
    let mut rejected = 0;
    let mut message = None;
    for answered in answers {
        let outcome = answered.await.unwrap_or_default();
        if outcome.gave_up {
            return Err(Refusal::Unavailable { retry_after: Some(COME_BACK) });
        }
        rejected = rejected.max(outcome.rejected.min(spans as u64));
        message = message.or(outcome.message);
    }
    let message = message.map(String::from).unwrap_or_default();
    Ok(Accepted { rejected_spans: rejected, message })
}
