//! Spans as text, on real files, disks and pipes.
//!
//! What is about standard output or needs a disk of its own runs in a process of its own: this
//! program again, with [`ROLE`] set.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use spanwire::{Client, Destination, Diagnostics, Output, Reason};
use spanwire_codec::json::read_request;
use spanwire_codec::view::Request;

/// Longer than anything here takes; reached only by a test that fails.
const LONG: Duration = Duration::from_secs(30);

/// Says that this process is another one's child, and what it is to do.
const ROLE: &str = "SPANWIRE_TEST_ROLE";

fn client(destination: Destination) -> Client {
    let builder = Client::builder().environment(false).destinations([destination]);
    builder.diagnostics(Diagnostics::off()).build().expect("valid")
}

fn file(path: &Path) -> Destination {
    Destination::JsonLines(Output::File(path.into()))
}

fn record(client: &Client, spans: usize) {
    let tracer = client.tracer("lines");
    for number in 0..spans {
        tracer.start(&format!("span {number}")).end();
    }
}

fn assert_balanced(client: &Client) {
    assert!(client.stats().is_balanced(), "{}", client.stats());
}

fn poll_until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "it never happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A path of this test's own, where nothing is.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spanwire-{}-{name}", std::process::id()));
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _never_made = fs::remove_file(&self.0);
    }
}

/// Names of the spans in a line of OTLP JSON; `None` for any other line.
fn names(line: &str) -> Option<Vec<String>> {
    let request = read_request(line.as_bytes()).ok()?;
    let request = Request::parse(&request).expect("what was read is valid");
    let mut names = Vec::new();
    for resource in request.resource_spans() {
        for span in resource.scope_spans().flat_map(|scope| scope.spans()) {
            names.push(String::from_utf8(span.name().to_vec()).expect("text"));
        }
    }
    Some(names)
}

/// Panics unless these are the spans recorded, each once; threads' chunks may change places.
fn assert_names(mut read: Vec<String>, spans: usize, times: usize) {
    let mut expected = vec![expected(spans); times].concat();
    read.sort();
    expected.sort();
    assert!(read == expected, "{} names, and not each {times} times", read.len());
}

fn expected(spans: usize) -> Vec<String> {
    (0..spans).map(|number| format!("span {number}")).collect()
}

#[test]
fn a_file_gets_every_span_once_as_otlp_json_lines() {
    let path = Temporary::new("every-span");
    for run in 1..=2 {
        let client = client(file(&path.0));
        record(&client, 20_000);
        let report = client.shutdown_blocking(LONG);
        assert!(report.complete && client.stats().exported == 20_000, "{:?}", client.stats());
        assert_balanced(&client);
        let text = fs::read_to_string(&path.0).expect("written");
        let lines = text.lines().map(|line| names(line).expect("OTLP JSON"));
        // What the first run has written is still there.
        assert_names(lines.flatten().collect(), 20_000, run);
    }
}

#[test]
fn a_file_that_cannot_be_made_is_an_error_of_build() {
    let path = Temporary::new("missing");
    let destination = file(&path.0.join("file"));
    let built = Client::builder().environment(false).destinations([destination]).build();
    let error = built.expect_err("no such folder");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("No such file"), "{error}: {cause}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_spans_waiting_within_the_deadline_and_then_counts_them() {
    let client = client(file(Path::new("/dev/full")));
    record(&client, 1_000);
    let report = client.flush_blocking(Duration::from_millis(300));
    assert!(!report.complete && report.pending == 1_000, "{report}");
    assert_balanced(&client);
    poll_until(|| client.stats().last_error.is_some());
    let started = Instant::now();
    let report = client.shutdown_blocking(Duration::from_millis(300));
    assert!(started.elapsed() < LONG / 3, "{:?}", started.elapsed());
    assert_eq!((report.exported, report.dropped), (0, 1_000), "{report}");
    let stats = client.stats();
    assert!(stats.last_error.as_deref().is_some_and(|error| error.contains("space")), "{stats:?}");
    assert_balanced(&client);
}

/// This program as a child with a role.
fn child(role: &str, program: &[&str]) -> Child {
    let test = std::env::current_exe().expect("a program");
    let mut command = match program {
        [] => Command::new(&test),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&test);
            command
        }
    };
    command
        .args(["--exact", "child_process", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("a process")
}

/// How it ended and what it wrote to standard error.
fn end(mut child: Child) -> (ExitStatus, String) {
    let mut said = String::new();
    // To its end: all that a child does has a deadline.
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (child.wait().expect("a child"), said)
}

/// Not a test by itself: what the others start.
#[test]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let succeeded = match role.split_once(' ') {
        None => to_stdout(&role),
        Some((_, folder)) => on_a_small_disk(Path::new(folder)),
    };
    // Before the test runner writes to an output that may be closed.
    std::process::exit(if succeeded { 0 } else { 1 });
}

fn to_stdout(role: &str) -> bool {
    let destination = match role {
        "console" => Destination::Console,
        _ => Destination::JsonLines(Output::Stdout),
    };
    let client = client(destination);
    let _heard = writeln!(std::io::stderr(), "{READY}");
    // Until the parent has done with the pipe what it wants to.
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).expect("the parent is there");
    if go == CLOSED {
        wait_until_nobody_reads();
    }
    record(&client, 3);
    let report = client.shutdown_blocking(LONG);
    let stats = client.stats();
    let lost = stats.dropped.by(Reason::WriteFailed);
    let _unread = writeln!(std::io::stderr(), "{} exported, {lost} lost", stats.exported);
    report.complete && stats.is_balanced()
}

/// Returns once a write to standard output fails. A process that another test makes at this moment
/// holds the reading end too, for an instant longer than its making seems to take.
fn wait_until_nobody_reads() {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().expect("a descriptor");
    let mut stdout = fs::File::from(stdout);
    while stdout.write_all(b"\n").is_ok() {}
}

/// What a child says when the test runner is done with standard output for now.
const READY: &str = "ready";

fn wait_until_ready(child: &mut Child) {
    let stderr = child.stderr.as_mut().expect("a pipe");
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(READY.as_bytes()) {
        stderr.read_exact(&mut byte).expect("the child is there");
        said.extend_from_slice(&byte);
    }
}

/// What a child hears: to go on, or to go on once its standard output is closed.
const GO: &str = "go\n";
const CLOSED: &str = "closed\n";

fn tell(child: &mut Child, what: &str) {
    child.stdin.take().expect("a pipe").write_all(what.as_bytes()).expect("it reads");
}

#[test]
fn standard_output_gets_json_lines_or_a_tree() {
    for role in ["json", "console"] {
        let mut child = child(role, &[]);
        tell(&mut child, GO);
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let lines: Vec<String> = stdout.lines().map(|line| line.expect("text")).collect();
        let (status, said) = end(child);
        assert!(status.success() && said.contains("3 exported, 0 lost"), "{role}: {said}");
        // The test runner of the child writes there too.
        if role == "json" {
            assert_names(lines.iter().filter_map(|line| names(line)).flatten().collect(), 3, 1);
        } else {
            let has = |text: &str| lines.iter().any(|line| line.contains(text));
            assert!(has("Trace ") && expected(3).iter().all(|name| has(name)), "{lines:?}");
        }
    }
}

#[test]
fn a_closed_standard_output_costs_the_spans_and_nothing_else() {
    for role in ["json", "console"] {
        let mut child = child(role, &[]);
        wait_until_ready(&mut child);
        drop(child.stdout.take());
        tell(&mut child, CLOSED);
        let (status, said) = end(child);
        assert!(status.success(), "{role}: {status}: {said}");
        assert!(said.contains("0 exported, 3 lost"), "{role}: {said}");
    }
}

/// A disk of 64 KiB, gone with the process; where the system does not let this program mount one,
/// the same is tested on a writer that runs full, beside the code.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_was_full_for_a_while_has_every_span_on_a_line_of_its_own() {
    let folder = std::env::temp_dir().join(format!("spanwire-{}-disk", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let shown = folder.display();
    let script = format!("mount -t tmpfs -o size=64k tmpfs '{shown}' || exit 77; exec \"$@\"");
    let role = format!("disk {shown}");
    let mut child = child(&role, &["unshare", "--mount", "sh", "-c", &script, "sh"]);
    drop(child.stdin.take());
    let (status, said) = end(child);
    let _not_empty = fs::remove_dir(&folder);
    let may_not_mount = status.code() == Some(77) || said.contains("unshare");
    assert!(status.success() || may_not_mount, "{status}: {said}");
}

fn on_a_small_disk(folder: &Path) -> bool {
    let filler = folder.join("filler");
    // Room for the start of the line.
    fs::write(&filler, vec![0; 60 << 10]).expect("room");
    let path = folder.join("spans.jsonl");
    let client = client(file(&path));
    record(&client, 200);
    let report = client.flush_blocking(Duration::from_millis(200));
    assert!(!report.complete, "{report}");
    let written = || fs::read(&path).expect("opened");
    poll_until(|| !written().is_empty());
    assert!(!written().ends_with(b"\n"), "the line had room after all");

    fs::remove_file(&filler).expect("it is there");
    let report = client.flush_blocking(LONG);
    let text = fs::read_to_string(&path).expect("text");
    let lines: Vec<_> = text.lines().collect();
    let (whole, broken): (Vec<_>, Vec<_>) = lines.iter().partition(|line| names(line).is_some());
    let read: Vec<_> = whole.into_iter().copied().filter_map(names).flatten().collect();
    assert!(report.complete, "{report}");
    assert_names(read, 200, 1);
    assert_eq!(broken.len(), 1);
    client.stats().is_balanced()
}
