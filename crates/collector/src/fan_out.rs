//! One request to several destinations: those with room have it at once, whatever the others do.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use spanwire_receiver::{Accepted, Refusal};
use tokio::sync::oneshot;

use crate::delivery::Outcome;
use crate::exporter::{Exporter, NotTaken, Taken};
use crate::item::Request;

/// A destination, and what it is to get.
pub(crate) type Target = (Arc<Exporter>, Request);

/// So long a sender waits for room, no longer than senders mostly wait for an answer: one that went
/// away is not noticed here, and what it sent is held meanwhile.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// So long a sender is asked to wait where a queue, or the memory, has no room.
pub(crate) const COME_BACK: Duration = Duration::from_secs(1);

/// Takes a request to all its destinations, and waits for those that the sender is to wait for.
///
/// With none of them taking it, the sender waits for the first that has room, if it may. Once one has
/// taken it, it is lost for those that have no room, and counted there: a destination that is stuck
/// holds up no other.
///
/// # Errors
///
/// [`Refused`], where nobody took it.
pub(crate) async fn accept(targets: Vec<Target>) -> Result<Vec<Answered>, Refused> {
    let mut offered = Offered::default();
    offered.offer(targets);
    if !offered.taken {
        let full = mem::take(&mut offered.refused.full);
        let taken = first(&full).await;
        let mut others = Vec::new();
        for (target, taken) in full.into_iter().zip(taken) {
            match taken {
                Some(taken) => offered.answered(target, Ok(taken)),
                None => others.push(target),
            }
        }
        // They may have room by now.
        offered.offer(others);
    }
    if !offered.taken {
        return Err(offered.refused);
    }
    offered.refused.full.iter().for_each(|(exporter, request)| exporter.shed(request));
    Ok(offered.answers)
}

/// What destinations said to a request so far.
#[derive(Default)]
struct Offered {
    taken: bool,
    answers: Vec<Answered>,
    refused: Refused,
}

impl Offered {
    fn offer(&mut self, targets: Vec<Target>) {
        for target in targets {
            let (exporter, request) = &target;
            let taken = exporter.try_accept(request);
            self.answered(target, taken);
        }
    }

    fn answered(&mut self, target: Target, taken: Result<Taken, NotTaken>) {
        match taken {
            Ok(taken) => {
                self.taken = true;
                self.answers.extend(Answered::new(taken, &target));
            }
            Err(NotTaken::Full) => self.refused.full.push(target),
            Err(NotTaken::Closed) => self.refused.closed = true,
        }
    }
}

/// The destinations that did not take a request. The spans are the sender's still.
#[derive(Default)]
pub(crate) struct Refused {
    full: Vec<Target>,
    closed: bool,
}

impl Refused {
    /// Whether some of them are no destinations any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Counts it where there was no room, and says where that was.
    pub(crate) fn refuse(&self) -> Refusal {
        self.full.iter().for_each(|(exporter, request)| exporter.refuse(request));
        let queues = self.full.iter().map(|(exporter, request)| {
            format!("the queue of exporter {} is {}", exporter.id(), exporter.full_by(request))
        });
        let message = queues.collect::<Vec<_>>().join("; ");
        if message.is_empty() {
            return come_back();
        }
        Refusal::Undelivered { message, retry_after: Some(COME_BACK) }
    }
}

/// Waits for the first destination that takes it, of those for which a sender may wait; it may be
/// several that have room at once.
async fn first(full: &[Target]) -> Vec<Option<Taken>> {
    let mut waits = Vec::new();
    for (place, (exporter, request)) in full.iter().enumerate() {
        if exporter.blocks() {
            waits.push((place, Box::pin(exporter.accept(request))));
        }
    }
    let mut taken: Vec<_> = full.iter().map(|_| None).collect();
    let any = poll_fn(|context| {
        waits.retain_mut(|(place, wait)| match wait.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(answer) => {
                taken[*place] = answer.ok();
                false
            }
        });
        match waits.is_empty() || taken.iter().any(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    let _none_in_time = tokio::time::timeout(ROOM_WAIT, any).await;
    taken
}

/// What a destination that the sender waits for will answer.
pub(crate) struct Answered {
    outcome: oneshot::Receiver<Outcome>,
    exporter: String,
    spans: u64,
}

impl Answered {
    fn new(taken: Taken, (exporter, request): &Target) -> Option<Self> {
        let (exporter, spans) = (exporter.id().to_owned(), request.spans as u64);
        Some(Self { outcome: taken?, exporter, spans })
    }
}

/// What the sender is told in the end.
///
/// # Errors
///
/// A [`Refusal`] where a destination gave up what it may take later, with the reason.
pub(crate) async fn answer(answers: Vec<Answered>) -> Result<Accepted, Refusal> {
    let mut rejected = 0;
    let mut message = None;
    for Answered { outcome, exporter, spans } in answers {
        let gave_up = |_| Outcome { gave_up: true, ..Outcome::default() };
        let outcome = outcome.await.unwrap_or_else(gave_up);
        if outcome.gave_up {
            let refusal = |why| {
                let message = format!("exporter {exporter}: {why}");
                Refusal::Undelivered { message, retry_after: Some(COME_BACK) }
            };
            return Err(outcome.message.map_or_else(come_back, refusal));
        }
        rejected = rejected.max(outcome.rejected.min(spans));
        message = message.or(outcome.message);
    }
    let message = message.map(String::from).unwrap_or_default();
    Ok(Accepted { rejected_spans: rejected, message })
}

pub(crate) fn come_back() -> Refusal {
    Refusal::Unavailable { retry_after: Some(COME_BACK) }
}
