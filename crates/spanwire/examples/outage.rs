//! A collector that is away for a while, under load: what the client's memory, the recording
//! threads and the spans make of it.
//!
//! A receiver and, before it, a proxy that refuses connections for as long as it is told to run in
//! this process, on real sockets. Every span carries its number, so that lost and repeated ones are
//! seen one by one. The program fails if a promise is broken.

#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use spanwire::{BatchConfig, Client, Diagnostics, Overflow, Protocol, Stats};
use spanwire_codec::view::Request;
use spanwire_faultproxy::{FaultProxy, Plan};
use spanwire_receiver::{Accepted, Received, Receiver};

/// Lets the collector be away for a while under load, and checks what became of every span.
#[derive(Parser)]
struct Arguments {
    /// How long the collector is away, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Spans recorded a second, before, during and after.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// Recording threads.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Bound of the client's memory, in MiB.
    #[arg(long, default_value_t = 64)]
    memory_mib: usize,
    /// Keep the oldest spans (newest) or the newest (oldest) when it is used up.
    #[arg(long, default_value = "newest", value_parser = ["newest", "oldest"])]
    drop: String,
}

const PROTOCOL: Protocol = Protocol::Grpc;
/// Before the collector goes, and after it is back.
const AROUND: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// Beside the spans' memory: threads, sockets, the receiver's requests, the histogram.
const SLACK_MIB: f64 = 48.0;

/// What the receiver got.
#[derive(Default)]
struct Arrivals {
    /// How often each number came.
    seen: Mutex<Vec<u8>>,
    requests: AtomicU64,
}

/// One look at everything.
struct Look {
    at: Duration,
    memory_mib: f64,
    requests: u64,
    attempts: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let away = Duration::from_secs(arguments.seconds);
    let arrivals = Arc::new(Arrivals::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let receiver = runtime.block_on(receive(Arc::clone(&arrivals)));
    let proxy = FaultProxy::start(receiver.grpc_address().expect("bound")).expect("a port");

    let client = Client::builder()
        .environment(false)
        .diagnostics(Diagnostics::off())
        .service_name("outage")
        .protocol(PROTOCOL)
        .endpoint(format!("http://{}", proxy.address()))
        .batch(BatchConfig {
            memory_bytes_max: arguments.memory_mib << 20,
            overflow: match arguments.drop.as_str() {
                "oldest" => Overflow::DropOldest,
                _ => Overflow::DropNewest,
            },
            ..BatchConfig::default()
        })
        .build()
        .expect("valid settings");
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..arguments.threads)
        .map(|thread| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            let (rate, threads) = (arguments.rate, arguments.threads);
            std::thread::spawn(move || record(&client, thread, threads, rate, &stop))
        })
        .collect();

    let started = Instant::now();
    let total = AROUND + away + AROUND;
    let bar = ProgressBar::new(total.as_secs());
    let style = ProgressStyle::with_template("{msg:24} {bar:40} {pos}/{len} s");
    bar.set_style(style.expect("a valid template"));
    let mut looks = Vec::new();
    let mut phase = 0;
    while started.elapsed() < total {
        let at = started.elapsed();
        let (now, plan, message) = match at {
            at if at < AROUND => (0, Plan::healthy(), "collector there"),
            at if at < AROUND + away => (1, Plan::refuse(), "collector away"),
            _ => (2, Plan::healthy(), "collector back"),
        };
        if now != phase {
            proxy.set(plan);
            phase = now;
        }
        bar.set_message(message);
        bar.set_position(at.as_secs());
        looks.push(Look {
            at,
            memory_mib: memory_mib(),
            requests: arrivals.requests.load(Ordering::Relaxed),
            attempts: proxy.stats().connections,
        });
        std::thread::sleep(LOOK);
    }
    stop.store(true, Ordering::Relaxed);
    let mut latencies = histogram();
    for thread in threads {
        latencies.add(thread.join().expect("no panic")).expect("the same range");
    }
    bar.finish_and_clear();
    let report = client.shutdown_blocking(Duration::from_secs(60));
    let verdict = judge(&arguments, &client.stats(), &arrivals, &looks, &latencies);
    println!("shutdown: {report}");
    verdict
}

async fn receive(arrivals: Arc<Arrivals>) -> Receiver {
    let sink = move |received: Received| {
        let request = Request::parse(&received.request).expect("the receiver checked it");
        let mut seen = arrivals.seen.lock().expect("no panic");
        for scope in request.resource_spans().flat_map(|resource| resource.scope_spans()) {
            for span in scope.spans() {
                let name = std::str::from_utf8(span.name()).expect("digits");
                let number: usize = name.parse().expect("a number");
                if seen.len() <= number {
                    seen.resize(number + 1, 0);
                }
                seen[number] = seen[number].saturating_add(1);
            }
        }
        arrivals.requests.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Accepted::default()))
    };
    let localhost = SocketAddr::from(([127, 0, 0, 1], 0));
    Receiver::builder().grpc(localhost).bind(sink).await.expect("a free port")
}

/// Records at a steady rate, a few spans each millisecond; returns how long each took, in ns.
fn record(
    client: &Client,
    thread: u64,
    threads: u64,
    rate: u64,
    stop: &AtomicBool,
) -> Histogram<u64> {
    use std::fmt::Write as _;

    let tracer = client.tracer("outage");
    let mut latencies = histogram();
    let mut name = String::new();
    let started = Instant::now();
    let mut recorded = 0;
    while !stop.load(Ordering::Relaxed) {
        let due =
            (started.elapsed().as_nanos() * u128::from(rate) / u128::from(threads)) / 1_000_000_000;
        while u128::from(recorded) < due {
            name.clear();
            write!(name, "{}", recorded * threads + thread).expect("memory is enough");
            let before = Instant::now();
            let mut span = tracer.start(&name);
            span.set_attribute("http.request.method", "GET");
            span.set_attribute("http.route", "/checkout/{cart}");
            span.set_attribute("http.response.status_code", 200);
            span.end();
            latencies.saturating_record(before.elapsed().as_nanos() as u64);
            recorded += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    latencies
}

/// From a nanosecond to a minute, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

fn judge(
    arguments: &Arguments,
    stats: &Stats,
    arrivals: &Arrivals,
    looks: &[Look],
    latencies: &Histogram<u64>,
) -> ExitCode {
    let seen = arrivals.seen.lock().expect("no panic");
    let arrived = seen.iter().filter(|&&times| times > 0).count() as u64;
    let repeated: u64 = seen.iter().map(|&times| u64::from(times.saturating_sub(1))).sum();
    let away = AROUND..AROUND + Duration::from_secs(arguments.seconds);
    let before = looks.iter().filter(|look| look.at < AROUND).map(|look| look.memory_mib);
    let before = before.fold(0.0, f64::max);
    let most = looks.iter().map(|look| look.memory_mib).fold(0.0, f64::max);
    let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;

    println!("{stats}");
    println!("arrived {arrived}, of them {repeated} a second time; exported {}", stats.exported);
    println!("memory of the process: {before:.0} MiB before, {most:.0} MiB at most");
    println!(
        "one span on its thread: P50 {:.2} µs, P99 {:.2} µs, P99.9 {:.2} µs, longest {:.0} µs",
        micros(0.5),
        micros(0.99),
        micros(0.999),
        latencies.max() as f64 / 1e3,
    );
    let rates = |of: fn(&Look) -> u64, within: &std::ops::Range<Duration>| -> Vec<u64> {
        let within: Vec<_> =
            looks.iter().filter(|look| within.contains(&look.at)).map(of).collect();
        within.windows(2).map(|pair| pair[1] - pair[0]).collect()
    };
    let attempts = rates(|look| look.attempts, &away);
    println!("connections tried while it was away, each 100 ms: {}", bars(&attempts));
    let back = away.end..away.end + AROUND;
    let requests = rates(|look| look.requests, &back);
    println!("requests after it came back, each 100 ms:         {}", bars(&requests));

    let promises = [
        ("each span is in one place", stats.is_balanced()),
        ("nothing is pending after the shutdown", stats.pending.total() == 0),
        ("what was exported has arrived", arrived == stats.exported),
        ("memory stays within its bound", most - before < arguments.memory_mib as f64 + SLACK_MIB),
        (
            "no more than 20 connections are tried in 100 ms",
            attempts.iter().all(|&tried| tried <= 20),
        ),
    ];
    for (promise, kept) in promises {
        println!("{} {promise}", if kept { "kept  " } else { "BROKEN" });
    }
    match promises.iter().all(|(_, kept)| *kept) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A row of bars, one for some values together where there are many; the highest is in numbers.
fn bars(values: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(0);
    let each = values.len().div_ceil(60).max(1);
    let bar = |values: &[u64]| {
        let highest = values.iter().copied().max().unwrap_or(0);
        BARS[(highest * 7).checked_div(most).unwrap_or(0) as usize]
    };
    format!("{} at most {most}", values.chunks(each).map(bar).collect::<String>())
}

/// What this process has in physical memory, by `/proc`; 0 where there is none.
fn memory_mib() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    pages as f64 * 4096.0 / f64::from(1 << 20)
}
