//! Why an attempt failed, and whether the same bytes may be sent again.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::config::Protocol;
use crate::connect::ConnectError;
use crate::connections::Broken;

/// The cause below an error of ours, whichever library it came from.
pub(crate) type Source = Box<dyn Error + Send + Sync>;

/// Why one attempt to send a body failed.
///
/// What is sent to is the destination here: a collector mostly, or the server of whoever keeps
/// traces. Text from it is at most 1 KiB long and free of control characters.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection could be made, so the destination has seen nothing of the body. The sources
    /// say why: refused, no such name, a timeout and where, or what is wrong with a certificate.
    #[error("no connection to the destination")]
    Connect(#[source] Source),
    /// The proxy refused to open a tunnel to the destination, which has seen nothing of the body.
    /// Its status decides as the same status of a destination would: 407 (credentials missing or
    /// wrong) is final.
    #[error("the proxy {proxy} refused a tunnel to the destination: HTTP {status}")]
    Proxy {
        /// Its host and port, without credentials.
        proxy: String,
        /// The proxy's HTTP status.
        status: u16,
    },
    /// The connection failed before a whole answer arrived. The destination may have taken the
    /// spans; sent again, they may arrive twice, which OTLP accepts ("Duplicate Data").
    #[error("no answer from the destination")]
    Disconnect(#[source] Source),
    /// No whole answer arrived in time; as with [`Disconnect`](Self::Disconnect), the spans may
    /// have been taken.
    #[error("no answer from the destination within {} ms", after.as_millis())]
    Timeout {
        /// The request timeout that ran out.
        after: Duration,
    },
    /// The destination may take the same bytes later.
    #[error("destination unavailable: {status}{}", suffix(message))]
    Throttle {
        /// What the destination answered.
        status: Status,
        /// The least time to wait, if it gave one: `RetryInfo` or `Retry-After`.
        retry_after: Option<Duration>,
        /// What it said beside.
        message: Option<Box<str>>,
    },
    /// The destination refused this payload for good.
    #[error("destination rejected the batch: {status}{}", suffix(message))]
    Reject {
        /// What the destination answered.
        status: Status,
        /// What it said beside.
        message: Option<Box<str>>,
    },
    /// The payload is larger than the destination takes: HTTP 413, or RESOURCE_EXHAUSTED without
    /// `RetryInfo`, which may also stand for a spent quota. A smaller payload may pass; this one
    /// will not.
    #[error("batch too large for the destination: {status}{}", suffix(message))]
    Oversize {
        /// What the destination answered.
        status: Status,
        /// What it said beside.
        message: Option<Box<str>>,
    },
    /// The answer was larger than a client may read, before or after decompression. OTLP has it
    /// that such a request is not repeated.
    #[error("answer of the destination exceeds {bytes_max} bytes")]
    AnswerTooLarge {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The body was encoded for another protocol. Nothing was sent.
    #[error("the body was encoded for another protocol")]
    Mismatch,
}

impl SendError {
    /// Whether the same bytes may be sent again, and when.
    ///
    /// Source: "Failures" under "OTLP/gRPC Response", "Retryable Response Codes", "OTLP/HTTP
    /// Throttling" and "All Other Responses" in `docs/specification.md`, opentelemetry-proto
    /// v1.11.0.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect(_) | Self::Disconnect(_) | Self::Timeout { .. } => Retry::Backoff,
            Self::Proxy { status, .. } => Self::from_http(*status, None, None).retry(),
            Self::Throttle { retry_after: Some(wait), .. } => Retry::After(*wait),
            Self::Throttle { retry_after: None, .. } => Retry::Backoff,
            Self::Reject { .. }
            | Self::Oversize { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Mismatch => Retry::Never,
        }
    }

    /// The limit that the destination named, in bytes, in its own words about a request too large
    /// for it. It holds for a request before compression, in the form it was sent in: protobuf or
    /// JSON.
    ///
    /// There is no field for it in gRPC or OTLP. The texts understood are those of the servers of
    /// Go, C++ and Node.js (`larger than max (5242880 vs. 4194304)`), Java (`exceeds maximum size
    /// 4194304: 5242880`), Spanwire (`over the limit of 4194304 bytes`) and tonic (`the limit is:
    /// 4194304 bytes`). The last comes with OUT_OF_RANGE: by OTLP a status to be tried again,
    /// though it will be refused each time.
    ///
    /// ```
    /// # use spanwire_transport::{SendError, Status};
    /// let error = SendError::Oversize {
    ///     status: Status::Grpc(8),
    ///     message: Some("grpc: received message larger than max (5242880 vs. 4194304)".into()),
    /// };
    /// assert_eq!(error.limit_bytes(), Some(4_194_304));
    /// ```
    pub fn limit_bytes(&self) -> Option<usize> {
        match self {
            Self::Throttle { message: Some(text), .. }
            | Self::Oversize { message: Some(text), .. } => named_limit(text),
            _ => None,
        }
    }

    /// What to look at where the answer is not one of the protocol that the request was sent in: mostly
    /// the port is that of another one then, or TLS is spoken at one end only.
    ///
    /// ```
    /// # use spanwire_transport::{Protocol, SendError, Status};
    /// let error = SendError::Reject { status: Status::Http(404), message: None };
    /// assert!(error.advice(Protocol::Grpc).is_some_and(|advice| advice.contains("4317")));
    /// ```
    #[must_use]
    pub fn advice(&self, protocol: Protocol) -> Option<&'static str> {
        let is_grpc = protocol == Protocol::Grpc;
        match self {
            Self::Connect(source)
                if source.downcast_ref().is_some_and(ConnectError::is_without_tls) =>
            {
                Some(match is_grpc {
                    // In a collector's exporter `http://` changes nothing for gRPC.
                    true => {
                        "where no TLS is meant, `tls: {insecure: true}` says so in a collector, and \
                         `http://` in a client"
                    }
                    false => "where no TLS is meant, `http://` says so",
                })
            }
            Self::Disconnect(source) if is_grpc && is_no_http2(&**source) => {
                Some("the port may be one of OTLP/HTTP, or want TLS; that of gRPC is mostly 4317")
            }
            Self::Disconnect(source) if !is_grpc && is_no_http1(&**source) => {
                Some("the port may be one of gRPC, or want TLS; that of OTLP/HTTP is mostly 4318")
            }
            // A proxy may ask for credentials, or say that nobody is behind it.
            Self::Reject { status: Status::Http(status), .. }
                if is_grpc && !matches!(status, 401 | 403 | 500..) =>
            {
                Some(
                    "that is not gRPC: the port may be one of OTLP/HTTP; that of gRPC is mostly 4317",
                )
            }
            Self::Reject { status: Status::Http(404 | 405), .. } => {
                Some("the path may be wrong: mostly it ends in /v1/traces")
            }
            _ => None,
        }
    }

    /// Whether later requests should go over other connections.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Proxy { .. } | Self::Timeout { .. } => true,
            Self::Disconnect(source) => !is_refused_stream(&**source),
            Self::Throttle { .. }
            | Self::Reject { .. }
            | Self::Oversize { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Mismatch => false,
        }
    }

    /// Whether later requests should go to another endpoint, if there is one. A spent quota or a
    /// refused payload says nothing against this one.
    pub(crate) fn is_of_the_endpoint(&self) -> bool {
        match self {
            Self::Throttle { status, .. } => {
                matches!(status, Status::Http(502..=504) | Status::Grpc(code::UNAVAILABLE))
            }
            Self::Disconnect(_) => true,
            other => other.is_of_the_connection(),
        }
    }

    /// From a gRPC status other than OK. `retry_info` is the delay of a `RetryInfo` detail.
    pub(crate) fn from_grpc(
        code: u32,
        retry_info: Option<Duration>,
        message: Option<Box<str>>,
    ) -> Self {
        let status = Status::Grpc(code);
        match code {
            code::CANCELLED
            | code::DEADLINE_EXCEEDED
            | code::ABORTED
            | code::OUT_OF_RANGE
            | code::UNAVAILABLE
            | code::DATA_LOSS => Self::Throttle { status, retry_after: retry_info, message },
            code::RESOURCE_EXHAUSTED if retry_info.is_some() => {
                Self::Throttle { status, retry_after: retry_info, message }
            }
            code::RESOURCE_EXHAUSTED => Self::Oversize { status, message },
            _ => Self::Reject { status, message },
        }
    }

    /// From an HTTP status that is not a success. `retry_after` counts only where the status may
    /// be retried at all.
    ///
    /// It serves gRPC too, for an answer without `grpc-status`: the mapping of gRPC's
    /// `doc/http-grpc-status-mapping.md` leads to the same decisions.
    pub(crate) fn from_http(
        status: u16,
        retry_after: Option<Duration>,
        message: Option<Box<str>>,
    ) -> Self {
        let http = Status::Http(status);
        match status {
            429 | 502 | 503 | 504 => Self::Throttle { status: http, retry_after, message },
            413 => Self::Oversize { status: http, message },
            _ => Self::Reject { status: http, message },
        }
    }
}

/// What to do with the bytes of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Drop and count them: the same bytes would fail again.
    Never,
    /// Send them again, after a wait of the sender's own choice.
    Backoff,
    /// Send them again, but not before this much time has passed.
    After(Duration),
}

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// `grpc-status`, 0 to 16 by the specification; peers may send others.
    Grpc(u32),
    /// The HTTP status, of OTLP/HTTP or of a proxy before a gRPC server.
    Http(u16),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Http(status) => write!(f, "HTTP {status}"),
            Self::Grpc(code) => match code::NAMES.get(code as usize) {
                Some(name) => write!(f, "gRPC {name}"),
                None => write!(f, "gRPC {code}"),
            },
        }
    }
}

/// Whether HTTP/2 refused one request and not the connection: there are too many (REFUSED_STREAM and
/// ENHANCE_YOUR_CALM by RST_STREAM; RFC 9113, sections 6.4 and 7). A new connection would add to
/// what the server has too much of.
fn is_refused_stream(error: &(dyn Error + 'static)) -> bool {
    let refused = [Some(h2::Reason::REFUSED_STREAM), Some(h2::Reason::ENHANCE_YOUR_CALM)];
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<h2::Error>())
        .is_some_and(|error| error.is_reset() && refused.contains(&error.reason()))
}

/// Whether what came was no frame of HTTP/2: read as one, text of HTTP/1.1 is a frame too large. Who
/// does not understand the first bytes of HTTP/2 may also just close the connection.
fn is_no_http2(error: &(dyn Error + 'static)) -> bool {
    let broken = [Some(h2::Reason::FRAME_SIZE_ERROR), Some(h2::Reason::PROTOCOL_ERROR)];
    let is_broken = |error: &h2::Error| error.is_library() && broken.contains(&error.reason());
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        error.downcast_ref().is_some_and(is_broken)
            || error.downcast_ref().is_some_and(Broken::is_closed_at_once)
    })
}

fn is_no_http1(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<Broken>())
        .is_some_and(Broken::is_no_http1)
}

/// The limit in a text about a message that is too large; zero is none.
fn named_limit(text: &str) -> Option<usize> {
    let text = text.to_ascii_lowercase();
    let behind = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
    let limit = behind("larger than max (")
        .and_then(|rest| rest.split_once("vs"))
        .map(|(_, limit)| limit.trim_start_matches(['.', ' ']))
        .or_else(|| behind("exceeds maximum size "))
        .or_else(|| behind("the limit is: "))
        .or_else(|| behind("over the limit of ").filter(|rest| rest.ends_with(" bytes")))?;
    let digits = limit.find(|c: char| !c.is_ascii_digit()).unwrap_or(limit.len());
    limit[..digits].parse().ok().filter(|&limit| limit > 0)
}

fn suffix(message: &Option<Box<str>>) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| match message {
        Some(message) => write!(f, ": {message}"),
        None => Ok(()),
    })
}

/// Status codes by `doc/statuscodes.md` of gRPC: those that need a decision here.
pub(crate) mod code {
    pub(crate) const OK: u32 = 0;
    pub(crate) const CANCELLED: u32 = 1;
    pub(crate) const UNKNOWN: u32 = 2;
    pub(crate) const DEADLINE_EXCEEDED: u32 = 4;
    pub(crate) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(crate) const ABORTED: u32 = 10;
    pub(crate) const OUT_OF_RANGE: u32 = 11;
    pub(crate) const UNAVAILABLE: u32 = 14;
    pub(crate) const DATA_LOSS: u32 = 15;

    pub(crate) const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults 107, 108.
    #[test]
    fn every_grpc_code_is_retried_exactly_as_otlp_says() {
        let retryable = [
            "CANCELLED",
            "DEADLINE_EXCEEDED",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNAVAILABLE",
            "DATA_LOSS",
        ];
        for code in 1..=17 {
            let name = code::NAMES.get(code as usize).copied().unwrap_or("unassigned");
            let plain = SendError::from_grpc(code, None, None);
            let expected = if retryable.contains(&name) { Retry::Backoff } else { Retry::Never };
            assert_eq!(plain.retry(), expected, "{name}");

            let wait = Duration::from_secs(5);
            let with_info = SendError::from_grpc(code, Some(wait), None);
            let expected = if retryable.contains(&name) || name == "RESOURCE_EXHAUSTED" {
                Retry::After(wait)
            } else {
                Retry::Never
            };
            assert_eq!(with_info.retry(), expected, "{name} with RetryInfo");
        }
    }

    /// Faults 104, 105.
    #[test]
    fn every_http_status_is_retried_exactly_as_otlp_says() {
        for status in (300..600).chain([0, 99, 101, 999]) {
            let expected = match status {
                429 | 502 | 503 | 504 => Retry::Backoff,
                _ => Retry::Never,
            };
            assert_eq!(SendError::from_http(status, None, None).retry(), expected, "HTTP {status}");
            let wait = Duration::from_secs(7);
            let expected =
                if expected == Retry::Backoff { Retry::After(wait) } else { Retry::Never };
            let error = SendError::from_http(status, Some(wait), None);
            assert_eq!(error.retry(), expected, "HTTP {status} with Retry-After");
        }
    }

    /// Faults 113.
    #[test]
    fn a_proxy_s_http_status_decides_as_its_grpc_mapping_would() {
        // Status and code by `doc/http-grpc-status-mapping.md` of gRPC; all others are UNKNOWN.
        let mapping = [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (502, 14),
            (503, 14),
            (504, 14),
            (418, 2),
            (500, 2),
        ];
        for (status, code) in mapping {
            assert_eq!(
                SendError::from_http(status, None, None).retry(),
                SendError::from_grpc(code, None, None).retry(),
                "HTTP {status}"
            );
        }
    }

    #[test]
    fn oversize_can_be_told_from_other_rejections() {
        assert!(matches!(SendError::from_http(413, None, None), SendError::Oversize { .. }));
        assert!(matches!(SendError::from_grpc(8, None, None), SendError::Oversize { .. }));
        assert!(matches!(SendError::from_grpc(3, None, None), SendError::Reject { .. }));
        assert!(matches!(SendError::from_http(400, None, None), SendError::Reject { .. }));
    }

    #[test]
    fn the_limit_is_read_from_the_words_of_each_server_and_from_no_others() {
        let texts = [
            ("grpc: received message larger than max (5242880 vs. 4194304)", Some(4_194_304)),
            ("grpc: received message after decompression larger than max (9 vs. 8)", Some(8)),
            ("SERVER: Received message larger than max (5242880 vs. 4194304)", Some(4_194_304)),
            ("Received message larger than max (5242880 vs 4194304)", Some(4_194_304)),
            ("gRPC message exceeds maximum size 4194304: 5000000", Some(4_194_304)),
            ("Decompressed gRPC message exceeds maximum size 4194304", Some(4_194_304)),
            (
                "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
                Some(4),
            ),
            ("the request is over the limit of 4194304 bytes", Some(4_194_304)),
            ("the request is over the limit of 100000 elements", None),
            ("larger than max (1 vs. 0)", None),
            ("larger than max (1 vs. 99999999999999999999999)", None),
            ("larger than max (", None),
            ("exceeds maximum size of the tenant", None),
            ("quota exceeded: 4194304", None),
            ("", None),
        ];
        for (text, limit) in texts {
            for code in [code::RESOURCE_EXHAUSTED, code::OUT_OF_RANGE] {
                let error = SendError::from_grpc(code, None, Some(text.into()));
                assert_eq!(error.limit_bytes(), limit, "{text}");
            }
        }
        assert_eq!(SendError::from_grpc(3, None, Some(texts[0].0.into())).limit_bytes(), None);
    }

    /// Faults 123.
    #[test]
    fn a_proxy_that_wants_credentials_is_not_asked_again_and_a_busy_one_is() {
        for (status, retry) in
            [(407, Retry::Never), (403, Retry::Never), (502, Retry::Backoff), (503, Retry::Backoff)]
        {
            assert_eq!(
                SendError::Proxy { proxy: "p:3128".into(), status }.retry(),
                retry,
                "{status}"
            );
        }
    }

    #[test]
    fn the_text_names_the_status_and_the_destination_s_own_words() {
        let text = |error: SendError| error.to_string();
        assert_eq!(
            text(SendError::from_http(400, None, Some("bad trace id".into()))),
            "destination rejected the batch: HTTP 400: bad trace id"
        );
        assert_eq!(
            text(SendError::from_grpc(14, None, None)),
            "destination unavailable: gRPC UNAVAILABLE"
        );
        assert_eq!(
            text(SendError::from_grpc(99, None, None)),
            "destination rejected the batch: gRPC 99"
        );
    }

    #[test]
    fn another_port_is_advised_where_the_answer_is_of_another_protocol() {
        let advice = |protocol, error: SendError| error.advice(protocol).unwrap_or_default();
        let http = |status| SendError::from_http(status, None, None);
        for status in [400, 404, 405, 415] {
            assert!(advice(Protocol::Grpc, http(status)).contains("4317"), "HTTP {status}");
        }
        for status in [401, 403, 429, 500, 503] {
            assert_eq!(advice(Protocol::Grpc, http(status)), "", "HTTP {status}");
        }
        assert!(advice(Protocol::HttpProtobuf, http(404)).contains("/v1/traces"));
        assert_eq!(advice(Protocol::HttpProtobuf, http(400)), "");
        assert_eq!(advice(Protocol::Grpc, SendError::from_grpc(12, None, None)), "");
    }
}
