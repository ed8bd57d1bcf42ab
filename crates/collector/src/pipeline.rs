//! From a receiver through processors to every destination of a pipeline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spanwire_processors::{Actions, Edited, Sampler};
use spanwire_receiver::{Budget, Refusal};

use crate::exporter::Exporter;
use crate::fan_out::Target;
use crate::item::{Hold, Request};
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

impl Pipeline {
    /// What comes out of the processors, and the destinations it is for; nothing where nothing is
    /// left. New bytes are taken from `budget`, and where none of the old ones are left, theirs are
    /// given back.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where memory has no room for the new bytes.
    pub(crate) fn process(
        &self,
        mut request: Request,
        budget: &Arc<Budget>,
    ) -> Result<Vec<Target>, Refusal> {
        let spans = request.spans;
        for processor in &self.processors {
            let incoming = request.spans;
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
            processor.flow.passed(incoming, kept);
            if kept == 0 {
                self.flow.passed(spans, 0);
                return Ok(Vec::new());
            }
            if !is_untouched(&pieces, &before) {
                request.compressed = None;
                request.hold = hold(&pieces, &before, request.hold, budget)?;
            }
            request = Request { pieces: pieces.into(), bytes, spans: kept, ..request };
        }
        self.flow.passed(spans, request.spans);
        let targets = self.exporters.iter().map(|exporter| (Arc::clone(exporter), request.clone()));
        Ok(targets.collect())
    }
}

/// Keeps room in the budget for what is new in `pieces`, and for what they are slices of.
fn hold(
    pieces: &[Bytes],
    before: &Bytes,
    old: Option<Hold>,
    budget: &Arc<Budget>,
) -> Result<Option<Hold>, Refusal> {
    let old_bytes = before.as_ptr_range();
    let is_new = |piece: &&Bytes| !old_bytes.contains(&piece.as_ptr());
    let new: usize = pieces.iter().filter(is_new).map(Bytes::len).sum();
    let no_room = || Refusal::Exhausted { retry_after: COME_BACK };
    let reservation = budget.reserve(new).ok_or_else(no_room)?;
    Ok(Some(match pieces.iter().all(|piece| is_new(&piece)) {
        true => Arc::new(reservation),
        false => Arc::new((old, reservation)),
    }))
}

/// How long a sender is asked to wait when memory has no room.
const COME_BACK: Duration = Duration::from_secs(1);

/// Whether the very bytes came out that went in.
fn is_untouched(pieces: &[Bytes], before: &Bytes) -> bool {
    matches!(pieces, [one] if one.as_ptr() == before.as_ptr() && one.len() == before.len())
}
