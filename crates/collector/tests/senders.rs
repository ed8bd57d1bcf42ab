//! What senders meet: room that they wait for, connections that are one too many, names that lead to
//! where their spans go.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spanwire_collector::{Collector, ReceiverStats};
use spanwire_transport::Protocol;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn limited(yaml: &str, limit_mib: u32) -> String {
    let limiter = format!("\nprocessors: {{ memory_limiter: {{ limit_mib: {limit_mib} }} }}");
    let yaml = yaml.replace("\nexporters:", &format!("{limiter}\nexporters:"));
    yaml.replace("receivers: [otlp],", "receivers: [otlp], processors: [memory_limiter],")
}

fn of(collector: &Collector, transport: &str) -> ReceiverStats {
    let receivers = collector.stats().receivers;
    receivers.into_iter().find(|one| one.transport == transport).expect("it is served")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_is_alone_waits_for_room_before_it_is_refused() {
    const REQUESTS: u64 = 60;
    // A queue of 25.6 MiB, and requests of nearly one: two of them are on their way.
    let (destination, arrived, away) = away().await;
    let yaml = limited(&to(&destination, "    sending_queue: { num_consumers: 2 }"), 64);
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Arc::new(Sender::new(&collector, Protocol::Grpc));
    let next = Arc::new(AtomicU64::new(0));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (sender, next) = (Arc::clone(&sender), Arc::clone(&next));
        senders.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS {
                    return;
                }
                let request = named(number * 10, 10, &"x".repeat(100_000));
                sender.send(request, 10).await.expect("it waits, and is not refused");
            }
        });
    }
    until("the queue is full", || {
        assert_eq!(of(&collector, "grpc").refused, 0);
        collector.stats().exporters[0].account.accepted >= 280
    })
    .await;
    away.store(false, Ordering::Relaxed);
    while let Some(sender) = senders.join_next().await {
        sender.expect("no request was refused");
    }
    until("all arrive", || arrived.count() as u64 == REQUESTS * 10).await;
    assert_eq!(of(&collector, "grpc").refused, 0);
}

#[tokio::test]
async fn spans_of_a_sender_that_gives_up_while_it_waits_may_be_sent_again() {
    let (destination, ..) = away().await;
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1 }";
    let collector = Collector::start(config(&to(&destination, queue))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let mut sent = 0;
    let gave_up = loop {
        let send = sender.send(request(sent * 10, 10), 10);
        match tokio::time::timeout(Duration::from_millis(500), send).await {
            Ok(taken) => drop(taken.expect("it is taken")),
            Err(gave_up) => break gave_up,
        }
        sent += 1;
        assert!(sent < 10, "the queue is full");
    };
    drop((gave_up, sender));
    until("it is counted", || of(&collector, "grpc").refused == 10).await;
    assert_eq!(of(&collector, "grpc").failed, 0, "it was not refused for good");
}

#[tokio::test]
async fn a_destination_with_the_name_of_a_resolver_before_its_own_gets_its_spans() {
    let (destination, arrived) = destination(takes_all).await;
    let port = destination.grpc_address().expect("served").port();
    let at = |endpoint: &str| {
        to(&destination, "").replace(&format!("endpoint: 127.0.0.1:{port}"), endpoint)
    };
    for (round, form) in ["dns:///", "dns:"].into_iter().enumerate() {
        let yaml = at(&format!("endpoint: {form}127.0.0.1:{port}"));
        let collector = Collector::start(config(&yaml)).await.expect("it starts");
        let sender = Sender::new(&collector, Protocol::Grpc);
        sender.send(request(round as u64 * 10, 10), 10).await.expect("it is taken");
        assert_eq!(collector.shutdown(Duration::from_secs(10)).await.spans_lost, 0);
    }
    assert_eq!((arrived.missing(20), arrived.duplicates()), (vec![], 0));
}

#[tokio::test]
async fn connections_that_break_the_protocol_are_counted() {
    let (destination, _) = destination(takes_all).await;
    let collector = Collector::start(config(&to(&destination, ""))).await.expect("it starts");
    let mut stranger = TcpStream::connect(address(&collector, "grpc")).await.expect("it listens");
    stranger.write_all(b"\x16\x03\x01 this is TLS, more or less\r\n\r\n").await.expect("it reads");
    let mut rest = Vec::new();
    // Cut off, with or without a word.
    let _ended = stranger.read_to_end(&mut rest).await;
    until("it is counted", || of(&collector, "grpc").connections.failed == 1).await;
    let (grpc, http) = (of(&collector, "grpc").connections, of(&collector, "http").connections);
    assert_eq!((grpc.accepted, grpc.open), (1, 0));
    assert_eq!((http.accepted, http.failed), (0, 0));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_it_shows() {
    let (destination, _) = destination(takes_all).await;
    // So little memory that the least number of connections remains.
    let yaml = limited(&to(&destination, ""), 1);
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let address = address(&collector, "http");
    let limit = of(&collector, "http").connections.max;
    assert_eq!(limit, 256);
    let mut idle = Vec::new();
    for _ in 0..limit {
        idle.push(TcpStream::connect(&address).await.expect("it listens"));
    }
    until("all places are taken", || of(&collector, "http").connections.open == limit).await;
    let mut waiting = TcpStream::connect(&address).await.expect("the system takes it");
    waiting.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("it is open");
    let mut start = [0; 12];
    let answer = tokio::time::timeout(Duration::from_millis(200), waiting.read_exact(&mut start));
    answer.await.expect_err("there is no place for it");
    idle.pop();
    waiting.read_exact(&mut start).await.expect("it has the place of one that left");
    assert_eq!(start, *b"HTTP/1.1 404");
}
