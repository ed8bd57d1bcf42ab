//! The life of a receiver and of its connections, over real sockets.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use spanwire_receiver::{BindError, Receiver, Shutdown};
use support::*;
use tokio::net::TcpStream;

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight_on_both_transports() {
    let (gate, mut arrivals, answers) = Gate::new();
    let receiver = start(gate).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
    assert_eq!(soon(arrivals.recv()).await, Some(1));
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let mut call = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
    call.data(&framed(0, &wire(2)), true);
    assert_eq!(soon(arrivals.recv()).await, Some(2));

    let (shutdown, ()) = tokio::join!(receiver.shutdown(LONG), async {
        for address in [receiver.grpc_address(), receiver.http_address()] {
            let address = address.expect("served");
            soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
        }
        answers.add_permits(2);
        assert_eq!(http_answer(&mut http).await, 200);
        assert_eq!(call.answer().await.code, 0);
    });
    assert_eq!(shutdown, Shutdown { connections_cut: 0 });
    let stats = receiver.stats();
    assert_eq!((stats.connections_open, stats.connections_failed), (0, 0));
    assert_eq!(stats.grpc.requests_accepted + stats.http.requests_accepted, 2);
}

async fn http_answer(http: &mut Http1) -> u16 {
    soon(http.answer()).await.status
}

#[tokio::test]
async fn shutdown_closes_idle_connections_at_once() {
    let receiver = start(take_all).await;
    let mut silent = Http1::connect(receiver.http_address()).await;
    let mut idle = Http1::connect(receiver.http_address()).await;
    idle.send(&[head(PROTOBUF, 0), vec![]].concat()).await;
    assert_eq!(http_answer(&mut idle).await, 200);
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    assert_eq!(http2.call(&[], &framed(0, &wire(1))).await.code, 0);
    until(|| receiver.stats().connections_open == 3).await;
    let begun = Instant::now();
    assert_eq!(receiver.shutdown(LONG).await.connections_cut, 0);
    assert!(begun.elapsed() < LONG / 2);
    assert!(silent.closes().await);
    assert!(idle.closes().await);
}

#[tokio::test]
async fn shutdown_keeps_its_deadline_and_tells_what_it_cut() {
    let (gate, mut arrivals, _answers) = Gate::new();
    let receiver = start(gate).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[head(PROTOBUF, wire(7).len()), wire(7)].concat()).await;
    assert_eq!(soon(arrivals.recv()).await, Some(7));
    let shutdown = soon(receiver.shutdown(Duration::from_millis(50))).await;
    assert_eq!(shutdown.connections_cut, 1);
    let stats = receiver.stats();
    assert_eq!((stats.connections_open, stats.in_flight_bytes), (0, 0));
    let cancelled = stats.http.refused(spanwire_receiver::Reason::Cancelled);
    assert_eq!((cancelled.requests, cancelled.spans), (1, 7));
}

#[tokio::test]
async fn shutdown_may_be_asked_for_again() {
    let receiver = start(take_all).await;
    let (first, second) = tokio::join!(receiver.shutdown(LONG), receiver.shutdown(LONG));
    assert_eq!((first.connections_cut, second.connections_cut), (0, 0));
    assert_eq!(receiver.shutdown(LONG).await.connections_cut, 0);
}

#[tokio::test]
async fn a_dropped_receiver_stops_serving() {
    let (gate, mut arrivals, _answers) = Gate::new();
    let receiver = start(gate).await;
    let address = receiver.http_address();
    let mut http = Http1::connect(address).await;
    http.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
    assert_eq!(soon(arrivals.recv()).await, Some(1));
    drop(receiver);
    assert!(http.closes().await);
    let address = address.expect("served");
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let (gate, mut arrivals, answers) = Gate::new();
    let receiver = start_with(gate, |builder| builder.idle_max(Duration::from_millis(50))).await;
    let mut busy = Http2::connect(receiver.grpc_address()).await;
    let mut call = busy.open(EXPORT, &[("content-type", "application/grpc")]).await;
    call.data(&framed(0, &wire(1)), true);
    assert_eq!(soon(arrivals.recv()).await, Some(1));
    let mut idle = Http1::connect(receiver.http_address()).await;
    idle.send(b"POST ").await;
    assert!(idle.closes().await);
    let _never_speaks_after_its_preface = Http2::connect(receiver.http_address()).await;
    until(|| receiver.stats().connections_accepted == 3 && receiver.stats().connections_open == 1)
        .await;
    answers.add_permits(1);
    assert_eq!(call.answer().await.code, 0);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_loses_its_connection() {
    let moment = Duration::from_millis(50);
    let receiver = start_with(take_all, |builder| builder.keep_alive(moment, moment)).await;
    let mut dead = Http1::connect(receiver.grpc_address()).await;
    // The preface and empty SETTINGS, RFC 9113 sections 3.4 and 6.5, and nothing ever after.
    dead.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut alive = Http2::connect(receiver.grpc_address()).await;
    let mut settings_pings_and_a_goodbye = Vec::new();
    soon(tokio::io::AsyncReadExt::read_to_end(&mut dead.tcp, &mut settings_pings_and_a_goodbye))
        .await
        .expect("an orderly end");
    until(|| receiver.stats().connections_failed == 1).await;
    assert_eq!(alive.call(&[], &framed(0, &wire(1))).await.code, 0);
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let receiver = start_with(take_all, |builder| builder.connections_max(1)).await;
    let mut first = Http1::connect(receiver.http_address()).await;
    first.send(&head(PROTOBUF, 0)).await;
    assert_eq!(http_answer(&mut first).await, 200);
    let mut second = Http1::connect(receiver.http_address()).await;
    second.send(&head(PROTOBUF, 0)).await;
    first.send(&head(PROTOBUF, 0)).await;
    assert_eq!(http_answer(&mut first).await, 200);
    assert_eq!(receiver.stats().connections_accepted, 1);
    drop(first);
    assert_eq!(http_answer(&mut second).await, 200);
    assert_eq!(receiver.stats().connections_accepted, 2);
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_unprocessed() {
    let (gate, mut arrivals, answers) = Gate::new();
    let receiver = start_with(gate, |builder| builder.streams_max(2)).await;
    let tcp = TcpStream::connect(receiver.grpc_address().expect("served"));
    let (client, connection) = h2::client::Builder::new()
        .initial_max_send_streams(100)
        .handshake::<_, bytes::Bytes>(tcp.await.expect("it listens"))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    // All at once, before the peer's settings can arrive.
    let mut calls = Vec::new();
    for _ in 0..3 {
        let request = http::Request::post(format!("http://test{EXPORT}"))
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        let (response, mut send) = client.clone().send_request(request, false).expect("a stream");
        send.send_data(framed(0, &wire(1)).into(), true).expect("open");
        calls.push(response);
    }
    let refused = soon(calls.pop().expect("three calls")).await.expect_err("refused");
    assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM));
    for call in calls {
        assert_eq!(soon(arrivals.recv()).await, Some(1));
        answers.add_permits(1);
        assert_eq!(soon(call).await.expect("an answer").status(), 200);
    }
    assert!(arrivals.try_recv().is_err());
}

#[tokio::test]
async fn a_rapid_reset_ends_its_connection_and_no_other() {
    let receiver = start(take_all).await;
    let mut bystander = Http2::connect(receiver.grpc_address()).await;
    let tcp = TcpStream::connect(receiver.grpc_address().expect("served"));
    let (mut client, connection) = h2::client::Builder::new()
        .initial_max_send_streams(10_000)
        .handshake::<_, bytes::Bytes>(tcp.await.expect("it listens"))
        .await
        .expect("HTTP/2");
    let connection = tokio::spawn(connection);
    for _ in 0..2000 {
        let request = http::Request::post(format!("http://test{EXPORT}")).body(());
        let Ok((_, mut send)) = client.send_request(request.expect("a request"), false) else {
            break;
        };
        send.send_reset(h2::Reason::CANCEL);
        client = match client.clone().ready().await {
            Ok(client) => client,
            Err(_closed) => break,
        };
        tokio::task::yield_now().await;
    }
    // Whether the GOAWAY overtakes the broken pipe is up to the sockets.
    let _ = soon(connection).await.expect("no panic");
    until(|| receiver.stats().connections_failed == 1).await;
    assert_eq!(bystander.call(&[], &framed(0, &wire(1))).await.code, 0);
}

#[tokio::test]
async fn bytes_of_another_protocol_end_their_connection_and_no_other() {
    let receiver = start(take_all).await;
    let tls_hello = b"\x16\x03\x01\x00\xC4\x01\x00\x00\xC0\x03\x03";
    let bytes: [&[u8]; 4] = [tls_hello, b"\0\0\0\0\0\0\0\0", &[0xFF; 1000], b"SSH-2.0-x\r\n\r\n"];
    for address in [receiver.http_address(), receiver.grpc_address()] {
        for bytes in bytes {
            let mut http = Http1::connect(address).await;
            http.send(bytes).await;
            tokio::io::AsyncWriteExt::shutdown(&mut http.tcp).await.expect("open");
            soon(async {
                let mut scrap = Vec::new();
                // Whether it ends with an answer or a reset is the protocol's affair.
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut http.tcp, &mut scrap).await;
            })
            .await;
        }
    }
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(post(&receiver, PROTOBUF, &wire(1)).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_served_is_an_error() {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let bound = Receiver::builder().bind(take_all).await;
    assert!(matches!(bound, Err(BindError::NoAddress)));

    let receiver = start(take_all).await;
    let taken = receiver.grpc_address().expect("served");
    let bound = Receiver::builder().http(any).grpc(taken).bind(take_all).await;
    assert!(matches!(bound, Err(BindError::Address { address, .. }) if address == taken));

    let builder = Receiver::builder().http(any);
    for wrong in [
        builder.clone().http_request_bytes_max(0),
        builder.clone().in_flight_bytes_max((128 << 20) - 1),
        builder.clone().connections_max(0),
        builder.clone().streams_max(0),
        builder.clone().frame_bytes_max((16 << 10) - 1),
        builder.clone().frame_bytes_max(16 << 20),
        builder.clone().stream_window_bytes(1 << 31),
        builder.clone().connection_window_bytes((1 << 16) - 2),
        builder.clone().connection_window_bytes(1 << 31),
        builder.clone().header_bytes_max(8191),
        builder.clone().idle_max(Duration::ZERO),
    ] {
        let bound = wrong.clone().bind(take_all).await;
        assert!(matches!(bound, Err(BindError::Setting { .. })), "{wrong:?}");
    }
    let extreme = builder
        .in_flight_bytes_max(128 << 20)
        .frame_bytes_max((16 << 20) - 1)
        .stream_window_bytes((1 << 31) - 1)
        .connection_window_bytes((1 << 31) - 1)
        .header_bytes_max(8192);
    let receiver = extreme.bind(take_all).await.expect("within every range");
    assert_eq!(receiver.grpc_address(), None);
    assert_eq!(post(&receiver, PROTOBUF, &wire(1)).await.status, 200);
}
