//! OTLP out: batches joined without decoding, tried again while that may help, and taken apart where
//! one request in them spoils the others.

use std::sync::Arc;
use std::time::Instant;

use spanwire_receiver::{Budget, Coding};
use spanwire_transport::{
    Accepted, Backoff, Body, Compression, EncodeError, Encoded, Protocol, Retry, RetryPolicy,
    SendError, Status, Transport,
};

use super::Shared;
use crate::item::{Item, Request};
use crate::ledger::DropReason;
use crate::log::chain;

/// A peer that speaks OTLP.
pub(crate) struct Otlp {
    pub(crate) transport: Transport,
    pub(crate) protocol: Protocol,
    /// As in the configuration, for the log.
    pub(crate) endpoint: String,
    /// `None` where failures are final.
    pub(crate) retry: Option<RetryPolicy>,
}

/// What became of one request.
enum Sent {
    Taken(Accepted),
    /// The destination refuses these bytes for good; other bytes may pass.
    Refused {
        why: DropReason,
        message: String,
        limit_bytes: Option<usize>,
        /// Whether it may be the fault of one of the source requests in it.
        may_be_one: bool,
    },
    GaveUp {
        why: DropReason,
        message: String,
    },
    /// Not; another destination stands in the place of this one by now.
    Replaced,
}

impl Otlp {
    /// Sends all items as one request. Where the destination refuses that for good, halves are
    /// tried, down to a single source request, so that what it refuses loses no neighbour. Gives what
    /// is left when another destination has taken its place.
    pub(super) async fn deliver(&self, items: Vec<Item>, shared: &Shared) -> Vec<Item> {
        let mut left = vec![items];
        let mut looked = None;
        let mut halves = || *looked.get_or_insert_with(|| shared.health.halves(Instant::now()));
        while let Some(mut items) = left.pop() {
            match self.send(&items, shared).await {
                Sent::Taken(accepted) => taken(items, &accepted, shared),
                Sent::Replaced => {
                    left.push(items);
                    return left.into_iter().rev().flatten().collect();
                }
                Sent::Refused { why, may_be_one: true, .. }
                    if items.len() > 1 && (why == DropReason::TooLarge || halves()) =>
                {
                    let second = items.split_off(items.len() / 2);
                    left.extend([second, items]);
                }
                Sent::Refused { why: DropReason::TooLarge, message, limit_bytes, .. } => {
                    left.extend(smaller(items, limit_bytes, &message, &shared.budget));
                }
                Sent::Refused { why, message, .. } => {
                    shared.health.refused(&message, Instant::now());
                    log(shared, &message, spans(&items));
                    items.into_iter().for_each(|item| item.claim.dropped(why, &message));
                }
                Sent::GaveUp { why, message } => {
                    log(shared, &message, spans(&items));
                    items.into_iter().for_each(|item| item.claim.dropped(why, &message));
                }
            }
        }
        Vec::new()
    }

    async fn send(&self, items: &[Item], shared: &Shared) -> Sent {
        let encoded = match self.encode(items).await {
            Ok(encoded) => encoded,
            Err(error @ EncodeError::Oversize { .. }) => {
                let (why, message) = (DropReason::TooLarge, chain(&error));
                return Sent::Refused { why, message, limit_bytes: None, may_be_one: true };
            }
            Err(error) => {
                return Sent::GaveUp { why: DropReason::Internal, message: chain(&error) };
            }
        };
        // Until there is an answer, which may take many attempts.
        let _copied = shared.charge(encoded.copied_len());
        let mut backoff = self.retry.map(|policy| Backoff::new(policy, Instant::now()));
        let mut pauses = shared.pauses();
        loop {
            shared.ledger.attempted(encoded.len());
            let error = match self.transport.send(&encoded).await {
                Ok(accepted) => {
                    shared.health.succeeded(Instant::now());
                    return Sent::Taken(accepted);
                }
                Err(error) => error,
            };
            shared.ledger.failed();
            let (message, now) = (self.in_words(&error), Instant::now());
            let limit_bytes = error.limit_bytes().filter(|&limit| limit < encoded.request_len());
            let is_oversize = matches!(error, SendError::Oversize { .. });
            // Some servers say that it may be tried again, and name a limit it will never keep.
            if is_oversize || limit_bytes.is_some() {
                let may_be_one = limit_bytes.is_some() || encoded.request_len() > BYTES_FLOOR;
                let why = if may_be_one { DropReason::TooLarge } else { DropReason::Rejected };
                return Sent::Refused { why, message, limit_bytes, may_be_one };
            }
            if error.retry() == Retry::Never {
                let may_be_one = is_of_the_data(&error);
                let why = DropReason::Rejected;
                return Sent::Refused { why, message, limit_bytes: None, may_be_one };
            }
            shared.health.failed(&message, now);
            let wait = backoff
                .as_mut()
                .and_then(|backoff| backoff.wait_after(error.retry(), now, fastrand::u64(..)));
            let Some(wait) = wait else {
                return Sent::GaveUp { why: DropReason::RetriesExhausted, message };
            };
            log(shared, &format!("{message}; trying again in {wait:.1?}"), 0);
            pauses.pause(wait).await;
            if shared.heir().is_some() {
                return Sent::Replaced;
            }
        }
    }
}

/// A request no larger than this is not refused for its size: a quota is spent, or the like, and
/// more and smaller requests would only add to it.
const BYTES_FLOOR: usize = 64 << 10;

/// Whether other spans might fare better: the destination says that these are invalid. All else, a
/// wrong path or key above all, concerns every request alike.
fn is_of_the_data(error: &SendError) -> bool {
    const INVALID_ARGUMENT: u32 = 3;
    let SendError::Reject { status, .. } = error else { return false };
    matches!(status, Status::Http(400 | 422) | Status::Grpc(INVALID_ARGUMENT))
}

impl Otlp {
    /// A failure, and what to look at where that is known.
    fn in_words(&self, error: &SendError) -> String {
        let text = chain(error);
        match error.advice(self.protocol) {
            Some(advice) => format!("{text} ({advice})"),
            None => text,
        }
    }

    /// What came compressed as it is to go out, and alone, goes out as it came.
    async fn encode(&self, items: &[Item]) -> Result<Encoded, EncodeError> {
        if let [item] = items
            && let Some(compressed) = &item.request.compressed
            && is_same(compressed.encoding, self.transport.compression())
        {
            let Request { bytes, spans, .. } = item.request;
            if let Some(encoded) = self.transport.frame(compressed.bytes.clone(), bytes, spans) {
                return Ok(encoded);
            }
        }
        let pieces = items.iter().flat_map(|item| item.request.pieces.iter()).cloned();
        self.transport.encode(&Body::new(pieces, spans(items))).await
    }
}

fn is_same(coding: Coding, compression: Compression) -> bool {
    matches!(
        (coding, compression),
        (Coding::Gzip, Compression::Gzip) | (Coding::Zstd, Compression::Zstd)
    )
}

/// Each source request has its own answer. What a destination rejected of a merged request cannot be
/// told apart: it goes to the first ones, as far as these have spans, with the destination's words.
fn taken(items: Vec<Item>, accepted: &Accepted, shared: &Shared) {
    let mut rejected = accepted.rejected_spans;
    if let Some(told) = told(accepted) {
        log(shared, &told, rejected as usize);
    }
    for item in items {
        let of_this = rejected.min(item.request.spans as u64);
        rejected -= of_this;
        item.claim.sent(of_this, accepted.message.as_deref());
    }
}

/// What is worth a line about a request that the destination took.
fn told(accepted: &Accepted) -> Option<String> {
    match (accepted.rejected_spans, accepted.message.as_deref()) {
        (0, None) if accepted.unreadable => {
            Some("said that it took a request, but not as OTLP has it".to_owned())
        }
        (0, None) => None,
        (0, Some(message)) => Some(format!("took a request, with a warning: {message}")),
        (_, message) => {
            let message = message.unwrap_or("no reason given");
            Some(format!("took a request in part: {message}"))
        }
    }
}

/// One item that is too large, as smaller ones; dropped where it is a single span.
fn smaller(
    items: Vec<Item>,
    limit_bytes: Option<usize>,
    message: &str,
    budget: &Arc<Budget>,
) -> Vec<Vec<Item>> {
    let mut left = Vec::new();
    for item in items {
        let (spans, bytes) = (item.request.spans, item.request.bytes);
        let bytes_max = limit_bytes.unwrap_or(usize::MAX).min(bytes / 2 + 1);
        let mut parts = item.within(spans.div_ceil(2), bytes_max, budget);
        if let [_whole] = &parts[..] {
            // An envelope too large to be repeated by size is repeated all the same.
            parts = parts
                .into_iter()
                .flat_map(|one| one.within(spans.div_ceil(2), usize::MAX, budget))
                .collect();
        }
        match &parts[..] {
            [_single] => {
                for whole in parts {
                    whole.claim.dropped(DropReason::TooLarge, message);
                }
            }
            _ => left.extend(parts.into_iter().rev().map(|part| vec![part])),
        }
    }
    left
}

fn spans(items: &[Item]) -> usize {
    items.iter().map(|item| item.request.spans).sum()
}

fn log(shared: &Shared, message: &str, spans_dropped: usize) {
    shared.log.failed(message, spans_dropped);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_not_told_as_a_loss_and_a_loss_is_told_without_a_reason_too() {
        let said = |rejected_spans, message: Option<&str>| {
            let message = message.map(Into::into);
            told(&Accepted { rejected_spans, message, ..Accepted::default() })
        };
        assert_eq!(said(0, None), None);
        assert_eq!(said(0, Some("old")).as_deref(), Some("took a request, with a warning: old"));
        assert_eq!(said(3, Some("old")).as_deref(), Some("took a request in part: old"));
        assert!(said(3, None).is_some());
        assert!(told(&Accepted { unreadable: true, ..Accepted::default() }).is_some());
    }
}
