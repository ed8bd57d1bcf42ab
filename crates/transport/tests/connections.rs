//! What becomes of connections: how long they are used, what follows a failure, and where else
//! requests go.

#[expect(dead_code, reason = "shared with the other tests, which use the rest")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use spanwire_transport::{
    Accepted, Protocol, Proxy, Retry, SendError, Status, Transport, TransportConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use support::{Collector, causes, dead_addr, grpc, grpc_ok, http, send_to};

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

fn config(protocol: Protocol, url: &str) -> TransportConfig {
    TransportConfig::new(protocol, url).expect("a valid endpoint")
}

fn transport(config: &TransportConfig) -> Transport {
    Transport::new(config).expect("usable settings")
}

/// To two endpoints without a single timer, so that stopped time stays where a test puts it.
fn timeless(protocol: Protocol, first: &str, second: &str) -> TransportConfig {
    config(protocol, first)
        .endpoint(second)
        .expect("a valid endpoint")
        .connect_timeout(Duration::ZERO)
        .request_timeout(Duration::ZERO)
        .keep_alive(Duration::ZERO, Duration::ZERO)
        .idle_connections(4, Duration::ZERO)
}

/// A success in either protocol: an HTTP client reads no trailers.
fn ok() -> http::Response<support::Reply> {
    let mut reply = grpc_ok();
    reply.headers_mut().insert("content-type", "application/x-protobuf".parse().expect("valid"));
    reply
}

async fn taken(transport: &Transport) {
    let accepted = send_to(transport).await.expect("there is somebody to take it");
    assert_eq!(accepted.rejected_spans, 0);
}

/// A collector that answers once for each permit it is given.
async fn slow_collector() -> (Collector, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let answers = permits.clone();
    let collector = Collector::start(move |_| {
        let answers = answers.clone();
        async move {
            answers.acquire().await.expect("never closed").forget();
            grpc_ok()
        }
    })
    .await;
    (collector, permits)
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Faults 124.
#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_serves_both_protocols() {
    for protocol in PROTOCOLS {
        let path =
            std::env::temp_dir().join(format!("spanwire-{}-{protocol:?}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let collector = Collector::on_socket(&path, |_| std::future::ready(grpc_ok()));
        let transport = transport(&config(protocol, &format!("unix://{}", path.display())));
        taken(&transport).await;
        let seen = collector.only();
        assert_eq!(seen.body.len(), 40_006 + if protocol == Protocol::Grpc { 5 } else { 0 });
        match protocol {
            Protocol::Grpc => assert!(seen.path.ends_with("TraceService/Export"), "{}", seen.path),
            _ => assert_eq!(seen.path, "/v1/traces"),
        }

        drop(collector);
        std::fs::remove_file(&path).expect("was bound");
        let deadline = Instant::now() + Duration::from_secs(5);
        let error = loop {
            match send_to(&transport).await {
                Err(SendError::Connect(source)) => break SendError::Connect(source),
                _ => assert!(Instant::now() < deadline, "nobody is there"),
            }
        };
        assert!(causes(&error).contains(&format!("unix:{}", path.display())), "{}", causes(&error));
    }
}

/// Faults 118.
#[tokio::test]
async fn a_name_that_does_not_exist_is_named_and_tried_again() {
    for protocol in PROTOCOLS {
        let transport = transport(&config(protocol, "http://collector.invalid:4317"));
        let error = send_to(&transport).await.expect_err("no such name");
        assert_eq!(error.retry(), Retry::Backoff, "{error}");
        let causes = causes(&error);
        // Where no resolver answers, the time runs out first.
        let is_named = causes.contains("cannot reach collector.invalid:4317: dns error");
        assert!(is_named || causes.contains("looking up the name"), "{causes}");
    }
}

/// Faults 118.
#[tokio::test]
async fn an_ipv6_literal_is_dialled() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        // A machine without IPv6 cannot show it.
        return;
    };
    let addr = listener.local_addr().expect("bound");
    drop(listener);
    let collector = Collector::restart(addr, |_| std::future::ready(grpc_ok())).await;
    let transport = transport(&config(Protocol::Grpc, &collector.url()));
    assert_eq!(send_to(&transport).await.expect("OK"), Accepted::default());
}

/// Faults 118.
#[tokio::test]
async fn a_name_with_addresses_of_both_families_is_reached_by_the_one_that_answers() {
    // Where `localhost` is ::1 too, nobody listens there.
    let collector = Collector::answering(grpc_ok).await;
    let url = format!("http://localhost:{}", collector.addr.port());
    for protocol in PROTOCOLS {
        taken(&transport(&config(protocol, &url))).await;
    }
}

/// Faults 90.
#[tokio::test]
async fn a_connection_too_old_is_replaced_and_what_is_in_flight_on_it_finishes() {
    let (collector, permits) = slow_collector().await;
    let config =
        config(Protocol::Grpc, &collector.url()).connection_age_max(Duration::from_millis(1));
    let transport = Arc::new(transport(&config));
    let mut in_flight = Vec::new();
    for connections in 1..=3 {
        let transport = transport.clone();
        in_flight.push(tokio::spawn(async move { send_to(&transport).await }));
        until("its own connection", || collector.connections() == connections).await;
        until("the request", || collector.seen().len() == connections).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    permits.add_permits(3);
    for send in in_flight {
        assert_eq!(send.await.expect("no panic").expect("OK"), Accepted::default());
    }
}

#[tokio::test]
async fn a_connection_unused_for_too_long_is_not_used_again() {
    for protocol in PROTOCOLS {
        let collector = Collector::answering(ok).await;
        let config =
            config(protocol, &collector.url()).idle_connections(4, Duration::from_millis(10));
        let transport = transport(&config);
        taken(&transport).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        taken(&transport).await;
        assert_eq!(collector.connections(), 2);
    }
}

/// Faults 115.
#[tokio::test]
async fn after_a_timeout_the_next_attempt_has_a_new_connection() {
    async fn first_is_silent(protocol: Protocol) {
        let requests = Arc::new(AtomicUsize::new(0));
        let collector = Collector::start(move |_| {
            let is_first = requests.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if is_first { std::future::pending().await } else { ok() } }
        })
        .await;
        let config = config(protocol, &collector.url()).request_timeout(Duration::from_secs(2));
        let transport = transport(&config);
        let error = send_to(&transport).await.expect_err("silence");
        assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
        taken(&transport).await;
        assert_eq!(collector.connections(), 2);
    }
    tokio::join!(first_is_silent(PROTOCOLS[0]), first_is_silent(PROTOCOLS[1]));
}

#[tokio::test]
async fn durations_without_bounds_break_nothing() {
    for protocol in PROTOCOLS {
        let collector = Collector::answering(ok).await;
        let config = config(protocol, &collector.url())
            .connect_timeout(Duration::MAX)
            .request_timeout(Duration::MAX)
            .keep_alive(Duration::MAX, Duration::MAX)
            .idle_connections(4, Duration::MAX)
            .connection_age_max(Duration::MAX);
        let transport = transport(&config);
        for _ in 0..3 {
            taken(&transport).await;
        }
        assert_eq!(collector.connections(), 1);
    }
}

/// Faults 80.
#[tokio::test]
async fn a_request_that_http2_refuses_leaves_the_connection_to_the_others() {
    let cases = [
        (h2::Reason::REFUSED_STREAM, 1),
        (h2::Reason::ENHANCE_YOUR_CALM, 1),
        // Not a matter of how many there are: another connection may be better.
        (h2::Reason::INTERNAL_ERROR, 2),
    ];
    for (reason, expected) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = connections.clone();
        tokio::spawn(async move {
            let is_first = Arc::new(AtomicBool::new(true));
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let is_first = is_first.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.expect("a client");
                    while let Some(Ok((_request, mut answer))) = connection.accept().await {
                        if is_first.swap(false, Ordering::SeqCst) {
                            answer.send_reset(reason);
                            continue;
                        }
                        let head = http(200, &[("grpc-status", "0")], "").map(|_| ());
                        answer.send_response(head, true).expect("open");
                    }
                });
            }
        });
        let transport = transport(&config(Protocol::Grpc, &url));
        let error = send_to(&transport).await.expect_err("refused");
        assert!(matches!(error, SendError::Disconnect(_)), "{error:?}");
        assert_eq!(error.retry(), Retry::Backoff);
        let _ = send_to(&transport).await.expect("the next one is taken");
        assert_eq!(connections.load(Ordering::SeqCst), expected, "{reason:?}");
    }
}

#[tokio::test]
async fn requests_that_wait_for_a_connection_fail_with_it_and_for_its_reason() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = Proxy::url(&silent.local_addr().expect("bound").to_string()).expect("valid");
    let dialled = Arc::new(AtomicUsize::new(0));
    let accepted = dialled.clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = silent.accept().await {
            accepted.fetch_add(1, Ordering::SeqCst);
            open.push(socket);
        }
    });
    let config = config(Protocol::Grpc, "http://collector.example:4317")
        .proxy(proxy)
        .connect_timeout(Duration::from_millis(300));
    let transport = Arc::new(transport(&config));
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let transport = transport.clone();
        sends.spawn(async move { send_to(&transport).await });
    }
    for outcome in sends.join_all().await {
        let error = outcome.expect_err("nobody answers");
        assert!(matches!(error, SendError::Connect(_)), "{error:?}");
        assert!(causes(&error).contains("timeout after 300 ms"), "{}", causes(&error));
    }
    assert_eq!(dialled.load(Ordering::SeqCst), 1, "not one after the other");
    let _ = send_to(&transport).await.expect_err("nobody answers");
    assert_eq!(dialled.load(Ordering::SeqCst), 2, "later ones dial again");
}

/// Faults 115.
#[tokio::test]
async fn a_peer_that_vanished_is_found_out_by_pings_while_a_request_is_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let vanished = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        socket.write_all(SETTINGS).await.expect("open");
        // Reads what comes, as a kernel would, and never answers.
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    });
    let config = config(Protocol::Grpc, &url)
        .request_timeout(Duration::ZERO)
        .keep_alive(Duration::from_millis(50), Duration::from_millis(50));
    let transport = transport(&config);
    let attempt = send_to(&transport);
    let error = tokio::time::timeout(Duration::from_secs(5), attempt).await.expect("no hang");
    let error = error.expect_err("no answer");
    assert!(matches!(error, SendError::Disconnect(_)), "{error:?}");
    assert!(causes(&error).contains("timed out"), "{}", causes(&error));
    vanished.await.expect("the client closed the connection");
}

/// Faults 116.
#[tokio::test]
async fn a_reset_after_the_whole_request_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let resetting = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(&END_OF_BODY) {
            assert_ne!(socket.read_buf(&mut request).await.expect("open"), 0, "the client closed");
        }
        socket.set_zero_linger().expect("open");
    });
    let error = send_to(&transport(&config(Protocol::HttpProtobuf, &url))).await;
    let error = error.expect_err("a reset");
    assert!(matches!(error, SendError::Disconnect(_)), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
    resetting.await.expect("no panic");
}

/// Faults 80.
#[tokio::test]
async fn more_requests_than_the_server_takes_at_once_wait_for_their_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let _serving = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request| async {
                let _ = http_body_util::BodyExt::collect(
                    http::Request::<hyper::body::Incoming>::into_body(request),
                )
                .await;
                Ok::<_, std::convert::Infallible>(grpc_ok())
            });
            let io = hyper_util::rt::TokioIo::new(socket);
            let mut builder =
                hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            builder.max_concurrent_streams(2);
            tokio::spawn(builder.serve_connection(io, service));
        }
    });
    let transport = Arc::new(transport(&config(Protocol::Grpc, &url)));
    let sends: Vec<_> = (0..16)
        .map(|_| {
            let transport = transport.clone();
            tokio::spawn(async move { send_to(&transport).await })
        })
        .collect();
    for send in sends {
        assert_eq!(send.await.expect("no panic").expect("OK"), Accepted::default());
    }
}

/// Faults 117.
#[tokio::test]
async fn a_request_that_goaway_leaves_out_is_sent_again_over_a_new_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let leaving = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        socket.write_all(SETTINGS).await.expect("open");
        // The preface and settings of the client come first, so the request is not far.
        read_some(&mut socket, 200).await;
        socket.write_all(GOAWAY_NOTHING_TAKEN).await.expect("open");
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    });
    let transport = transport(&config(Protocol::Grpc, &format!("http://{addr}")));
    let error = send_to(&transport).await.expect_err("left out");
    assert!(matches!(error, SendError::Disconnect(_)), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
    leaving.await.expect("the client closed the connection");

    let collector = Collector::restart(addr, |_| std::future::ready(grpc_ok())).await;
    assert_eq!(send_to(&transport).await.expect("OK"), Accepted::default());
    assert_eq!(collector.connections(), 1);
}

/// Faults 90, 117.
#[tokio::test]
async fn a_request_in_flight_outlives_a_graceful_goaway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let arrived = Arc::new(Semaphore::new(0));
    let (arriving, connections) = (arrived.clone(), Arc::new(AtomicUsize::new(0)));
    let accepted = connections.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::SeqCst);
            let arriving = arriving.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|request| {
                    let arriving = arriving.clone();
                    async move {
                        arriving.add_permits(1);
                        // The answer comes when the whole body has, after the GOAWAY.
                        let _ =
                            http_body_util::BodyExt::collect(
                                http::Request::<hyper::body::Incoming>::into_body(request),
                            )
                            .await;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        Ok::<_, std::convert::Infallible>(grpc_ok())
                    }
                });
                let io = hyper_util::rt::TokioIo::new(socket);
                let executor = hyper_util::rt::TokioExecutor::new();
                let builder = hyper::server::conn::http2::Builder::new(executor);
                let mut serving = std::pin::pin!(builder.serve_connection(io, service));
                tokio::select! {
                    biased;
                    _ = arriving.acquire() => {}
                    _ = &mut serving => return,
                }
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            });
        }
    });
    let transport = transport(&config(Protocol::Grpc, &url));
    for connection in 1..=3 {
        assert_eq!(send_to(&transport).await.expect("OK"), Accepted::default());
        assert_eq!(connections.load(Ordering::SeqCst), connection);
        // Uses up what the request left, so that the next connection waits for its own.
        arrived.acquire().await.expect("never closed").forget();
    }
}

/// Faults 119.
#[tokio::test]
async fn a_collector_that_comes_back_on_its_port_is_found_by_the_next_attempt() {
    for protocol in PROTOCOLS {
        let collector = Collector::answering(ok).await;
        let addr = collector.addr;
        let transport = transport(&config(protocol, &collector.url()));
        for _ in 0..3 {
            taken(&transport).await;
        }
        assert_eq!(collector.connections(), 1);
        drop(collector);
        let deadline = Instant::now() + Duration::from_secs(5);
        // The first failure may be seen only once the closing has arrived.
        while send_to(&transport).await.is_ok() {
            assert!(Instant::now() < deadline, "nobody is there to answer");
        }
        let collector = Collector::restart(addr, |_| std::future::ready(ok())).await;
        taken(&transport).await;
        assert_eq!(collector.seen().len(), 1);
    }
}

#[tokio::test]
async fn attempts_go_round_the_endpoints() {
    for protocol in PROTOCOLS {
        let collectors = [Collector::answering(ok).await, Collector::answering(ok).await];
        let config =
            config(protocol, &collectors[0].url()).endpoint(&collectors[1].url()).expect("valid");
        let transport = transport(&config);
        for _ in 0..6 {
            taken(&transport).await;
        }
        let seen = collectors.each_ref().map(|c| c.seen().len());
        assert_eq!(seen, [3, 3]);
        assert_eq!(collectors.each_ref().map(Collector::connections), [1, 1]);
    }
}

/// Faults 114, 119.
#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_costs_one_attempt_and_takes_its_share_again_when_it_is_back() {
    let living = Collector::answering(ok).await;
    let addr = dead_addr().await;
    let config = timeless(Protocol::Grpc, &format!("http://{addr}"), &living.url());
    let transport = transport(&config);
    let error = send_to(&transport).await.expect_err("dead");
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
    for _ in 0..10 {
        taken(&transport).await;
    }
    let back = Collector::restart(addr, |_| std::future::ready(ok())).await;
    tokio::time::advance(Duration::from_millis(999)).await;
    for _ in 0..10 {
        taken(&transport).await;
    }
    assert_eq!((living.seen().len(), back.seen().len()), (20, 0));
    tokio::time::advance(Duration::from_millis(1)).await;
    for _ in 0..10 {
        taken(&transport).await;
    }
    assert_eq!((living.seen().len(), back.seen().len()), (25, 5));
}

/// Faults 105.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_it_is_away_is_passed_over_and_one_that_refuses_is_not() {
    let unavailable = Collector::answering(|| grpc(&[], &[("grpc-status", "14")])).await;
    let refusing = Collector::answering(|| grpc(&[], &[("grpc-status", "3")])).await;
    let transport = transport(&timeless(Protocol::Grpc, &unavailable.url(), &refusing.url()));
    for _ in 0..10 {
        let _ = send_to(&transport).await.expect_err("both refuse");
    }
    assert_eq!((unavailable.seen().len(), refusing.seen().len()), (1, 9));

    let unavailable = Collector::answering(|| http(503, &[], "")).await;
    let busy = Collector::answering(|| http(429, &[], "")).await;
    let config = timeless(Protocol::HttpProtobuf, &unavailable.url(), &busy.url());
    let transport = self::transport(&config);
    for _ in 0..10 {
        let error = send_to(&transport).await.expect_err("both refuse");
        assert!(matches!(error, SendError::Throttle { status: Status::Http(429 | 503), .. }));
    }
    assert_eq!((unavailable.seen().len(), busy.seen().len()), (1, 9));
}

/// A collector that asks every client to wait for `seconds`.
async fn throttling(status: u16, seconds: &'static str) -> Collector {
    Collector::answering(move || http(status, &[("retry-after", seconds)], "")).await
}

/// Faults 106.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_quiet_has_it_and_the_others_take_its_share() {
    for status in [429, 503] {
        let (throttled, living) = (throttling(status, "30").await, Collector::answering(ok).await);
        let config = timeless(Protocol::HttpProtobuf, &throttled.url(), &living.url());
        let transport = transport(&config);
        let error = send_to(&transport).await.expect_err("asks for quiet");
        assert_eq!(error.retry(), Retry::Backoff, "the other endpoint can be tried: {error:?}");
        tokio::time::advance(Duration::from_millis(29_999)).await;
        for _ in 0..10 {
            taken(&transport).await;
        }
        assert_eq!((throttled.seen().len(), living.seen().len()), (1, 10));
        tokio::time::advance(Duration::from_millis(1)).await;
        let outcomes = [send_to(&transport).await, send_to(&transport).await];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1, "{outcomes:?}");
    }
}

/// Faults 106.
#[tokio::test(start_paused = true)]
async fn when_all_endpoints_ask_for_quiet_the_wait_is_until_the_first_can_be_tried() {
    for waits in [["10", "30"], ["30", "10"]] {
        let collectors = [throttling(503, waits[0]).await, throttling(503, waits[1]).await];
        let config = timeless(Protocol::HttpProtobuf, &collectors[0].url(), &collectors[1].url());
        let transport = transport(&config);
        let error = send_to(&transport).await.expect_err("asks for quiet");
        assert_eq!(error.retry(), Retry::Backoff);
        let error = send_to(&transport).await.expect_err("asks for quiet");
        assert_eq!(error.retry(), Retry::After(Duration::from_secs(10)), "{waits:?}");
    }
    let alone = throttling(503, "7200").await;
    let transport = transport(&config(Protocol::HttpProtobuf, &alone.url()));
    for _ in 0..2 {
        let error = send_to(&transport).await.expect_err("asks for quiet");
        assert_eq!(error.retry(), Retry::After(Duration::from_secs(7200)), "as it asked");
    }
}

/// Faults 118.
#[tokio::test]
async fn a_connect_timeout_says_where_the_time_went() {
    // A documentation address (RFC 5737) that nobody answers for; where a firewall answers with a
    // refusal, or there is no route, there is no time to run out.
    let config =
        config(Protocol::Grpc, "http://192.0.2.1:4317").connect_timeout(Duration::from_millis(100));
    let error = send_to(&transport(&config)).await.expect_err("nobody");
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
    let causes = causes(&error);
    assert!(
        causes.contains("cannot reach 192.0.2.1:4317")
            || causes.contains("dialling 192.0.2.1:4317"),
        "{causes}"
    );
}

/// Reads `len` bytes or more.
async fn read_some(socket: &mut TcpStream, len: usize) {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        assert_ne!(socket.read_buf(&mut bytes).await.expect("open"), 0, "the client closed");
    }
}

/// An empty SETTINGS frame (RFC 9113, section 6.5).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// GOAWAY with last stream 0 and NO_ERROR (RFC 9113, section 6.8).
const GOAWAY_NOTHING_TAKEN: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The last bytes of what `send_to` sends.
const END_OF_BODY: [u8; 4] =
    [(39_996 % 251) as u8, (39_997 % 251) as u8, (39_998 % 251) as u8, (39_999 % 251) as u8];
