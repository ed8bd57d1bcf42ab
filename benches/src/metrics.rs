//! Figures that criterion does not take: bytes, allocations, losses, CPU of a process.
//!
//! A figure is named the way criterion names a time, by group, function and value, so that one report
//! can put both side by side.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;

use serde_json::json;

/// Names the file to which each figure is appended, as one line of JSON.
pub const FILE: &str = "SPANWIRE_FIGURES";

/// Prints a figure, and appends it to the file that [`FILE`] names.
///
/// `value` is what varies within the group, such as a number of spans, or empty; `unit` is what the
/// figure counts, such as `"B"` or `"allocations"`.
///
/// # Panics
///
/// When the file cannot be written: a report without the figure would be wrong.
///
/// ```
/// spanwire_benches::metrics::report("heap_of_spans", "spanwire", "1000", "B", 416.0);
/// ```
#[expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
pub fn report(group: &str, function: &str, value: &str, unit: &str, figure: f64) {
    let name = [group, function, value].into_iter().filter(|part| !part.is_empty());
    println!("{:<56} {figure:.3} {unit}", name.collect::<Vec<_>>().join("/"));
    let Some(path) = env::var_os(FILE) else { return };
    let line = json!({
        "group": group, "function": function, "value": value, "unit": unit, "figure": figure,
    });
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    writeln!(file, "{line}").unwrap_or_else(|error| panic!("cannot write a figure: {error}"));
}
