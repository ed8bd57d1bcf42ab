//! Destinations that a reload removes or replaces, or a shutdown ends: what they hold, and what was on
//! its way to them, finds its way.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spanwire_collector::{Collector, DropReason, ExporterStats};
use spanwire_receiver::{Accepted, Received, Refusal};
use spanwire_transport::Protocol;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(10);

/// The same with `nop` in the place of all destinations.
fn to_nothing(yaml: &str) -> String {
    yaml.replace("exporters:\n", "exporters:\n  nop:\n")
        .replace("exporters: [otlp]", "exporters: [nop]")
}

/// Asks to come back so often, and takes what comes after that.
fn refusing(times: usize, retry_after: Option<Duration>) -> impl Fn(&Received) -> Answer {
    let attempts = AtomicUsize::new(0);
    move |_| match attempts.fetch_add(1, Ordering::Relaxed) < times {
        true => Err(Refusal::Unavailable { retry_after }),
        false => Ok(Accepted::default()),
    }
}

fn is_full(exporter: &ExporterStats) -> bool {
    exporter.queue_size == exporter.queue_capacity
}

/// Sends numbered spans in requests of ten, all at once.
fn send_all(collector: &Collector, requests: u64) -> JoinSet<()> {
    let sender = Arc::new(Sender::new(collector, Protocol::Grpc));
    let mut sends = JoinSet::new();
    for round in 0..requests {
        let sender = Arc::clone(&sender);
        sends.spawn(async move {
            sender.send(request(round * 10, 10), 10).await.expect("it is taken in the end");
        });
    }
    sends
}

async fn all(mut sends: JoinSet<()>) {
    while let Some(sent) = sends.join_next().await {
        sent.expect("it is taken");
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_destinations_that_an_earlier_reload_left_behind() {
    let (other, _) = destination(takes_all).await;
    for replaced in [false, true] {
        let gate = Arc::new(Semaphore::new(0));
        let (left_behind, arrived) = destination_behind(&gate, takes_all).await;
        let yaml = to(&left_behind, "");
        let after = if replaced { to(&other, "") } else { to_nothing(&yaml) };
        let collector = Collector::start(config(&yaml)).await.expect("it starts");
        let sender = Sender::new(&collector, Protocol::Grpc);
        sender.send(request(0, 10), 10).await.expect("the queue takes it");
        until("it is on its way", || arrived.attempts.load(Ordering::Relaxed) == 1).await;
        collector.reload(config(&after)).await.expect("it is valid");
        let mut shutdown = tokio::spawn(collector.shutdown(PATIENCE));
        let ended = tokio::time::timeout(Duration::from_millis(300), &mut shutdown).await;
        assert!(ended.is_err(), "it does not wait: {ended:?}, replaced: {replaced}");
        gate.add_permits(1);
        let report = shutdown.await.expect("no panic");
        assert_eq!((report.spans_lost, arrived.count()), (0, 10));
    }
}

#[tokio::test]
async fn what_the_one_in_its_place_takes_no_more_a_destination_sends_itself() {
    let gate = Arc::new(Semaphore::new(0));
    let (first, arrived) = destination_behind(&gate, refusing(2, None)).await;
    let (second, _) = destination(takes_all).await;
    let yaml = to(&first, "");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("the queue takes it");
    until("it is on its way", || arrived.attempts.load(Ordering::Relaxed) == 1).await;
    collector.reload(config(&to(&second, ""))).await.expect("it is valid");
    collector.reload(config(&to_nothing(&yaml))).await.expect("it is valid");
    gate.close();
    until("it is counted", || account(&collector, "otlp").sent == 10).await;
    assert_eq!((arrived.missing(10), arrived.duplicates()), (vec![], 0));
    assert_balanced(&collector);
}

#[tokio::test]
async fn what_is_acknowledged_while_a_destination_is_replaced_is_known_at_each_destination() {
    let gate = Arc::new(Semaphore::new(0));
    let (slow, arrived_slow) = destination_behind(&gate, takes_all).await;
    let (successor, arrived) = destination(takes_all).await;
    let slow = slow.grpc_address().expect("served");
    let queue = "sending_queue: { queue_size: 2, num_consumers: 1 }";
    let yaml = |other: SocketAddr| {
        let other =
            format!("  otlp/other: {{ endpoint: {other}, tls: {{ insecure: true }}, {queue} }}");
        to_address(slow, &format!("    {queue}\n{other}"))
            .replace("exporters: [otlp]", "exporters: [otlp, otlp/other]")
    };
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let collector = Collector::start(config(&yaml(nobody))).await.expect("it starts");
    let sends = send_all(&collector, 30);
    until("both are full", || collector.stats().exporters.iter().all(is_full)).await;
    let successor = successor.grpc_address().expect("served");
    collector.reload(config(&yaml(successor))).await.expect("it is valid");
    gate.close();
    all(sends).await;
    until("all is sent", || collector.stats().exporters.iter().all(|one| one.account.queued == 0))
        .await;
    for (exporter, arrived) in [("otlp", arrived_slow), ("otlp/other", arrived)] {
        let account = account(&collector, exporter);
        assert_eq!(account.accepted, 300, "{exporter}: {account:?}");
        let shed = account.dropped(DropReason::QueueFull);
        assert_eq!(arrived.count() as u64 + shed, 300, "{exporter}: {account:?}");
        assert_eq!(arrived.duplicates(), 0);
    }
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_request_that_is_taken_in_the_end_was_refused_nowhere() {
    let gate = Arc::new(Semaphore::new(0));
    let (stuck, _) = destination_behind(&gate, takes_all).await;
    let nobody = "127.0.0.1:9";
    let queue = "queue_size: 1, num_consumers: 1";
    let other = format!(
        "  otlp/other: {{ endpoint: {nobody}, tls: {{ insecure: true }}, sending_queue: {{ {queue} }} }}"
    );
    let yaml = to(
        &stuck,
        &format!("    sending_queue: {{ {queue}, block_on_overflow: false }}\n{other}\n  nop:"),
    );
    let both = yaml.replace("exporters: [otlp]", "exporters: [otlp, otlp/other]");
    let without = yaml.replace("exporters: [otlp]", "exporters: [otlp, nop]");
    let collector = Collector::start(config(&both)).await.expect("it starts");
    let sends = send_all(&collector, 20);
    until("both are full", || collector.stats().exporters.iter().all(is_full)).await;
    collector.reload(config(&without)).await.expect("it is valid");
    all(sends).await;
    let account = account(&collector, "otlp");
    assert_eq!((account.refused, account.accepted), (0, 200), "{account:?}");
    assert_balanced(&collector);
    gate.close();
}

/// Posts a request on a connection that stays open, and tells the status.
async fn post(connection: &mut TcpStream, body: &[u8]) -> String {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: collector\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(&[head.as_bytes(), body].concat()).await.expect("it is open");
    let mut answer = vec![0; 4096];
    let length = connection.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    answer.split_whitespace().nth(1).unwrap_or("none").to_owned()
}

#[tokio::test]
async fn a_connection_that_is_older_than_two_reloads_leads_to_the_destinations_there_are() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let http = address(&collector, "http");
    let mut connection = TcpStream::connect(http).await.expect("it listens");
    assert_eq!(post(&mut connection, &request(0, 10)).await, "200");
    let changed = yaml.replace(
        "http: { endpoint: 127.0.0.1:0 }",
        "http: { endpoint: 127.0.0.1:0, max_request_body_size: 1000000 }",
    );
    collector.reload(config(&changed)).await.expect("it is valid");
    let renamed =
        changed.replace("  otlp:\n", "  otlp/next:\n").replace("[otlp] }", "[otlp/next] }");
    collector.reload(config(&renamed)).await.expect("it is valid");
    assert_eq!(post(&mut connection, &request(10, 10)).await, "200");
    until("all arrive", || arrived.count() == 20).await;
    assert_eq!(account(&collector, "otlp/next").accepted, 10);
}

#[tokio::test]
async fn a_shutdown_tries_again_at_once_and_often_what_waits_for_its_next_attempt() {
    // One before the shutdown, two as it begins and as the queue closes, and one after a wait.
    let (destination, arrived) = destination(refusing(3, Some(Duration::from_secs(60)))).await;
    let collector = Collector::start(config(&to(&destination, ""))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("the queue takes it");
    until("it waits for the next attempt", || account(&collector, "otlp").failures == 1).await;
    let started = Instant::now();
    let report = collector.shutdown(Duration::from_secs(6)).await;
    assert_eq!((report.spans_lost, arrived.count()), (0, 10), "after {:?}", started.elapsed());
}
