//! `cargo xtask interop`: spans between ours and the OTLP software of other languages.
//!
//! Into `spanwire-receiver` come spans from the SDKs of Python and JavaScript; out of the client they
//! go to the sinks of `oteltest` (Python) and `@elastic/mockotlpserver` (JavaScript). Sender and
//! receiver each write down every span in one form, and every field of every span must be equal. Last,
//! the Python SDK sends through a network that breaks connections, and what it took for accepted must
//! have arrived.
//!
//! Versions are pinned in `interop/`; everything is installed below `target/interop`.
#![expect(clippy::print_stdout, reason = "the table is what the command is for")]

mod compare;
mod document;
mod ours;
mod peers;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use spanwire::{Compression, Protocol};
use spanwire_faultproxy::{Direction, Fault, FaultProxy, Plan};

use compare::Comparison;
use ours::Collector;
use peers::{Language, Peers};

use crate::shell;

/// Spans of one case.
const SPANS: u64 = 1000;

/// Less than their mean size as our client encodes them, and more than it is compressed.
const SPAN_BYTES_MIN: u64 = 500;

/// Runs every case whose description contains the argument, or all.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let filter = match arguments {
        [] => Cow::default(),
        [filter] => filter.to_string_lossy(),
        _ => {
            eprintln!("interop: {arguments:?} are too many: cargo xtask interop [FILTER]");
            return ExitCode::FAILURE;
        }
    };
    let peers = match shell::root().and_then(|root| Peers::install(&root)) {
        Ok(peers) => peers,
        Err(error) => {
            eprintln!("interop: cannot install the peers: {error}");
            return ExitCode::FAILURE;
        }
    };
    let cases: Vec<Case> = cases();
    let chosen: Vec<&Case> =
        cases.iter().filter(|case| case.to_string().contains(&*filter)).collect();
    if chosen.is_empty() {
        eprintln!("interop: no case is called {filter:?}");
        return ExitCode::FAILURE;
    }
    let mut rows = Vec::new();
    for (at, case) in chosen.iter().enumerate() {
        eprintln!("interop: [{}/{}] {case}", at + 1, chosen.len());
        let start = Instant::now();
        let row = Row::of(case, case.run(&peers));
        for line in &row.details {
            eprintln!("         {line}");
        }
        eprintln!("         {} in {:.1} s", row.verdict, start.elapsed().as_secs_f64());
        rows.push(row);
    }
    print_table(&rows);
    match rows.iter().all(|row| row.passed) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// One peer, one direction, one way to send.
struct Case {
    language: Language,
    direction: Way,
    protocol: Protocol,
    compression: Compression,
}

/// Which way spans go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From the peer's SDK to our receiver.
    In,
    /// The same through a proxy that breaks each connection.
    InThrough(Trouble),
    /// From our client to the peer's sink.
    Out,
}

/// What the proxy does to every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Resets it in the midst of a request.
    RequestReset,
    /// Resets it in the midst of an answer: the spans are there, and the sender cannot know.
    AnswerReset,
}

fn cases() -> Vec<Case> {
    use Compression::{Gzip, None as Plain};
    use Language::{JavaScript, Python};
    use Protocol::{Grpc, HttpJson, HttpProtobuf};
    use Way::{In, InThrough, Out};
    [
        (Python, In, Grpc, Plain),
        (Python, In, Grpc, Gzip),
        (Python, In, HttpProtobuf, Plain),
        (Python, In, HttpProtobuf, Gzip),
        (JavaScript, In, Grpc, Plain),
        (JavaScript, In, Grpc, Gzip),
        (JavaScript, In, HttpProtobuf, Plain),
        (JavaScript, In, HttpProtobuf, Gzip),
        (JavaScript, In, HttpJson, Plain),
        (JavaScript, In, HttpJson, Gzip),
        (Python, Out, Grpc, Plain),
        (Python, Out, Grpc, Gzip),
        // The HTTP sinks of both peers take bodies as they come: neither decompresses.
        (Python, Out, HttpProtobuf, Plain),
        (JavaScript, Out, Grpc, Plain),
        (JavaScript, Out, Grpc, Gzip),
        (JavaScript, Out, HttpProtobuf, Plain),
        (JavaScript, Out, HttpJson, Plain),
        (Python, InThrough(Trouble::RequestReset), Grpc, Plain),
        (Python, InThrough(Trouble::RequestReset), HttpProtobuf, Plain),
        (Python, InThrough(Trouble::AnswerReset), Grpc, Plain),
        (Python, InThrough(Trouble::AnswerReset), HttpProtobuf, Plain),
    ]
    .map(|(language, direction, protocol, compression)| Case {
        language,
        direction,
        protocol,
        compression,
    })
    .into()
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [peer, direction, protocol, compression] = self.columns();
        write!(f, "{peer}, {direction}, {protocol}, {compression}")
    }
}

impl Case {
    fn columns(&self) -> [&'static str; 4] {
        let peer = match (self.direction, self.language) {
            (Way::In | Way::InThrough(_), Language::Python) => "opentelemetry-python",
            (Way::In | Way::InThrough(_), Language::JavaScript) => "opentelemetry-js",
            (Way::Out, Language::Python) => "oteltest",
            (Way::Out, Language::JavaScript) => "mockotlpserver",
        };
        let direction = match self.direction {
            Way::In => "in",
            Way::InThrough(Trouble::RequestReset) => "in, requests cut",
            Way::InThrough(Trouble::AnswerReset) => "in, answers cut",
            Way::Out => "out",
        };
        let protocol = match self.protocol {
            Protocol::Grpc => "grpc",
            Protocol::HttpProtobuf => "http/protobuf",
            Protocol::HttpJson => "http/json",
        };
        [peer, direction, protocol, self.compression_name()]
    }

    fn compression_name(&self) -> &'static str {
        match self.compression {
            Compression::Gzip => "gzip",
            _ => "none",
        }
    }

    fn run(&self, peers: &Peers) -> Result<Comparison, String> {
        match self.direction {
            Way::In => self.receive(peers),
            Way::InThrough(trouble) => self.receive_through(peers, trouble),
            Way::Out => self.send(peers),
        }
    }

    fn receive(&self, peers: &Peers) -> Result<Comparison, String> {
        let collector = Collector::start()?;
        let sent = self.send_with(peers, &collector.endpoint(self.protocol)?, SPANS, 256)?;
        let received = collector.finish(self.protocol, self.compression)?;
        Ok(Comparison::of(sent, &received))
    }

    /// Fewer spans in small batches, since their sender waits for a second or more after each fault.
    fn receive_through(&self, peers: &Peers, trouble: Trouble) -> Result<Comparison, String> {
        let collector = Collector::start()?;
        let upstream = collector.address(self.protocol)?;
        let proxy = FaultProxy::start(upstream).map_err(|error| error.to_string())?;
        // A batch of 20 spans has some 30 KB, an answer some 50 to 200 bytes: each connection
        // carries a few of them before it breaks.
        let (direction, after) = match trouble {
            Trouble::RequestReset => (Direction::Up, 100_000),
            Trouble::AnswerReset => (Direction::Down, 500),
        };
        let latency = Duration::from_millis(5);
        let plan = Plan::healthy().latency(latency).jitter(latency);
        proxy.set(plan.fault(direction, after, Fault::Reset));
        let sent = self.send_with(peers, &format!("http://{}", proxy.address()), SPANS / 2, 20)?;
        let stats = proxy.stats();
        drop(proxy);
        let received = collector.finish(self.protocol, self.compression)?;
        if stats.resets == 0 {
            return Err(format!("no connection was broken: {stats:?}"));
        }
        eprintln!("         {} of {} connections broken", stats.resets, stats.connections);
        Ok(Comparison::of(sent, &received))
    }

    /// Lets the peer's SDK send; what it has made.
    fn send_with(
        &self,
        peers: &Peers,
        endpoint: &str,
        spans: u64,
        batch_spans: u64,
    ) -> Result<Vec<Json>, String> {
        let protocol = match (self.language, self.protocol) {
            (_, Protocol::Grpc) => "grpc",
            (Language::Python, Protocol::HttpProtobuf | Protocol::HttpJson) => "http",
            (Language::JavaScript, Protocol::HttpProtobuf) => "proto",
            (Language::JavaScript, Protocol::HttpJson) => "json",
        };
        let (spans, batch_spans) = (spans.to_string(), batch_spans.to_string());
        let arguments = [protocol, self.compression_name(), endpoint, &spans, &batch_spans];
        peers.start(self.language, "send", &arguments)?.finish()
    }

    fn send(&self, peers: &Peers) -> Result<Comparison, String> {
        let service = if self.protocol == Protocol::Grpc { "grpc" } else { "http" };
        let mut sink = peers.start(self.language, "sink", &[service])?;
        let Some(line) = sink.line()? else {
            return sink.finish().and(Err("the sink ended before it began".to_owned()));
        };
        let port = line.as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or_else(|| format!("no port: {line}"))?;
        // The peers don't say what was compressed; a proxy knows how much has passed.
        let proxy = FaultProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .map_err(|error| error.to_string())?;
        let endpoint = format!("http://{}", proxy.address());
        let sent = ours::send(&endpoint, self.protocol, self.compression, SPANS)?;
        let bytes = proxy.stats().bytes_up;
        if (bytes < SPANS * SPAN_BYTES_MIN) != (self.compression == Compression::Gzip) {
            return Err(format!("{bytes} bytes were sent, not what {self} has"));
        }
        Ok(Comparison::of(sent, &sink.finish()?))
    }
}

/// One line of the table.
struct Row {
    columns: [String; 8],
    details: Vec<String>,
    verdict: String,
    passed: bool,
}

impl Row {
    fn of(case: &Case, outcome: Result<Comparison, String>) -> Self {
        let named = case.columns().map(str::to_owned);
        let (numbers, details, verdict) = match outcome {
            Err(error) => (["-".to_owned(), "-".to_owned(), "-".to_owned()], vec![error], "FAILED"),
            Ok(comparison) => {
                let verdict = match case.direction {
                    _ if comparison.is_exact() => "equal",
                    Way::InThrough(_) if comparison.is_accounted_for() => "accounted for",
                    _ => "DIFFERENT",
                };
                let Comparison { sent, received, repeated, missing, mut wrong, .. } = comparison;
                if missing > 0 {
                    wrong.insert(0, format!("{missing} did not arrive"));
                }
                wrong.truncate(DETAILS_MAX);
                ([sent, received, repeated].map(|number| number.to_string()), wrong, verdict)
            }
        };
        let [peer, direction, protocol, compression] = named;
        let [sent, received, repeated] = numbers;
        let verdict = verdict.to_owned();
        let columns =
            [peer, direction, protocol, compression, sent, received, repeated, verdict.clone()];
        let passed = matches!(verdict.as_str(), "equal" | "accounted for");
        Self { columns, details, verdict, passed }
    }
}

/// Differences of one case that are shown.
const DETAILS_MAX: usize = 5;

fn print_table(rows: &[Row]) {
    let head =
        ["peer", "way", "protocol", "compression", "sent", "received", "repeated", "verdict"];
    let widths: Vec<usize> = (0..head.len())
        .map(|at| rows.iter().map(|row| row.columns[at].len()).fold(head[at].len(), usize::max))
        .collect();
    let print = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        println!("| {} |", padded.join(" | "));
    };
    println!();
    print(head.to_vec());
    let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    print(rules.iter().map(String::as_str).collect());
    for row in rows {
        print(row.columns.iter().map(String::as_str).collect());
    }
}
