//! A configuration in the place of another while spans come.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use spanwire_collector::Collector;
use spanwire_transport::Protocol;
use support::*;

/// Faults 162.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_half_of_them_invalid_lose_and_refuse_nothing() {
    let (first, arrived) = destination(takes_all).await;
    let any = "127.0.0.1:0".parse().expect("an address");
    let (second, _) = destination_at(any, Arc::clone(&arrived), takes_all).await;
    let yaml = |number: u32| {
        let to_one = [&first, &second][number as usize % 2];
        let batch = format!("    sending_queue: {{ num_consumers: {} }}", number % 3 + 1);
        to(to_one, &batch)
    };
    let collector = Arc::new(Collector::start(config(&yaml(0))).await.expect("it starts"));
    let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut senders = tokio::task::JoinSet::new();
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let sender = Sender::new(&collector, protocol);
        let (ended, sent) = (Arc::clone(&ended), Arc::clone(&sent));
        senders.spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let first = sent.fetch_add(10, Ordering::Relaxed);
                sender.send(request(first, 10), 10).await.expect("no request is refused");
            }
        });
    }
    for number in 1..=100 {
        let before = sent.load(Ordering::Relaxed);
        if number % 2 == 0 {
            collector.reload(config(&yaml(number))).await.expect("it is valid");
        } else {
            let wrong = yaml(number).replace(
                "tls: { insecure: true }",
                "tls: { insecure: true }\n    headers: { content-type: mine }",
            );
            collector.reload(config(&wrong)).await.expect_err("a reserved header");
        }
        until("spans go on coming", || sent.load(Ordering::Relaxed) > before).await;
        assert_balanced(&collector);
    }
    ended.store(true, Ordering::Relaxed);
    while let Some(sender) = senders.join_next().await {
        sender.expect("no request was refused");
    }
    let sent = sent.load(Ordering::Relaxed);
    until("all arrive", || arrived.count() as u64 == sent).await;
    assert_eq!((arrived.missing(sent), arrived.duplicates()), (vec![], 0));
    let collector = Arc::into_inner(collector).expect("nobody else has it");
    assert_eq!(collector.shutdown(Duration::from_secs(10)).await.spans_lost, 0);
}

#[tokio::test]
async fn a_reload_keeps_the_sockets_of_a_receiver_whose_settings_change() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let before = address(&collector, "grpc");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("it is taken");
    let changed = yaml.replace(
        "grpc: { endpoint: 127.0.0.1:0 }",
        "grpc: { endpoint: 127.0.0.1:0, max_recv_msg_size_mib: 1 }",
    );
    collector.reload(config(&changed)).await.expect("it is valid");
    assert_eq!(address(&collector, "grpc"), before);
    sender.send(request(10, 10), 10).await.expect("it is taken on a new connection");
    until("all arrive", || arrived.count() == 20).await;
    assert_eq!((arrived.missing(20), arrived.duplicates()), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_dead_destination_goes_to_the_one_that_takes_its_place() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let queue = "    sending_queue: { queue_size: 5, num_consumers: 2 }";
    let collector = Collector::start(config(&to_address(nobody, queue))).await.expect("it starts");
    let collector = Arc::new(collector);
    let sender = Arc::new(Sender::new(&collector, Protocol::Grpc));
    let mut sends = tokio::task::JoinSet::new();
    // More than the queue holds: some senders wait for room.
    for round in 0..30_u64 {
        let sender = Arc::clone(&sender);
        sends.spawn(async move { sender.send(request(round * 10, 10), 10).await });
    }
    until("the queue is full", || collector.stats().exporters[0].account.accepted >= 70).await;
    let (destination, arrived) = destination(takes_all).await;
    collector.reload(config(&to(&destination, queue))).await.expect("it is valid");
    while let Some(sent) = sends.join_next().await {
        sent.expect("no panic").expect("it is taken in the end");
    }
    until("all arrive", || arrived.count() == 300).await;
    assert_eq!((arrived.missing(300), arrived.duplicates()), (Vec::<u64>::new(), 0));
    until("all are counted", || collector.stats().exporters[0].account.sent == 300).await;
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_receiver_that_no_pipeline_names_any_more_takes_nothing() {
    let (destination, _) = destination(takes_all).await;
    let yaml = to(&destination, "").replace(
        "receivers: {",
        "receivers: { otlp/other: { protocols: { grpc: { endpoint: 127.0.0.1:0 } } },",
    );
    let both = yaml.replace("receivers: [otlp]", "receivers: [otlp, otlp/other]");
    let collector = Collector::start(config(&both)).await.expect("it starts");
    let other = address(&collector, "otlp/other");
    collector.reload(config(&yaml)).await.expect("it is valid");
    let other = other.parse::<std::net::SocketAddr>().expect("an address");
    let start = std::time::Instant::now();
    while tokio::net::TcpStream::connect(other).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "it listens still");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
