//! The tree a configuration is before it is settings: every node knows where it was written.

use std::collections::BTreeMap;

/// Where something was written: a text the findings hold, and a part of one of its lines.
///
/// Lines and columns count characters from 1, as editors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) text: usize,
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// At least 1; 0 for a line that must not be shown.
    pub(crate) width: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Map),
    /// Something stands here, and what is wrong with it has been reported.
    Broken,
}

/// Keys are unique, so a map's order carries nothing but what its places say.
pub(crate) type Map = BTreeMap<String, Entry>;

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

/// Text that gets its type from whoever asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes, so that it may be a number, a boolean or null.
    pub(crate) plain: bool,
    /// What stood in the file, if the text was put together from the environment or other files.
    /// Messages quote this instead: the text may be a secret.
    pub(crate) written: Option<String>,
    /// Why it is text, if it is what a file holds that is not YAML.
    pub(crate) not_yaml: Option<String>,
}

/// A scalar by the core schema (YAML 1.2.2 section 10.3.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    /// Wide enough for every `i64` and `u64`.
    Int(i128),
    Float(f64),
    Text,
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind() == Kind::Null)
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.value, Value::Broken)
    }

    /// What a message calls this.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
            Value::Broken => "nothing that can be used".into(),
            Value::Scalar(scalar) => match scalar.kind() {
                Kind::Null => "nothing".into(),
                Kind::Bool(_) => format!("the boolean {}", scalar.shown()),
                Kind::Int(_) | Kind::Float(_) => format!("the number {}", scalar.shown()),
                Kind::Text => match &scalar.not_yaml {
                    Some(why) => format!("the text {:?}, in {why}", scalar.shown()),
                    None => format!("the text {:?}", scalar.shown()),
                },
            },
        }
    }
}

impl Scalar {
    pub(crate) fn new(text: String, plain: bool) -> Self {
        Self { text, plain, written: None, not_yaml: None }
    }

    /// What messages may quote.
    pub(crate) fn quotable(&self) -> &str {
        self.written.as_ref().unwrap_or(&self.text)
    }

    /// The same as messages have it.
    pub(crate) fn shown(&self) -> String {
        cut(self.quotable())
    }

    pub(crate) fn kind(&self) -> Kind {
        if !self.plain {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            text => number(text).unwrap_or(Kind::Text),
        }
    }
}

/// A text of a length that leaves a message readable.
pub(crate) fn cut(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A leading zero makes text: YAML 1.1 reads `010` as 8 and YAML 1.2 as 10, so neither is certain.
fn number(text: &str) -> Option<Kind> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let radix = |digits: &str, radix| {
        let clean = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        clean.then(|| i128::from_str_radix(digits, radix).ok()).flatten()
    };
    let value = if let Some(digits) = digits.strip_prefix("0x") {
        radix(digits, 16)
    } else if let Some(digits) = digits.strip_prefix("0o") {
        radix(digits, 8)
    } else if digits == "0" || !digits.starts_with('0') {
        radix(digits, 10)
    } else {
        None
    };
    if let Some(value) = value {
        return Some(Kind::Int(if negative { -value } else { value }));
    }
    // Rust would take "inf" and "nan", which YAML writes with a dot.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let fraction = digits.bytes().any(|byte| b".eE".contains(&byte));
    if !(plain && fraction && digits.bytes().any(|byte| byte.is_ascii_digit())) {
        return None;
    }
    text.parse().ok().map(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Scalar};

    fn kind(text: &str) -> Kind {
        Scalar::new(text.into(), true).kind()
    }

    #[test]
    fn scalars_are_typed_by_the_core_schema() {
        for text in ["", "~", "null", "NULL"] {
            assert_eq!(kind(text), Kind::Null, "{text:?}");
        }
        assert_eq!(kind("true"), Kind::Bool(true));
        assert_eq!(kind("FALSE"), Kind::Bool(false));
        for (text, value) in [("0", 0), ("-3", -3), ("+7", 7), ("0x1F", 31), ("0o17", 15)] {
            assert_eq!(kind(text), Kind::Int(value), "{text:?}");
        }
        for (text, value) in [("0.5", 0.5), ("1e3", 1e3), ("-.5", -0.5), ("10.", 10.)] {
            assert_eq!(kind(text), Kind::Float(value), "{text:?}");
        }
        for text in ["yes", "010", "1_000", "inf", "nan", "1.2.3", "e", "0x", "--1", "12h", "-"] {
            assert_eq!(kind(text), Kind::Text, "{text:?}");
        }
    }

    #[test]
    fn quotes_make_text() {
        let quoted = Scalar::new("true".into(), false);
        assert_eq!(quoted.kind(), Kind::Text);
    }

    #[test]
    fn a_long_value_is_quoted_in_part_and_one_from_elsewhere_as_written() {
        let long = Scalar::new("x".repeat(1000), true);
        assert_eq!(long.shown().chars().count(), 61);
        let written = Some("${env:PW}".into());
        let secret = Scalar { written, ..Scalar::new("hunter2".into(), true) };
        assert_eq!(secret.shown(), "${env:PW}");
    }
}
