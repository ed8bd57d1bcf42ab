//! The life of one batch at one destination: attempts, waits, and pieces where it is too large.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spanwire_codec::split;
use spanwire_transport::{
    Backoff, Body, Compression, EncodeError, Encoded, Protocol, Retry, SendError,
};

use crate::diagnostics::Kind;
use crate::line::Claim;
use crate::size::SizeLimit;
use crate::stats::{Reason, chain};
use crate::way::{LinesWay, OtlpWay};

/// What became of one request.
enum Outcome {
    /// The collector took it, all but so many spans.
    Taken {
        rejected: u64,
    },
    /// It is larger than the collector takes; smaller ones may pass.
    Oversize {
        encoded: Encoded,
        bytes_max: usize,
    },
    Lost(Reason),
}

impl OtlpWay {
    pub(crate) async fn deliver(&self, mut claim: Claim, body: Body) {
        let bytes_max = self.limit(|limit| limit.bytes_max(Instant::now()));
        // The next request stands last.
        let mut left = vec![body];
        if let [body] = &left[..]
            && body.len() > bytes_max
            && body.spans() > 1
        {
            let request = Bytes::from(body.pieces().concat());
            match pieces(&request, body.spans(), bytes_max) {
                Ok(pieces) => left = pieces,
                Err(_) => return claim.dropped_rest(Reason::Internal),
            }
            claim.holds(request.len());
        }
        while let Some(body) = left.pop() {
            let (spans, bytes) = (body.spans(), body.len());
            match self.send(&mut claim, body, left.is_empty()).await {
                Outcome::Taken { rejected } => {
                    self.limit(|limit| limit.accepted(bytes));
                    claim.exported(spans, rejected);
                }
                Outcome::Lost(reason) => claim.dropped(spans, reason),
                Outcome::Oversize { .. } if spans == 1 => claim.dropped(1, Reason::TooLarge),
                // No collector is meant to refuse this for its size: a quota is spent, or the like,
                // and more and smaller requests would only add to it.
                Outcome::Oversize { .. } if bytes <= self.limit(|limit| limit.floor_bytes()) => {
                    return claim.dropped_rest(Reason::Refused);
                }
                Outcome::Oversize { encoded, bytes_max } => {
                    let Ok(request) = encoded.request() else {
                        claim.dropped(spans, Reason::Internal);
                        continue;
                    };
                    drop(encoded);
                    let rest: usize = left.iter().map(Body::len).sum();
                    claim.holds(request.len() + rest);
                    match pieces(&request, spans.div_ceil(2), bytes_max) {
                        Ok(smaller) if smaller.len() > 1 => left.extend(smaller),
                        // What surrounds the spans is too large by itself.
                        Ok(_) => claim.dropped(spans, Reason::TooLarge),
                        Err(_) => claim.dropped(spans, Reason::Internal),
                    }
                }
            }
        }
    }

    /// Sends one request until it is taken or given up. `last` where its bytes are all the batch
    /// still holds.
    async fn send(&self, claim: &mut Claim, body: Body, last: bool) -> Outcome {
        // Before anything is compressed: a batch that waits for its turn is not held twice.
        let mut permit = self.turn(None).await;
        let bytes = body.len();
        let encoded = match self.transport.encode(&body).await {
            Ok(encoded) => encoded,
            Err(error) => {
                claim.line().note(Kind::ExportFailed, chain(&error));
                return Outcome::Lost(match error {
                    EncodeError::Oversize { .. } => Reason::TooLarge,
                    _ => Reason::Internal,
                });
            }
        };
        drop(body);
        let copied =
            encoded.compression() != Compression::None || self.protocol == Protocol::HttpJson;
        // The spans' own memory is free again.
        if last && copied {
            claim.holds(encoded.len());
        }
        claim.line().account.encoded(bytes, encoded.len());
        let started = Instant::now();
        let mut backoff = Backoff::new(self.retry, started);
        loop {
            let sent = self.transport.send(&encoded).await;
            // Held for the attempt only: a batch that waits keeps no other from being sent.
            drop(permit);
            let error = match sent {
                Ok(accepted) => {
                    claim.line().waits.succeeded();
                    let rejected = accepted.rejected_spans;
                    if let Some(message) = &accepted.message {
                        let text =
                            format!("{rejected} spans of a request were rejected: {message}");
                        claim.line().note(Kind::PartialSuccess, text);
                    } else if accepted.unreadable {
                        let text = "took the spans, but its answer is not one of OTLP";
                        claim.line().note(Kind::NotOtlp, text.into());
                    }
                    return Outcome::Taken { rejected };
                }
                Err(error) => error,
            };
            claim.line().account.failed();
            claim.line().note(Kind::ExportFailed, chain(&error));
            let retry = match self.retry_if.allows(&error) {
                true => error.retry(),
                false => Retry::Never,
            };
            let wait = backoff.wait_after(retry, Instant::now(), fastrand::u64(..));
            // Some servers say OUT_OF_RANGE, which may be repeated, and mean a limit, which they name.
            let named = error.limit_bytes().filter(|&limit| limit < bytes);
            if matches!(error, SendError::Oversize { .. }) || named.is_some() {
                let next = |limit: &mut SizeLimit| limit.refused(bytes, named, Instant::now());
                return Outcome::Oversize { encoded, bytes_max: self.limit(next) };
            }
            match (retry, wait) {
                (Retry::Never, _) => return Outcome::Lost(Reason::Refused),
                (_, None) => return Outcome::Lost(Reason::RetriesExhausted),
                (Retry::After(delay), Some(wait)) => {
                    self.throttled(delay);
                    tokio::time::sleep(wait).await;
                }
                (Retry::Backoff, Some(wait)) => {
                    claim.line().waits.pause(wait, self.spread()).await;
                }
            }
            permit = self.turn(Some(started + self.elapsed_max())).await;
        }
    }
}

/// A request in pieces within two limits, the first one last.
fn pieces(
    request: &Bytes,
    spans_max: usize,
    bytes_max: usize,
) -> Result<Vec<Body>, spanwire_codec::view::Malformed> {
    let parts = split::request(request, spans_max, bytes_max)?;
    Ok(parts.into_iter().rev().map(|part| Body::new(part.pieces, part.spans)).collect())
}

/// At the end, the time after which a full disk is tried once more.
const WRITE_SPREAD: Duration = Duration::from_millis(100);

impl LinesWay {
    pub(crate) async fn deliver(&self, mut claim: Claim, body: Body) {
        let Ok(_turn) = self.turn.acquire().await else { return };
        let (spans, bytes) = (body.spans(), body.len());
        let mut backoff = Backoff::new(Default::default(), Instant::now());
        loop {
            let (writer, pieces) = (Arc::clone(&self.writer), body.clone());
            let written = tokio::task::spawn_blocking(move || writer.write(pieces.pieces())).await;
            let error = match written {
                Ok(Ok(())) => {
                    claim.line().account.encoded(bytes, bytes);
                    return claim.exported(spans, 0);
                }
                Ok(Err(error)) => error,
                Err(_) => return claim.dropped(spans, Reason::Internal),
            };
            claim.line().account.failed();
            claim.line().note(Kind::ExportFailed, chain(&error));
            let retry = match error.kind() {
                // Somebody may make room.
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Retry::Backoff
                }
                _ => Retry::Never,
            };
            match backoff.wait_after(retry, Instant::now(), fastrand::u64(..)) {
                Some(wait) => claim.line().waits.pause(wait, WRITE_SPREAD).await,
                None => return claim.dropped(spans, Reason::WriteFailed),
            }
        }
    }
}
