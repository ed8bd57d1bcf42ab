//! The figures in the repository, and what they were made with.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::shell::output;

/// Figures of the hot paths and what they were made with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) environment: Environment,
    pub(super) paths: Vec<PathFigures>,
}

/// What else than the code decides how many instructions there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Environment {
    /// The compiler, by its release and commit, with the platform.
    pub(super) rustc: String,
    /// The C library, whose copies and allocator are counted too.
    pub(super) libc: String,
    /// What the kernel keeps time by: only where it is `tsc` are spans timed without a call.
    pub(super) clock: String,
}

/// One hot path. All figures are of one run, which handles a thousand spans.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PathFigures {
    pub(super) name: String,
    /// `None` where there was nothing to count them with.
    pub(super) instructions: Option<u64>,
    pub(super) allocations: u64,
    pub(super) bytes: u64,
}

impl Environment {
    /// That of this machine; what cannot be found out is `unknown`.
    pub(super) fn here(root: &Path) -> Self {
        let unknown = || "unknown".to_owned();
        let rustc = output(Command::new("rustc").arg("-vV").current_dir(root));
        let libc = output(Command::new("getconf").arg("GNU_LIBC_VERSION"));
        let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let trimmed = |text: String| text.trim().to_owned();
        Self {
            rustc: rustc.ok().as_deref().and_then(compiler).unwrap_or_else(unknown),
            libc: libc.map_or_else(|_| unknown(), trimmed),
            clock: fs::read_to_string(clock).map_or_else(|_| unknown(), trimmed),
        }
    }
}

/// Release, commit and platform out of `rustc -vV`.
fn compiler(version: &str) -> Option<String> {
    let mut lines = version.lines();
    let release = lines.next()?;
    let host = lines.find_map(|line| line.strip_prefix("host: "))?;
    Some(format!("{release} for {host}"))
}

impl Kept {
    pub(super) fn to_json(&self) -> String {
        let Environment { rustc, libc, clock } = &self.environment;
        let paths: Vec<Value> = self.paths.iter().map(PathFigures::to_value).collect();
        let all = json!({
            "made with": { "rustc": rustc, "libc": libc, "clock": clock },
            "each path": "instructions, allocations and allocated bytes of one run",
            "paths": paths,
        });
        format!("{all:#}\n")
    }

    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let all: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let made_with = |name: &str| {
            let word = all["made with"][name].as_str().map(str::to_owned);
            word.ok_or_else(|| format!("\"made with\" has no {name:?}"))
        };
        let environment = Environment {
            rustc: made_with("rustc")?,
            libc: made_with("libc")?,
            clock: made_with("clock")?,
        };
        let paths = all["paths"].as_array().ok_or("\"paths\" is no list")?.iter().map(|path| {
            let figures = PathFigures::from_value(path);
            figures.filter(|path| path.instructions.is_some()).ok_or_else(|| path.to_string())
        });
        Ok(Self { environment, paths: paths.collect::<Result<_, _>>()? })
    }

    /// The figures for people.
    pub(super) fn table(&self) -> String {
        let head = ["path", "instructions", "allocations", "bytes"];
        let mut table = format!("{:<32} {:>14} {:>12} {:>10}", head[0], head[1], head[2], head[3]);
        for PathFigures { name, instructions, allocations, bytes } in &self.paths {
            let instructions = instructions.map_or_else(String::new, |count| count.to_string());
            // Writing to a string does not fail.
            let _ok =
                write!(table, "\n{name:<32} {instructions:>14} {allocations:>12} {bytes:>10}");
        }
        table
    }
}

impl PathFigures {
    fn to_value(&self) -> Value {
        let Self { name, instructions, allocations, bytes } = self;
        json!({
            "name": name,
            "instructions": instructions,
            "allocations": allocations,
            "bytes": bytes,
        })
    }

    pub(super) fn from_value(value: &Value) -> Option<Self> {
        Some(Self {
            name: value["name"].as_str()?.to_owned(),
            instructions: value["instructions"].as_u64(),
            allocations: value["allocations"].as_u64()?,
            bytes: value["bytes"].as_u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_was_written() {
        let kept = Kept {
            environment: Environment::here(Path::new(env!("CARGO_MANIFEST_DIR"))),
            paths: vec![PathFigures {
                name: "read_1000_spans: check".to_owned(),
                instructions: Some(1_527_045),
                allocations: 3,
                bytes: 4_096,
            }],
        };
        assert_eq!(Kept::from_json(&kept.to_json()), Ok(kept));
    }

    #[test]
    fn a_kept_path_without_instructions_is_refused() {
        let text = r#"{"made with": {"rustc": "1", "libc": "2", "clock": "tsc"},
                       "paths": [{"name": "a", "allocations": 0, "bytes": 0}]}"#;
        let error = Kept::from_json(text).expect_err("nothing to compare with");
        assert!(error.contains("\"a\""), "{error}");
    }

    #[test]
    fn a_compiler_is_its_release_and_platform() {
        let version =
            "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n";
        let expected = "rustc 1.95.0 (59807616e 2026-04-14) for x86_64-unknown-linux-gnu";
        assert_eq!(compiler(version).as_deref(), Some(expected));
    }
}
