//! What senders, operators and readers of the log are told, by the binary as people run it.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use spanwire_collector::Collector;
use spanwire_receiver::{Received, Receiver, Refusal};
use spanwire_transport::{Body, Protocol, SendError, Transport, TransportConfig};
use support::process::Process;
use support::*;

const AWAY: &str = "127.0.0.1:9";

fn away() -> SocketAddr {
    AWAY.parse().expect("an address")
}

/// Ten spans to the gRPC port of a process.
async fn send_ten(process: &Process) {
    try_to_send_ten(process).await.expect("the queue takes it");
}

async fn try_to_send_ten(process: &Process) -> Result<(), SendError> {
    let url = format!("http://{}", process.address("grpc"));
    let config = TransportConfig::new(Protocol::Grpc, &url).expect("an address");
    let transport = Transport::new(&config).expect("settings");
    let encoded = transport.encode(&Body::new([request(0, 10)], 10)).await.expect("sendable");
    transport.send(&encoded).await.map(drop)
}

/// Whose destination is away, and which tries for a second once it is to end.
fn impatient(exporter: &str) -> Process {
    let yaml = format!("yaml:{}", to_address(away(), exporter));
    let command = support::process::command(&["--shutdown-timeout", "1", "--config", &yaml]);
    Process::run(command, &["grpc"])
}

async fn says(process: &Process, text: &str) {
    until(text, || process.has_said(text) > 0).await;
}

#[tokio::test]
async fn the_log_says_what_starts_and_when_all_listens() {
    let process = Process::start(&to_address(away(), ""), &["grpc", "http"]);
    says(&process, "INFO ready").await;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(process.has_said(&format!("spanwire-collector {version} starts")), 1);
    assert_eq!(process.has_said("configuration=\"yaml:...\" memory_limit_mib="), 1);
    assert_eq!(process.has_said("listening on "), 2);
}

#[tokio::test]
async fn a_failure_names_the_endpoint_and_leaves_out_what_is_zero() {
    let process = Process::start(&to_address(away(), ""), &["grpc"]);
    send_ten(&process).await;
    says(&process, "no connection to the destination").await;
    says(&process, &format!("component=\"otlp\" endpoint=\"{AWAY}\"")).await;
    assert_eq!(process.has_said("=0"), 0);
}

/// The address of a server that has one answer to everything.
fn answers(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _asked = stream.read(&mut [0; 24]);
            let _gone = stream.write_all(answer);
            connections.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn a_port_of_another_protocol_is_told_as_one() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let sink = async |_: Received| Ok(spanwire_receiver::Accepted::default());
    let other = Receiver::builder().grpc(any).http(any).bind(sink).await.expect("free ports");
    let grpc = other.grpc_address().expect("served");
    let http = other.http_address().expect("served");
    // Of HTTP/1.1 alone, and of HTTP/2 alone, which says its SETTINGS, as many servers are.
    let old = answers(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let new = answers(b"\0\0\0\x04\0\0\0\0\0");
    let exporters = format!(
        "  otlphttp: {{ endpoint: 'http://{new}' }}
  otlphttp/path: {{ endpoint: 'http://{http}/otlp' }}
  otlp/old: {{ endpoint: {old}, tls: {{ insecure: true }} }}
  otlp/tls: {{ endpoint: {grpc} }}
  otlphttp/tls: {{ endpoint: 'https://{http}' }}"
    );
    let yaml = to_address(http, &exporters)
        .replace("[otlp] }", "[otlp, otlphttp, otlphttp/path, otlp/old, otlp/tls, otlphttp/tls] }");
    let process = Process::start(&yaml, &["grpc"]);
    send_ten(&process).await;
    for (component, advice) in [
        ("otlp", "that is not gRPC: the port may be one of OTLP/HTTP; that of gRPC is mostly 4317"),
        ("otlphttp", "the port may be one of gRPC, or want TLS; that of OTLP/HTTP is mostly 4318"),
        ("otlphttp/path", "the path may be wrong: mostly it ends in /v1/traces"),
        ("otlp/old", "the port may be one of OTLP/HTTP, or want TLS; that of gRPC is mostly 4317"),
        ("otlp/tls", "where no TLS is meant, `tls: {insecure: true}` says so in a collector"),
        ("otlphttp/tls", "where no TLS is meant, `http://` says so"),
    ] {
        let component = format!("component=\"{component}\"");
        let told = || {
            process.lines().iter().any(|line| line.contains(&component) && line.contains(advice))
        };
        until(&format!("{component} {advice} in {:?}", process.lines()), told).await;
    }
}

#[tokio::test]
async fn a_shutdown_that_loses_spans_is_a_failure_and_says_how_many() {
    let mut process = impatient("");
    send_ten(&process).await;
    process.signal("-TERM");
    let status = process.ended();
    assert_eq!(status.code(), Some(1));
    says(&process, "10 spans were not sent, and are lost").await;
}

#[tokio::test]
async fn a_shutdown_loses_nothing_that_was_never_acknowledged() {
    let mut process = impatient("    sending_queue: { wait_for_result: true }");
    let (sent, ()) = tokio::join!(try_to_send_ten(&process), async {
        says(&process, "no connection to the destination").await;
        process.signal("-TERM");
    });
    sent.expect_err("nobody took it");
    assert_eq!(process.ended().code(), Some(0));
    says(&process, "10 spans were not sent, which their senders know and have still").await;
}

#[tokio::test]
async fn an_end_at_once_says_how_many_spans_that_costs() {
    let mut process = Process::start(&to_address(away(), ""), &["grpc"]);
    send_ten(&process).await;
    process.signal("-TERM");
    says(&process, "shutting down").await;
    process.signal("-TERM");
    let status = process.ended();
    assert_eq!(status.code(), Some(1));
    says(&process, "ended at once; 10 spans were not sent, and are lost").await;
}

#[tokio::test]
async fn requests_that_are_refused_are_in_the_log() {
    let limiter = "memory_limiter: { check_interval: 1s, limit_mib: 4 }";
    let yaml = to_address(away(), "")
        .replace("exporters:\n", &format!("processors: {{ {limiter} }}\nexporters:\n"))
        .replace("receivers: [otlp],", "receivers: [otlp], processors: [memory_limiter],");
    let process = Process::start(&yaml, &["http"]);
    assert_eq!(process.has_said("receiver otlp http takes requests of 1.6 MiB at most"), 1);
    let url = format!("http://{}", process.address("http"));
    let config = TransportConfig::new(Protocol::HttpProtobuf, &url).expect("an address");
    let transport = Transport::new(&config).expect("settings");
    let body = Body::new([request(0, 30_000)], 30_000);
    let encoded = transport.encode(&body).await.expect("sendable");
    transport.send(&encoded).await.expect_err("it is too large");
    says(&process, "1 request refused for good, by reason: 1 too_large").await;
}

#[tokio::test]
async fn spans_that_one_of_several_destinations_has_no_room_for_are_in_the_log() {
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1 }\n  nop:";
    let yaml = to_address(away(), queue).replace("[otlp] }", "[otlp, nop] }");
    let process = Process::start(&yaml, &["grpc"]);
    for _ in 0..4 {
        send_ten(&process).await;
    }
    let lost = "its queue is full: what other destinations take is lost for this one";
    says(&process, lost).await;
    says(&process, "component=\"otlp\" spans_dropped=10").await;
}

#[tokio::test]
async fn a_sender_learns_whose_queue_is_full() {
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1, block_on_overflow: false }";
    let collector = Collector::start(config(&to_address(away(), queue))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let mut refused = None;
    for round in 0..10 {
        refused = refused.or(sender.send(request(round * 10, 10), 10).await.err());
    }
    let refused = refused.expect("the queue is full").to_string();
    let full = "gRPC UNAVAILABLE: the queue of exporter otlp is full";
    assert!(refused.ends_with(full), "{refused}");
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_sender_that_waits_for_the_result_has_the_destination_s_words() {
    let message = "the disk of tenant 7 is full";
    let (destination, _) = destination(move |_: &Received| {
        Err(Refusal::Undelivered { message: message.to_owned(), retry_after: None })
    })
    .await;
    let result = "    sending_queue: { wait_for_result: true }";
    let yaml = to(&destination, result)
        .replace("max_interval: 50ms", "max_interval: 50ms, max_elapsed_time: 100ms");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let sender = Sender::new(&collector, protocol);
        let refused = sender.send(request(0, 10), 10).await.expect_err("it was given up");
        let refused = refused.to_string();
        let words = format!("exporter otlp: destination unavailable: gRPC UNAVAILABLE: {message}");
        assert!(refused.contains(&words), "{refused}");
    }
    assert_balanced(&collector);
    let report = collector.shutdown(Duration::from_secs(5)).await;
    assert_eq!(report.spans_lost, 0);
}
