//! Settings from environment variables.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use spanwire::Config;

/// Any environment gives settings that can be worked with, the same ones each time, and shows no
/// secret when it explains them.
///
/// Lines are the variables, each a name, `=` and a value.
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    let variables: Vec<(&[u8], &[u8])> = data
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            Some((&line[..at], &line[at + 1..]))
        })
        .collect();
    let lookup = |name: &str| -> Option<OsString> {
        let value = variables.iter().find(|(known, _)| *known == name.as_bytes())?.1;
        if !name.ends_with("_HEADERS") {
            return Some(OsStr::from_bytes(value).to_owned());
        }
        // Whatever precedes it, and whether that is a list of headers or not.
        Some(OsString::from_vec([value, b",authorization=", SECRET.as_bytes()].concat()))
    };
    let (config, explanation) = Config::from_environment(lookup);
    let shown = explanation.to_string();
    assert!(!shown.contains(SECRET) && !format!("{config:?}").contains(SECRET), "{shown}");
    // What is not understood is quoted, but not at any length.
    assert!(shown.len() < 64 << 10, "{} bytes", shown.len());

    let batch = &config.batch;
    assert!(batch.spans_max > 0 && batch.request_bytes_max > 0);
    let (_, again) = Config::from_environment(lookup);
    assert_eq!(shown, again.to_string());
    for setting in explanation.settings() {
        assert_eq!(explanation.get(setting.name), Some(setting));
    }
}

const SECRET: &str = "hunter2-hunter2";
