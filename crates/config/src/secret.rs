use std::fmt;

/// Text that is not to be seen: a header's value, a key.
///
/// Both [`Debug`](fmt::Debug) and [`Display`](fmt::Display) show `[REDACTED]`, so that it reaches
/// no log and no printed configuration by accident. It is not wiped from memory.
///
/// ```
/// use spanwire_config::Secret;
///
/// let header = Secret::from("Bearer abc");
/// assert_eq!(format!("{header} {header:?}"), "[REDACTED] [REDACTED]");
/// assert_eq!(header.expose(), "Bearer abc");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}
