//! The binary as people run it: signals, pages, and what it says.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spanwire_transport::{Body, Protocol, Transport, TransportConfig};
use support::*;

/// A running collector that ends with its test.
struct Process {
    child: Child,
    /// What it listens on, by name.
    addresses: Vec<(String, SocketAddr)>,
    /// What it says.
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(yaml: &str) -> Self {
        Self::run(command(&["--config", &format!("yaml:{yaml}")]), yaml)
    }

    fn run(mut command: Command, yaml: &str) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut addresses = Vec::new();
        let wanted = yaml.matches("endpoint: 127.0.0.1:0").count();
        while addresses.len() < wanted {
            let line = lines.next().expect("it tells its addresses").expect("text");
            let Some((_, address)) = line.split_once("listening on ") else { continue };
            let address = address.split(' ').next().expect("one").parse().expect("an address");
            addresses.push((line, address));
        }
        // It must be able to go on writing.
        let said = Arc::<Mutex<Vec<String>>>::default();
        let saying = Arc::clone(&said);
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| saying.lock().expect("no panic").push(line));
        });
        Self { child, addresses, said }
    }

    fn has_said(&self, text: &str) -> usize {
        let said = self.said.lock().expect("no panic");
        said.iter().filter(|line| line.contains(text)).count()
    }

    fn address(&self, part: &str) -> SocketAddr {
        let found = self.addresses.iter().find(|(line, _)| line.contains(part));
        found.unwrap_or_else(|| panic!("{part} in {:?}", self.addresses)).1
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    fn get(&self, part: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address(part)).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, where the test went well.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanwire-collector"));
    command.args(arguments);
    command
}

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
        let mut process = Process::start(&to(&destination, batch));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let sending = tokio::spawn(load(process.address("grpc"), Arc::clone(&acknowledged)));
        until("spans come", || acknowledged.load(Ordering::Relaxed) > 2_000).await;
        process.signal("-TERM");
        let taken = sending.await.expect("no panic");
        let status = tokio::task::block_in_place(|| process.child.wait()).expect("it ends");
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
    let mut process = Process::start(&to_address(nobody, ""));
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
    assert!(errors.contains("receiver otlp") && errors.contains(&address), "{errors}");
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
    // One endpoint more than the text says so.
    let process = Process::start(&format!("{yaml}# endpoint: 127.0.0.1:0\n"));
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
    let mut process = Process::run(command(&["--config", path]), &yaml(1));
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
    let status = tokio::task::block_in_place(|| process.child.wait()).expect("it ends");
    assert!(status.success(), "{status}");
    assert_eq!(lost(taken, &arrived), Vec::<u64>::new(), "acknowledged, and lost");
    assert_eq!(arrived.duplicates(), 0);
    std::fs::remove_file(&file).expect("it is ours");
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
        let process = Process::start(&yaml);
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
    let mut process = Process::run(limited, &yaml);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn(load(process.address("grpc"), Arc::clone(&acknowledged)));
    until("a write fails", || process.has_said("spans_dropped") > 0).await;
    process.signal("-TERM");
    let _taken = sending.await.expect("no panic");
    let status = tokio::task::block_in_place(|| process.child.wait()).expect("it ends");
    assert!(status.success(), "{status}");
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
    assert!(errors.contains("receiver otlp") && errors.contains("cert.pem"), "{errors}");
    let errors = wrong(any, &format!("{any}, cors: {{ allowed_origins: ['https://*.*'] }}"));
    assert!(errors.contains("receiver otlp") && errors.contains("origin"), "{errors}");
    let errors = wrong(
        "grpc: { endpoint: 127.0.0.1:0 }, http: { endpoint: 127.0.0.1:0",
        "grpc: { endpoint: 'localhost:4317' }, http: { endpoint: '0.0.0.0:4317'",
    );
    assert!(errors.contains("receiver otlp http: receiver otlp grpc is to listen"), "{errors}");
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
    let mut process = Process { child, addresses: Vec::new(), said: Arc::default() };
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
    let mut child = hangs.stdout(stdout).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("grpc")));
    let line = line.expect("it listens").expect("text");
    let (_, address) = line.split_once("listening on ").expect("its address");
    let address = address.split(' ').next().expect("one").parse::<SocketAddr>();
    let address = address.expect("an address");
    let mut process = Process { child, addresses: Vec::new(), said: Arc::default() };
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
