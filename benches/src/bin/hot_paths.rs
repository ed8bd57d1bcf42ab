//! `hot_paths count NAME [RUNS]`: takes a path so often, once by default, and says nothing.
//! `hot_paths time [NAME]`: nanoseconds a span of each path.
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::env;
use std::error::Error;
use std::time::Instant;

use spanwire_benches::hot_paths::{NAMES, by_name};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["count", name] => count(name, 1),
        ["count", name, runs] => count(name, runs.parse()?),
        ["time"] => NAMES.iter().try_for_each(|name| time(name)),
        ["time", name] => time(name),
        _ => Err("usage: hot_paths count NAME [RUNS] | time [NAME]".into()),
    }
}

fn count(name: &str, runs: u32) -> Result<(), Box<dyn Error>> {
    let mut path = by_name(name).ok_or("no such path")?;
    for _ in 0..runs {
        path.measured();
    }
    Ok(())
}

fn time(name: &str) -> Result<(), Box<dyn Error>> {
    let mut path = by_name(name).ok_or("no such path")?;
    let mut least = f64::INFINITY;
    for _ in 0..2_000 {
        let start = Instant::now();
        path.measured();
        least = least.min(start.elapsed().as_nanos() as f64 / path.spans as f64);
    }
    println!("{name:<32} {least:8.2} ns a span, least of 2,000 runs");
    Ok(())
}
