/// One entry of `actions` of the attributes processor, or of `attributes` of the resource processor.
///
/// Source: README of `attributesprocessor`, opentelemetry-collector-contrib v0.159. Patterns are in
/// Go's RE2 dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `insert`: sets the attribute where there is none with this key.
    Insert {
        /// The key to set.
        key: String,
        /// What to set it to; without a value nothing is done.
        from: From,
    },
    /// `update`: sets the attribute where there is one with this key.
    Update {
        /// The key to set.
        key: String,
        /// What to set it to; without a value nothing is done.
        from: From,
    },
    /// `upsert`: sets the attribute.
    Upsert {
        /// The key to set.
        key: String,
        /// What to set it to; without a value nothing is done.
        from: From,
    },
    /// `delete`: removes attributes.
    Delete {
        /// The key of one.
        key: Option<String>,
        /// Matches somewhere in the keys of others.
        pattern: Option<String>,
    },
    /// `hash`: replaces values with their SHA-256, in 64 hexadecimal digits.
    ///
    /// Hashed are the bytes of a string, the eight little-endian ones of an integer or a double, the
    /// one of a truth value. All else becomes an empty string.
    Hash {
        /// The key of one.
        key: Option<String>,
        /// Matches somewhere in the keys of others.
        pattern: Option<String>,
    },
    /// `extract`: sets an attribute for each group of a pattern that the value, a string, matches.
    ///
    /// The group's name is the key. A group that took no part in the match sets an empty string.
    Extract {
        /// The key to read.
        key: String,
        /// Has groups, all of them named.
        pattern: String,
    },
    /// `convert`: gives the value another type. What can't be converted stays as it is.
    Convert {
        /// The key to convert.
        key: String,
        /// `converted_type`.
        to: Type,
    },
}

/// Where the value comes from that an action sets.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// `value`.
    Value(Value),
    /// `from_attribute`: the value that another attribute of the same span (or resource) has then.
    Attribute(String),
    /// `from_attribute` with `default_value`, which is for when there is no such attribute.
    AttributeOr(String, Value),
}

/// A value from the configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Str(String),
    /// A signed integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// A truth value.
    Bool(bool),
}

/// What [`Action::Convert`] converts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A signed integer: doubles are truncated, towards the nearest there is; strings are decimal.
    Int,
    /// A double: strings are decimal, `Inf`, `Infinity` or `NaN`.
    Double,
    /// Text: doubles are written as in JSON, bytes as base64, arrays and maps as JSON.
    String,
}

/// Why a list of actions can't be carried out. `index` counts the actions from 0.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidAction {
    /// The list is empty.
    #[error("no action given")]
    NoAction,
    /// An action has no key, or an empty one, and no pattern in its place.
    #[error("action {index} has no key")]
    NoKey {
        /// Which action.
        index: usize,
    },
    /// A pattern is no regular expression, or too large a one.
    #[error("action {index} has an invalid pattern")]
    Pattern {
        /// Which action.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: regex::Error,
    },
    /// The pattern of an extraction has no group to extract.
    #[error("action {index} has a pattern without a group")]
    NoGroup {
        /// Which action.
        index: usize,
    },
    /// The pattern of an extraction has a group without a name.
    #[error("action {index} has a pattern with an unnamed group")]
    UnnamedGroup {
        /// Which action.
        index: usize,
    },
}
