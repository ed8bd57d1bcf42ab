//! Every file of the fuzz corpus keeps every promise, in every `cargo test`.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a crate of its own where libFuzzer runs it")]
mod checks;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

/// Checks every file of this target's corpus.
fn repeat(target: &str, check: fn(&[u8])) {
    let folder = corpus().join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("a file").path();
        let input = fs::read(&path).expect("a file");
        if panic::catch_unwind(|| check(&input)).is_err() {
            panic!("{} breaks a promise", path.display());
        }
        files += 1;
    }
    assert!(files > 10, "{files} files in {}", folder.display());
}

#[test]
fn requests_in_protobuf_read_as_prost_reads_them() {
    repeat("view", checks::view::check);
}

#[test]
fn requests_split_into_the_same_spans() {
    repeat("split", checks::split::check);
}

#[test]
fn requests_are_edited_as_their_decoded_attributes_are_and_nowhere_else() {
    repeat("edit", checks::edit::check);
}

#[test]
fn requests_in_json_survive_both_ways() {
    repeat("json", checks::json::check);
}

#[test]
fn compressed_bodies_are_judged_by_what_they_hold() {
    repeat("decompress", checks::decompress::check);
}

#[test]
fn answers_decide_as_the_protocol_has_it() {
    repeat("response", checks::response::check);
}

#[test]
fn headers_survive_both_ways() {
    repeat("headers", checks::headers::check);
}

#[test]
fn any_environment_gives_settings_and_shows_no_secret() {
    repeat("environment", checks::environment::check);
}

#[test]
fn configurations_print_as_they_load_and_errors_have_places() {
    repeat("config", checks::config::check);
}

/// With `SPANWIRE_WRITE_SEEDS`, as `cargo xtask fuzz --seed-corpus` sets it, they are put there.
///
/// Their bytes are not compared: those of a compressed one depend on the processor.
#[test]
fn every_seed_is_in_the_corpus() {
    let is_writing = std::env::var_os("SPANWIRE_WRITE_SEEDS").is_some();
    for (path, seed) in checks::seeds::all() {
        let path = corpus().join(path);
        if is_writing {
            let folder = path.parent().expect("a target's");
            fs::create_dir_all(folder).and_then(|()| fs::write(&path, seed)).expect("written");
        }
        assert!(path.exists(), "{} is missing: `cargo xtask fuzz --seed-corpus`", path.display());
    }
}
