//! The peers: what they are installed from, and how their scripts are run.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;

use crate::shell::{self, failed, succeed};

/// Longest time for a peer to do its part.
const PEER_TIME_MAX: Duration = Duration::from_secs(180);

/// What the scripts run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    JavaScript,
    /// Only where Go is on the machine, which needs it for nothing else.
    Go,
}

impl Language {
    /// The sink for what this language's SDK has sent: its own, where it has one.
    pub(super) fn sink(self) -> Self {
        match self {
            Self::Python | Self::Go => Self::Python,
            Self::JavaScript => Self::JavaScript,
        }
    }

    /// What the sink is called.
    pub(super) fn sink_name(self) -> &'static str {
        match self {
            Self::Python | Self::Go => "oteltest",
            Self::JavaScript => "mockotlpserver",
        }
    }

    /// What the SDK is called.
    pub(super) fn sdk_name(self) -> &'static str {
        match self {
            Self::Python => "opentelemetry-python",
            Self::JavaScript => "opentelemetry-js",
            Self::Go => "opentelemetry-go",
        }
    }
}

/// The installed peers, all of them in the folder `interop` of what is built.
pub(super) struct Peers {
    /// Where the scripts are.
    scripts: PathBuf,
    /// Where they are installed, and where the logs go.
    installed: PathBuf,
    has_go: bool,
}

impl Peers {
    /// Installs the pinned versions, unless that has been done.
    pub(super) fn install(root: &Path) -> Result<Self, String> {
        let peers = Self {
            scripts: root.join("interop"),
            installed: shell::target(root).join("interop"),
            has_go: shell::exists("go"),
        };
        shell::create_folder(&peers.installed.join("logs"))?;
        peers.install_python()?;
        peers.install_node()?;
        if peers.has_go {
            peers.build_go()?;
        }
        Ok(peers)
    }

    /// Why this language cannot take part, if it cannot.
    pub(super) fn without(&self, language: Language) -> Option<&'static str> {
        (language == Language::Go && !self.has_go).then_some("skipped: there is no Go")
    }

    fn install_python(&self) -> Result<(), String> {
        let (pinned, folder) =
            (self.scripts.join("requirements.txt"), self.installed.join("python"));
        if is_current(&folder, &pinned) {
            return Ok(());
        }
        eprintln!("interop: installing the Python peers of {}", pinned.display());
        let mut venv = Command::new("python3");
        succeed(venv.args(["-m", "venv", "--clear"]).arg(&folder).stdin(Stdio::null()))?;
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]).arg(&pinned);
        succeed(pip.stdin(Stdio::null()))?;
        set_current(&folder, &pinned)
    }

    fn install_node(&self) -> Result<(), String> {
        let (pinned, folder) =
            (self.scripts.join("package-lock.json"), self.installed.join("node"));
        if is_current(&folder, &pinned) {
            return Ok(());
        }
        eprintln!("interop: installing the JavaScript peers of {}", pinned.display());
        shell::create_folder(&folder)?;
        for name in ["package.json", "package-lock.json"] {
            fs::copy(self.scripts.join(name), folder.join(name))
                .map_err(|error| error.to_string())?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        succeed(npm.current_dir(&folder).stdin(Stdio::null()))?;
        set_current(&folder, &pinned)
    }

    /// A file among the logs.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.installed.join("logs").join(name)
    }

    /// Go itself knows what is current.
    fn build_go(&self) -> Result<(), String> {
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(self.go()).arg(".").current_dir(self.scripts.join("go"));
        succeed(go.stdin(Stdio::null()))
    }

    fn go(&self) -> PathBuf {
        self.installed.join("go").join("send")
    }

    fn python(&self) -> PathBuf {
        self.installed.join("python").join("bin").join("python")
    }

    /// Starts a script with its standard error in a log.
    pub(super) fn start<S: AsRef<OsStr>>(
        &self,
        language: Language,
        script: &str,
        arguments: &[S],
    ) -> Result<Peer, String> {
        let mut command = match language {
            Language::Python => {
                let mut python = Command::new(self.python());
                // The scripts' folder stays free of compiled ones.
                python.arg("-B").arg(self.scripts.join(script).with_extension("py"));
                python
            }
            Language::JavaScript => {
                let mut node = Command::new("node");
                node.env("NODE_PATH", self.installed.join("node").join("node_modules"));
                node.arg(self.scripts.join(script).with_extension("js"));
                node
            }
            // It has one script, which sends.
            Language::Go => Command::new(self.go()),
        };
        let log = self.log(&format!("{language:?}-{script}.log"));
        let errors = File::create(&log).map_err(|error| failed(&log, &error))?;
        shell::without_telemetry_settings(&mut command);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child =
            command.spawn().map_err(|error| failed(Path::new(command.get_program()), &error))?;
        let output = child.stdout.take().ok_or("no output to read")?;
        let (sender, lines) = mpsc::sync_channel(LINES_WAITING_MAX);
        // On a thread, so that there is a time limit to waiting for a line.
        thread::spawn(move || {
            BufReader::new(output).lines().try_for_each(|line| sender.send(line))
        });
        Ok(Peer { child, lines, log })
    }
}

/// Lines of a peer that nobody has looked at yet.
const LINES_WAITING_MAX: usize = 64;

/// A script that runs. Dropped before it has ended, it is killed.
pub(super) struct Peer {
    child: Child,
    lines: mpsc::Receiver<io::Result<String>>,
    log: PathBuf,
}

impl Peer {
    /// The next line it prints; `None` at the end of its output.
    pub(super) fn line(&mut self) -> Result<Option<Json>, String> {
        match self.lines.recv_timeout(PEER_TIME_MAX) {
            Ok(line) => line
                .and_then(|line| Ok(serde_json::from_str(&line)?))
                .map(Some)
                .map_err(|error| self.trouble(&error.to_string())),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(self.trouble("it takes too long")),
        }
    }

    /// Ends its standard input, waits for its end and returns what it has printed since.
    pub(super) fn finish(mut self) -> Result<Vec<Json>, String> {
        drop(self.child.stdin.take());
        let mut documents = Vec::new();
        while let Some(document) = self.line()? {
            documents.push(document);
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(documents),
            Ok(status) => Err(self.trouble(&status.to_string())),
            Err(error) => Err(self.trouble(&error.to_string())),
        }
    }

    fn trouble(&self, what: &str) -> String {
        format!("the peer's script failed: {what}; see {}", self.log.display())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail where it has ended.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Whether a folder was installed from this file as it is now.
fn is_current(folder: &Path, pinned: &Path) -> bool {
    let installed = fs::read(folder.join(INSTALLED)).ok();
    installed.is_some() && installed == fs::read(pinned).ok()
}

fn set_current(folder: &Path, pinned: &Path) -> Result<(), String> {
    fs::copy(pinned, folder.join(INSTALLED)).map(drop).map_err(|error| error.to_string())
}

/// A copy of the file that a folder was installed from, written once it was.
const INSTALLED: &str = "installed-from";
