//! `spanwire-collector`: run it in place of the OpenTelemetry Collector for traces.

mod heap;
mod stderr;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use spanwire_collector::{Collector, check, explain};
use spanwire_config::{Compat, Config, Loaded, Source};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::stderr::Log;

/// A collector for OTLP traces: wire bytes in, wire bytes out.
///
/// Without a configuration it receives OTLP on localhost, 4317 (gRPC) and 4318 (HTTP), and shows
/// the spans on this terminal.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sources: Sources,
    /// How long a shutdown may take to send what is held, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    shutdown_timeout: u64,
}

/// Where the configuration is.
#[derive(Args, Clone)]
struct Sources {
    /// A file, `env:NAME`, or `yaml:TEXT`; later ones are merged into earlier ones.
    #[arg(long, value_name = "SOURCE")]
    config: Vec<String>,
    /// Sets one value: `exporters.otlp.endpoint=backend:4317`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What to do with components and keys that are not supported.
    #[arg(long, value_enum, default_value_t = Compatibility::Strict, value_name = "HOW")]
    config_compat: Compatibility,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compatibility {
    /// They are errors.
    Strict,
    /// They are left out, and said.
    Warn,
}

#[derive(Subcommand)]
enum Command {
    /// Says what is wrong with a configuration, and starts nothing.
    Validate(Sources),
    /// Shows the configuration as it is understood, without secrets.
    PrintConfig(Sources),
    /// Shows what each pipeline does to spans, what it costs, and the memory it may take.
    Explain(Sources),
    /// Lists the components there are.
    Components,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        None => run(&arguments.sources, Duration::from_secs(arguments.shutdown_timeout)),
        Some(Command::Validate(sources)) => validate(&sources),
        Some(Command::PrintConfig(sources)) => {
            sources.load_aloud().and_then(|config| show(&spanwire_config::print(&config)))
        }
        Some(Command::Explain(sources)) => {
            sources.load_aloud().and_then(|config| show(&explain(&config)))
        }
        Some(Command::Components) => {
            let lines = spanwire_config::components().iter().map(|component| {
                let alias = component.alias.map_or_else(String::new, |alias| format!(" ({alias})"));
                format!("{:<12}{}{alias}\n", component.section, component.kind)
            });
            show(&lines.collect::<String>())
        }
    };
    outcome.unwrap_or_else(|message| {
        tell(message.trim_end());
        ExitCode::FAILURE
    })
}

/// Whoever reads only the first lines has what they want.
fn show(text: &str) -> Result<ExitCode, String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

fn tell(line: &str) {
    // There is nobody else to tell.
    let _closed = writeln!(io::stderr(), "{line}");
}

/// Makes what can be made without a socket, too: certificates are read, expressions compiled.
fn validate(sources: &Sources) -> Result<ExitCode, String> {
    let config = sources.load_aloud()?;
    config.notes.iter().for_each(|note| tell(&format!("note: {note}")));
    let runtime =
        spanwire_runtime::Builder::current_thread().build().map_err(|error| chain(&error))?;
    runtime.block_on(check(&config)).map_err(|error| chain(&error))?;
    show("valid\n")
}

impl Sources {
    fn load(&self) -> Result<Loaded, String> {
        if self.config.is_empty() && self.set.is_empty() {
            let config = Config::default_pipeline();
            return Ok(Loaded { config, warnings: Vec::new() });
        }
        let sources = self.config.iter().map(|source| source.parse::<Source>());
        let mut sources =
            sources.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        if sources.is_empty() {
            sources.push(Source::Yaml(spanwire_config::print(&Config::default_pipeline())));
        }
        let compat = match self.config_compat {
            Compatibility::Strict => Compat::Strict,
            Compatibility::Warn => Compat::Warn,
        };
        let environment = |name: &str| std::env::var(name).ok();
        Config::load(&sources, &self.set, &environment, compat).map_err(|report| report.to_string())
    }

    /// Warnings go to standard error.
    fn load_aloud(&self) -> Result<Config, String> {
        let Loaded { config, warnings, .. } = self.load()?;
        warnings.iter().for_each(|warning| tell(&warning.to_string()));
        Ok(config)
    }
}

fn run(sources: &Sources, shutdown_timeout: Duration) -> Result<ExitCode, String> {
    if let Err(error) = heap::give_back() {
        tell(&format!("the allocator may keep more than the memory limit: {error}"));
    }
    let config = sources.load_aloud()?;
    let log = Log::start(&config.service.telemetry.logs).map_err(|error| chain(&error))?;
    open_more_files();
    let runtime = spanwire_runtime::Builder::multi_thread()
        .thread_name("spanwire")
        .build()
        .map_err(|error| chain(&error))?;
    let outcome = runtime.block_on(serve(config, sources, &log, shutdown_timeout));
    // A write that hangs, to a pipe that nobody reads, must not keep the process.
    runtime.shutdown_background();
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    };
    log.flush();
    Ok(code)
}

/// Each connection is an open file, and the limit that a shell or a service manager sets at first is
/// meant for programs that cannot take more; as many as may be had are taken, as Go programs do.
fn open_more_files() {
    let limit = getrlimit(Resource::Nofile);
    // One that may not be raised stays, and decides how many connections there may be.
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn serve(
    config: Config,
    sources: &Sources,
    log: &Log,
    shutdown_timeout: Duration,
) -> Result<(), String> {
    let signals = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut hangup = signals(SignalKind::hangup())?;
    config.notes.iter().for_each(|note| tracing::info!("{note}"));
    let collector = tokio::select! {
        started = Collector::start(config) => started.map_err(|error| chain(&error))?,
        () = again(&mut terminate, &mut interrupt) => return Err("ended before it started".into()),
    };
    for (name, address) in collector.addresses() {
        tracing::info!(component = name, "listening on {address}");
    }
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => tokio::select! {
                () = reload(&collector, sources, log) => {}
                // What it has built by then is let go of.
                () = again(&mut terminate, &mut interrupt) => break,
            },
            // Failures that were only counted are told at a look.
            _ = look.tick() => drop(collector.stats()),
        }
    }
    tracing::info!("shutting down; a second signal ends it at once");
    let shutdown = tokio::select! {
        shutdown = collector.shutdown(shutdown_timeout) => shutdown,
        () = again(&mut terminate, &mut interrupt) => return Err("ended at once".into()),
    };
    match shutdown.spans_lost {
        0 => tracing::info!("shut down; no span was lost"),
        lost => tracing::error!("shut down; {lost} spans were not sent in time, and are lost"),
    }
    Ok(())
}

const LOOK: Duration = Duration::from_secs(10);

async fn again(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What cannot be had leaves everything as it is.
async fn reload(collector: &Collector, sources: &Sources, log: &Log) {
    let reading = sources.clone();
    // A file may be on a disk that is far away.
    let loaded = tokio::task::spawn_blocking(move || reading.load());
    let loaded = loaded.await.unwrap_or_else(|failed| Err(failed.to_string()));
    let outcome = match loaded {
        Ok(Loaded { config, warnings, .. }) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            config.notes.iter().for_each(|note| tracing::info!("{note}"));
            let logs = config.service.telemetry.logs.clone();
            collector.reload(config).await.map(|()| logs).map_err(|error| chain(&error))
        }
        Err(report) => Err(report),
    };
    match outcome {
        Ok(logs) => {
            log.change(&logs);
            tracing::info!("reloaded");
        }
        Err(error) => tracing::error!("not reloaded, everything runs on as before: {error}"),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
