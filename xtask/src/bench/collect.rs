//! Reads what the programs left: criterion's folders, lines of figures, the load's and the
//! optimised builds' results.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::Deserialize;

use super::figures::{BUILDS, COLLECTOR, CPU_PER_MILLION, Figures, NS, NS_EACH, Name};
use super::suite::{LOAD_SPANS_PER_SECOND, Program};
use crate::relay::Relay;

/// Criterion's own folder, in that of a round.
pub(super) const CRITERION: &str = "criterion";

/// Lines of what criterion does not measure, in the folder of a round.
pub(super) const FIGURES: &str = "figures.jsonl";

/// Enters all that the programs left in the folder of a round.
pub(super) fn round(folder: &Path, round: usize, figures: &mut Figures) -> Result<(), String> {
    criterion(&folder.join(CRITERION), round, figures)?;
    lines(&folder.join(FIGURES), round, figures)?;
    let printed = |program: Program| folder.join(format!("{}.out", program.name()));
    load(&printed(Program::Load), round, figures)?;
    Relay::ALL
        .into_iter()
        .try_for_each(|relay| self::relay(&printed(Program::Relay(relay)), relay, round, figures))
}

/// Enters every time that criterion wrote below `home` in this round.
///
/// The median of the samples is taken rather than the slope: it is there in each way of sampling, and
/// a few samples in which something else had the core do not move it. A row with a throughput in
/// elements gives its time for each of them as well.
fn criterion(home: &Path, round: usize, figures: &mut Figures) -> Result<(), String> {
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        // A suite whose rows were all filtered out leaves nothing.
        let entries =
            unless_not_there(fs::read_dir(&folder)).map_err(|error| failed(&folder, error))?;
        for entry in entries.into_iter().flatten() {
            let path = entry.map_err(|error| failed(&folder, error))?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        if folder.ends_with("new") && folder.join("benchmark.json").is_file() {
            let id: Benchmark = parse(&folder.join("benchmark.json"))?;
            let estimates: Estimates = parse(&folder.join("estimates.json"))?;
            let (name, elements) = id.name();
            let time = estimates.median.point_estimate;
            if let Some(elements) = elements {
                let each = Name { unit: NS_EACH.to_owned(), ..name.clone() };
                figures.enter(round, each, time / elements);
            }
            figures.enter(round, name, time);
        }
    }
    Ok(())
}

/// Enters the figures of a file with one JSON object a line; no file, no figures.
fn lines(path: &Path, round: usize, figures: &mut Figures) -> Result<(), String> {
    let text = unless_not_there(fs::read_to_string(path)).map_err(|error| failed(path, error))?;
    for line in text.iter().flat_map(|text| text.lines()) {
        let line: Line = serde_json::from_str(line).map_err(|error| failed(path, error))?;
        figures.enter(round, line.name, line.figure);
    }
    Ok(())
}

/// What the load generator printed; no file, no load.
fn printed(path: &Path) -> Result<Option<Load>, String> {
    let text = unless_not_there(fs::read_to_string(path)).map_err(|error| failed(path, error))?;
    // A load that failed printed nothing, and stands among the failures.
    let text = text.filter(|text| !text.trim().is_empty());
    text.map(|text| serde_json::from_str(&text).map_err(|error| failed(path, error))).transpose()
}

/// Enters the load on a receiver.
fn load(path: &Path, round: usize, figures: &mut Figures) -> Result<(), String> {
    let Some(load) = printed(path)? else { return Ok(()) };
    let mut enter = |unit: &str, figure: Option<f64>| {
        let name = Name::new("load", "spanwire", LOAD_SPANS_PER_SECOND, unit);
        figure.into_iter().for_each(|figure| figures.enter(round, name.clone(), figure));
    };
    enter("spans/s", load.spans_per_second);
    let percentiles = load.latency_ms.into_iter().filter(|(key, _)| key.starts_with('p'));
    for (quantile, millis) in percentiles {
        // Keys there have no full stops.
        let percentile = quantile.to_uppercase().replace("P999", "P99.9");
        enter(&format!("{percentile} ms"), millis);
    }
    if let Some(target) = load.target {
        enter("MiB", target.memory_peak_bytes.map(|bytes| bytes / f64::from(1 << 20)));
        enter("% CPU", target.cpu.cores.map(|cores| cores * 100.0));
    }
    if let Some(delivery) = load.delivery {
        enter("lost", Some(delivery.lost));
    }
    Ok(())
}

/// Enters a load through the collector, with the generator's own CPU as the yardstick.
///
/// # Errors
///
/// Also where requests failed: the collector's figures would be those of another load.
fn relay(path: &Path, relay: Relay, round: usize, figures: &mut Figures) -> Result<(), String> {
    let Some(load) = printed(path)? else { return Ok(()) };
    let mut enter = |function, unit, figure: Option<f64>| {
        let name = Name::new(COLLECTOR, function, relay.name, unit);
        figure.into_iter().for_each(|figure| figures.enter(round, name.clone(), figure));
    };
    enter("generator", CPU_PER_MILLION, load.generator.cpu_seconds_per_million_spans);
    enter("spanwire", "spans/s", load.spans_per_second);
    enter("spanwire", "P99 ms", load.latency_ms.get("p99").copied().flatten());
    if let Some(target) = load.target {
        enter("spanwire", CPU_PER_MILLION, target.cpu.cpu_seconds_per_million_spans);
        enter("spanwire", "MiB", target.memory_peak_bytes.map(|bytes| bytes / f64::from(1 << 20)));
    }
    // One that arrives twice is as little delivered as it was sent.
    enter("spanwire", "lost", load.delivery.map(|delivery| delivery.lost + delivery.duplicated));
    match load.requests_failed {
        0 => Ok(()),
        requests => Err(format!("{}: {requests} requests failed: {:?}", relay.name, load.warnings)),
    }
}

/// Enters what `cargo xtask pgo` left, if that was at this commit and neither had changes; returns
/// when it was.
pub(super) fn builds(
    path: &Path,
    commit: &str,
    figures: &mut Figures,
) -> Result<Option<String>, String> {
    // Words beside it say that there are changes, or that it is unknown.
    let is_clean = commit.chars().all(|c| c.is_ascii_hexdigit());
    if !is_clean || !path.exists() {
        return Ok(None);
    }
    let builds: Builds = parse(path)?;
    if builds.commit != commit {
        return Ok(None);
    }
    for Build { name, variant, unit, rounds } in builds.rows {
        let name = Name { group: BUILDS.to_owned(), function: variant, value: name, unit };
        figures.enter_rounds(name, rounds.into_iter().map(Some).collect());
    }
    Ok(Some(builds.date))
}

/// `None` only if there is nothing: what is there and cannot be read is an error.
fn unless_not_there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|error| failed(path, error))?;
    serde_json::from_str(&text).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: impl std::fmt::Display) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// What `new/benchmark.json` says of criterion's row.
#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
    throughput: Option<Throughput>,
}

impl Benchmark {
    fn name(self) -> (Name, Option<f64>) {
        let elements = self.throughput.and_then(|throughput| throughput.elements);
        let name = Name {
            group: self.group_id,
            function: self.function_id.unwrap_or_default(),
            value: self.value_str.unwrap_or_default(),
            unit: NS.to_owned(),
        };
        (name, elements.filter(|elements| *elements > 0.0))
    }
}

/// Bytes and the like are left out: the report divides by elements only.
#[derive(Deserialize)]
struct Throughput {
    #[serde(rename = "Elements")]
    elements: Option<f64>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

#[derive(Deserialize)]
struct Line {
    #[serde(flatten)]
    name: Name,
    figure: f64,
}

/// What is taken from the figures of optimised builds.
#[derive(Deserialize)]
struct Builds {
    commit: String,
    date: String,
    rows: Vec<Build>,
}

#[derive(Deserialize)]
struct Build {
    name: String,
    variant: String,
    unit: String,
    rounds: Vec<f64>,
}

/// What is taken from the load generator's report.
#[derive(Deserialize)]
struct Load {
    spans_per_second: Option<f64>,
    requests_failed: u64,
    latency_ms: BTreeMap<String, Option<f64>>,
    generator: LoadCpu,
    target: Option<LoadTarget>,
    delivery: Option<LoadDelivery>,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct LoadTarget {
    cpu: LoadCpu,
    memory_peak_bytes: Option<f64>,
}

#[derive(Deserialize)]
struct LoadCpu {
    cores: Option<f64>,
    cpu_seconds_per_million_spans: Option<f64>,
}

#[derive(Deserialize)]
struct LoadDelivery {
    lost: f64,
    duplicated: f64,
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::bench::figures::Spread;

    /// A folder of its own that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("a folder for temporary files");
            Self(folder)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("can be made");
            fs::write(path, text).expect("can be written");
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // What stays behind is in a folder for temporary files.
            drop(fs::remove_dir_all(&self.0));
        }
    }

    const ESTIMATES: &str = r#"{"mean": {"point_estimate": 9.0}, "slope": null,
        "median": {"confidence_interval": {}, "point_estimate": 5000.0, "standard_error": 1.0}}"#;

    fn only(figures: &Figures, name: &Name) -> Option<f64> {
        figures.spread(name).map(|spread: Spread| spread.median)
    }

    #[test]
    fn times_are_collected_whole_and_for_each_element() {
        let folder = Folder::new("times");
        folder.write(
            "encode/a_b/new/benchmark.json",
            r#"{"group_id": "encode", "function_id": "a, b", "value_str": "10",
                "throughput": {"Elements": 10}, "full_id": "encode/a, b/10"}"#,
        );
        folder.write("encode/a_b/new/estimates.json", ESTIMATES);
        // An earlier run that criterion keeps is not this run's figure.
        folder.write("encode/a_b/base/benchmark.json", "broken");
        folder.write(
            "read/prost/new/benchmark.json",
            r#"{"group_id": "read", "function_id": "prost", "value_str": null,
                "throughput": {"Bytes": 415054}}"#,
        );
        folder.write("read/prost/new/estimates.json", ESTIMATES);

        let mut figures = Figures::default();
        criterion(&folder.0, 0, &mut figures).expect("all there");
        assert_eq!(only(&figures, &Name::new("encode", "a, b", "10", NS)), Some(5_000.0));
        assert_eq!(only(&figures, &Name::new("encode", "a, b", "10", NS_EACH)), Some(500.0));
        assert_eq!(only(&figures, &Name::new("read", "prost", "", NS)), Some(5_000.0));
        assert_eq!(figures.iter().count(), 3);
    }

    #[test]
    fn a_row_without_its_estimates_is_an_error_that_names_the_file() {
        let folder = Folder::new("broken");
        folder.write("a/new/benchmark.json", r#"{"group_id": "a"}"#);
        let error = criterion(&folder.0, 0, &mut Figures::default()).expect_err("no estimates");
        assert!(error.contains("a/new/estimates.json"), "{error}");
    }

    #[test]
    fn lines_of_figures_are_collected_under_their_unit() {
        let folder = Folder::new("lines");
        folder.write(
            "figures.jsonl",
            "{\"group\":\"heap\",\"function\":\"spanwire\",\"value\":\"100\",\"unit\":\"B/span\",\
             \"figure\":416.0}\n",
        );
        let mut figures = Figures::default();
        lines(&folder.0.join("figures.jsonl"), 2, &mut figures).expect("well formed");
        let name = Name::new("heap", "spanwire", "100", "B/span");
        assert_eq!(figures.rounds(&name), [None, None, Some(416.0)]);
        lines(&folder.0.join("none.jsonl"), 2, &mut figures).expect("no file, no figures");
    }

    #[test]
    fn the_report_of_a_load_becomes_figures() {
        let folder = Folder::new("load");
        folder.write(
            "load.out",
            r#"{"spans_per_second": 10000.5, "requests_failed": 0, "generator": {},
                "latency_ms": {"p50": 0.4, "p95": null, "p999": 3.0, "max": 4.0},
                "target": {"cpu": {"cores": 0.04}, "memory_peak_bytes": 12582912},
                "delivery": {"lost": 0, "duplicated": 0}, "warnings": []}"#,
        );
        let mut figures = Figures::default();
        load(&folder.0.join("load.out"), 0, &mut figures).expect("well formed");
        let of = |unit| only(&figures, &Name::new("load", "spanwire", "10000", unit));
        assert_eq!(of("spans/s"), Some(10_000.5));
        assert_eq!((of("P50 ms"), of("P99.9 ms")), (Some(0.4), Some(3.0)));
        assert_eq!((of("MiB"), of("% CPU"), of("lost")), (Some(12.0), Some(4.0), Some(0.0)));
        assert_eq!(
            figures.iter().count(),
            6,
            "what is null is not measured, and the longest is one answer's affair"
        );
    }

    #[test]
    fn a_load_through_the_collector_has_its_generator_beside_it() {
        let folder = Folder::new("relay");
        let text = r#"{"spans_per_second": 1500000.0, "requests_failed": FAILED,
            "generator": {"cpu_seconds_per_million_spans": 0.25}, "latency_ms": {"p99": 4.5},
            "target": {"cpu": {"cpu_seconds_per_million_spans": 0.5}, "memory_peak_bytes": 1048576},
            "delivery": {"lost": 3, "duplicated": 2}, "warnings": ["3 of 9 requests failed"]}"#;
        folder.write("load.out", &text.replace("FAILED", "0"));
        let read =
            |figures: &mut Figures| relay(&folder.0.join("load.out"), Relay::GRPC_10, 0, figures);
        let mut figures = Figures::default();
        read(&mut figures).expect("well formed");
        let of = |function, unit| {
            only(&figures, &Name::new(COLLECTOR, function, Relay::GRPC_10.name, unit))
        };
        assert_eq!(of("spanwire", CPU_PER_MILLION), Some(0.5));
        assert_eq!(of("generator", CPU_PER_MILLION), Some(0.25));
        assert_eq!((of("spanwire", "spans/s"), of("spanwire", "P99 ms")), (Some(1.5e6), Some(4.5)));
        assert_eq!((of("spanwire", "MiB"), of("spanwire", "lost")), (Some(1.0), Some(5.0)));

        folder.write("load.out", &text.replace("FAILED", "3"));
        let error = read(&mut Figures::default()).expect_err("not the load it should be");
        assert!(error.contains("3 of 9 requests failed"), "{error}");
    }

    #[test]
    fn a_load_that_printed_no_report_is_an_error_unless_it_printed_nothing() {
        let folder = Folder::new("no-load");
        let path = folder.0.join("load.out");
        assert_eq!(load(&path, 0, &mut Figures::default()), Ok(()));
        for (text, is_read) in [("", true), ("{\"spans_per_second\": 1", false), ("{}", false)] {
            folder.write("load.out", text);
            let read = load(&path, 0, &mut Figures::default());
            assert_eq!(read.is_ok(), is_read, "{text:?}");
        }
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_an_error() {
        let folder = Folder::new("unreadable");
        fs::write(folder.0.join("figures.jsonl"), [0xff]).expect("can be written");
        assert!(lines(&folder.0.join("figures.jsonl"), 0, &mut Figures::default()).is_err());
        assert!(load(&folder.0.join("figures.jsonl"), 0, &mut Figures::default()).is_err());
        assert!(criterion(&folder.0.join("figures.jsonl"), 0, &mut Figures::default()).is_err());
        assert_eq!(criterion(&folder.0.join("none"), 0, &mut Figures::default()), Ok(()));
    }

    #[test]
    fn builds_of_another_commit_or_of_changed_files_are_not_taken_over() {
        let folder = Folder::new("builds");
        folder.write(
            "figures.json",
            r#"{"commit": "75df592ab123", "date": "today", "rows": [
                {"name": "encode", "variant": "LTO + PGO", "unit": "ns/span", "rounds": [90, 92]}]}"#,
        );
        let path = folder.0.join("figures.json");
        let mut figures = Figures::default();
        for other in ["fa1fb6375df5", "75df592ab123 with uncommitted changes", "unknown"] {
            assert_eq!(builds(&path, other, &mut figures), Ok(None));
        }
        assert_eq!(figures.iter().count(), 0);
        assert_eq!(builds(&path, "75df592ab123", &mut figures), Ok(Some("today".to_owned())));
        assert_eq!(
            only(&figures, &Name::new(BUILDS, "LTO + PGO", "encode", "ns/span")),
            Some(91.0)
        );
    }
}
