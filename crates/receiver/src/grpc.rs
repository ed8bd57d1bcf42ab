//! OTLP/gRPC: one unary method, answered without a gRPC framework.
//!
//! Source: "OTLP/gRPC" in `docs/specification.md`, opentelemetry-proto v1.11.0, and gRPC's
//! `doc/PROTOCOL-HTTP2.md`, `doc/compression.md` and `doc/statuscodes.md`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut as _, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message as _;
use tokio::time::timeout;

use crate::body::read_message;
use crate::coding::{Coding, GRPC_ACCEPTED};
use crate::connection::Connection;
use crate::fault::Fault;
use crate::intake::{Form, Reply, caught, response, take};
use crate::sink::{Accepted, Encoding, Sink, Transport};
use crate::stats::{Reason, Tally};

/// Answers one request.
pub(crate) async fn answer<S: Sink>(
    connection: &Connection<S>,
    request: Request<Incoming>,
) -> Response<Reply> {
    let mut tally = Tally::open(connection.shared.counters.of(Transport::Grpc));
    let outcome = match deadline(request.headers()) {
        Ok(None) => caught(export(connection, &mut tally, request)).await,
        // A zero deadline has passed already; a timer would let ready work win.
        Ok(Some(Duration::ZERO)) => Err(passed()),
        Ok(Some(left)) => timeout(left, caught(export(connection, &mut tally, request)))
            .await
            .unwrap_or_else(|_elapsed| Err(passed())),
        Err(fault) => Err(fault),
    };
    match outcome {
        Ok(accepted) => {
            tally.accepted(accepted.rejected_spans);
            success(accepted)
        }
        Err(fault) => {
            tally.refused(fault.reason);
            failure(&fault)
        }
    }
}

async fn export<S: Sink>(
    connection: &Connection<S>,
    tally: &mut Tally<'_>,
    request: Request<Incoming>,
) -> Result<Accepted, Fault> {
    let (head, mut body) = request.into_parts();
    if !head.headers.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(Fault::new(Reason::ContentType, "content-type must be application/grpc"));
    }
    if head.method != Method::POST {
        return Err(Fault::new(Reason::Method, "only POST is served"));
    }
    if head.uri.path() != EXPORT_PATH {
        return Err(Fault::new(Reason::Path, "no such method"));
    }
    let coding = coding(&head.headers)?;

    let shared = &connection.shared;
    let bytes_max = shared.settings.grpc_request_bytes_max;
    let read =
        async |arrived: &_| read_message(&mut body, bytes_max, &connection.share, arrived).await;
    let (compressed, wire) = shared.settings.pace().keep(read).await?;
    let coding = match (compressed, coding) {
        (false, _) => None,
        (true, Some(coding)) => Some(coding),
        (true, None) => {
            return Err(Fault::new(Reason::Framing, "compressed message without grpc-encoding"));
        }
    };
    let form = Form { transport: Transport::Grpc, encoding: Encoding::Protobuf, coding };
    take(shared, tally, wire, form, bytes_max).await
}

fn is_grpc(content_type: &HeaderValue) -> bool {
    let media_type = content_type.as_bytes().split(|byte| *byte == b';').next();
    let media_type = media_type.unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(b"application/grpc")
        || media_type.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// The compression that `grpc-encoding` names.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Fault> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(name) => Coding::of_grpc(name).map(Some).ok_or_else(|| {
            Fault::new(Reason::ContentEncoding, "grpc-encoding must be gzip, zstd or snappy")
        }),
    }
}

/// What `grpc-timeout` leaves. Longer than a day is a day; gRPC's limit of eight digits is not
/// enforced, as a peer that breaks it means a long time and not an error.
fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let malformed = || Fault::new(Reason::Framing, "malformed grpc-timeout");
    let (unit, digits) = value.as_bytes().split_last().ok_or_else(malformed)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let amount = digits.iter().fold(0_u64, |amount, digit| {
        amount.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    });
    let left = match unit {
        b'H' => Duration::from_secs(amount.saturating_mul(3600)),
        b'M' => Duration::from_secs(amount.saturating_mul(60)),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return Err(malformed()),
    };
    Ok(Some(left.min(DEADLINE_MAX)))
}

fn passed() -> Fault {
    Fault::new(Reason::Timeout, "the deadline has passed")
}

fn success(accepted: Accepted) -> Response<Reply> {
    let response = response(accepted);
    let length = response.encoded_len();
    let message = if length == 0 {
        Bytes::from_static(&[0; 5])
    } else {
        let mut message = Vec::with_capacity(5 + length);
        message.put_u8(0);
        message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.extend_from_slice(&response.encode_to_vec());
        message.into()
    };
    with_head(StatusCode::OK, Reply::message(message))
}

/// An answer of headers alone ("Trailers-Only").
fn failure(fault: &Fault) -> Response<Reply> {
    // What is not gRPC gets an HTTP status as well, so that whatever sent it can tell.
    let status = match fault.reason {
        Reason::ContentType | Reason::Method => fault.http_status(),
        _ => StatusCode::OK,
    };
    let mut response = with_head(status, Reply::empty());
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(fault.code() as u16));
    let message = utf8_percent_encode(fault.message(), MESSAGE_ESCAPED).to_string();
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
    if fault.retry_after.is_some() {
        let details = STANDARD_NO_PAD.encode(fault.status().encode_to_vec());
        if let Ok(details) = HeaderValue::from_str(&details) {
            headers.insert("grpc-status-details-bin", details);
        }
    }
    match fault.reason {
        Reason::ContentEncoding => {
            let accepted = HeaderValue::from_static(GRPC_ACCEPTED);
            headers.insert("grpc-accept-encoding", accepted);
        }
        Reason::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
    response
}

fn with_head(status: StatusCode, reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    *response.status_mut() = status;
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// `TraceService.Export` in `collector/trace/v1/trace_service.proto`.
const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Timers far in the future cost the same; this only keeps their arithmetic away from its limits.
const DEADLINE_MAX: Duration = Duration::from_hours(24);

/// What `Percent-Encoded` in `doc/PROTOCOL-HTTP2.md` does not let through: all but space to tilde,
/// and the percent sign.
const MESSAGE_ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults 84.
    #[test]
    fn timeouts_are_read_clamped_or_refused() {
        let left = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(value));
            deadline(&headers).map_err(|fault| fault.reason)
        };
        assert!(matches!(deadline(&HeaderMap::new()), Ok(None)));
        for (value, expected) in [
            ("0n", Duration::ZERO),
            ("5H", Duration::from_hours(5)),
            ("5M", Duration::from_mins(5)),
            ("5S", Duration::from_secs(5)),
            ("5m", Duration::from_millis(5)),
            ("5u", Duration::from_micros(5)),
            ("5n", Duration::from_nanos(5)),
            ("99999999999H", DEADLINE_MAX),
            ("99999999999999999999999999S", DEADLINE_MAX),
        ] {
            assert_eq!(left(value), Ok(Some(expected)), "{value}");
        }
        for value in ["", "S", "5", "5s", "-5S", "+5S", "5 S", "0x5S", "soon"] {
            assert_eq!(left(value), Err(Reason::Framing), "{value}");
        }
    }

    /// Faults 88.
    #[test]
    fn the_message_header_escapes_what_grpc_does_not_let_through() {
        let fault = Fault::new(Reason::Malformed, "100 % \n é~");
        let response = failure(&fault);
        assert_eq!(response.headers()["grpc-message"], "100 %25 %0A %C3%A9~");
        assert_eq!(response.headers()["grpc-status"], "3");
    }
}
