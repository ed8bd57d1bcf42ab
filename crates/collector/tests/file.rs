//! Spans to files: nothing that was taken is missing from them, whatever happens around them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spanwire_collector::Collector;
use spanwire_transport::Protocol;
use support::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A folder of its own for each test.
fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("spanwire-out-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

fn to_file(path: &Path, settings: &str) -> String {
    format!(
        "
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: 127.0.0.1:0 }} }} }} }}
exporters: {{ file: {{ path: {}{settings} }} }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [file] }} }}
",
        path.display()
    )
}

/// Numbers of the spans in a file, each of whose lines is a request.
fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).expect("a file");
    let mut numbers = Vec::new();
    for line in text.lines() {
        let request: serde_json::Value = serde_json::from_str(line).expect("a whole line");
        let spans = &request["resourceSpans"][0]["scopeSpans"][0]["spans"];
        for span in spans.as_array().expect("spans") {
            let id = span["spanId"].as_str().expect("hexadecimal digits");
            numbers.push(u64::from_str_radix(id, 16).expect("digits") - 1);
        }
    }
    numbers
}

#[tokio::test]
async fn a_reload_keeps_what_is_in_the_file_whether_it_is_made_or_not() {
    let folder = scratch("reload");
    let path = folder.join("spans.json");
    fs::write(&path, "of an earlier process\n").expect("a file");
    let collector = Collector::start(config(&to_file(&path, ""))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let sent = |spans| {
        let collector = &collector;
        move || collector.stats().exporters[0].account.sent == spans
    };
    sender.send(request(0, 10), 10).await.expect("it is taken");
    until("they are written", sent(10)).await;
    assert_eq!(numbers(&path), (0..10).collect::<Vec<_>>(), "it began anew, once");

    let wrong = to_file(&path, ", rotation: { max_backups: 2 }").replace(
        "exporters: {",
        "processors: { attributes: { actions: [{ pattern: '(', action: delete }] } }\nexporters: {",
    );
    let wrong = wrong.replace("receivers: [otlp],", "receivers: [otlp], processors: [attributes],");
    collector.reload(config(&wrong)).await.expect_err("that is no expression");
    assert_eq!(numbers(&path).len(), 10);
    let rotates = ", rotation: { max_backups: 3 }";
    for (round, settings) in [(1, rotates), (2, ", append: true"), (3, "")] {
        collector.reload(config(&to_file(&path, settings))).await.expect("it is valid");
        sender.send(request(round * 10, 10), 10).await.expect("it is taken");
    }
    until("they are written", sent(40)).await;
    let mut written = numbers(&path);
    written.sort_unstable();
    assert_eq!(written, (0..40).collect::<Vec<_>>());
    assert_eq!(collector.shutdown(PATIENCE).await.spans_lost, 0);
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[tokio::test]
async fn files_that_are_moved_aside_hold_every_span_between_them() {
    let folder = scratch("rotation");
    let path = folder.join("spans.json");
    let rotation = ", rotation: { max_megabytes: 1, max_backups: 0 }";
    let collector = Collector::start(config(&to_file(&path, rotation))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    for round in 0..20 {
        sender.send(request(round * 1_000, 1_000), 1_000).await.expect("it is taken");
    }
    assert_eq!(collector.shutdown(PATIENCE).await.spans_lost, 0);
    let files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|one| one.expect("an entry").path())
        .collect();
    assert!(files.len() > 2, "{files:?}");
    for file in &files {
        let bytes = fs::metadata(file).expect("a file").len();
        assert!(bytes <= 1 << 20, "{} has {bytes} bytes", file.display());
    }
    let mut written: Vec<_> = files.iter().flat_map(|file| numbers(file)).collect();
    written.sort_unstable();
    assert_eq!(written, (0..20_000).collect::<Vec<_>>());
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[tokio::test]
async fn what_keeps_a_file_from_being_written_is_waited_for() {
    let folder = scratch("away");
    let mounted = folder.join("mounted");
    fs::create_dir(&mounted).expect("a folder");
    let path = mounted.join("spans.json");
    let collector = Collector::start(config(&to_file(&path, ""))).await.expect("it starts");
    fs::remove_dir(&mounted).expect("it is empty");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("the queue takes it");
    let account = || collector.stats().exporters[0].account;
    until("it is tried in vain", || account().failures > 0).await;
    assert_eq!((account().dropped_in_all(), account().queued), (0, 10));
    fs::create_dir(&mounted).expect("a folder");
    until("they are written", || account().sent == 10).await;
    assert_eq!(numbers(&path), (0..10).collect::<Vec<_>>());
    assert_eq!(collector.shutdown(PATIENCE).await.spans_lost, 0);
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[tokio::test]
async fn a_file_that_cannot_be_is_named_before_anything_starts() {
    let folder = scratch("nowhere");
    let wrong = config(&to_file(&folder.join("none/spans.json"), ""));
    let error = Collector::start(wrong).await.err().expect("there is no such folder");
    assert!(error.to_string().contains("none/spans.json"), "{error}");
    fs::remove_dir_all(&folder).expect("it is ours");
}
