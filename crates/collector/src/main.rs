//! `spanwire-collector`: run it in place of the OpenTelemetry Collector for traces.

mod heap;
mod stderr;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use spanwire_collector::{
    Collector, Shutdown, StartError, chain, check, explain, memory_limit, notes,
};
use spanwire_config::{Compat, Config, Diagnostic, Loaded, Places, Report, Source};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::stderr::Log;

/// A collector for OTLP traces: wire bytes in, wire bytes out.
///
/// Without a configuration it receives OTLP on localhost, 4317 (gRPC) and 4318 (HTTP), and shows
/// the spans on this terminal.
#[derive(Parser)]
#[command(version)]
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
    /// What to do with components and keys of the OpenTelemetry Collector that are not supported.
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
    let Arguments { command, sources, shutdown_timeout } = Arguments::parse();
    let outcome = match command {
        None => run(&sources, Duration::from_secs(shutdown_timeout)),
        Some(Command::Validate(more)) => validate(&sources.and(more)),
        Some(Command::PrintConfig(more)) => {
            let loaded = sources.and(more).load_aloud();
            loaded.and_then(|loaded| show(&spanwire_config::print(&loaded.config)))
        }
        Some(Command::Explain(more)) => {
            let loaded = sources.and(more).load_aloud();
            loaded.and_then(|loaded| show(&explain(&loaded.config)))
        }
        Some(Command::Components) => {
            let lines = spanwire_config::components().iter().map(|component| {
                let alias = component.alias.map_or_else(String::new, |alias| format!(" ({alias})"));
                let name = format!("{}{alias}", component.kind);
                format!("{:<12}{name:<24}{}\n", component.section, component.stability)
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
    let Loaded { config, places, .. } = sources.load_aloud()?;
    config.notes.iter().chain(&notes(&config)).for_each(|note| tell(&format!("note: {note}")));
    let runtime =
        spanwire_runtime::Builder::current_thread().build().map_err(|error| failed(&error))?;
    let found = runtime.block_on(check(&config));
    match found.is_empty() {
        true => show("valid\n"),
        false => Err(report(&places, &found).to_string()),
    }
}

/// What shows when parts are made, as what shows when the configuration is read.
fn report(places: &Places, found: &[StartError]) -> Report {
    found.iter().map(|error| places.error(error.setting(), chain(error), error.help())).collect()
}

/// A warning in the one line that it has in a log.
fn in_one_line(warning: &Diagnostic) -> String {
    let at = warning.location();
    let at = at.map(|at| format!(" ({}:{}:{})", at.file, at.line, at.column));
    let help = warning.help().map(|help| format!("; {help}"));
    [warning.message(), &at.unwrap_or_default(), &help.unwrap_or_default()].concat()
}

impl Sources {
    fn load(&self) -> Result<Loaded, String> {
        if self.config.is_empty() && self.set.is_empty() {
            let config = Config::default_pipeline();
            return Ok(Loaded { config, warnings: Vec::new(), places: Places::default() });
        }
        let sources = self.config.iter().map(|source| source.parse::<Source>());
        let mut sources = sources.collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
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

    /// What a log may say of them: text and values may hold secrets.
    fn named(&self) -> String {
        let names = self.config.iter().map(|source| match source.starts_with("yaml:") {
            true => "yaml:...",
            false => source,
        });
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        if names.is_empty() {
            names.push("built in".to_owned());
        }
        if !self.set.is_empty() {
            names.push(format!("{} by --set", self.set.len()));
        }
        names.join(", ")
    }

    /// Warnings go to standard error, each with an empty line after it as in a report.
    fn load_aloud(&self) -> Result<Loaded, String> {
        let loaded = self.load()?;
        loaded.warnings.iter().for_each(|warning| tell(&format!("{warning}\n")));
        Ok(loaded)
    }

    /// Those before the name of a command, and those after it.
    fn and(mut self, more: Self) -> Self {
        self.config.extend(more.config);
        self.set.extend(more.set);
        if more.config_compat == Compatibility::Warn {
            self.config_compat = more.config_compat;
        }
        self
    }
}

fn run(sources: &Sources, shutdown_timeout: Duration) -> Result<ExitCode, String> {
    if let Err(error) = heap::give_back() {
        tell(&format!("the allocator may keep more than the memory limit: {error}"));
    }
    let loaded = sources.load()?;
    let log = Log::start(&loaded.config.service.telemetry.logs).map_err(|error| failed(&error))?;
    open_more_files();
    let runtime = spanwire_runtime::Builder::multi_thread()
        .thread_name("spanwire")
        .build()
        .map_err(|error| failed(&error))?;
    let outcome = runtime.block_on(serve(loaded, sources, &log, shutdown_timeout));
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
    Loaded { config, warnings, places }: Loaded,
    sources: &Sources,
    log: &Log,
    shutdown_timeout: Duration,
) -> Result<(), String> {
    let signals = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut hangup = signals(SignalKind::hangup())?;
    let mib = memory_limit(&config) as f64 / f64::from(1 << 20);
    tracing::info!(
        configuration = sources.named(),
        memory_limit_mib = (mib * 10.0).round() / 10.0,
        "spanwire-collector {} starts",
        env!("CARGO_PKG_VERSION")
    );
    tell_in_log(&config, &warnings);
    let started = tokio::select! {
        started = start(config) => started,
        () = again(&mut terminate, &mut interrupt) => return Err("ended before it started".into()),
    };
    let collector = started.map_err(|found| {
        // Over several lines, for a person, after what was logged before it.
        log.flush();
        tell(&report(&places, &found).to_string());
        "not started"
    })?;
    drop(places);
    for (name, address) in collector.addresses() {
        tracing::info!(component = name, "listening on {address}");
    }
    tracing::info!("ready");
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
    let mut is_cut_short = false;
    let at_once = async {
        again(&mut terminate, &mut interrupt).await;
        is_cut_short = true;
    };
    let report = collector.shutdown_or(shutdown_timeout, at_once).await;
    let end = if is_cut_short { "ended at once" } else { "shut down" };
    let end = format!("{end}; {}", unsent(report));
    if is_cut_short || report.spans_lost > 0 {
        return Err(end);
    }
    tracing::info!("{end}");
    Ok(())
}

/// What became of the spans that were not sent.
fn unsent(report: Shutdown) -> String {
    let Shutdown { spans_lost: lost, spans_unacknowledged: kept, .. } = report;
    let kept_by_senders =
        format!("{kept} spans were not sent, which their senders know and have still");
    match (lost, kept) {
        (0, 0) => "all spans that were held are sent".to_owned(),
        (_, 0) => format!("{lost} spans were not sent, and are lost"),
        (0, _) => kept_by_senders,
        _ => format!("{lost} spans were not sent, and are lost; {kept_by_senders}"),
    }
}

/// Everything that is wrong and shows without a socket, or the first thing that shows with one.
async fn start(config: Config) -> Result<Collector, Vec<StartError>> {
    let found = check(&config).await;
    if !found.is_empty() {
        return Err(found);
    }
    Collector::start(config).await.map_err(|error| vec![error])
}

/// What is not as the configuration says.
fn tell_in_log(config: &Config, warnings: &[Diagnostic]) {
    warnings.iter().for_each(|warning| tracing::warn!("{}", in_one_line(warning)));
    config.notes.iter().for_each(|note| tracing::info!("{note}"));
    notes(config).iter().for_each(|note| tracing::warn!("{note}"));
}

/// What is only looked at is told as soon; each part sees to it that it does not say too much.
const LOOK: Duration = Duration::from_secs(1);

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
        Ok(Loaded { config, warnings, places }) => {
            tell_in_log(&config, &warnings);
            let logs = config.service.telemetry.logs.clone();
            match collector.reload(config.clone()).await {
                Ok(()) => Ok(logs),
                // Whoever has to look at the file once more shall see all that is wrong in it. Asked
                // only now, as what stays as it is may be what could not be made again.
                Err(error) => {
                    let mut found = check(&config).await;
                    if !found.iter().any(|other| other.to_string() == error.to_string()) {
                        found.insert(0, error);
                    }
                    Err(report(&places, &found).to_string())
                }
            }
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

/// An error that is the configuration's no more than the machine's.
fn failed(error: &dyn std::error::Error) -> String {
    format!("error: {}", chain(error))
}
