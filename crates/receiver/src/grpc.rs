//! OTLP/gRPC: one unary method, answered without a gRPC framework.
//!
//! Source: "OTLP/gRPC" in `docs/specification.md`, opentelemetry-proto v1.11.0, and gRPC's
//! `doc/PROTOCOL-HTTP2.md`, `doc/compression.md` and `doc/statuscodes.md`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::BufMut as _;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use crate::body::Admitted;
use crate::coding::{Coding, GRPC_ACCEPTED};
use crate::connection::Connection;
use crate::fault::Fault;
use crate::h2::{write_field, write_status};
use crate::intake::{Form, caught, response, take};
use crate::sink::{Accepted, Encoding, Sink, Transport};
use crate::stats::{Reason, Tally};

/// What the header fields of a request say, as far as anybody here wants to know.
#[derive(Debug, Default)]
pub(crate) struct Call {
    is_post: bool,
    is_export: bool,
    is_grpc: bool,
    coding: Named,
    /// `grpc-timeout`.
    timeout: Option<Result<Duration, Malformed>>,
}

/// What `grpc-encoding` names.
#[derive(Clone, Copy, Debug, Default)]
enum Named {
    #[default]
    Nothing,
    Known(Coding),
    Unknown,
}

/// A value that its header does not have.
#[derive(Clone, Copy, Debug)]
struct Malformed;

/// A request whose message is here.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) call: Call,
    /// When its answer is of no use any more.
    pub(crate) deadline: Option<Instant>,
    pub(crate) is_compressed: bool,
    pub(crate) wire: Admitted,
    pub(crate) tally: Tally,
}

impl Call {
    /// Takes note of a field. Which ones there may be, and in which order, is HTTP's to say.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":method" => self.is_post = value == b"POST",
            b":path" => self.is_export = path(value) == EXPORT_PATH.as_bytes(),
            b"content-type" => self.is_grpc = is_grpc(value),
            b"grpc-encoding" => {
                self.coding = match value {
                    b"identity" => Named::Nothing,
                    name => Coding::of_grpc(name).map_or(Named::Unknown, Named::Known),
                };
            }
            b"grpc-timeout" => self.timeout = Some(timeout(value)),
            _ => {}
        }
    }

    /// When the peer's patience ends, by `now`.
    pub(crate) fn deadline(&self) -> Result<Option<Instant>, Fault> {
        match self.timeout {
            None => Ok(None),
            Some(Err(Malformed)) => Err(Fault::new(Reason::Framing, "malformed grpc-timeout")),
            // It has passed already; a timer would let ready work win.
            Some(Ok(Duration::ZERO)) => Err(passed()),
            Some(Ok(left)) => Ok(Some(Instant::now() + left)),
        }
    }

    /// Whether this is a call that is served here.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if !self.is_grpc {
            return Err(Fault::new(Reason::ContentType, "content-type must be application/grpc"));
        }
        if !self.is_post {
            return Err(Fault::new(Reason::Method, "only POST is served"));
        }
        if !self.is_export {
            return Err(Fault::new(Reason::Path, "no such method"));
        }
        match self.coding {
            Named::Unknown => Err(Fault::new(
                Reason::ContentEncoding,
                "grpc-encoding must be gzip, zstd or snappy",
            )),
            Named::Nothing | Named::Known(_) => Ok(()),
        }
    }

    fn coding(&self, is_compressed: bool) -> Result<Option<Coding>, Fault> {
        match self.coding {
            _ if !is_compressed => Ok(None),
            Named::Known(coding) => Ok(Some(coding)),
            Named::Nothing | Named::Unknown => {
                Err(Fault::new(Reason::Framing, "compressed message without grpc-encoding"))
            }
        }
    }
}

/// Takes one request to the sink, and closes its account.
pub(crate) async fn export<S: Sink>(
    connection: Arc<Connection<S>>,
    request: Request,
) -> Result<Accepted, Fault> {
    let Request { call, deadline, is_compressed, wire, mut tally } = request;
    let outcome = {
        let taken = caught(async {
            let coding = call.coding(is_compressed)?;
            let form = Form { transport: Transport::Grpc, encoding: Encoding::Protobuf, coding };
            let shared = &connection.shared;
            take(shared, &mut tally, wire, form, shared.settings.grpc_request_bytes_max).await
        });
        match deadline {
            None => taken.await,
            Some(deadline) => {
                timeout_at(deadline, taken).await.unwrap_or_else(|_elapsed| Err(passed()))
            }
        }
    };
    match &outcome {
        Ok(accepted) => tally.accepted(accepted.rejected_spans),
        Err(fault) => tally.refused(fault.reason),
    }
    outcome
}

/// The path, without a query.
fn path(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

fn is_grpc(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next();
    let media_type = media_type.unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(b"application/grpc")
        || media_type.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// Longer than a day is a day; gRPC's limit of eight digits is not enforced, as a peer that breaks it
/// means a long time and not an error.
fn timeout(value: &[u8]) -> Result<Duration, Malformed> {
    let (unit, digits) = value.split_last().ok_or(Malformed)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
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
        _ => return Err(Malformed),
    };
    Ok(left.min(DEADLINE_MAX))
}

/// The peer's deadline has.
pub(crate) fn passed() -> Fault {
    Fault::new(Reason::Timeout, "the deadline has passed")
}

/// The message of a successful answer, with its prefix.
pub(crate) fn message(accepted: Accepted) -> Vec<u8> {
    let response = response(accepted);
    let length = response.encoded_len();
    let mut message = Vec::with_capacity(5 + length);
    message.put_u8(0);
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.extend_from_slice(&response.encode_to_vec());
    message
}

/// The header fields of an answer that has no others ("Trailers-Only").
pub(crate) fn failure(fault: &Fault, block: &mut Vec<u8>) {
    // What is not gRPC gets an HTTP status as well, so that whatever sent it can tell.
    let status = match fault.reason {
        Reason::ContentType | Reason::Method => fault.http_status().as_u16(),
        _ => 200,
    };
    write_status(status, block);
    write_field("content-type", b"application/grpc", block);
    write_field("grpc-status", (fault.code() as u16).to_string().as_bytes(), block);
    let message = utf8_percent_encode(fault.message(), MESSAGE_ESCAPED).to_string();
    write_field("grpc-message", message.as_bytes(), block);
    if fault.retry_after.is_some() {
        let details = STANDARD_NO_PAD.encode(fault.status().encode_to_vec());
        write_field("grpc-status-details-bin", details.as_bytes(), block);
    }
    match fault.reason {
        Reason::ContentEncoding => {
            write_field("grpc-accept-encoding", GRPC_ACCEPTED.as_bytes(), block);
        }
        Reason::Method => write_field("allow", b"POST", block),
        _ => {}
    }
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
            assert_eq!(timeout(value.as_bytes()).ok(), Some(expected), "{value}");
        }
        for value in ["", "S", "5", "5s", "-5S", "+5S", "5 S", "0x5S", "soon"] {
            let mut call = Call::default();
            call.field(b"grpc-timeout", value.as_bytes());
            let reason = call.deadline().map_err(|fault| fault.reason);
            assert_eq!(reason, Err(Reason::Framing), "{value}");
        }
        assert!(matches!(Call::default().deadline(), Ok(None)));
    }

    /// Faults 88.
    #[test]
    fn the_message_header_escapes_what_grpc_does_not_let_through() {
        let fault = Fault::new(Reason::Malformed, "100 % \n é~");
        let mut block = Vec::new();
        failure(&fault, &mut block);
        let has = |text: &[u8]| block.windows(text.len()).any(|window| window == text);
        assert!(has(b"grpc-message\x13100 %25 %0A %C3%A9~"), "{block:?}");
        assert!(has(b"grpc-status\x013"), "{block:?}");
    }
}
