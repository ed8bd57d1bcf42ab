//! Wrong configurations and what is said about them: `wrong/NAME.yaml` and `wrong/NAME.txt`.
//!
//! To accept what is said now, run the tests with `BLESS=1` and read the difference.

use std::fs;
use std::path::Path;

use spanwire_config::{Compat, Config, Source};

/// Loads `wrong/NAME.yaml` and compares the report with `wrong/NAME.txt`.
fn check(name: &str) -> String {
    let file = format!("tests/wrong/{name}.yaml");
    let environment = |name: &str| (name == "PASSWORD").then(|| "hunter2".to_owned());
    let report = Config::load(&[Source::File(file.into())], &[], &environment, Compat::Strict)
        .map(|loaded| loaded.config)
        .expect_err("it is wrong");
    let report = format!("{report}\n");
    let golden = Path::new("tests/wrong").join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&golden, &report).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(&golden).expect("there is a golden file");
    assert_eq!(report, expected, "{name}: {report}");
    report
}

/// Faults 166.
#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    check("unknown_key");
}

/// Faults 166.
#[test]
fn a_value_of_another_type_is_named_with_what_it_is() {
    check("wrong_type");
}

/// Faults 166.
#[test]
fn a_tab_is_shown_where_it_indents() {
    check("tab");
}

/// Faults 166.
#[test]
fn a_configuration_without_pipelines_has_nothing_to_run() {
    check("missing_pipeline");
}

/// Faults 178.
#[test]
fn a_pipeline_needs_receivers_and_exporters() {
    check("empty_pipeline");
}

/// Faults 166.
#[test]
fn a_key_that_is_there_twice_is_shown_with_its_first_line() {
    check("duplicate_key");
}

/// Faults 178.
#[test]
fn a_reference_to_nothing_lists_what_is_defined() {
    check("undefined_exporter");
}

#[test]
fn a_duration_has_a_unit_and_is_not_negative() {
    check("bad_duration");
}

#[test]
fn an_endpoint_has_a_port_and_a_url_its_scheme() {
    check("endpoint_without_port");
}

#[test]
fn a_component_that_is_not_supported_lists_those_that_are() {
    check("unsupported_component");
}

#[test]
fn references_are_written_with_braces_and_a_known_scheme() {
    check("bare_variable");
}

#[test]
fn a_word_that_is_no_choice_lists_the_choices() {
    check("bad_enum");
}

#[test]
fn an_otlp_receiver_without_a_protocol_is_refused() {
    check("empty_protocols");
}

/// Faults 167.
#[test]
fn copies_by_aliases_count_and_a_bomb_of_them_is_refused() {
    check("bomb");
}

/// Faults 167.
#[test]
fn nesting_without_end_is_refused() {
    check("nested");
}

/// Faults 167.
#[test]
fn bytes_that_are_not_utf8_are_shown_where_they_start() {
    check("not_utf8");
}

/// Faults 166.
#[test]
fn an_empty_file_has_nothing_to_run() {
    check("empty");
}

#[test]
fn numbers_out_of_range_and_limits_that_contradict_are_refused() {
    check("out_of_range");
}

#[test]
fn pipelines_of_other_signals_are_refused_by_name() {
    check("other_signals");
}

#[test]
fn keys_of_the_go_collector_that_are_not_built_are_refused_by_name() {
    check("unsupported_key");
}

#[test]
fn words_of_the_go_collector_that_are_not_built_are_refused_with_those_that_are() {
    check("unsupported_word");
}

#[test]
fn names_of_the_go_collector_are_not_taken_for_misspelt_ones_of_ours() {
    let report = check("go_names");
    assert!(!report.contains("did you mean") && !report.contains("no key"), "{report}");
}

#[test]
fn what_is_not_yaml_is_shown_where_it_stops() {
    check("syntax");
}

#[test]
fn an_alias_needs_its_anchor() {
    check("alias");
}

#[test]
fn a_configuration_is_a_map() {
    check("list");
}

/// Faults 168.
#[test]
fn credentials_in_an_endpoint_are_refused_and_not_shown() {
    let report = check("credentials");
    assert!(!report.contains("hunt"), "{report}");
}

/// Faults 168.
#[test]
fn no_secret_is_in_a_report() {
    for name in ["secrets", "secret_file", "duplicate_header", "json"] {
        let report = check(name);
        assert!(!report.contains("hunter2"), "{report}");
    }
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
