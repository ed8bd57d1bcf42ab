//! Configurations that are wrong in what shows only when parts are made, and what is said about
//! them: `wrong/NAME.yaml` and `wrong/NAME.txt`, beside those of `crates/config`.
//!
//! To accept what is said now, run the tests with `BLESS=1` and read the difference.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

/// Runs the binary on `wrong/NAME.yaml`, and compares what it says with `wrong/NAME.txt`, where an
/// address that was given stands as HOST:PORT.
fn check(name: &str, arguments: &[&str], given: Option<SocketAddr>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanwire-collector"));
    command.args(arguments).args(["--config", &format!("tests/wrong/{name}.yaml")]);
    if let Some(given) = given {
        command.env("HERE", given.to_string()).env("PORT", given.port().to_string());
    }
    let output = command.output().expect("the binary runs");
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    // Before and after it there may be lines of the log.
    let report = &said[said.find("error: ").expect("an error")..];
    let count = report.rfind(" error").expect("a count of them");
    let end = report[count..].find('\n').map_or(report.len(), |end| count + end);
    let mut report = format!("{}\n", &report[..end]);
    if let Some(given) = given {
        report = report.replace(&given.to_string(), "HOST:PORT");
        report = report.replace(&given.port().to_string(), "PORT");
    }
    let golden = Path::new("tests/wrong").join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&golden, &report).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(&golden).expect("there is a golden file");
    assert_eq!(report, expected, "{name}: {report}");
}

/// A port that is taken for as long as the listener is there.
fn taken() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

#[test]
fn validate_tells_all_that_keeps_parts_from_being_made_and_a_start_tells_the_same() {
    check("parts", &["validate"], None);
    check("parts", &[], None);
}

/// Faults 165.
#[test]
fn a_port_in_use_is_shown_where_it_is_set_and_how_to_find_who_has_it() {
    let (_taken, address) = taken();
    check("port", &[], Some(address));
    check("page", &[], Some(address));
}

#[test]
fn every_file_of_the_folder_is_tested() {
    let source = include_str!("wrong.rs");
    for entry in fs::read_dir("tests/wrong").expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("its name is text");
        assert!(source.contains(&format!("\"{name}\"")), "{name} has no test");
    }
}
