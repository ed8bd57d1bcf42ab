//! What senders, destinations and the ledger say of the same spans.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use spanwire_collector::{Collector, DropReason};
use spanwire_receiver::{Accepted, Received, Refusal};
use spanwire_transport::{Compression, Protocol};
use support::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// Faults 179.
#[tokio::test]
async fn spans_by_either_protocol_arrive_once_and_in_fewer_requests() {
    let (destination, arrived) = destination(takes_all).await;
    let batch = "    sending_queue: { batch: { flush_timeout: 200ms, min_size: 8192 } }";
    let collector = Collector::start(config(&to(&destination, batch))).await.expect("it starts");
    let grpc = Sender::new(&collector, Protocol::Grpc);
    let http = Sender::compressing(&collector, Protocol::HttpProtobuf, Compression::Gzip);
    let json = Sender::new(&collector, Protocol::HttpJson);
    for round in 0..30 {
        let sender = [&grpc, &http, &json][round as usize % 3];
        let accepted = sender.send(request(round * 100, 100), 100).await.expect("it is taken");
        assert_eq!(accepted.rejected, 0);
        assert_balanced(&collector);
    }
    until("all arrive", || arrived.count() == 3_000).await;
    assert_eq!((arrived.missing(3_000), arrived.duplicates()), (vec![], 0));
    assert!(arrived.requests().len() < 30, "{} requests", arrived.requests().len());
    let stats = collector.stats();
    assert_eq!(stats.exporters[0].account.accepted, 3_000);
    let accepted: u64 = stats.receivers.iter().map(|one| one.accepted).sum();
    assert_eq!(accepted, 3_000);
    assert_eq!(collector.shutdown(PATIENCE).await.spans_lost, 0);
}

#[tokio::test]
async fn a_sender_that_waits_for_the_result_hears_what_the_destination_rejected() {
    let rejects =
        |_: &Received| Ok(Accepted { rejected_spans: 3, message: "three are too old".to_owned() });
    let (destination, _) = destination(rejects).await;
    let waits = "    sending_queue: { wait_for_result: true }";
    let collector = Collector::start(config(&to(&destination, waits))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let accepted = sender.send(request(0, 10), 10).await.expect("it is taken in part");
    assert_eq!(accepted.rejected, 3);
    assert_eq!(accepted.message.as_deref(), Some("three are too old"));
    let account = collector.stats().exporters[0].account;
    assert_eq!((account.sent, account.rejected, account.imbalance()), (7, 3, 0));
}

/// Faults 179.
#[tokio::test]
async fn a_request_that_the_destination_refuses_loses_no_neighbour() {
    let poisoned = |received: &Received| {
        let is_poison = |window: &[u8]| window == b"poison";
        match received.request.windows(6).any(is_poison) {
            true => Err(Refusal::Invalid { message: "poison".to_owned() }),
            false => Ok(Accepted::default()),
        }
    };
    let (destination, arrived) = destination(poisoned).await;
    let batch = "    sending_queue: { wait_for_result: true, batch: { flush_timeout: 50ms, min_size: 100000 } }";
    let collector = Collector::start(config(&to(&destination, batch))).await.expect("it starts");
    let sender = Arc::new(Sender::new(&collector, Protocol::Grpc));
    let mut sends = tokio::task::JoinSet::new();
    for round in 0..32_u64 {
        let sender = Arc::clone(&sender);
        let name = if round == 13 { "poison" } else { "GET /checkout" };
        sends.spawn(async move { (round, sender.send(named(round * 10, 10, name), 10).await) });
    }
    while let Some(sent) = sends.join_next().await {
        let (round, answer) = sent.expect("no panic");
        let rejected = answer.expect("an answer of its own").rejected;
        assert_eq!(rejected, if round == 13 { 10 } else { 0 }, "request {round}");
    }
    assert_eq!(arrived.missing(320), (130..140).collect::<Vec<_>>());
    assert_eq!(arrived.duplicates(), 0);
    let account = collector.stats().exporters[0].account;
    assert_eq!(account.dropped(DropReason::Rejected), 10);
    assert_eq!((account.sent, account.imbalance()), (310, 0));
}

/// Faults 99.
#[tokio::test]
async fn what_is_too_large_for_the_destination_arrives_in_parts() {
    let small = |received: &Received| match received.request.len() {
        0..100_000 => Ok(Accepted::default()),
        _ => Err(Refusal::TooLarge { message: "the request is too large".to_owned() }),
    };
    let (destination, arrived) = destination(small).await;
    let collector = Collector::start(config(&to(&destination, ""))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 2_000), 2_000).await.expect("it is taken");
    until("all arrive", || arrived.count() == 2_000).await;
    assert_eq!((arrived.missing(2_000), arrived.duplicates()), (vec![], 0));
    assert!(arrived.requests().len() > 1);
    until("it is counted", || collector.stats().exporters[0].account.sent == 2_000).await;
    assert_balanced(&collector);
}

/// Faults 96, 179.
#[tokio::test]
async fn a_destination_that_comes_back_gets_everything() {
    let (destination, arrived, away) = away().await;
    let collector = Collector::start(config(&to(&destination, ""))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    for round in 0..50 {
        sender.send(request(round * 10, 10), 10).await.expect("the queue takes it");
        assert_balanced(&collector);
    }
    until("it was tried", || arrived.attempts.load(Ordering::Relaxed) > 10).await;
    assert_eq!(arrived.count(), 0);
    away.store(false, Ordering::Relaxed);
    until("all arrive", || arrived.count() == 500).await;
    assert_eq!(arrived.missing(500), Vec::<u64>::new());
    assert_eq!(collector.shutdown(PATIENCE).await.spans_lost, 0);
}

/// Faults 94, 179.
#[tokio::test]
async fn a_stuck_destination_holds_up_no_other_and_its_losses_are_counted() {
    let (live, arrived) = destination(takes_all).await;
    let (stuck, ..) = away().await;
    let yaml = to(
        &live,
        &format!(
            "  otlp/stuck: {{ endpoint: {}, tls: {{ insecure: true }}, sending_queue: {{ queue_size: 5, num_consumers: 1 }} }}",
            stuck.grpc_address().expect("served")
        ),
    );
    let yaml = yaml.replace("exporters: [otlp]", "exporters: [otlp/stuck, otlp]");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    for round in 0..100 {
        sender.send(request(round * 10, 10), 10).await.expect("the other takes it");
        assert_balanced(&collector);
    }
    until("all arrive", || arrived.count() == 1_000).await;
    let stats = collector.stats();
    let stuck =
        &stats.exporters.iter().find(|one| one.exporter == "otlp/stuck").expect("it").account;
    assert!(stuck.dropped(DropReason::QueueFull) >= 900, "{stuck:?}");
    assert_eq!((stuck.accepted, stuck.imbalance()), (1_000, 0));
}

#[tokio::test]
async fn a_sender_waits_while_the_only_destination_s_queue_is_full() {
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&open);
    let arrived = Arc::new(Arrived::default());
    let taking = Arc::clone(&arrived);
    let sink = move |received: Received| {
        let (gate, taking) = (Arc::clone(&gate), Arc::clone(&taking));
        async move {
            let _pass = gate.acquire().await;
            taking.take(&received.request);
            Ok(Accepted::default())
        }
    };
    let any = "127.0.0.1:0".parse().expect("an address");
    let slow = spanwire_receiver::Receiver::builder().grpc(any).bind(sink).await.expect("a port");
    let queue = "    sending_queue: { queue_size: 2, num_consumers: 1 }";
    let collector = Collector::start(config(&to(&slow, queue))).await.expect("it starts");
    let sender = Arc::new(Sender::new(&collector, Protocol::Grpc));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut sends = tokio::task::JoinSet::new();
    for round in 0..8_u64 {
        let (sender, answered) = (Arc::clone(&sender), Arc::clone(&answered));
        sends.spawn(async move {
            sender.send(request(round * 10, 10), 10).await.expect("it is taken in the end");
            answered.fetch_add(1, Ordering::Relaxed);
        });
    }
    until("the queue is full", || answered.load(Ordering::Relaxed) >= 3).await;
    assert!(answered.load(Ordering::Relaxed) < 8, "somebody waits");
    open.add_permits(1_000);
    while let Some(sent) = sends.join_next().await {
        sent.expect("no panic");
    }
    until("all arrive", || arrived.count() == 80).await;
    assert_eq!((arrived.missing(80), arrived.duplicates()), (vec![], 0));
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_full_queue_that_may_not_block_asks_the_sender_to_come_back_and_is_counted() {
    let (destination, ..) = away().await;
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1, block_on_overflow: false }";
    let collector = Collector::start(config(&to(&destination, queue))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let mut refused = 0;
    for round in 0..10 {
        if let Err(error) = sender.send(request(round * 10, 10), 10).await {
            assert_ne!(error.retry(), spanwire_transport::Retry::Never, "{error}");
            refused += 10;
        }
    }
    assert!(refused > 0);
    let stats = collector.stats();
    assert_eq!(stats.exporters[0].account.refused, refused);
    assert_eq!(stats.receivers[0].refused, refused);
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_shutdown_sends_what_is_held_and_counts_what_it_cannot_send() {
    let (destination, arrived) = destination(takes_all).await;
    let batch = "    sending_queue: { batch: { flush_timeout: 1h, min_size: 1000000 } }";
    let collector = Collector::start(config(&to(&destination, batch))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 100), 100).await.expect("the queue takes it");
    assert_eq!(arrived.count(), 0);
    assert_eq!(collector.shutdown(PATIENCE).await.spans_lost, 0);
    assert_eq!(arrived.missing(100), Vec::<u64>::new());

    let nobody = "127.0.0.1:9".parse().expect("an address");
    let collector = Collector::start(config(&to_address(nobody, ""))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 100), 100).await.expect("the queue takes it");
    assert_eq!(collector.shutdown(Duration::from_millis(300)).await.spans_lost, 100);
}

#[tokio::test]
async fn whatever_a_destination_does_not_take_during_a_shutdown_is_counted_as_lost() {
    let unavailable: fn(&Received) -> Answer = |_| Err(Refusal::Unavailable { retry_after: None });
    let invalid: fn(&Received) -> Answer =
        |_| Err(Refusal::Invalid { message: "too old".to_owned() });
    let in_part: fn(&Received) -> Answer =
        |_| Ok(Accepted { rejected_spans: 3, message: "too old".to_owned() });
    for (answer, lost_each) in [(unavailable, 10), (invalid, 10), (in_part, 3)] {
        let gate = Arc::new(tokio::sync::Semaphore::new(1));
        let (destination, _) = destination_behind(&gate, answer).await;
        let queue = "    sending_queue: { num_consumers: 1 }";
        let yaml = to(&destination, queue).replace(
            "retry_on_failure: { initial_interval: 20ms, max_interval: 50ms }",
            "retry_on_failure: { enabled: false }",
        );
        let collector = Collector::start(config(&yaml)).await.expect("it starts");
        let sender = Sender::new(&collector, Protocol::Grpc);
        sender.send(request(0, 10), 10).await.expect("the queue takes it");
        let gone = || {
            let account = account(&collector, "otlp");
            account.dropped_in_all() + account.rejected
        };
        until("the first is lost before", || gone() == lost_each).await;
        for round in 1..=5 {
            sender.send(request(round * 10, 10), 10).await.expect("the queue takes it");
        }
        let (report, ()) = tokio::join!(collector.shutdown(PATIENCE), async { gate.close() });
        assert_eq!(report.spans_lost, 5 * lost_each);
    }
}

#[tokio::test]
async fn a_request_that_came_compressed_goes_out_as_the_very_bytes_it_came_as() {
    let came = Arc::new(std::sync::Mutex::new(Vec::new()));
    let taking = Arc::clone(&came);
    let sink = move |received: Received| {
        let compressed = received.compressed.as_ref().map(|one| one.bytes.clone());
        taking.lock().expect("no panic").push(compressed);
        async { Ok(Accepted::default()) }
    };
    let any = "127.0.0.1:0".parse().expect("an address");
    let builder = spanwire_receiver::Receiver::builder().grpc(any).keep_compressed(true);
    let destination = builder.bind(sink).await.expect("a free port");
    let yaml = to(&destination, "    sending_queue: { wait_for_result: true }")
        .replace("compression: none", "compression: gzip");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");

    // No level of ours makes these bytes: stored, not compressed.
    let plain = request(0, 10);
    let mut stored = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut stored, &plain).expect("memory");
    let stored = stored.finish().expect("memory");
    let url = format!("http://{}", address(&collector, "grpc"));
    let settings = spanwire_transport::TransportConfig::new(Protocol::Grpc, &url)
        .and_then(|settings| settings.compression(Compression::Gzip))
        .expect("a good address");
    let transport = spanwire_transport::Transport::new(&settings).expect("good settings");
    let encoded = transport.frame(stored.clone().into(), plain.len(), 10).expect("it sends gzip");
    let told = transport.send(&encoded).await.expect("it is taken");
    assert_eq!(told.rejected_spans, 0);
    assert_eq!(*came.lock().expect("no panic"), [Some(stored.into())]);
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_refusal_that_no_other_payload_would_cure_is_not_asked_for_twice() {
    let wrong_path = |_: &Received| Err(Refusal::Internal { message: "no such tenant".to_owned() });
    let (destination, arrived) = destination(wrong_path).await;
    let batch = "    sending_queue: { batch: { flush_timeout: 50ms, min_size: 100000 } }";
    let collector = Collector::start(config(&to(&destination, batch))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    for round in 0..32 {
        sender.send(request(round * 10, 10), 10).await.expect("the queue takes it");
    }
    let dropped = || collector.stats().exporters[0].account.dropped(DropReason::Rejected);
    until("all are dropped", || dropped() == 320).await;
    let attempts = arrived.attempts.load(Ordering::Relaxed);
    assert!(attempts < 32, "{attempts} attempts for 32 requests");
    assert_balanced(&collector);
}

#[tokio::test]
async fn with_two_destinations_that_are_full_the_first_to_have_room_is_enough() {
    let (dead, ..) = away().await;
    let (slow, arrived, away) = away().await;
    let queue = "    sending_queue: { queue_size: 2, num_consumers: 1 }";
    let yaml = to(&slow, queue).replace("service:\n", &format!(
        "  otlp/dead: {{ endpoint: {}, tls: {{ insecure: true }}, sending_queue: {{ queue_size: 2, num_consumers: 1 }} }}\nservice:\n",
        dead.grpc_address().expect("served"),
    ));
    let yaml = yaml.replace("exporters: [otlp]", "exporters: [otlp/dead, otlp]");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Arc::new(Sender::new(&collector, Protocol::Grpc));
    let mut sends = tokio::task::JoinSet::new();
    for round in 0..20_u64 {
        let sender = Arc::clone(&sender);
        sends.spawn(async move { sender.send(request(round * 10, 10), 10).await });
    }
    until("the queues are full", || {
        let stats = collector.stats();
        stats.exporters.iter().all(|one| one.account.accepted >= 20)
    })
    .await;
    away.store(false, Ordering::Relaxed);
    while let Some(sent) = sends.join_next().await {
        sent.expect("no panic").expect("the one that is well takes it");
    }
    until("all arrive", || arrived.count() == 200).await;
    assert_eq!((arrived.missing(200), arrived.duplicates()), (Vec::<u64>::new(), 0));
    assert_balanced(&collector);
}

#[tokio::test]
async fn without_a_queue_each_sender_s_request_is_sent_at_once() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (slow, arrived) = destination_behind(&gate, takes_all).await;
    let queue = "    sending_queue: { enabled: false }";
    let collector = Collector::start(config(&to(&slow, queue))).await.expect("it starts");
    let sender = Arc::new(Sender::new(&collector, Protocol::Grpc));
    let mut sends = tokio::task::JoinSet::new();
    for round in 0..25_u64 {
        let sender = Arc::clone(&sender);
        sends.spawn(async move { sender.send(request(round * 10, 10), 10).await });
    }
    until("all are on their way", || arrived.attempts.load(Ordering::Relaxed) == 25).await;
    gate.close();
    while let Some(sent) = sends.join_next().await {
        sent.expect("no panic").expect("it is taken");
    }
    assert_eq!((arrived.missing(250), arrived.duplicates()), (vec![], 0));
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_sender_does_not_wait_for_room_for_longer_than_it_waits_for_an_answer() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1 }";
    let collector = Collector::start(config(&to_address(nobody, queue))).await.expect("it starts");
    let sender = Arc::new(Sender::new(&collector, Protocol::HttpProtobuf));
    let mut sends = tokio::task::JoinSet::new();
    for round in 0..10_u64 {
        let sender = Arc::clone(&sender);
        sends.spawn(async move { sender.send(request(round * 10, 10), 10).await });
    }
    let mut come_back = 0;
    while let Some(sent) = sends.join_next().await {
        if let Err(error) = sent.expect("no panic") {
            assert!(error.to_string().contains("503"), "{error}");
            come_back += 10;
        }
    }
    let account = account(&collector, "otlp");
    assert!(come_back > 0);
    assert_eq!((account.refused, account.accepted), (come_back, 100 - come_back));
    assert_balanced(&collector);
}
