//! Reading answers without trusting them.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use spanwire_codec::message::{ExportTraceServiceResponse, RetryInfo, Status};

use crate::error::SendError;

/// The collector's answer to spans it took, all of them or all but some.
///
/// A partial success is an answer, not an error: OTLP forbids to send such a body again ("Partial
/// Success" in `docs/specification.md`, opentelemetry-proto v1.11.0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "rejected spans have to be counted"]
pub struct Accepted {
    /// Spans refused for good, never more than were sent.
    pub rejected_spans: u64,
    /// Why, or a warning where no span was rejected. At most 1 KiB.
    pub message: Option<Box<str>>,
    /// The status says that the spans were taken, but the answer is not one of OTLP: a body that
    /// cannot be read, a wrong content type, or a status such as 204. Often something other than
    /// an OTLP receiver is listening there.
    pub unreadable: bool,
}

impl Accepted {
    /// A success whose body says nothing that can be understood.
    pub(crate) fn unreadable() -> Self {
        Self { unreadable: true, ..Self::default() }
    }

    /// From the answer to a request of `spans` spans.
    pub(crate) fn new(response: ExportTraceServiceResponse, spans: usize) -> Self {
        let partial = response.partial_success.unwrap_or_default();
        Self {
            rejected_spans: u64::try_from(partial.rejected_spans).unwrap_or(0).min(spans as u64),
            message: clean(partial.error_message.as_bytes()),
            unreadable: false,
        }
    }

    /// From the bytes of an `ExportTraceServiceResponse`.
    pub(crate) fn from_protobuf(body: &[u8], spans: usize) -> Self {
        match ExportTraceServiceResponse::decode(body) {
            Ok(response) => Self::new(response, spans),
            Err(_) => Self::unreadable(),
        }
    }
}

/// An answer's body as it arrives, up to [`ANSWER_BYTES_MAX`].
#[derive(Default)]
pub(crate) struct Answer {
    bytes: BytesMut,
    only: Option<Bytes>,
}

impl Answer {
    /// Takes in the next piece.
    pub(crate) fn push(&mut self, piece: Bytes) -> Result<(), SendError> {
        let len = self.only.as_ref().map_or(self.bytes.len(), Bytes::len);
        if len + piece.len() > ANSWER_BYTES_MAX {
            return Err(too_large());
        }
        // Nearly every answer is a single piece, which needs no copy.
        if len == 0 {
            self.only = Some(piece);
            return Ok(());
        }
        if let Some(first) = self.only.take() {
            self.bytes.extend_from_slice(&first);
        }
        self.bytes.extend_from_slice(&piece);
        Ok(())
    }

    pub(crate) fn finish(self) -> Bytes {
        self.only.unwrap_or_else(|| self.bytes.freeze())
    }
}

pub(crate) fn too_large() -> SendError {
    SendError::AnswerTooLarge { bytes_max: ANSWER_BYTES_MAX }
}

/// A peer's text made fit for a log line: at most 1 KiB, valid UTF-8, no control characters, no
/// blanks at either end. `None` if nothing is left.
pub(crate) fn clean(text: &[u8]) -> Option<Box<str>> {
    let cut = &text[..text.len().min(MESSAGE_BYTES_MAX)];
    // The cut may have split a character; its first bytes are not worth a replacement sign.
    let cut = match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() && cut.len() < text.len() => {
            &cut[..error.valid_up_to()]
        }
        _ => cut,
    };
    let shown: String = String::from_utf8_lossy(cut)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // A replacement sign is longer than the byte it stands for.
    let shown = shown[..shown.floor_char_boundary(MESSAGE_BYTES_MAX)].trim();
    (!shown.is_empty()).then(|| shown.into())
}

/// The `google.rpc.Status` that `body` is in protobuf or, with `json`, in JSON.
///
/// Larger bodies than 64 KiB are `None`: details are a list, an element of two bytes becomes a
/// struct of fifty, and so the limit keeps what a peer can make us allocate within a few MiB.
pub(crate) fn decode_status(body: &[u8], json: bool) -> Option<Status> {
    match json {
        _ if body.len() > STATUS_BYTES_MAX => None,
        true => spanwire_codec::json::read_status(body).ok(),
        false => Status::decode(body).ok(),
    }
}

/// The delay of the first `RetryInfo` among the details.
///
/// Presence alone is what makes RESOURCE_EXHAUSTED retryable, so a delay that is absent or
/// negative is zero, not nothing.
pub(crate) fn retry_info(status: &Status) -> Option<Duration> {
    let any = status.details.iter().find(|any| any.type_url.ends_with(RETRY_INFO_NAME))?;
    let info = RetryInfo::decode(&any.value[..]).ok()?;
    let delay = info.retry_delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = if delay.seconds < 0 { 0 } else { delay.nanos.clamp(0, 999_999_999) };
    Some(Duration::new(seconds, nanos.unsigned_abs()))
}

/// `Retry-After` in either form (RFC 9110, section 10.2.3), seen at `now`. A date in the past is
/// zero; anything else is `None`.
pub(crate) fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The largest answer a client reads ("Response size limits" in `docs/specification.md`,
/// opentelemetry-proto v1.11.0).
pub(crate) const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

const MESSAGE_BYTES_MAX: usize = 1024;
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// The end of [`RetryInfo::TYPE_URL`]; the host before it is free by `google.protobuf.Any`.
const RETRY_INFO_NAME: &str = "/google.rpc.RetryInfo";

#[cfg(test)]
mod tests {
    use spanwire_codec::message::{self, Any, ExportTracePartialSuccess};

    use super::*;

    fn accepted(rejected_spans: i64, error_message: &str, spans: usize) -> Accepted {
        let partial =
            ExportTracePartialSuccess { rejected_spans, error_message: error_message.into() };
        let response = ExportTraceServiceResponse { partial_success: Some(partial) };
        Accepted::from_protobuf(&response.encode_to_vec(), spans)
    }

    /// Faults 102.
    #[test]
    fn rejected_spans_are_never_negative_and_never_more_than_were_sent() {
        assert_eq!(accepted(3, "", 10).rejected_spans, 3);
        assert_eq!(accepted(11, "", 10).rejected_spans, 10);
        assert_eq!(accepted(i64::MAX, "", 10).rejected_spans, 10);
        assert_eq!(accepted(-1, "", 10).rejected_spans, 0);
    }

    /// Faults 101.
    #[test]
    fn a_warning_without_rejected_spans_is_kept() {
        let accepted = accepted(0, "schema is old", 10);
        assert_eq!(accepted.message.as_deref(), Some("schema is old"));
        assert_eq!((accepted.rejected_spans, accepted.unreadable), (0, false));
    }

    /// Faults 100, 103.
    #[test]
    fn garbage_counts_as_success_and_is_marked() {
        assert_eq!(Accepted::from_protobuf(b"<html>", 10), Accepted::unreadable());
        assert_eq!(Accepted::from_protobuf(b"", 10), Accepted::default());
    }

    #[test]
    fn a_peer_s_text_is_cut_at_a_character_and_stripped_of_control_characters() {
        let long = "é".repeat(1000);
        assert_eq!(clean(long.as_bytes()).expect("text").chars().count(), 512);
        let odd = format!("x{long}");
        assert_eq!(clean(odd.as_bytes()).expect("text").len(), 1023);
        assert_eq!(clean(b" a\x1b[31m\nb\0 ").as_deref(), Some("a [31m b"));
        assert_eq!(clean(b"a\xFFb").as_deref(), Some("a\u{FFFD}b"));
        assert_eq!(clean(b"\n "), None);
        let garbage = clean(&[0xFF; 2000]).expect("replacement signs");
        assert_eq!((garbage.len(), garbage.chars().count()), (1023, 341));
    }

    /// Faults 111.
    #[test]
    fn an_answer_is_read_up_to_the_limit_and_no_further() {
        let mut answer = Answer::default();
        let half = Bytes::from(vec![1; ANSWER_BYTES_MAX / 2]);
        assert!(answer.push(half.clone()).is_ok());
        assert!(answer.push(half).is_ok());
        let over = answer.push(Bytes::from_static(b"x"));
        assert!(matches!(over, Err(SendError::AnswerTooLarge { .. })));
        assert_eq!(answer.finish().len(), ANSWER_BYTES_MAX);
    }

    /// Faults 109.
    #[test]
    fn retry_info_is_found_and_its_delay_made_sane() {
        let delay = |seconds, nanos| {
            let info = RetryInfo { retry_delay: Some(message::Duration { seconds, nanos }) };
            retry_info(&Status {
                details: vec![
                    Any { type_url: "type.googleapis.com/google.rpc.Help".into(), value: vec![] },
                    Any { type_url: RetryInfo::TYPE_URL.into(), value: info.encode_to_vec() },
                ],
                ..Status::default()
            })
        };
        assert_eq!(delay(5, 0), Some(Duration::from_secs(5)));
        assert_eq!(delay(0, 7), Some(Duration::from_nanos(7)));
        assert_eq!(delay(-5, 7), Some(Duration::ZERO));
        assert_eq!(delay(1, i32::MAX), Some(Duration::new(1, 999_999_999)));
        assert_eq!(delay(1, -1), Some(Duration::from_secs(1)));
        assert_eq!(delay(i64::MAX, 0), Some(Duration::from_secs(i64::MAX as u64)));
        assert_eq!(retry_info(&Status::default()), None);
    }

    /// Faults 110.
    #[test]
    fn a_status_with_a_mass_of_details_is_not_decoded() {
        let empty_details = [0x1A, 0x00].repeat(STATUS_BYTES_MAX / 2);
        assert!(decode_status(&empty_details, false).is_some());
        assert!(decode_status(&[&empty_details[..], &[0x1A, 0x00]].concat(), false).is_none());
        let json = format!(r#"{{"message":"{}"}}"#, "x".repeat(STATUS_BYTES_MAX));
        assert!(decode_status(json.as_bytes(), true).is_none());
    }

    /// Faults 106.
    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 12:00:00 GMT").expect("a date");
        let at = |value: &str| retry_after(value.as_bytes(), now);
        assert_eq!(at("0"), Some(Duration::ZERO));
        assert_eq!(at(" 5 "), Some(Duration::from_secs(5)));
        assert_eq!(at("1000000000"), Some(Duration::from_secs(1_000_000_000)));
        assert_eq!(at("Sat, 21 Nov 2026 12:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(at("Sat, 21 Nov 2026 11:00:00 GMT"), Some(Duration::ZERO));
        for garbage in ["", "-1", "+1", "1.5", "1e9", "soon", "99999999999999999999999"] {
            assert_eq!(at(garbage), None, "{garbage}");
        }
    }
}
