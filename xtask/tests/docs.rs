//! The documentation names tests; each of them has to be there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands in code spans as `path/to/file.rs::name of a test`, with the file it stands in.
fn named_tests() -> Vec<(PathBuf, String, String)> {
    let mut named = Vec::new();
    for entry in fs::read_dir(root().join("docs")).expect("the folder is there") {
        let page = entry.expect("readable").path();
        if page.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&page).expect("readable");
        // Every second piece is within backticks.
        for span in text.split('`').skip(1).step_by(2) {
            if let Some((file, test)) = span.split_once(".rs::") {
                named.push((page.clone(), format!("{file}.rs"), test.to_owned()));
            }
        }
    }
    named
}

#[test]
fn each_test_that_the_documentation_names_exists() {
    let named = named_tests();
    assert!(named.len() > 100, "the tables of faults, pitfalls and the protocol name hundreds");
    let mut missing = Vec::new();
    for (page, file, test) in named {
        let source = fs::read_to_string(root().join(&file)).unwrap_or_default();
        // A function, or a case of a test that is a program of its own.
        let found =
            source.contains(&format!("fn {test}(")) || source.contains(&format!("\"{test}\""));
        if !found {
            missing.push(format!("{}: {file}::{test}", page.display()));
        }
    }
    assert!(missing.is_empty(), "{} tests are not there:\n{}", missing.len(), missing.join("\n"));
}
