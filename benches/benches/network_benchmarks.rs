//! How long an export takes, from recording to the receiver's answer, on loopback.
//!
//! The receiver is Spanwire's in either case, in a process of its own.

use std::error::Error;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::BatchConfigBuilder;
use spanwire::Overflow;
use spanwire_benches::exporters::{self, PATIENCE, Wire};
use spanwire_benches::fixtures::{Requests, SCOPE};
use spanwire_benches::rivals::OpenTelemetry;
use spanwire_benches::sink::{self, Sink};

fn main() -> Result<(), Box<dyn Error>> {
    if sink::serve_if_asked()? {
        return Ok(());
    }
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    export_1000_spans(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// 1,000 spans of eight attributes in one gRPC request.
fn export_1000_spans(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let requests = Requests::new(1_000);
    let mut sink = Sink::spawn()?;
    let mut group = criterion.benchmark_group("export_1000_spans");
    group.throughput(Throughput::Elements(1_000));

    let client = exporters::spanwire(Wire::Grpc, sink.grpc_url(), Overflow::DropNewest)?;
    let tracer = client.tracer(SCOPE);
    let record = || requests.iter().for_each(|request| request.record(&tracer));
    let flush = || assert!(client.flush_blocking(PATIENCE).complete, "{}", client.stats());
    group.bench_function("spanwire: record and flush", |b| b.iter(|| (record(), flush())));
    group.bench_function("spanwire: flush", |b| {
        b.iter_custom(|count| (0..count).map(|_| timed(record, flush)).sum());
    });
    let stats = client.stats();
    assert_eq!(stats.exported, stats.started, "{stats}");

    // Larger than the 1,000 spans, so that it is the flush that sends them, in one request.
    let batch = BatchConfigBuilder::default().with_max_export_batch_size(2_048).build();
    let client = OpenTelemetry::new(Wire::Grpc, sink.grpc_url(), batch)?;
    let tracer = client.provider.tracer(SCOPE);
    let record = || requests.iter().for_each(|request| request.record_opentelemetry(&tracer));
    let flush = || client.provider.force_flush().expect("the sink takes everything");
    let before = sink.taken()?;
    group.bench_function("opentelemetry-otlp: record and flush", |b| {
        b.iter(|| (record(), flush()));
    });
    group.bench_function("opentelemetry-otlp: flush", |b| {
        b.iter_custom(|count| (0..count).map(|_| timed(record, flush)).sum());
    });
    let after = sink.taken()?;
    let (spans, requests) = (after.spans - before.spans, after.requests - before.requests);
    assert_eq!(spans, requests * 1_000, "each request had 1,000 spans");
    group.finish();
    Ok(())
}

/// The time of the second step.
fn timed(first: impl Fn(), second: impl Fn()) -> Duration {
    first();
    let start = Instant::now();
    second();
    start.elapsed()
}
