//! What a request, a connection and a receiver may take, over real sockets.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use spanwire_receiver::{
    Accepted, BindError, Budget, Reason, Received, Receiver, Sink as _, channel,
};
use support::*;
use tokio::sync::Semaphore;

/// The code of a call, and whether a RetryInfo came with it.
fn verdict(call: &Call) -> (u32, bool) {
    (call.code, call.headers.contains_key("grpc-status-details-bin"))
}

/// Faults 82.
#[tokio::test]
async fn a_message_over_the_limit_is_refused_for_good_by_its_length_alone() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for length in [(64 << 20) + 1, u32::MAX] {
        let mut stream = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
        stream.data(&[&[0], &length.to_be_bytes()[..]].concat(), false);
        let call = stream.answer().await;
        assert_eq!(verdict(&call), (8, false));
    }
    assert_eq!(receiver.stats().grpc.refused(Reason::TooLarge).requests, 2);
}

/// Faults 16, 47, 48.
#[tokio::test]
async fn a_message_at_the_limit_passes_and_one_byte_more_does_not() {
    let body = wire(100);
    for (limit, code) in [(body.len(), 0), (body.len() - 1, 8)] {
        let receiver = start_with(take_all, |builder| builder.grpc_request_bytes_max(limit)).await;
        let mut http2 = Http2::connect(receiver.grpc_address()).await;
        assert_eq!(verdict(&http2.call(&[], &framed(0, &body)).await), (code, false));
        for (encoding, body) in [("gzip", gzip(&body)), ("zstd", zstd(&body))] {
            let call = http2.call(&[("grpc-encoding", encoding)], &framed(1, &body)).await;
            assert_eq!(verdict(&call), (code, false), "{encoding}");
        }
    }
}

/// A message of one span that is well-formed, and `count` elements of two bytes each of one kind.
fn crowded(kind: &str, count: usize) -> Vec<u8> {
    let empties = |tag: u8| [tag, 0].repeat(count);
    let within = |tag: u8, body: &[u8]| {
        let mut message = vec![tag];
        prost::encoding::encode_varint(body.len() as u64, &mut message);
        message.extend_from_slice(body);
        message
    };
    let span = span(0).encode_to_vec();
    let with_span = |more: &[u8]| {
        let span = within(0x12, &[&span[..], more].concat());
        within(0x0A, &within(0x12, &span))
    };
    let value = |value: &[u8]| with_span(&within(0x4A, &within(0x12, value)));
    match kind {
        "resources" => [with_span(&[]), empties(0x0A)].concat(),
        "scopes" => [with_span(&[]), within(0x0A, &empties(0x12))].concat(),
        "spans" => [with_span(&[]), within(0x0A, &within(0x12, &empties(0x12)))].concat(),
        "attributes" => with_span(&empties(0x4A)),
        "attributes of the resource" => {
            [with_span(&[]), within(0x0A, &within(0x0A, &empties(0x0A)))].concat()
        }
        "attributes of the scope" => {
            let scope = within(0x0A, &empties(0x1A));
            [with_span(&[]), within(0x0A, &within(0x12, &scope))].concat()
        }
        "events" => with_span(&empties(0x5A)),
        "attributes of an event" => with_span(&within(0x5A, &empties(0x1A))),
        "links" => with_span(&empties(0x6A)),
        "attributes of a link" => {
            let link = span_link();
            with_span(&within(0x6A, &[&link[..], &empties(0x22)].concat()))
        }
        "values of an array" => value(&within(0x2A, &empties(0x0A))),
        "entries of a map" => value(&within(0x32, &empties(0x0A))),
        "keys of an entity" => {
            let resource = within(0x0A, &within(0x1A, &empties(0x1A)));
            [with_span(&[]), within(0x0A, &resource)].concat()
        }
        _ => unreachable!("{kind}"),
    }
}

/// The ids of a link.
fn span_link() -> Vec<u8> {
    [&[0x0A, 16][..], &[1; 16], &[0x12, 8], &[1; 8]].concat()
}

/// Faults 14, 15.
#[tokio::test]
async fn a_request_of_too_many_elements_is_refused_for_good_whatever_they_are() {
    let receiver = start_with(take_all, |builder| builder.elements_max(1000)).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    for kind in [
        "resources",
        "scopes",
        "spans",
        "attributes",
        "attributes of the resource",
        "attributes of the scope",
        "events",
        "attributes of an event",
        "links",
        "attributes of a link",
        "values of an array",
        "entries of a map",
        "keys of an entity",
    ] {
        // A resource, a scope and a span hold the rest, or up to three more.
        let call = http2.call(&[], &framed(0, &crowded(kind, 990))).await;
        assert_eq!(call.code, 0, "{kind}");
        let call = http2.call(&[], &framed(0, &crowded(kind, 998))).await;
        assert_eq!(verdict(&call), (8, false), "{kind}");
    }
    assert_eq!(receiver.stats().in_flight_bytes, 0);
    let answer = post(&receiver, PROTOBUF, &crowded("events", 1000)).await;
    assert_eq!((answer.status, status_code(&answer.body)), (413, 8));
    let spans = "{},".repeat(2000);
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}{{}}]}}]}}]}}"#);
    assert_eq!(post(&receiver, JSON, json.as_bytes()).await.status, 413);
}

/// Faults 14.
#[tokio::test]
async fn thirty_million_empty_spans_are_refused_within_the_budget() {
    let receiver = start(async |_| panic!("nothing to accept")).await;
    let body = crowded("spans", (32 << 20) - 100);
    let zipped = gzip(&body);
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let call = http2.call(&[("grpc-encoding", "gzip")], &framed(1, &zipped)).await;
    assert_eq!(verdict(&call), (8, false));
    assert_eq!(receiver.stats().grpc.refused(Reason::TooLarge).requests, 1);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 91, 92.
#[tokio::test]
async fn a_full_budget_asks_the_peer_to_come_back_before_the_message_is_read() {
    let (gate, mut arrivals, answers) = Gate::new();
    let body = wire(1000);
    let receiver = start_with(gate, |builder| room_for(2, body.len(), builder)).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut http2 = http2.clone();
        let body = framed(0, &body);
        held.push(tokio::spawn(async move { http2.call(&[], &body).await }));
        assert_eq!(soon(arrivals.recv()).await, Some(1000));
    }
    assert_eq!(receiver.stats().in_flight_bytes, 2 * body.len());

    let mut stream = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
    stream.data(&framed(0, &body)[..5], false);
    assert_eq!(verdict(&stream.answer().await), (8, true));

    answers.add_permits(2);
    for call in held {
        assert_eq!(call.await.expect("no panic").code, 0);
    }
    answers.add_permits(1);
    assert_eq!(http2.call(&[], &framed(0, &body)).await.code, 0);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
    assert_eq!(receiver.stats().grpc.refused(Reason::Budget).requests, 1);
}

/// Faults 92.
#[tokio::test]
async fn what_a_sink_is_given_is_counted_with_every_spare_byte() {
    let (sink, mut requests) = channel(1);
    let receiver = start(sink).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let whole = wire(1300);
    let malformed: Vec<_> = (1..1300).map(|id| Span { trace_id: vec![], ..span(id) }).collect();
    let part = request_of([vec![span(0)], malformed].concat()).encode_to_vec();
    let json = serde_json::to_vec(&request(1300)).expect("a request");
    // Much of zstd's output fills half of the last buffer or less, and chunks do not say how many.
    for chunks in [None, Some(97), Some(4000)] {
        for (content, coding, body) in [
            (PROTOBUF, "identity", whole.clone()),
            (PROTOBUF, "zstd", zstd(&whole)),
            (PROTOBUF, "gzip", gzip(&whole)),
            (PROTOBUF, "identity", part.clone()),
            (JSON, "identity", json.clone()),
            (JSON, "zstd", zstd(&json)),
        ] {
            let headers = format!("{content}Content-Encoding: {coding}\r\n");
            let mut http = Http1::connect(receiver.http_address()).await;
            match chunks {
                None => http.send(&[head(&headers, body.len()), body].concat()).await,
                Some(chunk) => http.send(&chunked(&headers, &body, chunk)).await,
            }
            assert_eq!(soon(http.answer()).await.status, 200, "{headers}");
            let received = soon(requests.recv()).await.expect("open");
            let counted = receiver.stats().in_flight_bytes;
            let request = Vec::from(received.request);
            let (len, held) = (request.len(), request.capacity());
            assert!(held <= counted, "{headers}: {held} bytes held, {counted} counted");
            assert!(counted <= len + len / 8, "{headers}: {len} bytes, {counted} counted");
        }
    }
    let call = http2.call(&[("grpc-encoding", "zstd")], &framed(1, &zstd(&whole))).await;
    assert_eq!(call.code, 0);
    let received = soon(requests.recv()).await.expect("open");
    assert_eq!(receiver.stats().in_flight_bytes, Vec::from(received.request).capacity());
}

/// A POST whose body comes in chunks of this many bytes.
fn chunked(headers: &str, body: &[u8], chunk: usize) -> Vec<u8> {
    let head = "POST /v1/traces HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n";
    let mut request = format!("{head}{headers}\r\n").into_bytes();
    for piece in body.chunks(chunk) {
        request.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        request.extend(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}

/// Faults 98.
#[tokio::test]
async fn a_noisy_connection_leaves_room_for_the_others() {
    let (gate, mut arrivals, answers) = Gate::new();
    let body = wire(1000);
    let receiver = start_with(gate, |builder| {
        room_for(8, body.len(), builder).connection_bytes_max(3 * body.len())
    })
    .await;
    let mut held = Vec::new();
    let mut noisy = Http2::connect(receiver.grpc_address()).await;
    for _ in 0..3 {
        let (mut noisy, body) = (noisy.clone(), framed(0, &body));
        held.push(tokio::spawn(async move { noisy.call(&[], &body).await }));
        assert_eq!(soon(arrivals.recv()).await, Some(1000));
    }
    // One after the other the noisy peer is asked to come back, and the quiet one is served.
    for _ in 0..5 {
        assert_eq!(verdict(&noisy.call(&[], &framed(0, &body)).await), (8, true));
        let mut quiet = Http2::connect(receiver.grpc_address()).await;
        let body = framed(0, &body);
        held.push(tokio::spawn(async move { quiet.call(&[], &body).await }));
        assert_eq!(soon(arrivals.recv()).await, Some(1000));
    }
    answers.add_permits(8);
    for call in held {
        assert_eq!(soon(call).await.expect("no panic").code, 0);
    }
    assert_eq!(receiver.stats().grpc.refused(Reason::Budget).requests, 5);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 98.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_connection_of_many_streams_costs_a_polite_one_no_request() {
    // By default, and with the smallest budget that the largest request allows.
    for budget in [8, 2] {
        let body = wire(100);
        let sink = async |received: Received| {
            tokio::time::sleep(Duration::from_millis(2)).await;
            drop(received);
            Ok(Accepted::default())
        };
        let receiver = start_with(sink, |builder| {
            let largest = 4 * body.len();
            builder
                .grpc_request_bytes_max(largest)
                .http_request_bytes_max(largest)
                .in_flight_bytes_max(budget * largest)
        })
        .await;
        let address = receiver.grpc_address();
        let greedy = Http2::connect(address).await;
        let streams: Vec<_> = (0..64)
            .map(|_| {
                let (mut greedy, body) = (greedy.clone(), framed(0, &body));
                tokio::spawn(async move { while greedy.call(&[], &body).await.code != u32::MAX {} })
            })
            .collect();
        until(|| receiver.stats().grpc.refused(Reason::Budget).requests > 100).await;
        let mut polite = Http2::connect(address).await;
        for _ in 0..100 {
            assert_eq!(verdict(&polite.call(&[], &framed(0, &body)).await), (0, false));
        }
        for stream in streams {
            stream.abort();
        }
    }
}

/// Faults 92, 98.
#[tokio::test]
async fn receivers_and_others_share_a_budget() {
    let (gate, mut arrivals, answers) = Gate::new();
    let gate = Arc::new(gate);
    let body = wire(1000);
    let budget = Arc::new(Budget::new(4 * body.len()));
    let serve = async || {
        let (gate, budget) = (gate.clone(), budget.clone());
        let sink = move |received| {
            let gate = gate.clone();
            async move { gate.accept(received).await }
        };
        start_with(sink, |builder| {
            builder
                .grpc_request_bytes_max(body.len())
                .http_request_bytes_max(body.len())
                .budget(budget)
        })
        .await
    };
    let (one, two) = (serve().await, serve().await);
    let source = budget.reserve(2 * body.len()).expect("a fresh budget");
    let mut held = Vec::new();
    for receiver in [&one, &two] {
        let mut http2 = Http2::connect(receiver.grpc_address()).await;
        let body = framed(0, &body);
        held.push(tokio::spawn(async move { http2.call(&[], &body).await }));
        assert_eq!(soon(arrivals.recv()).await, Some(1000));
    }
    assert_eq!(budget.bytes(), budget.bytes_max());
    assert_eq!(one.stats().in_flight_bytes, budget.bytes_max(), "of everybody");
    for receiver in [&one, &two] {
        let mut http2 = Http2::connect(receiver.grpc_address()).await;
        assert_eq!(verdict(&http2.call(&[], &framed(0, &body)).await), (8, true));
    }
    drop(source);
    answers.add_permits(3);
    let mut http2 = Http2::connect(two.grpc_address()).await;
    assert_eq!(http2.call(&[], &framed(0, &body)).await.code, 0);
    for call in held {
        assert_eq!(soon(call).await.expect("no panic").code, 0);
    }
    assert_eq!(budget.bytes(), 0);
    // Too small a one is an error, as too small a limit is.
    let small = Receiver::builder().grpc("127.0.0.1:0".parse().expect("an address"));
    let small = small.budget(Arc::new(Budget::new(1 << 20))).bind(take_all).await;
    assert!(matches!(small, Err(BindError::Setting { .. })));
}

/// Faults 91.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_overload_each_request_is_taken_over_or_asked_to_come_back() {
    let taken = Arc::new(AtomicUsize::new(0));
    let places = Arc::new(Semaphore::new(1));
    let sink = {
        let taken = taken.clone();
        move |received: Received| {
            let (taken, places) = (taken.clone(), places.clone());
            async move {
                let _place = places.acquire().await.expect("never closed");
                tokio::time::sleep(Duration::from_millis(5)).await;
                taken.fetch_add(received.spans, Ordering::Relaxed);
                drop(received);
                Ok(Accepted::default())
            }
        }
    };
    let body = wire(100);
    let in_flight_bytes_max = 8 * body.len();
    let receiver = start_with(sink, |builder| {
        builder
            .grpc_request_bytes_max(body.len())
            .http_request_bytes_max(body.len())
            .in_flight_bytes_max(in_flight_bytes_max)
    })
    .await;
    let receiver = Arc::new(receiver);
    let peers: Vec<_> = (0..20)
        .map(|_| {
            let (receiver, body) = (receiver.clone(), framed(0, &body));
            tokio::spawn(async move {
                let mut http2 = Http2::connect(receiver.grpc_address()).await;
                let mut accepted = 0;
                for _ in 0..30 {
                    match verdict(&http2.call(&[], &body).await) {
                        (0, false) => accepted += 100,
                        (8, true) => {}
                        other => panic!("neither taken nor asked back: {other:?}"),
                    }
                    assert!(receiver.stats().in_flight_bytes <= in_flight_bytes_max);
                }
                accepted
            })
        })
        .collect();
    let mut accepted = 0;
    for peer in peers {
        accepted += soon(peer).await.expect("no panic");
    }
    let stats = receiver.stats();
    assert!(stats.grpc.refused(Reason::Budget).requests > 0, "that was no overload");
    assert_eq!(accepted, taken.load(Ordering::Relaxed));
    assert_eq!(stats.grpc.spans_accepted, accepted as u64);
    assert_eq!(stats.grpc.requests_accepted + stats.grpc.refused_in_all().requests, 600);
    assert_eq!(stats.in_flight_bytes, 0);
}
