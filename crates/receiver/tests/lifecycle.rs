//! The life of a receiver and of its connections, over real sockets.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use spanwire_receiver::{BindError, Reason, Receiver, Shutdown, channel};
use support::*;
use tokio::net::TcpStream;

const LONG: Duration = Duration::from_secs(10);

/// Faults 90.
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
    let cancelled = stats.http.refused(Reason::Cancelled);
    assert_eq!((cancelled.requests, cancelled.spans), (1, 7));
}

/// A peer whose request was refused unread may stay to hear why; that is a connection as well.
#[tokio::test]
async fn shutdown_waits_for_a_connection_that_lingers_and_cuts_it_at_its_deadline() {
    for (deadline, connections_cut) in [(Duration::from_millis(50), 1), (LONG, 0)] {
        let receiver = start(take_all).await;
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(&head(PROTOBUF, (64 << 20) + 1)).await;
        assert_eq!(http_answer(&mut http).await, 413);
        let shutdown = async {
            let shutdown = soon(receiver.shutdown(deadline)).await;
            (shutdown.connections_cut, receiver.stats().connections_open)
        };
        let listen = async {
            assert!(http.closes().await, "our side is told first");
            // One peer stays, the other leaves once it has heard.
            (connections_cut > 0).then_some(http)
        };
        let (shutdown, _peer) = tokio::join!(shutdown, listen);
        assert_eq!(shutdown, (connections_cut, 0));
    }
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

/// Faults 69.
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

/// Faults 79, 89.
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

/// Faults 69.
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

/// Faults 80.
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

/// Faults 75.
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

/// Faults 73.
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
    let stats = receiver.stats();
    assert_eq!((stats.connections_failed, stats.connections_unexpected_tls), (8, 2));
    assert_eq!(stats.connections_not_grpc, 3);
}

/// Faults 73.
#[tokio::test]
async fn a_request_of_http_1_to_the_grpc_port_is_told_that_there_is_another() {
    let receiver = start(take_all).await;
    let mut http = Http1::connect(receiver.grpc_address()).await;
    http.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
    let answer = http.answer().await;
    assert_eq!(answer.status, 421);
    assert!(String::from_utf8_lossy(&answer.body).contains("4318"));
    assert!(http.closes().await);
    assert_eq!(receiver.stats().connections_not_grpc, 1);
    // Nor does one that stays hold up the end.
    let mut stays = Http1::connect(receiver.grpc_address()).await;
    stays.send(&head(PROTOBUF, 100)).await;
    assert_eq!(stays.answer().await.status, 421);
    let begun = Instant::now();
    assert_eq!(receiver.shutdown(LONG).await.connections_cut, 0);
    assert!(begun.elapsed() < Duration::from_secs(1));
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
        builder.clone().stream_window_bytes(65_534),
        builder.clone().connection_window_bytes((1 << 16) - 2),
        builder.clone().connection_window_bytes(1 << 31),
        builder.clone().header_bytes_max(8191),
        builder.clone().idle_max(Duration::ZERO),
        builder.clone().write_timeout(Duration::ZERO),
        builder.clone().connection_age_max(Duration::ZERO, LONG),
        builder.clone().connection_age_max(LONG, Duration::ZERO),
        builder.clone().body_read_timeout(LONG, 0),
        builder.clone().elements_max(0),
        builder.clone().connection_bytes_max(0),
        builder.clone().http_traces_path(""),
        builder.clone().http_traces_path("v1/traces"),
        builder.clone().http_traces_path("/v1/traces?a=b"),
        builder.clone().http_traces_path("/v1/tra ces"),
    ] {
        let bound = wrong.clone().bind(take_all).await;
        assert!(matches!(bound, Err(BindError::Setting { .. })), "{wrong:?}");
    }
    let extreme = builder
        .in_flight_bytes_max(128 << 20)
        .frame_bytes_max((16 << 20) - 1)
        .stream_window_bytes((1 << 31) - 1)
        .connection_window_bytes((1 << 31) - 1)
        .header_bytes_max(8192)
        .connection_bytes_max(128 << 20)
        .keep_alive(Duration::MAX, Duration::MAX)
        .header_read_timeout(Duration::MAX)
        .body_read_timeout(Duration::MAX, u32::MAX)
        .write_timeout(Duration::MAX)
        .idle_max(Duration::MAX)
        .connection_age_max(Duration::MAX, Duration::MAX);
    let receiver = extreme.bind(take_all).await.expect("within every range");
    assert_eq!(receiver.grpc_address(), None);
    assert_eq!(post(&receiver, PROTOBUF, &wire(1)).await.status, 200);
}

/// One call after the other, each with one span of its own, on whatever connection there is: a
/// connection that says goodbye is replaced, and what it did not answer is sent again. Tells how
/// many connections it took.
async fn call_on_and_on(address: Option<SocketAddr>, spans: std::ops::Range<usize>) -> usize {
    let mut connections = 0;
    let mut client = None;
    for number in spans {
        loop {
            let http2 = match client.take() {
                Some(http2) => http2,
                None => {
                    connections += 1;
                    let tcp = TcpStream::connect(address.expect("served")).await;
                    let (client, connection) =
                        h2::client::handshake(tcp.expect("it listens")).await.expect("HTTP/2");
                    tokio::spawn(connection);
                    client
                }
            };
            let Ok(http2) = http2.ready().await else { continue };
            let call = http::Request::post(format!("http://test{EXPORT}"))
                .header("content-type", "application/grpc")
                .body(())
                .expect("a request");
            let mut http2 = http2;
            let Ok((response, mut send)) = http2.send_request(call, false) else { continue };
            let body = framed(0, &request_of(vec![span(number)]).encode_to_vec());
            let _ = send.send_data(body.into(), true);
            // An answer with an error is not expected, and one that breaks off is no answer.
            let Ok(response) = response.await else { continue };
            assert!(!response.headers().contains_key("grpc-status"), "{response:?}");
            let mut body = response.into_body();
            while let Some(data) = body.data().await {
                data.expect("the body");
            }
            let Ok(Some(trailers)) = body.trailers().await else { continue };
            assert_eq!(trailers["grpc-status"], "0");
            client = Some(http2);
            break;
        }
    }
    connections
}

/// Faults 90.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_of_age_lose_nothing_and_double_nothing() {
    let (sink, mut requests) = channel(10_000);
    let receiver =
        start_with(sink, |builder| builder.connection_age_max(Duration::from_millis(20), LONG))
            .await;
    let address = receiver.grpc_address();
    let peers: Vec<_> = (0..8)
        .map(|peer| tokio::spawn(call_on_and_on(address, peer * 300..(peer + 1) * 300)))
        .collect();
    let mut connections = 0;
    for peer in peers {
        connections += soon(peer).await.expect("no panic");
    }
    assert!(connections > 8, "no connection came of age");
    let mut seen = vec![0; 8 * 300];
    while let Ok(received) = requests.try_recv() {
        let request = ExportTraceServiceRequest::decode(received.request).expect("valid");
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        let id: [u8; 8] = span.span_id[..].try_into().expect("eight bytes");
        seen[u64::from_be_bytes(id) as usize - 1] += 1;
    }
    assert!(seen.iter().all(|times| *times == 1), "lost or doubled: {seen:?}");
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(receiver.stats().connections_failed, 0);
}

/// Faults 90.
#[tokio::test]
async fn a_connection_of_age_finishes_its_request_and_is_cut_after_its_grace() {
    let moment = Duration::from_millis(50);
    for (grace, is_cut) in [(LONG, false), (moment, true)] {
        let (gate, mut arrivals, answers) = Gate::new();
        let receiver = start_with(gate, |builder| builder.connection_age_max(moment, grace)).await;
        let mut http2 = Http2::connect(receiver.grpc_address()).await;
        let mut call = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
        call.data(&framed(0, &wire(1)), true);
        assert_eq!(soon(arrivals.recv()).await, Some(1));
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(&[head(PROTOBUF, wire(2).len()), wire(2)].concat()).await;
        assert_eq!(soon(arrivals.recv()).await, Some(2));
        if is_cut {
            until(|| receiver.stats().connections_open == 0).await;
            assert_eq!(receiver.stats().connections_failed, 2);
            let stats = receiver.stats();
            let cancelled = stats.grpc.refused(Reason::Cancelled).spans
                + stats.http.refused(Reason::Cancelled).spans;
            assert_eq!(cancelled, 3);
        } else {
            // Both have come of age by then: the runtime's timers go off in order.
            tokio::time::sleep(4 * moment).await;
            assert!(soon(http2.0.clone().ready()).await.is_err(), "the goodbye has come");
            answers.add_permits(2);
            assert_eq!(call.answer().await.code, 0);
            let answer = http.answer().await;
            assert_eq!((answer.status, &*answer.headers["connection"]), (200, "close"));
            assert!(http.closes().await);
            until(|| receiver.stats().connections_open == 0).await;
            assert_eq!(receiver.stats().connections_failed, 0);
        }
    }
}

/// Set in the process that runs out of file descriptors.
const STARVED: &str = "SPANWIRE_TEST_STARVED";

/// Faults 74.
#[tokio::test]
async fn a_process_without_file_descriptors_accepts_again_once_it_has_some() {
    if std::env::var_os(STARVED).is_some() {
        return starve().await;
    }
    // The limit is for a process of its own, which the other tests of this one do not share.
    let this = std::env::current_exe().expect("a test binary");
    let name = "a_process_without_file_descriptors_accepts_again_once_it_has_some";
    let script = format!("ulimit -n 64 && exec '{}' --exact {name} --nocapture", this.display());
    let output = tokio::process::Command::new("sh").args(["-c", &script]).env(STARVED, "").output();
    let output = soon(output).await.expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

async fn starve() {
    let receiver = start(take_all).await;
    let mut fillers = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fillers.push(file);
    }
    assert!(fillers.len() < 64, "the limit holds");
    // One descriptor for the peer's end, none for the receiver's.
    fillers.pop();
    let begun = Instant::now();
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&head(PROTOBUF, 0)).await;
    until(|| receiver.stats().accept_errors >= 5).await;
    // Four pauses of 10 ms and more, each twice the one before.
    assert!(begun.elapsed() >= Duration::from_millis(10 + 20 + 40 + 80), "no busy loop");
    assert_eq!(receiver.stats().connections_accepted, 0);
    drop(fillers);
    assert_eq!(http_answer(&mut http).await, 200);
}
