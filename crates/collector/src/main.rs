//! `spanwire-collector`: run it in place of the OpenTelemetry Collector for traces.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use spanwire_collector::{Collector, explain};
use spanwire_config::{Compat, Config, Level, Loaded, LogEncoding, Logs, Source};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
        Some(Command::Validate(sources)) => sources.load().map(|_| println!("valid")),
        Some(Command::PrintConfig(sources)) => {
            sources.load().map(|config| print!("{}", spanwire_config::print(&config)))
        }
        Some(Command::Explain(sources)) => {
            sources.load().map(|config| print!("{}", explain(&config)))
        }
        Some(Command::Components) => {
            for component in spanwire_config::components() {
                let alias = component.alias.map_or_else(String::new, |alias| format!(" ({alias})"));
                println!("{:<12}{}{alias}", component.section, component.kind);
            }
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

impl Sources {
    /// Warnings go to standard error.
    fn load(&self) -> Result<Config, String> {
        if self.config.is_empty() && self.set.is_empty() {
            return Ok(Config::default_pipeline());
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
        let Loaded { config, warnings, .. } =
            Config::load(&sources, &self.set, &environment, compat)
                .map_err(|report| report.to_string())?;
        for warning in warnings {
            eprintln!("{warning}");
        }
        Ok(config)
    }
}

fn log(logs: &Logs) {
    let level = match logs.level {
        Level::Debug => tracing::Level::DEBUG,
        Level::Info => tracing::Level::INFO,
        Level::Warn => tracing::Level::WARN,
        Level::Error => tracing::Level::ERROR,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match logs.encoding {
        LogEncoding::Console => lines.with_target(false).init(),
        LogEncoding::Json => lines.json().flatten_event(true).init(),
    }
}

fn run(sources: &Sources, shutdown_timeout: Duration) -> Result<(), String> {
    let config = sources.load()?;
    log(&config.service.telemetry.logs);
    let runtime = spanwire_runtime::Builder::multi_thread()
        .thread_name("spanwire")
        .build()
        .map_err(|error| chain(&error))?;
    let workers = workers().map_err(|error| chain(&error))?;
    runtime.block_on(serve(config, workers, sources, shutdown_timeout))
}

/// A runtime of one thread for each processor, for the connections of senders. They run until the
/// process ends.
fn workers() -> io::Result<Vec<Handle>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (0..processors)
        .map(|number| {
            let runtime = spanwire_runtime::Builder::current_thread().build()?;
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name(format!("spanwire-in-{number}"))
                .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
            Ok(handle)
        })
        .collect()
}

async fn serve(
    config: Config,
    workers: Vec<Handle>,
    sources: &Sources,
    shutdown_timeout: Duration,
) -> Result<(), String> {
    let signals = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut hangup = signals(SignalKind::hangup())?;
    let collector = Collector::start_with(config, workers).await.map_err(|error| chain(&error))?;
    for (name, address) in collector.addresses() {
        tracing::info!(component = name, "listening on {address}");
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&collector, sources).await,
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

async fn again(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What cannot be had leaves everything as it is.
async fn reload(collector: &Collector, sources: &Sources) {
    let outcome = match sources.load() {
        Ok(config) => collector.reload(config).await.map_err(|error| chain(&error)),
        Err(report) => Err(report),
    };
    match outcome {
        Ok(()) => tracing::info!("reloaded"),
        Err(error) => tracing::error!("not reloaded, everything runs on as before: {error}"),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
