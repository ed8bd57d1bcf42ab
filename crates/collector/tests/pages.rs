//! What the servers for people and their tools show, and that they go on showing it.

mod support;

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use spanwire_collector::Collector;
use spanwire_transport::Protocol;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn get(address: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers, and closes");
    answer
}

fn with_extensions(yaml: &str, extensions: &str, names: &str) -> String {
    let service = format!("extensions: {{ {extensions} }}\nservice:\n  extensions: [{names}]\n");
    yaml.replace("service:\n", &service)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_503_with_the_reason_while_a_destination_fails_and_200_when_it_is_well_again() {
    let (destination, _, away) = away().await;
    let health = "health_check: { endpoint: 127.0.0.1:0 }";
    let yaml = with_extensions(&to(&destination, ""), health, "health_check");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let page = address(&collector, "health_check");
    let before = get(&page, "/").await;
    assert!(before.starts_with("HTTP/1.1 200"), "{before}");
    assert!(before.contains("\"upSince\":\"20"), "{before}");

    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("the queue takes it");
    let since = Instant::now();
    let ailing = loop {
        let now = get(&page, "/").await;
        if now.starts_with("HTTP/1.1 503") {
            break now;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{now}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(since.elapsed() > Duration::from_secs(9), "it may just be starting again");
    assert!(ailing.contains("\"otlp\":\"fails for 1"), "{ailing}");

    away.store(false, Ordering::Relaxed);
    until("it is sent", || collector.stats().exporters[0].account.sent == 10).await;
    let after = get(&page, "/").await;
    assert!(after.starts_with("HTTP/1.1 200"), "{after}");
}

#[tokio::test]
async fn a_reload_shows_something_else_at_the_addresses_that_there_are() {
    let (destination, _) = destination(takes_all).await;
    let free: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let [first, second] =
        [0, 1].map(|place: usize| free[place].local_addr().expect("its address").to_string());
    drop(free);
    let yaml = |extensions: &str, names: &str| {
        config(&with_extensions(&to(&destination, ""), extensions, names))
    };
    let plain = yaml(
        &format!("health_check: {{ endpoint: {first} }}, zpages: {{ endpoint: {second} }}"),
        "health_check, zpages",
    );
    let collector = Collector::start(plain).await.expect("it starts");
    assert!(get(&first, "/").await.contains("Server available"));
    assert!(get(&second, "/debug/pipelinez").await.contains("exporters"));

    let elsewhere = yaml(
        &format!(
            "health_check: {{ endpoint: {first}, path: /alive }}, zpages: {{ endpoint: {second} }}"
        ),
        "health_check, zpages",
    );
    collector.reload(elsewhere).await.expect("another path");
    let elsewhere = get(&first, "/").await;
    assert!(elsewhere.starts_with("HTTP/1.1 404") && elsewhere.contains("/alive"), "{elsewhere}");
    assert!(get(&first, "/alive").await.contains("Server available"));

    let swapped = yaml(
        &format!("health_check/2: {{ endpoint: {second} }}, zpages: {{ endpoint: {first} }}"),
        "health_check/2, zpages",
    );
    collector.reload(swapped).await.expect("another name, and each in the other's place");
    assert!(get(&second, "/").await.contains("Server available"));
    assert!(get(&first, "/debug/pipelinez").await.contains("exporters"));

    let port = first.rsplit(':').next().expect("a port");
    let one = yaml(&format!("zpages: {{ endpoint: 'localhost:{port}' }}"), "zpages");
    collector.reload(one).await.expect("another name of the same address");
    assert!(get(&first, "/debug/pipelinez").await.contains("exporters"));
    assert!(TcpStream::connect(&second).is_err(), "nobody wants that one any more");
}

/// Faults 175.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_ask_slowly_make_room_for_others() {
    let (destination, _) = destination(takes_all).await;
    let health = "health_check: { endpoint: 127.0.0.1:0 }";
    let yaml = with_extensions(&to(&destination, ""), health, "health_check");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let page = address(&collector, "health_check");
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(&page).expect("it listens")).collect();
    let answer = tokio::time::timeout(Duration::from_secs(60), get(&page, "/")).await;
    assert!(answer.expect("in time").contains("Server available"));
    drop(silent);
}

#[tokio::test]
async fn whoever_asks_for_a_page_that_is_not_there_learns_which_one_is() {
    let (destination, _) = destination(takes_all).await;
    let zpages = "zpages: { endpoint: 127.0.0.1:0 }";
    let yaml = with_extensions(&to(&destination, ""), zpages, "zpages").replace(
        "metrics: { level: none }",
        "metrics: { readers: [{ pull: { exporter: { prometheus: { host: 127.0.0.1, port: 0 } } } }] }",
    );
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let names: Vec<_> = collector.addresses().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["otlp grpc", "otlp http", "metrics", "zpages"], "no address is in a name");
    let [metrics, zpages] = ["metrics", "zpages"].map(|part| address(&collector, part));
    for (page, path, status, named) in [
        (&zpages, "/", 200, "/debug/pipelinez"),
        (&zpages, "/debug/tracez", 404, "/debug/pipelinez"),
        (&metrics, "/", 404, "/metrics"),
    ] {
        let answer = get(page, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains(named), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_memory_limiter_counts_what_comes_to_it_wherever_it_stands() {
    let (destination, _) = destination(takes_all).await;
    let processors = "processors:
  memory_limiter: { check_interval: 1s, limit_mib: 64 }
  memory_limiter/late: { check_interval: 1s, limit_mib: 64 }
  probabilistic_sampler: { sampling_percentage: 0 }
exporters:\n";
    let yaml = to(&destination, "").replace("exporters:\n", processors).replace(
        "receivers: [otlp],",
        "receivers: [otlp], processors: [memory_limiter, probabilistic_sampler, memory_limiter/late],",
    );
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("it is taken, and left out");
    let stats = collector.stats();
    let flows = stats.processors.iter().map(|one| (&*one.processor, one.incoming, one.outgoing));
    let expected = [
        ("memory_limiter", 10, 10),
        ("probabilistic_sampler", 10, 0),
        ("memory_limiter/late", 0, 0),
    ];
    assert_eq!(flows.collect::<Vec<_>>(), expected);
}
