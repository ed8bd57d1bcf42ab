//! Writing YAML that reads back as it was meant.

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::duration;
use crate::tree::{Kind, Scalar};

/// Writes block YAML.
#[derive(Default)]
pub(crate) struct Yaml {
    out: String,
    depth: usize,
}

impl Yaml {
    pub(crate) fn finish(self) -> String {
        self.out
    }

    pub(crate) fn line(&mut self, key: &str, value: impl Display) {
        let width = 2 * self.depth;
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "{:width$}{}: {value}", "", scalar(key));
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.line(key, scalar(value));
    }

    pub(crate) fn path(&mut self, key: &str, value: &Path) {
        self.text(key, &value.to_string_lossy());
    }

    pub(crate) fn duration(&mut self, key: &str, value: Duration) {
        self.line(key, duration::format(value));
    }

    /// A map; an empty one is written as such, since a null one may mean something else.
    pub(crate) fn map(&mut self, key: &str, body: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.line(key, "");
        // "key: " becomes "key:".
        self.out.truncate(self.out.trim_end().len());
        self.out.push('\n');
        let inner = self.out.len();
        self.depth += 1;
        body(self);
        self.depth -= 1;
        if self.out.len() == inner {
            self.out.truncate(start);
            self.line(key, "{}");
        }
    }

    /// An item of a list, which holds at least one line.
    pub(crate) fn item(&mut self, body: impl FnOnce(&mut Self)) {
        let dash = self.out.len() + 2 * self.depth;
        self.depth += 1;
        body(self);
        self.depth -= 1;
        // The first line starts with the dash instead of a blank.
        if self.out.is_char_boundary(dash + 1) {
            self.out.replace_range(dash..dash + 1, "-");
        }
    }

    pub(crate) fn list<T>(&mut self, key: &str, items: &[T], word: impl Fn(&T) -> String) {
        let items: Vec<String> = items.iter().map(|item| scalar(&word(item))).collect();
        self.line(key, format_args!("[{}]", items.join(", ")));
    }

    pub(crate) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// A scalar that is read back as this text, with `$` doubled against expansion.
pub(crate) fn scalar(text: &str) -> String {
    let text = text.replace('$', "$$");
    let plain = |char: char| char.is_ascii_alphanumeric() || "_./:-$".contains(char);
    let safe = text.chars().all(plain)
        && text.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '/')
        && !text.ends_with(':');
    let as_text = Scalar::new(text.clone(), true).kind() == Kind::Text;
    if safe && as_text {
        return text;
    }
    let mut out = String::from('"');
    for char in text.chars() {
        match char {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            char if (char as u32) < 0x20 || (0x7f..0xa0).contains(&(char as u32)) => {
                let _ = write!(out, "\\u{:04X}", char as u32);
            }
            char => out.push(char),
        }
    }
    out + "\""
}
