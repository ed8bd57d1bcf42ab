//! Spans of this very process through a collector, and what it takes to collect them.
//!
//! ```text
//! cargo run --release -p spanwire-collector --example inlet
//! ```
//!
//! First 100,000 spans of five attributes are held for a destination where nobody listens. Then
//! threads collect such spans as fast as the collector takes them; its pipeline ends in `nop`. Where
//! the queue is full the caller is told so, yields and tries again, which counts as time. At last
//! 50,000 spans a second are collected for the CPU they cost.
#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use spanwire_collector::{Collector, Inlet};
use spanwire_config::{Compat, Config, Source};
use spanwire_model::{Resource, Scope, Span, SpanContext, SpanId, TraceFlags, TraceId};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let spans: Arc<[Span]> = (1..=BATCH as u64).map(span).collect();
    let before = memory()?;
    let (collector, inlet) = start(AWAY).await?;
    for _ in 0..HELD / BATCH {
        inlet.collect_batch(&spans)?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{HELD} spans held: {:.1} MiB, and {before:.1} MiB before", memory()?);
    drop(inlet);
    collector.shutdown(Duration::ZERO).await;
    println!();
    println!("{:<34} {:>12} {:>12} {:>12}", "", "spans/s", "P99 a call", "longest");
    for (name, threads, batch) in [
        ("1 thread, span by span", 1, 1),
        ("1 thread, 10,000 at a time", 1, BATCH),
        ("10 threads, span by span", 10, 1),
        ("10 threads, 10,000 at a time", 10, BATCH),
    ] {
        let run = flat_out(&spans, threads, batch).await?;
        println!("{name:<34} {:>12.0} {:>12.2?} {:>12.2?}", run.rate, run.p99, run.longest);
    }
    println!("50,000 spans a second: {:.1} % of a core", paced(&spans).await? * 100.0);
    Ok(())
}

/// Spans in a batch.
const BATCH: usize = 10_000;

/// Spans that each run collects.
const COLLECTED: usize = 4_000_000;

/// Spans that wait for a destination.
const HELD: usize = 100_000;

const NOP: &str = "nop: {}";

/// A destination where nobody listens, with a queue that holds whatever comes.
const AWAY: &str = "otlp: { endpoint: \"127.0.0.1:9\", tls: { insecure: true }, \
                    sending_queue: { sizer: items, queue_size: 1000000 } }";

/// A finished span, as a server of HTTP would record it.
fn span(number: u64) -> Span {
    let trace = TraceId::new(u128::from(number) << 64 | 1).expect("not zero");
    let id = SpanId::new(number).expect("not zero");
    let mut span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "GET /orders/{id}");
    span.attributes.set("http.request.method", "GET");
    span.attributes.set("url.path", format!("/orders/{number}"));
    span.attributes.set("http.route", "/orders/{id}");
    span.attributes.set("http.response.status_code", 200_i64);
    span.attributes.set("user.is_known", true);
    span
}

/// A collector whose pipeline ends there, and a way into it.
async fn start(exporter: &str) -> Result<(Collector, Inlet), Box<dyn Error>> {
    let name = exporter.split(':').next().unwrap_or_default();
    let yaml = format!(
        "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:0\" }} }} }} }}\n\
         processors: {{ batch: {{}} }}\n\
         exporters:\n  {exporter}\n\
         service:\n  \
           telemetry: {{ metrics: {{ level: none }} }}\n  \
           pipelines: {{ traces: {{ receivers: [otlp], processors: [batch], \
         exporters: [{name}] }} }}\n"
    );
    let loaded = Config::load(&[Source::Yaml(yaml)], &[], &|_| None, Compat::Strict);
    let config = loaded.map_err(|report| report.to_string())?.config;
    let collector = Collector::start(config).await?;
    let (resource, scope) = (Resource::default(), Scope::new("inlet"));
    let inlet = collector.inlet("traces", &resource, &scope).ok_or("there is such a pipeline")?;
    Ok((collector, inlet))
}

struct Run {
    rate: f64,
    p99: Duration,
    longest: Duration,
}

/// So many threads, each as fast as it can, until all is handed to the pipeline.
async fn flat_out(
    spans: &Arc<[Span]>,
    threads: usize,
    batch: usize,
) -> Result<Run, Box<dyn Error>> {
    let (collector, inlet) = start(NOP).await?;
    let inlet = Arc::new(inlet);
    let begun = Instant::now();
    let workers = (0..threads).map(|_| {
        let (inlet, spans) = (Arc::clone(&inlet), Arc::clone(spans));
        thread::spawn(move || {
            let calls = COLLECTED / threads / batch;
            let call = |spans| {
                let called = Instant::now();
                while inlet.collect_batch(spans).is_err() {
                    thread::yield_now();
                }
                called.elapsed()
            };
            spans.chunks(batch).cycle().take(calls).map(call).collect::<Vec<_>>()
        })
    });
    let workers = workers.collect::<Vec<_>>();
    let mut calls = Vec::new();
    for worker in workers {
        let worker = tokio::task::spawn_blocking(|| worker.join());
        calls.extend(worker.await?.map_err(|_panic| "a thread panicked")?);
    }
    let inlet = Arc::into_inner(inlet).ok_or("a thread still has it")?;
    let stats = inlet.close(PATIENCE).await;
    let took = begun.elapsed();
    let lost = stats.lost + collector.shutdown(PATIENCE).await.spans_lost;
    if lost > 0 {
        return Err(format!("{lost} spans lost").into());
    }
    calls.sort_unstable();
    let at = |rank: usize| calls.get(rank).copied().unwrap_or_default();
    Ok(Run {
        rate: stats.forwarded as f64 / took.as_secs_f64(),
        p99: at(calls.len() * 99 / 100),
        longest: at(calls.len().saturating_sub(1)),
    })
}

/// The share of a core that 50,000 spans a second take, this example's own loop included.
async fn paced(spans: &Arc<[Span]>) -> Result<f64, Box<dyn Error>> {
    const MILLISECONDS: u32 = 4_000;
    let (collector, inlet) = start(NOP).await?;
    let (begun, cpu) = (Instant::now(), cpu_seconds()?);
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    for _ in 0..MILLISECONDS {
        tick.tick().await;
        for span in spans.iter().take(50) {
            inlet.collect(span)?;
        }
    }
    let share = (cpu_seconds()? - cpu) / begun.elapsed().as_secs_f64();
    inlet.close(PATIENCE).await;
    collector.shutdown(PATIENCE).await;
    Ok(share)
}

/// CPU of this process, by `/proc`, in which a tick is 10 ms.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no such stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

/// Resident memory of this process, in MiB.
fn memory() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 =
        line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}
