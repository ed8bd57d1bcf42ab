//! OTLP/HTTP: what the answer to a POST of protobuf or JSON means.
//!
//! Source: "OTLP/HTTP" in `docs/specification.md`, opentelemetry-proto v1.11.0.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::compression::{Compression, gunzip};
use crate::error::SendError;
use crate::response::{
    ANSWER_BYTES_MAX, Accepted, Answer, clean, decode_status, retry_after, too_large,
};

/// Reads an answer to a request of `spans` spans to its end, and judges it. A redirect is an
/// answer as any other: it could carry spans and credentials to another host.
pub(crate) async fn read(
    response: Response<Incoming>,
    spans: usize,
) -> Result<Accepted, SendError> {
    let (head, body) = response.into_parts();
    let headers = head.headers;
    let body = read_body(body).await;
    if head.status.is_success() {
        let accepted = match decompress(body?, &headers)? {
            Some(body) => accepted(&body, &headers, spans),
            None => Accepted::unreadable(),
        };
        // Only 200 is a success of OTLP; 204 or 202 come from something else.
        let unreadable = accepted.unreadable || head.status != StatusCode::OK;
        return Ok(Accepted { unreadable, ..accepted });
    }
    let message = match body.and_then(|body| decompress(body, &headers)) {
        Ok(body) => body.and_then(|body| message(&body, &headers)),
        Err(error @ SendError::AnswerTooLarge { .. }) => return Err(error),
        // The status was understood; that its explanation was cut off changes nothing.
        Err(_) => None,
    };
    Err(SendError::from_http(head.status.as_u16(), retry_after_header(&headers), message))
}

async fn read_body(mut body: Incoming) -> Result<Bytes, SendError> {
    // Known beforehand from Content-Length.
    if body.size_hint().lower() > ANSWER_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut answer = Answer::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| SendError::Disconnect(error.into()))?;
        if let Ok(data) = frame.into_data() {
            answer.push(data)?;
        }
    }
    Ok(answer.finish())
}

/// The body in plain form; `None` if its coding is unknown or broken. No coding is ever asked for.
fn decompress(body: Bytes, headers: &HeaderMap) -> Result<Option<Bytes>, SendError> {
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Some(body)),
        Some(coding) if Some(coding) == Compression::Gzip.coding().map(str::as_bytes) => {
            match gunzip(&body, ANSWER_BYTES_MAX) {
                Ok(Some(plain)) => Ok(Some(plain.into())),
                Ok(None) => Err(too_large()),
                Err(_) => Ok(None),
            }
        }
        Some(_) => Ok(None),
    }
}

fn accepted(body: &[u8], headers: &HeaderMap, spans: usize) -> Accepted {
    if body.is_empty() {
        return Accepted::default();
    }
    match media_type(headers) {
        PROTOBUF => Accepted::from_protobuf(body, spans),
        JSON => match spanwire_codec::json::read_response(body) {
            Ok(response) => Accepted::new(response, spans),
            Err(_) => Accepted::unreadable(),
        },
        _ => Accepted::unreadable(),
    }
}

/// What the body of a failure says: a `google.rpc.Status`, or the plain text of a proxy.
fn message(body: &[u8], headers: &HeaderMap) -> Option<Box<str>> {
    match media_type(headers) {
        PROTOBUF => clean(decode_status(body, false)?.message.as_bytes()),
        JSON => clean(decode_status(body, true)?.message.as_bytes()),
        "text/plain" => clean(body),
        _ => None,
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).unwrap_or_default().trim()
}

pub(crate) fn retry_after_header(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get(header::RETRY_AFTER)?.as_bytes(), SystemTime::now())
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const PROTOBUF: &str = "application/x-protobuf";
