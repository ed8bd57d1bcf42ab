//! Small HTTP servers for people and their tools: metrics, health, what the pipelines do.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A page: status, content type, text.
pub(crate) type Page = (StatusCode, &'static str, String);

/// A server that answers GET, until it is dropped. Where it has no page, it says where it has some.
pub(crate) struct Server(JoinHandle<()>);

impl Server {
    /// Serves what `pages` has for a path.
    pub(crate) fn spawn(
        listener: TcpListener,
        pages: impl Fn(&str) -> Option<Page> + Send + Sync + 'static,
    ) -> Self {
        Self(tokio::spawn(serve(listener, Arc::new(pages))))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// People and scrapers; more of them wait.
const CONNECTIONS_MAX: usize = 32;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// One request and one answer: those who read slowly make room for others soon.
const CONNECTION_MAX: Duration = HEADER_TIMEOUT.saturating_add(ANSWER_TIMEOUT);

async fn serve<F>(listener: TcpListener, pages: Arc<F>)
where
    F: Fn(&str) -> Option<Page> + Send + Sync + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, mostly: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &*pages);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A peer that breaks off or stays too long has what it gets.
            let _ended = tokio::time::timeout(CONNECTION_MAX, connection).await;
            drop(permit);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    pages: &impl Fn(&str) -> Option<Page>,
) -> Response<Full<Bytes>> {
    let (status, content_type, text) = match *request.method() {
        Method::GET | Method::HEAD => pages(request.uri().path()).unwrap_or((
            StatusCode::NOT_FOUND,
            TEXT,
            "not found\n".into(),
        )),
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("{ALLOWED} only\n")),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110, section 15.5.6.
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(ALLOWED));
    }
    response
}

const ALLOWED: &str = "GET, HEAD";

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
/// Version 0.0.4 of Prometheus's text format.
pub(crate) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
