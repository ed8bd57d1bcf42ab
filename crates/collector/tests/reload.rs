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
