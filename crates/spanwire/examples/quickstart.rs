//! Records spans, sends them over real sockets, and shows what arrived.
//!
//! Without an argument a receiver is started in this very process, on free ports of localhost;
//! `--endpoint URL` sends to a collector of yours instead.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its purpose is to print")]

use std::error::Error;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use spanwire::{Client, Compression, Overflow, Protocol, RetrySettings, SpanKind, Stats, Tracer};
use spanwire_codec::{decode, view};
use spanwire_model::{Resource, Scope, TraceTree};
use spanwire_receiver::{Accepted, Received, Receiver};
use spanwire_transport::{Body, Transport, TransportConfig};

/// Longest wait for anything to be delivered.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records spans, sends them to an OTLP receiver, and shows what arrived.
#[derive(Parser)]
struct Arguments {
    /// Base URL of a collector, for example http://localhost:4317; a receiver in this process if
    /// not given.
    #[arg(long)]
    endpoint: Option<String>,

    /// How to talk to that collector: grpc, http/protobuf or http/json; by default grpc.
    #[arg(long, default_value = "grpc", requires = "endpoint", value_parser = protocol)]
    protocol: Protocol,

    /// Spans to record in the second part.
    #[arg(long, default_value_t = 100_000)]
    spans: u64,
}

const PROTOCOLS: [(Protocol, &str); 3] = [
    (Protocol::Grpc, "grpc"),
    (Protocol::HttpProtobuf, "http/protobuf"),
    (Protocol::HttpJson, "http/json"),
];

fn protocol(name: &str) -> Result<Protocol, String> {
    let known = PROTOCOLS.iter().find(|(_, known)| *known == name);
    known.map(|&(protocol, _)| protocol).ok_or_else(|| {
        format!("`{name}` is none of {}", PROTOCOLS.map(|(_, name)| name).join(", "))
    })
}

fn name(protocol: Protocol) -> &'static str {
    PROTOCOLS.iter().find(|(known, _)| *known == protocol).map_or("?", |(_, name)| name)
}

fn main() -> ExitCode {
    let Err(error) = run(&Arguments::parse()) else { return ExitCode::SUCCESS };
    eprint!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let target = match &arguments.endpoint {
        Some(url) => Target::Yours { url: url.clone(), protocol: arguments.protocol },
        None => Target::Own(OwnReceiver::start()?),
    };
    target.describe();
    first_part(&target)?;
    second_part(&target, arguments.spans)?;
    Ok(())
}

/// Where the spans go.
enum Target {
    Yours { url: String, protocol: Protocol },
    Own(OwnReceiver),
}

impl Target {
    fn describe(&self) {
        match self {
            Self::Yours { url, protocol } => println!("Sending to {url} over {}.", name(*protocol)),
            Self::Own(own) => println!(
                "A receiver listens in this process: {} (gRPC) and {} (HTTP).",
                own.url(Protocol::Grpc),
                own.url(Protocol::HttpProtobuf),
            ),
        }
    }

    fn protocols(&self) -> Vec<Protocol> {
        match self {
            Self::Yours { protocol, .. } => vec![*protocol],
            Self::Own(_) => PROTOCOLS.map(|(protocol, _)| protocol).to_vec(),
        }
    }

    fn url(&self, protocol: Protocol) -> String {
        match self {
            Self::Yours { url, .. } => url.clone(),
            Self::Own(own) => own.url(protocol),
        }
    }
}

/// A receiver with what it got.
struct OwnReceiver {
    receiver: Receiver,
    requests: Arc<Mutex<Vec<Bytes>>>,
    _runtime: tokio::runtime::Runtime,
}

impl OwnReceiver {
    fn start() -> Result<Self, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("receiver")
            .build()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        let sink = move |received: Received| {
            // The small ones are looked at below; of the many only the number counts.
            if received.spans < 100
                && let Ok(mut kept) = kept.lock()
            {
                kept.push(received.request.clone());
            }
            std::future::ready(Ok(Accepted::default()))
        };
        let localhost = "127.0.0.1:0".parse()?;
        let receiver = Receiver::builder().grpc(localhost).http(localhost).bind(sink);
        let receiver = runtime.block_on(receiver)?;
        Ok(Self { receiver, requests, _runtime: runtime })
    }

    fn url(&self, protocol: Protocol) -> String {
        let address = match protocol {
            Protocol::Grpc => self.receiver.grpc_address(),
            Protocol::HttpProtobuf | Protocol::HttpJson => self.receiver.http_address(),
        };
        address.map_or_else(String::new, |address| format!("http://{address}"))
    }

    fn spans(&self) -> u64 {
        let stats = self.receiver.stats();
        stats.grpc.spans_accepted + stats.http.spans_accepted
    }

    /// Draws what arrived since the last call.
    fn draw(&self) -> Result<(), Box<dyn Error>> {
        let requests = std::mem::take(&mut *self.requests.lock().map_err(|_| "the sink panicked")?);
        let mut spans = Vec::new();
        for request in &requests {
            let decoded = decode::request(&view::Request::parse(request)?, 1 << 20)?;
            for resource in decoded.resource_spans {
                let service = match resource.resource.attributes.get("service.name") {
                    Some(spanwire::Value::String(name)) => name.clone().into_owned(),
                    _ => String::new(),
                };
                for scope in resource.scope_spans {
                    spans.extend(scope.spans.into_iter().map(|span| (service.clone(), span)));
                }
            }
        }
        let tree = TraceTree::new(spans.iter().map(|(service, span)| (&**service, span)));
        match stdout().is_terminal() {
            true => println!("{tree:#}\n"),
            false => println!("{tree}\n"),
        }
        Ok(())
    }
}

/// One request with its parts, over each protocol.
fn first_part(target: &Target) -> Result<(), Box<dyn Error>> {
    for protocol in target.protocols() {
        let client = Client::builder()
            .service_name("shop")
            .service_version("1.4.2")
            .protocol(protocol)
            .endpoint(target.url(protocol))
            // Once is enough to tell whether anybody is there.
            .retry(RetrySettings { attempts_max: 1, ..RetrySettings::default() })
            .build()?;
        nested_request(&client.tracer("shop.http"), &client.tracer("shop.db"));
        let report = client.shutdown_blocking(PATIENCE);
        let stats = client.stats();
        println!("\n── over {}: {report}", name(protocol));
        if let (false, Some(error)) = (stats.exported == stats.started, &stats.last_error) {
            return Err(format!("{} did not take the spans: {error}", target.url(protocol)).into());
        }
        if let Target::Own(own) = target {
            println!("   the trace as the receiver saw it:\n");
            own.draw()?;
        }
    }
    Ok(())
}

/// A web shop's checkout: some work, a cache, a database, and a payment that is declined once.
fn nested_request(http: &Tracer, db: &Tracer) {
    let work = |micros| std::thread::sleep(Duration::from_micros(micros));

    let mut request = http.span("POST /checkout").kind(SpanKind::Server).start();
    request.set_attribute("http.request.method", "POST");
    request.set_attribute("http.route", "/checkout");
    request.set_attribute("url.scheme", "https");
    let _current = request.enter(); // spans started from here on are its children

    http.in_span("authenticate", |span| {
        work(200);
        span.add_event("cache miss", [("cache.key", "session:42".into())]);
        let mut query = db.span("SELECT sessions").kind(SpanKind::Client).start();
        query.set_attribute("db.system.name", "postgresql");
        query.set_attribute("db.query.text", "SELECT user_id FROM sessions WHERE id = $1");
        work(500);
    });
    {
        let mut charge = http.span("POST /charge").kind(SpanKind::Client).start();
        charge.set_attribute("server.address", "payments.example");
        charge.set_attribute("http.request.resend_count", 1);
        work(300);
        charge
            .record_error(&std::io::Error::new(std::io::ErrorKind::TimedOut, "payment timed out"));
    }
    db.in_span("INSERT orders", |span| {
        span.set_attribute("db.system.name", "postgresql");
        span.set_attribute("order.items", vec!["teapot", "tea"]);
        work(400);
    });
    request.set_attribute("http.response.status_code", 202);
}

/// Very many spans, and what they cost.
fn second_part(target: &Target, spans: u64) -> Result<(), Box<dyn Error>> {
    let protocol = target.protocols()[0];
    let client = Client::builder()
        .service_name("quickstart")
        .protocol(protocol)
        .endpoint(target.url(protocol))
        .overflow(Overflow::Block { timeout: PATIENCE })
        .build()?;
    let tracer = client.tracer("quickstart");
    let received_before = if let Target::Own(own) = target { own.spans() } else { 0 };

    println!("── {} spans of 8 attributes over {}", HumanCount(spans), name(protocol));
    let progress = ProgressBar::new(spans);
    if let Ok(style) = ProgressStyle::with_template("   {bar:40} {human_pos}/{human_len} recorded")
    {
        progress.set_style(style);
    }
    let started = Instant::now();
    let mut recording = Duration::ZERO;
    let mut recorded = 0;
    while recorded < spans {
        let some = (spans - recorded).min(10_000);
        let before = Instant::now();
        for number in recorded..recorded + some {
            record(&tracer, number);
        }
        recording += before.elapsed();
        recorded += some;
        progress.set_position(recorded);
    }
    progress.finish_and_clear();
    let report = client.flush_blocking(PATIENCE);
    let took = started.elapsed();
    let stats = client.stats();
    if let (false, Some(error)) = (report.complete, &stats.last_error) {
        println!("   not everything was delivered in time: {error}");
    }
    print_costs(&stats, recording, took);
    if let Target::Own(own) = target {
        println!(
            "   received         {:>12}",
            HumanCount(own.spans() - received_before).to_string()
        );
    }
    println!(
        "   {}",
        if stats.is_balanced() { "every span is accounted for" } else { "UNBALANCED" }
    );
    if stats.started > 0 {
        print_compressions()?;
    }
    Ok(())
}

/// A span as a web server would record it.
fn record(tracer: &Tracer, number: u64) {
    let mut span = tracer.span("GET /users/{id}").kind(SpanKind::Server).start();
    span.set_attribute("http.request.method", "GET");
    span.set_attribute("http.route", "/users/{id}");
    span.set_attribute("url.scheme", "https");
    span.set_attribute("server.address", "api.example.com");
    span.set_attribute(
        "http.response.status_code",
        if number.is_multiple_of(100) { 500 } else { 200 },
    );
    span.set_attribute("user.id", number);
    span.set_attribute("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)");
    span.set_attribute("cache.hit", number.is_multiple_of(3));
}

fn print_costs(stats: &Stats, recording: Duration, took: Duration) {
    let row = |what: &str, value: String| println!("   {what:<16} {value:>12}");
    let spans = stats.started.max(1);
    row("recorded", HumanCount(stats.started).to_string());
    row("exported", HumanCount(stats.exported).to_string());
    row("dropped", HumanCount(stats.dropped.total()).to_string());
    row("ns per span", format!("{:.0}", recording.as_nanos() as f64 / spans as f64));
    println!("                    (on the recording thread, waiting for memory included)");
    row(
        "spans per second",
        HumanCount((stats.exported as f64 / took.as_secs_f64()) as u64).to_string(),
    );
    println!("                    (recorded, sent and answered)");
    row("bytes per span", format!("{:.0}", stats.bytes as f64 / spans as f64));
}

/// What one request of a thousand spans shrinks to.
fn print_compressions() -> Result<(), Box<dyn Error>> {
    const SPANS: usize = 1_000;
    let request = a_request(SPANS);
    println!("── bytes per span in a request of {}", HumanCount(SPANS as u64));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for (name, compression) in [
            ("none", Compression::None),
            ("gzip", Compression::Gzip),
            ("zstd", Compression::Zstd),
            ("brotli", Compression::Brotli),
        ] {
            // Nothing is sent: the transport only encodes.
            let config = TransportConfig::new(Protocol::HttpProtobuf, "http://localhost:4318")?
                .compression(compression)?;
            let transport = Transport::new(&config)?;
            let body = Body::new([request.clone()], SPANS);
            let before = Instant::now();
            let bytes = transport.encode(&body).await?.len();
            println!(
                "   {name:<8} {:>7.1}   {:>10} in all   {:>6.0} ns per span",
                bytes as f64 / SPANS as f64,
                HumanBytes(bytes as u64).to_string(),
                before.elapsed().as_nanos() as f64 / SPANS as f64,
            );
        }
        Ok(())
    })
}

/// The spans of [`record`] as the bytes of one request.
fn a_request(spans: usize) -> Bytes {
    use spanwire_codec::encode::{EncodedResource, EncodedScope};

    let provider = spanwire_tracer::Provider::builder().build(|_full| Ok(()));
    let tracer = provider.tracer("quickstart");
    let mut framed = Vec::new();
    for number in 0..spans as u64 {
        record(&tracer, number);
        // Swept each time, so that no chunk leaves with spans in it.
        provider.sweep(|taken| framed.extend_from_slice(&taken.slice.bytes));
    }
    let resource: spanwire::Attributes = [("service.name", "quickstart")].into_iter().collect();
    let resource = Resource { attributes: resource, ..Resource::default() };
    let scope = EncodedScope::new(&Scope::new("quickstart"));
    let mut request = Vec::new();
    EncodedResource::new(&resource).put_header(scope.field_len(framed.len()), &mut request);
    scope.put_header(framed.len(), &mut request);
    request.extend_from_slice(&framed);
    request.into()
}
