//! `cargo xtask loom`: every interleaving of the hand-over between a chunk's writer and its readers.

use std::ffi::OsString;
use std::process::{ExitCode, Stdio};

use crate::flags::Flags;
use crate::shell;

/// Runs the command; the arguments are those of `cargo test`.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    match test(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loom: {error}");
            ExitCode::FAILURE
        }
    }
}

fn test(arguments: &[OsString]) -> Result<(), String> {
    let root = shell::root()?;
    let mut cargo = super::cargo(&["test", "-p", "spanwire-pool", "--lib", "--release"], &[]);
    // Apart from the ordinary build, which would be thrown away for its flag.
    cargo.arg("--target-dir").arg(shell::target(&root).join("loom"));
    cargo.arg("ledger").args(arguments).current_dir(&root);
    Flags::of_caller()?.give(&mut cargo, &["--cfg", "loom"].map(str::to_owned));
    let tested = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let tested = tested.map_err(|error| format!("cannot run cargo: {error}"))?;
    let said = String::from_utf8_lossy(&tested.stdout);
    eprint!("{said}");
    match tested.status.success() {
        false => Err(format!("the tests ended with {}", tested.status)),
        true if !has_passed(&said) => Err("no test was run".to_owned()),
        true => Ok(()),
    }
}

/// Whether a test was run at all: without the flag there is none, and none fails.
fn has_passed(said: &str) -> bool {
    let mut passed = said.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    passed.any(|passed| !passed.starts_with("0 passed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_were_left_out_have_not_passed() {
        let said = |passed: u32| {
            format!(
                "\nrunning {passed} tests\n\ntest result: ok. {passed} passed; 0 failed; 0 ignored\n"
            )
        };
        assert!(has_passed(&said(1)) && has_passed(&said(10)));
        assert!(!has_passed(&said(0)) && !has_passed(""));
    }
}
