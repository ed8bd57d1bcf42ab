//! What requests hold: copies of them count, and the limit may change while they are held.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message as _;
use spanwire_collector::{Collector, MemoryStats, ReceiverStats};
use spanwire_receiver::{Accepted, Received, Receiver, Refusal};
use spanwire_transport::{Compression, Protocol, Retry, SendError, Status};
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// With a limit of memory, of which a fifth is for spikes, and perhaps other processors.
fn limited(yaml: &str, limit_mib: u32, processors: &[(&str, String)]) -> String {
    let limiter = ("memory_limiter", format!("{{ limit_mib: {limit_mib} }}"));
    let all = || std::iter::once(&limiter).chain(processors);
    let settings: String = all().map(|(id, settings)| format!("  {id}: {settings}\n")).collect();
    let ids = all().map(|(id, _)| *id).collect::<Vec<_>>().join(", ");
    yaml.replace("\nexporters:", &format!("\nprocessors:\n{settings}exporters:"))
        .replace("receivers: [otlp],", &format!("receivers: [otlp], processors: [{ids}],"))
}

/// What may be held with such a limit.
fn soft(limit_mib: usize) -> usize {
    (limit_mib << 20) - (limit_mib << 20) / 5
}

fn memory(collector: &Collector) -> MemoryStats {
    collector.stats().memory
}

fn of(collector: &Collector, transport: &str) -> ReceiverStats {
    let receivers = collector.stats().receivers;
    receivers.into_iter().find(|one| one.transport == transport).expect("it is served")
}

/// Text that no compression makes much shorter.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + (state >> 58) as u8)
    };
    std::iter::repeat_with(letter).take(length).collect()
}

fn asks_to_come_back(error: &SendError) -> bool {
    let full = Status::Grpc(8);
    matches!(error, SendError::Throttle { status, retry_after: Some(_), .. } if *status == full)
}

/// An attribute that makes each span so many bytes longer.
fn longer_by(bytes: usize) -> (&'static str, String) {
    let value = "x".repeat(bytes);
    ("attributes", format!("{{ actions: [{{ key: long, value: {value}, action: insert }}] }}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_that_processors_make_larger_are_counted_and_new_ones_asked_to_come_back() {
    const REQUESTS: u64 = 200;
    const LONGER: usize = 10_000;
    let (destination, arrived, away) = away().await;
    let queue = "    sending_queue: { num_consumers: 1 }";
    let yaml = limited(&to(&destination, queue), 10, &[longer_by(LONGER)]);
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Arc::new(Sender::new(&collector, Protocol::Grpc));
    let mut senders = tokio::task::JoinSet::new();
    // A tenth of a MiB each, once they are edited; the memory has room for 8.
    for number in 0..REQUESTS {
        let sender = Arc::clone(&sender);
        senders.spawn(async move {
            while let Err(error) = sender.send(request(number * 10, 10), 10).await {
                assert_ne!(error.retry(), Retry::Never, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let refused = || {
        let reasons = of(&collector, "grpc").requests_refused;
        let full = reasons.iter().filter(|(one, _)| ["budget", "sink_exhausted"].contains(one));
        full.map(|(_, requests)| requests).sum::<u64>()
    };
    until("senders are refused", || refused() > 100).await;
    let queued = account(&collector, "otlp").queued as usize;
    let MemoryStats { held, max, .. } = memory(&collector);
    assert!(queued >= 200, "{queued} spans are queued");
    assert!((queued * LONGER..=max).contains(&held), "{held} of {max}, {queued} spans are queued");
    away.store(false, Ordering::Relaxed);
    while let Some(sender) = senders.join_next().await {
        sender.expect("it came back, and was taken");
    }
    until("all arrive", || arrived.count() as u64 == REQUESTS * 10).await;
    until("it is given back", || memory(&collector).held == 0).await;
    assert!(arrived.missing(REQUESTS * 10).is_empty());
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_request_that_never_fits_once_it_is_processed_is_refused_for_good() {
    let (destination, _) = destination(takes_all).await;
    let yaml = limited(&to(&destination, ""), 10, &[longer_by(10_000)]);
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let error = sender.send(request(0, 1000), 1000).await.expect_err("10 MB of attributes");
    assert_eq!(error.retry(), Retry::Never, "{error}");
    assert_eq!(memory(&collector).held, 0);
    sender.send(request(0, 10), 10).await.expect("it is taken");
}

#[tokio::test]
async fn a_request_whose_buffer_leaves_no_room_for_what_is_made_of_it_is_refused_for_good() {
    let (destination, _) = destination(takes_all).await;
    let limit = "http: { endpoint: 127.0.0.1:0, max_request_body_size: 4194304 }";
    let yaml = to(&destination, "").replace("http: { endpoint: 127.0.0.1:0 }", limit);
    let yaml = limited(&yaml, 10, &[longer_by(380)]);
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    // With what is made of it, 8.25 of 8.39 MB, but in chunks it is read into 4 MiB at once.
    let body = named(0, 1_000, &noise(3_820));
    assert!((3_900_000..3_950_000).contains(&body.len()), "{}", body.len());
    let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len());
    let declared = format!("content-length: {}\r\n\r\n", body.len());
    for (framing, end, expected) in [(declared, "", "200"), (chunked, "\r\n0\r\n\r\n", "413")] {
        let http = address(&collector, "http");
        let mut connection = TcpStream::connect(http).await.expect("it listens");
        let head =
            "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n";
        let sent = [head.as_bytes(), framing.as_bytes(), &body, end.as_bytes()].concat();
        connection.write_all(&sent).await.expect("it is read");
        let mut status = [0; 12];
        connection.read_exact(&mut status).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&status[9..]), expected);
        until("it is given back", || memory(&collector).held == 0).await;
    }
}

#[tokio::test]
async fn a_request_of_which_all_pipelines_together_make_too_much_is_refused_for_good() {
    let (destination, _) = destination(takes_all).await;
    // Of 8 MiB, either pipeline takes a bit more than half.
    let yaml = limited(&to(&destination, ""), 10, &[longer_by(45_000)]);
    let (before, pipeline) = yaml.split_once("traces: ").expect("its pipeline");
    let pipeline = pipeline.trim_end().strip_suffix(" }").expect("the end of them");
    let yaml = format!("{before}traces: {pipeline}, traces/2: {pipeline} }}\n");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let error = sender.send(request(0, 100), 100).await.expect_err("9 MB of attributes");
    assert_eq!(error.retry(), Retry::Never, "{error}");
    assert_eq!(memory(&collector).held, 0);
    sender.send(request(0, 80), 80).await.expect("it is taken");
}

#[tokio::test]
async fn what_is_made_for_the_way_out_is_counted_until_it_has_arrived() {
    let (destination, _, away) = away().await;
    // Compressed to three quarters, and joined as it is short.
    let cases = [("gzip", named(0, 1, &noise(200_000)), 140_000), ("none", request(0, 5), 400)];
    for (compression, request, copied) in cases {
        away.store(true, Ordering::Relaxed);
        let yaml = to(&destination, "")
            .replace("compression: none", &format!("compression: {compression}"));
        let collector = Collector::start(config(&yaml)).await.expect("it starts");
        let spans = if compression == "gzip" { 1 } else { 5 };
        let sender = Sender::new(&collector, Protocol::Grpc);
        let bytes = request.len();
        sender.send(request, spans).await.expect("it is queued");
        until("the copy is counted", || memory(&collector).held >= bytes + copied).await;
        assert!(memory(&collector).held <= 2 * bytes, "{:?}", memory(&collector));
        away.store(false, Ordering::Relaxed);
        until("it is given back", || memory(&collector).held == 0).await;
        assert_eq!(account(&collector, "otlp").sent, spans);
    }
}

#[tokio::test]
async fn what_is_rewritten_as_json_is_counted_until_it_has_arrived() {
    let away = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&away);
    let sink = move |_: Received| {
        let answer = match asked.load(Ordering::Relaxed) {
            true => Err(Refusal::Unavailable { retry_after: None }),
            false => Ok(Accepted::default()),
        };
        async move { answer }
    };
    let any = "127.0.0.1:0".parse().expect("an address");
    let destination = Receiver::builder().http(any).bind(sink).await.expect("a free port");
    let yaml = to_address(destination.http_address().expect("served"), "")
        .replace(
            "  otlp:\n    endpoint: ",
            "  otlphttp:\n    encoding: json\n    endpoint: http://",
        )
        .replace("exporters: [otlp]", "exporters: [otlphttp]");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let request = request(0, 100);
    let bytes = request.len();
    Sender::new(&collector, Protocol::Grpc).send(request, 100).await.expect("it is queued");
    // JSON is longer than protobuf.
    until("the copy is counted", || memory(&collector).held > 2 * bytes).await;
    away.store(false, Ordering::Relaxed);
    until("it is given back", || memory(&collector).held == 0).await;
    assert_eq!(account(&collector, "otlphttp").sent, 100);
}

#[tokio::test]
async fn what_a_request_came_as_is_given_back_where_a_processor_changes_it() {
    let (destination, ..) = away().await;
    let yaml = to(&destination, "").replace("compression: none", "compression: gzip");
    let yaml = limited(&yaml, 100, &[longer_by(10)]);
    // All of it but for the attribute is a slice of what came.
    let request = named(0, 1, &noise(200_000));
    let mut held = Vec::new();
    for compression in [Compression::None, Compression::Gzip] {
        let collector = Collector::start(config(&yaml)).await.expect("it starts");
        let sender = Sender::compressing(&collector, Protocol::Grpc, compression);
        sender.send(request.clone(), 1).await.expect("it is queued");
        let least = request.len() + 140_000;
        until("it is compressed", || memory(&collector).held >= least).await;
        let first = *held.first().unwrap_or(&memory(&collector).held);
        until("there is nothing else", || memory(&collector).held == first).await;
        held.push(first);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_line_that_cannot_be_written_is_counted_while_it_waits() {
    // A disk that is always full.
    let yaml = "
receivers: { otlp: { protocols: { grpc: { endpoint: 127.0.0.1:0 } } } }
exporters: { file: { path: /dev/full } }
service:
  telemetry: { metrics: { level: none } }
  pipelines: { traces: { receivers: [otlp], exporters: [file] } }
";
    let collector = Collector::start(config(yaml)).await.expect("it starts");
    let request = request(0, 100);
    let bytes = request.len();
    Sender::new(&collector, Protocol::Grpc).send(request, 100).await.expect("it is queued");
    // JSON is longer than protobuf.
    until("the line is counted", || memory(&collector).held > 2 * bytes).await;
    let report = collector.shutdown(Duration::ZERO).await;
    assert_eq!(report.spans_lost, 100);
}

#[tokio::test]
async fn what_parts_of_a_request_repeat_is_counted() {
    const SPANS: u64 = 50;
    const REPEATED: usize = 3000;
    let (destination, arrived, away) = away().await;
    let batch = "batch: { flush_timeout: 10ms, min_size: 1, max_size: 1 }";
    let yaml = to(&destination, &format!("    sending_queue: {{ num_consumers: 1, {batch} }}"));
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let mut large = ExportTraceServiceRequest::decode(request(0, SPANS)).expect("protobuf");
    let resource = large.resource_spans[0].resource.as_mut().expect("it has one");
    let value = any_value::Value::StringValue("x".repeat(REPEATED));
    let value = Some(AnyValue { value: Some(value) });
    resource.attributes.push(KeyValue { key: "long".to_owned(), value, ..KeyValue::default() });
    let large = Bytes::from(large.encode_to_vec());
    let (bytes, repeated) = (large.len(), SPANS as usize * REPEATED);
    Sender::new(&collector, Protocol::Grpc).send(large, SPANS).await.expect("it is queued");
    until("the parts are counted", || memory(&collector).held >= bytes + repeated).await;
    assert!(memory(&collector).held < 2 * (bytes + repeated), "{:?}", memory(&collector));
    away.store(false, Ordering::Relaxed);
    until("it is given back", || memory(&collector).held == 0).await;
    assert_eq!((arrived.count() as u64, arrived.requests().len() as u64), (SPANS, SPANS));
}

#[tokio::test]
async fn a_destination_that_is_stuck_leaves_memory_to_the_others() {
    const REQUESTS: u64 = 60;
    let (stuck, ..) = away().await;
    let (well, arrived) = destination(takes_all).await;
    let other = format!(
        "  otlp/2: {{ endpoint: {}, tls: {{ insecure: true }} }}",
        well.grpc_address().expect("served")
    );
    let yaml = to(&stuck, &format!("    sending_queue: {{ num_consumers: 50 }}\n{other}"));
    let yaml = yaml.replace("exporters: [otlp]", "exporters: [otlp, otlp/2]");
    let collector = Collector::start(config(&limited(&yaml, 20, &[]))).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);
    let name = noise(1_000_000);
    for number in 0..REQUESTS {
        sender.send(named(number, 1, &name), 1).await.expect("there is room");
        until("it arrives", || arrived.count() as u64 > number).await;
    }
    assert!(memory(&collector).held < soft(20) / 2, "{:?}", memory(&collector));
    assert_balanced(&collector);
}

#[tokio::test]
async fn a_reload_changes_the_limit_and_keeps_connections_and_what_is_held() {
    const REQUESTS: u64 = 20;
    let (destination, arrived, away) = away().await;
    let queue = "    sending_queue: { num_consumers: 1 }";
    let yaml = |limit_mib| limited(&to(&destination, queue), limit_mib, &[]);
    let collector = Collector::start(config(&yaml(128))).await.expect("it starts");
    let before = (address(&collector, "grpc"), of(&collector, "grpc").connections.max);
    let sender = Sender::new(&collector, Protocol::Grpc);
    let name = "x".repeat(1_000_000);
    for number in 0..REQUESTS {
        sender.send(named(number, 1, &name), 1).await.expect("there is room");
    }
    let held = memory(&collector).held;
    assert!(held >= REQUESTS as usize * name.len());

    collector.reload(config(&yaml(16))).await.expect("it is valid");
    assert_eq!((memory(&collector).held, memory(&collector).max), (held, soft(16)));
    let error = sender.send(named(REQUESTS, 1, &name), 1).await.expect_err("there is less room");
    assert!(asks_to_come_back(&error), "{error}");
    assert!(of(&collector, "grpc").connections.max < before.1, "idle ones have less, too");
    away.store(false, Ordering::Relaxed);
    until("all arrive", || arrived.count() as u64 == REQUESTS).await;
    until("it is given back", || memory(&collector).held == 0).await;
    sender.send(named(REQUESTS, 1, &name), 1).await.expect("there is room again");

    collector.reload(config(&yaml(128))).await.expect("it is valid");
    let port_in_use = yaml(64).replace(
        "grpc: { endpoint: 127.0.0.1:0 }",
        &format!("grpc: {{ endpoint: '{}' }}", destination.grpc_address().expect("served")),
    );
    collector.reload(config(&port_in_use)).await.expect_err("somebody listens there");
    assert_eq!(memory(&collector).max, soft(128), "the limit is as it was");
    sender.send(named(REQUESTS + 1, 1, &name), 1).await.expect("there is room");
    let grpc = of(&collector, "grpc");
    assert_eq!((address(&collector, "grpc"), grpc.connections.max), before);
    assert_eq!(grpc.connections.accepted, 1, "all came by the same connection");
    until("all arrive", || arrived.missing(REQUESTS + 2).is_empty()).await;
}
