//! From a receiver through processors to every destination of a pipeline.

use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;

use bytes::Bytes;
use spanwire_codec::view::Malformed;
use spanwire_processors::{Actions, Edited, Sampler};
use spanwire_receiver::{Budget, Refusal, Reservation};
use tokio::sync::Semaphore;

use crate::exporter::Exporter;
use crate::fan_out::{self, Target};
use crate::item::{Hold, Pieces, Request, is_slice};
use crate::ledger::{Flow, Passage, Passed};

/// What a processor does to a request. Batching is not one of them: destinations do it, so that
/// each source request keeps an answer of its own.
pub(crate) enum Step {
    /// Attributes of spans.
    Attributes(Actions),
    /// Attributes of resources.
    Resource(Actions),
    Sample(Sampler),
}

impl Step {
    fn carry_out(&self, request: Bytes) -> Result<Edited, Malformed> {
        match self {
            Self::Attributes(actions) => actions.spans(request),
            Self::Resource(actions) => actions.resources(request),
            Self::Sample(sampler) => sampler.sample(request).map(|sampled| sampled.kept),
        }
    }

    /// Both in one pass over a request, this one first; or the other back, where that cannot be.
    fn join(&mut self, next: Self) -> Result<(), Self> {
        match (self, next) {
            (Self::Attributes(these), Self::Attributes(others))
            | (Self::Resource(these), Self::Resource(others)) => {
                these.append(others);
                Ok(())
            }
            (_, next) => Err(next),
        }
    }
}

/// A processor of the configuration, and what went in and out.
pub(crate) struct Processor {
    /// `attributes/2`, as in the configuration.
    pub(crate) id: String,
    pub(crate) flow: Arc<Flow>,
}

/// Processors that are one pass over a request.
struct Stage {
    step: Step,
    processors: Vec<Processor>,
}

/// The processors of one pipeline, in order.
#[derive(Default)]
pub(crate) struct Stages(Vec<Stage>);

impl Stages {
    pub(crate) fn push(&mut self, processor: Processor, step: Step) {
        let step = match self.0.last_mut() {
            Some(last) => match last.step.join(step) {
                Ok(()) => return last.processors.push(processor),
                Err(step) => step,
            },
            None => step,
        };
        self.0.push(Stage { step, processors: vec![processor] });
    }

    pub(crate) fn processors(&self) -> impl Iterator<Item = &Processor> {
        self.0.iter().flat_map(|stage| &stage.processors)
    }
}

/// The processors and destinations of one pipeline.
pub(crate) struct Pipeline {
    pub(crate) id: String,
    pub(crate) stages: Stages,
    pub(crate) exporters: Vec<Arc<Exporter>>,
    pub(crate) passage: Arc<Passage>,
}

/// What came out of a pipeline's processors.
pub(crate) struct Processed {
    /// The destinations that it is for; none where nothing is left.
    pub(crate) targets: Vec<Target>,
    /// What to count once it is taken over.
    passed: Passed,
    /// Spans that came out of each stage, as far as any were left to go in.
    outgoing: Vec<usize>,
    /// Bytes that it holds beside the request that went in.
    pub(crate) held: usize,
}

impl Pipeline {
    /// What comes out of the processors. New bytes are taken from `budget`, and where none of the old
    /// ones are left, theirs are given back; `held` is what whoever sent the request holds of it all
    /// the while, for what goes in and for what came out of other pipelines. Large requests are
    /// edited on a thread where that holds up nobody else, no more of them at once than there are
    /// cores: their new bytes are not counted before they are all there.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where memory has no room for the new bytes: the spans are the sender's still.
    pub(crate) async fn process(
        self: &Arc<Self>,
        request: Request,
        held: usize,
        budget: &Arc<Budget>,
    ) -> Result<Processed, Refusal> {
        if self.stages.0.is_empty() || request.bytes <= INLINE_BYTES {
            return self.edit(request, held, budget);
        }
        let (this, budget) = (Arc::clone(self), Arc::clone(budget));
        // Never closed.
        let turn = TURNS.acquire().await.ok();
        let edited = tokio::task::spawn_blocking(move || {
            let edited = this.edit(request, held, &budget);
            drop(turn);
            edited
        });
        let edited = edited.await;
        edited.unwrap_or_else(|failed| match failed.is_panic() {
            true => Err(Refusal::Internal { message: failed.to_string() }),
            // The process ends.
            false => Err(fan_out::come_back()),
        })
    }

    fn edit(
        &self,
        mut request: Request,
        held: usize,
        budget: &Arc<Budget>,
    ) -> Result<Processed, Refusal> {
        let mut room = Room { held, own: 0, budget };
        let mut passed = Passed { accepted: request.spans as u64, ..Passed::default() };
        let mut outgoing = Vec::new();
        for Stage { step, .. } in &self.stages.0 {
            let before = room.whole(&mut request)?;
            let edited = step.carry_out(before.clone());
            // A receiver has checked the request, so this is a fault of our own.
            let Edited { pieces, bytes, spans, .. } =
                edited.map_err(|error| Refusal::Internal { message: error.to_string() })?;
            outgoing.push(spans);
            passed.sampled_out += request.spans.saturating_sub(spans) as u64;
            if spans == 0 {
                return Ok(Processed { targets: Vec::new(), passed, outgoing, held: 0 });
            }
            if !is_untouched(&pieces, &before) {
                request.compressed = None;
                request.hold = Some(room.hold(&pieces, &before, request.hold)?);
            }
            request = Request { pieces: pieces.into(), bytes, spans, ..request };
        }
        passed.forwarded = request.spans as u64;
        let targets = self.exporters.iter().map(|exporter| (Arc::clone(exporter), request.clone()));
        Ok(Processed { targets: targets.collect(), passed, outgoing, held: room.own })
    }

    /// Counts a request that was taken over, as it came out of the processors.
    pub(crate) fn took_over(&self, Processed { passed, outgoing, .. }: &Processed) {
        let mut incoming = passed.accepted as usize;
        for (stage, &outgoing) in self.stages.0.iter().zip(outgoing) {
            stage.processors.iter().for_each(|one| one.flow.passed(incoming, outgoing));
            incoming = outgoing;
        }
        self.passage.passed(*passed);
        if passed.sampled_out > 0 {
            let ledgers = self.exporters.iter().map(|exporter| exporter.ledger());
            ledgers.for_each(|ledger| ledger.sampled_out(passed.sampled_out));
        }
    }
}

/// Edits run at a few hundred megabytes a second, so this is some milliseconds.
const INLINE_BYTES: usize = 1 << 20;

/// Large requests that may be edited at once.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, usize::from)));

/// What one request takes out of the budget while it is processed.
struct Room<'a> {
    /// Held whatever the processors do.
    held: usize,
    /// Held for what they have made so far.
    own: usize,
    budget: &'a Arc<Budget>,
}

impl Room<'_> {
    /// The request in one piece. Where that takes a copy, the copy is what is held then.
    fn whole(&mut self, request: &mut Request) -> Result<Bytes, Refusal> {
        if let Pieces::Several(_) = &request.pieces {
            let reservation = self.take(request.bytes)?;
            request.pieces = Pieces::One(request.pieces.joined());
            self.own = request.bytes;
            request.hold = Some(Arc::new(reservation));
        }
        Ok(request.pieces.joined())
    }

    /// Keeps room for what is new in `pieces`, and for what they are slices of.
    fn hold(
        &mut self,
        pieces: &[Bytes],
        before: &Bytes,
        old: Option<Hold>,
    ) -> Result<Hold, Refusal> {
        let is_new = |piece: &&Bytes| !is_slice(piece, before);
        let new: usize = pieces.iter().filter(is_new).map(Bytes::len).sum();
        let reservation = self.take(new)?;
        Ok(match pieces.iter().all(|piece| is_new(&piece)) {
            true => {
                self.own = new;
                Arc::new(reservation)
            }
            false => {
                self.own += new;
                Arc::new((old, reservation))
            }
        })
    }

    /// Beside what is held already.
    fn take(&self, more: usize) -> Result<Reservation, Refusal> {
        let held = self.held + self.own;
        let bytes_max = self.budget.bytes_max();
        self.budget.reserve(more).ok_or_else(|| match held.saturating_add(more) > bytes_max {
            // Not even alone.
            true => Refusal::TooLarge {
                message: format!(
                    "processing a request that holds {held} bytes takes {more} more, and memory has \
                     room for {bytes_max}"
                ),
            },
            false => Refusal::Exhausted { retry_after: fan_out::COME_BACK },
        })
    }
}

/// Whether the very bytes came out that went in.
fn is_untouched(pieces: &[Bytes], before: &Bytes) -> bool {
    matches!(pieces, [one] if one.as_ptr() == before.as_ptr() && one.len() == before.len())
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message as _;
    use spanwire_processors::{Action, From, Settings as Sampling, Value};

    use super::*;
    use crate::exporter::{Destination, Settings, Sizer};

    fn request(spans: u64, budget: &Arc<Budget>) -> Request {
        let span = |number: u64| Span {
            trace_id: (u128::from(number) << 64 | 1).to_be_bytes().to_vec(),
            span_id: (number + 1).to_be_bytes().to_vec(),
            name: "GET /checkout".to_owned(),
            ..Span::default()
        };
        let scope_spans =
            ScopeSpans { spans: (0..spans).map(span).collect(), ..Default::default() };
        let resource_spans = ResourceSpans { scope_spans: vec![scope_spans], ..Default::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans] };
        let bytes = Bytes::from(request.encode_to_vec());
        Request {
            bytes: bytes.len(),
            spans: spans as usize,
            compressed: None,
            hold: Some(Arc::new(budget.reserve(bytes.len()).expect("there is room"))),
            pieces: Pieces::One(bytes),
        }
    }

    fn upsert(key: &str, number: i64) -> Actions {
        let from = From::Value(Value::Int(number));
        Actions::new(vec![Action::Upsert { key: key.to_owned(), from }]).expect("a good action")
    }

    fn pipeline(steps: Vec<Step>) -> Arc<Pipeline> {
        let mut stages = Stages::default();
        for (number, step) in steps.into_iter().enumerate() {
            stages.push(Processor { id: number.to_string(), flow: Arc::default() }, step);
        }
        let settings = Settings {
            sizer: Sizer::Requests,
            capacity: 10,
            consumers: 1,
            blocks: true,
            waits_for_result: false,
            batch: None,
            batch_processor: None,
        };
        let ledger = Arc::default();
        let (id, budget) = ("nop".to_owned(), Arc::new(Budget::new(1 << 20)));
        let nop = Exporter::spawn(id, settings, Destination::Nop, ledger, 1 << 20, budget);
        Arc::new(Pipeline {
            id: "traces".to_owned(),
            stages,
            exporters: vec![Arc::new(nop)],
            passage: Arc::default(),
        })
    }

    #[tokio::test]
    async fn a_request_that_is_sampled_down_holds_what_is_left_of_it() {
        let budget = Arc::new(Budget::new(1 << 20));
        let settings = Sampling { percentage: 10.0, ..Sampling::default() };
        let sampler = Sampler::new(settings).expect("a good percentage");
        let request = request(1_000, &budget);
        let before = request.bytes;
        let pipeline = pipeline(vec![Step::Sample(sampler)]);
        let processed = pipeline.process(request, 0, &budget).await.expect("there is room");
        let [(_, left)] = &processed.targets[..] else { panic!("one destination") };
        assert!(left.bytes < before / 4 && left.spans > 10, "{} of {before} bytes", left.bytes);
        assert_eq!(budget.bytes(), left.bytes);
        drop(processed);
        assert_eq!(budget.bytes(), 0);
    }

    #[tokio::test]
    async fn a_copy_between_two_processors_is_held_and_what_came_before_is_not() {
        let budget = Arc::new(Budget::new(1 << 22));
        let settings = Sampling { percentage: 100.0, ..Sampling::default() };
        let sampler = Sampler::new(settings).expect("a good percentage");
        let steps = vec![Step::Attributes(upsert("a", 1)), Step::Sample(sampler)];
        let pipeline = pipeline(steps);
        let processed = pipeline.process(request(1_000, &budget), 0, &budget).await;
        let processed = processed.expect("there is room");
        let [(_, left)] = &processed.targets[..] else { panic!("one destination") };
        let held = budget.bytes();
        assert!((left.bytes..3 * left.bytes).contains(&held), "{held} for {}", left.bytes);
        drop(processed);
        assert_eq!(budget.bytes(), 0);
    }

    #[tokio::test]
    async fn what_fits_neither_now_nor_ever_beside_all_that_its_request_holds_is_refused_for_good()
    {
        let budget = Arc::new(Budget::new(1 << 20));
        let request = request(1_000, &budget);
        let bytes = request.bytes;
        let pipeline = pipeline(vec![Step::Attributes(upsert("a", 1))]);
        let refused = async |held, bytes_max| {
            budget.set_bytes_max(bytes_max);
            pipeline.process(request.clone(), held, &budget).await.err()
        };
        let edited =
            pipeline.process(request.clone(), bytes, &budget).await.expect("there is room");
        let new = edited.held;
        assert_eq!(budget.bytes(), bytes + new, "it says what it holds");
        // Another request leaves no room for a second one of these.
        let fits_alone = refused(bytes, bytes + new).await;
        assert!(matches!(fits_alone, Some(Refusal::Exhausted { .. })), "{fits_alone:?}");
        drop(edited);
        assert!(refused(bytes, bytes + new).await.is_none(), "nobody else is there");
        let never = refused(bytes, bytes + new - 1).await;
        assert!(matches!(never, Some(Refusal::TooLarge { .. })), "{never:?}");
        let other = budget.charge(1_000);
        let never = refused(bytes + 1, bytes + new).await;
        assert!(matches!(never, Some(Refusal::TooLarge { .. })), "{never:?}");
        drop(other);
    }

    #[tokio::test]
    async fn processors_of_one_kind_in_a_row_are_one_pass_and_each_counts() {
        let budget = Arc::new(Budget::new(1 << 20));
        let attributes = |number| Step::Attributes(upsert("a", number));
        let steps = vec![attributes(1), attributes(2), Step::Resource(upsert("a", 3))];
        let pipeline = pipeline(steps);
        assert_eq!(pipeline.stages.0.len(), 2);
        let processed = pipeline.process(request(10, &budget), 0, &budget).await;
        let processed = processed.expect("there is room");
        pipeline.took_over(&processed);
        let flows: Vec<_> = pipeline.stages.processors().map(|one| one.flow.read()).collect();
        assert_eq!(flows, [(10, 10); 3]);
        let [(_, left)] = &processed.targets[..] else { panic!("one destination") };
        let edited = ExportTraceServiceRequest::decode(left.pieces.joined()).expect("protobuf");
        let attributes = &edited.resource_spans[0].scope_spans[0].spans[0].attributes;
        let value = |number| {
            use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
            Some(AnyValue { value: Some(any_value::Value::IntValue(number)) })
        };
        assert_eq!((attributes.len(), &attributes[0].value), (1, &value(2)));
        let resource = edited.resource_spans[0].resource.as_ref().expect("it was made");
        assert_eq!(resource.attributes[0].value, value(3));
    }

    #[tokio::test]
    async fn a_large_request_is_edited_where_that_holds_up_nobody_else() {
        let budget = Arc::new(Budget::new(1 << 26));
        let pipeline = pipeline(vec![Step::Attributes(upsert("a", 1))]);
        let first = async |spans| {
            let request = request(spans, &budget);
            let bytes = request.bytes;
            let mut processed = std::pin::pin!(pipeline.process(request, 0, &budget));
            let at_once = std::future::poll_fn(|cx| Poll::Ready(processed.as_mut().poll(cx))).await;
            let is_aside = at_once.is_pending();
            let processed = match at_once {
                Poll::Ready(processed) => processed,
                Poll::Pending => processed.await,
            };
            let targets = processed.expect("there is room").targets;
            assert_eq!(targets[0].1.spans as u64, spans);
            (bytes > INLINE_BYTES, is_aside)
        };
        assert_eq!(first(100).await, (false, false));
        assert_eq!(first(30_000).await, (true, true));
    }

    /// The clock goes on by itself only while nothing runs on a thread aside.
    #[tokio::test(start_paused = true)]
    async fn no_more_large_requests_are_edited_at_once_than_there_are_cores() {
        let budget = Arc::new(Budget::new(1 << 26));
        let pipeline = pipeline(vec![Step::Attributes(upsert("a", 1))]);
        let cores = available_parallelism().map_or(1, usize::from);
        let others = TURNS.acquire_many(cores as u32).await.expect("never closed");
        let large = request(30_000, &budget);
        let mut processed = std::pin::pin!(pipeline.process(large, 0, &budget));
        let a_while = tokio::time::sleep(Duration::from_secs(1));
        tokio::select! {
            _ = &mut processed => panic!("it does not wait"),
            () = a_while => {}
        }
        drop(others);
        assert!(processed.await.is_ok());
    }
}
