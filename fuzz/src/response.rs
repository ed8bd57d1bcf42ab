//! Answers, as the client reads them.

use prost::Message as _;
use spanwire_codec::json::{read_response, read_status, write_response, write_status};
use spanwire_codec::message::{ExportTraceServiceResponse, Status};
use spanwire_transport::{Protocol, Retry, SendError};

use super::peer::{Answer, SPANS_SENT, ends};
use super::seeds::gzip;

/// Whether the spans are sent again is as OTLP has it, whatever else an answer holds; what is read of
/// it is bounded.
///
/// Three bytes say status, form and how many bytes of `Retry-After` follow; the rest is the body, or
/// the details of a gRPC status.
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    let Some((&[status, form, len], rest)) = data.split_first_chunk() else { return };
    let (retry_after, body) = rest.split_at(rest.len().min(usize::from(len)));
    if form & 1 == 0 {
        http(STATUSES[usize::from(status) % STATUSES.len()], form, retry_after, body);
    } else {
        grpc(status, form, retry_after, body);
    }
    codec(body);
}

fn http(status: u16, form: u8, retry_after: &[u8], body: &[u8]) {
    // Line breaks would make another header of it, and what HTTP forbids fails the whole answer.
    let retry_after: Vec<u8> =
        retry_after.iter().copied().filter(|byte| matches!(byte, b' '..=b'~' | 0x80..)).collect();
    let content_type = match form >> 1 & 3 {
        0 => "application/x-protobuf",
        1 => "application/json",
        2 => "text/plain; charset=utf-8",
        _ => "text/html",
    };
    let mut headers = vec![("content-type", content_type.as_bytes().to_vec())];
    if !retry_after.is_empty() {
        headers.push(("retry-after", retry_after.clone()));
    }
    let body = match form >> 3 & 1 {
        0 => body.to_vec(),
        _ => {
            headers.push(("content-encoding", b"gzip".to_vec()));
            gzip(body)
        }
    };
    let outcome = ends().answer(Protocol::HttpProtobuf, Answer { status, headers, body });
    let error = match outcome {
        Ok(accepted) => {
            assert!((200..300).contains(&status), "{status}");
            assert!(accepted.unreadable || status == 200);
            return assert_accepted(&accepted);
        }
        Err(error) => error,
    };
    assert!(!(200..300).contains(&status), "{error}");
    assert_error(&error);
    match status {
        429 | 502 | 503 | 504 if retry_after.is_empty() => {
            assert_eq!(error.retry(), Retry::Backoff);
        }
        429 | 502 | 503 | 504 => assert_ne!(error.retry(), Retry::Never),
        _ => assert_eq!(error.retry(), Retry::Never, "{status}"),
    }
}

fn grpc(status: u8, form: u8, message: &[u8], details: &[u8]) {
    let code = u32::from(status) % 20;
    let mut headers = vec![("grpc-status", code.to_string().into_bytes())];
    if !message.is_empty() {
        headers.push(("grpc-message", message.to_vec()));
    }
    let mut body = Vec::new();
    if form & 2 == 0 {
        headers.push(("grpc-status-details-bin", base64(details)));
    } else {
        body.push(form >> 2 & 1);
        body.extend((details.len() as u32).to_be_bytes());
        body.extend_from_slice(details);
    }
    let outcome = ends().answer(Protocol::Grpc, Answer { status: 200, headers, body });
    let error = match outcome {
        Ok(accepted) => {
            assert_eq!(code, 0);
            return assert_accepted(&accepted);
        }
        Err(error) => error,
    };
    assert_ne!(code, 0, "{error}");
    assert_error(&error);
    match code {
        1 | 4 | 10 | 11 | 14 | 15 => assert_ne!(error.retry(), Retry::Never, "{code}"),
        // With RetryInfo only; where it came, it says how long to wait.
        8 => assert_ne!(error.retry(), Retry::Backoff),
        _ => assert_eq!(error.retry(), Retry::Never, "{code}"),
    }
}

fn assert_accepted(accepted: &spanwire_transport::Accepted) {
    assert!(accepted.rejected_spans <= SPANS_SENT as u64);
    assert_text(accepted.message.as_deref());
}

fn assert_error(error: &SendError) {
    match error {
        SendError::Throttle { message, .. }
        | SendError::Reject { message, .. }
        | SendError::Oversize { message, .. } => assert_text(message.as_deref()),
        error => panic!("the answer was whole: {error}"),
    }
}

fn assert_text(text: Option<&str>) {
    let text = text.unwrap_or("-");
    assert!(!text.is_empty() && text.len() <= 1024, "{} bytes", text.len());
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// The codec's own readers: what is read stays the same when written and read again.
fn codec(body: &[u8]) {
    let mut json = Vec::new();
    let answers = [read_response(body).ok(), ExportTraceServiceResponse::decode(body).ok()];
    for answer in answers.into_iter().flatten() {
        json.clear();
        write_response(&answer, &mut json);
        assert_eq!(read_response(&json), Ok(answer));
    }
    if let Ok(status) = read_status(body) {
        json.clear();
        write_status(&status, &mut json);
        assert_eq!(read_status(&json), Ok(status));
    }
    if let Ok(status) = Status::decode(body) {
        json.clear();
        write_status(&status, &mut json);
        let read = read_status(&json).expect("what is written can be read");
        assert_eq!((read.code, read.message), (status.code, status.message));
    }
}

/// Base64 without padding, as gRPC sends it.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for chunk in bytes.chunks(3) {
        let mut triple = [0; 4];
        triple[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(triple);
        let digits = [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 0x3F]);
        out.extend_from_slice(&digits[..=chunk.len()]);
    }
    out
}

/// Those that OTLP or HTTP give a meaning, and some that nobody expects.
const STATUSES: [u16; 24] = [
    200, 202, 204, 206, 299, 301, 304, 307, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500,
    501, 502, 503, 504, 599,
];
