//! Where receivers and inlets hand their requests: to each pipeline they feed.

use std::sync::{Arc, PoisonError, RwLock};

use spanwire_receiver::{Accepted, Budget, Received, Refusal, Sink};

use crate::exporter::NotTaken;
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

    fn pipelines(&self) -> Arc<[Arc<Pipeline>]> {
        Arc::clone(&self.pipelines.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a request to the destinations of all pipelines at once.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where no destination took it, or where one that the sender waits for gave up.
    pub(crate) async fn take(&self, request: Request) -> Result<Accepted, Refusal> {
        loop {
            let pipelines = self.pipelines();
            let mut targets = Vec::new();
            for pipeline in pipelines.iter() {
                targets.extend(pipeline.process(request.clone(), &self.budget)?);
            }
            if targets.is_empty() && !pipelines.is_empty() {
                // Filtered or sampled out.
                return Ok(Accepted::default());
            }
            match fan_out::accept(targets).await {
                Ok(answers) => return fan_out::answer(answers).await,
                // A reload came between: its destinations are the ones to go to.
                Err(NotTaken::Closed) if !Arc::ptr_eq(&pipelines, &self.pipelines()) => {}
                Err(NotTaken::Full | NotTaken::Closed) => return Err(fan_out::come_back()),
            }
        }
    }
}

/// The sink of a receiver.
pub(crate) struct Feed(pub(crate) Arc<Intake>);

impl Sink for Feed {
    async fn accept(&self, mut received: Received) -> Result<Accepted, Refusal> {
        let compressed = received.compressed.take().map(|compressed| {
            let (coding, bytes, reservation) = compressed.into_parts();
            ((coding, bytes), reservation)
        });
        let (compressed, held) = compressed.unzip();
        let (bytes, spans, reservation) = received.into_parts();
        self.0
            .take(Request {
                bytes: bytes.len(),
                pieces: Pieces::One(bytes),
                spans,
                compressed,
                hold: Some(Arc::new((reservation, held))),
            })
            .await
    }
}
