use std::fmt;

/// Why text is not the OTLP/JSON it should be. Nothing of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed JSON at byte {offset}: expected {kind}")]
pub struct JsonError {
    offset: usize,
    kind: JsonErrorKind,
}

impl JsonError {
    #[cold]
    pub(super) const fn new(offset: usize, kind: JsonErrorKind) -> Self {
        Self { offset, kind }
    }

    /// Where in the text the fault lies, in bytes. Of a value that is refused as a whole, such as
    /// an identifier, this is where it begins.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What should have been there.
    #[must_use]
    pub const fn kind(&self) -> JsonErrorKind {
        self.kind
    }
}

/// What the reader expected where the text had something else.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// UTF-8, the only encoding of JSON between systems (RFC 8259, section 8.1).
    Utf8,
    /// An object, which every message is. Also found where a byte order mark precedes it.
    Object,
    /// An array, which every repeated field is.
    Array,
    /// A string.
    String,
    /// `true` or `false`.
    Bool,
    /// Any JSON value, within an unknown field.
    Value,
    /// A member's name in double quotes.
    Name,
    /// A colon between a member's name and its value.
    Colon,
    /// A comma, or the end of the array or object.
    Comma,
    /// The end of the text: a second document or rubbish follows the first.
    End,
    /// A closing quote before a control character or the end of the text.
    Quote,
    /// One of the escapes of RFC 8259, section 7; surrogates only in pairs.
    Escape,
    /// A number in the grammar of RFC 8259, section 6.
    Number,
    /// An integer without a fraction, as a number or a decimal string.
    Integer,
    /// An integer that the field's type has room for.
    Range,
    /// An enum's number: the protocol forbids names.
    Enum,
    /// A number, `"NaN"`, `"Infinity"` or `"-Infinity"`, finite unless it says otherwise.
    Double,
    /// An even count of hexadecimal digits.
    Hex,
    /// Base64, standard or URL-safe alphabet, padded or not.
    Base64,
    /// A duration in seconds, such as `"1.5s"`.
    Duration,
    /// At most 64 arrays and maps within each other in a value, 128 in an unknown field.
    Nesting,
}

impl fmt::Display for JsonErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "UTF-8",
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Bool => "true or false",
            Self::Value => "a value",
            Self::Name => "a name in double quotes",
            Self::Colon => "a colon",
            Self::Comma => "a comma or the closing bracket",
            Self::End => "the end of the text",
            Self::Quote => "a closing quote",
            Self::Escape => "a valid escape, surrogates in pairs",
            Self::Number => "a number",
            Self::Integer => "an integer, as a number or a decimal string",
            Self::Range => "an integer in the range of the field",
            Self::Enum => "an enum as a number, not by name",
            Self::Double => "a finite number, \"NaN\", \"Infinity\" or \"-Infinity\"",
            Self::Hex => "pairs of hexadecimal digits",
            Self::Base64 => "base64",
            Self::Duration => "a duration in seconds, such as \"1.5s\"",
            Self::Nesting => "fewer levels of nesting",
        })
    }
}
