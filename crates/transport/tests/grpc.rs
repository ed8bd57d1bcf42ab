//! OTLP/gRPC over real sockets.

#[expect(dead_code, reason = "shared with the other tests, which use the rest")]
mod support;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use prost::Message as _;
use spanwire_codec::message::{self, Any, RetryInfo};
use spanwire_transport::{
    Accepted, Body, Compression, Protocol, Retry, SendError, Status, Transport, TransportConfig,
};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use support::{Collector, body, causes, endless, grpc, grpc_ok, grpc_raw, http, partial, send_to};

fn config(url: &str) -> TransportConfig {
    TransportConfig::new(Protocol::Grpc, url).expect("a valid endpoint")
}

fn transport(url: &str) -> Transport {
    Transport::new(&config(url)).expect("usable settings")
}

async fn answer_to(collector: &Collector) -> Result<Accepted, SendError> {
    send_to(&transport(&collector.url())).await
}

#[tokio::test]
async fn a_request_arrives_byte_for_byte_as_the_protocol_frames_it() {
    let collector = Collector::answering(grpc_ok).await;
    let config = config(&collector.url()).header("x-tenant", "blue").expect("valid");
    let transport = Transport::new(&config).expect("usable settings");
    assert_eq!(send_to(&transport).await.expect("OK"), Accepted::default());

    let seen = collector.only();
    assert_eq!(seen.path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert_eq!(seen.version, ::http::Version::HTTP_2);
    assert_eq!(seen.header("content-type"), Some("application/grpc"));
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(seen.header("x-tenant"), Some("blue"));
    assert_eq!(seen.header("grpc-encoding"), None);
    let agent = seen.header("user-agent").expect("is sent");
    assert!(agent.starts_with("OTel-OTLP-Exporter-Rust/"), "{agent}");
    assert_eq!(seen.body[..5], [0, 0, 0, 0x9C, 0x46], "plain, 40,006 bytes");
    assert_eq!(seen.body[5..], body().pieces().concat());
}

#[tokio::test]
async fn compressed_bodies_decompress_to_the_original() {
    let collector = Collector::answering(grpc_ok).await;
    for compression in [Compression::Gzip, Compression::Zstd] {
        let config = config(&collector.url()).compression(compression).expect("gRPC has it");
        let transport = Transport::new(&config).expect("usable settings");
        assert_eq!(send_to(&transport).await.expect("OK"), Accepted::default());

        let seen = collector.seen().pop().expect("arrived");
        let (prefix, message) = seen.body.split_at(5);
        assert_eq!(prefix[0], 1, "marked as compressed");
        assert_eq!(prefix[1..], (message.len() as u32).to_be_bytes());
        let mut plain = Vec::new();
        match seen.header("grpc-encoding") {
            Some("gzip") => {
                flate2::read::GzDecoder::new(message).read_to_end(&mut plain).expect("gzip");
            }
            Some("zstd") => plain = zstd::decode_all(message).expect("zstd"),
            other => panic!("unexpected coding {other:?}"),
        }
        assert_eq!(plain, body().pieces().concat());
    }
    assert_eq!(collector.seen().len(), 2);
}

#[tokio::test]
async fn a_second_attempt_sends_the_same_bytes() {
    let collector = Collector::answering(|| grpc(&[], &[("grpc-status", "14")])).await;
    let config = config(&collector.url()).compression(Compression::Gzip).expect("gRPC has it");
    let transport = Transport::new(&config).expect("usable settings");
    let encoded = transport.encode(&body()).await.expect("within limits");
    for _ in 0..2 {
        assert_eq!(transport.send(&encoded).await.expect_err("14").retry(), Retry::Backoff);
    }
    let seen = collector.seen();
    assert_eq!(seen[0].body, seen[1].body);
    assert_eq!(seen[0].body.len(), encoded.len());
}

/// Faults 100, 101, 102.
#[tokio::test]
async fn a_partial_success_is_an_answer_and_is_clamped_to_what_was_sent() {
    for (claimed, rejected) in [(3, 3), (11, 10), (-1, 0), (0, 0)] {
        let collector = Collector::answering(move || {
            grpc(&partial(claimed, "bad trace id"), &[("grpc-status", "0")])
        })
        .await;
        let accepted = answer_to(&collector).await.expect("a partial success is no error");
        assert_eq!(accepted.rejected_spans, rejected);
        assert_eq!(accepted.message.as_deref(), Some("bad trace id"));
    }
}

/// Faults 103.
#[tokio::test]
async fn a_success_with_garbage_is_a_success_and_says_so() {
    let collector =
        Collector::answering(|| grpc(b"\xFF\xFF garbage", &[("grpc-status", "0")])).await;
    let accepted = answer_to(&collector).await.expect("the status counts");
    assert!(accepted.unreadable);
}

/// Faults 108, 109.
#[tokio::test]
async fn retry_info_in_the_trailers_is_the_least_wait() {
    let delay = message::Duration { seconds: 5, nanos: 500_000_000 };
    let info = RetryInfo { retry_delay: Some(delay) };
    let any = Any { type_url: RetryInfo::TYPE_URL.into(), value: info.encode_to_vec() };
    let status = message::Status { code: 8, message: String::new(), details: vec![any] };
    let details = STANDARD_NO_PAD.encode(status.encode_to_vec());
    for code in ["8", "14"] {
        let details = details.clone();
        let collector = Collector::answering(move || {
            grpc(&[], &[("grpc-status", code), ("grpc-status-details-bin", &details)])
        })
        .await;
        let error = answer_to(&collector).await.expect_err("a failure");
        assert_eq!(error.retry(), Retry::After(Duration::from_millis(5500)), "{error}");
    }
}

/// Faults 113.
#[tokio::test]
async fn an_answer_of_headers_only_is_understood() {
    let collector = Collector::answering(|| {
        http(200, &[("grpc-status", "3"), ("grpc-message", "no%20spans%0Afound")], "")
    })
    .await;
    let error = answer_to(&collector).await.expect_err("INVALID_ARGUMENT");
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(
        error.to_string(),
        "destination rejected the batch: gRPC INVALID_ARGUMENT: no spans found"
    );
}

/// Faults 108.
#[tokio::test]
async fn exhausted_without_retry_info_is_final_and_told_apart() {
    let collector = Collector::answering(|| grpc(&[], &[("grpc-status", "8")])).await;
    let error = answer_to(&collector).await.expect_err("RESOURCE_EXHAUSTED");
    assert!(matches!(error, SendError::Oversize { status: Status::Grpc(8), .. }), "{error}");
    assert_eq!(error.retry(), Retry::Never);
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_large_body_is_heard() {
    let collector = Collector::refusing(|| {
        http(200, &[("grpc-status", "8"), ("grpc-message", "larger than max")], "")
    })
    .await;
    let transport = transport(&collector.url());
    let body = Body::new(std::iter::repeat_n(Bytes::from(vec![1; 1 << 20]), 8), 10);
    let encoded = transport.encode(&body).await.expect("within limits");
    for _ in 0..10 {
        let error = transport.send(&encoded).await.expect_err("refused");
        assert!(matches!(error, SendError::Oversize { .. }), "{error:?}");
    }
}

/// Faults 113.
#[tokio::test]
async fn a_proxy_s_html_decides_by_its_http_status() {
    for (status, retry) in [(503, Retry::Backoff), (404, Retry::Never), (500, Retry::Never)] {
        let collector =
            Collector::answering(move || http(status, &[("content-type", "text/html")], "<p>"))
                .await;
        let error = answer_to(&collector).await.expect_err("not gRPC");
        assert_eq!(error.retry(), retry, "HTTP {status}: {error}");
    }
}

/// Faults 113.
#[tokio::test]
async fn an_answer_without_a_status_is_unknown_and_final() {
    let collector = Collector::answering(|| http(200, &[], "hello")).await;
    let error = answer_to(&collector).await.expect_err("no grpc-status");
    assert!(matches!(error, SendError::Reject { status: Status::Grpc(2), .. }), "{error}");
}

/// Faults 111.
#[tokio::test]
async fn an_answer_without_end_is_cut_off_and_final() {
    let collector = Collector::answering(|| endless(200, &[])).await;
    let error = answer_to(&collector).await.expect_err("too large");
    assert!(matches!(error, SendError::AnswerTooLarge { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Never);
}

/// Faults 110.
#[tokio::test]
async fn details_of_a_status_are_read_within_a_bound_and_past_it_the_attempt_is_repeated() {
    // Padding makes details of any size; the delay comes first.
    let details = |len: usize| {
        let delay = message::Duration { seconds: 5, nanos: 0 };
        let info = RetryInfo { retry_delay: Some(delay) };
        let any = |type_url: &str, value| Any { type_url: type_url.into(), value };
        let details =
            vec![any(RetryInfo::TYPE_URL, info.encode_to_vec()), any("padding", vec![0; len])];
        let status = message::Status { code: 14, message: String::new(), details };
        STANDARD_NO_PAD.encode(status.encode_to_vec())
    };
    for (len, retry) in [
        (60 << 10, Retry::After(Duration::from_secs(5))),
        // Too long to be decoded; the code still counts.
        (80 << 10, Retry::Backoff),
        // Too long for the connection, which breaks off.
        (1 << 20, Retry::Backoff),
    ] {
        let details = details(len);
        let collector = Collector::answering(move || {
            grpc(&[], &[("grpc-status", "14"), ("grpc-status-details-bin", &details)])
        })
        .await;
        let error = answer_to(&collector).await.expect_err("UNAVAILABLE");
        assert_eq!(error.retry(), retry, "{len}: {error:?}");
    }
}

/// Faults 57.
#[tokio::test]
async fn a_compressed_bomb_for_an_answer_is_cut_off_and_final() {
    let collector = Collector::answering(|| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![0; 5 << 20]).expect("to memory");
        let bomb = encoder.finish().expect("to memory");
        let mut framed = vec![1];
        framed.extend_from_slice(&(bomb.len() as u32).to_be_bytes());
        framed.extend_from_slice(&bomb);
        grpc_raw(framed, &[("grpc-encoding", "gzip")], &[("grpc-status", "0")])
    })
    .await;
    let error = answer_to(&collector).await.expect_err("too large");
    assert!(matches!(error, SendError::AnswerTooLarge { .. }), "{error}");
}

#[tokio::test]
async fn many_requests_in_flight_share_one_connection() {
    const IN_FLIGHT: usize = 32;
    // No answer leaves before all requests have arrived.
    let barrier = Arc::new(Barrier::new(IN_FLIGHT));
    let collector = Collector::start(move |_| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            grpc_ok()
        }
    })
    .await;
    let transport = Arc::new(transport(&collector.url()));
    let sends: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let transport = transport.clone();
            tokio::spawn(async move { send_to(&transport).await })
        })
        .collect();
    for send in sends {
        assert_eq!(send.await.expect("no panic").expect("OK"), Accepted::default());
    }
    assert_eq!(collector.connections(), 1);
    assert_eq!(collector.seen().len(), IN_FLIGHT);
}

/// Faults 114.
#[tokio::test]
async fn a_refused_connection_is_retried_and_names_its_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    drop(listener);
    let error = send_to(&transport(&format!("http://{addr}"))).await.expect_err("refused");
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
    let causes = causes(&error);
    assert!(causes.contains(&format!("cannot reach {addr}")), "{causes}");
    assert!(causes.contains("refused"), "{causes}");
}

/// Faults 114.
#[tokio::test]
async fn a_connection_closed_without_an_answer_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let closing = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a connection");
        // Something of the request has arrived when the connection is closed.
        socket.readable().await.expect("open");
    });
    let error = send_to(&transport(&format!("http://{addr}"))).await.expect_err("closed");
    assert!(matches!(error, SendError::Disconnect(_)), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
    closing.await.expect("no panic");
}

/// Faults 115.
#[tokio::test]
async fn a_silent_collector_costs_the_request_timeout_and_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let config = config(&url).request_timeout(Duration::from_millis(100));
    let transport = Transport::new(&config).expect("usable settings");
    let error = send_to(&transport).await.expect_err("silence");
    assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
}

/// Faults 119.
#[tokio::test]
async fn the_same_transport_reaches_a_collector_that_came_back() {
    let collector = Collector::answering(grpc_ok).await;
    let addr = collector.addr;
    let transport = transport(&collector.url());
    assert_eq!(send_to(&transport).await.expect("OK"), Accepted::default());
    drop(collector);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    // The first failure may be seen only once the closing has arrived.
    while send_to(&transport).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "nobody is there to answer");
    }
    let _collector = Collector::restart(addr, |_| std::future::ready(grpc_ok())).await;
    while let Err(error) = send_to(&transport).await {
        assert_eq!(error.retry(), Retry::Backoff, "{error}");
        assert!(tokio::time::Instant::now() < deadline, "{error}");
    }
}

#[test]
fn a_transport_is_made_without_a_runtime_and_used_in_one() {
    let transport = transport("http://127.0.0.1:9");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(send_to(&transport)).expect_err("nobody listens there");
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
}
