//! What a whole client process costs, and what it loses.
//!
//! Each measurement is a client in a process of its own that records spans of eight attributes and
//! shuts down, and a receiver in another. CPU is that of all the client's threads, in user and in
//! system mode, from the first span to the end of the shutdown; building the client is not counted.
//! Lost is what the receiver did not get. Clients take turns, round by round.
//!
//! - *Exports*: one thread records as fast as it can, and nothing may be lost.
//! - *Bursts*: the same with default settings, which lose what they cannot hold, and for Spanwire with
//!   [`Overflow::Block`] too, which waits for room.
//! - *Steady*: one thread records at an even pace, with default settings, once a millisecond all that
//!   is due. Waking up so often costs that process 1 or 2 % of a core, whoever the client is. 50,000
//!   spans a second travel as gRPC with gzip; 300,000 without, which is as much as the rival can send.
//!
//! `cargo bench -p spanwire-benches --bench export_cpu [-- --rounds N] [--quick]`: by default five
//! rounds of exports of 500,000 spans and five steady seconds; with `--quick` exports of 100,000 and
//! two seconds.
#![expect(clippy::print_stdout, reason = "its result is the table it prints")]

use std::env;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::BatchConfigBuilder;
use spanwire::Overflow;
use spanwire_benches::child::this_binary;
use spanwire_benches::exporters::{self, PATIENCE, Wire};
use spanwire_benches::fixtures::{ATTRIBUTES, Request, Requests, SCOPE};
use spanwire_benches::metrics;
use spanwire_benches::process::{cpu_time, memory_peak_bytes};
use spanwire_benches::rivals::OpenTelemetry;
use spanwire_benches::sink::{self, Kind, Sink, Taken};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The first argument of a process that is to be a client.
const CLIENT: &str = "--client";

fn main() -> Result<()> {
    if sink::serve_if_asked()? {
        return Ok(());
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [CLIENT, client, wire, load, url] => {
            run(client.parse()?, wire.parse()?, load.parse()?, url.to_owned())
        }
        _ => tables(Plan::of(arguments)?),
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

/// What a client is to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// So many spans, one after the other.
    Burst { spans: u32 },
    /// At an even pace.
    Steady { spans_per_second: u32, seconds: u32 },
}

impl Load {
    fn spans(self) -> u32 {
        match self {
            Self::Burst { spans } => spans,
            Self::Steady { spans_per_second, seconds } => spans_per_second * seconds,
        }
    }

    fn record(self, requests: &Requests, record: impl FnMut(&Request)) {
        match self {
            Self::Burst { .. } => requests.iter().for_each(record),
            Self::Steady { spans_per_second, .. } => pace(spans_per_second, requests, record),
        }
    }
}

/// Records what is due at each tick, then sleeps until the next one is. When ticks are due does not
/// depend on how long recording takes: after one that came late, the pace is caught up with.
fn pace(spans_per_second: u32, requests: &Requests, mut record: impl FnMut(&Request)) {
    let (mut requests, start) = (requests.iter().peekable(), Instant::now());
    let spans = (spans_per_second / TICKS_PER_SECOND) as usize;
    for tick in 0.. {
        if requests.peek().is_none() {
            return;
        }
        thread::sleep((start + TICK * tick).saturating_duration_since(Instant::now()));
        requests.by_ref().take(spans).for_each(&mut record);
    }
}

const TICK: Duration = Duration::from_millis(1);
const TICKS_PER_SECOND: u32 = 1_000;

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Burst { spans } => write!(f, "{spans}"),
            Self::Steady { spans_per_second, seconds } => {
                write!(f, "{spans_per_second}/s for {seconds} s")
            }
        }
    }
}

impl FromStr for Load {
    type Err = Box<dyn Error>;

    fn from_str(load: &str) -> Result<Self> {
        let steady = load.strip_suffix(" s").and_then(|load| load.split_once("/s for "));
        Ok(match steady {
            None => Self::Burst { spans: load.parse()? },
            Some((spans_per_second, seconds)) => Self::Steady {
                spans_per_second: spans_per_second.parse()?,
                seconds: seconds.parse()?,
            },
        })
    }
}

/// The client's process: records, shuts down, and says what that took.
fn run(client: Client, wire: Wire, load: Load, url: String) -> Result<()> {
    let spans = load.spans() as usize;
    let requests = Requests::new(spans);
    let spent = match client {
        Client::Spanwire | Client::SpanwireBlocking => {
            let overflow = match client {
                Client::Spanwire => Overflow::DropNewest,
                _ => Overflow::Block { timeout: PATIENCE },
            };
            let client = exporters::spanwire(wire, url).overflow(overflow).build()?;
            let tracer = client.tracer(SCOPE);
            let spent = measure(
                || load.record(&requests, |request| request.record(&tracer)),
                || {
                    let report = client.shutdown_blocking(PATIENCE);
                    assert!(report.complete && client.stats().is_balanced(), "{report}");
                },
            );
            Spent { lost: Some(client.stats().dropped.total()), ..spent }
        }
        Client::OpenTelemetry | Client::OpenTelemetryUnbounded => {
            let batch = match client {
                Client::OpenTelemetry => BatchConfigBuilder::default(),
                _ => BatchConfigBuilder::default().with_max_queue_size(spans),
            };
            let client = OpenTelemetry::new(wire, url, batch.build())?;
            let tracer = client.provider.tracer(SCOPE);
            measure(
                || load.record(&requests, |request| request.record_opentelemetry(&tracer)),
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
        lost: None,
    }
}

/// What a client's process tells its parent.
struct Spent {
    cpu: Duration,
    recorded: Duration,
    done: Duration,
    /// Where the system tells.
    memory_peak_bytes: Option<u64>,
    /// Spans, where the client counts them.
    lost: Option<u64>,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, recorded, done, memory_peak_bytes, lost } = self;
        let [cpu, recorded, done] = [cpu, recorded, done].map(Duration::as_nanos);
        write!(f, "{cpu} {recorded} {done}")?;
        [memory_peak_bytes, lost].into_iter().try_for_each(|number| match number {
            Some(number) => write!(f, " {number}"),
            None => write!(f, " {UNKNOWN}"),
        })
    }
}

impl FromStr for Spent {
    type Err = Box<dyn Error>;

    fn from_str(line: &str) -> Result<Self> {
        let number = |word: &str| match word {
            UNKNOWN => Ok(None),
            number => number.parse().map(Some),
        };
        let numbers = line.split_whitespace().map(number);
        let numbers: Vec<Option<u64>> = numbers.collect::<std::result::Result<_, _>>()?;
        let [Some(cpu), Some(recorded), Some(done), memory_peak_bytes, lost] = numbers[..] else {
            return Err(format!("the client answered {line:?}").into());
        };
        let [cpu, recorded, done] = [cpu, recorded, done].map(Duration::from_nanos);
        Ok(Self { cpu, recorded, done, memory_peak_bytes, lost })
    }
}

/// In place of a number that nobody tells.
const UNKNOWN: &str = "-";

/// What is measured, and how often.
struct Plan {
    rounds: usize,
    export_spans: u32,
    steady_seconds: u32,
}

impl Plan {
    fn of(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut plan = Self { rounds: 5, export_spans: 500_000, steady_seconds: 5 };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--rounds" => plan.rounds = arguments.next().ok_or(USAGE)?.parse()?,
                "--quick" => (plan.export_spans, plan.steady_seconds) = (100_000, 2),
                // By which `cargo bench` says that it is a benchmark.
                "--bench" => {}
                _ => return Err(USAGE.into()),
            }
        }
        plan.rounds = plan.rounds.max(1);
        Ok(plan)
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let spans = self.export_spans;
        for wire in [Wire::Grpc, Wire::Http, Wire::GrpcGzip] {
            for client in [Client::SpanwireBlocking, Client::OpenTelemetryUnbounded] {
                rows.push(Row::new(Table::Export, client, wire, Load::Burst { spans }));
            }
        }
        for spans in [100_000, 500_000] {
            for client in [Client::Spanwire, Client::SpanwireBlocking, Client::OpenTelemetry] {
                rows.push(Row::new(Table::Burst, client, Wire::Grpc, Load::Burst { spans }));
            }
        }
        for (spans_per_second, wire) in [(50_000, Wire::GrpcGzip), (300_000, Wire::Grpc)] {
            for client in [Client::Spanwire, Client::OpenTelemetry] {
                let load = Load::Steady { spans_per_second, seconds: self.steady_seconds };
                rows.push(Row::new(Table::Steady, client, wire, load));
            }
        }
        rows
    }
}

const USAGE: &str = "usage: export_cpu [--rounds N] [--quick]";

/// Which table a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Export,
    Burst,
    Steady,
}

/// One row of a table, with the figures of each round.
struct Row {
    table: Table,
    client: Client,
    wire: Wire,
    load: Load,
    rounds: Vec<Figures>,
}

/// What one round of a row came to.
struct Figures {
    cpu_nanos: f64,
    record_nanos: f64,
    cpu_percent: f64,
    spans_per_second: f64,
    lost: f64,
    wire_bytes: f64,
    megabits_per_second: f64,
    memory_peak_mib: Option<f64>,
    /// From a span's end to its arrival; taken where spans come at an even pace.
    delay_p99_millis: Option<f64>,
}

impl Row {
    fn new(table: Table, client: Client, wire: Wire, load: Load) -> Self {
        Self { table, client, wire, load, rounds: Vec::new() }
    }

    fn round(&mut self, sink: &mut Sink) -> Result<()> {
        let before = sink.taken()?;
        let output = this_binary()?
            .args([CLIENT, &self.client.to_string(), &self.wire.to_string()])
            .args([self.load.to_string(), self.wire.url(sink)])
            .output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {errors}", self.client).into());
        }
        let spent: Spent = String::from_utf8(output.stdout)?.parse()?;
        let spans = self.load.spans();
        let may_lose = matches!(self.client, Client::Spanwire | Client::OpenTelemetry);
        let taken = match spent.lost.or((!may_lose).then_some(0)) {
            // What was not lost by the client's own count is what arrived, no more and no less.
            Some(lost) => sink.taken_since(before, u64::from(spans) - lost)?,
            None => sink.taken_in_all(before)?,
        };
        let delay_p99 = match self.load {
            Load::Burst { .. } => None,
            Load::Steady { .. } => Some(sink.delay_p99()?),
        };
        let figures = Figures::new(f64::from(spans), &spent, taken, delay_p99);
        if figures.lost > 0.0 && !may_lose {
            return Err(format!("{} lost {} spans", self.client, figures.lost).into());
        }
        self.report(&figures);
        self.rounds.push(figures);
        Ok(())
    }

    fn report(&self, figures: &Figures) {
        let spans = self.load.spans();
        let (group, value) = match self.load {
            Load::Burst { .. } if self.table == Table::Export => {
                (format!("export_{spans}_spans"), self.wire.to_string())
            }
            Load::Burst { .. } => ("burst".to_owned(), spans.to_string()),
            Load::Steady { spans_per_second, .. } => {
                ("steady".to_owned(), spans_per_second.to_string())
            }
        };
        let function = match (self.table, self.client) {
            (Table::Burst, Client::SpanwireBlocking) => "spanwire, Overflow::Block",
            (_, Client::Spanwire | Client::SpanwireBlocking) => "spanwire",
            (_, Client::OpenTelemetry | Client::OpenTelemetryUnbounded) => "opentelemetry-otlp",
        };
        let report = |unit, figure| metrics::report(&group, function, &value, unit, figure);
        match self.table {
            Table::Export => {
                report("ns CPU/span", figures.cpu_nanos);
                report("spans/s", figures.spans_per_second);
                report("B/span", figures.wire_bytes);
            }
            Table::Burst => report("lost", figures.lost),
            Table::Steady => {
                report("% CPU", figures.cpu_percent);
                report("Mbit/s", figures.megabits_per_second);
                report("lost", figures.lost);
                figures.delay_p99_millis.into_iter().for_each(|millis| report("P99 ms", millis));
            }
        }
        figures.memory_peak_mib.into_iter().for_each(|mib| report("MiB", mib));
    }

    /// Median, and the least and the greatest of the rounds where they differ in what is shown.
    fn spread(&self, figure: fn(&Figures) -> f64, digits: usize) -> String {
        let values = self.sorted(figure);
        let show = |value: Option<&f64>| format!("{:.digits$}", value.copied().unwrap_or(f64::NAN));
        let (least, greatest) = (show(values.first()), show(values.last()));
        if least == greatest {
            return least;
        }
        format!("{:.digits$} ({least}–{greatest})", median(&values))
    }

    fn sorted(&self, figure: fn(&Figures) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.rounds.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

impl Figures {
    fn new(spans: f64, spent: &Spent, taken: Taken, delay_p99: Option<Duration>) -> Self {
        let arrived = taken.spans as f64;
        let wire_bytes = taken.wire_bytes as f64;
        let seconds = spent.done.as_secs_f64();
        Self {
            cpu_nanos: spent.cpu.as_nanos() as f64 / spans,
            record_nanos: spent.recorded.as_nanos() as f64 / spans,
            cpu_percent: spent.cpu.as_secs_f64() / seconds * 100.0,
            spans_per_second: arrived / seconds,
            lost: spans - arrived,
            wire_bytes: wire_bytes / arrived,
            megabits_per_second: wire_bytes * 8.0 / seconds / 1e6,
            memory_peak_mib: spent.memory_peak_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            delay_p99_millis: delay_p99.map(|delay| delay.as_secs_f64() * 1e3),
        }
    }
}

fn median(sorted: &[f64]) -> f64 {
    let (half, odd) = (sorted.len() / 2, sorted.len() % 2 == 1);
    if odd { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

fn tables(plan: Plan) -> Result<()> {
    let mut rows = plan.rows();
    let (mut plain, mut timing) = (Sink::spawn(Kind::OneWorker)?, Sink::spawn(Kind::Timing)?);
    for _ in 0..plan.rounds {
        for row in &mut rows {
            let sink = match row.table {
                Table::Export | Table::Burst => &mut plain,
                Table::Steady => &mut timing,
            };
            row.round(sink)?;
        }
    }

    let of = |table| rows.iter().filter(move |row| row.table == table);
    println!("\nSpans have {ATTRIBUTES} attributes; median (least–greatest) of {}", plan.rounds);
    println!("\nAn export that loses nothing\n");
    print_bursts(of(Table::Export));
    println!("\nA burst, with default settings but for Overflow::Block\n");
    print_bursts(of(Table::Burst));
    println!("\nAn even pace with default settings\n");
    print_steady(of(Table::Steady));
    println!("\nRatios of the medians of CPU a span, opentelemetry-otlp to spanwire\n");
    let exports: Vec<&Row> = of(Table::Export).collect();
    for pair in exports.chunks_exact(2) {
        let [ours, theirs] = [pair[0], pair[1]].map(|row| median(&row.sorted(|one| one.cpu_nanos)));
        println!("- {}: {:.1}", pair[0].wire, theirs / ours);
    }
    Ok(())
}

fn print_bursts<'a>(rows: impl Iterator<Item = &'a Row>) {
    println!(
        "| spans | wire | client | CPU ns a span | recording ns a span | M spans/s | lost \
         | bytes sent a span | peak MiB |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for row in rows {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.load,
            row.wire,
            row.client,
            row.spread(|one| one.cpu_nanos, 0),
            row.spread(|one| one.record_nanos, 0),
            row.spread(|one| one.spans_per_second / 1e6, 2),
            row.spread(|one| one.lost, 0),
            row.spread(|one| one.wire_bytes, 0),
            row.spread(|one| one.memory_peak_mib.unwrap_or(f64::NAN), 0),
        );
    }
}

fn print_steady<'a>(rows: impl Iterator<Item = &'a Row>) {
    println!(
        "| spans | wire | client | CPU % of a core | Mbit/s | lost | span's end to receiver, P99 ms \
         | peak MiB |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for row in rows {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.load,
            row.wire,
            row.client,
            row.spread(|one| one.cpu_percent, 1),
            row.spread(|one| one.megabits_per_second, 1),
            row.spread(|one| one.lost, 0),
            row.spread(|one| one.delay_p99_millis.unwrap_or(f64::NAN), 1),
            row.spread(|one| one.memory_peak_mib.unwrap_or(f64::NAN), 0),
        );
    }
}
