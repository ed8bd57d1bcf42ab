//! Destinations that die, refuse and dawdle: what the collector accepted meanwhile arrives, and what
//! comes twice is what a destination had taken and not answered for.
#![cfg(target_os = "linux")]

mod endurance;
mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use endurance::{BESIDE_BYTES, Books, Conduct, Found, Limits, Room, Sink, lasting, load};
use spanwire_load::{Report, Run, Stop};
use spanwire_receiver::Receiver;
use support::process::Process;
use tokio::runtime::Runtime;

/// Room for what comes while a destination is away.
const LIMITS: Limits = Limits { budget_mib: 256, request_mib_max: 16 };

/// A collector between senders of numbered spans and one destination.
struct Stage {
    room: Room,
    runtime: Runtime,
    run: Run,
    sink: Arc<Sink>,
    destination: Option<Receiver>,
    collector: Process,
}

impl Stage {
    /// `exporter` is its type and its settings with the address of the destination left out.
    fn set(limits: Limits, conduct: Conduct, exporter: &str, more: &str) -> Self {
        let room = Room::Budget(limits);
        let run = Run::random();
        let sink = Sink::new(&[run], conduct);
        let runtime = Runtime::new().expect("a runtime");
        let destination = runtime.block_on(sink.serve(SocketAddr::from(([127, 0, 0, 1], 0))));
        let endpoint = match exporter {
            "otlp" => destination.grpc_address().expect("served").to_string(),
            _ => format!("http://{}", destination.http_address().expect("served")),
        };
        let retry = "retry_on_failure: { initial_interval: 50ms, max_interval: 500ms }";
        let queue = "sending_queue: { queue_size: 10000 }";
        let settings = format!("tls: {{ insecure: true }}, compression: none, {retry}, {queue}");
        let exporter = format!("{exporter}: {{ endpoint: \"{endpoint}\", {settings}{more} }}");
        let collector = room.start(&exporter);
        Self { room, runtime, run, sink, destination: Some(destination), collector }
    }

    /// Sends at this rate, in requests of a hundred spans.
    fn send(&self, spans_per_second: u32, time: Duration) -> Report {
        self.load(&format!("--rate {spans_per_second} --duration {}", time.as_secs_f64()))
    }

    fn load(&self, options: &str) -> Report {
        let load = load(options, &self.collector, self.run, self.sink.ledger(0));
        load.run(&Stop::default(), drop).expect("a report")
    }

    /// Tells what came of it and checks what holds whatever a destination does. Gives the last books
    /// and the spans that came twice.
    fn judge(&self, what: &str, report: &Report, explained: String) -> (Books, u64) {
        let books = self.collector.settled();
        let accepted = report.spans_accepted();
        let (arrived, delivery) = (self.sink.arrived(0), report.delivery.expect("asked for"));
        let (memory_peak, memory_max) = self.room.memory(&self.collector);
        let found = Found {
            what,
            accepted,
            lost: delivery.lost,
            duplicates: arrived.duplicated,
            explained,
            memory_peak,
            memory_max,
        };
        found.tell();
        assert_eq!(report.measured.requests_failed(), 0, "nobody is refused: {report}");
        assert_eq!((delivery.lost, arrived.distinct), (0, accepted), "{report}");
        assert_eq!((books.ledger("accepted"), books.ledger("sent")), (accepted, accepted));
        assert!(found.memory_peak <= found.memory_max, "{} bytes", found.memory_peak);
        (books, arrived.duplicated)
    }
}

/// Waits until nobody listens there.
fn refused(address: SocketAddr) {
    let since = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(since.elapsed() < Duration::from_secs(10), "it listens still");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Faults 96, 119.
#[test]
fn a_destination_that_was_killed_gets_what_it_had_not_answered_for_and_what_came_meanwhile() {
    let _alone = endurance::alone();
    let outage = lasting(Duration::from_secs(2));
    let (before, after) = (Duration::from_secs(1), Duration::from_secs(1));
    let mut stage = Stage::set(LIMITS, Conduct::Takes(Duration::from_millis(100)), "otlp", "");
    let destination = stage.destination.take().expect("it was set");
    let address = destination.grpc_address().expect("served");

    let ((report, unanswered), looks) = stage.collector.watched(|| {
        thread::scope(|scope| {
            let sending = scope.spawn(|| stage.send(5_000, before + outage + after));
            thread::sleep(before);
            drop(destination);
            refused(address);
            thread::sleep(outage);
            refused(address);
            // What it has taken and the collector does not know of.
            let unanswered = stage.sink.entered() - stage.collector.books().ledger("sent");
            let _again = stage.runtime.block_on(stage.sink.serve(address));
            let report = sending.join().expect("no panic");
            stage.collector.settled();
            (report, unanswered)
        })
    });
    let explained = format!("{unanswered} were taken and not answered for when it died");
    let what = format!("the destination killed for {} s", outage.as_secs());
    let (_, duplicates) = stage.judge(&what, &report, explained);
    assert_eq!(duplicates, unanswered, "what it had taken comes again, and nothing else");
    assert!(looks.queued_max >= 4_000 * outage.as_secs(), "what came meanwhile waited: {looks:?}");
    looks.assert_balanced();
    stage.collector.ends_well();
}

#[test]
fn a_destination_that_refuses_every_tenth_request_gets_each_span_once() {
    let _alone = endurance::alone();
    for (exporter, status) in [("otlp", "UNAVAILABLE"), ("otlp_http", "503")] {
        let stage = Stage::set(LIMITS, Conduct::RefusesEveryTenth, exporter, "");
        let time = lasting(Duration::from_secs(2)).min(Duration::from_secs(5));
        let (report, looks) = stage.collector.watched(|| stage.send(20_000, time));
        let what = format!("every tenth request refused with {status}");
        let refused = stage.sink.refused();
        let (books, duplicates) = stage.judge(
            &what,
            &report,
            format!("{refused} requests were refused, and none of it taken"),
        );
        assert!(refused >= 10, "{refused} requests were refused");
        assert_eq!(books.sum("spanwire_exporter_failures_total", ""), refused);
        assert_eq!(duplicates, 0);
        looks.assert_balanced();
        stage.collector.ends_well();
    }
}

#[test]
fn a_destination_that_dawdles_and_leaves_requests_unanswered_gets_each_span_and_those_twice() {
    let _alone = endurance::alone();
    let slowly = Duration::from_millis(50);
    let stage = Stage::set(LIMITS, Conduct::LeavesEveryTenth(slowly), "otlp", ", timeout: 400ms");
    let time = lasting(Duration::from_secs(2)).min(Duration::from_secs(10));
    let ((report, _), looks) = stage.collector.watched(|| {
        let report = stage.send(5_000, time);
        (report, stage.collector.settled())
    });
    let unanswered = stage.sink.unanswered();
    let explained = format!("{unanswered} were taken and not answered for in time");
    let (books, duplicates) = stage.judge("slow answers, every tenth never", &report, explained);
    assert!(unanswered > 0, "some were left unanswered");
    assert_eq!(
        duplicates, unanswered,
        "what it took without an answer comes again, and nothing else"
    );
    assert!(books.sum("spanwire_exporter_failures_total", "") > 0);
    looks.assert_balanced();
    stage.collector.ends_well();
}

#[test]
#[ignore = "takes more than a gigabyte of memory; cargo xtask endure runs it"]
fn a_gigabyte_that_waits_for_its_destination_takes_its_own_size_of_memory() {
    const GIGABYTE: u64 = 1 << 30;
    let _alone = endurance::alone();
    // Queues hold half of the budget.
    let limits = Limits { budget_mib: 3 << 10, request_mib_max: 16 };
    let mut stage = Stage::set(limits, Conduct::Takes(Duration::ZERO), "otlp", "");
    let destination = stage.destination.take().expect("it was set");
    let address = destination.grpc_address().expect("served");
    drop(destination);
    refused(address);
    let ((report, held, peak), looks) = stage.collector.watched(|| {
        let options = "--rate 400000 --duration 7 --spans-per-request 1000 --settle 0";
        let report = stage.load(options);
        let peak = stage.collector.memory_peak();
        let held = report.measured.requests_accepted * report.request_bytes as u64;
        assert_eq!(stage.collector.books().queued(), report.spans_accepted(), "all of it waits");
        let _again = stage.runtime.block_on(stage.sink.serve(address));
        stage.collector.settled();
        (report, held, peak)
    });
    assert!(held >= GIGABYTE, "{held} bytes");
    let arrived = stage.sink.arrived(0);
    let found = Found {
        what: "a gigabyte that waits for its destination",
        accepted: report.spans_accepted(),
        lost: report.spans_accepted() - arrived.distinct,
        duplicates: arrived.duplicated,
        explained: format!("{held} bytes as they were sent"),
        memory_peak: peak,
        memory_max: held + BESIDE_BYTES,
    };
    found.tell();
    assert_eq!((found.lost, found.duplicates), (0, 0));
    assert!(found.memory_peak <= found.memory_max, "{} bytes", found.memory_peak);
    looks.assert_balanced();
    stage.collector.ends_well();
}
