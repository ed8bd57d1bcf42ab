//! Texts that nobody writes with good intentions, and texts that went wrong on the way.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use spanwire_config::{Compat, Config, Loaded, Report, Source, print};

fn load(text: &str, compat: Compat) -> Result<Loaded, Report> {
    let environment = |name: &str| (name == "BIG").then(|| "x".repeat(100_000));
    Config::load(&[Source::Yaml(text.to_owned())], &[], &environment, compat)
}

fn refused(text: &str, why: &str) {
    let report = load(text, Compat::Strict).expect_err("it is hostile").to_string();
    assert!(report.contains(why), "{report}");
    // The largest reports are those with 200 lines of 120 characters.
    assert!(report.len() < 200_000, "{} bytes", report.len());
}

/// Faults 167.
#[test]
fn keys_that_name_a_long_way_are_refused_like_deep_nesting() {
    refused(&format!("{}: 1", vec!["a"; 300].join("::")), "nested more than 64 deep");
    let mut text = String::new();
    for depth in 0..40 {
        writeln!(text, "{:depth$}a::a::a:", "").unwrap();
    }
    refused(&text, "nested more than 64 deep");
}

/// Faults 168.
#[test]
fn references_within_references_end() {
    for depth in [9, 100_000] {
        let text = format!("receivers: \"{}X{}\"", "${env:".repeat(depth), "}".repeat(depth));
        refused(&text, "nested more than 8 deep");
    }
    for text in ["${", "${${", "a${", &"${".repeat(100_000)] {
        refused(&format!("receivers: \"{text}\""), "no closing brace");
    }
    refused("receivers: \"${}\"", "does not name an environment variable");
}

/// Faults 168.
#[test]
fn a_short_text_cannot_stand_for_gigabytes() {
    refused(&format!("receivers: \"{}\"", "${env:BIG}".repeat(10_000)), "more than 16 MiB");
}

/// Faults 167.
#[test]
fn a_flood_of_errors_is_counted_and_costs_no_more_than_it_shows() {
    let started = Instant::now();
    let mut unknown = String::from("exporters:\n  debug:\n");
    for number in 0..20_000 {
        writeln!(unknown, "    verbositi{number}: 1").unwrap();
    }
    let report = load(&unknown, Compat::Strict).unwrap_err();
    assert_eq!(report.diagnostics().len(), 200);
    assert!(report.to_string().ends_with("200 errors; 19801 more not shown"), "{report}");

    // Each reference is to nothing, and there are many things it could have been.
    let mut undefined = String::from("exporters:\n");
    for number in 0..10_000 {
        writeln!(undefined, "  nop/{number}:").unwrap();
    }
    undefined += "service:\n  pipelines:\n    traces:\n      exporters:\n";
    for number in 0..10_000 {
        writeln!(undefined, "      - nap/{number}").unwrap();
    }
    refused(&undefined, "more not shown");
    // Compared each with each, it would take a minute.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

const GATEWAY: &str = include_str!("examples/gateway.yaml");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_is_too_odd_to_be_reported(text in "([\\PC\n\t]|: |- |\\$\\{|env:|\\}|&a |\\*a|<<: |\\[|\\]|\\{){0,80}") {
        if let Err(report) = load(&text, Compat::Strict) {
            prop_assert!(!report.to_string().is_empty());
        }
    }

    /// A piece of the example is replaced by another piece of it, or by something odd.
    #[test]
    fn a_damaged_configuration_is_refused_or_prints_and_reads_back(
        cuts in prop::collection::vec((0.0..1.0f64, 0usize..12, 0.0..1.0f64, 0usize..12), 1..4),
        odd in prop::sample::select(vec!["", "null", "[", "{}", "-1", "${env:X}", "\t", "::", "0", "é"]),
        warn in any::<bool>(),
    ) {
        let mut text: Vec<char> = GATEWAY.chars().collect();
        for (at, length, from, taken) in cuts {
            let place = |share: f64, length: usize, text: &[char]| {
                let start = (share * text.len() as f64) as usize;
                start..(start + length).min(text.len())
            };
            let mut piece: Vec<char> = text[place(from, taken, &text)].to_vec();
            piece.extend(odd.chars());
            let gap = place(at, length, &text);
            text.splice(gap, piece);
        }
        let text: String = text.into_iter().collect();
        let compat = if warn { Compat::Warn } else { Compat::Strict };
        if let Ok(loaded) = load(&text, compat) {
            let printed = print(&loaded.config);
            let again = load(&printed, Compat::Strict);
            prop_assert!(again.is_ok(), "{}\n{printed}", again.unwrap_err());
            prop_assert_eq!(print(&again.unwrap().config), printed);
        }
    }
}
