//! Networks and collectors that fail, through a proxy that does it on purpose.

use std::time::{Duration, Instant};

use spanwire::{BatchConfig, Builder, Client, Overflow, Protocol, Reason, RetrySettings};
use spanwire_faultproxy::{Direction, Fault, FaultProxy, Plan};

use crate::support::{Collector, LONG, PROTOCOLS, SECOND, assert_balanced, client};

/// A client whose way to the collector leads through the proxy; attempts are given up quickly.
fn through(proxy: &FaultProxy, protocol: Protocol) -> Builder {
    client(&format!("http://{}", proxy.address()))
        .protocol(protocol)
        .request_timeout(Duration::from_millis(500))
        .connect_timeout(Duration::from_millis(500))
        .batch(BatchConfig {
            spans_max: 200,
            age_max: Duration::from_millis(20),
            overflow: Overflow::Block { timeout: LONG },
            ..BatchConfig::default()
        })
}

fn record(client: &Client, names: std::ops::Range<usize>) {
    let tracer = client.tracer("outage");
    for name in names {
        let mut span = tracer.start(&format!("span {name}"));
        span.set_attribute("an.attribute", "to make it a little longer");
    }
}

/// Faults 114, 115, 116, 117, 119, 125.
#[test]
fn whatever_a_network_does_each_span_arrives_at_least_once_or_is_counted() {
    const SPANS: usize = 4_000;
    for (seed, protocol) in (0..3).flat_map(|seed| PROTOCOLS.map(|protocol| (seed, protocol))) {
        let collector = Collector::start();
        let proxy = FaultProxy::start(collector.address(protocol)).expect("a port");
        proxy.set(Plan::seeded(seed));
        let client = through(&proxy, protocol).build().expect("valid");
        record(&client, 0..SPANS);
        let report = client.flush_blocking(LONG);
        let what = format!("seed {seed}, {protocol:?}: {report}; {:?}", proxy.stats());
        let stats = client.stats();
        assert!(report.complete && stats.pending.total() == 0, "{what}; {stats:?}");
        // A request cut short by a half-close is answered 400, which OTLP forbids to repeat.
        let refused = stats.dropped.by(Reason::Refused);
        assert!(refused <= proxy.stats().half_closes * 200, "{what}; {stats:?}");
        assert_eq!(stats.exported + refused, SPANS as u64, "{what}; {stats:?}");
        assert!(collector.names().len() as u64 >= stats.exported, "{what}; {stats:?}");
        assert_balanced(&client);
    }
}

/// Faults 114, 115, 116: each of them on the first connection; the second is whole.
#[test]
fn after_a_broken_connection_the_same_request_goes_over_a_new_one() {
    let faults = [
        (Direction::Up, 0, Fault::Reset),
        (Direction::Up, 2_000, Fault::Reset),
        (Direction::Up, 2_000, Fault::Close),
        (Direction::Up, 2_000, Fault::Stall),
        (Direction::Up, 2_000, Fault::Swallow),
        (Direction::Down, 0, Fault::Reset),
        (Direction::Down, 0, Fault::Stall),
        (Direction::Down, 50, Fault::Close),
        (Direction::Down, 50, Fault::Swallow),
    ];
    for (direction, after, fault) in faults {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let collector = Collector::start();
            let proxy = FaultProxy::start(collector.address(protocol)).expect("a port");
            proxy.set(Plan::healthy().fault(direction, after, fault));
            let client = through(&proxy, protocol).build().expect("valid");
            record(&client, 0..100);
            let what = format!("{protocol:?} {fault:?} after {after} bytes {direction:?}");
            assert!(!client.flush_blocking(Duration::from_millis(700)).complete, "{what}");
            assert!(proxy.stats().faults() > 0, "{what}: the fault was never met");
            proxy.set(Plan::healthy());
            let report = client.flush_blocking(LONG);
            assert!(report.complete && report.dropped == 0, "{what}: {report}");
            assert_eq!(collector.names().len(), 100, "{what}");
            assert_balanced(&client);
        }
    }
}

/// Faults 96, 119, 126.
#[test]
fn spans_of_an_outage_wait_within_the_memory_and_the_drops_are_exact() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let collector = Collector::start();
        let proxy = FaultProxy::start(collector.address(protocol)).expect("a port");
        proxy.set(Plan::refuse());
        let batch = BatchConfig {
            memory_bytes_max: 1 << 20,
            age_max: Duration::from_millis(20),
            ..BatchConfig::default()
        };
        let client = through(&proxy, protocol).batch(batch).build().expect("valid");
        record(&client, 0..20_000);
        let stats = client.stats();
        let dropped = stats.dropped.by(Reason::QueueFull) + stats.dropped.by(Reason::Memory);
        assert!(dropped > 0 && stats.pending.total() > 0, "{stats}");
        assert_eq!(dropped, stats.dropped.total(), "{stats}");
        assert_balanced(&client);

        proxy.set(Plan::healthy());
        let report = client.flush_blocking(LONG);
        assert!(report.complete, "{report}");
        let stats = client.stats();
        assert_eq!(stats.exported + stats.dropped.total(), 20_000, "{stats}");
        assert_eq!(collector.names().len() as u64, stats.exported, "what was kept has arrived");
        assert_balanced(&client);
    }
}

#[test]
fn requests_that_wait_hold_no_more_than_their_quarter_of_the_memory() {
    let collector = Collector::start();
    let proxy = FaultProxy::start(collector.address(Protocol::Grpc)).expect("a port");
    proxy.set(Plan::refuse());
    // Of which requests have 256 KiB, and the queue more than twice as much.
    let batch = BatchConfig { memory_bytes_max: 1 << 20, ..BatchConfig::default() };
    let client = through(&proxy, Protocol::Grpc).batch(batch).build().expect("valid");
    let (tracer, text) = (client.tracer("outage"), "x".repeat(1 << 10));
    for _ in 0..2_000 {
        tracer.start("more than 1 KiB").set_attribute("an.attribute", text.as_str());
    }
    // Moves what it can on its way out.
    assert!(!client.flush_blocking(Duration::from_millis(100)).complete);
    let stats = client.stats();
    assert!(stats.pending.queued > 0, "more than fits: {stats}");
    // What was gathered when there still was room for a byte is one chunk more.
    let most = (256 + 64) << 10;
    assert!((1..=most >> 10).contains(&stats.pending.in_flight), "{stats}");
    assert_balanced(&client);
}

/// Faults 115, 125, 142: an answer that takes long costs the recording thread nothing.
#[test]
fn a_slow_network_delays_no_recording_thread() {
    let collector = Collector::start();
    let proxy = FaultProxy::start(collector.address(Protocol::Grpc)).expect("a port");
    proxy.set(Plan::healthy().latency(SECOND).rate(Direction::Up, 10 << 10));
    let client = through(&proxy, Protocol::Grpc)
        .batch(BatchConfig { memory_bytes_max: 1 << 20, ..BatchConfig::default() })
        .build()
        .expect("valid");
    let before = Instant::now();
    record(&client, 0..50_000);
    assert!(before.elapsed() < 5 * SECOND, "the network would take minutes");
    let stats = client.stats();
    assert!(stats.dropped.total() > 0 && stats.pending.total() > 0, "{stats}");
    assert_balanced(&client);
    assert!(!client.shutdown_blocking(Duration::from_millis(200)).complete);
    assert_balanced(&client);
}

/// What waits for its next attempt goes as soon as the collector is known to be back, and at the
/// latest when there will be no later chance.
///
/// Faults 119.
#[test]
fn after_an_outage_nothing_sits_out_a_long_wait() {
    let hour = Duration::from_secs(3600);
    // A moment after the first failure, and an hour after the second.
    let retry = RetrySettings {
        interval_initial: Duration::from_millis(200),
        interval_max: hour,
        multiplier: 1e6,
        elapsed_max: 10 * hour,
        ..RetrySettings::default()
    };
    for by_success in [true, false] {
        let collector = Collector::start();
        let proxy = FaultProxy::start(collector.address(Protocol::Grpc)).expect("a port");
        proxy.set(Plan::refuse());
        let client = through(&proxy, Protocol::Grpc).retry(retry).build().expect("valid");
        record(&client, 0..100);
        assert!(!client.flush_blocking(SECOND).complete, "it waits for an hour by now");
        assert_eq!(client.stats().failures, 2);
        proxy.set(Plan::healthy());
        let report = if by_success {
            record(&client, 100..200);
            client.flush_blocking(LONG)
        } else {
            client.shutdown_blocking(LONG)
        };
        assert!(report.complete, "{report}: {:?}", client.stats());
        assert_eq!(collector.names().len(), if by_success { 200 } else { 100 });
        assert_balanced(&client);
    }
}

/// With its default settings a batch waits for seconds; a shutdown has less than that.
#[test]
fn a_short_shutdown_after_an_outage_still_delivers() {
    let collector = Collector::start();
    let proxy = FaultProxy::start(collector.address(Protocol::Grpc)).expect("a port");
    proxy.set(Plan::refuse());
    let client = through(&proxy, Protocol::Grpc).retry(RetrySettings {
        interval_initial: 10 * SECOND,
        interval_max: 30 * SECOND,
        randomization: 0.0,
        ..RetrySettings::default()
    });
    let client = client.build().expect("valid");
    record(&client, 0..100);
    assert!(!client.flush_blocking(Duration::from_millis(200)).complete);
    proxy.set(Plan::healthy());
    let report = client.shutdown_blocking(5 * SECOND);
    assert!(report.complete && report.exported == 100, "{report}: {:?}", client.stats());
    assert_balanced(&client);
}
