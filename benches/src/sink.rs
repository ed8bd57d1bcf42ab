//! A receiver in a process of its own, so that its work is not counted as the client's.
//!
//! The benchmark's binary runs itself once more with [`ARGUMENT`]; parent and child talk in lines.

use std::env;
use std::fmt;
use std::future;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use spanwire_codec::view::Request;
use spanwire_receiver::{Accepted, Received, Receiver};
use tokio::runtime::{self, Runtime};

use crate::child::Child;
use crate::fixtures;
use crate::process::{cpu_time, unix_nanos};

/// The first argument of a process that is to be a sink; the second is its [`Kind`].
pub const ARGUMENT: &str = "--sink";

/// What a sink runs on, and what it does besides receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One worker, which leaves the other cores to the client that is measured.
    OneWorker,
    /// The same, which also takes the time from a span's end to here: see [`Sink::delay_p99`].
    Timing,
    /// Tokio's own choice: a worker for each core, and every setting at its default.
    TokioDefault,
    /// What `spanwire-runtime` advises for a receiver: no thread but the one that it was given.
    CurrentThread,
}

impl Kind {
    const ALL: [Self; 4] = [Self::OneWorker, Self::Timing, Self::TokioDefault, Self::CurrentThread];

    fn runtime(self) -> io::Result<Runtime> {
        match self {
            Self::OneWorker | Self::Timing => {
                runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
            }
            Self::TokioDefault => Runtime::new(),
            Self::CurrentThread => spanwire_runtime::Builder::current_thread().build(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OneWorker => "one-worker",
            Self::Timing => "timing",
            Self::TokioDefault => "tokio-default",
            Self::CurrentThread => "current-thread",
        })
    }
}

impl FromStr for Kind {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Self> {
        let kind = Self::ALL.into_iter().find(|kind| kind.to_string() == name);
        kind.ok_or_else(|| io::Error::other(format!("no sink is called {name:?}")))
    }
}

/// The parent's end of a sink. The child ends when this is dropped.
#[derive(Debug)]
pub struct Sink {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
}

/// What a sink has accepted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Spans.
    pub spans: u64,
    /// Bytes of their requests as sent, compressed or not.
    pub wire_bytes: u64,
    /// Requests.
    pub requests: u64,
}

impl Taken {
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            spans: self.spans - before.spans,
            wire_bytes: self.wire_bytes - before.wire_bytes,
            requests: self.requests - before.requests,
        }
    }
}

impl Sink {
    /// Starts one, on ports the system chooses.
    ///
    /// # Errors
    ///
    /// When this binary cannot be run again, or the child says something else than its addresses.
    pub fn spawn(kind: Kind) -> io::Result<Self> {
        let mut child = Child::spawn(&[ARGUMENT, &kind.to_string()])?;
        let [grpc, http] = words(&child.answer()?)?;
        Ok(Self { child, grpc, http })
    }

    /// Base URL for OTLP/gRPC.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Base URL for OTLP/HTTP.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What it has accepted so far. A request is counted just after it was answered.
    ///
    /// # Errors
    ///
    /// When the child is gone.
    pub fn taken(&mut self) -> io::Result<Taken> {
        let [spans, wire_bytes, requests] = self.ask(TAKEN)?;
        Ok(Taken { spans, wire_bytes, requests })
    }

    /// What it has accepted since `before`, of which the caller knows that it is `spans`.
    ///
    /// # Errors
    ///
    /// When it is fewer even after a second, or more, or the child is gone: what was measured then
    /// is something else.
    pub fn taken_since(&mut self, before: Taken, spans: u64) -> io::Result<Taken> {
        let asked = Instant::now();
        loop {
            let since = self.taken()?.since(before);
            if since.spans == spans {
                return Ok(since);
            }
            if since.spans > spans || asked.elapsed() > Duration::from_secs(1) {
                let message = format!("the sink has {} spans, not {spans}", since.spans);
                return Err(io::Error::other(message));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it has accepted since `before`, when the caller does not know how much that is but
    /// nothing more is on its way: two answers, one after the other, agree.
    ///
    /// # Errors
    ///
    /// When the child is gone.
    pub fn taken_in_all(&mut self, before: Taken) -> io::Result<Taken> {
        let mut last = self.taken()?;
        loop {
            thread::sleep(Duration::from_millis(10));
            let now = self.taken()?;
            if now == last {
                return Ok(now.since(before));
            }
            last = now;
        }
    }

    /// 99 of 100 spans that came since the last question were accepted within so much time after
    /// they had ended. Every 16th span is looked at, by the time of day, which both processes have
    /// from the same machine.
    ///
    /// # Errors
    ///
    /// When it is not a sink of [`Kind::Timing`], no span came, spans came before they had ended, or
    /// the child is gone.
    pub fn delay_p99(&mut self) -> io::Result<Duration> {
        let [nanos] = self.ask(DELAY)?;
        Ok(Duration::from_nanos(nanos))
    }

    /// CPU time of all its threads so far.
    ///
    /// # Errors
    ///
    /// When the child is gone.
    pub fn cpu_time(&mut self) -> io::Result<Duration> {
        let [nanos] = self.ask(CPU)?;
        Ok(Duration::from_nanos(nanos))
    }

    fn ask<const N: usize>(&mut self, question: &str) -> io::Result<[u64; N]> {
        words(&self.child.ask(question)?)
    }
}

/// The words of a line.
fn words<T: FromStr, const N: usize>(line: &str) -> io::Result<[T; N]> {
    let words: Option<Vec<T>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
    words
        .and_then(|words| words.try_into().ok())
        .ok_or_else(|| io::Error::other(format!("the sink answered {line:?}")))
}

const TAKEN: &str = "taken";
const DELAY: &str = "delay";
const CPU: &str = "cpu";

/// Serves until the input ends, if this process was started as a sink; otherwise returns at once
/// with `false`. To be called first in `main`.
///
/// # Errors
///
/// When no port can be had or the parent is gone.
pub fn serve_if_asked() -> io::Result<bool> {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(ARGUMENT) {
        return Ok(false);
    }
    let kind: Kind = arguments.next().unwrap_or_default().parse()?;
    let delays = (kind == Kind::Timing).then(Arc::<Delays>::default);
    serve(&kind.runtime()?, delays)?;
    Ok(true)
}

#[expect(clippy::print_stdout, reason = "its output is how it talks to its parent")]
fn serve(runtime: &Runtime, delays: Option<Arc<Delays>>) -> io::Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let taking = delays.clone();
    let sink = move |received: Received| {
        if let Some(delays) = &taking {
            delays.take(&received.request);
        }
        future::ready(Ok(Accepted::default()))
    };
    let receiver = runtime
        .block_on(Receiver::builder().grpc(any).http(any).bind(sink))
        .map_err(io::Error::other)?;
    let addresses = receiver.grpc_address().zip(receiver.http_address());
    let (grpc, http) = addresses.ok_or_else(|| io::Error::other("both were bound"))?;
    println!("{grpc} {http}");
    // On a thread of its own: a runtime of the current thread only works within `block_on`.
    let answering = runtime.spawn_blocking(move || answer(&receiver, delays.as_deref()));
    runtime.block_on(answering).map_err(io::Error::other)?
}

#[expect(clippy::print_stdout, reason = "its output is how it talks to its parent")]
fn answer(receiver: &Receiver, delays: Option<&Delays>) -> io::Result<()> {
    for question in io::stdin().lines() {
        match question?.as_str() {
            DELAY => match delays.and_then(Delays::p99) {
                Some(nanos) => println!("{nanos}"),
                None => println!("none"),
            },
            CPU => println!("{}", cpu_time().as_nanos()),
            TAKEN => {
                let stats = receiver.stats();
                let all = [stats.grpc, stats.http];
                let spans: u64 = all.iter().map(|one| one.spans_accepted).sum();
                let wire_bytes: u64 = all.iter().map(|one| one.wire_bytes).sum();
                let requests: u64 = all.iter().map(|one| one.requests_accepted).sum();
                println!("{spans} {wire_bytes} {requests}");
            }
            other => return Err(io::Error::other(format!("asked for {other:?}"))),
        }
    }
    Ok(())
}

/// Nanoseconds from the end of spans to their arrival; less than nothing if the clocks disagree.
#[derive(Debug, Default)]
struct Delays(Mutex<Vec<i64>>);

impl Delays {
    fn take(&self, request: &[u8]) {
        let now = unix_nanos();
        let request = Request::parse(request).expect("the receiver has checked it");
        let mut delays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let some = fixtures::spans(&request).step_by(16);
        delays.extend(some.map(|span| now.wrapping_sub(span.end_time_unix_nano()) as i64));
    }

    /// Of those since the last call.
    fn p99(&self) -> Option<i64> {
        let mut delays = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let rank = (delays.len() * 99).div_ceil(100).checked_sub(1)?;
        Some(*delays.select_nth_unstable(rank).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Requests;

    #[test]
    fn of_a_hundred_delays_one_may_be_longer_than_p99() {
        let delays = Delays(Mutex::new((1..=100).rev().collect()));
        assert_eq!(delays.p99(), Some(99));
        assert_eq!(delays.p99(), None, "each delay is reported once");
    }

    #[test]
    fn every_sixteenth_span_of_a_request_is_timed() {
        let delays = Delays::default();
        delays.take(&Requests::new(33).encoded());
        let taken = delays.0.lock().expect("not poisoned").clone();
        // The first, the 17th and the 33rd, which ended a microsecond after each other.
        let beyond_the_last = taken.iter().map(|delay| delay - taken[2]).collect::<Vec<_>>();
        assert_eq!(beyond_the_last, [32_000, 16_000, 0]);
    }

    #[test]
    fn each_kind_of_sink_is_known_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse::<Kind>().ok(), Some(kind));
        }
    }
}
