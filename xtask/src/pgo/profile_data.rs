//! `llvm-profdata`, which turns what instrumented programs write into what the compiler reads.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{failed, output, succeed};

/// An `llvm-profdata` that fits the compiler.
#[derive(Debug)]
pub(super) struct ProfileData {
    program: PathBuf,
}

impl ProfileData {
    /// The toolchain's own, else the one on the `PATH` if it is of the compiler's LLVM: the format of
    /// profiles changes from one to the next.
    pub(super) fn find(root: &Path, rustc: &str) -> Result<Self, String> {
        let line = |name| rustc.lines().find_map(|line| line.strip_prefix(name));
        let host = line("host: ").ok_or("`rustc -vV` names no host")?;
        let llvm = line("LLVM version: ").and_then(major).ok_or("`rustc -vV` names no LLVM")?;

        let name = format!("llvm-profdata{EXE_SUFFIX}");
        // There the toolchain of the workspace is chosen.
        let mut rustc = Command::new("rustc");
        let sysroot = output(rustc.args(["--print", "sysroot"]).current_dir(root))?;
        let own = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin").join(&name);
        let candidates = [own, PathBuf::from(name)];
        let fits = |program: &PathBuf| {
            let version = output(Command::new(program).arg("--version"));
            version.is_ok_and(|version| version_of(&version) == Some(llvm))
        };
        let program = candidates.into_iter().find(fits).ok_or_else(|| {
            format!(
                "no llvm-profdata of LLVM {llvm}, neither in the toolchain nor on the PATH: \
                 `rustup component add llvm-tools` installs it"
            )
        })?;
        Ok(Self { program })
    }

    /// Merges all profiles in a folder into one file; the number of functions in it.
    pub(super) fn merge(&self, folder: &Path, into: &Path) -> Result<u64, String> {
        let entries = fs::read_dir(folder).map_err(|error| failed(folder, &error))?;
        let raw: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "profraw"))
            .collect();
        if raw.is_empty() {
            return Err(format!("training wrote no profile into {}", folder.display()));
        }
        succeed(Command::new(&self.program).args(["merge", "-o"]).arg(into).args(&raw))?;
        let shown = output(Command::new(&self.program).arg("show").arg(into))?;
        match (
            shown_number(&shown, "Total functions:"),
            shown_number(&shown, "Maximum function count:"),
        ) {
            (Some(functions), Some(count)) if functions > 0 && count > 0 => Ok(functions),
            _ => Err(format!("the profile {} is empty:\n{shown}", into.display())),
        }
    }
}

/// LLVM's version in what its tools say of themselves.
fn version_of(text: &str) -> Option<u32> {
    text.lines().find_map(|line| major(line.trim().strip_prefix("LLVM version ")?))
}

fn major(version: &str) -> Option<u32> {
    version.trim().split('.').next()?.parse().ok()
}

fn shown_number(shown: &str, name: &str) -> Option<u64> {
    shown.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_found_where_a_tool_names_one() {
        let own = "LLVM (http://llvm.org/):\n  LLVM version 22.1.2-rust-1.95.0-stable\n";
        assert_eq!(version_of(own), Some(22));
        assert_eq!(version_of("Debian LLVM version 14.0.6\n"), None);
        assert_eq!(version_of("llvm-profdata: Unknown command!\n"), None);
    }

    #[test]
    fn a_compiler_without_its_tools_is_told_how_to_get_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let error = ProfileData::find(root, "host: no-such-host\nLLVM version: 9999.0.0\n");
        let error = error.expect_err("there is no such LLVM");
        assert!(error.contains("`rustup component add llvm-tools`"), "{error}");
    }

    #[test]
    fn numbers_are_read_from_what_is_shown_of_a_profile() {
        let shown = "Instrumentation level: IR  entry_first = 0\nTotal functions: 4711\n\
                     Maximum function count: 12\nMaximum internal block count: 3\n";
        assert_eq!(shown_number(shown, "Total functions:"), Some(4_711));
        assert_eq!(shown_number(shown, "Maximum function count:"), Some(12));
        assert_eq!(shown_number("", "Total functions:"), None);
    }
}
