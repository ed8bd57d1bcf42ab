//! How long requests take, from recording to the receiver's answer, and what compressing them costs.
//!
//! The receiver is Spanwire's in either case, on loopback and in a process of its own. Spans are
//! those of [`Requests`], eight attributes each. After each row its spans are looked for at the
//! receiver, so that nobody gets away with losing some.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use flate2::read::GzEncoder;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::BatchConfigBuilder;
use spanwire::Compression;
use spanwire_benches::exporters::{self, Wire};
use spanwire_benches::fixtures::{Requests, SCOPE, SERVICE};
use spanwire_benches::metrics;
use spanwire_benches::rivals::OpenTelemetry;
use spanwire_benches::sink::{self, Kind, Sink};
use spanwire_codec::encode::{EncodedResource, EncodedScope};
use spanwire_model::{Resource, Scope};
use spanwire_tracer::{Provider, TracedChunk};
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
    compress_1000_spans(&mut criterion)?;
    compressed_size()?;
    request_latency(&mut criterion, &mut sink)?;
    criterion.final_summary();
    Ok(())
}

/// Spans recorded on one thread, flushed as one request, and answered.
///
/// Spanwire has its defaults. The rival's batches may be larger than by default, so that it too sends
/// one request, and only when it is told to.
fn export(
    criterion: &mut Criterion,
    sink: &mut Sink,
    name: &str,
    wire: Wire,
) -> std::result::Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group(name);
    for spans in [10, 100, 1_000] {
        let requests = Requests::new(spans);
        group.throughput(Throughput::Elements(spans as u64));

        let client = exporters::spanwire(wire, wire.url(sink)).build()?;
        let tracer = client.tracer(SCOPE);
        let (before, runs) = (sink.taken()?, Cell::new(0));
        group.bench_function(BenchmarkId::new("spanwire", spans), |b| {
            b.iter(|| {
                requests.iter().for_each(|request| request.record(&tracer));
                exporters::flush(&client);
                runs.set(runs.get() + 1);
            });
        });
        assert!(client.stats().is_balanced(), "{}", client.stats());
        sink.taken_since(before, runs.get() * spans as u64)?;

        let batch = BatchConfigBuilder::default().with_max_export_batch_size(2_048).build();
        let client = OpenTelemetry::new(wire, wire.url(sink), batch)?;
        let tracer = client.provider.tracer(SCOPE);
        let (before, runs) = (sink.taken()?, Cell::new(0));
        group.bench_function(BenchmarkId::new("opentelemetry-otlp", spans), |b| {
            b.iter(|| {
                requests.iter().for_each(|request| request.record_opentelemetry(&tracer));
                client.provider.force_flush().expect("the sink takes everything");
                runs.set(runs.get() + 1);
            });
        });
        let taken = sink.taken_since(before, runs.get() * spans as u64)?;
        assert_eq!(taken.requests, runs.get(), "each run was one request");
    }
    group.finish();
    Ok(())
}

/// A request of 1,000 recorded spans made ready for the wire: compressed, and for Spanwire framed
/// too.
///
/// Spanwire's levels are its own, 1 and 1. `opentelemetry-otlp` leaves compressing to tonic, which
/// does what is done here: gzip at level 6 from one buffer to another that is used again. Both gzip
/// rows are zlib-rs; what a level gains is in `compressed_size`.
fn compress_1000_spans(criterion: &mut Criterion) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().build()?;
    let request = recorded(1_000);
    let body = Body::new([request.clone()], 1_000);
    let mut group = criterion.benchmark_group("compress_1000_spans");
    group.throughput(Throughput::Elements(1_000));
    for (name, compression) in
        [("spanwire, gzip", Compression::Gzip), ("spanwire, zstd", Compression::Zstd)]
    {
        let transport = compressing(compression)?;
        group.bench_function(name, |b| {
            b.iter(|| {
                let encoded = runtime.block_on(transport.encode(&body)).expect("compresses");
                assert_eq!(encoded.compression(), compression);
                encoded
            });
        });
    }
    let mut out = Vec::new();
    group.bench_function("opentelemetry-otlp, gzip", |b| {
        b.iter(|| {
            out.clear();
            gzip_as_tonic(&request, &mut out).expect("to memory");
            out.len()
        });
    });
    group.finish();
    Ok(())
}

/// Bytes on the wire of a request of 10,000 recorded spans. The requests repeat after 1,024: that is
/// too far back for gzip to see, and zstd gains some 3 % by it.
fn compressed_size() -> Result<()> {
    const SPANS: usize = 10_000;
    let runtime = runtime::Builder::new_current_thread().build()?;
    let request = recorded(SPANS);
    let body = Body::new([request.clone()], SPANS);
    let report = |name, bytes: usize| {
        metrics::report("compressed_size", name, &SPANS.to_string(), "B", bytes as f64);
    };
    for (name, compression) in
        [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)]
    {
        report(name, runtime.block_on(compressing(compression)?.encode(&body))?.len());
    }
    let mut out = Vec::new();
    gzip_as_tonic(&request, &mut out)?;
    report("opentelemetry-otlp, gzip", out.len());
    Ok(())
}

/// A transport to nowhere, for what it does before it sends.
fn compressing(compression: Compression) -> Result<Transport> {
    let config = TransportConfig::new(Protocol::Grpc, "http://127.0.0.1:9")?;
    Ok(Transport::new(&config.compression(compression)?)?)
}

fn gzip_as_tonic(request: &[u8], out: &mut Vec<u8>) -> io::Result<u64> {
    io::copy(&mut GzEncoder::new(request, flate2::Compression::new(6)), out)
}

/// One export request of spans that were really recorded: with random ids, which do not compress,
/// while those of [`Requests::encoded`] count.
fn recorded(spans: usize) -> Bytes {
    let framed = Arc::new(Mutex::new(Vec::new()));
    let append = |framed: &Mutex<Vec<u8>>, bytes: &[u8]| {
        framed.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    };
    let full = framed.clone();
    let provider = Provider::builder().build(move |chunk: TracedChunk| {
        chunk.take().into_iter().for_each(|taken| append(&full, &taken.slice.bytes));
        Ok(())
    });
    let tracer = provider.tracer(SCOPE);
    Requests::new(spans).iter().for_each(|request| request.record(&tracer));
    provider.sweep(|taken| append(&framed, &taken.slice.bytes));

    let framed = framed.lock().unwrap_or_else(PoisonError::into_inner);
    let mut resource = Resource::default();
    resource.attributes.set("service.name", SERVICE);
    let (resource, scope) =
        (EncodedResource::new(&resource), EncodedScope::new(&Scope::new(SCOPE)));
    let mut request = Vec::new();
    resource.put_header(scope.field_len(framed.len()), &mut request);
    scope.put_header(framed.len(), &mut request);
    request.extend_from_slice(&framed);
    request.into()
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
