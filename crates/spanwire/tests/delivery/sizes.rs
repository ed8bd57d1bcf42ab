//! Requests that are too large, for us or for the collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use spanwire::{BatchConfig, Client, Compression, Protocol, Reason};
use spanwire_receiver::{Accepted, Receiver, Refusal};

use crate::support::{Collector, LONG, PROTOCOLS, assert_balanced};

const LIMIT: usize = 64 << 10;

fn record(client: &Client, spans: usize, text: &str) {
    let tracer = client.tracer("large");
    for span in 0..spans {
        tracer.start(&format!("large {span}")).set_attribute("text", text);
    }
}

/// Faults 99.
#[test]
fn requests_stay_within_their_limit_and_a_span_beyond_it_travels_alone() {
    let collector = Collector::start();
    let batch = BatchConfig { request_bytes_max: LIMIT, ..BatchConfig::default() };
    let client = collector.client(Protocol::Grpc).batch(batch).build().expect("valid");
    record(&client, 100, &"x".repeat(20_000));
    let huge = "x".repeat(LIMIT);
    client.tracer("large").start("larger than a request").set_attribute("text", huge);
    let report = client.flush_blocking(LONG);
    assert!(report.complete, "{report}");
    assert_eq!(client.stats().exported, 101);
    assert_eq!(collector.names().len(), 101);
    let requests = collector.requests();
    assert_eq!(requests.iter().filter(|request| request.len() > LIMIT).count(), 1);
    assert_balanced(&client);
}

/// The memory in all is 1 MiB, of which a queue has five eighths.
#[test]
fn a_span_larger_than_the_queue_is_lost_for_its_size_and_takes_no_other_along() {
    let collector = Collector::start();
    let batch = BatchConfig {
        memory_bytes_max: 1 << 20,
        age_max: Duration::from_secs(3600),
        ..BatchConfig::default()
    };
    let client = collector.client(Protocol::Grpc).batch(batch).build().expect("valid");
    let tracer = client.tracer("large");
    tracer.start("too large").set_attribute("text", "x".repeat(800 << 10));
    (0..1_000).for_each(|_| tracer.start("small").end());
    let report = client.flush_blocking(LONG);
    assert!(report.complete, "{report}");
    let stats = client.stats();
    assert_eq!((stats.exported, stats.dropped.by(Reason::TooLarge)), (1_000, 1), "{stats}");
    assert_balanced(&client);
}

/// Faults 99, 104, 108. Pitfall 8.
#[test]
fn a_batch_the_collector_finds_too_large_is_split_until_it_passes() {
    for protocol in PROTOCOLS {
        for compression in [Compression::None, Compression::Gzip] {
            let receiver = Receiver::builder()
                .grpc_request_bytes_max(512 << 10)
                .http_request_bytes_max(512 << 10);
            let collector = Collector::start_from(receiver, |_| Ok(Accepted::default()));
            let client = collector.client(protocol).compression(compression);
            let client = client.build().expect("valid");
            record(&client, 150, &"x".repeat(20_000));
            let huge = "y".repeat(600 << 10);
            client.tracer("large").start("too large for all").set_attribute("text", huge);
            let report = client.flush_blocking(LONG);
            assert!(report.complete, "{protocol:?} {compression:?}: {report}");
            let stats = client.stats();
            let lost = stats.dropped.by(Reason::TooLarge);
            assert_eq!((stats.exported, lost), (150, 1), "{protocol:?} {compression:?}: {stats}");
            let names = collector.names();
            assert!(names.len() == 150 && names.values().all(|&times| times == 1));
            assert_balanced(&client);
        }
    }
}

/// What a refusal taught holds for the next batch: it comes in pieces at once.
#[test]
fn the_collector_s_limit_is_learnt_from_its_refusal() {
    let receiver = Receiver::builder().http_request_bytes_max(1 << 20);
    let collector = Collector::start_from(receiver, |_| Ok(Accepted::default()));
    let client = collector.client(Protocol::HttpProtobuf).build().expect("valid");
    record(&client, 150, &"x".repeat(20_000));
    assert!(client.flush_blocking(LONG).complete);
    let failures = client.stats().failures;
    assert!(failures > 0, "3 MB went through 1 MiB");
    record(&client, 150, &"x".repeat(20_000));
    assert!(client.flush_blocking(LONG).complete);
    let stats = client.stats();
    assert_eq!((stats.exported, stats.failures), (300, failures), "{stats}");
    assert_balanced(&client);
}

/// RESOURCE_EXHAUSTED without RetryInfo may mean a spent quota, which smaller requests would only
/// make worse.
///
/// Faults 108.
#[test]
fn a_collector_that_refuses_every_size_is_not_flooded_with_pieces() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let collector = Collector::start_with(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        Err(Refusal::TooLarge { message: "no".into() })
    });
    let client = collector.client(Protocol::Grpc).build().expect("valid");
    record(&client, 150, &"x".repeat(20_000));
    let report = client.flush_blocking(LONG);
    assert!(report.complete && report.dropped == 150, "{report}");
    let requests = requests.load(Ordering::Relaxed);
    assert!(requests <= 10, "{requests} requests for one batch");
    assert_balanced(&client);
}

/// Faults 99: beyond what OTLP lets a client send at all.
#[test]
fn a_span_beyond_the_protocol_s_limit_is_dropped_and_counted() {
    let collector = Collector::start();
    let batch = BatchConfig {
        memory_bytes_max: 512 << 20,
        age_max: Duration::from_millis(10),
        ..BatchConfig::default()
    };
    let client = collector.client(Protocol::HttpProtobuf).batch(batch).build().expect("valid");
    let tracer = client.tracer("large");
    tracer.start("over 64 MiB").set_attribute("text", "x".repeat(65 << 20));
    tracer.start("after").end();
    let report = client.flush_blocking(LONG);
    assert!(report.complete, "{report}");
    let stats = client.stats();
    assert_eq!((stats.exported, stats.dropped.by(Reason::TooLarge)), (1, 1), "{stats}");
    assert_balanced(&client);
}
