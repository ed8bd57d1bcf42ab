//! Compressed bodies: a request to the receiver, an answer to the client.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use prost::Message as _;
use spanwire_codec::json;
use spanwire_codec::message::ExportTraceServiceResponse;
use spanwire_codec::view::reject_malformed;
use spanwire_transport::Protocol;

use super::peer::{Answer, REQUEST_BYTES_MAX, ends};

/// A body is judged by what it decompresses to, as another decoder has it: refused for good if it is
/// damaged or too large, else taken or refused as it would be in plain form.
///
/// The first byte says how it is compressed and whether it holds JSON; the body follows.
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    let Some((&form, body)) = data.split_first() else { return };
    let json = form & 4 != 0;
    let (coding, plain) = match form & 3 {
        0 => ("", Ok(body.to_vec())),
        // No compressed nothing, which has a header, but a stream cut off before its first byte.
        _ if body.is_empty() => ("gzip", Err(io::ErrorKind::UnexpectedEof.into())),
        1 | 2 => ("gzip", within(MultiGzDecoder::new(body))),
        _ => ("zstd", zstd(body)),
    };
    let mut headers = match json {
        true => "content-type: application/json\r\n".to_owned(),
        false => "content-type: application/x-protobuf\r\n".to_owned(),
    };
    if !coding.is_empty() {
        headers += &format!("content-encoding: {coding}\r\n");
    }
    let mut ends = ends();
    let (status, answer, spans) = ends.request(&headers, body);

    let expected = match &plain {
        Ok(plain) if plain.len() <= REQUEST_BYTES_MAX => judged(plain, json),
        // Which of the two is found first is a matter of buffers.
        _ => {
            assert!(matches!(status, 400 | 413), "{status}");
            None
        }
    };
    match expected {
        Some((kept, rejected)) => {
            assert_eq!((status, spans), (200, kept));
            let answer = match json {
                true => json::read_response(&answer).expect("an answer"),
                false => ExportTraceServiceResponse::decode(&answer[..]).expect("an answer"),
            };
            let partial = answer.partial_success.unwrap_or_default();
            assert_eq!(partial.rejected_spans, rejected as i64);
        }
        None => {
            assert!(matches!(status, 400 | 413), "{status}");
            assert_eq!(spans, 0, "nothing of a refused request is handed on");
        }
    }

    // The same bytes as the body of an answer: understood, or a success that says nothing.
    if coding == "gzip" {
        let headers = vec![
            ("content-type", b"application/x-protobuf".to_vec()),
            ("content-encoding", b"gzip".to_vec()),
        ];
        let answer = Answer { status: 200, headers, body: body.to_vec() };
        let accepted = ends.answer(Protocol::HttpProtobuf, answer).expect("the spans were taken");
        let readable =
            plain.is_ok_and(|plain| ExportTraceServiceResponse::decode(&plain[..]).is_ok());
        assert!(accepted.unreadable || readable);
    }
}

/// Spans that are to be handed on and spans to be rejected; `None` if all is to be refused.
fn judged(plain: &[u8], json: bool) -> Option<(usize, usize)> {
    let wire = match json {
        true => json::read_request(plain).ok()?,
        false => plain.to_vec(),
    };
    let checked = reject_malformed(wire.into()).ok()?;
    Some((checked.spans, checked.rejected))
}

fn zstd(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
    decoder.window_log_max(23)?;
    within(decoder)
}

/// What comes out, up to one byte more than the receiver takes.
fn within(decoder: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decoder.take(REQUEST_BYTES_MAX as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}
