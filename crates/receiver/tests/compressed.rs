//! Compressed bodies, and what is kept of them for a forwarder, over real sockets.

mod support;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use spanwire_receiver::{Coding, Encoding, Reason, channel};
use support::*;

/// A body by each name that HTTP has for a compression, and the format it is in.
fn by_http(data: &[u8]) -> [(&'static str, Coding, Vec<u8>); 9] {
    [
        ("gzip", Coding::Gzip, gzip(data)),
        ("x-gzip", Coding::Gzip, gzip(data)),
        ("zstd", Coding::Zstd, zstd(data)),
        ("deflate", Coding::Zlib, zlib(data)),
        ("Deflate", Coding::Zlib, zlib(data)),
        ("zlib", Coding::Zlib, zlib(data)),
        ("snappy", Coding::Snappy, snappy(data)),
        ("snappy", Coding::SnappyFramed, snappy_framed(data)),
        ("x-snappy-framed", Coding::SnappyFramed, snappy_framed(data)),
    ]
}

/// A body by each name that gRPC has for a compression.
fn by_grpc(data: &[u8]) -> [(&'static str, Coding, Vec<u8>); 3] {
    [
        ("gzip", Coding::Gzip, gzip(data)),
        ("zstd", Coding::Zstd, zstd(data)),
        ("snappy", Coding::SnappyFramed, snappy_framed(data)),
    ]
}

/// Faults 51.
#[tokio::test]
async fn every_compression_that_a_collector_sends_is_decompressed() {
    let (sink, mut requests) = channel(16);
    let receiver = start(sink).await;
    let plain = wire(5000);
    for (name, _, body) in by_http(&plain) {
        let headers = format!("{PROTOBUF}Content-Encoding: {name}\r\n");
        assert_eq!(post(&receiver, &headers, &body).await.status, 200, "{name}");
        let received = requests.recv().await.expect("in the queue");
        assert_eq!(received.request, plain, "{name}");
        assert!(received.compressed.is_none(), "nobody asked for it");
    }
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for (name, _, body) in by_grpc(&plain) {
        let call = http2.call(&[("grpc-encoding", name)], &framed(1, &body)).await;
        assert_eq!(call.code, 0, "{name}");
        assert_eq!(requests.recv().await.expect("in the queue").request, plain, "{name}");
    }
    // What only HTTP has names for.
    for name in ["deflate", "zlib", "x-snappy-framed"] {
        let call = http2.call(&[("grpc-encoding", name)], &framed(1, &zlib(&plain))).await;
        assert_eq!(call.code, 12, "{name}");
    }
}

/// Faults 16, 47.
#[tokio::test]
async fn every_compression_stops_at_the_limit_of_what_comes_out() {
    let plain = wire(500);
    for (limit, status, code) in [(plain.len(), 200, 0), (plain.len() - 1, 413, 8)] {
        let receiver = start_with(take_all, |builder| {
            builder.http_request_bytes_max(limit).grpc_request_bytes_max(limit)
        })
        .await;
        for (name, _, body) in by_http(&plain) {
            let headers = format!("{PROTOBUF}Content-Encoding: {name}\r\n");
            assert_eq!(post(&receiver, &headers, &body).await.status, status, "{name}");
        }
        let mut http2 = Http2::connect(receiver.grpc_address()).await;
        for (name, _, body) in by_grpc(&plain) {
            let call = http2.call(&[("grpc-encoding", name)], &framed(1, &body)).await;
            assert_eq!(call.code, code, "{name}");
        }
        assert_eq!(receiver.stats().in_flight_bytes, 0);
    }
}

/// Faults 46, 50.
#[tokio::test]
async fn a_body_that_is_not_what_its_coding_says_is_a_bad_request() {
    let receiver = start(take_all).await;
    let plain = wire(3);
    let bodies = by_http(&plain);
    for (name, coding, _) in &bodies {
        for (_, other, body) in &bodies {
            let is_snappy = matches!(other, Coding::Snappy | Coding::SnappyFramed);
            // Both formats go by that name.
            if other != coding && !(*name == "snappy" && is_snappy) {
                let headers = format!("{PROTOBUF}Content-Encoding: {name}\r\n");
                let answer = post(&receiver, &headers, body).await;
                assert_eq!(answer.status, 400, "{other:?} as {name}");
            }
        }
    }
    assert_eq!(receiver.stats().http.requests_accepted, 0);
}

/// Faults 92.
#[tokio::test]
async fn a_compressed_body_is_kept_as_it_came_and_counted_until_it_is_dropped() {
    let (sink, mut requests) = channel(16);
    let receiver = start_with(sink, |builder| builder.keep_compressed(true)).await;
    let plain = wire(3000);
    for (name, coding, body) in by_http(&plain) {
        let headers = format!("{PROTOBUF}Content-Encoding: {name}\r\n");
        assert_eq!(post(&receiver, &headers, &body).await.status, 200, "{name}");
        let mut received = requests.recv().await.expect("in the queue");
        let kept = received.compressed.take().expect("kept");
        assert_eq!((kept.encoding, &kept.bytes[..]), (coding, &body[..]), "{name}");
        let held = receiver.stats().in_flight_bytes;
        let (bytes, request) = (kept.bytes.clone(), received.request.clone());
        drop(kept);
        assert_eq!(held - receiver.stats().in_flight_bytes, Vec::from(bytes).capacity(), "{name}");
        let (_, spans, reservation) = received.into_parts();
        assert_eq!(spans, 3000);
        assert_eq!(reservation.bytes(), Vec::from(request).capacity(), "{name}");
        drop(reservation);
        assert_eq!(receiver.stats().in_flight_bytes, 0, "{name}");
    }
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for (name, coding, body) in by_grpc(&plain) {
        // In many frames, as a peer of small ones sends it.
        let all = [("content-type", "application/grpc"), ("grpc-encoding", name)];
        let mut call = http2.open(EXPORT, &all).await;
        for piece in framed(1, &body).chunks(1000) {
            call.data(piece, false);
        }
        call.data(&[], true);
        assert_eq!(call.answer().await.code, 0, "{name}");
        let received = requests.recv().await.expect("in the queue");
        let (encoding, bytes, reservation) = received.compressed.expect("kept").into_parts();
        assert_eq!((encoding, &bytes[..]), (coding, &body[..]), "{name}");
        assert!(reservation.bytes() >= bytes.len());
    }
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

#[tokio::test]
async fn only_what_decompresses_to_the_request_is_kept() {
    let (sink, mut requests) = channel(16);
    let receiver = start_with(sink, |builder| builder.keep_compressed(true)).await;
    let part = request_of(vec![span(0), Span { trace_id: vec![], ..span(1) }]).encode_to_vec();
    let json = serde_json::to_vec(&request(2)).expect("a request");
    for (content, coding, body) in [
        (PROTOBUF, "identity", wire(2)),
        // One span of two is rejected.
        (PROTOBUF, "gzip", gzip(&part)),
        (JSON, "gzip", gzip(&json)),
    ] {
        let headers = format!("{content}Content-Encoding: {coding}\r\n");
        assert_eq!(post(&receiver, &headers, &body).await.status, 200, "{headers}");
        let received = requests.recv().await.expect("in the queue");
        assert!(received.compressed.is_none(), "{headers}");
        let held = Vec::from(received.request.clone()).capacity();
        assert!(receiver.stats().in_flight_bytes <= held + held / 8, "{headers}");
        assert_eq!(received.encoding == Encoding::Json, content == JSON);
    }
    // The flag counts: a message that is not compressed is not, whatever its header says.
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let call = http2.call(&[("grpc-encoding", "gzip")], &framed(0, &wire(2))).await;
    assert_eq!(call.code, 0);
    assert!(requests.recv().await.expect("in the queue").compressed.is_none());
}

/// Faults 92.
#[tokio::test]
async fn the_largest_request_fits_its_share_with_its_compressed_form_kept() {
    let (sink, mut requests) = channel(16);
    // Compressing gains nothing, so both are as large as they may be.
    let trace_state = noise(60_000);
    let plain = request_of(vec![Span { trace_state, ..span(0) }]).encode_to_vec();
    let body = zlib(&plain);
    let limit = plain.len().max(body.len());
    let receiver = start_with(sink, |builder| {
        builder
            .grpc_request_bytes_max(limit)
            .http_request_bytes_max(limit)
            .in_flight_bytes_max(2 * limit)
            .keep_compressed(true)
    })
    .await;
    let headers = format!("{PROTOBUF}Content-Encoding: deflate\r\n");
    assert_eq!(post(&receiver, &headers, &body).await.status, 200);
    let held = requests.recv().await.expect("in the queue");
    assert_eq!(post(&receiver, &headers, &body).await.status, 429, "and no second one");
    drop(held);
    assert_eq!(post(&receiver, &headers, &body).await.status, 200);
    assert_eq!(receiver.stats().http.refused(Reason::Budget).requests, 1);
}

/// Text that hardly compresses.
fn noise(len: usize) -> String {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 58) as u8)
    })
    .take(len)
    .collect()
}
