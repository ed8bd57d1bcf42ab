//! One receiver takes over from another on the same sockets, while peers go on sending.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use spanwire_receiver::{ChannelSink, Received, Receiver, channel};
use support::*;
use tokio::sync::mpsc;

const LONG: Duration = Duration::from_secs(10);

/// Sockets that outlive the receivers on them.
struct Sockets {
    grpc: TcpListener,
    http: TcpListener,
}

impl Sockets {
    fn new() -> Self {
        let any = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self { grpc: any(), http: any() }
    }

    fn addresses(&self) -> [Option<SocketAddr>; 2] {
        [&self.grpc, &self.http].map(|socket| Some(socket.local_addr().expect("bound")))
    }

    async fn serve(&self, sink: ChannelSink) -> Receiver {
        Receiver::builder()
            .grpc_listener(self.grpc.try_clone().expect("a descriptor"))
            .http_listener(self.http.try_clone().expect("a descriptor"))
            .bind(sink)
            .await
            .expect("given sockets")
    }
}

/// Sends one span after the other by gRPC until `done`; a call that GOAWAY says was not processed
/// is made again, and any other failure fails the test.
async fn send_by_grpc(address: Option<SocketAddr>, next: Arc<AtomicUsize>, done: Arc<AtomicBool>) {
    let mut again = None;
    while again.is_some() || !done.load(Ordering::Relaxed) {
        let tcp = tokio::net::TcpStream::connect(address.expect("bound")).await.expect("accepted");
        let (client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        while again.is_some() || !done.load(Ordering::Relaxed) {
            let Ok(mut client) = client.clone().ready().await else { break };
            let number = again.take().unwrap_or_else(|| next.fetch_add(1, Ordering::Relaxed));
            again = Some(number);
            let call = http::Request::post(format!("http://test{EXPORT}"))
                .header("content-type", "application/grpc")
                .body(())
                .expect("a request");
            let Ok((response, mut send)) = client.send_request(call, false) else { break };
            let body = framed(0, &request_of(vec![span(number)]).encode_to_vec());
            let _ = send.send_data(body.into(), true);
            let mut body = match soon(response).await {
                Ok(response) => response.into_body(),
                Err(error) => {
                    assert!(error.is_go_away() && error.is_remote(), "{error:?}");
                    break;
                }
            };
            while let Some(data) = body.data().await {
                data.expect("the body");
            }
            let trailers = body.trailers().await.expect("trailers").expect("trailers");
            assert_eq!(trailers["grpc-status"], "0");
            again = None;
        }
        drop(client);
        let _ = soon(connection).await;
    }
}

/// The same by HTTP/1.1, which has no word for a request that was not processed: none may fail.
async fn send_by_http1(address: Option<SocketAddr>, next: Arc<AtomicUsize>, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        let mut http = Http1::connect(address).await;
        while !done.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let body = request_of(vec![span(number)]).encode_to_vec();
            http.send(&[head(PROTOBUF, body.len()), body].concat()).await;
            let answer = soon(http.answer()).await;
            assert_eq!(answer.status, 200);
            if answer.headers.get("connection").is_some_and(|value| value == "close") {
                assert!(http.closes().await);
                break;
            }
        }
    }
}

/// How often each span has come, by its number.
fn seen(requests: &mut mpsc::Receiver<Received>, spans: usize) -> Vec<usize> {
    let mut seen = vec![0; spans];
    while let Ok(received) = requests.try_recv() {
        let request = ExportTraceServiceRequest::decode(received.request).expect("valid");
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        let id: [u8; 8] = span.span_id[..].try_into().expect("eight bytes");
        seen[u64::from_be_bytes(id) as usize - 1] += 1;
    }
    seen
}

/// Faults 90, 162.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_follow_each_other_under_load_and_no_request_fails() {
    let sockets = Sockets::new();
    let [grpc, http] = sockets.addresses();
    let (sink, mut requests) = channel(1_000_000);
    let (next, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut receiver = sockets.serve(sink.clone()).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(tokio::spawn(send_by_grpc(grpc, next.clone(), done.clone())));
        peers.push(tokio::spawn(send_by_http1(http, next.clone(), done.clone())));
    }
    let mut connections = 0;
    for _ in 0..20 {
        until(|| receiver.stats().connections_open >= 1).await;
        let new = sockets.serve(sink.clone()).await;
        receiver.stop_accepting();
        // All peers are sending, so all are told, and none has to be cut.
        soon(receiver.closed()).await;
        let stats = receiver.stats();
        assert_eq!((stats.connections_open, stats.connections_failed), (0, 0));
        assert_eq!(stats.grpc.refused_in_all().requests + stats.http.refused_in_all().requests, 0);
        connections += stats.connections_accepted;
        receiver = new;
    }
    done.store(true, Ordering::Relaxed);
    for peer in peers {
        soon(peer).await.expect("no request failed");
    }
    assert!(connections >= 20, "{connections} connections were handed over");
    assert_eq!(receiver.shutdown(LONG).await.connections_cut, 0);
    let spans = next.load(Ordering::Relaxed);
    assert!(spans > 100, "{spans} spans are no load");
    let seen = seen(&mut requests, spans);
    assert!(seen.iter().all(|times| *times == 1), "lost or doubled: {seen:?}");
}

/// Faults 90.
#[tokio::test]
async fn a_receiver_that_stops_accepting_finishes_what_is_in_flight_and_says_goodbye() {
    let (gate, mut arrivals, answers) = Gate::new();
    let receiver = start(gate).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
    assert_eq!(soon(arrivals.recv()).await, Some(1));
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let mut call = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
    call.data(&framed(0, &wire(2)), true);
    assert_eq!(soon(arrivals.recv()).await, Some(2));

    receiver.stop_accepting();
    for address in [receiver.grpc_address(), receiver.http_address()] {
        let address = address.expect("served");
        soon(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
    }
    answers.add_permits(2);
    let answer = soon(http.answer()).await;
    assert_eq!((answer.status, &*answer.headers["connection"]), (200, "close"));
    assert!(http.closes().await);
    drop(http);
    assert_eq!(call.answer().await.code, 0);
    soon(receiver.closed()).await;
    assert_eq!(receiver.stats().connections_failed, 0);
    assert_eq!(receiver.shutdown(LONG).await.connections_cut, 0);
}

/// Faults 90.
#[tokio::test]
async fn connections_that_have_not_spoken_yet_are_served_once_more() {
    let receiver = start(take_all).await;
    let mut silent = Http1::connect(receiver.http_address()).await;
    let mut idle = Http1::connect(receiver.http_address()).await;
    idle.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
    assert!(!soon(idle.answer()).await.headers.contains_key("connection"));
    let silent_grpc = tokio::net::TcpStream::connect(receiver.grpc_address().expect("served"));
    let silent_grpc = silent_grpc.await.expect("it listens");
    until(|| receiver.stats().connections_open == 3).await;

    receiver.stop_accepting();
    for http in [&mut silent, &mut idle] {
        http.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
        let answer = soon(http.answer()).await;
        assert_eq!((answer.status, &*answer.headers["connection"]), (200, "close"));
        assert!(http.closes().await);
    }
    let (client, connection) = h2::client::handshake(silent_grpc).await.expect("HTTP/2");
    let mut http2 = Http2(client);
    // Sent with the preface, before any goodbye can have come.
    let mut call = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
    call.data(&framed(0, &wire(2)), true);
    tokio::spawn(connection);
    assert_eq!(call.answer().await.code, 0);
    drop((http2, silent, idle));
    soon(receiver.closed()).await;
    assert_eq!(receiver.stats().connections_failed, 0);
}

#[tokio::test]
async fn requests_behind_a_last_one_do_not_break_its_answer_off() {
    let (gate, mut arrivals, answers) = Gate::new();
    let receiver = start(gate).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    let one = [head(PROTOBUF, wire(1).len()), wire(1)].concat();
    http.send(&one).await;
    assert_eq!(soon(arrivals.recv()).await, Some(1));
    receiver.stop_accepting();
    // Accepted no more, so the change of phase has come through.
    let address = receiver.http_address().expect("served");
    soon(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
    http.send(&one.repeat(100)).await;
    answers.add_permits(1);
    let answer = soon(http.answer()).await;
    assert_eq!((answer.status, &*answer.headers["connection"]), (200, "close"));
    assert!(http.closes().await, "in order, with a hundred requests unread");
    assert!(arrivals.try_recv().is_err());
}

#[tokio::test]
async fn a_silent_connection_stays_until_the_shutdown() {
    let receiver = start(take_all).await;
    let mut silent = Http1::connect(receiver.http_address()).await;
    until(|| receiver.stats().connections_open == 1).await;
    receiver.stop_accepting();
    receiver.stop_accepting();
    let closed = tokio::time::timeout(Duration::from_millis(50), receiver.closed()).await;
    assert!(closed.is_err(), "it may still send");
    assert_eq!(receiver.shutdown(LONG).await.connections_cut, 0);
    assert!(silent.closes().await);
}

#[tokio::test]
async fn a_transport_is_served_on_every_address_it_was_given() {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let given = TcpListener::bind(any).expect("a free port");
    let given_address = given.local_addr().expect("bound");
    let receiver = Receiver::builder()
        .http(any)
        .http_listener(given)
        .grpc(any)
        .grpc(any)
        .bind(take_all)
        .await
        .expect("free ports");
    assert_eq!(receiver.http_addresses().len(), 2);
    assert_eq!(receiver.http_addresses()[1], given_address);
    assert_eq!(receiver.grpc_address(), Some(receiver.grpc_addresses()[0]));
    for address in receiver.http_addresses() {
        let mut http = Http1::connect(Some(*address)).await;
        http.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
        assert_eq!(soon(http.answer()).await.status, 200);
    }
    for address in receiver.grpc_addresses() {
        let mut http2 = Http2::connect(Some(*address)).await;
        assert_eq!(http2.call(&[], &framed(0, &wire(1))).await.code, 0);
    }
    assert_eq!(receiver.shutdown(LONG).await.connections_cut, 0);
}
