//! Answers as they are written.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};

/// Writes one answer after the other into the same memory.
#[derive(Debug)]
pub(super) struct Writer {
    out: Vec<u8>,
    date: String,
    /// Until when that is the date.
    until: SystemTime,
}

impl Default for Writer {
    fn default() -> Self {
        Self { out: Vec::new(), date: String::new(), until: SystemTime::UNIX_EPOCH }
    }
}

impl Writer {
    /// An answer to a request with this method.
    pub(super) fn response(
        &mut self,
        response: &Response<Bytes>,
        method: &Method,
        closes: bool,
    ) -> &[u8] {
        let body = (*method != Method::HEAD).then_some(&response.body()[..]);
        self.write(response.status(), response.headers(), body, closes)
    }

    /// An answer to what could not be read.
    pub(super) fn refusal(&mut self, status: StatusCode) -> &[u8] {
        self.write(status, &HeaderMap::new(), Some(&[]), true)
    }

    fn write(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        closes: bool,
    ) -> &[u8] {
        let now = SystemTime::now();
        if now >= self.until || now + SECOND < self.until {
            self.date = httpdate::fmt_http_date(now);
            let into_second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let into_second = Duration::from_nanos(into_second.subsec_nanos().into());
            self.until = now + (SECOND - into_second);
        }
        let out = &mut self.out;
        out.clear();
        out.shrink_to(OUT_BYTES_KEPT);
        let reason = status.canonical_reason().unwrap_or_default();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        field(out, b" ", reason.as_bytes());
        for (name, value) in headers {
            out.extend_from_slice(name.as_str().as_bytes());
            field(out, b": ", value.as_bytes());
        }
        // RFC 9110 section 8.6: 204 has no length, and what HEAD does not bring need not have one.
        if let Some(body) = body
            && status != StatusCode::NO_CONTENT
        {
            write!(out, "content-length: {}\r\n", body.len()).expect("memory takes all");
        }
        if closes {
            out.extend_from_slice(b"connection: close\r\n");
        }
        field(out, b"date: ", self.date.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body.unwrap_or_default());
        out
    }
}

fn field(out: &mut Vec<u8>, before: &[u8], value: &[u8]) {
    out.extend_from_slice(before);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

const SECOND: Duration = Duration::from_secs(1);

/// More than an answer has, but for one whose message is long.
const OUT_BYTES_KEPT: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_status_fields_length_and_date() {
        let mut writer = Writer::default();
        let response = Response::builder().header("allow", "POST").body(Bytes::from_static(b"ab"));
        let response = response.expect("a response");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let written = text(writer.response(&response, &Method::POST, false));
        let (head, body) = written.split_once("\r\n\r\n").expect("a head");
        let lines: Vec<_> = head.split("\r\n").collect();
        assert_eq!(lines[..3], ["HTTP/1.1 200 OK", "allow: POST", "content-length: 2"]);
        let date = lines[3].strip_prefix("date: ").expect("a date");
        let age = SystemTime::now()
            .duration_since(httpdate::parse_http_date(date).expect("a date"))
            .expect("not of the future");
        assert!(age < Duration::from_secs(30), "{date}");
        assert_eq!((lines.len(), body), (4, "ab"));
        let closing = text(writer.response(&response, &Method::HEAD, true));
        assert!(closing.contains("\r\nconnection: close\r\n"), "{closing}");
        assert!(closing.ends_with("\r\n\r\n") && !closing.contains("length"), "{closing}");
        assert!(!text(writer.refusal(StatusCode::NO_CONTENT)).contains("length"));
    }
}
