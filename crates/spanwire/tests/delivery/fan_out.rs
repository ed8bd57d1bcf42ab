//! Several destinations: each has every span, and none waits for another that is stuck.

use std::time::Duration;

use spanwire::{BatchConfig, Compression, Otlp, Overflow, Protocol, Reason, Stats};
use spanwire_faultproxy::{Direction, FaultProxy, Plan};
use spanwire_receiver::{Accepted, Refusal};

use crate::support::{Collector, LONG, SECOND, assert_balanced, black_hole, fast_retries};

fn otlp(protocol: Protocol, endpoint: String) -> Otlp {
    let endpoints = vec![endpoint.into()];
    Otlp { protocol, endpoints, retry: fast_retries(), ..Otlp::default() }
}

fn small_batches(memory_bytes_max: usize) -> BatchConfig {
    BatchConfig {
        spans_max: 500,
        age_max: Duration::from_millis(20),
        memory_bytes_max,
        ..BatchConfig::default()
    }
}

/// Faults 94.
#[test]
fn every_destination_gets_the_same_spans_in_its_own_form() {
    let [first, second, third] = [(); 3].map(|()| Collector::start());
    let gzip = Otlp {
        compression: Compression::Gzip,
        ..otlp(Protocol::HttpProtobuf, second.endpoint(Protocol::HttpProtobuf))
    };
    let json = otlp(Protocol::HttpJson, third.endpoint(Protocol::HttpJson));
    let client = first.client(Protocol::Grpc).destination(gzip).destination(json);
    let client = client.build().expect("valid");
    let tracer = client.tracer("fan-out");
    (0..1_000).for_each(|span| tracer.start(&format!("span {span}")).end());
    let report = client.flush_blocking(LONG);
    assert!(report.complete, "{report}");
    for collector in [&first, &second, &third] {
        let names = collector.names();
        assert!(names.len() == 1_000 && names.values().all(|&times| times == 1));
    }
    // Those in flight at once may arrive in either order.
    let sorted = |collector: &Collector| {
        let mut requests = collector.requests();
        requests.sort();
        requests
    };
    assert_eq!(sorted(&first), sorted(&second), "the same bytes");
    assert_eq!(client.stats_of_all().iter().map(|stats| stats.exported).sum::<u64>(), 3_000);
    assert_balanced(&client);
}

#[test]
fn a_destination_that_never_answers_fills_no_queue_that_is_bounded_in_spans() {
    const SPANS: u64 = 20_000;
    let (_listener, silent) = black_hole();
    let alive = Collector::start();
    let batch = BatchConfig { queue_spans_max: Some(2_048), ..small_batches(8 << 20) };
    let client =
        alive.client(Protocol::Grpc).destination(otlp(Protocol::Grpc, silent)).batch(batch);
    let client = client.build().expect("valid");
    let tracer = client.tracer("fan-out");
    for span in 0..SPANS {
        // Of which the silent one has room for 2,000 and the queue, in bytes, for all.
        tracer.start("a span of half a kilobyte").set_attribute("text", "x".repeat(450));
        if span % 40 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let stats = client.stats_of_all();
    assert_eq!((stats[0].started, stats[0].dropped.total()), (SPANS, 0), "{}", stats[0]);
    assert!(stats[1].dropped.by(Reason::QueueFull) > SPANS / 2, "{}", stats[1]);
    assert!(!client.shutdown_blocking(Duration::from_millis(50)).complete);
    assert_balanced(&client);
}

/// Faults 94.
#[test]
fn a_destination_that_never_answers_holds_up_no_other_and_loses_for_itself_alone() {
    const SPANS: u64 = 60_000;
    let (_listener, silent) = black_hole();
    let alive = Collector::start();
    let client = alive
        .client(Protocol::Grpc)
        .destination(otlp(Protocol::Grpc, silent))
        .batch(BatchConfig {
            overflow: Overflow::Block { timeout: LONG },
            // Nothing but the destinations themselves may set things going again.
            age_max: Duration::from_secs(3600),
            ..small_batches(2 << 20)
        })
        .build()
        .expect("valid");
    let tracer = client.tracer("fan-out");
    for _ in 0..SPANS {
        let mut span = tracer.start("a span of about one hundred bytes");
        span.set_attribute("an.attribute", "to make it a little longer");
    }
    let report = client.flush_blocking(10 * SECOND);
    assert!(!report.complete, "one of them never answers: {report}");
    let stats = client.stats_of_all();
    let [alive_stats, silent_stats] = &stats[..] else { panic!("two destinations: {stats:?}") };
    assert_eq!(alive_stats.exported, SPANS, "{alive_stats}");
    assert_eq!(silent_stats.exported, 0, "{silent_stats}");
    assert!(silent_stats.dropped.by(Reason::QueueFull) > 0, "{silent_stats}");
    assert_eq!(silent_stats.dropped.total() + silent_stats.pending.total(), SPANS);
    assert_balanced(&client);

    assert!(!client.shutdown_blocking(Duration::from_millis(100)).complete);
    let silent_stats: &Stats = &client.stats_of_all()[1];
    assert_eq!(silent_stats.dropped.total(), SPANS, "{silent_stats}");
    assert_balanced(&client);
}

/// Faults 95.
#[test]
fn a_destination_that_refuses_loses_for_itself_alone() {
    let alive = Collector::start();
    let refusing = Collector::start_with(|_| Err(Refusal::Invalid { message: "no".into() }));
    let picky = Collector::start_with(|received| {
        Ok(Accepted { rejected_spans: received.spans as u64 / 2, message: "half".into() })
    });
    let client = alive
        .client(Protocol::Grpc)
        .destination(otlp(Protocol::Grpc, refusing.endpoint(Protocol::Grpc)))
        .destination(otlp(Protocol::Grpc, picky.endpoint(Protocol::Grpc)))
        .build()
        .expect("valid");
    let tracer = client.tracer("fan-out");
    (0..100).for_each(|_| tracer.start("span").end());
    let report = client.flush_blocking(LONG);
    assert!(report.complete, "{report}");
    assert_eq!((report.exported, report.rejected, report.dropped), (150, 50, 100));
    let stats = client.stats_of_all();
    assert_eq!(stats[0].exported, 100);
    assert_eq!(stats[1].dropped.by(Reason::Refused), 100);
    assert_eq!((stats[2].exported, stats[2].rejected), (50, 50));
    assert_balanced(&client);
}

#[test]
fn a_slower_destination_that_keeps_up_in_the_end_loses_nothing() {
    const SPANS: usize = 30_000;
    let fast = Collector::start();
    let slow = Collector::start();
    let narrow = FaultProxy::start(slow.address(Protocol::Grpc)).expect("a port");
    narrow.set(Plan::healthy().rate(Direction::Up, 2 << 20).latency(Duration::from_millis(20)));
    let client = fast
        .client(Protocol::Grpc)
        .destination(otlp(Protocol::Grpc, format!("http://{}", narrow.address())))
        .batch(BatchConfig {
            overflow: Overflow::Block { timeout: LONG },
            ..small_batches(2 << 20)
        })
        .build()
        .expect("valid");
    let tracer = client.tracer("fan-out");
    (0..SPANS).for_each(|_| tracer.start("a span of about one hundred bytes").end());
    let report = client.flush_blocking(LONG);
    assert!(report.complete && report.dropped == 0, "{report}: {:?}", client.stats_of_all());
    assert_eq!(slow.names().values().sum::<usize>(), SPANS);
    assert_balanced(&client);
}

/// What `OTEL_TRACES_EXPORTER=none` asks for.
#[test]
fn without_a_destination_spans_are_counted_as_such_and_nothing_hangs() {
    let config = spanwire::Config { destinations: vec![], ..spanwire::Config::default() };
    let client = spanwire::Client::new(config).expect("valid");
    let tracer = client.tracer("none");
    (0..1_000).for_each(|_| tracer.start("span").end());
    let report = client.flush_blocking(LONG);
    assert!(report.complete && report.dropped == 1_000, "{report}");
    assert_eq!(client.stats().dropped.by(Reason::NoDestination), 1_000);
    assert_balanced(&client);
    assert_eq!(client.stats().destination, "none");
}
