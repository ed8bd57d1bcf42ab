//! More than a collector can take: of spans, and of bytes that claim to become spans. Its memory has
//! a bound all the same, its books balance at every look, and what it accepted arrives.
#![cfg(target_os = "linux")]

mod endurance;
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use endurance::bombs::{self, Answer};
use endurance::{Conduct, Found, Group, Limits, Room, Sink, lasting, load};
use spanwire_load::{Report, Run, Stop};
use support::process::Process;
use tokio::runtime::Runtime;

const BUDGET: Room = Room::Budget(Limits { budget_mib: 64, request_mib_max: 64 });

fn start(room: &Room, destination: SocketAddr) -> Process {
    let batch = "batch: { flush_timeout: 100ms, min_size: 2000, max_size: 4000 }";
    let queue = format!("sending_queue: {{ num_consumers: 4, {batch} }}");
    let settings = format!("tls: {{ insecure: true }}, compression: none, timeout: 30s, {queue}");
    room.start(&format!("otlp: {{ endpoint: \"{destination}\", {settings} }}"))
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Requests that were refused and might come again, of which the sender was told so.
fn asked_to_come_back(report: &Report) -> u64 {
    let mut requests = 0;
    for (code, failures) in &report.measured.failures {
        assert!(
            ["gRPC RESOURCE_EXHAUSTED", "gRPC UNAVAILABLE", "HTTP 429", "HTTP 503"]
                .contains(&code.as_str())
                // Without RetryInfo it would be too large.
                && failures.example.starts_with("destination unavailable"),
            "{report}"
        );
        requests += failures.requests;
    }
    requests
}

/// Spans lost and duplicated of runs that a destination has entered.
fn astray(reports: &[&Report]) -> (u64, u64) {
    let deliveries = reports.iter().map(|report| report.delivery.expect("it was asked for"));
    deliveries.fold((0, 0), |(lost, duplicates), delivery| {
        (lost + delivery.lost, duplicates + delivery.arrived.duplicated)
    })
}

/// Faults 91, 92.
#[test]
fn five_times_what_a_destination_takes_stays_within_the_memory_and_none_of_it_is_lost() {
    // More in flight by gRPC than there is memory for, so that it has to be refused, and by HTTP what
    // waits for room in the queue.
    five_times_too_much(
        "five times what the destination takes",
        &BUDGET,
        [
            "--rate 80000 --connections 32 --in-flight-max 8 --spans-per-request 1000",
            "--rate 20000 --connections 32 --in-flight-max 1 --protocol http/protobuf",
        ],
    );
}

/// Each connection of HTTP/1.1 has one request in flight, and JSON is several times its protobuf.
const JSON_FROM_MANY: [&str; 2] = [
    "--rate 80000 --connections 16 --in-flight-max 16 --spans-per-request 400 \
     --protocol http/json",
    "--rate 20000 --connections 4 --in-flight-max 16 --spans-per-request 1000",
];

/// Faults 91, 92.
#[test]
fn json_from_hundreds_of_connections_stays_within_the_memory_and_none_of_it_is_lost() {
    five_times_too_much("the same as JSON, from 256 connections", &BUDGET, JSON_FROM_MANY);
}

/// Faults 98.
#[test]
fn a_sender_of_little_is_served_beside_eight_connections_that_send_without_end() {
    let [_, little] = five_times_too_much(
        "a sender of little beside 8 connections of much",
        &BUDGET,
        [
            "--rate 400000 --connections 8 --in-flight-max 256",
            "--rate 4000 --connections 1 --in-flight-max 4 --spans-per-request 500",
        ],
    );
    let (refused, requests) = (asked_to_come_back(&little), little.measured.requests);
    assert!(refused * 10 < requests, "{refused} of {requests} were refused");
}

/// Without a setting of memory at all, as in a container.
///
/// Faults 93.
#[test]
#[ignore = "needs the right to make a control group; cargo xtask endure runs it"]
#[expect(clippy::print_stdout, reason = "what was not run is told as what was")]
fn in_a_control_group_senders_are_refused_before_the_system_kills_the_collector() {
    let bytes_max = 96 << 20;
    let group = match Group::new(bytes_max) {
        Ok(group) => group,
        Err(error) => return println!("not run: no control group can be made here: {error}"),
    };
    let room = Room::Group(group, bytes_max);
    five_times_too_much("the same as JSON, in a container of 96 MiB", &room, JSON_FROM_MANY);
    let Room::Group(group, _) = room else { unreachable!("as made above") };
    assert_eq!(group.kills(), 0);
}

/// Its queue is full, and so is the room for what is on its way: there has to be some left for what
/// waits.
#[test]
fn a_few_that_send_faster_than_the_destination_takes_wait_and_are_not_refused() {
    let _alone = endurance::alone();
    let run = Run::random();
    let sink = Sink::new(&[run], Conduct::Paced(100_000));
    let runtime = Runtime::new().expect("a runtime");
    let destination = runtime.block_on(sink.serve(any()));
    let address = destination.grpc_address().expect("served");
    let queue = "sending_queue: { num_consumers: 100, queue_size: 10000 }";
    let settings = format!("tls: {{ insecure: true }}, compression: none, timeout: 30s, {queue}");
    let collector = BUDGET.start(&format!("otlp: {{ endpoint: \"{address}\", {settings} }}"));
    let time = lasting(Duration::from_secs(4)).as_secs();
    let options =
        format!("--rate max --in-flight-max 8 --spans-per-request 1000 --duration {time}");
    let (report, looks) = collector.watched(|| {
        let load = load(&options, &collector, run, sink.ledger(0));
        let report = load.run(&Stop::default(), drop).expect("a report");
        collector.settled();
        report
    });
    let (bytes, requests) = (report.request_bytes as u64, report.measured.requests_accepted);
    assert!(
        bytes * requests > 64 << 20,
        "{bytes} bytes, {requests} times: the memory was not full"
    );
    assert_eq!((report.measured.requests_failed(), astray(&[&report])), (0, (0, 0)), "{report}");
    looks.assert_balanced();
    collector.ends_well();
}

/// Two loads that together bring five times as much as the destination takes.
fn five_times_too_much(what: &str, room: &Room, loads: [&str; 2]) -> [Report; 2] {
    const TAKEN_PER_SECOND: u32 = 20_000;
    let _alone = endurance::alone();
    let time = lasting(Duration::from_secs(4));
    let runs = [Run::random(), Run::random()];
    let sink = Sink::new(&runs, Conduct::Paced(TAKEN_PER_SECOND));
    let runtime = Runtime::new().expect("a runtime");
    let destination = runtime.block_on(sink.serve(any()));
    let collector = start(room, destination.grpc_address().expect("served"));

    let longer = time.as_secs() + 60;
    let loads = loads.map(|options| format!("{options} --duration {longer}"));
    let stop = Stop::default();
    let ((reports, taken), looks) = collector.watched(|| {
        thread::scope(|scope| {
            let (collector, sink, stop) = (&collector, &sink, &stop);
            let loads = [(0, &loads[0]), (1, &loads[1])].map(|(run, options)| {
                let run = (runs[run], sink.ledger(run));
                scope.spawn(move || {
                    load(options, collector, run.0, run.1).run(stop, drop).expect("a report")
                })
            });
            thread::sleep(time);
            let taken = sink.entered();
            // It catches up, so what waits is not what a test waits for.
            sink.conduct(Conduct::Takes(Duration::ZERO));
            stop.stop();
            (loads.map(|load| load.join().expect("no panic")), taken)
        })
    });
    let books = collector.settled();

    let accepted: u64 = reports.iter().map(Report::spans_accepted).sum();
    let (lost, duplicates) = astray(&[&reports[0], &reports[1]]);
    let refused = reports.iter().map(asked_to_come_back).sum::<u64>();
    let (memory_peak, memory_max) = room.memory(&collector);
    let found = Found {
        what,
        accepted,
        lost,
        duplicates,
        explained: format!("{refused} requests were asked to come back"),
        memory_peak,
        memory_max,
    };
    found.tell();
    let due = u64::from(5 * TAKEN_PER_SECOND) * time.as_secs();
    assert!(taken * 3 < due, "{taken} taken of {due} that were due: no overload");
    assert!(refused > 0, "the memory was never used up");
    assert_eq!((lost, duplicates), (0, 0));
    assert!(found.memory_peak <= found.memory_max, "{} bytes", found.memory_peak);
    looks.assert_balanced();
    let taken_over = books.sum("otelcol_receiver_accepted_spans_total", "");
    assert_eq!(
        (taken_over, books.ledger("accepted"), books.ledger("sent")),
        (accepted, accepted, accepted)
    );
    collector.ends_well();
    reports
}

/// Faults 47, 48, 98.
#[test]
fn bombs_from_all_sides_stay_within_the_memory_and_good_senders_are_served_beside_them() {
    let _alone = endurance::alone();
    let time = lasting(Duration::from_secs(3));
    let runs = [Run::random(), Run::random()];
    let sink = Sink::new(&runs, Conduct::Takes(Duration::ZERO));
    let runtime = Runtime::new().expect("a runtime");
    let destination = runtime.block_on(sink.serve(any()));
    let collector = start(&BUDGET, destination.grpc_address().expect("served"));

    let kinds = bombs::of_each_kind();
    let options = format!("--rate 5000 --duration {}", time.as_secs());
    let ((good, answers), looks) = collector.watched(|| {
        thread::scope(|scope| {
            let good = scope.spawn(|| {
                let load = load(&options, &collector, runs[0], sink.ledger(0));
                load.run(&Stop::default(), drop).expect("a report")
            });
            let until = Instant::now() + time;
            let [grpc, http] = ["grpc", "http"].map(|part| collector.address(part));
            let throwers: Vec<_> = (0..48)
                .map(|at| {
                    let bomb = &kinds[at % kinds.len()];
                    scope.spawn(move || {
                        let connection = bombs::Grpc::new(grpc, bomb);
                        let connection = connection.filter(|_| at % 2 == 0);
                        let mut answers = BTreeMap::<Answer, u64>::new();
                        while Instant::now() < until {
                            let answer = match &connection {
                                Some(connection) => connection.send(bomb),
                                None => bombs::post(http, bomb),
                            };
                            *answers.entry(answer).or_default() += 1;
                        }
                        answers
                    })
                })
                .collect();
            let mut answers = BTreeMap::<Answer, u64>::new();
            for thrower in throwers {
                for (answer, count) in thrower.join().expect("no panic") {
                    *answers.entry(answer).or_default() += count;
                }
            }
            (good.join().expect("no panic"), answers)
        })
    });
    let after = load("--rate 5000 --duration 0.5", &collector, runs[1], sink.ledger(1));
    let after = after.run(&Stop::default(), drop).expect("a report");
    let books = collector.settled();

    let (lost, duplicates) = astray(&[&good, &after]);
    let accepted = good.spans_accepted() + after.spans_accepted();
    let of = |answer| answers.get(&answer).copied().unwrap_or_default();
    let come_back = asked_to_come_back(&good);
    let (memory_peak, memory_max) = BUDGET.memory(&collector);
    let found = Found {
        what: "decompression bombs from 48 connections",
        accepted,
        lost,
        duplicates,
        explained: format!("{answers:?}; {come_back} good requests were asked to come back"),
        memory_peak,
        memory_max,
    };
    found.tell();
    assert!(found.memory_peak <= found.memory_max, "{} bytes", found.memory_peak);
    assert_eq!(of(Answer::Other), 0, "{answers:?}");
    assert!(of(Answer::TooLarge) > 0, "{answers:?}");
    // Each has its answer, and each answer its counter.
    let counted = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        books.sum("spanwire_receiver_refused_requests_total", &label)
    };
    assert_eq!(counted("too_large"), of(Answer::TooLarge));
    assert_eq!(counted("malformed"), of(Answer::Malformed));
    assert_eq!(counted("budget"), of(Answer::ComeBack) + come_back);
    let good_sent = good.measured.requests;
    assert!(come_back * 2 < good_sent, "{come_back} of {good_sent} good requests were refused");
    assert_eq!(after.measured.requests_failed(), 0, "{after}");
    assert_eq!((lost, duplicates), (0, 0));
    looks.assert_balanced();
    assert_eq!((books.ledger("accepted"), books.ledger("sent")), (accepted, accepted));
    collector.ends_well();
}
