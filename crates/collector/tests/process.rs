//! The binary as people run it: signals, pages, and what it says.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spanwire_transport::{Body, Protocol, Transport, TransportConfig};
use support::*;

/// A running collector that ends with its test.
struct Process {
    child: Child,
    /// What it listens on, by name.
    addresses: Vec<(String, SocketAddr)>,
}

impl Process {
    fn start(yaml: &str) -> Self {
        let mut child = command(&["--config", &format!("yaml:{yaml}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
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
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, addresses }
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
        let missing: Vec<_> = {
            let most = taken.iter().max().map_or(0, |last| last + 1);
            let missing = arrived.missing(most);
            let taken: std::collections::HashSet<_> = taken.into_iter().collect();
            missing.into_iter().filter(|number| taken.contains(number)).collect()
        };
        assert_eq!(missing, Vec::<u64>::new(), "round {round}: acknowledged, and lost");
    }
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
    assert!(metrics.contains("otelcol_exporter_sent_spans_total{exporter=\"otlp\"}"), "{metrics}");
    assert!(metrics.contains("spanwire_ledger_imbalance{exporter=\"otlp\"} 0"), "{metrics}");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("Server available"), "{health}");
    assert!(pipelines.contains("otlp  accepted "), "{pipelines}");
    drop(process);
    let _sent = sending.await.expect("no panic");
}
