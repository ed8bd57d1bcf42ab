//! Programs run from the workspace's root, with errors that say which one failed and how.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Folder of the workspace.
pub(crate) fn root() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().map_err(|error| failed(&root, &error))
}

/// Folder of what is built and measured: that of `CARGO_TARGET_DIR`, else `target`, whatever cargo's
/// configuration files say.
pub(crate) fn target(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |own| root.join(own))
}

/// Runs it and shows what it prints.
pub(crate) fn succeed(command: &mut Command) -> Result<(), String> {
    let program = named(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} ended with {status}")),
        Err(error) => Err(format!("cannot run {program}: {error}")),
    }
}

/// Runs it and gives what it printed to its output; what it printed to its errors is in the error.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let program = named(command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} ended with {}:\n{}", output.status, tail(&errors)));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{program} printed something but text"))
}

/// The executables that a cargo command builds, by target; its progress shows on the terminal.
pub(crate) fn executables(cargo: &mut Command) -> Result<BTreeMap<String, PathBuf>, String> {
    let program = named(cargo);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let built = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let built = built.map_err(|error| format!("cannot run {program}: {error}"))?;
    match built.status.success() {
        true => Ok(executables_in(&String::from_utf8_lossy(&built.stdout))),
        false => Err(format!("the build ended with {}", built.status)),
    }
}

/// Those that cargo's messages name.
fn executables_in(messages: &str) -> BTreeMap<String, PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executables = messages.filter_map(|message| {
        let target = message["target"]["name"].as_str()?;
        Some((target.to_owned(), message["executable"].as_str()?.into()))
    });
    executables.collect()
}

/// Whether there is such a program on the `PATH`.
pub(crate) fn exists(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true)
}

/// What the caller's environment says about OpenTelemetry is not for the program.
pub(crate) fn without_telemetry_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"OTEL_") {
            command.env_remove(name);
        }
    }
}

/// Creates a folder and those above it.
pub(crate) fn create_folder(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| failed(path, &error))
}

/// Writes a file, over one of that name.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), String> {
    fs::write(path, content).map_err(|error| failed(path, &error))
}

pub(crate) fn failed(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn named(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    let first = arguments.take(3).collect::<Vec<_>>().join(" ");
    format!("`{} {first}`", Path::new(command.get_program()).display())
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_named_with_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]));
        let error = error.expect_err("it ends with 3");
        assert!(error.contains("`sh -c") && error.contains("3:\nbroken"), "{error}");
    }

    #[test]
    fn executables_are_found_among_all_that_cargo_built() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"spanwire"},"executable":null}"#,
            "\nnot JSON\n",
            r#"{"reason":"compiler-artifact","target":{"name":"hot_paths"},"executable":"/a/b"}"#,
        );
        let expected = [("hot_paths".to_owned(), PathBuf::from("/a/b"))];
        assert_eq!(executables_in(messages), BTreeMap::from(expected));
    }

    #[test]
    fn a_program_that_is_not_there_does_not_exist() {
        assert!(exists("cargo"));
        assert!(!exists("spanwire-no-such-program"));
    }
}
