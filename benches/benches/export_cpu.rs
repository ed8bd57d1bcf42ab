//! What a whole client process costs, and what it loses, while one thread records as fast as it can.
//!
//! Each measurement is a client in a process of its own that records spans of eight attributes and
//! shuts down, and a receiver in another. CPU is that of all the client's threads, in user and in
//! system mode, from the first span to the end of the shutdown; building the client is not counted.
//! Lost is what the receiver did not get. Clients take turns, round by round.
//!
//! `cargo bench -p spanwire-benches --bench export_cpu [-- --rounds N]`
#![expect(clippy::print_stdout, reason = "its result is the table it prints")]

use std::env;
use std::error::Error;
use std::fmt;
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::BatchConfigBuilder;
use spanwire::Overflow;
use spanwire_benches::exporters::{self, PATIENCE, Wire};
use spanwire_benches::fixtures::{ATTRIBUTES, Requests, SCOPE};
use spanwire_benches::process::{cpu_time, memory_peak_bytes};
use spanwire_benches::rivals::OpenTelemetry;
use spanwire_benches::sink::{self, Sink};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The first argument of a process that is to be a client.
const CLIENT: &str = "--client";

fn main() -> Result<()> {
    if sink::serve_if_asked()? {
        return Ok(());
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [CLIENT, client, wire, spans, url] => {
            run(client.parse()?, wire.parse()?, spans.parse()?, url.to_owned())
        }
        [.., "--rounds", rounds] | ["--rounds", rounds, ..] => tables(rounds.parse()?),
        _ => tables(5),
    }
}

/// A client and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// Spanwire as it is by default, which drops the newest spans when its queue is full.
    Spanwire,
    /// Spanwire with the policy that waits for room.
    SpanwireBlocking,
    /// opentelemetry-otlp as it is by default: a queue of 2,048 spans, batches of 512.
    OpenTelemetry,
    /// opentelemetry-otlp with a queue that holds all spans, so that it loses none. Larger batches
    /// would cost it more CPU, not less.
    OpenTelemetryUnbounded,
}

impl Client {
    const ALL: [Self; 4] =
        [Self::Spanwire, Self::SpanwireBlocking, Self::OpenTelemetry, Self::OpenTelemetryUnbounded];
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Spanwire => "spanwire, defaults",
            Self::SpanwireBlocking => "spanwire, Overflow::Block",
            Self::OpenTelemetry => "opentelemetry-otlp, defaults",
            Self::OpenTelemetryUnbounded => "opentelemetry-otlp, queue of all spans",
        })
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let client = Self::ALL.into_iter().find(|client| client.to_string() == name);
        client.ok_or_else(|| format!("no client is called {name}"))
    }
}

/// The client's process: records, shuts down, and says what that took.
fn run(client: Client, wire: Wire, spans: usize, url: String) -> Result<()> {
    let requests = Requests::new(spans);
    let spent = match client {
        Client::Spanwire | Client::SpanwireBlocking => {
            let overflow = match client {
                Client::Spanwire => Overflow::DropNewest,
                _ => Overflow::Block { timeout: PATIENCE },
            };
            let client = exporters::spanwire(wire, url, overflow)?;
            let tracer = client.tracer(SCOPE);
            measure(
                || requests.iter().for_each(|request| request.record(&tracer)),
                || {
                    let report = client.shutdown_blocking(PATIENCE);
                    assert!(report.complete && client.stats().is_balanced(), "{report}");
                },
            )
        }
        Client::OpenTelemetry | Client::OpenTelemetryUnbounded => {
            let batch = match client {
                Client::OpenTelemetry => BatchConfigBuilder::default(),
                _ => BatchConfigBuilder::default().with_max_queue_size(spans),
            };
            let client = OpenTelemetry::new(wire, url, batch.build())?;
            let tracer = client.provider.tracer(SCOPE);
            measure(
                || requests.iter().for_each(|request| request.record_opentelemetry(&tracer)),
                || client.provider.shutdown_with_timeout(PATIENCE).expect("the sink takes all"),
            )
        }
    };
    println!("{spent}");
    Ok(())
}

fn measure(record: impl FnOnce(), shut_down: impl FnOnce()) -> Spent {
    let (cpu, start) = (cpu_time(), Instant::now());
    record();
    let recorded = start.elapsed();
    shut_down();
    Spent {
        cpu: cpu_time() - cpu,
        recorded,
        done: start.elapsed(),
        memory_peak_bytes: memory_peak_bytes(),
    }
}

/// What a client's process tells its parent.
struct Spent {
    cpu: Duration,
    recorded: Duration,
    done: Duration,
    memory_peak_bytes: u64,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, recorded, done, memory_peak_bytes } = self;
        let [cpu, recorded, done] = [cpu, recorded, done].map(Duration::as_nanos);
        write!(f, "{cpu} {recorded} {done} {memory_peak_bytes}")
    }
}

impl FromStr for Spent {
    type Err = Box<dyn Error>;

    fn from_str(line: &str) -> Result<Self> {
        let numbers =
            line.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>();
        let numbers: Vec<u64> = numbers?;
        let [cpu, recorded, done, memory_peak_bytes] = numbers[..] else {
            return Err(format!("the client answered {line:?}").into());
        };
        let [cpu, recorded, done] = [cpu, recorded, done].map(Duration::from_nanos);
        Ok(Self { cpu, recorded, done, memory_peak_bytes })
    }
}

/// One row of a table, with a column of numbers for each round.
struct Row {
    client: Client,
    wire: Wire,
    spans: u32,
    cpu_nanos: Vec<f64>,
    record_nanos: Vec<f64>,
    spans_per_second: Vec<f64>,
    lost: Vec<f64>,
    wire_bytes: Vec<f64>,
    memory_peak_mib: Vec<f64>,
}

impl Row {
    fn new(client: Client, wire: Wire, spans: u32) -> Self {
        Self {
            client,
            wire,
            spans,
            cpu_nanos: Vec::new(),
            record_nanos: Vec::new(),
            spans_per_second: Vec::new(),
            lost: Vec::new(),
            wire_bytes: Vec::new(),
            memory_peak_mib: Vec::new(),
        }
    }

    fn round(&mut self, sink: &mut Sink) -> Result<()> {
        let before = sink.taken()?;
        let output = Command::new(env::current_exe()?)
            .args([CLIENT, &self.client.to_string(), &self.wire.to_string()])
            .args([self.spans.to_string(), self.wire.url(sink)])
            .output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {errors}", self.client).into());
        }
        let spent: Spent = String::from_utf8(output.stdout)?.parse()?;
        let after = sink.taken()?;

        let spans = f64::from(self.spans);
        let arrived = (after.spans - before.spans) as f64;
        self.cpu_nanos.push(spent.cpu.as_nanos() as f64 / spans);
        self.record_nanos.push(spent.recorded.as_nanos() as f64 / spans);
        self.spans_per_second.push(arrived / spent.done.as_secs_f64());
        self.lost.push(spans - arrived);
        self.wire_bytes.push((after.wire_bytes - before.wire_bytes) as f64 / arrived);
        self.memory_peak_mib.push(spent.memory_peak_bytes as f64 / f64::from(1 << 20));
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, wire, spans, .. } = self;
        write!(
            f,
            "| {spans} | {wire} | {client} | {} | {} | {} | {} | {} | {} |",
            spread(&self.cpu_nanos, 1.0, 0),
            spread(&self.record_nanos, 1.0, 0),
            spread(&self.spans_per_second, 1e6, 2),
            spread(&self.lost, 1.0, 0),
            spread(&self.wire_bytes, 1.0, 0),
            spread(&self.memory_peak_mib, 1.0, 0),
        )
    }
}

/// Median, and the least and the greatest of them where they differ in what is shown.
fn spread(values: &[f64], unit: f64, digits: usize) -> String {
    let mut values: Vec<f64> = values.iter().map(|value| value / unit).collect();
    values.sort_by(f64::total_cmp);
    let show = |value: Option<&f64>| format!("{:.digits$}", value.copied().unwrap_or(f64::NAN));
    let (least, greatest) = (show(values.first()), show(values.last()));
    if least == greatest {
        return least;
    }
    format!("{:.digits$} ({least}–{greatest})", median(&values))
}

fn median(sorted: &[f64]) -> f64 {
    let (half, odd) = (sorted.len() / 2, sorted.len() % 2 == 1);
    if odd { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

fn tables(rounds: usize) -> Result<()> {
    let mut rows = Vec::new();
    for wire in Wire::ALL {
        for client in [Client::SpanwireBlocking, Client::OpenTelemetryUnbounded] {
            rows.push(Row::new(client, wire, 500_000));
        }
    }
    let bursts = rows.len();
    for spans in [100_000, 500_000] {
        for client in [Client::Spanwire, Client::SpanwireBlocking, Client::OpenTelemetry] {
            rows.push(Row::new(client, Wire::Grpc, spans));
        }
    }

    let mut sink = Sink::spawn()?;
    for _ in 0..rounds.max(1) {
        for row in &mut rows {
            row.round(&mut sink)?;
        }
    }

    let (whole, burst) = rows.split_at(bursts);
    println!(
        "\nExport of spans with {ATTRIBUTES} attributes; median (least–greatest) of {rounds}\n"
    );
    table(whole);
    println!("\nA burst with default settings\n");
    table(burst);
    println!("\nRatios of the medians of CPU a span, opentelemetry-otlp to spanwire\n");
    for pair in whole.chunks_exact(2) {
        let [ours, theirs] = [&pair[0], &pair[1]].map(|row| {
            let mut values = row.cpu_nanos.clone();
            values.sort_by(f64::total_cmp);
            median(&values)
        });
        println!("- {}: {:.1}", pair[0].wire, theirs / ours);
    }
    Ok(())
}

fn table(rows: &[Row]) {
    println!(
        "| spans | wire | client | CPU ns a span | recording ns a span | M spans/s | lost \
         | bytes sent a span | peak MiB |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    rows.iter().for_each(|row| println!("{row}"));
}
