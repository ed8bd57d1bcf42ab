//! Where settings stand, for what is found wrong with them only when they are used.

use std::collections::BTreeMap;
use std::fmt;

use crate::id::ComponentId;
use crate::redact;
use crate::report::{Diagnostic, Severity, Texts};
use crate::tree::{Node, Place, Value};

/// The way to a setting, as `exporters::otlp::tls::ca_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Name(String),
    Item(usize),
}

impl Setting {
    /// All settings of a section at the top, such as `service`.
    #[must_use]
    pub fn section(name: &str) -> Self {
        Self(vec![Key::Name(name.to_owned())])
    }

    /// All settings of a component; `section` is `receivers`, `exporters` and so on.
    #[must_use]
    pub fn component(section: &str, id: &ComponentId) -> Self {
        Self::section(section).key(&id.to_string())
    }

    /// What stands under a key of the map that this is.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        self.with(Key::Name(name.to_owned()))
    }

    /// What stands in the list that this is, counted from 0.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.with(Key::Item(index))
    }

    fn with(&self, key: Key) -> Self {
        let Self(keys) = self;
        Self(keys.iter().cloned().chain([key]).collect())
    }

    /// Whether the line it stands in may show a secret.
    fn is_secret(&self) -> bool {
        self.0.iter().any(|key| match key {
            Key::Name(name) => redact::is_secret(name),
            Key::Item(_) => false,
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, key) in self.0.iter().enumerate() {
            match key {
                Key::Name(name) if number == 0 => f.write_str(name)?,
                Key::Name(name) => write!(f, "::{name}")?,
                Key::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where the settings of a loaded configuration stand.
///
/// Loading looks into no certificate and opens no socket. Who does finds more that is wrong, and
/// shows it as loading would have. It holds the texts of the configuration, and [`Debug`] shows
/// nothing of them.
///
/// ```
/// use spanwire_config::{Compat, Config, Report, Setting, Source};
///
/// let yaml = "
/// receivers: { otlp: { protocols: { grpc: { endpoint: 'localhost:4317' } } } }
/// exporters: { nop: }
/// service: { pipelines: { traces: { receivers: [otlp], exporters: [nop] } } }
/// ";
/// let loaded = Config::load(&[Source::Yaml(yaml.into())], &[], &|_| None, Compat::Strict)?;
/// let grpc = Setting::component("receivers", &"otlp".parse()?).key("protocols").key("grpc");
/// let found = loaded.places.error(&grpc.key("endpoint"), "the port is taken", None);
/// assert_eq!(found.location().map(|at| (at.line, at.column)), Some((2, 53)));
/// let report: Report = [found].into_iter().collect();
/// assert!(report.to_string().starts_with("error: the port is taken\n --> yaml::2:53\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Places {
    texts: Texts,
    settings: BTreeMap<String, Spot>,
}

/// Where something stands, and what is in it.
#[derive(Clone, PartialEq, Eq)]
struct Spot {
    place: Place,
    inner: Inner,
}

#[derive(Clone, PartialEq, Eq)]
enum Inner {
    Nothing,
    Map(BTreeMap<String, Spot>),
    List(Vec<Spot>),
}

impl Places {
    pub(crate) fn new(root: Option<Node>, texts: Texts) -> Self {
        let root = root.map(|root| Spot::of(root.place, root));
        let settings = match root.map(|root| root.inner) {
            Some(Inner::Map(settings)) => settings,
            _ => BTreeMap::new(),
        };
        Self { texts, settings }
    }

    /// An error about a setting, at its place: where it was not written, at that of the nearest thing
    /// around it. The message must not quote a secret; no line that may hold one is shown.
    #[must_use]
    pub fn error(
        &self,
        setting: &Setting,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Diagnostic {
        let place = self.find(setting).map(|place| match setting.is_secret() {
            true => Place { width: 0, ..place },
            false => place,
        });
        Diagnostic::new(Severity::Error, message.into(), help, place, &self.texts)
    }

    fn find(&self, Setting(keys): &Setting) -> Option<Place> {
        let mut keys = keys.iter();
        let Some(Key::Name(section)) = keys.next() else { return None };
        let mut spot = self.settings.get(section)?;
        for key in keys {
            match spot.inner.get(key) {
                Some(inner) => spot = inner,
                None => break,
            }
        }
        Some(spot.place)
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}

impl Spot {
    /// Of what `key` opens; a value that was written is its own place.
    fn of(key: Place, node: Node) -> Self {
        let is_value = matches!(node.value, Value::Scalar(_)) && !node.is_null();
        let inner = match node.value {
            Value::Scalar(_) | Value::Broken => Inner::Nothing,
            Value::List(list) => {
                Inner::List(list.into_iter().map(|node| Self::of(node.place, node)).collect())
            }
            Value::Map(map) => {
                let spot = |(key, entry): (String, _)| {
                    let crate::tree::Entry { key_place, node } = entry;
                    (key, Self::of(key_place, node))
                };
                Inner::Map(map.into_iter().map(spot).collect())
            }
        };
        Self { place: if is_value { node.place } else { key }, inner }
    }
}

impl Inner {
    fn get(&self, key: &Key) -> Option<&Spot> {
        match (self, key) {
            (Self::Map(map), Key::Name(name)) => map.get(name).or_else(|| {
                // An id may have been written with blanks around its parts.
                let is_one =
                    |text: &str| text.parse().is_ok_and(|id: ComponentId| id.to_string() == *name);
                map.iter().find(|(text, _)| is_one(text)).map(|(_, spot)| spot)
            }),
            (Self::List(list), Key::Item(index)) => list.get(*index),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Setting;
    use crate::{Compat, Config, Source};

    const YAML: &str = "receivers: { otlp / a : { protocols: { grpc: } } }
exporters:
  otlp:
    endpoint: tempo:4317
    headers: { x-team: core }
    tls: { ca_pem: none }
processors:
  resource: { attributes: [{ key: a, action: delete }, { pattern: b.*, action: delete }] }
service:
  pipelines:
    traces: { receivers: [otlp/a], processors: [resource], exporters: [otlp] }
";

    #[test]
    fn what_is_found_later_is_shown_at_its_setting_or_at_the_nearest_around_it() {
        let loaded = Config::load(&[Source::Yaml(YAML.into())], &[], &|_| None, Compat::Strict);
        let places = loaded.unwrap_or_else(|report| panic!("{report}")).places;
        let component = |section, id: &str| Setting::component(section, &id.parse().unwrap());
        let otlp = component("exporters", "otlp");
        let actions = component("processors", "resource").key("attributes");
        for (setting, name, expected) in [
            (otlp.key("endpoint"), "exporters::otlp::endpoint", Some((4, 15, true))),
            (otlp.key("compression"), "exporters::otlp::compression", Some((3, 3, true))),
            (otlp.key("tls").key("ca_pem"), "exporters::otlp::tls::ca_pem", Some((6, 20, false))),
            (
                otlp.key("headers").key("none"),
                "exporters::otlp::headers::none",
                Some((5, 5, false)),
            ),
            (
                actions.item(1).key("pattern"),
                "processors::resource::attributes[1]::pattern",
                Some((8, 67, true)),
            ),
            (
                component("receivers", "otlp/a").key("protocols").key("grpc").key("endpoint"),
                "receivers::otlp/a::protocols::grpc::endpoint",
                Some((1, 40, true)),
            ),
            (Setting::section("extensions").key("zpages"), "extensions::zpages", None),
        ] {
            assert_eq!(setting.to_string(), name);
            let found = places.error(&setting, "wrong", None);
            let is_shown = found.to_string().contains('^');
            let place = found.location().map(|at| (at.line, at.column, is_shown));
            assert_eq!(place, expected, "{found}");
        }
        assert_eq!(format!("{places:?}"), "Places { .. }");
    }
}
