//! What a change of the configuration keeps, and what one that fails leaves behind.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use spanwire_collector::{Collector, ReceiverStats};
use spanwire_transport::Protocol;
use support::*;

/// Addresses of this machine that nobody listens on.
fn free<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let listeners = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address"))
}

fn listens(address: SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}

fn received(collector: &Collector, transport: &str) -> ReceiverStats {
    let stats = collector.stats();
    let found = stats.receivers.into_iter().find(|one| one.transport == transport);
    found.unwrap_or_else(|| panic!("{transport} is served"))
}

/// Faults 165.
#[tokio::test]
async fn a_start_that_fails_leaves_no_socket_and_no_file_behind() {
    let [grpc, http] = free();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let metrics = taken.local_addr().expect("its address");
    let path = std::env::temp_dir().join(format!("spanwire-change-{}.json", std::process::id()));
    std::fs::write(&path, "before\n").expect("a file");
    let yaml = format!(
        "
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: {grpc} }}, http: {{ endpoint: {http} }} }} }} }}
exporters: {{ file: {{ path: {} }} }}
service:
  telemetry: {{ metrics: {{ address: {metrics} }} }}
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [file] }} }}
",
        path.display()
    );
    let Err(error) = Collector::start(config(&yaml)).await else { panic!("the port is taken") };
    assert!(error.to_string().contains(&metrics.to_string()), "{error}");
    assert!(!listens(grpc) && !listens(http), "nobody listens");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "before\n");
    std::fs::remove_file(&path).expect("it is ours");
}

/// Faults 162, 165.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_fails_at_its_last_part_changes_nothing_and_refuses_nothing() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let [new] = free();
    let certificate = std::env::temp_dir().join("spanwire-change-no-such-certificate.pem");
    // The last of its ports cannot be served, after all the others.
    let wrong = yaml
        .replace("grpc: { endpoint: 127.0.0.1:0 }", "grpc: { endpoint: 127.0.0.1:0, max_concurrent_streams: 7 }")
        .replace("exporters:\n", &format!(
            "  otlp/new: {{ protocols: {{ grpc: {{ endpoint: {new} }}, http: {{ endpoint: 127.0.0.1:0, tls: {{ cert_file: {file}, key_file: {file} }} }} }} }}\nexporters:\n",
            file = certificate.display(),
        ))
        .replace("receivers: { otlp: { protocols: { grpc", "receivers:\n  otlp: { protocols: { grpc")
        .replace("127.0.0.1:0 } } } }\n", "127.0.0.1:0 } } }\n")
        .replace("receivers: [otlp]", "receivers: [otlp, otlp/new]");
    for round in 0..20 {
        sender.send(request(round * 10, 10), 10).await.expect("it is taken");
        let error = collector.reload(config(&wrong)).await.expect_err("there is no certificate");
        assert!(error.to_string().contains("otlp/new"), "{error}");
        assert!(!listens(new), "nobody listens there");
        assert_balanced(&collector);
    }
    sender.send(request(200, 10), 10).await.expect("it is taken");
    until("all arrive", || arrived.count() == 210).await;
    assert_eq!(received(&collector, "grpc").accepted, 210);
    assert_eq!((arrived.missing(210), arrived.duplicates()), (Vec::<u64>::new(), 0));
    assert_eq!(collector.shutdown(Duration::from_secs(10)).await.spans_lost, 0);
}

/// Faults 162.
#[tokio::test]
async fn a_destination_more_leaves_the_connections_of_the_others_alone() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("it is taken");
    until("it arrives", || arrived.count() == 10).await;
    let more = yaml
        .replace("service:\n", "  nop:\nservice:\n")
        .replace("exporters: [otlp]", "exporters: [otlp, nop]");
    for (round, yaml) in [&more, &yaml, &more].into_iter().enumerate() {
        collector.reload(config(yaml)).await.expect("it is valid");
        let (first, so_far) = (round as u64 * 10 + 10, round * 10 + 20);
        sender.send(request(first, 10), 10).await.expect("it is taken");
        until("it arrives", || arrived.count() == so_far).await;
    }
    assert_eq!(destination.stats().connections_accepted, 1);
    assert_eq!(received(&collector, "grpc").connections.accepted, 1);
}

/// Faults 162.
#[tokio::test]
async fn a_port_whose_settings_change_leaves_the_other_alone_and_keeps_its_counts() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let grpc = Sender::new(&collector, Protocol::Grpc);
    let http = Sender::new(&collector, Protocol::HttpProtobuf);
    grpc.send(request(0, 10), 10).await.expect("it is taken");
    http.send(request(10, 10), 10).await.expect("it is taken");
    let changed = yaml.replace(
        "http: { endpoint: 127.0.0.1:0 }",
        "http: { endpoint: 127.0.0.1:0, idle_timeout: 30s }",
    );
    collector.reload(config(&changed)).await.expect("it is valid");
    grpc.send(request(20, 10), 10).await.expect("it is taken");
    http.send(request(30, 10), 10).await.expect("it is taken");
    http.send(request(40, 10), 10).await.expect("it is taken");
    until("all arrive", || arrived.count() == 50).await;
    let (grpc, http) = (received(&collector, "grpc"), received(&collector, "http"));
    assert_eq!((grpc.accepted, grpc.connections.accepted), (20, 1));
    assert_eq!((http.accepted, http.connections.accepted), (30, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wider_address_takes_the_place_of_a_narrower_one_and_the_other_way_round() {
    let (destination, arrived) = destination(takes_all).await;
    let [grpc, metrics] = free();
    let (port, page) = (grpc.port(), metrics.port());
    let yaml = |host: &str| {
        to(&destination, "")
            .replacen("endpoint: 127.0.0.1:0", &format!("endpoint: {host}:{port}"), 1)
            .replace("level: none", &format!("address: {host}:{page}"))
    };
    let collector = Collector::start(config(&yaml("127.0.0.1"))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    for (round, host) in ["0.0.0.0", "localhost", "0.0.0.0", "127.0.0.1"].iter().enumerate() {
        sender.send(request(round as u64 * 20, 10), 10).await.expect("it is taken");
        collector.reload(config(&yaml(host))).await.expect("the ports are our own");
        let anew = Sender::new(&collector, Protocol::Grpc);
        anew.send(request(round as u64 * 20 + 10, 10), 10).await.expect("it is taken");
        let asked = Instant::now();
        while !listens(metrics) {
            assert!(asked.elapsed() < Duration::from_secs(10), "nobody shows metrics");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    until("all arrive", || arrived.count() == 80).await;
    assert_eq!((arrived.missing(80), arrived.duplicates()), (Vec::<u64>::new(), 0));
    assert_eq!(collector.shutdown(Duration::from_secs(10)).await.spans_lost, 0);
}

/// Faults 160.
#[tokio::test]
async fn a_shutdown_answers_senders_that_wait_for_a_batch_that_is_due_long_after() {
    let (destination, arrived) = destination(takes_all).await;
    let batch = "    sending_queue: { wait_for_result: true, batch: { flush_timeout: 1h, min_size: 8192 } }";
    let collector = Collector::start(config(&to(&destination, batch))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let sending = tokio::spawn(async move { sender.send(request(0, 10), 10).await });
    until("it waits", || collector.stats().exporters[0].account.queued == 10).await;
    let asked = Instant::now();
    let shutdown = collector.shutdown(Duration::from_secs(60)).await;
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!((shutdown.spans_lost, shutdown.connections_cut), (0, 0));
    let told = sending.await.expect("no panic").expect("it was delivered");
    assert_eq!((told.rejected, arrived.count()), (0, 10));
}

/// Faults 179.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_receivers_accept_is_accounted_for_by_each_pipeline_and_each_destination() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "")
        .replace("exporters:\n", "processors: { probabilistic_sampler: { sampling_percentage: 40 }, attributes: { actions: [{ key: a, value: 1, action: upsert }] } }\nexporters:\n  nop:\n")
        .replace(
            "  pipelines: { traces: { receivers: [otlp], exporters: [otlp] } }",
            "  pipelines:
    traces: { receivers: [otlp], processors: [attributes, probabilistic_sampler], exporters: [otlp, nop] }
    traces/all: { receivers: [otlp], exporters: [nop] }",
        );
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let grpc = Sender::new(&collector, Protocol::Grpc);
    let http = Sender::new(&collector, Protocol::HttpProtobuf);
    for round in 0..50 {
        let sender = [&grpc, &http][round as usize % 2];
        // A request of one trace may be left out as a whole.
        let spans = if round % 5 == 0 { 10 } else { 100 };
        sender.send(request(round * 100, spans), spans).await.expect("it is taken");
        assert_balanced(&collector);
    }
    let sent = 40 * 100 + 10 * 10;
    let settled = || {
        let stats = collector.stats();
        let exporters = stats.exporters.iter().all(|one| one.account.queued == 0);
        exporters && stats.receivers.iter().map(|one| one.accepted).sum::<u64>() == sent
    };
    until("all is sent", settled).await;
    let stats = collector.stats();
    let [all, traces] = [1, 0].map(|place: usize| stats.pipelines[place].passed);
    assert_eq!((all.accepted, all.sampled_out, all.forwarded), (sent, 0, sent));
    assert_eq!((traces.accepted, traces.sampled_out + traces.forwarded), (sent, sent));
    assert!(traces.sampled_out > sent / 4 && traces.forwarded > sent / 4, "{traces:?}");
    let [nop, otlp] = [0, 1].map(|place: usize| stats.exporters[place].account);
    assert_eq!((otlp.accepted, otlp.sampled_out), (sent, traces.sampled_out));
    assert_eq!((otlp.sent, arrived.count() as u64), (traces.forwarded, traces.forwarded));
    assert_eq!((nop.accepted, nop.sampled_out), (2 * sent, traces.sampled_out));
    assert_eq!(nop.sent, traces.forwarded + sent);
    let sampler = stats.processors.iter().find(|one| one.processor == "probabilistic_sampler");
    let sampler = sampler.expect("it is there");
    assert_eq!((sampler.incoming, sampler.outgoing), (sent, traces.forwarded));
}
