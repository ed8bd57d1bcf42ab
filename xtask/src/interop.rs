//! `cargo xtask interop`: spans between ours and the OTLP software of other languages.
//!
//! Into `spanwire-receiver` come spans from the SDKs of Python, JavaScript and Go; out of the client they
//! go to the sinks of `oteltest` (Python) and `@elastic/mockotlpserver` (JavaScript). Sender and
//! receiver each write down every span in one form, and every field of every span must be equal. Then
//! the Python SDK sends through a network that breaks connections, and what it took for accepted must
//! have arrived. Last, the SDKs send to a running `spanwire-collector`, which forwards to the sinks and
//! writes a file: what is in either must be equal to what was sent.
//!
//! Versions are pinned in `interop/`; everything is installed below `target/interop`. Python and Node.js
//! have to be there; where Go is not, its cases say that they were skipped.
#![expect(clippy::print_stdout, reason = "the table is what the command is for")]

mod compare;
mod document;
mod ours;
mod peers;
mod through;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use spanwire::{Compression, Protocol};
use spanwire_faultproxy::{Direction, Fault, FaultProxy, Plan};

use compare::Comparison;
use ours::Collector;
use peers::{Language, Peer, Peers};

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
    let cases: Vec<Case> = cases();
    let chosen: Vec<&Case> =
        cases.iter().filter(|case| case.to_string().contains(&*filter)).collect();
    if chosen.is_empty() {
        eprintln!("interop: no case is called {filter:?}");
        return ExitCode::FAILURE;
    }
    let parties = match Parties::gather(&chosen) {
        Ok(parties) => parties,
        Err(error) => {
            eprintln!("interop: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut rows = Vec::new();
    for (at, case) in chosen.iter().enumerate() {
        eprintln!("interop: [{}/{}] {case}", at + 1, chosen.len());
        let start = Instant::now();
        let own = case.rows(&parties);
        for line in own.iter().flat_map(|row| &row.details) {
            eprintln!("         {line}");
        }
        let verdicts: Vec<&str> = own.iter().map(|row| row.verdict.as_str()).collect();
        eprintln!("         {} in {:.1} s", verdicts.join(", "), start.elapsed().as_secs_f64());
        rows.extend(own);
    }
    print_table(&rows);
    match rows.iter().all(|row| row.passed) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Who takes part beside what is in this program.
struct Parties {
    peers: Peers,
    /// The collector's binary; empty if no case is about it.
    collector: PathBuf,
}

impl Parties {
    /// Installs the peers and builds the collector, unless that has been done.
    fn gather(cases: &[&Case]) -> Result<Self, String> {
        let root = shell::root()?;
        let peers =
            Peers::install(&root).map_err(|error| format!("cannot install the peers: {error}"))?;
        let collector = match cases.iter().any(|case| case.direction == Way::Through) {
            true => through::build(&root)?,
            false => PathBuf::new(),
        };
        Ok(Self { peers, collector })
    }
}

/// What arrived beside what was sent, for each place it came to, if there are several.
type Arrived = Vec<(Option<&'static str>, Comparison)>;

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
    /// From the peer's SDK through a running collector, to the peer's sink and into a file.
    Through,
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
    use Language::{Go, JavaScript, Python};
    use Protocol::{Grpc, HttpJson, HttpProtobuf};
    use Way::{In, InThrough, Out, Through};
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
        (Go, In, Grpc, Plain),
        (Go, In, Grpc, Gzip),
        (Go, In, HttpProtobuf, Plain),
        (Go, In, HttpProtobuf, Gzip),
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
        (Python, Through, Grpc, Plain),
        (Python, Through, Grpc, Gzip),
        (Python, Through, HttpProtobuf, Plain),
        (Python, Through, HttpProtobuf, Gzip),
        (JavaScript, Through, Grpc, Plain),
        (JavaScript, Through, Grpc, Gzip),
        (JavaScript, Through, HttpProtobuf, Plain),
        (JavaScript, Through, HttpProtobuf, Gzip),
        (JavaScript, Through, HttpJson, Plain),
        (JavaScript, Through, HttpJson, Gzip),
        (Go, Through, Grpc, Plain),
        (Go, Through, Grpc, Gzip),
        (Go, Through, HttpProtobuf, Plain),
        (Go, Through, HttpProtobuf, Gzip),
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
        let peer = match self.direction {
            Way::In | Way::InThrough(_) | Way::Through => self.language.sdk_name(),
            Way::Out => self.language.sink_name(),
        };
        let direction = match self.direction {
            Way::In => "in",
            Way::InThrough(Trouble::RequestReset) => "in, requests cut",
            Way::InThrough(Trouble::AnswerReset) => "in, answers cut",
            Way::Out => "out",
            Way::Through => "through the collector",
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

    /// Runs it, if its peer can take part.
    fn rows(&self, parties: &Parties) -> Vec<Row> {
        if let Some(why) = parties.peers.without(self.language) {
            return vec![Row::skipped(self, why)];
        }
        match self.run(parties) {
            Ok(arrived) => {
                arrived.into_iter().map(|(to, comparison)| Row::of(self, to, comparison)).collect()
            }
            Err(error) => vec![Row::failed(self, error)],
        }
    }

    fn run(&self, Parties { peers, collector }: &Parties) -> Result<Arrived, String> {
        let comparison = match self.direction {
            Way::In => self.receive(peers),
            Way::InThrough(trouble) => self.receive_through(peers, trouble),
            Way::Out => self.send(peers),
            Way::Through => return through::run(self, peers, collector),
        };
        comparison.map(|comparison| vec![(None, comparison)])
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
            (Language::Python | Language::Go, Protocol::HttpProtobuf | Protocol::HttpJson) => {
                "http"
            }
            (Language::JavaScript, Protocol::HttpProtobuf) => "proto",
            (Language::JavaScript, Protocol::HttpJson) => "json",
        };
        let (spans, batch_spans) = (spans.to_string(), batch_spans.to_string());
        let arguments = [protocol, self.compression_name(), endpoint, &spans, &batch_spans];
        peers.start(self.language, "send", &arguments)?.finish()
    }

    fn send(&self, peers: &Peers) -> Result<Comparison, String> {
        let sink = Sink::start(self, peers)?;
        let endpoint = format!("http://{}", sink.address());
        let sent = ours::send(&endpoint, self.protocol, self.compression, SPANS)?;
        Ok(Comparison::of(sent, &sink.finish(self.compression)?))
    }
}

/// The peer's sink behind a proxy.
struct Sink {
    peer: Peer,
    /// The peers don't say what was compressed; a proxy knows how much has passed.
    proxy: FaultProxy,
}

impl Sink {
    fn start(case: &Case, peers: &Peers) -> Result<Self, String> {
        let service = if case.protocol == Protocol::Grpc { "grpc" } else { "http" };
        let mut peer = peers.start(case.language.sink(), "sink", &[service])?;
        let Some(line) = peer.line()? else {
            return peer.finish().and(Err("the sink ended before it began".to_owned()));
        };
        let port = line.as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or_else(|| format!("no port: {line}"))?;
        let proxy = FaultProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .map_err(|error| error.to_string())?;
        Ok(Self { peer, proxy })
    }

    fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// What came, if it came compressed as it should.
    fn finish(self, compression: Compression) -> Result<Vec<Json>, String> {
        let bytes = self.proxy.stats().bytes_up;
        if (bytes < SPANS * SPAN_BYTES_MIN) != (compression == Compression::Gzip) {
            return Err(format!(
                "{bytes} bytes came to the sink, with compression {compression:?}"
            ));
        }
        self.peer.finish()
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
    fn of(case: &Case, to: Option<&str>, comparison: Comparison) -> Self {
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
        let numbers = [sent, received, repeated].map(|number| number.to_string());
        Self::new(case, to, numbers, wrong, verdict)
    }

    fn failed(case: &Case, error: String) -> Self {
        Self::new(case, None, ["-"; 3].map(str::to_owned), vec![error], "FAILED")
    }

    fn skipped(case: &Case, why: &str) -> Self {
        let row = Self::new(case, None, ["-"; 3].map(str::to_owned), Vec::new(), why);
        Self { passed: true, ..row }
    }

    fn new(
        case: &Case,
        to: Option<&str>,
        [sent, received, repeated]: [String; 3],
        details: Vec<String>,
        verdict: &str,
    ) -> Self {
        let [peer, direction, protocol, compression] = case.columns().map(str::to_owned);
        let direction = to.map_or_else(|| direction.clone(), |to| format!("{direction} to {to}"));
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
