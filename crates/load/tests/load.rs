//! Whole runs over real sockets, against receivers that behave well and badly.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use spanwire_load::{
    Addresses, Ledger, Load, ReceiverProcess, Report, Run, RunError, Settings, Stop, Verdict,
};
use spanwire_receiver::{Accepted, Received, Receiver, Refusal};
use tokio::runtime::Runtime;

/// The command, of which the receivers in processes of their own are instances.
const PROGRAM: &str = env!("CARGO_BIN_EXE_spanwire-load");

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

fn settings(options: &str) -> Settings {
    let no_warm_up = if options.contains("--warm-up") { "" } else { "--warm-up 0" };
    Line::parse_from(format!("load {no_warm_up} {options}").split_whitespace()).settings
}

/// What a receiver does with a request: whether it enters it into the ledger, how often, and what
/// it answers.
type Behaviour = fn(u64) -> (usize, Result<Accepted, Refusal>);

/// A run against a receiver in this process, which asks `behave` for each request by its number of
/// arrival and answers after `delay`.
fn run(options: &str, delay: Duration, behave: Behaviour) -> Report {
    let settings = settings(options);
    let run = Run::random();
    let ledger = Arc::new(Mutex::new(Ledger::new(run)));
    let runtime = Runtime::new().expect("a runtime");
    let (entered, requests) = (Arc::clone(&ledger), Arc::new(AtomicU64::new(0)));
    let sink = move |received: Received| {
        let (times, answer) = behave(requests.fetch_add(1, Ordering::Relaxed));
        let mut ledger = entered.lock().expect("no panic");
        (0..times).for_each(|_| ledger.enter(&received.request).expect("a request"));
        drop(ledger);
        async move {
            tokio::time::sleep(delay).await;
            answer
        }
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let receiver = Receiver::builder().grpc(any).http(any).bind(sink);
    let receiver = runtime.block_on(receiver).expect("free ports");
    let address = match settings.protocol_name() {
        "grpc" => receiver.grpc_address(),
        _ => receiver.http_address(),
    };
    let endpoint = format!("http://{}", address.expect("bound"));
    let load = Load::new(settings, run, endpoint).arrivals(ledger);
    load.run(&Stop::default(), drop).expect("a report")
}

fn well(_request: u64) -> (usize, Result<Accepted, Refusal>) {
    (1, Ok(Accepted::default()))
}

#[test]
fn a_second_against_a_receiver_of_its_own_loses_and_duplicates_nothing() {
    let run = Run::random();
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let addresses = Addresses { grpc: any, http: None };
    let receiver = ReceiverProcess::spawn(Path::new(PROGRAM), run, addresses).expect("runs");
    let endpoint = format!("http://{}", receiver.addresses().grpc.expect("bound"));
    let pid = receiver.pid();
    let load =
        Load::new(settings("--rate 2000 --duration 1 --spans-per-request 20"), run, endpoint);
    let mut sent = 0;
    let watch = |progress: spanwire_load::Progress| sent = sent.max(progress.spans_sent);
    let report = load.target(pid).arrivals(receiver).run(&Stop::default(), watch);
    let report = report.expect("a report");
    assert_eq!((report.measured.requests, report.measured.spans), (100, 2_000));
    assert_eq!(report.spans_accepted(), 2_000, "{report}");
    let delivery = report.delivery.expect("known");
    assert_eq!((delivery.arrived.distinct, delivery.lost), (2_000, 0));
    assert_eq!((delivery.arrived.duplicated, delivery.arrived.unknown), (0, 0));
    assert_eq!(report.verdict(), Ok(()));
    assert_eq!(report.measured.latencies.count(), 100);
    assert!((500.0..2_100.0).contains(&report.throughput().expect("known")), "{report}");
    assert!(sent > 0, "progress was told");
    if cfg!(target_os = "linux") {
        let target = report.target.expect("asked for");
        assert!(target.memory_peak.expect("it lives").bytes > 1 << 20);
    }
}

#[test]
fn refused_requests_are_counted_by_code_and_are_not_lost() {
    let options = "--rate 10000 --duration 0.5 --spans-per-request 50";
    let report = run(options, Duration::ZERO, |request| match request % 10 {
        9 => (0, Err(Refusal::Unavailable { retry_after: None })),
        _ => well(request),
    });
    assert_eq!((report.measured.requests, report.measured.requests_accepted), (100, 90));
    assert_eq!(report.measured.failures.len(), 1);
    assert_eq!(report.measured.failures["gRPC UNAVAILABLE"].requests, 10);
    assert_eq!(
        report.warnings()[0],
        "10 of 100 requests failed (10.00 %); latencies include theirs"
    );
    let delivery = report.delivery.expect("known");
    assert_eq!((delivery.arrived.distinct, delivery.lost), (90 * 50, 0), "{report}");
    assert_eq!(report.verdict(), Ok(()));
}

#[test]
fn http_failures_are_counted_by_status_and_partial_success_by_spans() {
    let options = "--rate 10000 --duration 0.5 --spans-per-request 50 --protocol http/protobuf";
    let report = run(options, Duration::ZERO, |request| match request % 10 {
        8 => (0, Ok(Accepted { rejected_spans: 50, message: "no".to_owned() })),
        9 => (1, Err(Refusal::Internal { message: "broken".to_owned() })),
        _ => well(request),
    });
    assert_eq!(report.measured.spans_rejected, 10 * 50);
    assert_eq!(report.measured.failures["HTTP 500"].requests, 10);
    assert_eq!(report.delivery.expect("known").lost, 0);
    assert_eq!(report.unacknowledged(), Some(10 * 50), "failed, and yet taken");
    assert_eq!(report.verdict(), Ok(()));
}

#[test]
fn what_was_accepted_and_is_gone_or_came_twice_is_known_exactly() {
    let options = "--rate 10000 --duration 0.5 --spans-per-request 50 --settle 0";
    let report = run(options, Duration::ZERO, |request| match request % 10 {
        8 => (0, Ok(Accepted::default())),
        9 => (2, Ok(Accepted::default())),
        _ => well(request),
    });
    let expected = Verdict::NotDelivered { lost: 10 * 50, duplicated: 10 * 50 };
    assert_eq!(report.verdict(), Err(expected), "{report}");
}

#[test]
fn a_target_that_answers_late_slows_no_clock() {
    // Twenty requests due within 0.2 s, of which the target takes one at a time for 50 ms each: the
    // last one is answered after 1 s. Measured from its sending, each would have taken 50 ms.
    let options = "--rate 1000 --duration 0.2 --spans-per-request 10 --connections 1 \
                   --in-flight-max 1";
    let report = run(options, Duration::from_millis(50), well);
    assert_eq!(report.measured.requests, 20);
    let longest = report.measured.latencies.max().expect("some");
    assert!(longest >= Duration::from_millis(20 * 50 - 190 - 10), "{report}");
    let median = report.measured.latencies.quantile(0.5).expect("some");
    assert!(median >= Duration::from_millis(10 * 50 - 100 - 50), "{report}");
    assert!(report.measured.held_back >= 10, "{report}");
    assert!(report.throughput().expect("known") < 250.0, "{report}");
    assert!(report.elapsed >= Duration::from_secs(1), "{report}");
}

#[test]
fn without_a_place_to_wait_for_the_same_target_is_asked_in_time() {
    let options = "--rate 1000 --duration 0.2 --spans-per-request 10 --connections 1 \
                   --in-flight-max 20";
    let report = run(options, Duration::from_millis(50), well);
    assert_eq!((report.measured.requests, report.measured.held_back), (20, 0), "{report}");
}

#[test]
fn in_a_closed_loop_answers_make_room_for_the_next_request() {
    // Four requests in flight at a time, each answered after 50 ms: at most 4 * 0.5 s / 50 ms.
    let options = "--rate max --duration 0.5 --spans-per-request 10 --connections 2 \
                   --in-flight-max 2";
    let report = run(options, Duration::from_millis(50), well);
    assert!((4..=44).contains(&report.measured.requests), "{report}");
    assert!(report.to_string().contains("closed loop of 4 requests in flight"), "{report}");
    assert_eq!(report.verdict(), Ok(()), "{report}");
}

#[test]
fn every_protocol_and_compression_delivers_all() {
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        for compression in ["none", "gzip", "zstd"] {
            let options = format!(
                "--rate 5000 --duration 0.1 --spans-per-request 100 --protocol {protocol} \
                 --compression {compression}"
            );
            let report = run(&options, Duration::ZERO, well);
            assert_eq!(report.spans_accepted(), 500, "{report}");
            assert_eq!(report.delivery.expect("known").lost, 0, "{report}");
            assert_eq!(report.verdict(), Ok(()), "{report}");
        }
    }
}

#[test]
fn a_warm_up_is_sent_and_not_measured() {
    let options = "--rate 2000 --warm-up 0.2 --duration 0.3 --spans-per-request 20";
    let report = run(options, Duration::ZERO, well);
    assert_eq!((report.warm_up.requests, report.measured.requests), (20, 30), "{report}");
    assert_eq!(report.delivery.expect("known").arrived.distinct, 1_000);
}

#[test]
fn a_target_that_only_took_the_warm_up_fails() {
    let options = "--rate 2000 --warm-up 0.2 --duration 0.3 --spans-per-request 20";
    let report = run(options, Duration::ZERO, |request| match request {
        0..20 => well(request),
        _ => (0, Err(Refusal::Internal { message: "broken".to_owned() })),
    });
    assert_eq!((report.spans_accepted(), report.measured.spans_accepted), (400, 0), "{report}");
    assert_eq!(report.verdict(), Err(Verdict::NothingAccepted), "{report}");
}

#[test]
fn a_second_stop_while_requests_are_in_flight_ends_the_wait_for_arrivals_too() {
    let run = Run::random();
    let runtime = Runtime::new().expect("a runtime");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let answers_late = |_: Received| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(Accepted::default())
    };
    let receiver = runtime.block_on(Receiver::builder().grpc(any).bind(answers_late));
    let receiver = receiver.expect("a free port");
    let endpoint = format!("http://{}", receiver.grpc_address().expect("bound"));
    let settings = settings("--rate 1000 --duration 3600 --settle 20");
    let stop = Stop::default();
    let twice = stop.clone();
    let watch = |progress: spanwire_load::Progress| {
        if progress.spans_sent > 0 {
            twice.stop();
        }
    };
    // Nothing ever arrives in this ledger.
    let load = Load::new(settings, run, endpoint).arrivals(Arc::new(Mutex::new(Ledger::new(run))));
    let report = load.run(&stop, watch).expect("a report");
    assert!(matches!(report.verdict(), Err(Verdict::NotDelivered { .. })), "{report}");
    let settled_after = report.delivery.expect("known").settled_after;
    assert!(settled_after < Duration::from_secs(10), "{report}");
}

#[test]
fn a_run_that_is_stopped_reports_what_there_is() {
    let run = Run::random();
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let addresses = Addresses { grpc: any, http: None };
    let receiver = ReceiverProcess::spawn(Path::new(PROGRAM), run, addresses).expect("runs");
    let endpoint = format!("http://{}", receiver.addresses().grpc.expect("bound"));
    let load = Load::new(settings("--rate 1000 --duration 3600"), run, endpoint);
    let stop = Stop::default();
    let stopping = stop.clone();
    let watch = |progress: spanwire_load::Progress| {
        if progress.spans_accepted >= 200 {
            stopping.stop();
        }
    };
    let report = load.arrivals(receiver).run(&stop, watch).expect("a report");
    assert!(report.stopped && report.elapsed < Duration::from_secs(3_600));
    assert!(report.spans_accepted() >= 200);
    assert_eq!(report.verdict(), Ok(()), "{report}");
}

#[test]
fn nobody_there_is_said_before_anything_is_sent() {
    // Bound for just long enough to know a port that nobody has.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let endpoint = format!("http://{}", port.expect("bound"));
    let load = Load::new(settings("--duration 3600"), Run::random(), endpoint);
    let error = load.run(&Stop::default(), drop).expect_err("nobody");
    assert!(matches!(error, RunError::Connect(_)), "{error:?}");
}

#[test]
fn the_command_prints_all_figures_as_json_and_succeeds() {
    let options = "--rate 2000 --duration 0.3 --warm-up 0.1 --spans-per-request 20 --json";
    let output = Command::new(PROGRAM).args(options.split_whitespace()).output().expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["open_loop"], true);
    assert_eq!(report["spans_accepted"], 600);
    assert_eq!(report["delivery"]["arrived"], 800);
    assert_eq!(report["delivery"]["lost"], 0);
    for quantile in ["p50", "p95", "p99", "p999", "max"] {
        assert!(report["latency_ms"][quantile].as_f64().expect("a number") > 0.0, "{report}");
    }
    assert!(report["generator"]["cpu_seconds_per_million_spans"].as_f64().expect("one") > 0.0);
    if cfg!(target_os = "linux") {
        assert!(report["target"]["memory_peak_bytes"].as_u64().expect("a number") > 1 << 20);
    }
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_no_text_is_refused_and_no_panic() {
    let argument: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"--rate=\xff");
    let output = Command::new(PROGRAM).arg(argument).output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_command_fails_where_the_target_took_nothing() {
    // The gRPC address of a receiver that knows no such path answers every request, with a failure.
    let run = Run::random();
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let addresses = Addresses { grpc: None, http: any };
    let receiver = ReceiverProcess::spawn(Path::new(PROGRAM), run, addresses).expect("runs");
    let url = format!("http://{}/nowhere", receiver.addresses().http.expect("bound"));
    let options =
        format!("--endpoint {url} --protocol http/protobuf --rate 1000 --duration 0.1 --warm-up 0");
    let output = Command::new(PROGRAM).args(options.split_whitespace()).output().expect("runs");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no span was accepted"), "{errors}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("HTTP 404"));
}
