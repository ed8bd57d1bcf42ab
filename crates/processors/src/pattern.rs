//! Regular expressions as Go's `regexp` reads them: the RE2 syntax, compiled by the `regex` crate.
//!
//! Both run in linear time, and nearly all patterns mean the same to both. What this module translates
//! is where they differ: in Go `\d`, `\s`, `\w` and `\b` know ASCII only; a `[` within a class and a
//! `{` that begins no repetition stand for themselves; there is `\Q..\E`, and no set operation.
//!
//! Left are some differences: octal escapes and `\C` are refused here, and a `.` doesn't match
//! what is not UTF-8.
//!
//! Source: "Syntax", package `regexp/syntax` of Go.

use std::iter::Peekable;
use std::str::Chars;

use regex::bytes::{Regex, RegexBuilder};

/// Memory that a compiled pattern may take, in bytes: a pattern is refused that would take more.
const COMPILED_BYTES_MAX: usize = 10 << 20;

/// Compiles a pattern that has been written for Go.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translate(pattern)).size_limit(COMPILED_BYTES_MAX).build()
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + pattern.len() / 4);
    let mut rest = pattern.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '\\' => escape(&mut rest, &mut out, false),
            '[' => class(&mut rest, &mut out),
            '{' if !is_repetition(rest.clone()) => out.push_str("\\{"),
            char => out.push(char),
        }
    }
    out
}

/// Translates a class whose `[` has just been read.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    out.extend(rest.next_if_eq(&'^'));
    // The first one stands for itself.
    if rest.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    let mut before = None;
    while let Some(char) = rest.next() {
        match char {
            '\\' => escape(rest, out, true),
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                // A name such as `[:alpha:]`.
                for char in rest.by_ref() {
                    out.push(char);
                    if char == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            '&' | '~' => out.extend(['\\', char]),
            '-' if before == Some('-') => out.push_str("\\-"),
            char => out.push(char),
        }
        if char == ']' {
            break;
        }
        before = Some(char);
    }
}

/// Translates an escape whose backslash has just been read.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String, in_class: bool) {
    let Some(char) = rest.next() else {
        out.push('\\');
        return;
    };
    match char {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'b' | 'B' if !in_class => out.extend(["(?-u:\\", char.encode_utf8(&mut [0; 4]), ")"]),
        // Here they would be the borders of words.
        '<' | '>' => out.push(char),
        'Q' if !in_class => literal(rest, out),
        'p' | 'P' | 'x' => {
            out.extend(['\\', char]);
            if rest.peek() == Some(&'{') {
                for char in rest.by_ref() {
                    out.push(char);
                    if char == '}' {
                        break;
                    }
                }
            }
        }
        char => out.extend(['\\', char]),
    }
}

/// Translates what stands for itself, up to a `\E` or the end.
fn literal(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut text = String::new();
    while let Some(char) = rest.next() {
        if char == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(char);
    }
    out.push_str(&regex::escape(&text));
}

/// Whether a number, or two separated by a comma the second of which may be absent, and a `}` follow.
fn is_repetition(mut rest: Peekable<Chars<'_>>) -> bool {
    let mut number = || {
        let mut digits = 0;
        while rest.next_if(char::is_ascii_digit).is_some() {
            digits += 1;
        }
        (digits > 0, rest.next())
    };
    match number() {
        (true, Some('}')) => true,
        (true, Some(',')) => number().1 == Some('}'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first match, as text.
    fn first<'t>(pattern: &str, text: &'t str) -> Option<&'t str> {
        let regex = compile(pattern).expect("a pattern");
        let found = regex.find(text.as_bytes())?;
        Some(&text[found.range()])
    }

    #[test]
    fn perl_classes_and_borders_know_ascii_only() {
        assert_eq!(first(r"\w+", "José"), Some("Jos"));
        assert_eq!(first(r"[\w-]+", "a-é"), Some("a-"));
        assert_eq!(first(r"^[^\d]+", "ab1"), Some("ab"));
        assert_eq!(first(r"\d", "٣"), None);
        assert_eq!(first(r"\s", "\u{A0}"), None);
        assert_eq!(first(r"[\S]\W", "aé"), Some("aé"));
        assert_eq!(first(r"Jos\b", "José"), Some("Jos"));
        assert_eq!(first(r"Jos\B", "Josa"), Some("Jos"));
    }

    #[test]
    fn what_opens_nothing_stands_for_itself() {
        assert_eq!(first(r"^/users/{id}$", "/users/{id}"), Some("/users/{id}"));
        assert_eq!(first(r"a{,2}", "a{,2}"), Some("a{,2}"));
        assert_eq!(first(r"a{2}", "aaa"), Some("aa"));
        assert_eq!(first(r"a{2,}", "aaa"), Some("aaa"));
        assert_eq!(first(r"a{1,2}", "aaa"), Some("aa"));
        assert_eq!(first(r"[^[]+", "ab[c"), Some("ab"));
        assert_eq!(first(r"[]a]+", "b]a"), Some("]a"));
        assert_eq!(first(r"[a&&b]+", "b&a"), Some("b&a"));
        assert_eq!(first(r"[a~~b]+", "~"), Some("~"));
        assert_eq!(first(r"[+--]+", "a,-+"), Some(",-+"));
        assert_eq!(first(r"\<a\>", "<a>"), Some("<a>"));
    }

    #[test]
    fn quotes_names_and_code_points_are_known() {
        assert_eq!(first(r"\Qa.b[\E+", "a.b[["), Some("a.b[["));
        assert_eq!(first(r"\Q(", "(("), Some("("));
        assert_eq!(first(r"[[:alpha:][:digit:]]+", "-a1é"), Some("a1"));
        assert_eq!(first(r"\p{Greek}\x{1F600}\pL", "α😀é"), Some("α😀é"));
        assert_eq!(first(r"(?i)(?P<a>ÉTÉ)\z", "été"), Some("été"));
        assert_eq!(first(r"(?U)a+", "aa"), Some("a"));
    }

    #[test]
    fn a_pattern_that_would_take_too_much_memory_is_refused() {
        assert!(compile("((a{1000}){1000}){1000}").is_err());
        assert!(compile(&format!("(?:{}", "(".repeat(100_000))).is_err());
    }

    #[test]
    fn no_text_is_a_pattern_that_panics() {
        for pattern in
            ["\\", "[", "[\\", "[^", "[]", "{", "a{1", "\\Q", "\\p{", "\\x{", "[[:", "(?"]
        {
            _ = compile(pattern);
        }
    }
}
