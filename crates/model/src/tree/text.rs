//! Pieces of text for [`TraceTree`](crate::TraceTree): short, on one line, safe for a terminal.

use std::fmt::{self, Write};

use crate::Value;

/// Builds a text of bounded width out of texts that nobody checked.
pub(super) struct Clip {
    text: String,
    /// Characters that still fit.
    left: usize,
    /// Something did not fit.
    cut: bool,
}

impl Clip {
    /// A text on one line of at most `width` characters.
    pub(super) fn text(text: &str, width: usize) -> String {
        Self::build(width, |clip| clip.push(text))
    }

    /// A value on one line of at most `width` characters, near to how it would be written in source.
    pub(super) fn value(value: &Value<'_>, width: usize) -> String {
        Self::build(width, |clip| clip.push_value(value, LEVELS_SHOWN))
    }

    /// An ellipsis stands in the last place where something did not fit.
    fn build(width: usize, push: impl FnOnce(&mut Self)) -> String {
        let mut clip = Self { text: String::new(), left: width, cut: false };
        push(&mut clip);
        if clip.cut {
            if clip.left == 0 {
                clip.text.pop();
            }
            clip.text.push('…');
        }
        clip.text
    }

    /// Appends what fits; past the first character that does not, nothing more.
    fn push(&mut self, text: &str) {
        for char in text.chars() {
            let escape = char.escape_default();
            let width = if is_printable(char) { 1 } else { escape.len() };
            self.cut |= width > self.left;
            if self.cut {
                return;
            }
            self.left -= width;
            if is_printable(char) {
                self.text.push(char);
            } else {
                self.text.extend(escape);
            }
        }
    }

    fn push_value(&mut self, value: &Value<'_>, levels: usize) {
        match value {
            Value::Empty => self.push("(empty)"),
            Value::String(text) => self.push_quoted(text),
            Value::Bool(truth) => self.push(if *truth { "true" } else { "false" }),
            Value::Int(number) => self.push(&number.to_string()),
            Value::Double(number) => self.push(&format!("{number:?}")),
            Value::Bytes(bytes) => {
                let mut hex = String::from("0x");
                for byte in bytes.iter().take(self.left / 2) {
                    // Writing to a `String` can't fail.
                    let _infallible = write!(hex, "{byte:02x}");
                }
                self.push(&hex);
            }
            Value::Array(values) if values.is_empty() => self.push("[]"),
            Value::Map(entries) if entries.is_empty() => self.push("{}"),
            Value::Array(_) | Value::Map(_) if levels == 0 => self.push("…"),
            Value::Array(values) => self.push_list(["[", "]"], values, |clip, value| {
                clip.push_value(value, levels - 1);
            }),
            Value::Map(entries) => self.push_list(["{", "}"], entries, |clip, (key, value)| {
                clip.push_quoted(key);
                clip.push(": ");
                clip.push_value(value, levels - 1);
            }),
        }
    }

    fn push_quoted(&mut self, text: &str) {
        self.push("\"");
        for part in text.split_inclusive(['"', '\\']) {
            if self.cut {
                return;
            }
            match part.strip_suffix(['"', '\\']) {
                Some(start) => {
                    self.push(start);
                    self.push(if part.ends_with('"') { "\\\"" } else { "\\\\" });
                }
                None => self.push(part),
            }
        }
        self.push("\"");
    }

    fn push_list<T>(&mut self, ends: [&str; 2], items: &[T], push: impl Fn(&mut Self, &T)) {
        self.push(ends[0]);
        for (at, item) in items.iter().enumerate() {
            if self.cut {
                return;
            }
            if at > 0 {
                self.push(", ");
            }
            push(self, item);
        }
        self.push(ends[1]);
    }
}

/// Whether a character leaves the terminal and the reader's eye alone: no control character, and
/// none of those that are invisible or turn the direction of writing around.
fn is_printable(char: char) -> bool {
    !char.is_control()
        && !matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A time in nanoseconds, in the unit that leaves one to three digits before the point; digits
/// beyond the third are cut, not rounded, so that 999,999 ns never read as a millisecond.
pub(super) struct Nanos(pub(super) u64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let (whole, thousandths) = (self.0 / unit, self.0 % unit / (unit / 1_000));
        match whole {
            0..10 => write!(f, "{whole}.{:02} {name}", thousandths / 10),
            10..100 => write!(f, "{whole}.{} {name}", thousandths / 100),
            _ => write!(f, "{whole} {name}"),
        }
    }
}

/// A count with its noun.
pub(super) struct Plural<'a>(pub(super) usize, pub(super) &'a str);

impl fmt::Display for Plural<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// The text in an ANSI style, or as it is.
pub(super) fn painted(text: &str, style: &str, colours: bool) -> String {
    if colours { format!("\x1b[{style}m{text}\x1b[0m") } else { String::from(text) }
}

/// Levels of arrays and maps written out.
const LEVELS_SHOWN: usize = 4;
