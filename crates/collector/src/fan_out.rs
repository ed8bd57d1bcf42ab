//! One request to several destinations: those with room have it at once, whatever the others do.

use std::sync::Arc;
use std::time::Duration;

use spanwire_receiver::{Accepted, Refusal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::delivery::Outcome;
use crate::exporter::{Exporter, NotTaken, Taken};
use crate::item::Request;

/// A destination, and what it is to get.
pub(crate) type Target = (Arc<Exporter>, Request);

/// How long a sender is asked to wait when a queue is full.
const COME_BACK: Duration = Duration::from_secs(1);

/// Takes a request to all its destinations, and waits for those that the sender is to wait for.
///
/// With none of them taking it, the sender waits for the first that has room, or is told to come
/// back where it may not wait. Once one has taken it, it is lost for those that have no room, and
/// counted there: a destination that is stuck holds up no other.
///
/// # Errors
///
/// [`NotTaken`], where nobody took it.
pub(crate) async fn accept(targets: Vec<Target>) -> Result<Vec<Answered>, NotTaken> {
    let mut answers = Vec::new();
    let mut full = Vec::new();
    let mut closed = false;
    let mut taken = false;
    for (exporter, request) in targets {
        match exporter.try_accept(&request) {
            Ok(answer) => {
                taken = true;
                answers.extend(Answered::new(answer, &request));
            }
            Err(NotTaken::Full) => full.push((exporter, request)),
            Err(NotTaken::Closed) => closed = true,
        }
    }
    if !taken && !full.is_empty() {
        taken = first(&mut full, &mut answers).await;
    }
    for (exporter, request) in &full {
        match exporter.try_accept(request) {
            Ok(answer) => {
                taken = true;
                answers.extend(Answered::new(answer, request));
            }
            Err(NotTaken::Closed) => closed = true,
            Err(NotTaken::Full) if taken => exporter.shed(request),
            Err(NotTaken::Full) => exporter.refuse(request),
        }
    }
    match (taken, closed) {
        (true, _) => Ok(answers),
        (false, true) => Err(NotTaken::Closed),
        (false, false) => Err(NotTaken::Full),
    }
}

/// Waits for the first destination that has room, of those for which a sender may wait; it is taken
/// out of `full`.
async fn first(full: &mut Vec<Target>, answers: &mut Vec<Answered>) -> bool {
    let may_wait = |(exporter, _): &Target| exporter.blocks();
    if let [only] = &full[..]
        && may_wait(only)
    {
        let Ok(answer) = only.0.accept(&only.1).await else { return false };
        answers.extend(Answered::new(answer, &only.1));
        full.clear();
        return true;
    }
    let mut waiting = JoinSet::new();
    for (place, (exporter, request)) in full.iter().enumerate() {
        if exporter.blocks() {
            let (exporter, request) = (Arc::clone(exporter), request.clone());
            waiting.spawn(async move { (place, exporter.accept(&request).await) });
        }
    }
    let mut places = Vec::new();
    // Aborting is not taking back: another may have taken it meanwhile, too.
    while let Some(waited) = waiting.join_next().await {
        if let Ok((place, Ok(answer))) = waited {
            answers.extend(Answered::new(answer, &full[place].1));
            places.push(place);
            waiting.abort_all();
        }
    }
    places.sort_unstable();
    let taken = !places.is_empty();
    while let Some(place) = places.pop() {
        full.remove(place);
    }
    taken
}

/// What a destination that the sender waits for will answer.
pub(crate) struct Answered {
    outcome: oneshot::Receiver<Outcome>,
    spans: u64,
}

impl Answered {
    fn new(taken: Taken, request: &Request) -> Option<Self> {
        Some(Self { outcome: taken?, spans: request.spans as u64 })
    }
}

/// What the sender is told in the end.
///
/// # Errors
///
/// A [`Refusal`] where a destination gave up what it may take later.
pub(crate) async fn answer(answers: Vec<Answered>) -> Result<Accepted, Refusal> {
    let mut rejected = 0;
    let mut message = None;
    for Answered { outcome, spans } in answers {
        let gave_up = |_| Outcome { gave_up: true, ..Outcome::default() };
        let outcome = outcome.await.unwrap_or_else(gave_up);
        if outcome.gave_up {
            return Err(come_back());
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
