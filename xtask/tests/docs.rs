//! The documentation names tests; each of them has to be there, and those of the faults to say
//! which faults they are about.

use std::collections::BTreeSet;
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

/// What the table of faults says: the number of a row with each test that it names.
fn faults_by_row() -> BTreeSet<(u32, String)> {
    let table = fs::read_to_string(root().join("docs/FAULTS.md")).expect("readable");
    let mut named = BTreeSet::new();
    for line in table.lines() {
        let number = line.split('|').nth(1).and_then(|cell| cell.trim().parse().ok());
        let Some(row) = number else { continue };
        let tests = line.split('`').skip(1).step_by(2).filter(|span| span.contains(".rs::"));
        named.extend(tests.map(|test| (row, test.to_owned())));
    }
    named
}

/// What the tests say themselves: `Faults 46, 49.` in a comment is about the next function below
/// it, or the next case of a test that is a program of its own.
fn faults_by_test() -> BTreeSet<(u32, String)> {
    let mut named = BTreeSet::new();
    for file in sources(&root().join("crates")) {
        let path = file.strip_prefix(root()).expect("below the root").display();
        let mut rows: Vec<u32> = Vec::new();
        for line in fs::read_to_string(&file).expect("readable").lines().map(str::trim_start) {
            if line.starts_with("//") {
                let numbers = line.split_once("Faults ").map_or("", |(_, numbers)| numbers);
                let end = numbers.find(['.', ':']).unwrap_or(0);
                rows.extend(numbers[..end].split(", ").filter_map(|row| row.parse::<u32>().ok()));
            } else if let Some((_, name)) = line.split_once("fn ").or(line.split_once("name: \"")) {
                let name = name.split(['(', '"']).next().unwrap_or_default();
                named.extend(rows.drain(..).map(|row| (row, format!("{path}::{name}"))));
            }
        }
    }
    named
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

#[test]
fn rows_of_faults_and_the_tests_they_name_agree() {
    let (rows, tests) = (faults_by_row(), faults_by_test());
    assert!(rows.len() > 300, "the table names hundreds");
    let silent: Vec<_> = rows.difference(&tests).collect();
    assert!(silent.is_empty(), "named by a row they do not name: {silent:#?}");
    let unnamed: Vec<_> = tests.difference(&rows).collect();
    assert!(unnamed.is_empty(), "name a row that does not name them: {unnamed:#?}");
}
