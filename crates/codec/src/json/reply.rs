//! The messages around a request: the answer to it, and why it was refused.

use prost::Message as _;

use super::error::{JsonError, JsonErrorKind};
use super::lexer::Lexer;
use super::number::{get_i64, put_i64, put_u64};
use super::pull::{array, integer, object, without_escapes};
use super::text::put_string;
use super::write::{close, put_enum, put_text};
use crate::message::{
    Any, Duration, ExportTracePartialSuccess, ExportTraceServiceResponse, RetryInfo, Status,
};

/// Appends the answer to an export request as OTLP/JSON: `{}` if all went well.
///
/// ```
/// use spanwire_codec::json::{read_response, write_response};
/// use spanwire_codec::message::{ExportTracePartialSuccess, ExportTraceServiceResponse};
///
/// let partial_success =
///     Some(ExportTracePartialSuccess { rejected_spans: 2, error_message: "no ids".to_owned() });
/// let response = ExportTraceServiceResponse { partial_success };
/// let mut json = Vec::new();
/// write_response(&response, &mut json);
/// assert_eq!(json, br#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"no ids"}}"#);
/// assert_eq!(read_response(&json)?, response);
/// # Ok::<(), spanwire_codec::json::JsonError>(())
/// ```
pub fn write_response(response: &ExportTraceServiceResponse, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(partial) = &response.partial_success {
        out.extend_from_slice(br#""partialSuccess":{"#);
        if partial.rejected_spans != 0 {
            out.extend_from_slice(br#""rejectedSpans":""#);
            put_i64(out, partial.rejected_spans);
            out.extend_from_slice(b"\",");
        }
        put_text(out, br#""errorMessage":""#, partial.error_message.as_bytes());
        close(out, b'}');
    }
    out.push(b'}');
}

/// Reads the answer to an export request from OTLP/JSON.
///
/// # Errors
///
/// [`JsonError`] where the text is no such answer. What answers HTTP 200 with something else took
/// the spans all the same.
pub fn read_response(json: &[u8]) -> Result<ExportTraceServiceResponse, JsonError> {
    let mut lexer = Lexer::new(json)?;
    let mut response = ExportTraceServiceResponse::default();
    object(&mut lexer, |lexer, name| match name {
        b"partialSuccess" => {
            let partial = response.partial_success.get_or_insert_default();
            partial_success(lexer, partial)
        }
        _ => lexer.skip(),
    })?;
    lexer.end()?;
    Ok(response)
}

fn partial_success(
    lexer: &mut Lexer<'_>,
    partial: &mut ExportTracePartialSuccess,
) -> Result<(), JsonError> {
    object(lexer, |lexer, name| {
        match name {
            b"rejectedSpans" => partial.rejected_spans = integer(lexer, get_i64)?,
            b"errorMessage" => partial.error_message = string(lexer)?,
            _ => lexer.skip()?,
        }
        Ok(())
    })
}

/// Appends why a request was refused, in the JSON of proto3.
///
/// Of `details`, [`RetryInfo`] is written whole. Another one is named by its type and no more: its
/// JSON can't be had without its schema.
///
/// ```
/// use prost::Message as _;
/// use spanwire_codec::json::{read_status, write_status};
/// use spanwire_codec::message::{Any, Duration, RetryInfo, Status};
///
/// let wait = RetryInfo { retry_delay: Some(Duration { seconds: 1, nanos: 500_000_000 }) };
/// let detail = Any { type_url: RetryInfo::TYPE_URL.to_owned(), value: wait.encode_to_vec() };
/// let status = Status { code: 8, message: "too busy".to_owned(), details: vec![detail] };
/// let mut json = Vec::new();
/// write_status(&status, &mut json);
/// let retry = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.500s"}"#;
/// let expected = format!(r#"{{"code":8,"message":"too busy","details":[{retry}]}}"#);
/// assert_eq!(String::from_utf8(json.clone())?, expected);
/// assert_eq!(read_status(&json)?, status);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_status(status: &Status, out: &mut Vec<u8>) {
    out.push(b'{');
    put_enum(out, br#""code":"#, status.code);
    put_text(out, br#""message":""#, status.message.as_bytes());
    if !status.details.is_empty() {
        out.extend_from_slice(br#""details":["#);
        for detail in &status.details {
            out.extend_from_slice(br#"{"@type":"#);
            put_string(out, detail.type_url.as_bytes());
            if detail.type_url == RetryInfo::TYPE_URL
                && let Ok(RetryInfo { retry_delay: Some(delay) }) =
                    RetryInfo::decode(&detail.value[..])
            {
                out.extend_from_slice(br#","retryDelay":""#);
                put_duration(out, delay);
                out.push(b'"');
            }
            out.extend_from_slice(b"},");
        }
        close(out, b']');
        out.push(b',');
    }
    close(out, b'}');
}

/// Reads why a request was refused from the JSON of proto3.
///
/// Of `details` only the first [`RetryInfo`] is kept: it is the only one OTLP gives a meaning, and
/// a peer decides how many there are.
///
/// # Errors
///
/// [`JsonError`] where the text is no such status.
pub fn read_status(json: &[u8]) -> Result<Status, JsonError> {
    let mut lexer = Lexer::new(json)?;
    let mut status = Status::default();
    object(&mut lexer, |lexer, name| {
        match name {
            b"code" => {
                let offset = lexer.offset();
                let code = integer(lexer, get_i64)?;
                status.code =
                    code.try_into().map_err(|_| JsonError::new(offset, JsonErrorKind::Range))?;
            }
            b"message" => status.message = string(lexer)?,
            b"details" => array(lexer, |lexer| {
                if let Some(retry) = detail(lexer)?
                    && status.details.is_empty()
                {
                    let type_url = RetryInfo::TYPE_URL.to_owned();
                    status.details.push(Any { type_url, value: retry.encode_to_vec() });
                }
                Ok(())
            })?,
            _ => lexer.skip()?,
        }
        Ok(())
    })?;
    lexer.end()?;
    Ok(status)
}

/// One of a status's details, if it is a [`RetryInfo`]. Its type may come last, so that a wrong
/// delay is only an error once the type is known.
fn detail(lexer: &mut Lexer<'_>) -> Result<Option<RetryInfo>, JsonError> {
    let mut is_retry_info = false;
    let mut delay = None;
    object(lexer, |lexer, name| {
        match name {
            b"@type" => {
                let text = lexer.string(JsonErrorKind::String)?;
                let url = RetryInfo::TYPE_URL.as_bytes();
                is_retry_info = without_escapes(text, &mut Vec::new()) == url;
            }
            b"retryDelay" if lexer.peek() == b'"' => {
                let text = lexer.string(JsonErrorKind::Duration)?;
                delay = Some((text.offset, duration(without_escapes(text, &mut Vec::new()))));
            }
            _ => lexer.skip()?,
        }
        Ok(())
    })?;
    match delay {
        _ if !is_retry_info => Ok(None),
        None => Ok(Some(RetryInfo { retry_delay: None })),
        Some((_, Some(delay))) => Ok(Some(RetryInfo { retry_delay: Some(delay) })),
        Some((offset, None)) => Err(JsonError::new(offset, JsonErrorKind::Duration)),
    }
}

fn string(lexer: &mut Lexer<'_>) -> Result<String, JsonError> {
    let text = lexer.string(JsonErrorKind::String)?;
    Ok(String::from_utf8_lossy(without_escapes(text, &mut Vec::new())).into_owned())
}

/// Appends seconds with 0, 3, 6 or 9 digits behind the point, as the JSON mapping of `Duration` has
/// it. Parts with different signs are no duration; the seconds count then. A part beyond its range
/// becomes the end of it, so that what is written can be read.
fn put_duration(out: &mut Vec<u8>, Duration { seconds, nanos }: Duration) {
    let contradictory = seconds.signum() * i64::from(nanos.signum()) < 0;
    let nanos = if contradictory { 0 } else { nanos };
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    put_u64(out, seconds.unsigned_abs().min(SECONDS_MAX));
    let nanos = nanos.unsigned_abs().min(NANOS_MAX);
    let fraction = match nanos {
        0 => String::new(),
        _ if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        _ if nanos % 1_000 == 0 => format!(".{:06}", nanos / 1_000),
        _ => format!(".{nanos:09}"),
    };
    out.extend_from_slice(fraction.as_bytes());
    out.push(b's');
}

/// The duration that a text such as `1.5s` stands for.
fn duration(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('s')?;
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds = whole.parse().ok().filter(|&seconds: &u64| seconds <= SECONDS_MAX)? as i64;
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration { seconds: sign * seconds, nanos: sign as i32 * nanos })
}

/// `Duration` in `google/protobuf/duration.proto`: ten thousand years.
const SECONDS_MAX: u64 = 315_576_000_000;

const NANOS_MAX: u32 = 999_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_as_many_digits_as_proto3_json_asks_for() {
        for (seconds, nanos, text) in [
            (0, 0, "0s"),
            (5, 0, "5s"),
            (1, 500_000_000, "1.500s"),
            (1, 500_000, "1.000500s"),
            (1, 1, "1.000000001s"),
            (0, -1, "-0.000000001s"),
            (-3, -500_000_000, "-3.500s"),
        ] {
            let mut out = Vec::new();
            put_duration(&mut out, Duration { seconds, nanos });
            assert_eq!(String::from_utf8(out).unwrap(), text);
            assert_eq!(duration(text.as_bytes()), Some(Duration { seconds, nanos }));
        }
    }

    #[test]
    fn impossible_durations_are_written_as_possible_ones() {
        for (seconds, nanos) in [(i64::MIN, i32::MIN), (i64::MAX, i32::MAX), (1, -1), (-1, 1)] {
            let mut out = Vec::new();
            put_duration(&mut out, Duration { seconds, nanos });
            assert!(duration(&out).is_some(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn other_texts_are_no_durations() {
        for text in ["", "s", "5", "5m", "1.s", ".5s", "+5s", "1e3s", "--1s", "1.0000000001s"] {
            assert_eq!(duration(text.as_bytes()), None, "{text}");
        }
        assert_eq!(duration(b"315576000001s"), None);
        assert_eq!(duration(b"99999999999999999999s"), None);
        assert_eq!(duration(b"0.1s"), Some(Duration { seconds: 0, nanos: 100_000_000 }));
    }
}
