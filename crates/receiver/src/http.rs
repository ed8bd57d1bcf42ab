//! OTLP/HTTP: POST to one path, protobuf and JSON, over HTTP/1.1 and HTTP/2.
//!
//! Source: "OTLP/HTTP" in `docs/specification.md`, opentelemetry-proto v1.11.0, and RFC 9110.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use hyper::body::Incoming;
use prost::Message as _;
use spanwire_codec::json;

use crate::body::{Admitted, Arrived, read_whole};
use crate::budget::Share;
use crate::coding::{Coding, HTTP_ACCEPTED};
use crate::connection::Connection;
use crate::fault::Fault;
use crate::intake::{Form, caught, response, take};
use crate::sink::{Accepted, Encoding, Sink, Transport};
use crate::stats::{Reason, Tally};

/// A body that was not read yet.
pub(crate) trait Body: Send {
    /// Reads all of it. What is refused may be left unread.
    fn read(
        &mut self,
        bytes_max: usize,
        share: &Arc<Share>,
        arrived: &Arrived,
    ) -> impl Future<Output = Result<Admitted, Fault>> + Send;
}

/// Of HTTP/2.
impl Body for Incoming {
    async fn read(
        &mut self,
        bytes_max: usize,
        share: &Arc<Share>,
        arrived: &Arrived,
    ) -> Result<Admitted, Fault> {
        let broken = || Fault::new(Reason::Cancelled, "the stream was reset");
        read_whole(self, bytes_max, share, arrived, broken).await
    }
}

/// Answers one request.
pub(crate) async fn answer<S: Sink>(
    connection: &Connection<S>,
    head: &Parts,
    body: &mut impl Body,
) -> Response<Bytes> {
    let cors = connection.shared.cors.as_ref();
    // A question about requests is none itself, and is not counted.
    if let Some(preflight) = cors.and_then(|cors| cors.preflight(head)) {
        return preflight;
    }
    let mut response = answer_counted(connection, head, body).await;
    if let Some(cors) = cors {
        cors.answer(&head.headers, response.headers_mut());
    }
    response
}

async fn answer_counted<S: Sink>(
    connection: &Connection<S>,
    head: &Parts,
    body: &mut impl Body,
) -> Response<Bytes> {
    let mut tally = Tally::open(&connection.shared.counters, Transport::Http);
    let encoding = encoding(&head.headers);
    let outcome = caught(export(connection, &mut tally, head, body, encoding)).await;
    // What claims no format is answered in the protocol's first.
    let encoding = encoding.unwrap_or(Encoding::Protobuf);
    match outcome {
        Ok(accepted) => {
            tally.accepted(accepted.rejected_spans);
            success(accepted, encoding)
        }
        Err(fault) => {
            tally.refused(fault.reason);
            failure(&fault, encoding, head.method == Method::HEAD)
        }
    }
}

async fn export<S: Sink>(
    connection: &Connection<S>,
    tally: &mut Tally,
    head: &Parts,
    body: &mut impl Body,
    encoding: Option<Encoding>,
) -> Result<Accepted, Fault> {
    let path = &connection.shared.settings.http_traces_path;
    if head.uri.path() != path {
        return Err(Fault::new(Reason::Path, format!("only {path} is served")));
    }
    if head.method != Method::POST {
        return Err(Fault::new(Reason::Method, "only POST is served"));
    }
    let encoding = encoding.ok_or_else(|| {
        Fault::new(
            Reason::ContentType,
            "content-type must be application/x-protobuf or application/json",
        )
    })?;
    let coding = coding(&head.headers)?;

    let shared = &connection.shared;
    let bytes_max = shared.settings.http_request_bytes_max;
    let read = async |arrived: &_| body.read(bytes_max, &connection.share, arrived).await;
    let wire = shared.settings.pace().keep(read).await?;
    let form = Form { transport: Transport::Http, encoding, coding };
    take(shared, tally, wire, form, bytes_max).await
}

/// The format that `Content-Type` names, whatever its parameters.
fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let content_type = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let media_type = content_type.split(|byte| *byte == b';').next();
    let media_type = media_type.unwrap_or_default().trim_ascii();
    if media_type.eq_ignore_ascii_case(b"application/x-protobuf") {
        Some(Encoding::Protobuf)
    } else if media_type.eq_ignore_ascii_case(b"application/json") {
        Some(Encoding::Json)
    } else {
        None
    }
}

/// The one compression that `Content-Encoding` may name.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Fault> {
    let unsupported = || {
        let message = format!("content-encoding must be one of {HTTP_ACCEPTED}");
        Fault::new(Reason::ContentEncoding, message)
    };
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let (value, further) = (values.next(), values.next());
    if further.is_some() {
        return Err(unsupported());
    }
    let name = value.map(|value| value.as_bytes().trim_ascii());
    match name {
        None | Some(b"") => Ok(None),
        // `none` is no registered coding, but OTLP's own name for identity, and some send it.
        Some(name)
            if name.eq_ignore_ascii_case(b"identity") || name.eq_ignore_ascii_case(b"none") =>
        {
            Ok(None)
        }
        Some(name) => Coding::of_http(name).map(Some).ok_or_else(unsupported),
    }
}

fn success(accepted: Accepted, encoding: Encoding) -> Response<Bytes> {
    let response = response(accepted);
    let body = match encoding {
        Encoding::Protobuf => Bytes::from(response.encode_to_vec()),
        Encoding::Json => {
            let mut out = Vec::new();
            json::write_response(&response, &mut out);
            out.into()
        }
    };
    with_content_type(body, encoding)
}

fn failure(fault: &Fault, encoding: Encoding, is_head: bool) -> Response<Bytes> {
    let reply = match is_head {
        true => Bytes::new(),
        false => fault.body(encoding),
    };
    let mut response = with_content_type(reply, encoding);
    *response.status_mut() = fault.http_status();
    let headers = response.headers_mut();
    if let Some(delay) = fault.retry_after {
        // The header has whole seconds, and earlier than asked is worse than later.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    match fault.reason {
        Reason::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        Reason::ContentEncoding => {
            let accepted = HeaderValue::from_static(HTTP_ACCEPTED);
            headers.insert(header::ACCEPT_ENCODING, accepted);
        }
        _ => {}
    }
    response
}

fn with_content_type(reply: Bytes, encoding: Encoding) -> Response<Bytes> {
    let mut response = Response::new(reply);
    let content_type = match encoding {
        Encoding::Protobuf => HeaderValue::from_static("application/x-protobuf"),
        Encoding::Json => HeaderValue::from_static("application/json"),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    response
}
