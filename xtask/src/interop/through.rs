//! From a peer's SDK through a running collector, to a peer's sink and into a file.
//!
//! The sinks are those of Python and JavaScript, and the file is read by JavaScript's JSON: nothing of
//! ours is on either side of the collector, apart from the comparison.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use spanwire::{Compression, Protocol};

use super::compare::Comparison;
use super::peers::{Language, Peers};
use super::{Arrived, Case, SPANS, Sink};
use crate::collector::Collector;
use crate::shell::{self, failed};

/// Builds the collector as `cargo run` does.
pub(super) fn build(root: &Path) -> Result<PathBuf, String> {
    const NAME: &str = "spanwire-collector";
    let mut cargo = crate::cargo(&["build", "--locked", "-p", NAME, "--bin", NAME], &[]);
    let mut built = shell::executables(cargo.current_dir(root))?;
    built.remove(NAME).ok_or_else(|| format!("cargo built no executable called {NAME}"))
}

/// Sends through the collector; what came to the sink, and what is in the file.
pub(super) fn run(case: &Case, peers: &Peers, binary: &Path) -> Result<Arrived, String> {
    let sink = Sink::start(case, peers)?;
    let file = peers.log("collector.jsonl");
    match fs::remove_file(&file) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&file, &error)),
        Ok(()) | Err(_) => {}
    }
    // Neither HTTP sink decompresses.
    let compression = match case.protocol {
        Protocol::Grpc => case.compression,
        Protocol::HttpProtobuf | Protocol::HttpJson => Compression::None,
    };
    let config = config(case, &exporter(case, &sink, compression), &file);
    let collector = Collector::start(binary, &config, &peers.log("collector.log"))?;
    let endpoint = match case.protocol {
        Protocol::Grpc => collector.grpc(),
        Protocol::HttpProtobuf | Protocol::HttpJson => collector.http(),
    };
    // In four requests, which the collector joins.
    let sent = case.send_with(peers, &format!("http://{endpoint}"), SPANS, SPANS / 4)?;
    // What it has acknowledged it sends before it ends.
    collector.stop()?;
    let came = sink.finish(compression)?;
    let written = peers.start(Language::JavaScript, "file", &[&file])?.finish()?;
    Ok(vec![
        (Some(case.language.sink_name()), Comparison::of(sent.clone(), &came)),
        (Some("a file"), Comparison::of(sent, &written)),
    ])
}

/// Sends on as it came in.
fn exporter(case: &Case, sink: &Sink, compression: Compression) -> String {
    let address = sink.address();
    let compression = if compression == Compression::Gzip { "gzip" } else { "none" };
    let encoding = if case.protocol == Protocol::HttpJson { "json" } else { "proto" };
    match case.protocol {
        Protocol::Grpc => format!(
            "otlp: {{ endpoint: \"{address}\", tls: {{ insecure: true }}, compression: {compression} }}"
        ),
        Protocol::HttpProtobuf | Protocol::HttpJson => format!(
            "otlphttp: {{ endpoint: \"http://{address}\", compression: {compression}, \
             encoding: {encoding} }}"
        ),
    }
}

fn config(case: &Case, exporter: &str, file: &Path) -> String {
    let kind = if case.protocol == Protocol::Grpc { "otlp" } else { "otlphttp" };
    format!(
        "{}processors: {{ batch: {{ timeout: 200ms }} }}\n\
         exporters:\n  {exporter}\n  file: {{ path: \"{}\" }}\n\
         service:\n  \
           telemetry: {{ metrics: {{ level: none }} }}\n  \
           pipelines: {{ traces: {{ receivers: [otlp], processors: [batch], \
         exporters: [{kind}, file] }} }}\n",
        Collector::RECEIVERS,
        file.display()
    )
}
