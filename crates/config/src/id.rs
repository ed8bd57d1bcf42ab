use std::fmt;
use std::str::FromStr;

/// The name of a component or a pipeline: `type` or `type/name`.
///
/// The type is kept as it was written, also where it is another spelling of the same component
/// (`otlp` and `otlp_grpc`), because references and metrics use what was written.
///
/// ```
/// use spanwire_config::ComponentId;
///
/// let id: ComponentId = "otlp/2".parse()?;
/// assert_eq!((id.kind.as_str(), id.name.as_deref()), ("otlp", Some("2")));
/// assert_eq!(id.to_string(), "otlp/2");
/// # Ok::<(), spanwire_config::InvalidId>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId {
    /// What kind of component it is, such as `otlp`; for a pipeline its signal, `traces`.
    pub kind: String,
    /// What tells it from others of its kind.
    pub name: Option<String>,
}

impl ComponentId {
    pub(crate) fn of(kind: &str) -> Self {
        Self { kind: kind.to_owned(), name: None }
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}/{name}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}

/// Why a text is no [`ComponentId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidId {
    /// The part before the slash is not a letter followed by at most 62 letters, digits and
    /// underscores.
    Kind,
    /// There is a slash and nothing behind it, or more than 1024 characters.
    Name,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => {
                "a type starts with a letter and has at most 63 letters, digits and underscores"
            }
            Self::Name => "the name after the slash has 1 to 1024 characters",
        })
    }
}

impl std::error::Error for InvalidId {}

impl FromStr for ComponentId {
    type Err = InvalidId;

    /// As the Go Collector's `component.ID` reads it: blanks around both parts are ignored.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind.trim(), Some(name.trim())),
            None => (text.trim(), None),
        };
        let clean = kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !clean || kind.len() > 63 || !kind.starts_with(|char: char| char.is_ascii_alphabetic()) {
            return Err(InvalidId::Kind);
        }
        if name.is_some_and(|name| name.is_empty() || name.chars().count() > 1024) {
            return Err(InvalidId::Name);
        }
        Ok(Self { kind: kind.to_owned(), name: name.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::{ComponentId, InvalidId};

    #[test]
    fn an_id_is_a_type_and_perhaps_a_name() {
        let id: ComponentId = " otlp / a/b ".parse().unwrap();
        assert_eq!(id, ComponentId { kind: "otlp".into(), name: Some("a/b".into()) });
        for text in ["", "/2", "1otlp", "ot-lp", "ot lp", &"x".repeat(64)] {
            assert_eq!(text.parse::<ComponentId>(), Err(InvalidId::Kind), "{text:?}");
        }
        for text in ["otlp/", "otlp/ ", &format!("otlp/{}", "x".repeat(1025))] {
            assert_eq!(text.parse::<ComponentId>(), Err(InvalidId::Name), "{text:?}");
        }
    }
}
