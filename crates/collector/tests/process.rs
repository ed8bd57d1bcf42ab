//! The binary as people run it: signals, pages, and what it says.

mod support;

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spanwire_transport::{Body, Protocol, Transport, TransportConfig};
use support::process::{Process, command};
use support::*;

fn output(arguments: &[&str]) -> (bool, String, String) {
    let output = command(arguments).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Sends from four tasks until it is refused; tells how many spans were acknowledged, and which.
async fn load(address: SocketAddr, acknowledged: Arc<AtomicU64>) -> Vec<u64> {
    let config = TransportConfig::new(Protocol::Grpc, &format!("http://{address}"));
    let transport = Arc::new(Transport::new(&config.expect("an address")).expect("settings"));
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (transport, next) = (Arc::clone(&transport), Arc::clone(&next));
        let acknowledged = Arc::clone(&acknowledged);
        tasks.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let first = next.fetch_add(50, Ordering::Relaxed);
                let body = Body::new([request(first, 50)], 50);
                let encoded = transport.encode(&body).await.expect("it can be sent");
                if transport.send(&encoded).await.is_err() {
                    return taken;
                }
                taken.extend(first..first + 50);
                acknowledged.fetch_add(50, Ordering::Relaxed);
            }
        });
    }
    let mut taken = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        taken.extend(of_one.expect("no panic"));
    }
    taken
}

async fn terminated_under_load(rounds: usize) {
    for round in 0..rounds {
        let (destination, arrived) = destination(takes_all).await;
        let batch = "    sending_queue: { batch: { flush_timeout: 100ms, min_size: 1000 } }";
        let mut process = Process::start(&to(&destination, batch), &["grpc"]);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let sending = tokio::spawn(load(process.address("grpc"), Arc::clone(&acknowledged)));
        until("spans come", || acknowledged.load(Ordering::Relaxed) > 2_000).await;
        process.signal("-TERM");
        let taken = sending.await.expect("no panic");
        let status = tokio::task::block_in_place(|| process.ended());
        assert!(status.success(), "{status}");
        let lost = lost(taken, &arrived);
        assert_eq!(lost, Vec::<u64>::new(), "round {round}: acknowledged, and lost");
    }
}

/// Spans that were acknowledged and did not arrive.
fn lost(taken: Vec<u64>, arrived: &Arrived) -> Vec<u64> {
    let most = taken.iter().max().map_or(0, |last| last + 1);
    let missing = arrived.missing(most);
    let taken: std::collections::HashSet<_> = taken.into_iter().collect();
    missing.into_iter().filter(|number| taken.contains(number)).collect()
}

/// Faults 160.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_no_span_that_was_acknowledged_in_a_hundred_rounds() {
    terminated_under_load(100).await;
}

/// Faults 161.
#[test]
fn a_second_signal_ends_it_at_once() {
    // Nobody listens there, so the drain would take its whole time.
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let mut process = Process::start(&to_address(nobody, ""), &["grpc"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let url = format!("http://{}", process.address("grpc"));
        let config = TransportConfig::new(Protocol::Grpc, &url).expect("an address");
        let transport = Transport::new(&config).expect("settings");
        let encoded = transport.encode(&Body::new([request(0, 10)], 10)).await.expect("sendable");
        let _taken = transport.send(&encoded).await.expect("the queue takes it");
    });
    process.signal("-TERM");
    let asked = std::time::Instant::now();
    while process.child.try_wait().expect("its status").is_none() {
        assert!(asked.elapsed() < Duration::from_secs(20), "two signals do not end it");
        std::thread::sleep(Duration::from_millis(20));
        process.signal("-TERM");
    }
    assert!(!process.child.wait().expect("its status").success());
}

/// Faults 166.
#[test]
fn without_a_configuration_that_works_it_says_what_is_wrong_and_where() {
    let yaml = "yaml:receivers: { otlp: { protocols: { grcp: } } }";
    let (success, _, errors) = output(&["validate", "--config", yaml]);
    assert!(!success);
    assert!(errors.contains("grcp") && errors.contains("grpc"), "{errors}");
}

/// Faults 165.
#[test]
fn a_port_in_use_is_named_with_its_component() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let yaml = to_address("127.0.0.1:9".parse().expect("an address"), "");
    let yaml = yaml.replacen("endpoint: 127.0.0.1:0", &format!("endpoint: {address}"), 1);
    let (success, _, errors) = output(&["--config", &format!("yaml:{yaml}")]);
    assert!(!success);
    assert!(errors.contains("receivers::otlp") && errors.contains(&address), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_pages_tell_counters_health_and_pipelines() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "").replace(
        "service:\n",
        "extensions: { health_check: { endpoint: 127.0.0.1:0 }, zpages: { endpoint: 127.0.0.1:0 } }
service:\n  extensions: [health_check, zpages]\n",
    );
    let yaml = yaml.replace(
        "metrics: { level: none }",
        "metrics: { readers: [{ pull: { exporter: { prometheus: { host: 127.0.0.1, port: 0 } } } }] }",
    );
    let process = Process::start(&yaml, &["grpc", "metrics", "health_check", "zpages"]);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn(load(process.address("grpc"), Arc::clone(&acknowledged)));
    until("spans arrive", || arrived.count() > 1_000).await;
    let (metrics, health, pipelines) = tokio::task::block_in_place(|| {
        (
            process.get("metrics", "/metrics"),
            process.get("health_check", "/"),
            process.get("zpages", "/debug/pipelinez"),
        )
    });
    // Readers that are written out add types to names.
    let sent = "otelcol_exporter_sent_spans_total{exporter=\"otlp\"}";
    assert!(metrics.contains(sent), "{metrics}");
    assert!(metrics.contains("spanwire_ledger_imbalance{exporter=\"otlp\"} 0"), "{metrics}");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("Server available"), "{health}");
    assert!(pipelines.contains("otlp  accepted "), "{pipelines}");
    drop(process);
    let _sent = sending.await.expect("no panic");
}

/// A file of its own for each test.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("spanwire-process-{}-{name}", std::process::id()))
}

/// Faults 162.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_under_load_reloads_what_is_valid_and_says_what_is_not() {
    let (destination, arrived) = destination(takes_all).await;
    let file = scratch("reload.yaml");
    let yaml = |consumers: u32| {
        to(&destination, &format!("    sending_queue: {{ num_consumers: {consumers} }}"))
    };
    std::fs::write(&file, yaml(1)).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let mut process = Process::run(command(&["--config", path]), &["grpc"]);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn(load(process.address("grpc"), Arc::clone(&acknowledged)));
    for round in 1..=5 {
        let goes_on = || {
            let before = acknowledged.load(Ordering::Relaxed);
            let acknowledged = Arc::clone(&acknowledged);
            until("spans go on coming", move || {
                acknowledged.load(Ordering::Relaxed) > before + 1_000
            })
        };
        goes_on().await;
        std::fs::write(&file, yaml(round as u32 + 1)).expect("a file");
        process.signal("-HUP");
        until("it is reloaded", || process.has_said("INFO reloaded") == round).await;
        goes_on().await;
        std::fs::write(&file, yaml(1).replace("endpoint:", "endpiont:")).expect("a file");
        process.signal("-HUP");
        until("it is refused", || process.has_said("not reloaded, everything") == round).await;
    }
    assert!(!sending.is_finished(), "no request was refused");
    assert!(process.has_said("endpiont") > 0, "it says what is wrong");
    process.signal("-TERM");
    let taken = sending.await.expect("no panic");
    let status = tokio::task::block_in_place(|| process.ended());
    assert!(status.success(), "{status}");
    assert_eq!(lost(taken, &arrived), Vec::<u64>::new(), "acknowledged, and lost");
    assert_eq!(arrived.duplicates(), 0);
    std::fs::remove_file(&file).expect("it is ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_says_all_that_is_wrong_as_a_start_does() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let file = scratch("all.yaml");
    std::fs::write(&file, to_address(nobody, "")).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let process = Process::run(command(&["--config", path]), &["grpc"]);
    let (http, tls) = ("http: { endpoint: 127.0.0.1:0", "cert_file: /no/cert, key_file: /no/key");
    let wrong = to_address(nobody, "    headers: { content-type: mine }")
        .replace(http, &format!("{http}, tls: {{ {tls} }}"));
    std::fs::write(&file, wrong).expect("a file");
    process.signal("-HUP");
    until("it is refused", || process.has_said("not reloaded, everything") == 1).await;
    until("both are told", || {
        process.has_said("content-type") > 0 && process.has_said("/no/cert") > 0
    })
    .await;
    std::fs::remove_file(&file).expect("it is ours");
}

/// As where a secret is taken away once it was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_does_not_ask_again_for_what_stays_as_it_is() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let (file, key) = (scratch("kept.yaml"), scratch("kept.pem"));
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    std::fs::write(&key, signed.cert.pem()).expect("a file");
    let tls = format!("tls: {{ ca_file: {} }}", key.display());
    let yaml = to_address(nobody, "").replace("tls: { insecure: true }", &tls);
    std::fs::write(&file, &yaml).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let process = Process::run(command(&["--config", path]), &["grpc"]);
    std::fs::remove_file(&key).expect("it is ours");
    let http = "http: { endpoint: 127.0.0.1:0";
    let changed = yaml.replace(http, &format!("{http}, max_request_body_size: 1000000"));
    std::fs::write(&file, changed).expect("a file");
    process.signal("-HUP");
    until("it is reloaded", || process.has_said("reloaded") == 1).await;
    assert_eq!(process.has_said("not reloaded"), 0, "{:?}", process.lines());
    std::fs::remove_file(&file).expect("it is ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_that_loses_spans_is_told_apart_from_one_whose_senders_come_back() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (slow, _) = destination_behind(&gate, takes_all).await;
    let queue = |size: u32| {
        format!(
            "sending_queue: {{ queue_size: {size}, num_consumers: 1, block_on_overflow: false }}"
        )
    };
    let address = slow.grpc_address().expect("served");
    let other =
        format!("  otlp/2: {{ endpoint: {address}, tls: {{ insecure: true }}, {} }}", queue(9));
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let yaml = to_address(nobody, &format!("    {}\n{other}", queue(1)))
        .replace("exporters: [otlp]", "exporters: [otlp, otlp/2]");
    let process = Process::start(&yaml, &["grpc"]);
    let url = format!("http://{}", process.address("grpc"));
    let config = TransportConfig::new(Protocol::Grpc, &url).expect("an address");
    let transport = Transport::new(&config).expect("settings");
    let mut refused = 0;
    for number in 0..100 {
        let body = Body::new([request(number * 10, 10)], 10);
        let encoded = transport.encode(&body).await.expect("sendable");
        refused += u64::from(transport.send(&encoded).await.is_err());
    }
    assert!((50..=95).contains(&refused), "{refused} were refused");
    until("either is told", || {
        process.has_said("is lost for this one") > 0
            && process.has_said("senders are asked to come back") >= 2
    })
    .await;
    let wrong = |line: &&String| line.contains("come back") && line.contains("spans_dropped");
    assert_eq!(process.lines().iter().find(wrong), None, "nothing is lost by that");
    gate.close();
}

#[test]
fn a_memory_limiter_bounds_requests_be_it_a_processor_or_an_extension() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let limiter = "{ memory_limiter: { check_interval: 1s, limit_mib: 10 } }";
    let processor = to_address(nobody, "")
        .replace("exporters:\n", &format!("processors: {limiter}\nexporters:\n"))
        .replace("receivers: [otlp],", "receivers: [otlp], processors: [memory_limiter],");
    let extension = to_address(nobody, "").replace(
        "service:\n",
        &format!("extensions: {limiter}\nservice:\n  extensions: [memory_limiter]\n"),
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for yaml in [processor, extension] {
        let (explained, text, errors) = output(&["explain", "--config", &format!("yaml:{yaml}")]);
        assert!(explained && text.contains("at most 8 MiB"), "{text}{errors}");
        let process = Process::start(&yaml, &["http"]);
        runtime.block_on(async {
            let url = format!("http://{}", process.address("http"));
            let config = TransportConfig::new(Protocol::HttpProtobuf, &url).expect("an address");
            let transport = Transport::new(&config).expect("settings");
            let send = async |spans| {
                let body = Body::new([request(0, spans)], spans as usize);
                transport.send(&transport.encode(&body).await.expect("sendable")).await
            };
            let _taken = send(10).await.expect("there is room");
            send(60_000).await.expect_err("that is more than half of the memory");
            let _taken = send(10).await.expect("there is room still");
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_the_system_cuts_short_leaves_only_whole_lines() {
    let file = scratch("short.json");
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let yaml = to_address(nobody, "")
        .replace("exporters:\n", &format!("exporters:\n  file: {{ path: {} }}\n", file.display()))
        .replace("exporters: [otlp]", "exporters: [file]");
    let yaml = yaml.split("  otlp:\n").next().map(str::to_owned).expect("text")
        + yaml
            .split_once("service:")
            .map(|(_, rest)| format!("service:{rest}"))
            .expect("text")
            .as_str();
    let mut limited = Command::new("sh");
    // Without the signal, a file that grows too large is an error of the write that is cut short.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --config \"yaml:$1\""]);
    limited.args([env!("CARGO_BIN_EXE_spanwire-collector"), &yaml]);
    let mut process = Process::run(limited, &["grpc"]);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn(load(process.address("grpc"), Arc::clone(&acknowledged)));
    until("a write fails", || process.has_said("File too large") > 0).await;
    process.signal("-TERM");
    let _taken = sending.await.expect("no panic");
    let status = tokio::task::block_in_place(|| process.ended());
    assert_eq!(status.code(), Some(1), "what the disk has no room for is lost, and told");
    let text = std::fs::read_to_string(&file).expect("a file");
    assert!(text.len() > 10_000, "{} bytes", text.len());
    assert!(text.ends_with('\n'), "the last line is whole");
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("a whole line");
    }
    std::fs::remove_file(&file).expect("it is ours");
}

/// Faults 163.
#[test]
fn whoever_reads_only_the_first_lines_gets_no_panic() {
    let mut child = command(&["print-config"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}

#[test]
fn validate_finds_what_only_shows_when_a_part_is_made_and_tells_what_has_no_effect() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let yaml = |more: &str| format!("yaml:{}", to_address(nobody, more));
    let (valid, text, notes) =
        output(&["validate", "--config", &yaml(""), "--set", "service.telemetry.resource.a=b"]);
    assert!(valid && text == "valid\n", "{text}{notes}");
    assert!(notes.contains("note: ") && notes.contains("resource"), "{notes}");
    let (valid, _, errors) =
        output(&["validate", "--config", &yaml("    headers: { content-type: mine }")]);
    assert!(!valid && errors.contains("content-type"), "{errors}");
}

#[test]
fn options_may_stand_on_both_sides_of_a_command_and_count_together() {
    let yaml = to_address("127.0.0.1:9".parse().expect("an address"), "");
    let (config, timeout) = (format!("yaml:{yaml}"), "exporters.otlp.timeout=7s");
    let (valid, text, errors) = output(&["--config", &config, "validate"]);
    assert!(valid && text == "valid\n", "{text}{errors}");
    let (printed, text, errors) = output(&["--config", &config, "print-config", "--set", timeout]);
    assert!(printed && text.contains("    timeout: 7s\n"), "{text}{errors}");
}

#[test]
fn components_are_listed_with_how_far_they_are_to_be_trusted() {
    let (listed, text, _) = output(&["components"]);
    assert!(listed && text.starts_with("receivers   otlp                    beta\n"), "{text}");
    assert!(text.contains("exporters   otlp (otlp_grpc)        beta\n"), "{text}");
}

#[test]
fn what_is_said_stands_by_itself_and_says_how_bad_it_is() {
    let (_, _, errors) = output(&["validate", "--config", "http://host/a.yaml"]);
    assert!(errors.starts_with("error: configuration sources http: "), "{errors}");
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let tls = "tls: { insecure_skip_verify: true }";
    let yaml = to_address(nobody, "").replace("tls: { insecure: true }", tls);
    let yaml = yaml.replace("exporters:\n", "exporters:\n  nop:\n");
    let (valid, _, warnings) = output(&["validate", "--config", &format!("yaml:{yaml}")]);
    assert!(valid && warnings.contains("exporters::nop is not used"), "{warnings}");
    assert_eq!(warnings.matches("\n\nwarning: ").count(), 1, "an empty line between: {warnings}");
    let mut process = Process::start(&yaml, &["grpc"]);
    assert_eq!(process.has_said("WARN exporters::otlp::tls::insecure_skip_verify accepts any"), 1);
    process.signal("-TERM");
    assert!(process.ended().success());
}

#[test]
fn validate_looks_at_receivers_and_addresses_as_a_start_does() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let wrong = |from: &str, to: &str| {
        let yaml = to_address(nobody, "").replacen(from, to, 1);
        assert!(yaml.contains(to), "{yaml}");
        let (valid, _, errors) = output(&["validate", "--config", &format!("yaml:{yaml}")]);
        assert!(!valid, "{yaml}");
        errors
    };
    let any = "http: { endpoint: 127.0.0.1:0";
    let tls = "tls: { cert_file: /no/such/cert.pem, key_file: /no/such/key.pem }";
    let errors = wrong(any, &format!("{any}, {tls}"));
    assert!(errors.contains("receivers::otlp") && errors.contains("cert.pem"), "{errors}");
    let errors = wrong(any, &format!("{any}, cors: {{ allowed_origins: ['https://*.*'] }}"));
    assert!(errors.contains("receivers::otlp") && errors.contains("origin"), "{errors}");
    let errors = wrong(
        "grpc: { endpoint: 127.0.0.1:0 }, http: { endpoint: 127.0.0.1:0",
        "grpc: { endpoint: 'localhost:4317' }, http: { endpoint: '0.0.0.0:4317'",
    );
    let [grpc, http] = ["grpc", "http"].map(|one| format!("receivers::otlp::protocols::{one}"));
    let twice = format!("{http}::endpoint: {grpc}::endpoint is to listen on 0.0.0.0:4317 already");
    assert!(errors.contains(&twice), "{errors}");
}

#[test]
fn the_configuration_that_is_packaged_is_valid() {
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/config.yaml");
    let (valid, text, errors) = output(&["validate", "--config", packaged]);
    assert!(valid && text == "valid\n", "{text}{errors}");
}

/// Faults 163.
#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let (stderr, _unread) = full();
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let endpoint = format!("endpoint: {address}");
    let yaml = to_address(nobody, "").replacen("endpoint: 127.0.0.1:0", &endpoint, 1);
    let child = command(&["--config", &format!("yaml:{yaml}")])
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .expect("the binary runs");
    let mut process = Process::of(child);
    let since = std::time::Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(since.elapsed() < Duration::from_secs(30), "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = TransportConfig::new(Protocol::Grpc, &format!("http://{address}"));
        let transport = Transport::new(&config.expect("an address")).expect("settings");
        for round in 0..10 {
            process.signal("-HUP");
            let body = Body::new([request(round * 10, 10)], 10);
            let encoded = transport.encode(&body).await.expect("sendable");
            let _taken = transport.send(&encoded).await.expect("the queue takes it");
        }
    });
    let asked = std::time::Instant::now();
    while process.child.try_wait().expect("its status").is_none() {
        assert!(asked.elapsed() < Duration::from_secs(20), "two signals do not end it");
        process.signal("-TERM");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whoever writes there waits for somebody to read at the other end.
fn full() -> (OwnedFd, UnixStream) {
    let (mut written, unread) = UnixStream::pair().expect("sockets");
    written.set_nonblocking(true).expect("a socket");
    while written.write(&[b'.'; 4096]).is_ok() {}
    written.set_nonblocking(false).expect("a socket");
    (written.into(), unread)
}

/// Faults 163.
#[test]
fn a_write_that_hangs_does_not_keep_the_process_beyond_the_deadline_of_its_shutdown() {
    let (stdout, _unread) = full();
    let yaml = to_address("127.0.0.1:9".parse().expect("an address"), "");
    let (before, after) = yaml.split_once("  otlp:\n    endpoint").expect("its exporter");
    let (_, service) = after.split_once("service:").expect("its service");
    let yaml = format!("{before}  debug:\nservice:{}", service.replace("[otlp] }", "[debug] }"));
    let mut hangs = command(&["--shutdown-timeout", "1", "--config", &format!("yaml:{yaml}")]);
    hangs.stdout(stdout);
    let (mut process, _log) = Process::unread(hangs, &["grpc"]);
    let address = process.address("grpc");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = TransportConfig::new(Protocol::Grpc, &format!("http://{address}"));
        let transport = Transport::new(&config.expect("an address")).expect("settings");
        let encoded = transport.encode(&Body::new([request(0, 10)], 10)).await.expect("sendable");
        let _taken = transport.send(&encoded).await.expect("the queue takes it");
    });
    std::thread::sleep(Duration::from_millis(500));
    process.signal("-TERM");
    let asked = std::time::Instant::now();
    while process.child.try_wait().expect("its status").is_none() {
        assert!(asked.elapsed() < Duration::from_secs(20), "its deadline does not end it");
        std::thread::sleep(Duration::from_millis(20));
    }
}
