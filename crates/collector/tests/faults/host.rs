//! The process as its system treats it.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spanwire_transport::{Body, Protocol, Transport, TransportConfig};

use crate::admin::get;
use crate::support::process::{Process, command};
use crate::support::*;

/// Whether it is stopped, as proc_pid_stat(5) has it.
#[cfg(target_os = "linux")]
fn is_stopped(process: &Process) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.child.id()));
    stat.expect("it is there").rsplit_once(") ").expect("a state").1.starts_with('T')
}

fn transport(address: SocketAddr) -> Arc<Transport> {
    let config = TransportConfig::new(Protocol::Grpc, &format!("http://{address}"));
    Arc::new(Transport::new(&config.expect("an address")).expect("settings"))
}

/// Whether ten spans from this number on were taken.
async fn takes(transport: &Transport, first: u64) -> bool {
    let encoded = transport.encode(&Body::new([request(first, 10)], 10)).await.expect("sendable");
    transport.send(&encoded).await.is_ok()
}

/// Faults 163.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_for_a_while_goes_on_and_loses_nothing() {
    // Longer than an attempt may take.
    const STOPPED: Duration = Duration::from_secs(2);
    let (destination, arrived) = destination(takes_all).await;
    let mut process = Process::start(&to(&destination, "    timeout: 1s"), &["grpc"]);
    let transport = transport(process.address("grpc"));
    let mut sending = tokio::task::JoinSet::new();
    let mut send = |from: u64| {
        for number in from..from + 20 {
            let transport = Arc::clone(&transport);
            sending.spawn(async move { takes(&transport, number * 10).await });
        }
    };
    send(0);
    until("spans arrive", || arrived.count() > 0).await;
    process.signal("-STOP");
    until("it is stopped", || is_stopped(&process)).await;
    send(20);
    tokio::time::sleep(STOPPED).await;
    assert!(is_stopped(&process));
    let before = arrived.count();
    assert!(before <= 200, "what is sent to a process that stands waits: {before}");
    process.signal("-CONT");
    while let Some(taken) = sending.join_next().await {
        assert!(taken.expect("no panic"), "it is taken in the end");
    }
    process.signal("-TERM");
    assert!(process.ended().success());
    assert_eq!(arrived.missing(400), Vec::<u64>::new(), "acknowledged, and lost");
}

/// Faults 163.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_anybody_at_its_output_and_its_log_spans_go_on_and_losses_are_counted() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "  debug: { verbosity: detailed }")
        .replace("exporters: [otlp]", "exporters: [otlp, debug]")
        .replace(
            "metrics: { level: none }",
            "metrics: { readers: [{ pull: { exporter: \
             { prometheus: { host: 127.0.0.1, port: 0 } } } }] }",
        );
    let mut command = command(&["--config", &format!("yaml:{yaml}")]);
    command.stdout(Stdio::piped());
    let (mut process, log) = Process::unread(command, &["grpc", "metrics"]);
    // Whatever it writes from here on is a broken pipe.
    drop((log, process.child.stdout.take()));
    let transport = transport(process.address("grpc"));
    for number in 0..20 {
        assert!(takes(&transport, number * 10).await, "{number}");
        process.signal("-HUP");
    }
    until("spans arrive", || arrived.count() == 200).await;
    let metrics = process.address("metrics").to_string();
    let since = Instant::now();
    loop {
        let page = get(&metrics, "/metrics").await;
        let dropped = |line: &&str| {
            line.starts_with("spanwire_ledger_spans_total")
                && ["\"debug\"", "\"dropped\""].iter().all(|label| line.contains(label))
        };
        let counts = page
            .lines()
            .filter(dropped)
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        if counts.sum::<u64>() == 200 {
            assert!(page.contains("spanwire_ledger_imbalance{exporter=\"debug\"} 0"), "{page}");
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{page}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process.signal("-TERM");
    assert!(process.ended().success());
}

/// Faults 163.
#[test]
fn a_log_that_is_closed_before_anything_is_said_stops_nothing() {
    let mut child = command(&["validate", "--config", "yaml:nonsense: 1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stderr.take());
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    let status = child.wait().expect("it ends");
    assert_eq!((status.code(), &*text), (Some(1), ""), "as if somebody had read it");
}
