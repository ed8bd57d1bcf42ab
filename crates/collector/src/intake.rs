//! Where receivers and inlets hand their requests: to each pipeline they feed.

use std::sync::{Arc, PoisonError, RwLock};

use spanwire_receiver::{Accepted, Budget, Coding, Received, Refusal, Sink};

use crate::fan_out;
use crate::item::{Pieces, Request};
use crate::pipeline::Pipeline;

/// The pipelines of one receiver or inlet; a reload puts others in their place.
pub(crate) struct Intake {
    pipelines: RwLock<Arc<[Arc<Pipeline>]>>,
    budget: Arc<Budget>,
}

impl Intake {
    pub(crate) fn new(pipelines: Vec<Arc<Pipeline>>, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { pipelines: RwLock::new(pipelines.into()), budget })
    }

    /// Requests that come from here on go to these pipelines.
    pub(crate) fn feed(&self, pipelines: Vec<Arc<Pipeline>>) {
        *self.pipelines.write().unwrap_or_else(PoisonError::into_inner) = pipelines.into();
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Whether there is a pipeline for what comes.
    pub(crate) fn is_fed(&self) -> bool {
        !self.pipelines().is_empty()
    }

    fn pipelines(&self) -> Arc<[Arc<Pipeline>]> {
        Arc::clone(&self.pipelines.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a request that holds so many bytes in the budget to the destinations of all pipelines at
    /// once.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where no destination took it, or where one that the sender waits for gave up.
    pub(crate) async fn take(
        &self,
        request: Request,
        bytes_held: usize,
    ) -> Result<Accepted, Refusal> {
        loop {
            let pipelines = self.pipelines();
            let (mut targets, mut passed) = (Vec::new(), Vec::new());
            // The request is kept until destinations have it, and so is what has come out by then.
            let mut held = bytes_held;
            for pipeline in pipelines.iter() {
                let mut processed = pipeline.process(request.clone(), held, &self.budget).await?;
                held += processed.held;
                targets.append(&mut processed.targets);
                passed.push(processed);
            }
            let took_over = || {
                let passed = pipelines.iter().zip(&passed);
                passed.for_each(|(pipeline, passed)| pipeline.took_over(passed));
            };
            if targets.is_empty() && !pipelines.is_empty() {
                // Filtered or sampled out.
                took_over();
                return Ok(Accepted::default());
            }
            match fan_out::accept(targets).await {
                Ok(answers) => {
                    took_over();
                    // What was left out need not be held until destinations have answered.
                    drop(request);
                    return fan_out::answer(answers).await;
                }
                // A reload came between: its destinations are the ones to go to.
                Err(refused)
                    if refused.is_closed() && !Arc::ptr_eq(&pipelines, &self.pipelines()) => {}
                Err(refused) => return Err(refused.refuse()),
            }
        }
    }
}

/// The sink of a receiver.
pub(crate) struct Feed {
    pub(crate) intake: Arc<Intake>,
    /// The compressions that a destination may send on as they came.
    pub(crate) keeps: Vec<Coding>,
}

impl Sink for Feed {
    async fn accept(&self, mut received: Received) -> Result<Accepted, Refusal> {
        let compressed = received.compressed.take();
        let kept = compressed.filter(|compressed| self.keeps.contains(&compressed.encoding));
        let (bytes, spans, reservation) = received.into_parts();
        let held = reservation.bytes() + kept.as_ref().map_or(0, |kept| kept.bytes.len());
        let request = Request {
            bytes: bytes.len(),
            pieces: Pieces::One(bytes),
            spans,
            compressed: kept.map(Arc::new),
            hold: Some(Arc::new(reservation)),
        };
        self.intake.take(request, held).await
    }
}
