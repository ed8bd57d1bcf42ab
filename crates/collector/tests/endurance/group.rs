//! A control group with a limit of memory, as a container has one: beyond it the system kills.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::command;

/// A group that is there until it is dropped, which is to come after the end of what runs in it.
pub(crate) struct Group {
    path: PathBuf,
    version: &'static Version,
}

/// What the files of a group are called. Source: cgroup-v1/memory.rst and cgroup-v2.rst of the Linux
/// kernel's documentation.
struct Version {
    root: &'static str,
    limit: &'static str,
    peak: &'static str,
    /// Where a line `oom_kill` has the number of processes killed.
    kills: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        peak: "memory.max_usage_in_bytes",
        kills: "memory.oom_control",
    },
    Version {
        root: "/sys/fs/cgroup",
        limit: "memory.max",
        peak: "memory.peak",
        kills: "memory.events",
    },
];

impl Group {
    /// # Errors
    ///
    /// It may not be made, which needs root's rights and a system that lets go of them.
    pub(crate) fn new(bytes_max: u64) -> io::Result<Self> {
        let version = VERSIONS.iter().find(|version| Path::new(version.root).is_dir());
        let version = version.ok_or(io::ErrorKind::NotFound)?;
        let path = Path::new(version.root).join(format!("spanwire-{}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Self { path, version };
        // Without the controller it is a folder like others.
        fs::metadata(group.path.join("cgroup.procs"))?;
        fs::write(group.path.join(version.limit), bytes_max.to_string())?;
        Ok(group)
    }

    /// The binary with these arguments, in this group from its first instruction on.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let collector = command(arguments);
        let mut within = Command::new("sh");
        let enter = format!("echo $$ >'{}/cgroup.procs' && exec \"$@\"", self.path.display());
        within.args(["-c", &enter, "sh"]).arg(collector.get_program()).args(collector.get_args());
        within
    }

    /// The most that all of it took, the system's buffers included, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.read(self.version.peak).trim().parse().expect("a number")
    }

    pub(crate) fn kills(&self) -> u64 {
        let kills = self.read(self.version.kills);
        let line = kills.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|kills| kills.trim().parse().ok()).expect("a number")
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).expect("a file of the group")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that stays is empty, and holds nothing.
        let _removed = fs::remove_dir(&self.path);
    }
}
