//! Where spans arrive: this process, or a receiver in one of its own.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use spanwire_receiver::{Accepted, Received, Receiver, Refusal};

use crate::ledger::{Arrived, Ledger};
use crate::template::Run;

/// Knows which spans of a run arrived.
pub trait Arrivals {
    /// What arrived so far.
    ///
    /// # Errors
    ///
    /// Where the ledger is elsewhere and can no longer be asked.
    fn arrived(&mut self) -> io::Result<Arrived>;

    /// The numbers of those among the first `spans` spans that did not arrive.
    ///
    /// # Errors
    ///
    /// As [`arrived`](Self::arrived).
    fn missing(&mut self, spans: u64) -> io::Result<Vec<Range<u64>>>;
}

impl Arrivals for Arc<Mutex<Ledger>> {
    fn arrived(&mut self) -> io::Result<Arrived> {
        Ok(self.lock().unwrap_or_else(PoisonError::into_inner).arrived())
    }

    fn missing(&mut self, spans: u64) -> io::Result<Vec<Range<u64>>> {
        Ok(self.lock().unwrap_or_else(PoisonError::into_inner).missing(spans))
    }
}

/// Where a receiver listens; port 0 lets the system choose one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For OTLP/gRPC, if it is served.
    pub grpc: Option<SocketAddr>,
    /// For OTLP/HTTP, if it is served.
    pub http: Option<SocketAddr>,
}

/// A receiver with a ledger in a process of its own, so that its CPU and memory are not counted as
/// the generator's, nor the other way round. It ends when this is dropped.
///
/// Parent and child talk in lines over pipes.
#[derive(Debug)]
pub struct ReceiverProcess {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    addresses: Addresses,
}

impl ReceiverProcess {
    /// Runs `program`, which must call [`serve_if_asked`] first of all, as the receiver of `run`.
    ///
    /// # Errors
    ///
    /// When the program cannot be run or an address cannot be bound; the child has told the reason
    /// on standard error then.
    pub fn spawn(program: &Path, run: Run, addresses: Addresses) -> io::Result<Self> {
        let mut command = Command::new(program);
        let words = [addresses.grpc, addresses.http].map(word);
        command.arg(ARGUMENT).arg(run.number().to_string()).args(words);
        // Apart from the terminal's signals: it has to tell what arrived after an interrupt.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let piped = child.stdin.take().zip(child.stdout.take());
        let (ask, answers) = piped.ok_or_else(|| io::Error::other("a pipe was asked for"))?;
        let answers = BufReader::new(answers);
        let mut process = Self { child, ask: Some(ask), answers, addresses };
        let line = process.line()?;
        let [grpc, http] = words_of(&line)?;
        process.addresses = Addresses { grpc: address(grpc)?, http: address(http)? };
        Ok(process)
    }

    /// Where it listens, with the ports the system chose.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        if let Some(ask) = &mut self.ask {
            writeln!(ask, "{question}")?;
        }
        self.line()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the receiver's process ended"));
        }
        Ok(line)
    }
}

impl Arrivals for ReceiverProcess {
    fn arrived(&mut self) -> io::Result<Arrived> {
        let line = self.ask(ARRIVED)?;
        let [distinct, duplicated, unknown] = words_of(&line)?;
        let (distinct, duplicated) = (number(distinct)?, number(duplicated)?);
        Ok(Arrived { distinct, duplicated, unknown: number(unknown)? })
    }

    fn missing(&mut self, spans: u64) -> io::Result<Vec<Range<u64>>> {
        let line = self.ask(&format!("{MISSING} {spans}"))?;
        let range = |word: &str| {
            let (from, to) = word.split_once('-').ok_or_else(|| confused(word))?;
            Ok(number(from)?..number(to)?)
        };
        line.split_whitespace().map(range).collect()
    }
}

impl Drop for ReceiverProcess {
    fn drop(&mut self) {
        // The end of its input ends it; a child that is gone already is no matter.
        self.ask = None;
        let _gone = self.child.wait();
    }
}

/// Serves as a receiver until the input ends, if this process was started as one; otherwise returns
/// at once with `false`. To be called before anything else looks at the arguments.
///
/// # Errors
///
/// When an address cannot be bound or the parent talks nonsense.
#[expect(clippy::print_stdout, reason = "its output is how it talks to its parent")]
pub fn serve_if_asked() -> io::Result<bool> {
    // What is not UTF-8 is for somebody else.
    let arguments = std::env::args_os().skip(1).take(4).map(|word| word.into_string().ok());
    let Some(arguments) = arguments.collect::<Option<Vec<String>>>() else { return Ok(false) };
    let [argument, run, grpc, http] = &arguments[..] else { return Ok(false) };
    if argument != ARGUMENT {
        return Ok(false);
    }
    let ledger = Arc::new(Mutex::new(Ledger::new(Run::new(number(run)?))));
    let addresses = Addresses { grpc: address(grpc)?, http: address(http)? };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(half_of_the_cores())
        .enable_all()
        .build()?;
    let receiver = runtime.block_on(receive(addresses, Arc::clone(&ledger)))?;
    let bound = [receiver.grpc_address(), receiver.http_address()].map(word);
    println!("{}", bound.join(" "));
    for question in io::stdin().lines() {
        let question = question?;
        // Only while the ledger is looked at: the parent may be slow to read, and spans arrive.
        let ledger = || ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match question.split_once(' ') {
            None if question == ARRIVED => {
                let Arrived { distinct, duplicated, unknown } = ledger().arrived();
                format!("{distinct} {duplicated} {unknown}")
            }
            Some((MISSING, spans)) => {
                let missing = ledger().missing(number(spans)?);
                let range = |range: &Range<u64>| format!("{}-{}", range.start, range.end);
                missing.iter().map(range).collect::<Vec<_>>().join(" ")
            }
            _ => return Err(confused(&question)),
        };
        println!("{answer}");
    }
    Ok(true)
}

/// A receiver whose sink enters all spans before it answers.
async fn receive(addresses: Addresses, ledger: Arc<Mutex<Ledger>>) -> io::Result<Receiver> {
    let mut builder = Receiver::builder();
    if let Some(address) = addresses.grpc {
        builder = builder.grpc(address);
    }
    if let Some(address) = addresses.http {
        builder = builder.http(address);
    }
    let sink = move |received: Received| {
        let entered =
            ledger.lock().unwrap_or_else(PoisonError::into_inner).enter(&received.request);
        std::future::ready(match entered {
            Ok(()) => Ok(Accepted::default()),
            Err(malformed) => Err(Refusal::Invalid { message: malformed.to_string() }),
        })
    };
    builder.bind(sink).await.map_err(|error| io::Error::other(crate::tally::chain(&error)))
}

/// Generator and receiver share a machine with each other, and often with a target.
pub(crate) fn half_of_the_cores() -> usize {
    (available_parallelism().map_or(1, usize::from) / 2).max(1)
}

fn word(address: Option<SocketAddr>) -> String {
    address.map_or(NONE.to_owned(), |address| address.to_string())
}

fn address(word: &str) -> io::Result<Option<SocketAddr>> {
    match word {
        NONE => Ok(None),
        word => word.parse().map(Some).map_err(|_| confused(word)),
    }
}

fn words_of<const N: usize>(line: &str) -> io::Result<[&str; N]> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.try_into().map_err(|_| confused(line))
}

fn number(word: &str) -> io::Result<u64> {
    word.parse().map_err(|_| confused(word))
}

fn confused(words: &str) -> io::Error {
    io::Error::other(format!("generator and receiver do not understand each other: {words:?}"))
}

/// The first argument of a process that is to be a receiver.
const ARGUMENT: &str = "--as-receiver-of-run";
/// An address that is not served.
const NONE: &str = "-";
const ARRIVED: &str = "arrived";
const MISSING: &str = "missing";
