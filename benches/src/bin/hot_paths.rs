//! The hot paths, and whole exports beside them, one at a time.
//!
//! - `hot_paths list`: the names of the paths whose instructions are counted.
//! - `hot_paths count NAME RUNS`: takes such a path so often after a warm-up, for `callgrind`.
//! - `hot_paths time [--json]`: nanoseconds a span of each piece of work: of CPU where it takes several
//!   threads, else as they pass.
//! - `hot_paths train`: all of it for a while, for a build that learns from a profile.
//! - `hot_paths repeat NAME SECONDS`: one piece of work so long, for a profiler.
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use spanwire_benches::child::Child;
use spanwire_benches::exporters::{self, Wire};
use spanwire_benches::fixtures::{Requests, SCOPE};
use spanwire_benches::hot_paths::{self, HotPath, by_name};
use spanwire_benches::process::cpu_time;
use spanwire_benches::sink::{self, Kind, Sink};
use spanwire_codec::json::{read_request, write_request};
use spanwire_receiver::{Accepted, Received, Receiver};
use spanwire_transport::{Body, Protocol, Transport, TransportConfig};
use tokio::runtime;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    if sink::serve_if_asked()? {
        return Ok(());
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => hot_paths::names().for_each(|name| println!("{name}")),
        ["count", name, runs] => count(name, runs.parse()?)?,
        ["time"] => time(|name, nanos, clock| {
            println!("{name:<32} {nanos:9.2} ns a span, {clock}");
        })?,
        ["time", "--json"] => time(|name, nanos, clock| {
            println!("{}", json!({ "name": name, "ns": nanos, "clock": clock }));
        })?,
        ["train"] => train()?,
        ["repeat", name, seconds] => {
            let mut work = Work::new(name)?;
            work.repeat(Duration::from_secs(seconds.parse()?), 1)?;
        }
        [SEND, url] => send(url)?,
        _ => {
            let usage = "list | count NAME RUNS | time [--json] | train | repeat NAME SECONDS";
            let names: Vec<String> = names().collect();
            return Err(format!("usage: hot_paths {usage}; names: {}", names.join(", ")).into());
        }
    }
    Ok(())
}

/// Runs before those that are counted. They grow buffers and fill pools, and under `callgrind` they
/// take longer than the 10 ms after which the clock knows the length of a tick.
const WARM_UP: u32 = 8;

fn count(name: &str, runs: u32) -> Result<()> {
    let mut path = by_name(name).ok_or_else(|| unknown(name))?;
    for _ in 0..WARM_UP {
        path.measured();
    }
    counted(&mut path, runs);
    Ok(())
}

/// What `callgrind` counts: it is told this name, and so sees nothing of the warm-up.
#[inline(never)]
fn counted(path: &mut HotPath, runs: u32) {
    for _ in 0..runs {
        path.measured();
    }
}

/// Each piece of work so long, and so often at least; the least of them is the figure, because what
/// else runs on the machine only ever adds.
const TIMED: Duration = Duration::from_millis(150);
const TIMED_RUNS_MIN: u32 = 5;

fn time(show: impl Fn(&str, f64, &str)) -> Result<()> {
    for name in names() {
        let mut work = Work::new(&name)?;
        (work.run)()?;
        let least = work.repeat(TIMED, TIMED_RUNS_MIN)?;
        show(&name, least.as_nanos() as f64 / work.spans as f64, work.clock);
    }
    Ok(())
}

/// Each piece of work so long in training. So much time and not so many runs, because it is by counts
/// that the compiler tells the usual way through a branch from the other: with as many runs, spans
/// that are not sampled would seem rare.
const TRAINED: Duration = Duration::from_millis(500);

fn train() -> Result<()> {
    for name in names() {
        Work::new(&name)?.repeat(TRAINED, 1)?;
    }
    Ok(())
}

/// Something that can be done again and again.
struct Work {
    spans: u64,
    /// What its time is: `"wall"` or `"CPU"`.
    clock: &'static str,
    /// Does it once and says what that took.
    run: Box<dyn FnMut() -> Result<Duration>>,
}

const JSON_WRITE: &str = "json_write_1000_spans";
const JSON_READ: &str = "json_read_1000_spans";
const EXPORT: &str = "export_10000_spans";
const RECEIVE: &str = "receive_1000_spans";

/// Names of all work: the hot paths, then what has no kept instructions because it takes sockets and
/// threads, or because no goal is about its instructions.
fn names() -> impl Iterator<Item = String> {
    let exports = Wire::ALL.into_iter().map(|wire| format!("{EXPORT}: {wire}"));
    let json = [JSON_WRITE, JSON_READ].map(str::to_owned);
    let paths = hot_paths::names().map(str::to_owned);
    paths.chain(json).chain(exports).chain([RECEIVE.to_owned()])
}

fn unknown(name: &str) -> String {
    format!("no path is called {name:?}, only {}", names().collect::<Vec<_>>().join(", "))
}

impl Work {
    fn new(name: &str) -> Result<Self> {
        if let Some(mut path) = by_name(name) {
            return Ok(Self::of_wall_time(path.spans, move || {
                path.measured();
                Ok(())
            }));
        }
        if let Some(wire) = name.strip_prefix(EXPORT).and_then(|rest| rest.strip_prefix(": ")) {
            return export(wire.parse()?);
        }
        match name {
            JSON_WRITE => {
                let request = Requests::new(1_000).encoded();
                let mut out = Vec::new();
                Ok(Self::of_wall_time(1_000, move || {
                    out.clear();
                    write_request(black_box(&request), &mut out)?;
                    black_box(&out);
                    Ok(())
                }))
            }
            JSON_READ => {
                let mut text = Vec::new();
                write_request(&Requests::new(1_000).encoded(), &mut text)?;
                Ok(Self::of_wall_time(1_000, move || {
                    black_box(read_request(black_box(&text))?);
                    Ok(())
                }))
            }
            RECEIVE => receive(),
            _ => Err(unknown(name).into()),
        }
    }

    /// Work of one thread: the time that passes.
    fn of_wall_time(spans: u64, mut run: impl FnMut() -> Result<()> + 'static) -> Self {
        let run = move || {
            let start = Instant::now();
            run()?;
            Ok(start.elapsed())
        };
        Self { spans, clock: "wall", run: Box::new(run) }
    }

    /// Work of several threads: the CPU time of this process.
    fn of_cpu_time(spans: u64, mut run: impl FnMut() -> Result<()> + 'static) -> Self {
        let run = move || {
            let start = cpu_time();
            run()?;
            Ok(cpu_time() - start)
        };
        Self { spans, clock: "CPU", run: Box::new(run) }
    }

    /// Does it for so long and so often at least; the least that one run took.
    fn repeat(&mut self, within: Duration, runs_min: u32) -> Result<Duration> {
        let start = Instant::now();
        let (mut least, mut runs) = (Duration::MAX, 0);
        while runs < runs_min || start.elapsed() < within {
            least = least.min((self.run)()?);
            runs += 1;
        }
        Ok(least)
    }
}

/// Spans recorded, encoded and sent by a client with default settings, to a receiver in a process of
/// its own. What is taken is the client's CPU, of all its threads.
fn export(wire: Wire) -> Result<Work> {
    const SPANS: u64 = 10_000;
    let sink = Sink::spawn(Kind::OneWorker)?;
    let client = exporters::spanwire(wire, wire.url(&sink)).build()?;
    let tracer = client.tracer(SCOPE);
    let requests = Requests::new(SPANS as usize);
    Ok(Work::of_cpu_time(SPANS, move || {
        let _kept = &sink;
        requests.iter().for_each(|request| request.record(&tracer));
        exporters::flush(&client);
        Ok(())
    }))
}

/// Requests of 1,000 spans each taken in over gRPC, one after the other, from a sender in a process
/// of its own. What is taken is the receiver's CPU, of all its threads.
fn receive() -> Result<Work> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let receiver = runtime.block_on(
        Receiver::builder()
            .grpc(([127, 0, 0, 1], 0).into())
            .bind(async |_received: Received| Ok(Accepted::default())),
    )?;
    let address = receiver.grpc_address().ok_or("gRPC was bound")?;
    let mut sender = Child::spawn(&[SEND, &format!("http://{address}")])?;
    Ok(Work::of_cpu_time(SENT_REQUESTS * 1_000, move || {
        let _kept = (&runtime, &receiver);
        sender.ask(SEND)?;
        Ok(())
    }))
}

/// The first argument of a process that is to be a sender; the second is the receiver's URL.
const SEND: &str = "--send";

/// Requests that a sender sends each time it is asked. They take so long that asking is no part of
/// the figure.
const SENT_REQUESTS: u64 = 40;

/// The sender's process.
fn send(url: &str) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let transport = Transport::new(&TransportConfig::new(Protocol::Grpc, url)?)?;
        let request = Bytes::from(Requests::new(1_000).encoded());
        let encoded = transport.encode(&Body::new([request], 1_000)).await?;
        for asked in io::stdin().lines() {
            asked?;
            for _ in 0..SENT_REQUESTS {
                let accepted = transport.send(&encoded).await?;
                if accepted.rejected_spans > 0 {
                    return Err(format!("{} spans were rejected", accepted.rejected_spans).into());
                }
            }
            println!("sent");
        }
        Ok(())
    })
}
