//! A `spanwire-collector` in a process of its own: what is measured, and met by peers, is the binary
//! that people run.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::{self, failed, succeed};

/// Ended and killed, where it still runs, when this is dropped.
pub(crate) struct Collector {
    process: Child,
    /// What it says, which is where it tells its addresses.
    log: PathBuf,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Collector {
    /// A receiver `otlp` for both protocols, on ports that the system chooses.
    pub(crate) const RECEIVERS: &str = "receivers: { otlp: { protocols: { \
        grpc: { endpoint: 127.0.0.1:0 }, http: { endpoint: 127.0.0.1:0 } } } }\n";

    /// Starts it with a configuration that has [`RECEIVERS`](Self::RECEIVERS), and waits until it
    /// listens.
    pub(crate) fn start(binary: &Path, config: &str, log: &Path) -> Result<Self, String> {
        let said = File::create(log).map_err(|error| failed(log, &error))?;
        let mut command = Command::new(binary);
        shell::without_telemetry_settings(&mut command);
        let mut process = command
            // An instrumented one is to write its profile where it was built to.
            .env_remove("LLVM_PROFILE_FILE")
            .args(["--config", &format!("yaml:{config}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .map_err(|error| failed(binary, &error))?;
        match listening(&mut process, log) {
            Ok([grpc, http]) => Ok(Self { process, log: log.to_owned(), grpc, http }),
            Err(error) => {
                let ended = process.kill().and_then(|()| process.wait());
                let ended = ended.map_or_else(|error| error.to_string(), |end| end.to_string());
                Err(format!("the collector {error} ({ended}); it said\n{}", tail(log)))
            }
        }
    }

    pub(crate) const fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    pub(crate) const fn http(&self) -> SocketAddr {
        self.http
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end, which is to send what it holds, and waits for that.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        let pid = self.pid().to_string();
        succeed(Command::new("kill").args(["-TERM", &pid]))?;
        match ended(&mut self.process, Instant::now() + ENDING_MAX)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                Err(format!("the collector ended with {status}; it said\n{}", tail(&self.log)))
            }
            None => Err(format!("the collector does not end; it said\n{}", tail(&self.log))),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Both fail where it has ended.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// Its addresses for gRPC and HTTP, once it has told both.
fn listening(process: &mut Child, log: &Path) -> Result<[SocketAddr; 2], String> {
    let until = Instant::now() + STARTING_MAX;
    while Instant::now() < until {
        let said = fs::read_to_string(log).map_err(|error| failed(log, &error))?;
        if let (Some(grpc), Some(http)) = (address(&said, "grpc"), address(&said, "http")) {
            return Ok([grpc, http]);
        }
        if ended(process, Instant::now() + LOOK)?.is_some() {
            return Err("ended before it listened".to_owned());
        }
    }
    Err("does not listen".to_owned())
}

/// Where it says that its receiver of this protocol listens.
fn address(said: &str, protocol: &str) -> Option<SocketAddr> {
    let component = format!("component=\"otlp {protocol}\"");
    // A line that is being written has no end yet.
    let whole = &said[..said.rfind('\n')?];
    let line = whole.lines().find(|line| line.contains(&component))?;
    let (_, address) = line.split_once("listening on ")?;
    address.split(' ').next()?.parse().ok()
}

/// How the process ended; `None` if it has not by then.
fn ended(process: &mut Child, until: Instant) -> Result<Option<ExitStatus>, String> {
    loop {
        let status = process.try_wait().map_err(|error| format!("the collector: {error}"))?;
        if status.is_some() || Instant::now() >= until {
            return Ok(status);
        }
        thread::sleep(LOOK);
    }
}

fn tail(log: &Path) -> String {
    let said = fs::read_to_string(log).unwrap_or_default();
    shell::tail(&said)
}

/// Longest time until it listens.
const STARTING_MAX: Duration = Duration::from_secs(20);

/// Longest time until it has ended: what it gives itself, and some.
const ENDING_MAX: Duration = Duration::from_secs(40);

/// How often is looked. Whoever is measured meanwhile does not see it.
const LOOK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_whole_lines() {
        let said = "2026-11-22T00:13:36Z  INFO listening on 127.0.0.1:44757 component=\"otlp grpc\"\n\
                    2026-11-22T00:13:36Z  INFO listening on 127.0.0.1:4594 component=\"otlp http\"";
        assert_eq!(address(said, "grpc"), Some(SocketAddr::from(([127, 0, 0, 1], 44_757))));
        assert_eq!(address(said, "http"), None, "the line may go on");
        let whole = format!("{said}\n");
        assert_eq!(address(&whole, "http"), Some(SocketAddr::from(([127, 0, 0, 1], 4_594))));
    }

    #[test]
    fn a_collector_that_does_not_start_is_shown_with_what_it_said() {
        let log = std::env::temp_dir().join(format!("xtask-no-start-{}.log", std::process::id()));
        // It takes the configuration for its own options.
        let error = Collector::start(Path::new("ls"), "receivers: {}", &log).err();
        let error = error.expect("this is no collector");
        assert!(error.contains("ended before it listened"), "{error}");
        assert!(error.contains("config"), "{error}");
        fs::remove_file(&log).expect("was written");
    }
}
