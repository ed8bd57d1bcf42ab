//! OTLP/HTTP: POST of protobuf or JSON on kept connections.
//!
//! Source: "OTLP/HTTP" in `docs/specification.md`, opentelemetry-proto v1.11.0.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, Method, header};
use bytes::Bytes;
use reqwest::{Client, Request, Response, Url, redirect};

use crate::compression::{Compression, gunzip};
use crate::config::{InvalidConfig, Protocol, TransportConfig};
use crate::encode::Encoded;
use crate::error::SendError;
use crate::response::{
    ANSWER_BYTES_MAX, Accepted, Answer, clean, decode_status, retry_after, too_large,
};

pub(crate) struct HttpSender {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

impl HttpSender {
    /// Dials nothing yet: the first request does.
    pub(crate) fn new(config: &TransportConfig) -> Result<Self, InvalidConfig> {
        let url = Url::parse(&config.url()).map_err(|_| InvalidConfig::Endpoint {
            endpoint: config.url().chars().take(200).collect(),
            reason: "not a URL",
        })?;
        let mut builder = Client::builder()
            // A redirect could carry spans and credentials to another host.
            .redirect(redirect::Policy::none())
            // The way of the spans is what the configuration says, whatever the environment.
            .no_proxy()
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(config.idle_connections_max)
            .pool_idle_timeout(config.idle_timeout)
            .tcp_keepalive(config.keep_alive_interval)
            .http2_keep_alive_interval(config.keep_alive_interval)
            .http2_keep_alive_timeout(config.keep_alive_timeout);
        if let Some(timeout) = config.connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        if config.http2_only {
            builder = builder.http2_prior_knowledge();
        }
        #[cfg(feature = "_tls")]
        if config.url.scheme() == Some(&::http::uri::Scheme::HTTPS) {
            builder = builder.tls_backend_preconfigured(crate::tls::http(config)?);
        }
        let client =
            builder.build().map_err(|error| InvalidConfig::Client(error.without_url().into()))?;

        let mut headers = config.headers.clone();
        headers.insert(header::USER_AGENT, config.user_agent.clone());
        Ok(Self { client, url, headers })
    }

    pub(crate) async fn send(&self, encoded: &Encoded) -> Result<Accepted, SendError> {
        let response = self.client.execute(self.request(encoded)).await.map_err(disconnect)?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = read_body(response).await;
        if status.is_success() {
            let body = decompress(body?, &headers)?;
            let accepted = match body {
                Some(body) => accepted(&body, &headers, encoded.spans()),
                None => Accepted::unreadable(),
            };
            // Only 200 is a success of OTLP; 204 or 202 come from something else.
            let unreadable = accepted.unreadable || status != ::http::StatusCode::OK;
            return Ok(Accepted { unreadable, ..accepted });
        }
        let message = match body.and_then(|body| decompress(body, &headers)) {
            Ok(body) => body.and_then(|body| message(&body, &headers)),
            Err(error @ SendError::AnswerTooLarge { .. }) => return Err(error),
            // The status was understood; that its explanation was cut off changes nothing.
            Err(_) => None,
        };
        Err(SendError::from_http(status.as_u16(), retry_after_header(&headers), message))
    }

    fn request(&self, encoded: &Encoded) -> Request {
        let mut request = Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        let content_type = match encoded.protocol {
            Protocol::HttpJson => JSON,
            Protocol::HttpProtobuf | Protocol::Grpc => PROTOBUF,
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(coding) = encoded.compression.coding() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        *request.body_mut() = Some(reqwest::Body::wrap(encoded.frames()));
        request
    }
}

async fn read_body(mut response: Response) -> Result<Bytes, SendError> {
    if response.content_length().is_some_and(|len| len > ANSWER_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let mut answer = Answer::default();
    while let Some(piece) = response.chunk().await.map_err(disconnect)? {
        answer.push(piece)?;
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

fn disconnect(error: reqwest::Error) -> SendError {
    // The URL may hold a key in its query.
    let error = error.without_url();
    if error.is_connect() {
        SendError::Connect(error.into())
    } else {
        SendError::Disconnect(error.into())
    }
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
