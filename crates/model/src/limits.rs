use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::Value;

/// How much one span may hold; what is over is left out and counted.
///
/// ```
/// use spanwire_model::{Limits, Value};
///
/// let limits = Limits { attribute_value_length: 3, ..Limits::default() };
/// let mut tags = Value::from(vec!["crème", "brûlée"]);
/// limits.cut(&mut tags);
/// assert_eq!(tags, Value::from(vec!["crè", "brû"]));
/// ```
///
/// Defaults are those of "Span Limits" and "Attribute Limits", opentelemetry-specification v1.60.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attributes of a span.
    pub attributes: u32,
    /// Length of a string in characters, of a byte array in bytes; inside arrays and maps too.
    pub attribute_value_length: u32,
    /// Levels of arrays and maps within a value; what is nested deeper becomes empty.
    pub attribute_value_depth: u32,
    /// Events of a span.
    pub events: u32,
    /// Attributes of an event.
    pub event_attributes: u32,
    /// Links of a span.
    pub links: u32,
    /// Attributes of a link.
    pub link_attributes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attributes: 128,
            attribute_value_length: u32::MAX,
            attribute_value_depth: Self::DEPTH_MAX,
            events: 128,
            event_attributes: 128,
            links: 128,
            link_attributes: 128,
        }
    }
}

impl Limits {
    /// The deepest nesting a value in [`Attributes`](crate::Attributes) may have, whatever is
    /// configured: values are walked by recursion, and this is what bounds the stack.
    pub const DEPTH_MAX: u32 = 64;

    /// Cuts a value to the limits of length and depth, and maps to one entry for each key, the last.
    ///
    /// Cost: nothing for a scalar without a limit of length; else one pass over the value, and `n log n`
    /// in the keys of a map. What is cut off is freed without recursion, however deep it is.
    #[inline]
    pub fn cut(&self, value: &mut Value<'_>) {
        if self.attribute_value_length == u32::MAX {
            match value {
                Value::Array(_) | Value::Map(_) => {}
                _ => return,
            }
        }
        self.cut_at(value, self.attribute_value_depth.min(Self::DEPTH_MAX));
    }

    /// The longest start of a text within the limit of length; borrows.
    #[must_use]
    #[inline]
    pub fn cut_text<'a>(&self, text: &'a str) -> &'a str {
        // A text has at most as many characters as bytes, so most need no counting.
        if text.len() <= self.attribute_value_length as usize {
            return text;
        }
        self.cut_long_text(text)
    }

    #[cold]
    fn cut_long_text<'a>(&self, text: &'a str) -> &'a str {
        match text.char_indices().nth(self.attribute_value_length as usize) {
            Some((end, _)) => &text[..end],
            None => text,
        }
    }

    fn cut_at(&self, value: &mut Value<'_>, depth_left: u32) {
        let length_max = self.attribute_value_length as usize;
        match value {
            Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => {}
            Value::String(text) => {
                let kept = self.cut_text(text).len();
                match text {
                    Cow::Borrowed(text) => *text = &text[..kept],
                    Cow::Owned(text) => text.truncate(kept),
                }
            }
            Value::Bytes(Cow::Borrowed(bytes)) => *bytes = &bytes[..bytes.len().min(length_max)],
            Value::Bytes(Cow::Owned(bytes)) => bytes.truncate(length_max),
            Value::Array(_) | Value::Map(_) if depth_left == 0 => {
                std::mem::take(value).dismantle();
            }
            Value::Array(values) => {
                for value in values {
                    self.cut_at(value, depth_left - 1);
                }
            }
            Value::Map(entries) => {
                for (_, value) in &mut *entries {
                    self.cut_at(value, depth_left - 1);
                }
                let mut keys = BTreeSet::new();
                if !entries.iter().all(|(key, _)| keys.insert(&**key)) {
                    *value = Value::map(std::mem::take(entries));
                }
            }
        }
    }
}
