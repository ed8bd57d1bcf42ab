//! OTLP/gRPC: the address of the call, and what its answer means.
//!
//! A unary call is a POST whose body is one message behind five bytes, answered by trailers.
//! Source: `doc/PROTOCOL-HTTP2.md` of gRPC.

use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::compression::{Compression, gunzip};
use crate::config::InvalidConfig;
use crate::encode::GRPC_PREFIX_LEN;
use crate::error::{SendError, code};
use crate::http::retry_after_header;
use crate::response::{
    ANSWER_BYTES_MAX, Accepted, Answer, clean, decode_status, retry_info, too_large,
};

/// The address of the call; path and query of the endpoint mean nothing to gRPC.
pub(crate) fn method_url(endpoint: Uri) -> Result<Uri, InvalidConfig> {
    let mut parts = endpoint.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(EXPORT_PATH));
    Uri::from_parts(parts).map_err(|error| InvalidConfig::Client(error.into()))
}

/// Judges an answer to a request of `spans` spans. Its body is read to the end, where it counts.
pub(crate) async fn read(
    response: Response<Incoming>,
    spans: usize,
) -> Result<Accepted, SendError> {
    let (head, mut body) = response.into_parts();
    // An answer without a body carries its trailers as headers.
    if head.headers.contains_key(GRPC_STATUS) {
        return outcome(&head.headers, Bytes::new(), &head.headers, spans);
    }
    if head.status != StatusCode::OK {
        let retry_after = retry_after_header(&head.headers);
        return Err(SendError::from_http(head.status.as_u16(), retry_after, None));
    }
    let mut answer = Answer::default();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| SendError::Disconnect(error.into()))?;
        match frame.into_data() {
            Ok(data) => answer.push(data)?,
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    outcome(&trailers, answer.finish(), &head.headers, spans)
}

/// Judges a whole answer: `trailers` decide, `body` only explains.
fn outcome(
    trailers: &HeaderMap,
    body: Bytes,
    headers: &HeaderMap,
    spans: usize,
) -> Result<Accepted, SendError> {
    // Without a readable status nobody knows what became of the request: UNKNOWN, by the
    // specification, and so not to be repeated.
    let code = trailers
        .get(GRPC_STATUS)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(code::UNKNOWN);
    if code == code::OK {
        return match message(&body, headers)? {
            Some(message) => Ok(Accepted::from_protobuf(&message, spans)),
            None => Ok(Accepted::unreadable()),
        };
    }
    let details = trailers.get(GRPC_STATUS_DETAILS).and_then(|value| {
        let encoded = value.as_bytes().trim_ascii();
        BASE64.decode(encoded).ok().and_then(|details| decode_status(&details, false))
    });
    let text = trailers.get(GRPC_MESSAGE).and_then(|value| {
        // Decoding never lengthens, and three bytes stand for one at most.
        let value = &value.as_bytes()[..value.len().min(3 * 1024)];
        clean(&percent_encoding::percent_decode(value).collect::<Vec<u8>>())
    });
    let text = text.or_else(|| clean(details.as_ref()?.message.as_bytes()));
    Err(SendError::from_grpc(code, details.as_ref().and_then(retry_info), text))
}

/// The one message in `body`, decompressed; `None` if it is not exactly one.
fn message(body: &Bytes, headers: &HeaderMap) -> Result<Option<Bytes>, SendError> {
    let Some((prefix, message)) = body.split_first_chunk::<GRPC_PREFIX_LEN>() else {
        return Ok(None);
    };
    let [compressed, len @ ..] = *prefix;
    if message.len() != u32::from_be_bytes(len) as usize {
        return Ok(None);
    }
    match compressed {
        0 => Ok(Some(body.slice(GRPC_PREFIX_LEN..))),
        // Never asked for, yet harmless to understand.
        1 if headers.get(ENCODING).map(HeaderValue::as_bytes)
            == Compression::Gzip.coding().map(str::as_bytes) =>
        {
            match gunzip(message, ANSWER_BYTES_MAX) {
                Ok(Some(message)) => Ok(Some(message.into())),
                Ok(None) => Err(too_large()),
                Err(_) => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

pub(crate) const CONTENT_TYPE: &str = "application/grpc";
pub(crate) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_STATUS: &str = "grpc-status";
const GRPC_STATUS_DETAILS: &str = "grpc-status-details-bin";

/// Senders may leave out the padding of binary headers, and should.
const BASE64: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message as _;
    use spanwire_codec::message::{self, Any, RetryInfo, Status};

    use super::*;
    use crate::error::Retry;

    fn trailers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (::http::HeaderName::from_static(name), value.parse().expect("a header value"))
        };
        pairs.iter().map(pair).collect()
    }

    fn failure(pairs: &[(&'static str, &str)]) -> SendError {
        outcome(&trailers(pairs), Bytes::new(), &HeaderMap::new(), 1).expect_err("not OK")
    }

    fn details() -> Vec<u8> {
        let delay = message::Duration { seconds: 5, nanos: 0 };
        let info = RetryInfo { retry_delay: Some(delay) };
        let any = Any { type_url: RetryInfo::TYPE_URL.into(), value: info.encode_to_vec() };
        Status { code: 8, message: "later".into(), details: vec![any] }.encode_to_vec()
    }

    /// Faults 109, 110.
    #[test]
    fn details_are_read_with_and_without_padding_and_ignored_when_damaged() {
        let padded = base64::engine::general_purpose::STANDARD.encode(details());
        assert!(padded.ends_with('='), "the case must have padding to leave out");
        for value in [padded.as_str(), padded.trim_end_matches('=')] {
            let error = failure(&[("grpc-status", "8"), ("grpc-status-details-bin", value)]);
            assert_eq!(error.retry(), Retry::After(Duration::from_secs(5)));
            assert!(error.to_string().ends_with(": later"), "{error}");
        }
        for value in ["!!!", "AA==AA", &padded[..10], "////////"] {
            let error = failure(&[("grpc-status", "14"), ("grpc-status-details-bin", value)]);
            assert_eq!(error.retry(), Retry::Backoff, "the code still counts: {value}");
        }
    }

    /// Faults 113.
    #[test]
    fn a_missing_or_senseless_status_is_unknown_and_not_repeated() {
        for pairs in [&[][..], &[("grpc-status", "x")], &[("grpc-status", "-1")]] {
            let error = failure(pairs);
            assert_eq!(error.retry(), Retry::Never);
            assert!(error.to_string().contains("UNKNOWN"), "{error}");
        }
    }

    #[test]
    fn the_message_is_percent_decoded_and_bounded() {
        let error = failure(&[("grpc-status", "3"), ("grpc-message", "bad%20id%0A%E2%82%AC%zz")]);
        assert!(error.to_string().ends_with(": bad id €%zz"), "{error}");
        let long = "%41".repeat(5000);
        let SendError::Reject { message, .. } =
            failure(&[("grpc-status", "3"), ("grpc-message", &long)])
        else {
            panic!("INVALID_ARGUMENT is a rejection");
        };
        assert_eq!(message.expect("some text").len(), 1024);
    }

    /// Faults 103.
    #[test]
    fn an_ok_with_anything_but_one_message_is_a_success_that_says_nothing() {
        let ok = trailers(&[("grpc-status", "0")]);
        let cases: [&'static [u8]; 6] = [
            b"",
            b"\0\0\0",
            b"\0\0\0\0\x05ab",
            b"\0\0\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0",
            b"\x02\0\0\0\0",
        ];
        for body in cases {
            let accepted = outcome(&ok, Bytes::from_static(body), &HeaderMap::new(), 1);
            assert_eq!(accepted.expect("OK"), Accepted::unreadable(), "{body:?}");
        }
        let empty = outcome(&ok, Bytes::from_static(b"\0\0\0\0\0"), &HeaderMap::new(), 1);
        assert_eq!(empty.expect("OK"), Accepted::default());
    }
}
