//! OTLP/gRPC over real sockets, against tonic's client and a hand-driven HTTP/2 stream.

mod support;

use std::time::Duration;

use http::Request;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use spanwire_receiver::{
    Accepted, Encoding, Reason, Received, Receiver, Refusal, Refused, Transport, channel,
};
use support::*;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

async fn client(receiver: &Receiver) -> TraceServiceClient<Channel> {
    let address = receiver.grpc_address().expect("served");
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URI");
    TraceServiceClient::new(channel.connect().await.expect("it listens"))
}

/// The code of a call, and whether a RetryInfo came with it.
fn verdict(call: &Call) -> (u32, bool) {
    (call.code, call.headers.contains_key("grpc-status-details-bin"))
}

#[tokio::test]
async fn what_tonic_sends_reaches_the_sink_byte_for_byte_in_every_compression() {
    let (sink, mut requests) = channel(8);
    let receiver = start(sink).await;
    let client = client(&receiver).await;
    for (clients, spans) in [
        (client.clone(), 3),
        (client.clone().send_compressed(CompressionEncoding::Gzip), 300),
        (client.clone().send_compressed(CompressionEncoding::Zstd), 80_000),
    ] {
        let mut client = clients;
        let response = soon(client.export(request(spans))).await.expect("accepted");
        assert_eq!(response.into_inner().partial_success, None);
        let received = requests.recv().await.expect("in the queue");
        assert_eq!(received.request, wire(spans));
        assert_eq!(received.spans, spans);
        assert_eq!(received.transport, Transport::Grpc);
        assert_eq!(received.encoding, Encoding::Protobuf);
    }
    let stats = receiver.stats().grpc;
    assert_eq!((stats.requests_accepted, stats.spans_accepted), (3, 80_303));
    assert_eq!(stats.refused_in_all(), Refused::default());
    let plain = [3, 300, 80_000].map(|spans| wire(spans).len() as u64);
    assert_eq!(stats.request_bytes, plain.iter().sum());
    assert!(stats.wire_bytes < stats.request_bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuous_export_shares_one_connection() {
    let receiver = start(take_all).await;
    let client = client(&receiver).await;
    let calls: Vec<_> = (0..300)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move { client.export(request(number % 7 + 1)).await.is_ok() })
        })
        .collect();
    for call in calls {
        assert!(soon(call).await.expect("no panic"));
    }
    let stats = receiver.stats();
    assert_eq!(stats.connections_accepted, 1);
    assert_eq!(stats.grpc.requests_accepted, 300);
    assert_eq!(stats.in_flight_bytes, 0);
}

/// Faults 1, 2.
#[tokio::test]
async fn a_request_without_spans_succeeds_and_reaches_no_sink() {
    let receiver = start(async |_| panic!("nothing to accept")).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for empty in [vec![], wire(0), [wire(0), wire(0)].concat()] {
        let call = http2.call(&[], &framed(0, &empty)).await;
        assert_eq!((call.http_status, call.code), (200, 0));
        assert_eq!(call.message, [0; 5]);
    }
    assert_eq!(receiver.stats().grpc.requests_accepted, 3);
}

/// Faults 21.
#[tokio::test]
async fn malformed_spans_are_rejected_and_their_neighbours_pass() {
    let (sink, mut requests) = channel(8);
    let receiver = start(sink).await;
    let mut spans: Vec<_> = (0..4).map(span).collect();
    spans[1].trace_id = vec![1; 15];
    spans[3].span_id = vec![1; 9];
    let mut client = client(&receiver).await;
    let response = soon(client.export(request_of(spans.clone()))).await.expect("accepted");
    let partial = response.into_inner().partial_success.expect("set");
    assert_eq!(partial.rejected_spans, 2);
    assert!(!partial.error_message.is_empty());
    let received = requests.recv().await.expect("in the queue");
    assert_eq!(received.spans, 2);
    assert_eq!(received.request, request_of(vec![span(0), span(2)]).encode_to_vec());
    let stats = receiver.stats().grpc;
    assert_eq!((stats.spans_accepted, stats.spans_rejected), (2, 2));

    spans.retain(|span| span.trace_id.len() == 15 || span.span_id.len() == 9);
    let response = soon(client.export(request_of(spans))).await.expect("accepted");
    assert_eq!(response.into_inner().partial_success.expect("set").rejected_spans, 2);
    assert!(requests.try_recv().is_err(), "nothing was left for the sink");
}

#[tokio::test]
async fn what_the_sink_rejects_is_added_to_what_is_malformed() {
    let receiver = start(async |_: Received| {
        Ok(Accepted { rejected_spans: 1, message: "too old".to_owned() })
    })
    .await;
    let mut spans: Vec<_> = (0..4).map(span).collect();
    spans[1].trace_id.clear();
    let mut client = client(&receiver).await;
    let response = soon(client.export(request_of(spans))).await.expect("accepted");
    let partial = response.into_inner().partial_success.expect("set");
    assert_eq!(partial.rejected_spans, 2);
    assert!(partial.error_message.ends_with("; too old"), "{}", partial.error_message);
    let stats = receiver.stats().grpc;
    assert_eq!((stats.spans_accepted, stats.spans_rejected), (2, 2));
}

#[tokio::test]
async fn each_refusal_of_the_sink_is_a_status_and_is_counted_with_its_spans() {
    let retry_after = Duration::new(5, 7);
    let message = String::new;
    let cases = [
        (
            Refusal::Unavailable { retry_after: Some(retry_after) },
            Code::Unavailable,
            true,
            Reason::SinkUnavailable,
        ),
        (
            Refusal::Unavailable { retry_after: None },
            Code::Unavailable,
            false,
            Reason::SinkUnavailable,
        ),
        (Refusal::Exhausted { retry_after }, Code::ResourceExhausted, true, Reason::SinkExhausted),
        (
            Refusal::TooLarge { message: message() },
            Code::ResourceExhausted,
            false,
            Reason::SinkTooLarge,
        ),
        (
            Refusal::Invalid { message: message() },
            Code::InvalidArgument,
            false,
            Reason::SinkInvalid,
        ),
        (Refusal::Internal { message: message() }, Code::Internal, false, Reason::SinkInternal),
    ];
    for (refusal, code, retry, reason) in cases {
        let answer = refusal.clone();
        let receiver = start(move |_: Received| std::future::ready(Err(answer.clone()))).await;
        let status = soon(client(&receiver).await.export(request(3))).await.expect_err("refused");
        assert_eq!(status.code(), code, "{refusal:?}");
        // RetryInfo with its delay of 5 s and 7 ns, as it lies in the details' bytes.
        let delay = status.details().windows(6).any(|bytes| bytes == b"\x0A\x04\x08\x05\x10\x07");
        assert_eq!(delay, retry, "{refusal:?}");
        let refused = receiver.stats().grpc.refused(reason);
        assert_eq!((refused.requests, refused.spans), (1, 3), "{refusal:?}");
    }
}

/// Faults 91.
#[tokio::test]
async fn a_full_queue_asks_the_peer_to_come_back() {
    let (sink, mut requests) = channel(1);
    let receiver = start(sink).await;
    let mut client = client(&receiver).await;
    soon(client.export(request(1))).await.expect("room for one");
    let status = soon(client.export(request(1))).await.expect_err("full");
    assert_eq!(status.code(), Code::Unavailable);
    requests.recv().await.expect("in the queue");
    soon(client.export(request(1))).await.expect("room again");
}

#[tokio::test]
async fn a_queued_request_stays_in_the_budget_until_it_is_dropped() {
    let (sink, mut requests) = channel(8);
    let receiver = start(sink).await;
    soon(client(&receiver).await.export(request(5))).await.expect("accepted");
    let received = requests.recv().await.expect("in the queue");
    assert_eq!(receiver.stats().in_flight_bytes, wire(5).len());
    drop(received);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 54, 56, 81.
#[tokio::test]
async fn anything_but_one_whole_message_is_internal_and_reaches_no_sink() {
    let receiver = start(async |_| panic!("nothing to accept")).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let one = framed(0, &wire(1));
    let bodies = [
        vec![],
        vec![0],
        vec![0, 0, 0, 0],
        one[..one.len() - 1].to_vec(),
        [one.clone(), vec![0]].concat(),
        [one.clone(), one.clone()].concat(),
        framed(2, &wire(1)),
        framed(255, &wire(1)),
        framed(1, &gzip(&wire(1))),
    ];
    let calls = bodies.len() as u64;
    for body in bodies {
        let call = http2.call(&[], &body).await;
        assert_eq!((call.http_status, call.code), (200, 13), "{call:?}");
    }
    assert_eq!(receiver.stats().grpc.refused(Reason::Framing).requests, calls);
    // The flag counts, not the header: plain bytes may come under an encoding, but not the reverse.
    let call = http2.call(&[("grpc-encoding", "identity")], &framed(1, &wire(1))).await;
    assert_eq!(call.code, 13);
}

#[tokio::test]
async fn an_uncompressed_message_may_come_under_a_grpc_encoding() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for encoding in ["gzip", "zstd", "identity"] {
        let call = http2.call(&[("grpc-encoding", encoding)], &framed(0, &wire(1))).await;
        assert_eq!(call.code, 0, "{encoding}");
    }
}

/// Faults 55.
#[tokio::test]
async fn an_unknown_encoding_is_unimplemented_and_told_the_known_ones() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let call = http2.call(&[("grpc-encoding", "br")], &framed(1, b"?")).await;
    assert_eq!(call.code, 12);
    assert_eq!(call.headers["grpc-accept-encoding"], "identity,gzip,zstd,snappy");
}

/// Faults 83, 87.
#[tokio::test]
async fn what_is_not_this_method_is_refused_without_reading_it() {
    let receiver = start(async |_| panic!("nothing to accept")).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for (content_type, path, http_status, code) in [
        ("application/grpc", "/", 200, 12),
        ("application/grpc", &EXPORT.to_lowercase(), 200, 12),
        ("application/grpc", &EXPORT.replace("trace", "metrics"), 200, 12),
        ("application/grpc+json", EXPORT, 415, 12),
        ("application/grpc-web", EXPORT, 415, 12),
        ("application/x-protobuf", EXPORT, 415, 12),
        ("", EXPORT, 415, 12),
    ] {
        // The stream is left open: the answer must not wait for its end.
        let stream = http2.open(path, &[("content-type", content_type)]).await;
        let call = stream.answer().await;
        assert_eq!((call.http_status, call.code), (http_status, code), "{content_type} {path}");
    }
    let get =
        Request::get(format!("http://test{EXPORT}")).header("content-type", "application/grpc");
    let stream = http2.open_request(get.body(()).expect("a request")).await;
    assert_eq!(stream.answer().await.http_status, 405);
}

#[tokio::test]
async fn content_type_parameters_and_subtype_proto_are_served() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for content_type in ["application/grpc+proto", "application/grpc; a=b", "Application/gRPC"] {
        let mut stream = http2.open(EXPORT, &[("content-type", content_type)]).await;
        stream.data(&framed(0, &wire(1)), true);
        assert_eq!(stream.answer().await.code, 0, "{content_type}");
    }
}

/// Faults 3.
#[tokio::test]
async fn a_message_cut_at_any_byte_is_an_invalid_argument() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let body = wire(2);
    for end in 1..body.len() {
        let call = http2.call(&[], &framed(0, &body[..end])).await;
        assert_eq!(verdict(&call), (3, false), "cut at {end}");
    }
    assert_eq!(receiver.stats().grpc.spans_accepted, 0);
}

/// Faults 46, 49.
#[tokio::test]
async fn a_corrupt_compressed_message_is_an_invalid_argument() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let good = gzip(&wire(3));
    for body in [&b""[..], b"not gzip", &good[..good.len() - 1], &[&good[..], b"?"].concat()] {
        let call = http2.call(&[("grpc-encoding", "gzip")], &framed(1, body)).await;
        assert_eq!(verdict(&call), (3, false));
    }
}

/// Faults 128, 164.
#[tokio::test]
async fn a_sink_that_panics_fails_its_request_for_good_and_no_other() {
    let receiver = start(async |received: Received| match received.spans {
        1 => panic!("one span too few"),
        _ => Ok(Accepted::default()),
    })
    .await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    assert_eq!(verdict(&http2.call(&[], &framed(0, &wire(1))).await), (13, false));
    assert_eq!(http2.call(&[], &framed(0, &wire(2))).await.code, 0);
    assert_eq!(post(&receiver, PROTOBUF, &wire(1)).await.status, 500);
    let stats = receiver.stats();
    assert_eq!(stats.grpc.refused(Reason::Panic), Refused { requests: 1, spans: 1 });
    assert_eq!((stats.connections_accepted, stats.in_flight_bytes), (2, 0));
}

/// Faults 86.
#[tokio::test]
async fn a_reset_stream_gives_its_bytes_back_and_is_counted() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let mut stream = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
    let body = framed(0, &wire(100));
    stream.data(&body[..body.len() / 2], false);
    until(|| receiver.stats().in_flight_bytes == body.len() - 5).await;
    stream.send.send_reset(h2::Reason::CANCEL);
    until(|| receiver.stats().grpc.refused(Reason::Cancelled).requests == 1).await;
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 72.
#[tokio::test]
async fn a_connection_lost_while_the_sink_works_is_counted_with_its_spans() {
    let (gate, mut arrivals, _answers) = Gate::new();
    let receiver = start(gate).await;
    let tcp = tokio::net::TcpStream::connect(receiver.grpc_address().expect("served"));
    let (client, connection) =
        h2::client::handshake(tcp.await.expect("it listens")).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let mut http2 = Http2(client);
    let mut stream = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
    stream.data(&framed(0, &wire(9)), true);
    assert_eq!(soon(arrivals.recv()).await, Some(9));
    driver.abort();
    until(|| receiver.stats().grpc.refused(Reason::Cancelled).spans == 9).await;
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 84, 85.
#[tokio::test]
async fn the_peers_deadline_is_kept() {
    let (gate, mut arrivals, _answers) = Gate::new();
    let receiver = start(gate).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let body = framed(0, &wire(1));
    let call = http2.call(&[("grpc-timeout", "0n")], &body).await;
    assert_eq!(call.code, 4);
    assert!(arrivals.try_recv().is_err(), "a passed deadline reaches no sink");
    let call = http2.call(&[("grpc-timeout", "20m")], &body).await;
    assert_eq!(call.code, 4);
    assert_eq!(arrivals.try_recv(), Ok(1));
    let call = http2.call(&[("grpc-timeout", "soon")], &body).await;
    assert_eq!(call.code, 13);
    assert_eq!(receiver.stats().grpc.refused(Reason::Timeout).requests, 2);
}

/// Faults 68.
#[tokio::test]
async fn a_message_that_does_not_arrive_in_time_is_given_up() {
    let receiver = start_with(take_all, |builder| {
        builder.body_read_timeout(Duration::from_millis(50), 1 << 20)
    })
    .await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let mut stream = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
    stream.data(&framed(0, &wire(1))[..9], false);
    assert_eq!(stream.answer().await.code, 4);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

#[tokio::test]
async fn an_answer_is_one_message_and_trailers() {
    let receiver = start(async |_: Received| {
        Ok(Accepted { rejected_spans: 0, message: "slow down, please".to_owned() })
    })
    .await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let call = http2.call(&[], &framed(0, &wire(1))).await;
    assert_eq!(call.headers["content-type"], "application/grpc");
    assert!(!call.headers.contains_key("grpc-status"), "it belongs into the trailers");
    assert_eq!(call.code, 0);
    assert_eq!(call.message, framed(0, &call.message[5..]));
    let response = ExportTraceServiceResponse::decode(&call.message[5..]).expect("a response");
    let partial = response.partial_success.expect("a warning");
    assert_eq!(partial.rejected_spans, 0);
    assert_eq!(partial.error_message, "slow down, please");
}

/// Faults 53.
#[tokio::test]
async fn a_compressed_nothing_is_an_empty_request() {
    let receiver = start(async |_| panic!("nothing to accept")).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for (encoding, body) in [("gzip", gzip(b"")), ("zstd", zstd(b""))] {
        let call = http2.call(&[("grpc-encoding", encoding)], &framed(1, &body)).await;
        assert_eq!(call.code, 0, "{encoding}");
    }
}

/// Faults 84.
#[tokio::test]
async fn a_timeout_far_away_is_kept_and_one_that_is_none_is_refused() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let body = framed(0, &wire(1));
    for (timeout, code) in
        [("99999999999H", 0), ("1H", 0), ("-1S", 13), ("1", 13), ("1 S", 13), ("H", 13)]
    {
        let call = http2.call(&[("grpc-timeout", timeout)], &body).await;
        assert_eq!(call.code, code, "{timeout}");
    }
}

/// Faults 88.
#[tokio::test]
async fn metadata_is_passed_over_or_refused_in_order() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let body = framed(0, &wire(1));
    // What concerns nobody here, well-formed by gRPC's rules or not.
    let request = Request::post(format!("http://test{EXPORT}"))
        .header("content-type", "application/grpc")
        .header("trace-bin", "not base64!")
        .header("empty", "")
        .header("raw", http::HeaderValue::from_bytes(b"\xC3\xA9\xFF").expect("opaque"));
    let mut call = http2.open_request(request.body(()).expect("a request")).await;
    call.data(&body, true);
    assert_eq!(call.answer().await.code, 0);

    // A thousand keys are over the limit of 16 KiB.
    let mut request = Request::post(format!("http://test{EXPORT}"));
    for number in 0..1000 {
        request = request.header(format!("key-{number}"), "v");
    }
    let call = http2.open_request(request.body(()).expect("a request")).await;
    assert_eq!(call.answer().await.http_status, 431);
    assert_eq!(http2.call(&[], &body).await.code, 0, "the connection goes on");
}
