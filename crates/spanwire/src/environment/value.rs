//! The types of values that variables have, each parsed as `configuration/common.md`,
//! opentelemetry-specification v1.60, has it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use spanwire_transport::{InvalidConfig, Protocol, TransportConfig};

use crate::destination::{Destination, Output};
use crate::environment::Exporter;
use crate::explain::shown;

/// What is wrong with a value; never holds one that may be secret.
pub(super) type Problem = String;

/// What could be read of a list, and what is wrong with the rest of it.
pub(super) struct Listed<T> {
    pub(super) entries: Vec<T>,
    pub(super) problem: Option<Problem>,
}

impl<T> Listed<T> {
    fn read(text: &str, mut read: impl FnMut(&str) -> Result<T, Problem>) -> Self {
        let mut listed = Self { entries: Vec::new(), problem: None };
        let mut further = 0;
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (number, entry) in (1..).zip(entries) {
            match (read(entry), &listed.problem) {
                (Ok(value), _) => listed.entries.push(value),
                (Err(problem), None) => {
                    listed.problem = Some(format!("entry {number} is left out: {problem}"));
                }
                // One warning is enough for a list of nonsense.
                (Err(_), Some(_)) => further += 1,
            }
        }
        if let (Some(problem), 1..) = (&mut listed.problem, further) {
            problem.push_str(&format!("; and {further} more"));
        }
        listed
    }
}

/// Any other text than "true" means no; what is neither gets a warning.
pub(super) fn boolean(text: &str) -> (bool, Option<Problem>) {
    if text.eq_ignore_ascii_case("true") {
        (true, None)
    } else if text.eq_ignore_ascii_case("false") {
        (false, None)
    } else {
        (false, Some(format!("`{}` is neither true nor false, so it counts as false", brief(text))))
    }
}

pub(super) fn integer(text: &str, range: RangeInclusive<u32>) -> Result<u32, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (from, to) = (range.start(), range.end());
        format!("`{}` is not a whole number from {from} to {to}", brief(text))
    })
}

/// Milliseconds; up to 49 days, so that no sum of times overflows.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    integer(text, 0..=u32::MAX).map(|number| Duration::from_millis(number.into()))
}

pub(super) fn one_of<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, Problem> {
    match names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(*value),
        None => Err(format!("`{}` is unknown", brief(text))),
    }
}

/// `name=value` pairs, percent-decoded ("Specifying headers via environment variables" in
/// `protocol/exporter.md`). Of equal names the last one counts. Problems name no entry.
pub(super) fn headers(text: &str) -> Listed<(String, String)> {
    let mut listed = Listed::read(text, |entry| {
        let Some((name, value)) = entry.split_once('=') else {
            return Err("it is not name=value".into());
        };
        let (Some(name), Some(value)) =
            (percent_decoded(name.trim_end()), percent_decoded(value.trim_start()))
        else {
            return Err("it is not percent-encoded UTF-8".into());
        };
        match check_header(&name, &value) {
            Ok(_) => Ok((name, value)),
            Err(InvalidConfig::Header { reason, .. }) => Err(reason.into()),
            Err(_) => Err("it cannot be sent".into()),
        }
    });
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in std::mem::take(&mut listed.entries) {
        kept.retain(|(earlier, _)| !earlier.eq_ignore_ascii_case(&name));
        kept.push((name, value));
    }
    Listed { entries: kept, ..listed }
}

/// The transport knows what can be sent.
fn check_header(name: &str, value: &str) -> Result<TransportConfig, InvalidConfig> {
    TransportConfig::new(Protocol::HttpProtobuf, "http://localhost")?.header(name, value)
}

/// What `OTEL_TRACES_EXPORTER` lists.
pub(super) struct Exporters {
    pub(super) says_none: bool,
    pub(super) listed: Listed<Exporter>,
}

pub(super) fn exporters(text: &str) -> Exporters {
    let mut none = false;
    let listed = Listed::read(text, |entry| {
        let is = |name: &str| name.eq_ignore_ascii_case(entry);
        let file = entry.split_at_checked(FILE.len());
        Ok(Some(if is("otlp") {
            Exporter::Main
        } else if is("console") {
            Exporter::Other(Destination::Console)
        } else if is("otlp/stdout") {
            Exporter::Other(Destination::JsonLines(Output::Stdout))
        } else if is("none") {
            none = true;
            return Ok(None);
        } else if let Some((_, rest)) = file.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(FILE))
        {
            Exporter::Other(Destination::JsonLines(Output::File(path(rest)?)))
        } else {
            return Err(format!("`{}` is unknown", brief(entry)));
        }))
    });
    let mut names = Vec::new();
    let once = |exporter: &Exporter| {
        let name = exporter.to_string();
        let is_new = !names.contains(&name);
        names.push(name);
        is_new
    };
    let entries: Vec<_> = listed.entries.into_iter().flatten().filter(once).collect();
    let problem = listed.problem.or_else(|| {
        (none && !entries.is_empty()).then(|| "`none` means nothing beside other names".into())
    });
    Exporters { says_none: none, listed: Listed { entries, problem } }
}

const FILE: &str = "file:";

/// What follows `file:`, a path as it is or the rest of a URL (RFC 8089).
fn path(rest: &str) -> Result<PathBuf, Problem> {
    let path = match rest.strip_prefix("//") {
        None => Some(rest.to_owned()),
        Some(url) => match url.find('/').map(|at| url.split_at(at)) {
            Some(("" | "localhost", path)) => percent_decoded(path),
            _ => None,
        },
    };
    path.filter(|path| !path.is_empty()).map(PathBuf::from).ok_or_else(|| "it names no file".into())
}

/// `None` where a `%` is not followed by two hexadecimal digits, or where it is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = after.split_first_chunk::<2>()?;
            let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
            bytes.push(u8::try_from(high? << 4 | low?).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A value in a message.
pub(super) fn brief(text: &str) -> String {
    shown(text, 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_within_their_range_and_nothing_else() {
        assert_eq!(integer("0", 0..=u32::MAX), Ok(0));
        assert_eq!(integer("2147483647", 0..=u32::MAX), Ok(2_147_483_647));
        assert_eq!(integer("007", 1..=10), Ok(7));
        for bad in ["", "-1", "+1", "1.0", "1e3", "0x10", "1 000", "4294967296", "９", "abc"] {
            assert!(integer(bad, 0..=u32::MAX).is_err(), "{bad}");
        }
        assert!(integer("0", 1..=u32::MAX).is_err());
    }

    #[test]
    fn true_is_the_only_word_for_true_and_other_words_are_reported() {
        for (text, value, reported) in [
            ("true", true, false),
            ("TRUE", true, false),
            ("False", false, false),
            ("1", false, true),
            ("yes", false, true),
            ("tru", false, true),
        ] {
            let (read, problem) = boolean(text);
            assert_eq!((read, problem.is_some()), (value, reported), "{text}");
        }
    }

    #[test]
    fn headers_are_decoded_and_of_equal_names_the_last_counts() {
        let read = headers("a=1, b = x%20%3D%2c ,,c=,A=2,d=e=f");
        assert_eq!(read.problem, None);
        let expected = [("b", "x =,"), ("c", ""), ("A", "2"), ("d", "e=f")];
        assert_eq!(read.entries, expected.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn bad_headers_are_left_out_and_their_contents_are_not_repeated() {
        for (bad, number) in [
            ("hunter2", 2),
            ("=hunter2", 2),
            ("hunter2%=x", 2),
            ("x=hunter2%2", 2),
            ("x=hunter2%zz", 2),
            ("x=hunter2%ff", 2),
            ("x=hunter2%0a", 2),
            ("hunter2 x=1", 2),
            ("content-type=hunter2", 2),
        ] {
            let read = headers(&format!("a=1,{bad},b=2"));
            assert_eq!(read.entries.len(), 2, "{bad}");
            let problem = read.problem.expect("reported");
            assert!(problem.starts_with(&format!("entry {number} is left out: ")), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        let read = headers("x,y,z");
        assert_eq!(
            read.problem.as_deref(),
            Some("entry 1 is left out: it is not name=value; and 2 more")
        );
    }

    #[test]
    fn files_are_paths_or_urls() {
        for (rest, expected) in [
            ("/a/b%20c", Some("/a/b%20c")),
            ("spans.jsonl", Some("spans.jsonl")),
            ("///a/b%20c", Some("/a/b c")),
            ("//localhost/a", Some("/a")),
            ("//elsewhere/a", None),
            ("//", None),
            ("///%zz", None),
            ("", None),
        ] {
            assert_eq!(path(rest).ok(), expected.map(PathBuf::from), "{rest}");
        }
    }
}
