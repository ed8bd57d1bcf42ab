//! A receiver in a process of its own, so that its work is not counted as the client's.
//!
//! The benchmark's binary runs itself once more with [`ARGUMENT`]; parent and child talk in lines.

use std::env;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use spanwire_receiver::{Accepted, Received, Receiver};
use tokio::runtime;

/// The first argument of a process that is to be a sink.
pub const ARGUMENT: &str = "--sink";

/// The parent's end of a sink. The child ends when this is dropped.
#[derive(Debug)]
pub struct Sink {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
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

impl Sink {
    /// Starts one, on ports the system chooses.
    ///
    /// # Errors
    ///
    /// When this binary cannot be run again, or the child says something else than its addresses.
    pub fn spawn() -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let piped = child.stdin.take().zip(child.stdout.take());
        let (ask, answers) = piped.ok_or_else(|| io::Error::other("pipes were asked for"))?;
        let mut answers = BufReader::new(answers);
        let [grpc, http] = numbers(&mut answers)?;
        Ok(Self { child, ask: Some(ask), answers, grpc, http })
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
        if let Some(ask) = &mut self.ask {
            writeln!(ask)?;
        }
        let [spans, wire_bytes, requests] = numbers(&mut self.answers)?;
        Ok(Taken { spans, wire_bytes, requests })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The end of its input ends it; a child that is gone already is no matter.
        self.ask = None;
        let _gone = self.child.wait();
    }
}

/// Reads one line of words.
fn numbers<T: std::str::FromStr, const N: usize>(from: &mut impl BufRead) -> io::Result<[T; N]> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let words: Option<Vec<T>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
    words
        .and_then(|words| words.try_into().ok())
        .ok_or_else(|| io::Error::other(format!("the sink answered {line:?}")))
}

/// Serves until the input ends, if this process was started as a sink; otherwise returns at once
/// with `false`. To be called first in `main`.
///
/// # Errors
///
/// When no port can be had or the parent is gone.
#[expect(clippy::print_stdout, reason = "its output is how it talks to its parent")]
pub fn serve_if_asked() -> io::Result<bool> {
    if env::args().nth(1).as_deref() != Some(ARGUMENT) {
        return Ok(false);
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let receiver = runtime
        .block_on(
            Receiver::builder()
                .grpc(any)
                .http(any)
                .bind(async |_received: Received| Ok(Accepted::default())),
        )
        .map_err(io::Error::other)?;
    let addresses = receiver.grpc_address().zip(receiver.http_address());
    let (grpc, http) = addresses.ok_or_else(|| io::Error::other("both were bound"))?;
    println!("{grpc} {http}");
    for _question in io::stdin().lines() {
        let stats = receiver.stats();
        let all = [stats.grpc, stats.http];
        let spans: u64 = all.iter().map(|one| one.spans_accepted).sum();
        let wire_bytes: u64 = all.iter().map(|one| one.wire_bytes).sum();
        let requests: u64 = all.iter().map(|one| one.requests_accepted).sum();
        println!("{spans} {wire_bytes} {requests}");
    }
    Ok(true)
}
