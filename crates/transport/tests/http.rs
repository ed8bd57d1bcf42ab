//! OTLP/HTTP over real sockets.

#[expect(dead_code, reason = "shared with the other tests, which use the rest")]
mod support;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use spanwire_codec::message;
use spanwire_transport::{
    Accepted, Body, Compression, Protocol, Retry, SendError, Status, Transport, TransportConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use support::{Collector, body, endless, http, partial, send_to};

type Header = (&'static str, &'static str);

const JSON: Header = ("content-type", "application/json");
const PROTOBUF: Header = ("content-type", "application/x-protobuf");

fn config(url: &str) -> TransportConfig {
    TransportConfig::new(Protocol::HttpProtobuf, url).expect("a valid endpoint")
}

fn transport(config: &TransportConfig) -> Transport {
    Transport::new(config).expect("usable settings")
}

async fn answer_to(collector: &Collector) -> Result<Accepted, SendError> {
    send_to(&transport(&config(&collector.url()))).await
}

#[tokio::test]
async fn a_request_arrives_byte_for_byte_with_its_length() {
    let collector = Collector::answering(|| http(200, &[PROTOBUF], "")).await;
    let config = config(&format!("{}/otlp/", collector.url()))
        .header("X-Tenant", "blue")
        .and_then(|config| config.header("User-Agent", "shop/2"))
        .expect("valid");
    assert_eq!(send_to(&transport(&config)).await.expect("200"), Accepted::default());

    let seen = collector.only();
    assert_eq!(seen.path, "/otlp/v1/traces");
    assert_eq!(seen.version, ::http::Version::HTTP_11);
    assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(seen.header("content-length"), Some("40006"));
    assert_eq!(seen.header("content-encoding"), None);
    assert_eq!(seen.header("x-tenant"), Some("blue"));
    let agent = seen.header("user-agent").expect("is sent");
    assert!(agent.starts_with("shop/2 OTel-OTLP-Exporter-Rust/"), "{agent}");
    assert_eq!(seen.body, body().pieces().concat());
}

#[tokio::test]
async fn compressed_bodies_decompress_to_the_original() {
    let collector = Collector::answering(|| http(200, &[PROTOBUF], "")).await;
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Brotli] {
        let config = config(&collector.url()).compression(compression).expect("HTTP has it");
        assert_eq!(send_to(&transport(&config)).await.expect("200"), Accepted::default());

        let seen = collector.seen().pop().expect("arrived");
        assert!(seen.body.len() < body().len());
        let mut plain = Vec::new();
        match seen.header("content-encoding") {
            Some("gzip") => {
                flate2::read::GzDecoder::new(&seen.body[..]).read_to_end(&mut plain).expect("gzip");
            }
            Some("zstd") => plain = zstd::decode_all(&seen.body[..]).expect("zstd"),
            Some("br") => {
                let mut decoder =
                    async_compression::tokio::bufread::BrotliDecoder::new(&seen.body[..]);
                decoder.read_to_end(&mut plain).await.expect("brotli");
            }
            other => panic!("unexpected coding {other:?}"),
        }
        assert_eq!(plain, body().pieces().concat());
    }
    assert_eq!(collector.seen().len(), 3);
}

#[tokio::test]
async fn json_is_sent_and_its_answer_understood() {
    let collector = Collector::answering(|| {
        let answer = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"bad id"}}"#;
        http(200, &[("content-type", "application/json; charset=utf-8")], answer)
    })
    .await;
    let config = TransportConfig::new(Protocol::HttpJson, &collector.url()).expect("valid");
    let transport = transport(&config);
    // resource_spans { scope_spans { } }
    let body = Body::new([Bytes::from_static(b"\x0A\x02"), Bytes::from_static(b"\x12\x00")], 2);
    let encoded = transport.encode(&body).await.expect("has a JSON form");
    let accepted = transport.send(&encoded).await.expect("200");
    assert_eq!(accepted.rejected_spans, 1);
    assert_eq!(accepted.message.as_deref(), Some("bad id"));

    let seen = collector.only();
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert!(seen.body.starts_with(b"{\"resourceSpans\":["), "{:?}", seen.body);
}

/// Faults 100, 102.
#[tokio::test]
async fn a_partial_success_is_an_answer_and_is_clamped_to_what_was_sent() {
    let collector =
        Collector::answering(|| http(200, &[PROTOBUF], partial(11, "bad trace id"))).await;
    let accepted = answer_to(&collector).await.expect("a partial success is no error");
    assert_eq!(accepted.rejected_spans, 10);
    assert_eq!(accepted.message.as_deref(), Some("bad trace id"));
}

/// Faults 103.
#[tokio::test]
async fn success_that_is_not_otlp_counts_as_success_and_is_marked() {
    let cases: [(u16, &[Header], &'static str); 6] = [
        (200, &[PROTOBUF], "\x0A"),
        (200, &[JSON], "{"),
        (200, &[("content-type", "text/html")], "<p>welcome</p>"),
        (200, &[PROTOBUF, ("content-encoding", "gzip")], "not gzip"),
        (200, &[PROTOBUF, ("content-encoding", "br")], "x"),
        (204, &[], ""),
    ];
    for (status, headers, body) in cases {
        let collector = Collector::answering(move || http(status, headers, body)).await;
        let accepted = answer_to(&collector).await.expect("the status counts");
        assert_eq!(accepted, Accepted { unreadable: true, ..Accepted::default() }, "{headers:?}");
    }
}

/// Faults 105, 106.
#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let collector = Collector::answering(|| http(429, &[("retry-after", "7")], "")).await;
    let error = answer_to(&collector).await.expect_err("429");
    assert_eq!(error.retry(), Retry::After(Duration::from_secs(7)));

    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
    let collector = Collector::answering(move || http(503, &[("retry-after", &date)], "")).await;
    let error = answer_to(&collector).await.expect_err("503");
    let Retry::After(wait) = error.retry() else { panic!("{error}") };
    assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");

    let collector = Collector::answering(|| http(503, &[("retry-after", "soon")], "")).await;
    assert_eq!(answer_to(&collector).await.expect_err("503").retry(), Retry::Backoff);
}

/// Faults 104.
#[tokio::test]
async fn a_failure_says_what_the_collector_said() {
    let status = |message: &str| message::Status { message: message.into(), ..Default::default() };
    let protobuf = status("span 3:\nbad id").encode_to_vec();
    let json = r#"{"code":5,"message":"no such tenant"}"#;
    let cases: [(u16, Header, Vec<u8>, &str); 5] = [
        (400, PROTOBUF, protobuf, "destination rejected the batch: HTTP 400: span 3: bad id"),
        (404, JSON, json.into(), "destination rejected the batch: HTTP 404: no such tenant"),
        (
            502,
            ("content-type", "text/plain"),
            b"upstream gone".into(),
            "destination unavailable: HTTP 502: upstream gone",
        ),
        (
            413,
            ("content-type", "text/html"),
            b"<p>".into(),
            "batch too large for the destination: HTTP 413",
        ),
        (401, PROTOBUF, b"\xFF".into(), "destination rejected the batch: HTTP 401"),
    ];
    for (status, content_type, body, text) in cases {
        let collector =
            Collector::answering(move || http(status, &[content_type], body.clone())).await;
        let error = answer_to(&collector).await.expect_err("a failure");
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_large_body_is_heard() {
    for http2_only in [false, true] {
        let collector = Collector::refusing(|| http(413, &[PROTOBUF], "")).await;
        let transport = transport(&config(&collector.url()).http2_only(http2_only));
        let body = Body::new(std::iter::repeat_n(Bytes::from(vec![1; 1 << 20]), 8), 10);
        let encoded = transport.encode(&body).await.expect("within limits");
        for _ in 0..10 {
            let error = transport.send(&encoded).await.expect_err("refused");
            assert!(matches!(error, SendError::Oversize { .. }), "HTTP/2 {http2_only}: {error:?}");
        }
    }
}

/// Faults 112.
#[tokio::test]
async fn a_redirect_is_not_followed_and_takes_no_header_elsewhere() {
    for status in [301, 302, 307, 308] {
        let elsewhere = Collector::answering(|| http(200, &[PROTOBUF], "")).await;
        let location = elsewhere.url();
        let collector =
            Collector::answering(move || http(status, &[("location", &location)], "")).await;
        let error = answer_to(&collector).await.expect_err("a redirect");
        assert!(
            matches!(error, SendError::Reject { status: Status::Http(s), .. } if s == status),
            "{error}"
        );
        assert_eq!((elsewhere.connections(), collector.seen().len()), (0, 1));
    }
}

/// Faults 57, 111.
#[tokio::test]
async fn an_answer_past_the_limit_is_cut_off_and_final() {
    let bomb = || {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![0; 5 << 20]).expect("to memory");
        http(200, &[PROTOBUF, ("content-encoding", "gzip")], encoder.finish().expect("to memory"))
    };
    let collectors = [
        Collector::answering(|| endless(200, &[PROTOBUF])).await,
        Collector::answering(|| endless(503, &[PROTOBUF])).await,
        Collector::answering(|| http(200, &[PROTOBUF], vec![0; (4 << 20) + 1])).await,
        Collector::answering(|| endless(200, &[PROTOBUF, ("content-length", "10000000000")])).await,
        Collector::answering(bomb).await,
    ];
    for (i, collector) in collectors.iter().enumerate() {
        let error = answer_to(collector).await.expect_err("too large");
        assert!(matches!(error, SendError::AnswerTooLarge { .. }), "{i}: {error}");
        assert_eq!(error.retry(), Retry::Never);
    }
}

#[tokio::test]
async fn requests_one_after_another_reuse_the_connection() {
    let collector = Collector::answering(|| http(200, &[PROTOBUF], partial(0, ""))).await;
    let transport = transport(&config(&collector.url()));
    for _ in 0..20 {
        assert_eq!(send_to(&transport).await.expect("200"), Accepted::default());
    }
    assert_eq!((collector.connections(), collector.seen().len()), (1, 20));
}

#[tokio::test]
async fn http2_only_puts_many_requests_in_flight_on_one_connection() {
    const IN_FLIGHT: usize = 16;
    // No answer leaves before all requests have arrived.
    let barrier = Arc::new(Barrier::new(IN_FLIGHT));
    let collector = Collector::start(move |_| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            http(200, &[PROTOBUF], "")
        }
    })
    .await;
    let transport = Arc::new(transport(&config(&collector.url()).http2_only(true)));
    let sends: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let transport = transport.clone();
            tokio::spawn(async move { send_to(&transport).await })
        })
        .collect();
    for send in sends {
        assert_eq!(send.await.expect("no panic").expect("200"), Accepted::default());
    }
    assert_eq!(collector.connections(), 1);
    assert!(collector.seen().iter().all(|seen| seen.version == ::http::Version::HTTP_2));
}

/// Faults 114.
#[tokio::test]
async fn a_refused_connection_is_retried_and_a_key_in_the_url_is_not_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    drop(listener);
    let transport = transport(&config(&format!("http://{addr}/?key=hunter2")));
    let error = send_to(&transport).await.expect_err("refused");
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

/// Faults 115.
#[tokio::test]
async fn a_silent_collector_costs_the_request_timeout_and_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let config = config(&url).request_timeout(Duration::from_millis(100));
    let error = send_to(&transport(&config)).await.expect_err("silence");
    assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
}

/// Faults 111.
#[tokio::test]
async fn an_answer_that_trickles_costs_the_request_timeout_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let trickling = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let _ = socket.read(&mut [0; 1024]).await.expect("a request");
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\r\n";
        socket.write_all(head).await.expect("open");
        // Until the client has had enough.
        while socket.write_all(b"\0").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let config = config(&url).request_timeout(Duration::from_millis(100));
    let error = send_to(&transport(&config)).await.expect_err("without end");
    assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
    trickling.await.expect("the client closed the connection");
}

/// Faults 114.
#[tokio::test]
async fn a_connection_closed_without_an_answer_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let closing = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a connection");
        // Something of the request has arrived when the connection is closed.
        socket.readable().await.expect("open");
    });
    let error = send_to(&transport(&config(&url))).await.expect_err("closed");
    assert!(matches!(error, SendError::Disconnect(_)), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
    closing.await.expect("no panic");
}

#[tokio::test]
async fn a_body_encoded_for_another_protocol_is_not_sent() {
    let collector = Collector::answering(|| http(200, &[PROTOBUF], "")).await;
    let grpc = TransportConfig::new(Protocol::Grpc, &collector.url()).expect("valid");
    let encoded = transport(&grpc).encode(&body()).await.expect("within limits");
    let error = transport(&config(&collector.url())).send(&encoded).await.expect_err("mismatch");
    assert!(matches!(error, SendError::Mismatch), "{error}");
    assert_eq!(collector.connections(), 0);
}
