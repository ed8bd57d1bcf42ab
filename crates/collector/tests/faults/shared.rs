//! What pipelines share, and what no span can reach.

use std::fs;

use spanwire_collector::Collector;
use spanwire_receiver::Receiver;
use spanwire_transport::{Body, Protocol, Transport, TransportConfig};

use crate::support::*;

fn two_pipelines(destination: &Receiver, second: &str) -> String {
    let first = "traces: { receivers: [otlp], exporters: [otlp] }";
    to(destination, "").replace(first, &format!("{first}, traces/2: {second}"))
}

/// Faults 178.
#[tokio::test]
async fn a_destination_of_two_pipelines_is_one_and_has_one_queue_and_one_account() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = two_pipelines(&destination, "{ receivers: [otlp/2], exporters: [otlp] }");
    let yaml = yaml.replacen(
        "receivers: {",
        "receivers: { otlp/2: { protocols: { http: { endpoint: 127.0.0.1:0 } } },",
        1,
    );
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let first = Sender::new(&collector, Protocol::Grpc);
    first.send(request(0, 10), 10).await.expect("the queue takes it");
    let url = format!("http://{}", address(&collector, "otlp/2"));
    let http = TransportConfig::new(Protocol::HttpProtobuf, &url).expect("an address");
    let http = Transport::new(&http).expect("settings");
    let second = http.encode(&Body::new([request(10, 20)], 20)).await.expect("sendable");
    let taken = http.send(&second).await.expect("the queue takes it");
    assert_eq!(taken.rejected_spans, 0);
    until("all arrive", || arrived.count() == 30).await;
    assert_eq!((arrived.missing(30), arrived.duplicates()), (vec![], 0));
    let stats = collector.stats();
    assert_eq!(stats.exporters.len(), 1, "{stats:?}");
    until("it is counted", || account(&collector, "otlp").sent == 30).await;
    assert_balanced(&collector);
}

/// Faults 178.
#[tokio::test]
async fn two_pipelines_of_a_receiver_give_a_shared_destination_what_each_was_given() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = two_pipelines(&destination, "{ receivers: [otlp], exporters: [otlp] }");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("the queue takes it");
    until("it is sent twice", || account(&collector, "otlp").sent == 20).await;
    assert_eq!((arrived.count(), arrived.duplicates()), (10, 10));
    assert_balanced(&collector);
}

/// Faults 177.
#[tokio::test]
async fn nothing_in_a_span_leads_to_another_file() {
    let folder = std::env::temp_dir().join(format!("spanwire-shared-{}", std::process::id()));
    fs::create_dir_all(folder.join("a")).expect("a folder");
    let file = folder.join("a/spans.json");
    let name = "../../elsewhere\n{\"resourceSpans\":[]}\r\n\u{2028}/etc/passwd\0";
    let (nobody, _) = destination(takes_all).await;
    let yaml = to(&nobody, &format!("  file: {{ path: {} }}", file.display()))
        .replace("exporters: [otlp]", "exporters: [file]");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    for round in 0..3 {
        sender.send(named(round, 1, name), 1).await.expect("the queue takes it");
    }
    until("it is written", || account(&collector, "file").sent == 3).await;
    collector.shutdown(std::time::Duration::from_secs(10)).await;
    let text = fs::read_to_string(&file).expect("a file");
    assert_eq!(text.split('\n').count(), 4, "three lines, each ended: {text}");
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let span = &line["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["name"], name);
    }
    let names = |folder| {
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one").file_name())
    };
    let there: Vec<_> = names(folder.clone()).chain(names(folder.join("a"))).collect();
    assert_eq!(there, ["a", "spans.json"]);
    fs::remove_dir_all(&folder).expect("it is ours");
}
