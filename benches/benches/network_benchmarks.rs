//! How long requests take, from recording to the receiver's answer, and what compressing them costs.
//!
//! The receiver is Spanwire's in either case, on loopback and in a process of its own. Spans are
//! those of [`Requests`], eight attributes each. After each row its spans are looked for at the
//! receiver, so that nobody gets away with losing some.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use flate2::read::GzEncoder;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::BatchConfigBuilder;
use spanwire::{BatchConfig, Compression};
use spanwire_benches::exporters::{self, Wire};
use spanwire_benches::fixtures::{self, Requests, SCOPE};
use spanwire_benches::metrics;
use spanwire_benches::rivals::OpenTelemetry;
use spanwire_benches::sink::{self, Kind, Sink, Taken};
use spanwire_benches::tracers::Keeping;
use spanwire_transport::{Body, Encoded, Protocol, Transport, TransportConfig};
use tokio::runtime::{self, Runtime};

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
    export(&mut criterion, &mut sink, "export_grpc", Wire::Grpc)?;
    export(&mut criterion, &mut sink, "export_http_protobuf", Wire::Http)?;
    export(&mut criterion, &mut sink, "export_http_json", Wire::HttpJson)?;
    compress(&mut criterion, 1_000)?;
    compress(&mut criterion, 10_000)?;
    request_latency(&mut criterion, &mut sink)?;
    criterion.final_summary();
    Ok(())
}

/// Spans recorded on one thread, flushed as one request, and answered.
///
/// Spanwire has its defaults. The rival's batches may be larger than by default, so that it too sends
/// one request when it is told to. Either client's timer goes off now and then in the middle of a run.
fn export(criterion: &mut Criterion, sink: &mut Sink, name: &str, wire: Wire) -> Result<()> {
    let mut group = criterion.benchmark_group(name);
    for spans in [10, 100, 1_000] {
        let requests = Requests::new(spans);
        group.throughput(Throughput::Elements(spans as u64));

        let client = exporters::spanwire(wire, wire.url(sink)).build()?;
        let tracer = client.tracer(SCOPE);
        let (before, start, runs) = (sink.taken()?, Instant::now(), Cell::new(0));
        group.bench_function(BenchmarkId::new("spanwire", spans), |b| {
            b.iter(|| {
                requests.iter().for_each(|request| request.record(&tracer));
                exporters::flush(&client);
                runs.set(runs.get() + 1);
            });
        });
        assert!(client.stats().is_balanced(), "{}", client.stats());
        let taken = sink.taken_since(before, runs.get() * spans as u64)?;
        assert_one_request_each(taken, runs.get(), start);

        let batch = BatchConfigBuilder::default().with_max_export_batch_size(2_048).build();
        let client = OpenTelemetry::new(wire, wire.url(sink), batch)?;
        let tracer = client.provider.tracer(SCOPE);
        let (before, start, runs) = (sink.taken()?, Instant::now(), Cell::new(0));
        group.bench_function(BenchmarkId::new("opentelemetry-otlp", spans), |b| {
            b.iter(|| {
                requests.iter().for_each(|request| request.record_opentelemetry(&tracer));
                client.provider.force_flush().expect("the sink takes everything");
                runs.set(runs.get() + 1);
            });
        });
        let taken = sink.taken_since(before, runs.get() * spans as u64)?;
        assert_one_request_each(taken, runs.get(), start);
    }
    group.finish();
    Ok(())
}

/// Each run was one request, or two where a timer went off: Spanwire's, which is the faster one.
fn assert_one_request_each(taken: Taken, runs: u64, start: Instant) {
    let ticks = start.elapsed().div_duration_f64(BatchConfig::default().age_max).ceil() as u64;
    let one_each = runs..=runs + ticks;
    assert!(one_each.contains(&taken.requests), "{} requests, not {one_each:?}", taken.requests);
}

/// A request of so many recorded spans made ready for the wire: compressed, and for Spanwire framed
/// too. The size of what comes out is the figure `compressed_size`.
///
/// Spanwire's levels are its own, 1 for gzip and zstd, 2 for brotli. `opentelemetry-otlp` leaves
/// compressing to tonic, which does what is done here: gzip at level 6 from one buffer to another that
/// is used again; level 1 the same way is the row "flate2". All gzip rows are zlib-rs.
///
/// The requests repeat after 1,024: that is too far back for gzip to see, and of 10,000 zstd gains
/// some 3 % by it.
fn compress(criterion: &mut Criterion, spans: usize) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().build()?;
    let request = recorded(spans);
    let body = Body::new([request.clone()], spans);
    let mut group = criterion.benchmark_group(format!("compress_{spans}_spans"));
    group.throughput(Throughput::Elements(spans as u64));
    let report = |name, bytes: usize| {
        metrics::report("compressed_size", name, &spans.to_string(), "B", bytes as f64);
    };
    for (name, compression) in [
        ("spanwire, uncompressed", Compression::None),
        ("spanwire, gzip", Compression::Gzip),
        ("spanwire, zstd", Compression::Zstd),
        ("spanwire, brotli", Compression::Brotli),
    ] {
        let transport = compressing(compression)?;
        // A row that a filter leaves out has no size either.
        let mut bytes = None;
        group.bench_function(name, |b| {
            b.iter(|| {
                let encoded = runtime.block_on(transport.encode(&body)).expect("compresses");
                assert_eq!(encoded.compression(), compression);
                bytes = Some(encoded.len());
                encoded
            });
        });
        bytes.into_iter().for_each(|bytes| report(name, bytes));
    }
    let mut out = Vec::new();
    for (name, level) in [("opentelemetry-otlp, gzip level 6", 6), ("flate2, gzip level 1", 1)] {
        let mut bytes = None;
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                gzip_as_tonic(&request, level, &mut out).expect("to memory");
                bytes = Some(out.len());
            });
        });
        bytes.into_iter().for_each(|bytes| report(name, bytes));
    }
    group.finish();
    Ok(())
}

/// A transport to nowhere, for what it does before it sends. HTTP, as gRPC has no brotli.
fn compressing(compression: Compression) -> Result<Transport> {
    let config = TransportConfig::new(Protocol::HttpProtobuf, "http://127.0.0.1:9")?;
    Ok(Transport::new(&config.compression(compression)?)?)
}

fn gzip_as_tonic(request: &[u8], level: u32, out: &mut Vec<u8>) -> io::Result<u64> {
    io::copy(&mut GzEncoder::new(request, flate2::Compression::new(level)), out)
}

/// One export request of spans that were really recorded: with random ids, which do not compress,
/// while those of [`Requests::encoded`] count.
fn recorded(spans: usize) -> Bytes {
    let client = Keeping::new();
    let tracer = client.tracer();
    Requests::new(spans).iter().for_each(|request| request.record(&tracer));
    let framed: Vec<Bytes> = client.spans().iter().map(|taken| taken.slice.bytes.clone()).collect();
    fixtures::request(&framed.concat()).into()
}

/// A request of ten spans, sent and answered: over one gRPC connection that stays, and over a new one
/// each time.
///
/// On loopback and without TLS a connection costs little more than its handshakes' work. Over a
/// network, round trips come on top: one for TCP, one or two for TLS.
fn request_latency(criterion: &mut Criterion, sink: &mut Sink) -> Result<()> {
    let config = TransportConfig::new(Protocol::Grpc, &sink.grpc_url())?;
    let body = Body::new([Bytes::from(Requests::new(10).encoded())], 10);
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let warm = Transport::new(&config)?;
    let encoded = runtime.block_on(warm.encode(&body))?;
    let mut group = criterion.benchmark_group("request_latency");

    let (before, runs) = (sink.taken()?, Cell::new(0));
    group.bench_function("spanwire, one warm HTTP/2 connection", |b| {
        b.iter(|| {
            send(&runtime, &warm, &encoded);
            runs.set(runs.get() + 1);
        });
    });
    group.bench_function("spanwire, a new connection each", |b| {
        b.iter(|| {
            let new = Transport::new(&config).expect("as before");
            send(&runtime, &new, &encoded);
            runs.set(runs.get() + 1);
        });
    });
    sink.taken_since(before, runs.get() * 10)?;
    group.finish();
    Ok(())
}

fn send(runtime: &Runtime, transport: &Transport, encoded: &Encoded) {
    let accepted = runtime.block_on(transport.send(encoded)).expect("the sink takes everything");
    assert_eq!(accepted.rejected_spans, 0);
}
