//! Typed reading of one map, with everything wrong in it found at once.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::duration;
use crate::redact;
use crate::report::Findings;
use crate::secret::Secret;
use crate::tree::{Entry, Kind, Map, Node, Place, Value, cut};

/// A map of settings, or nothing, which stands for all defaults.
///
/// Each method that reads a key gives `None` if the key is absent, null or wrong; wrong ones are
/// among the findings by then. A key that no method has asked for is unknown: see
/// [`finish`](Self::finish).
pub(crate) struct Section<'a> {
    pub(crate) findings: &'a Findings,
    /// As `receivers::otlp`; empty at the top.
    pub(crate) path: String,
    /// The key that opens the section, where what is missing in it is reported.
    pub(crate) place: Place,
    map: Option<&'a Map>,
    known: RefCell<Vec<&'static str>>,
    /// Keys that are known and do nothing, so that nobody is told to use them.
    idle: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// `None` if `entry` holds neither a map nor nothing.
    pub(crate) fn new(findings: &'a Findings, path: String, entry: &'a Entry) -> Option<Self> {
        Self::of(findings, path, entry.key_place, &entry.node)
    }

    /// The same for a node that stands in a list.
    pub(crate) fn of(
        findings: &'a Findings,
        path: String,
        place: Place,
        node: &'a Node,
    ) -> Option<Self> {
        let map = match &node.value {
            Value::Map(map) => Some(map),
            Value::Broken => return None,
            _ if node.is_null() => None,
            _ => {
                let found = node.describe();
                findings
                    .error(node.place, format!("{path} is a map of settings, but here is {found}"));
                return None;
            }
        };
        let (known, idle) = (RefCell::default(), RefCell::default());
        Some(Self { findings, path, place, map, known, idle })
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}::{key}", self.path) }
    }

    fn entry(&self, key: &'static str) -> Option<&'a Entry> {
        self.known.borrow_mut().push(key);
        self.map?.get(key)
    }

    /// The entry of `key`, unless it is null or was reported before.
    fn value(&self, key: &'static str) -> Option<&'a Entry> {
        self.entry(key).filter(|entry| !entry.node.is_null() && !entry.node.is_broken())
    }

    /// Whether `key` is there with anything but null, usable or not.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.entry(key).is_some_and(|entry| !entry.node.is_null())
    }

    /// Whether `key` holds an empty list or an empty text.
    pub(crate) fn says_nothing(&self, key: &str) -> bool {
        self.map.and_then(|map| map.get(key)).is_some_and(|entry| match &entry.node.value {
            Value::List(list) => list.is_empty(),
            Value::Scalar(scalar) => scalar.text.is_empty(),
            _ => false,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_none_or(Map::is_empty)
    }

    /// The key and, if one was written, its value: for errors about what `key` says.
    pub(crate) fn place_of(&self, key: &str) -> Place {
        match self.map.and_then(|map| map.get(key)) {
            Some(Entry { node, .. })
                if matches!(node.value, Value::Scalar(_)) && !node.is_null() =>
            {
                node.place
            }
            Some(entry) => entry.key_place,
            None => self.place,
        }
    }

    pub(crate) fn error(&self, key: &str, message: impl Into<String>) {
        self.findings.error(self.place_of(key), message);
    }

    /// The value of `key` as messages may quote it.
    pub(crate) fn shown(&self, key: &str) -> String {
        self.map.and_then(|map| map.get(key)).map(|entry| shown(&entry.node)).unwrap_or_default()
    }

    /// The same where it should be an address: it may hold what no message shows.
    pub(crate) fn shown_url(&self, key: &str) -> String {
        match self.map.and_then(|map| map.get(key)).map(|entry| &entry.node.value) {
            Some(Value::Scalar(scalar)) => format!("{:?}", cut(&redact::url(scalar.quotable()))),
            _ => self.shown(key),
        }
    }

    fn mismatch(&self, key: &str, entry: &Entry, expected: &str) {
        let place = self.place_of(key);
        let found = entry.node.describe();
        let message = format!("{} is {expected}, but here is {found}", self.path_of(key));
        self.findings.error(place, message);
    }

    pub(crate) fn string(&self, key: &'static str) -> Option<String> {
        let entry = self.value(key)?;
        self.text(key, &entry.node)
    }

    fn text(&self, key: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar(scalar) if scalar.kind() == Kind::Text || scalar.written.is_some() => {
                return Some(scalar.text.clone());
            }
            Value::Scalar(_) if redact::is_secret(key) => self.findings.error_with_help(
                node.place,
                format!("{} is text, but here is a number or a boolean", self.path_of(key)),
                "put it in quotes",
            ),
            Value::Scalar(scalar) => self.findings.error_with_help(
                node.place,
                format!("{} is text, but here is {}", self.path_of(key), node.describe()),
                format!("put it in quotes: {:?}", scalar.shown()),
            ),
            Value::Broken => {}
            _ => self.findings.error(
                node.place,
                format!("{} is text, but here is {}", self.path_of(key), node.describe()),
            ),
        }
        None
    }

    pub(crate) fn secret(&self, key: &'static str) -> Option<Secret> {
        self.string(key).map(Secret::from)
    }

    pub(crate) fn boolean(&self, key: &'static str) -> Option<bool> {
        let entry = self.value(key)?;
        if let Value::Scalar(scalar) = &entry.node.value
            && let Kind::Bool(value) = scalar.kind()
        {
            return Some(value);
        }
        self.mismatch(key, entry, "true or false");
        None
    }

    /// A whole number within `range`.
    pub(crate) fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let entry = self.value(key)?;
        let kind = match &entry.node.value {
            Value::Scalar(scalar) => scalar.kind(),
            _ => Kind::Text,
        };
        let number = match kind {
            Kind::Int(number) => number,
            // 1e3 is a thousand; beyond 2^53 a float is no longer a whole number for certain.
            Kind::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => number as i128,
            _ => {
                self.mismatch(key, entry, "a whole number");
                return None;
            }
        };
        match u64::try_from(number).ok().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let (min, max) = range.into_inner();
                let expected = match max {
                    u64::MAX => format!("at least {min}"),
                    max => format!("from {min} to {max}"),
                };
                self.mismatch(key, entry, &expected);
                None
            }
        }
    }

    /// The same as the type it is kept in.
    pub(crate) fn size(&self, key: &'static str, min: u64) -> Option<usize> {
        let number = self.number(key, min..=usize::MAX as u64)?;
        usize::try_from(number).ok()
    }

    pub(crate) fn float(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let entry = self.value(key)?;
        let kind = match &entry.node.value {
            Value::Scalar(scalar) => scalar.kind(),
            _ => Kind::Text,
        };
        let number = match kind {
            Kind::Int(number) => number as f64,
            Kind::Float(number) => number,
            _ => {
                self.mismatch(key, entry, "a number");
                return None;
            }
        };
        if range.contains(&number) {
            return Some(number);
        }
        let (min, max) = range.into_inner();
        let expected = if max == f64::MAX {
            format!("at least {min}")
        } else {
            format!("from {min} to {max}")
        };
        self.mismatch(key, entry, &expected);
        None
    }

    pub(crate) fn duration(&self, key: &'static str) -> Option<Duration> {
        let entry = self.value(key)?;
        let Value::Scalar(scalar) = &entry.node.value else {
            self.mismatch(key, entry, "a duration such as 5s");
            return None;
        };
        if let Kind::Int(number @ 1..) = scalar.kind() {
            // Go takes it for nanoseconds, which is what nobody means.
            let help = match &scalar.written {
                Some(_) => "such as 5s".into(),
                None => format!("did you mean {number}s?"),
            };
            let message = format!("{} is a duration, which needs a unit", self.path_of(key));
            self.findings.error_with_help(entry.node.place, message, help);
            return None;
        }
        match duration::parse(&scalar.text) {
            Ok(duration) => Some(duration),
            Err(why) => {
                self.findings.error_with_help(
                    entry.node.place,
                    format!("{} is not a duration: {:?}", self.path_of(key), scalar.shown()),
                    why,
                );
                None
            }
        }
    }

    /// A duration that must not be zero.
    pub(crate) fn interval(&self, key: &'static str) -> Option<Duration> {
        let duration = self.duration(key)?;
        if duration.is_zero() {
            self.error(key, format!("{} must be longer than 0s", self.path_of(key)));
            return None;
        }
        Some(duration)
    }

    /// One of a few words, in capitals or not.
    pub(crate) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.choice_beside(key, choices, &[])
    }

    /// The same where the Go Collector has more words, for what is not built.
    pub(crate) fn choice_beside<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
        unsupported: &[&str],
    ) -> Option<T> {
        let entry = self.value(key)?;
        let text = self.text(key, &entry.node)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text))
        {
            return Some(*value);
        }
        let words: Vec<&str> =
            choices.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect();
        let message = format!("{} cannot be {}", self.path_of(key), shown(&entry.node));
        if unsupported.iter().any(|word| word.eq_ignore_ascii_case(&text)) {
            let help = listed(&words, "it can be", "");
            let message = format!("{message}, which is not supported");
            self.findings.unsupported(entry.node.place, message, Some(help));
        } else {
            let help = hint(&text, &words, "it can be", "");
            self.findings.error_with_help(entry.node.place, message, help);
        }
        None
    }

    pub(crate) fn list(&self, key: &'static str) -> Option<&'a [Node]> {
        let entry = self.value(key)?;
        match &entry.node.value {
            Value::List(list) => Some(list),
            _ => {
                self.mismatch(key, entry, "a list");
                None
            }
        }
    }

    /// A list of texts, or one text with commas, which is how a variable holds a list.
    pub(crate) fn items(&self, key: &'static str) -> Option<Vec<Item<'a>>> {
        let entry = self.value(key)?;
        let item = |node: &'a Node| Some(Item { text: self.text(key, node)?, node });
        match &entry.node.value {
            Value::List(list) => Some(list.iter().filter_map(item).collect()),
            Value::Scalar(_) => {
                let node = &entry.node;
                let text = self.text(key, node)?;
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(parts.map(|part| Item { text: part.to_owned(), node }).collect())
            }
            _ => {
                self.mismatch(key, entry, "a list");
                None
            }
        }
    }

    pub(crate) fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        Some(self.items(key)?.into_iter().map(|item| item.text).collect())
    }

    /// The entries of a map whose keys are free, such as the components of a section.
    pub(crate) fn map(&self, key: &'static str) -> Option<&'a Map> {
        let entry = self.value(key)?;
        match &entry.node.value {
            Value::Map(map) => Some(map),
            _ => {
                self.mismatch(key, entry, "a map");
                None
            }
        }
    }

    pub(crate) fn raw(&self, key: &'static str) -> Option<&'a Node> {
        self.value(key).map(|entry| &entry.node)
    }

    /// A section within this one; present with a null body too.
    pub(crate) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let entry = self.entry(key)?;
        Section::new(self.findings, self.path_of(key), entry)
    }

    /// The same where null means that it is not wanted.
    pub(crate) fn section_if_set(&self, key: &'static str) -> Option<Section<'a>> {
        self.value(key)?;
        self.section(key)
    }

    /// Keys of the Go Collector that are taken and change nothing, each with the reason.
    pub(crate) fn without_effect(&self, keys: &[(&'static str, &str)]) {
        for (key, why) in keys {
            self.idle.borrow_mut().push(key);
            if self.map.and_then(|map| map.get(*key)).is_some_and(|entry| !entry.node.is_null()) {
                self.no_effect(key, why);
            }
        }
    }

    /// A value of a key that is known changes nothing, for this reason.
    pub(crate) fn no_effect(&self, key: &str, why: &str) {
        let note = format!("{} has no effect: {why}", self.path_of(key));
        self.findings.note(self.place_of(key), &note);
    }

    /// Keys of the Go Collector that would change what happens, which is not built.
    pub(crate) fn unsupported(&self, keys: &[&'static str]) {
        for key in keys {
            if let Some(entry) = self.switched_on(key) {
                self.findings.unsupported(
                    entry.key_place,
                    format!("{} is not supported", self.path_of(key)),
                    Some("remove it, or run without it by --config-compat=warn".into()),
                );
            }
        }
    }

    /// The same for a key that nobody can do without who has written it.
    pub(crate) fn refused(&self, key: &'static str, why: &str) {
        if let Some(entry) = self.switched_on(key) {
            let message = format!("{} is not supported", self.path_of(key));
            self.findings.error_with_help(entry.key_place, message, why);
        }
    }

    /// The entry of a key that is not built, unless it says that it is not wanted either.
    fn switched_on(&self, key: &'static str) -> Option<&'a Entry> {
        self.idle.borrow_mut().push(key);
        let entry = self.map?.get(key)?;
        let off = match &entry.node.value {
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Broken => true,
            Value::Scalar(scalar) => matches!(scalar.kind(), Kind::Null | Kind::Bool(false)),
        };
        (!off && !self.says_nothing(key)).then_some(entry)
    }

    /// Reports the keys that nobody asked for. They may be anything, a misspelt
    /// `client_ca_file` too, so that nobody runs without them.
    pub(crate) fn finish(self) {
        let (known, idle) = (self.known.into_inner(), self.idle.into_inner());
        let path = if self.path.is_empty() { "the configuration" } else { &self.path };
        for (key, entry) in self.map.into_iter().flatten() {
            if !known.contains(&key.as_str()) && !idle.contains(&key.as_str()) {
                let help = match self.findings.is_full() {
                    true => String::new(),
                    false => hint(key, &known, "it has", "it has no keys"),
                };
                let message = format!("{path} has no key {:?}", shorten(key));
                self.findings.error_with_help(entry.key_place, message, help);
            }
        }
    }
}

/// A text of a list and where it stands.
pub(crate) struct Item<'a> {
    pub(crate) text: String,
    pub(crate) node: &'a Node,
}

impl Item<'_> {
    /// The text as messages may quote it.
    pub(crate) fn shown(&self) -> String {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.written.is_some() => scalar.shown(),
            _ => shorten(&self.text),
        }
    }
}

fn shown(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) => format!("{:?}", scalar.shown()),
        _ => node.describe(),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

/// `did you mean "…"?` if a candidate is near, else the candidates as [`listed`] has them.
pub(crate) fn hint(text: &str, candidates: &[&str], otherwise: &str, none: &str) -> String {
    match nearest(text, candidates) {
        Some(name) => format!("did you mean {name:?}?"),
        None => listed(candidates, otherwise, none),
    }
}

/// What is compared or listed at most: the distance takes time by the product of the lengths, and
/// somebody may define thousands.
const CANDIDATES_MAX: usize = 50;

/// The candidate that `text` may be a misspelling of.
pub(crate) fn nearest<'a>(text: &str, candidates: &[&'a str]) -> Option<&'a str> {
    const LENGTH_MAX: usize = 64;
    let text = text.to_lowercase();
    let candidates = candidates.iter().take(CANDIDATES_MAX);
    let short = candidates.filter(|name| name.len().max(text.len()) <= LENGTH_MAX);
    let near = short
        .map(|name| (strsim::osa_distance(&text, &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1));
    near.min().map(|(_, name)| name)
}

/// The candidates after `otherwise`, or `none`.
pub(crate) fn listed(candidates: &[&str], otherwise: &str, none: &str) -> String {
    if candidates.is_empty() {
        return none.to_owned();
    }
    let (mut shown, more) = match candidates.split_at_checked(CANDIDATES_MAX) {
        Some((first, rest)) => (first.to_vec(), rest.len()),
        None => (candidates.to_vec(), 0),
    };
    shown.sort_unstable();
    shown.dedup();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{otherwise} {}{more}", shown.join(", "))
}
