//! The head of a request: what is asked, and how its body ends.

use std::mem::MaybeUninit;

use http::header::{
    self, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_ENCODING,
    CONTENT_TYPE, HeaderName, ORIGIN,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Uri};

use super::{Chunks, Framing};

/// What is asked.
#[derive(Debug)]
pub(super) struct Head {
    /// With those header fields that somebody here looks at.
    pub(super) parts: Parts,
    pub(super) framing: Framing,
    /// Whether another request may follow on this connection.
    pub(super) keep_alive: bool,
    /// Whether the peer waits to be invited to send the body.
    pub(super) invites: bool,
}

impl Head {
    /// Reads a head of at most `bytes_max` bytes, and tells how many it has; `None` if it goes on.
    ///
    /// # Errors
    ///
    /// What the peer is told, who may have meant anything: the connection ends.
    pub(super) fn read(
        bytes: &[u8],
        bytes_max: usize,
    ) -> Result<Option<(Self, usize)>, StatusCode> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut head = httparse::Request::new(&mut []);
        let parsed = head.parse_with_uninit_headers(bytes, &mut fields);
        match parsed {
            Ok(httparse::Status::Complete(read)) if read <= bytes_max => {
                Self::of(&head).map(|head| Some((head, read))).ok_or(StatusCode::BAD_REQUEST)
            }
            Ok(httparse::Status::Partial) if bytes.len() < bytes_max => Ok(None),
            // It has not come to its second line.
            Ok(httparse::Status::Partial) if head.version.is_none() => {
                Err(StatusCode::URI_TOO_LONG)
            }
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            }
            Err(httparse::Error::Version) => Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
            Err(_) => Err(StatusCode::BAD_REQUEST),
        }
    }

    /// `None` where it contradicts itself.
    fn of(head: &httparse::Request<'_, '_>) -> Option<Self> {
        let is_1_1 = head.version == Some(1);
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::from_bytes(head.method?.as_bytes()).ok()?;
        parts.uri = Uri::try_from(head.path?).ok()?;
        let (mut length, mut coding, mut hosts) = (None, None, 0);
        // Whoever speaks 1.0 would have to be told each time that the connection stays.
        let (mut keep_alive, mut invites) = (is_1_1, false);
        for field in &*head.headers {
            let (name, value) = (field.name, field.value);
            let is = |known: HeaderName| name.eq_ignore_ascii_case(known.as_str());
            if is(header::CONTENT_LENGTH) {
                let value = decimal(value)?;
                if length.replace(value).is_some_and(|other| other != value) {
                    return None;
                }
            } else if is(header::TRANSFER_ENCODING) {
                if coding.replace(value).is_some() {
                    return None;
                }
            } else if is(header::CONNECTION) {
                keep_alive &= !tokens(value).any(|token| token.eq_ignore_ascii_case(b"close"));
            } else if is(header::HOST) {
                hosts += 1;
            } else if is(header::EXPECT) {
                invites |= is_1_1 && value.eq_ignore_ascii_case(b"100-continue");
            } else if let Some(known) = KEPT.into_iter().find(|known| is(known.clone())) {
                parts.headers.append(known, HeaderValue::from_bytes(value).ok()?);
            }
        }
        // RFC 9112 section 3.2: whom such a request is for is in doubt.
        if hosts > 1 || is_1_1 && hosts == 0 {
            return None;
        }
        let framing = match coding {
            None => Framing::Length(length.unwrap_or(0)),
            Some(coding) if is_1_1 && coding.eq_ignore_ascii_case(b"chunked") => {
                // RFC 9112 section 6.3: a length beside it may be an attempt to hide a request.
                keep_alive &= length.is_none();
                Framing::Chunked(Chunks::default())
            }
            Some(_) => return None,
        };
        Some(Self { parts, framing, keep_alive, invites })
    }
}

/// Digits and nothing else, not even a sign.
fn decimal(value: &[u8]) -> Option<u64> {
    let is_decimal = value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| is_decimal)?.parse().ok()
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Beyond this it is no request of an exporter.
const FIELDS_MAX: usize = 100;

const KEPT: [HeaderName; 5] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    ORIGIN,
    ACCESS_CONTROL_REQUEST_METHOD,
    ACCESS_CONTROL_REQUEST_HEADERS,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Head, StatusCode> {
        let wire = format!("POST /v1/traces HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let (head, bytes) = Head::read(wire.as_bytes(), 1 << 14)?.expect("whole");
        assert_eq!(bytes, wire.len());
        Ok(head)
    }

    #[test]
    fn a_head_tells_what_is_asked_and_how_its_body_ends() {
        let head = read("content-length: 5\r\nContent-Type: a\r\nX: y\r\n").expect("a head");
        assert_eq!((head.parts.method.as_str(), head.parts.uri.path()), ("POST", "/v1/traces"));
        assert_eq!(head.parts.headers["content-type"], "a");
        assert_eq!(head.parts.headers.len(), 1);
        assert!(head.keep_alive && !head.invites);
        assert!(matches!(head.framing, Framing::Length(5)));
        assert!(matches!(read("").expect("a head").framing, Framing::Length(0)));
        let head = read("Transfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n").expect("a head");
        assert!(matches!(head.framing, Framing::Chunked(_)) && head.invites && head.keep_alive);
    }

    #[test]
    fn a_connection_ends_with_a_request_that_says_so_or_is_of_1_0() {
        let keeps = |fields: &str| read(fields).expect("a head").keep_alive;
        assert!(keeps("Connection: keep-alive\r\n"));
        assert!(!keeps("Connection: Close\r\n"));
        assert!(!keeps("Connection: te, close\r\n"));
        assert!(!keeps("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"));
        let (head, _) = Head::read(b"POST / HTTP/1.0\r\n\r\n", 100).expect("right").expect("whole");
        assert!(!head.keep_alive);
    }

    /// Faults 62.
    #[test]
    fn a_body_whose_end_is_in_doubt_is_refused() {
        for fields in [
            "Content-Length: \r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Content-Length : 1\r\n",
            "A: b\r\n Content-Length: 1\r\n",
        ] {
            assert_eq!(read(fields).err(), Some(StatusCode::BAD_REQUEST), "{fields}");
        }
        assert!(read("Content-Length: 1\r\nContent-Length: 1\r\n").is_ok());
        let hosts = |fields: &str| {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            Head::read(head.as_bytes(), 100).map(drop).map_err(|status| status.as_u16())
        };
        assert_eq!(hosts(""), Err(400));
        assert_eq!(hosts("Host: a\r\nHOST: a\r\n"), Err(400));
        assert_eq!(hosts("host:\r\n"), Ok(()));
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(Head::read(old, 100).err(), Some(StatusCode::BAD_REQUEST));
    }

    /// Faults 66.
    #[test]
    fn a_head_that_is_too_long_is_refused_by_what_is_too_long() {
        let refused = |wire: &str| Head::read(wire.as_bytes(), 100).err().map(|it| it.as_u16());
        assert_eq!(refused(&format!("POST /{}", "a".repeat(93))), None);
        assert_eq!(refused(&format!("POST /{}", "a".repeat(94))), Some(414));
        assert_eq!(refused(&format!("POST / HTTP/1.1\r\na: {}", "b".repeat(100))), Some(431));
        let whole = format!("POST / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(100));
        assert_eq!(refused(&whole), Some(431));
        let many = format!("POST / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(Head::read(many.as_bytes(), 1 << 14).err().map(|it| it.as_u16()), Some(431));
        assert_eq!(refused("POST / HTTP/2.0\r\n\r\n"), Some(505));
    }
}
