//! The whole way of whole traces: created, batched, encoded, sent over HTTP, and answered.
//!
//! Traces are those of [`Mix`]: four spans each, with parents, events, links and seven to ten
//! attributes. Each client has its stock settings, the wire is `http/protobuf`, which is the protocol
//! that OTLP recommends, and the receiver is in a process of its own. All is recorded on one thread,
//! then flushed. Each row's spans are looked for at the receiver.

use std::cell::Cell;
use std::error::Error;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{BatchConfig, Sampler as SdkSampler};
use spanwire::Sampler;
use spanwire_benches::exporters::{self, Wire};
use spanwire_benches::fixtures::{Mix, SCOPE, SPANS_OF_TRACE};
use spanwire_benches::rivals::{AttributesGiven, OpenTelemetry};
use spanwire_benches::sink::{self, Kind, Sink};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    if sink::serve_if_asked()? {
        return Ok(());
    }
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut sink = Sink::spawn(Kind::OneWorker)?;
    end_to_end(&mut criterion, &mut sink)?;
    sampling(&mut criterion, &mut sink)?;
    criterion.final_summary();
    Ok(())
}

/// So many spans on their whole way. The rival's stock batches are of 512 spans, so of 1,000 it
/// sends the first while the others are recorded; its queue holds them all.
fn end_to_end(criterion: &mut Criterion, sink: &mut Sink) -> Result<()> {
    let mut group = criterion.benchmark_group("end_to_end");
    for spans in [10, 100, 1_000] {
        let mix = Mix::new(spans);
        group.throughput(Throughput::Elements(spans as u64));

        let client = exporters::spanwire(Wire::Http, sink.http_url()).build()?;
        let tracer = client.tracer(SCOPE);
        let (before, runs) = (sink.taken()?, Cell::new(0));
        group.bench_function(BenchmarkId::new("spanwire", spans), |b| {
            b.iter(|| {
                mix.record(&tracer);
                exporters::flush(&client);
                runs.set(runs.get() + 1);
            });
        });
        assert!(client.stats().is_balanced(), "{}", client.stats());
        sink.taken_since(before, runs.get() * spans as u64)?;

        let client = OpenTelemetry::new(Wire::Http, sink.http_url(), BatchConfig::default())?;
        let tracer = client.provider.tracer(SCOPE);
        let (before, runs) = (sink.taken()?, Cell::new(0));
        group.bench_function(BenchmarkId::new("opentelemetry-otlp", spans), |b| {
            b.iter(|| {
                mix.record_opentelemetry(&tracer, AttributesGiven::AtTheStart);
                client.provider.force_flush().expect("the sink takes everything");
                runs.set(runs.get() + 1);
            });
        });
        sink.taken_since(before, runs.get() * spans as u64)?;
    }
    group.finish();
    Ok(())
}

/// 1,000 spans created in 250 traces, of which so many percent are kept, exported and answered. Time
/// is for each span *created*.
///
/// The rival's spans are given their attributes at the start where all traces are kept, and else only
/// if they are recording: the cheapest way each time.
fn sampling(criterion: &mut Criterion, sink: &mut Sink) -> Result<()> {
    const SPANS: usize = 1_000;
    let mix = Mix::new(SPANS);
    let mut group = criterion.benchmark_group("sampling");
    group.throughput(Throughput::Elements(SPANS as u64));
    for percent in [100, 50, 10] {
        let ratio = f64::from(percent) / 100.0;

        let sampler = Sampler::parent_based(Sampler::ratio(ratio));
        let client = exporters::spanwire(Wire::Http, sink.http_url()).sampler(sampler).build()?;
        let tracer = client.tracer(SCOPE);
        let (before, runs) = (sink.taken()?, Cell::new(0));
        group.bench_function(BenchmarkId::new("spanwire", percent), |b| {
            b.iter(|| {
                mix.record(&tracer);
                exporters::flush(&client);
                runs.set(runs.get() + 1);
            });
        });
        let stats = client.stats();
        assert!(stats.is_balanced() && stats.exported == stats.started, "{stats}");
        let taken = sink.taken_since(before, stats.started)?;
        assert_share(taken.spans, runs.get() * SPANS as u64, ratio);

        let given = match percent {
            100 => AttributesGiven::AtTheStart,
            _ => AttributesGiven::WhereRecording,
        };
        let sampler = SdkSampler::TraceIdRatioBased(ratio);
        let stock = BatchConfig::default();
        let client = OpenTelemetry::sampling(Wire::Http, sink.http_url(), stock, sampler)?;
        let tracer = client.provider.tracer(SCOPE);
        let (before, runs) = (sink.taken()?, Cell::new(0));
        group.bench_function(BenchmarkId::new("opentelemetry-otlp", percent), |b| {
            b.iter(|| {
                mix.record_opentelemetry(&tracer, given);
                client.provider.force_flush().expect("the sink takes everything");
                runs.set(runs.get() + 1);
            });
        });
        // It does not say how many it kept, so that all of those arrived shows in their share.
        let created = runs.get() * SPANS as u64;
        match percent {
            100 => drop(sink.taken_since(before, created)?),
            _ => assert_share(sink.taken_in_all(before)?.spans, created, ratio),
        }
    }
    group.finish();
    Ok(())
}

/// Whether as many traces were kept as chance has it: within six standard deviations, which it misses
/// once in 500 million times.
fn assert_share(spans: u64, created: u64, ratio: f64) {
    let [kept, traces] = [spans, created].map(|spans| spans as f64 / SPANS_OF_TRACE as f64);
    let (expected, deviation) = (traces * ratio, (traces * ratio * (1.0 - ratio)).sqrt());
    assert!(
        (kept - expected).abs() <= 6.0 * deviation,
        "{kept} of {traces} traces arrived, expected {expected} ± {deviation}"
    );
}
