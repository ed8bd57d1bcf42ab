//! Configurations of the collector.

use spanwire_config::{Compat, Config, Loaded, Report, Severity, Source, print};

/// Any text is a configuration or is refused with reasons, each with its place in what was given. What
/// is a configuration prints as one that means the same. No message quotes the environment.
///
/// The first byte says where the text comes from and how strictly it is read. NUL separates sources,
/// and then `--set` options.
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    let Some((&form, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    // It would read files of the machine, of which some never end.
    if text.contains("{file:") || text.contains(":-file") {
        return;
    }
    let mut parts = text.split('\0').map(str::to_owned);
    let main = parts.next().unwrap_or_default();
    let environment = |name: &str| {
        Some(match name {
            "MAIN" => main.clone(),
            "SECRET" => SECRET.to_owned(),
            "ENDPOINT" => "localhost:4317".to_owned(),
            "NUMBER" => "7".to_owned(),
            "STRUCTURE" => "{a: [b, &c d]}".to_owned(),
            "REFERENCE" => "${env:REFERENCE}".to_owned(),
            "EMPTY" => String::new(),
            _ => return None,
        })
    };
    let mut sources = vec![match form & 1 {
        0 => Source::Yaml(main.clone()),
        _ => Source::Env("MAIN".to_owned()),
    }];
    if form & 2 != 0 {
        sources.extend(parts.next().map(Source::Yaml));
    }
    let sets: Vec<String> = parts.collect();
    let compat = if form & 4 == 0 { Compat::Strict } else { Compat::Warn };
    match Config::load(&sources, &sets, &environment, compat) {
        Ok(loaded) => {
            let warnings = loaded.warnings.iter().map(ToString::to_string).collect::<String>();
            assert!(text.contains(SECRET) || !warnings.contains(SECRET), "{warnings}");
            assert_prints(&loaded);
        }
        Err(report) => {
            assert_places(&report, &text);
            let report = report.to_string();
            assert!(text.contains(SECRET) || !report.contains(SECRET), "{report}");
        }
    }
}

/// What is printed loads, as strictly as can be, and means the same.
fn assert_prints(loaded: &Loaded) {
    let printed = print(&loaded.config);
    let sources = [Source::Yaml(printed.clone())];
    let again = Config::load(&sources, &[], &|_| None, Compat::Strict);
    let mut again = again.unwrap_or_else(|report| panic!("{report}\n{printed}")).config;
    assert_eq!(print(&again), printed);
    if !printed.contains("[REDACTED]") {
        again.notes.clone_from(&loaded.config.notes);
        assert_eq!(again, loaded.config);
    }
}

/// There is an error, each is in one line of a text that there is, and there is no end of words.
fn assert_places(report: &Report, text: &str) {
    let found = report.diagnostics();
    assert!(found.iter().any(|found| found.severity() == Severity::Error));
    let rendered = report.to_string();
    let longest = DIAGNOSTICS_MAX * DIAGNOSTIC_BYTES_MAX;
    assert!(found.len() <= DIAGNOSTICS_MAX && rendered.len() <= longest, "{}", rendered.len());
    for one in found {
        assert!(!one.message().is_empty(), "{one}");
        let is_shown = |char: char| char == '\n' || !char.is_control();
        assert!(!one.message().contains('\n') && one.to_string().chars().all(is_shown), "{one}");
        let Some(at) = one.location() else {
            // The option itself is no YAML, so it is not the place of anything.
            assert!(one.message().contains("--set"), "{one}");
            continue;
        };
        // Either ends a line of YAML, or both together.
        let lines = text.matches(['\n', '\r']).count() + 1;
        assert!((1..=lines).contains(&at.line), "{one}");
        assert!(at.column >= 1 && !at.file.is_empty(), "{one}");
    }
}

const SECRET: &str = "hunter2";
const DIAGNOSTICS_MAX: usize = 200;
/// Lines are cut to 120 characters, of up to four bytes; a component's name has up to 1,024.
const DIAGNOSTIC_BYTES_MAX: usize = 16 << 10;
