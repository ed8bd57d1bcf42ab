//! The servers for people and their tools, and those who ask too much of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spanwire_collector::Collector;
use spanwire_transport::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::*;

/// Whatever is answered to these bytes.
async fn ask(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // It need not read to the end what it refuses.
    let _refused = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
    let _reset = read.await.expect("it answers or closes in time");
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn get(address: &str, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await
}

/// All three servers beside a pipeline.
fn with_servers(yaml: &str) -> String {
    yaml.replace(
        "metrics: { level: none }",
        "metrics: { level: detailed, readers: [{ pull: { exporter: \
         { prometheus: { host: 127.0.0.1, port: 0 } } } }] }",
    )
    .replace(
        "service:\n",
        "extensions: { health_check: { endpoint: 127.0.0.1:0 }, \
         zpages: { endpoint: 127.0.0.1:0 } }\nservice:\n  extensions: [health_check, zpages]\n",
    )
}

/// Faults 175.
#[tokio::test]
async fn whatever_components_are_called_the_page_of_metrics_can_be_read() {
    let (destination, _) = destination(takes_all).await;
    let odd = "nop/a\"b\\c\nd{e=\"f\"} 7\n# TYPE x counter\u{1F980}";
    let quoted = serde_json::to_string(odd).expect("text");
    let yaml = with_servers(&to(&destination, &format!("  {quoted}:")))
        .replace("exporters: [otlp]", &format!("exporters: [otlp, {quoted}]"));
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let name = "name\"\n# HELP otelcol_exporter_sent_spans x\nspanwire_forged{} 1";
    sender.send(named(0, 10, name), 10).await.expect("the queue takes it");
    until("it is sent", || account(&collector, odd).sent == 10).await;
    let answer = get(&address(&collector, "metrics"), "/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let series = exposition(body).unwrap_or_else(|why| panic!("{why}"));
    let of_odd = |labels: &&BTreeMap<String, String>| {
        labels.get("exporter").is_some_and(|exporter| exporter == odd)
    };
    assert!(series.iter().map(|(_, labels)| labels).filter(of_odd).count() > 5, "{body}");
    // Names come from the configuration alone, so spans cannot make more of them.
    assert!(series.len() < 1_000, "{} series", series.len());
    assert!(!body.contains("spanwire_forged"), "{body}");
}

/// Faults 175.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_scrapers_that_read_nothing_hold_up_no_span() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = with_servers(&to(&destination, ""));
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let page = address(&collector, "metrics");
    let mut scrapers = Vec::new();
    // Most of them wait for a place; the system keeps no more than 128 that do.
    for number in 0..120 {
        let mut scraper = TcpStream::connect(&page).await.expect("it listens");
        let request: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /metrics HTTP/1.1\r\nhost: te",
            _ => b"GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n",
        };
        scraper.write_all(request).await.expect("the system takes it");
        scrapers.push(scraper);
    }
    let sender = Sender::new(&collector, Protocol::Grpc);
    for number in 0..50 {
        let sent = sender.send(request(number * 10, 10), 10);
        let sent = tokio::time::timeout(Duration::from_secs(10), sent).await;
        sent.expect("in time").expect("the queue takes it");
    }
    until("all arrive", || arrived.count() == 500).await;
    assert_eq!(arrived.missing(500), Vec::<u64>::new());
    assert_balanced(&collector);
    drop(scrapers);
    let answer = tokio::time::timeout(Duration::from_secs(60), get(&page, "/metrics")).await;
    assert!(answer.expect("in time").starts_with("HTTP/1.1 200"), "their places are free again");
}

/// Faults 176.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_asked_changes_anything() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = with_servers(&to(&destination, ""));
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    sender.send(request(0, 10), 10).await.expect("the queue takes it");
    until("it is sent", || account(&collector, "otlp").sent == 10).await;
    let before = collector.stats();
    let pages = [("metrics", "/metrics"), ("health_check", "/"), ("zpages", "/debug/pipelinez")];
    for (part, path) in pages {
        let at = address(&collector, part);
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
            let answer = ask(&at, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{part} {method}: {answer}");
            assert!(answer.contains("\r\nallow: GET, HEAD\r\n"), "{part} {method}: {answer}");
        }
        for path in [
            "/shutdown",
            "/-/quit",
            "/-/reload",
            "/debug/pprof/profile?seconds=60",
            "/debug/pprof/goroutine",
            "/../../../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/metrics/../config",
            "//metrics",
        ] {
            let answer = get(&at, path).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{part} {path}: {answer}");
        }
        let long = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
        for request in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03"[..],
            b"GET /metrics\r\n\r\n",
            b"GET  HTTP/1.1\r\nhost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\0\0\0\0\0\0\0\0\r\n\r\n",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            long.as_bytes(),
        ] {
            let answer = ask(&at, request).await;
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(refused, "{part}: {answer}");
        }
        // Some queries are ignored, as their askers expect.
        let answer = get(&at, &format!("{path}?seconds=99999999999999999999&x=%00")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{part}: {answer}");
    }
    let after = collector.stats();
    assert_eq!(after.exporters, before.exporters);
    assert_eq!(after.pipelines, before.pipelines);
    sender.send(request(10, 10), 10).await.expect("it runs as before");
    until("it arrives", || arrived.count() == 20).await;
}

type Labels = BTreeMap<String, String>;

/// Every series of a page in version 0.0.4 of Prometheus's text format, read as strictly as its
/// documentation has it ("Text-based format" in "Exposition formats"): one head for each metric, before
/// all of its rows, which stand together; no series twice.
fn exposition(page: &str) -> Result<Vec<(String, Labels)>, String> {
    let mut series = Vec::new();
    let mut seen = BTreeSet::new();
    let mut known = BTreeSet::new();
    let mut helped = None;
    // The metric whose rows come now, and its kind.
    let mut current = None;
    for line in page.strip_suffix('\n').ok_or("the last line has no end")?.split('\n') {
        let wrong = |why: &str| Err(format!("{why}: {line:?}"));
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').ok_or(format!("no text: {line:?}"))?;
            if !is_name(name) || !known.insert(name.to_owned()) {
                return wrong("a second head");
            }
            helped = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or(format!("no kind: {line:?}"))?;
            let is_kind = ["counter", "gauge", "histogram"].contains(&kind);
            if helped.as_deref() != Some(name) || !is_kind {
                return wrong("no help, or no kind");
            }
            current = helped.take().map(|name| (name, kind.to_owned()));
        } else {
            let (name, labels, value) = row(line).ok_or(format!("no row: {line:?}"))?;
            let Some((metric, kind)) = &current else { return wrong("a row without a head") };
            let suffix = name.strip_prefix(&**metric).unwrap_or("none");
            let of_kind = match &**kind {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                _ => suffix.is_empty(),
            };
            if !of_kind || value.is_nan() || (kind == "counter" && value < 0.0) {
                return wrong("not of its metric");
            }
            if !seen.insert((name.clone(), labels.clone())) {
                return wrong("twice");
            }
            series.push((name, labels));
        }
    }
    Ok(series)
}

fn is_name(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    name.bytes().all(is_char) && name.starts_with(|char: char| !char.is_ascii_digit())
}

fn row(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            rest = loop {
                match chars.next()? {
                    (at, '"') => break &after[at + 1..],
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        escaped @ ('\\' | '"') => escaped,
                        _ => return None,
                    }),
                    (_, char) => value.push(char),
                }
            };
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| (name.to_owned(), labels, value))
}
