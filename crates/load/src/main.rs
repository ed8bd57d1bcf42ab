//! The command `spanwire-load`; what it does is in the library.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod progress;

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use spanwire_load::{
    Addresses, Load, ReceiverProcess, Report, Run, Settings, Stop, serve_if_asked,
};
use spanwire_transport::Protocol;

use crate::progress::Bar;

/// Sends OTLP spans at a fixed rate, whatever the answers do, and accounts for each of them.
#[derive(Parser)]
#[command(name = "spanwire-load", version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// The OTLP receiver to load, as http://localhost:4317; HTTP appends v1/traces. By default a
    /// receiver of its own, in a process of its own.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Receives here, over gRPC, what the target forwards, so that lost and duplicated spans are
    /// known.
    #[arg(long, value_name = "HOST:PORT", requires = "endpoint")]
    sink: Option<SocketAddr>,
    /// The same over HTTP.
    #[arg(long, value_name = "HOST:PORT", requires = "endpoint")]
    sink_http: Option<SocketAddr>,
    /// The target's process on this machine, of which CPU and memory are measured. Its counter of
    /// peak memory begins anew where that is permitted.
    #[arg(long, requires = "endpoint")]
    pid: Option<u32>,
    /// Prints the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let outcome = match serve_if_asked() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => run(Arguments::parse()),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(report) => match report.verdict() {
            Ok(()) => ExitCode::SUCCESS,
            Err(verdict) => {
                eprintln!("spanwire-load: {verdict}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            let causes = std::iter::successors(error.source(), |&error| error.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            eprintln!("spanwire-load: {error}{causes}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<Report, Box<dyn Error>> {
    let Arguments { settings, endpoint, sink, sink_http, pid, json } = arguments;
    let run = Run::random();
    let bar = Bar::new(settings.warm_up + settings.duration);
    let load = match endpoint {
        Some(endpoint) => {
            let mut load = Load::new(settings, run, endpoint);
            if let Some(pid) = pid {
                load = load.target(pid);
            }
            let addresses = Addresses { grpc: sink, http: sink_http };
            if addresses != Addresses::default() {
                load = load.arrivals(ReceiverProcess::spawn(&env::current_exe()?, run, addresses)?);
            }
            load
        }
        None => {
            let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            let addresses = Addresses { grpc: any, http: any };
            let receiver = ReceiverProcess::spawn(&env::current_exe()?, run, addresses)?;
            let Addresses { grpc, http } = receiver.addresses();
            let address = if settings.protocol == Protocol::Grpc { grpc } else { http };
            let address = address.ok_or("the receiver has no address")?;
            let pid = receiver.pid();
            let load = Load::new(settings, run, format!("http://{address}")).arrivals(receiver);
            // Elsewhere there is no /proc to read it in.
            if cfg!(target_os = "linux") { load.target(pid) } else { load }
        }
    };
    let stop = stop_on_interrupts()?;
    let report = load.run(&stop, |progress| bar.show(progress));
    bar.finish();
    let report = report?;
    if json {
        println!("{:#}", report.json());
    } else {
        print!("{report}");
    }
    Ok(report)
}

/// A [`Stop`] that each Ctrl-C stops.
fn stop_on_interrupts() -> std::io::Result<Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = Stop::default();
    let on_interrupt = stop.clone();
    std::thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                on_interrupt.stop();
            }
        });
    })?;
    Ok(stop)
}
