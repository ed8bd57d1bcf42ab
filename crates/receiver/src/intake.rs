//! What both transports do with a body once it is read: decompress, check, hand to the sink.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use spanwire_codec::json;
use spanwire_codec::message::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use spanwire_codec::view::Checked;

use crate::body::Admitted;
use crate::budget::Reservation;
use crate::coding::Coding;
use crate::connection::Shared;
use crate::elements;
use crate::fault::Fault;
use crate::inflate::{Inflated, inflate};
use crate::sink::{Accepted, Compressed, Encoding, Received, Sink, Transport};
use crate::stats::{Reason, Tally};

/// How a body was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) transport: Transport,
    pub(crate) encoding: Encoding,
    pub(crate) coding: Option<Coding>,
}

/// Takes one body all the way to the sink. The answer counts the spans rejected here as well.
pub(crate) async fn take<S: Sink>(
    shared: &Shared<S>,
    tally: &mut Tally,
    wire: Admitted,
    form: Form,
    bytes_max: usize,
) -> Result<Accepted, Fault> {
    tally.read(wire.bytes.len());
    // JSON, decompressed or not, is not what the sink gets.
    let keep = shared.settings.keep_compressed && form.encoding == Encoding::Protobuf;
    let inflated = match form.coding {
        Some(coding) => inflate(wire, coding, bytes_max, keep).await?,
        None => Inflated { plain: wire, compressed: None },
    };
    let plain_bytes = inflated.plain.bytes.len();
    let elements_max = shared.settings.elements_max;
    let intact = match form.encoding {
        Encoding::Protobuf if plain_bytes <= INLINE_PROTOBUF_BYTES => {
            check(inflated, elements_max)?
        }
        Encoding::Json if plain_bytes <= INLINE_JSON_BYTES => {
            check_json(inflated.plain, elements_max)?
        }
        Encoding::Protobuf => aside(move || check(inflated, elements_max)).await?,
        Encoding::Json => aside(move || check_json(inflated.plain, elements_max)).await?,
    };
    let Intact { checked, compressed, reservation } = intact;
    let Checked { request, spans, rejected, reason } = checked;
    tally.decoded(request.len(), spans as u64 + rejected as u64);
    let own = Accepted {
        rejected_spans: rejected as u64,
        message: reason.map(|reason| reason.to_string()).unwrap_or_default(),
    };
    if spans == 0 {
        // Envelopes without spans are not worth a sink's time ("Empty Telemetry Envelopes" in
        // docs/specification.md).
        return Ok(own);
    }
    let received = Received {
        request,
        spans,
        transport: form.transport,
        encoding: form.encoding,
        compressed,
        reservation,
    };
    let theirs = shared.sink.accept(received).await?;
    Ok(joined(own, theirs, spans as u64))
}

/// Makes a panic in a request that request's failure, and for good: the same bytes would panic
/// again, while a stream that just breaks off is sent again.
pub(crate) async fn caught(
    request: impl Future<Output = Result<Accepted, Fault>>,
) -> Result<Accepted, Fault> {
    let mut request = pin!(request);
    poll_fn(|cx| {
        // What a panic leaves behind is this request's, which is over, or the sink's, which knows.
        catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(cx))).unwrap_or_else(|_panic| {
            let fault = Fault::new(Reason::Panic, "the request could not be handled");
            Poll::Ready(Err(fault))
        })
    })
    .await
}

/// A request that may go to the sink.
struct Intact {
    checked: Checked,
    compressed: Option<Compressed>,
    reservation: Reservation,
}

fn check(inflated: Inflated, elements_max: usize) -> Result<Intact, Fault> {
    let Inflated { plain: Admitted { bytes, mut reservation }, mut compressed } = inflated;
    let checked = elements::check(bytes, elements_max, &mut reservation, &mut compressed)?;
    if checked.rejected > 0 {
        // What came is gone, and what is left is a copy without a spare byte.
        reservation.shrink(checked.request.len());
    }
    Ok(Intact { checked, compressed, reservation })
}

fn check_json(plain: Admitted, elements_max: usize) -> Result<Intact, Fault> {
    let Admitted { bytes: text, mut reservation } = plain;
    let text_bytes = reservation.bytes();
    // Protobuf takes no more room than its JSON, and both are there until the last byte is read.
    if !reservation.grow(text.len()) {
        return Err(Fault::budget());
    }
    let request = json::read_request(&text)
        .map_err(|error| Fault::new(Reason::Malformed, error.to_string()))?;
    // But for odd documents, such as those of negative enums; they must fit the budget too.
    let beyond = (text_bytes + request.capacity()).saturating_sub(reservation.bytes());
    if beyond > 0 && !reservation.grow(beyond) {
        return Err(Fault::budget());
    }
    drop(text);
    let plain = Admitted::filled(request, reservation);
    check(Inflated { plain, compressed: None }, elements_max)
}

/// Runs long work on Tokio's blocking threads, so that this worker's other connections go on.
async fn aside<F>(work: F) -> Result<Intact, Fault>
where
    F: FnOnce() -> Result<Intact, Fault> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_panic| Err(Fault::new(Reason::Malformed, "the body cannot be decoded")))
}

fn joined(own: Accepted, theirs: Accepted, spans: u64) -> Accepted {
    let separator = if own.message.is_empty() || theirs.message.is_empty() { "" } else { "; " };
    Accepted {
        rejected_spans: own.rejected_spans + theirs.rejected_spans.min(spans),
        message: own.message + separator + &theirs.message,
    }
}

/// The message of a successful answer; full success leaves `partial_success` unset.
pub(crate) fn response(accepted: Accepted) -> ExportTraceServiceResponse {
    if accepted == Accepted::default() {
        return ExportTraceServiceResponse::default();
    }
    ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: i64::try_from(accepted.rejected_spans).unwrap_or(i64::MAX),
            error_message: accepted.message,
        }),
    }
}

/// The walk over a request runs at some gigabytes a second, so this is about a millisecond.
const INLINE_PROTOBUF_BYTES: usize = 4 << 20;

/// JSON is read at some hundred megabytes a second: a millisecond or two.
const INLINE_JSON_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::budget::Share;

    fn admitted(share: &std::sync::Arc<Share>, bytes: &[u8]) -> Admitted {
        let reservation = share.reserve(bytes.len()).expect("a fresh budget");
        Admitted { bytes: Bytes::copy_from_slice(bytes), reservation }
    }

    /// What is taken of a budget of `budget` bytes once `body` is ready for the sink, and what is
    /// held then.
    fn taken(
        budget: usize,
        body: &[u8],
        check: fn(Admitted, usize) -> Result<Intact, Fault>,
    ) -> Result<(usize, usize), Reason> {
        let share = Share::alone(budget);
        let outcome = check(admitted(&share, body), usize::MAX);
        match outcome {
            Ok(Intact { checked, reservation, .. }) => {
                assert_eq!(share.bytes(), reservation.bytes());
                Ok((reservation.bytes(), Vec::from(checked.request).capacity()))
            }
            Err(fault) => {
                assert_eq!(share.bytes(), 0);
                Err(fault.reason)
            }
        }
    }

    #[test]
    fn json_needs_room_for_the_protobuf_as_long_as_its_text_is_there() {
        let span = r#"{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"},"#;
        let spans = span.repeat(1000);
        let spans = spans.trim_end_matches(',');
        let text = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
        let (reserved, held) = taken(2 * text.len(), text.as_bytes(), check_json).expect("room");
        assert_eq!(reserved, held, "the text is given back, and spare bytes are not");
        assert!(held < text.len() / 2, "{held} of {}", text.len());
        let short = taken(2 * text.len() - 1, text.as_bytes(), check_json);
        assert_eq!(short, Err(Reason::Budget));
    }

    #[test]
    fn json_that_grows_in_protobuf_fits_the_budget_or_is_refused() {
        // A negative enum takes ten bytes of protobuf, and its field is kept each time it comes.
        let kinds = r#""kind":-1,"#.repeat(10_000);
        let ids = r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174""#;
        let span = format!("{{{kinds}{ids}}}");
        let text = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
        let (reserved, held) = taken(4 * text.len(), text.as_bytes(), check_json).expect("room");
        assert_eq!(reserved, held);
        assert!(held > text.len(), "{held} of {}", text.len());
        assert_eq!(taken(2 * text.len(), text.as_bytes(), check_json), Err(Reason::Budget));
    }

    #[test]
    fn malformed_spans_are_left_out_of_a_copy_that_there_is_room_for() {
        // A span with ids of the right lengths, and one without any.
        let good = [&[0x12, 28, 0x0A, 16][..], &[1; 16], &[0x12, 8], &[2; 8]].concat();
        let body = |spans: &[u8]| {
            let scope_spans = [&[0x12, u8::try_from(spans.len()).expect("short")], spans].concat();
            let length = u8::try_from(scope_spans.len()).expect("short");
            [&[0x0A, length], &scope_spans[..]].concat()
        };
        let check_plain =
            |plain, elements_max| check(Inflated { plain, compressed: None }, elements_max);
        let whole = body(&good.repeat(2));
        assert_eq!(taken(whole.len(), &whole, check_plain), Ok((whole.len(), whole.len())));
        let part = body(&[&good[..], &[0x12, 0].repeat(20)].concat());
        let left = body(&good).len();
        assert_eq!(taken(2 * part.len(), &part, check_plain), Ok((left, left)));
        assert_eq!(taken(2 * part.len() - 1, &part, check_plain), Err(Reason::Budget));

        // What it came as is no longer of use then, and makes room.
        let share = Share::alone(2 * part.len());
        let [plain, wire] = [(); 2].map(|()| admitted(&share, &part));
        let compressed =
            Compressed { encoding: Coding::Gzip, bytes: wire.bytes, reservation: wire.reservation };
        let intact = check(Inflated { plain, compressed: Some(compressed) }, usize::MAX);
        let intact = intact.expect("room without what it came as");
        assert!(intact.compressed.is_none());
        assert_eq!(share.bytes(), left);
    }
}
