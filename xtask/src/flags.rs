//! Flags for the compiler: the caller's, and those that a command needs beside them.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::process::Command;

/// The caller's flags for the compiler, out of the environment. Flags in cargo's configuration files are
/// not among them, and count no more once these are given to a cargo, be they none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flags(Vec<String>);

impl Flags {
    /// Those of this process.
    pub(crate) fn of_caller() -> Result<Self, String> {
        let [encoded, plain] = [ENCODED, PLAIN].map(env::var_os);
        Self::new(encoded.as_deref(), plain.as_deref())
    }

    /// Out of the two variables, of which cargo too takes the first if it is there at all.
    fn new(encoded: Option<&OsStr>, plain: Option<&OsStr>) -> Result<Self, String> {
        let (given, separator) = match (encoded, plain) {
            (Some(encoded), _) => (encoded, SEPARATOR),
            (None, Some(plain)) => (plain, ' '),
            (None, None) => return Ok(Self(Vec::new())),
        };
        let given = given.to_str().ok_or("the flags for the compiler are not UTF-8")?;
        let flags = given.split(separator).map(str::trim).filter(|flag| !flag.is_empty());
        Ok(Self(flags.map(str::to_owned).collect()))
    }

    /// Has a cargo use them, followed by these.
    pub(crate) fn give(&self, cargo: &mut Command, own: &[String]) {
        cargo.env_remove(PLAIN).env(ENCODED, self.with(own));
    }

    fn with(&self, own: &[String]) -> String {
        let all: Vec<&str> = self.0.iter().chain(own).map(String::as_str).collect();
        all.join(&SEPARATOR.to_string())
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

const ENCODED: &str = "CARGO_ENCODED_RUSTFLAGS";
const PLAIN: &str = "RUSTFLAGS";

/// Between encoded flags, so that a flag may have spaces in it.
const SEPARATOR: char = '\u{1f}';

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(encoded: Option<&str>, plain: Option<&str>) -> String {
        let own = ["-Cprofile-use=/a folder/p.profdata".to_owned()];
        let flags = Flags::new(encoded.map(OsStr::new), plain.map(OsStr::new));
        flags.expect("UTF-8").with(&own).replace(SEPARATOR, "|")
    }

    #[test]
    fn the_callers_flags_come_first_and_are_all_there() {
        let profile = "-Cprofile-use=/a folder/p.profdata";
        for (encoded, plain, expected) in [
            (None, None, ""),
            (None, Some(""), ""),
            (None, Some(" -g  -Ctarget-cpu=native "), "-g|-Ctarget-cpu=native|"),
            (Some("-Clink-arg=a b\u{1f}-g"), None, "-Clink-arg=a b|-g|"),
            (Some("-g"), Some("-Copt-level=1"), "-g|"),
            // Cargo takes the encoded ones where they are set, be they none.
            (Some(""), Some("-g"), ""),
        ] {
            assert_eq!(merged(encoded, plain), format!("{expected}{profile}"));
        }
    }
}
