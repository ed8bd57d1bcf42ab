use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::load::Environment;

/// Where a configuration, or a part of it, comes from: the value of a `--config` option.
///
/// ```
/// use spanwire_config::Source;
///
/// assert_eq!("collector.yaml".parse(), Ok(Source::File("collector.yaml".into())));
/// assert_eq!("env:CONFIG".parse(), Ok(Source::Env("CONFIG".into())));
/// assert_eq!(
///     "yaml:processors::batch::timeout: 2s".parse(),
///     Ok(Source::Yaml("processors::batch::timeout: 2s".into())),
/// );
/// assert!("https://example.com/collector.yaml".parse::<Source>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of YAML, at most 4 MiB: `file:PATH`, or a path alone.
    File(PathBuf),
    /// YAML in an environment variable: `env:NAME`.
    Env(String),
    /// YAML itself: `yaml:TEXT`. Here keys may name their way by `::`, as in
    /// `processors::batch::timeout: 2s`.
    Yaml(String),
}

/// The text before the first colon is no kind of [`Source`] that is supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedSource {
    scheme: String,
}

impl fmt::Display for UnsupportedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "configuration sources {}: are not supported; supported are file:, env: and yaml:",
            self.scheme
        )
    }
}

impl std::error::Error for UnsupportedSource {}

impl FromStr for Source {
    type Err = UnsupportedSource;

    fn from_str(text: &str) -> Result<Self, UnsupportedSource> {
        match scheme(text) {
            None => Ok(Self::File(text.into())),
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some(("env", name)) => Ok(Self::Env(name.to_owned())),
            Some(("yaml", yaml)) => Ok(Self::Yaml(yaml.to_owned())),
            Some((scheme, _)) => Err(UnsupportedSource { scheme: scheme.to_owned() }),
        }
    }
}

impl fmt::Display for Source {
    /// The name that messages give it. YAML on the command line may hold secrets and is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Yaml(_) => f.write_str("yaml:"),
        }
    }
}

impl Source {
    pub(crate) fn text(&self, environment: Environment<'_>) -> Result<String, Unreadable> {
        match self {
            Self::File(path) => read(path),
            Self::Env(name) => {
                environment(name).ok_or_else(|| Unreadable::new("is not set".into()))
            }
            Self::Yaml(text) => Ok(text.clone()),
        }
    }
}

/// Splits `scheme:rest`. A scheme has two characters or more, so that `C:` is a path.
pub(crate) fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let others = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte));
    (first && others && scheme.len() > 1).then_some((scheme, rest))
}

/// A thousand times what a large configuration has.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a text could not be had, and where in it, if it is in it.
pub(crate) struct Unreadable {
    pub(crate) message: String,
    /// The text up to what is wrong in it.
    pub(crate) until: Option<String>,
}

impl Unreadable {
    fn new(message: String) -> Self {
        Self { message, until: None }
    }
}

pub(crate) fn read(path: &Path) -> Result<String, Unreadable> {
    let mut bytes = Vec::new();
    let file =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    file.map_err(|error| Unreadable::new(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Unreadable::new("is larger than 4 MiB, which no configuration is".into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Unreadable {
            message: "is not UTF-8".into(),
            until: Some(String::from_utf8_lossy(valid).into_owned()),
        }
    })
}
