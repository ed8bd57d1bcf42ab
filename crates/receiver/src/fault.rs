//! Why a request fails, and the status each transport gives for it.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use prost::Message as _;
use spanwire_codec::json;
use spanwire_codec::message::{self, Any, RetryInfo, Status};

use crate::sink::{Encoding, Refusal};
use crate::stats::Reason;

/// Why a request fails.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    message: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
}

impl Fault {
    pub(crate) fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }

    /// The budget has no room; the peer is asked to come back.
    pub(crate) fn budget() -> Self {
        Self {
            retry_after: Some(BUDGET_RETRY_AFTER),
            ..Self::new(Reason::Budget, "too many bytes in flight")
        }
    }

    pub(crate) fn too_large(bytes_max: usize) -> Self {
        Self::new(Reason::TooLarge, format!("the request is over the limit of {bytes_max} bytes"))
    }

    /// The message, cut to what fits a header block beside everything else.
    pub(crate) fn message(&self) -> &str {
        let end = self.message.floor_char_boundary(MESSAGE_BYTES_MAX);
        &self.message[..end]
    }

    /// The gRPC status code, by "OTLP/gRPC Response" in `docs/specification.md`,
    /// opentelemetry-proto v1.11.0, and gRPC's own `doc/statuscodes.md` for what precedes OTLP.
    pub(crate) fn code(&self) -> Code {
        match self.reason {
            Reason::Cancelled => Code::Cancelled,
            Reason::Malformed | Reason::SinkInvalid => Code::InvalidArgument,
            Reason::Timeout => Code::DeadlineExceeded,
            Reason::TooLarge | Reason::Budget | Reason::SinkExhausted | Reason::SinkTooLarge => {
                Code::ResourceExhausted
            }
            Reason::Path | Reason::Method | Reason::ContentType | Reason::ContentEncoding => {
                Code::Unimplemented
            }
            Reason::Framing | Reason::Panic | Reason::SinkInternal => Code::Internal,
            Reason::SinkUnavailable => Code::Unavailable,
        }
    }

    /// The HTTP status, by "OTLP/HTTP Response" there and RFC 9110.
    pub(crate) fn http_status(&self) -> StatusCode {
        match self.reason {
            Reason::Path => StatusCode::NOT_FOUND,
            Reason::Method => StatusCode::METHOD_NOT_ALLOWED,
            Reason::ContentType | Reason::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Reason::TooLarge | Reason::SinkTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::Budget | Reason::SinkExhausted => StatusCode::TOO_MANY_REQUESTS,
            Reason::Framing | Reason::Malformed | Reason::Cancelled | Reason::SinkInvalid => {
                StatusCode::BAD_REQUEST
            }
            Reason::Timeout => StatusCode::REQUEST_TIMEOUT,
            Reason::SinkUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Reason::Panic | Reason::SinkInternal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The `google.rpc.Status` of this fault, with RetryInfo where the peer is asked to come back.
    pub(crate) fn status(&self) -> Status {
        let details = self.retry_after.map(|delay| Any {
            type_url: RetryInfo::TYPE_URL.to_owned(),
            value: RetryInfo {
                retry_delay: Some(message::Duration {
                    seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                    nanos: i32::try_from(delay.subsec_nanos()).unwrap_or(0),
                }),
            }
            .encode_to_vec(),
        });
        Status {
            code: self.code() as i32,
            message: self.message().to_owned(),
            details: details.into_iter().collect(),
        }
    }

    /// The body of an HTTP answer.
    pub(crate) fn body(&self, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Protobuf => self.status().encode_to_vec().into(),
            Encoding::Json => {
                let mut out = Vec::new();
                json::write_status(&self.status(), &mut out);
                out.into()
            }
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let (reason, retry_after) = match refusal {
            Refusal::Unavailable { retry_after } | Refusal::Undelivered { retry_after, .. } => {
                (Reason::SinkUnavailable, retry_after)
            }
            Refusal::Exhausted { retry_after } => (Reason::SinkExhausted, Some(retry_after)),
            Refusal::TooLarge { .. } => (Reason::SinkTooLarge, None),
            Refusal::Invalid { .. } => (Reason::SinkInvalid, None),
            Refusal::Internal { .. } => (Reason::SinkInternal, None),
        };
        Self { retry_after, ..Self::new(reason, message) }
    }
}

/// The gRPC status codes this crate answers with, from gRPC's `doc/statuscodes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// A request is in flight for milliseconds, so by then the budget has turned over many times; peers
/// add their own jitter.
const BUDGET_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Peers accept header blocks of 8 KiB and more; percent-encoding and base64 can triple a message
/// and add it again.
const MESSAGE_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_the_peer_may_repeat_are_retryable_statuses() {
        // "Retryable Response Codes" and "Failures" in docs/specification.md.
        for reason in Reason::ALL {
            let fault = Fault::new(reason, "");
            let http = matches!(fault.http_status().as_u16(), 429 | 502 | 503 | 504);
            let passing =
                matches!(reason, Reason::Budget | Reason::SinkExhausted | Reason::SinkUnavailable);
            assert_eq!(http, passing, "{}", reason.as_str());
        }
    }

    #[test]
    fn a_delay_travels_as_retry_info_to_the_nanosecond() {
        let refusal = Refusal::Unavailable { retry_after: Some(Duration::new(5, 7)) };
        let status = Fault::from(refusal).status();
        assert_eq!(status.code, 14);
        assert_eq!(status.details[0].type_url, RetryInfo::TYPE_URL);
        let info = RetryInfo::decode(&status.details[0].value[..]).expect("own encoding");
        let delay = info.retry_delay.expect("always set");
        assert_eq!((delay.seconds, delay.nanos), (5, 7));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let fault = Fault::new(Reason::SinkInvalid, "é".repeat(1000) + "x");
        assert_eq!(fault.message(), "é".repeat(512));
        let fault = Fault::new(Reason::SinkInvalid, "x".to_owned() + &"é".repeat(1000));
        assert_eq!(fault.message().len(), 1023);
    }
}
