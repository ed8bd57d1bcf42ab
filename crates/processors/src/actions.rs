use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use regex::bytes::Regex;
use sha2::{Digest, Sha256};
use spanwire_codec::edit::{self, Attributes, Edited, Encoded, Value};
use spanwire_codec::view::{AnyValue, Malformed};

use crate::action::{Action, From, InvalidAction, Type};
use crate::{action, convert, pattern};

/// A list of [`Action`]s, carried out one after the other on each span or each resource.
///
/// Each action sees what those before it have done. Where a key comes twice its last value is read;
/// setting the key leaves one attribute with it, deleting, hashing and converting it concerns all.
///
/// Cost: each action visits each attribute once; a span or resource that doesn't change is not
/// rewritten. One that does is copied, and what is added to it. See [`spanwire_codec::edit`]. Threads
/// that share patterns now and then wait for each other; a clone has its own.
///
/// ```
/// use spanwire_processors::{Action, Actions, InvalidAction};
///
/// let unnamed = Action::Extract { key: "http.path".into(), pattern: "^/v1/([a-z]+)".into() };
/// assert_eq!(Actions::new(vec![unnamed]).err(), Some(InvalidAction::UnnamedGroup { index: 0 }));
/// ```
#[derive(Clone)]
pub struct Actions {
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Set { when: When, key: Box<[u8]>, from: Source },
    Delete(Keys),
    Hash(Keys),
    Extract { key: Box<[u8]>, pattern: Regex, groups: Vec<Box<[u8]>> },
    Convert { key: Box<[u8]>, to: Type },
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    Absent,
    Present,
    Always,
}

#[derive(Clone)]
enum Source {
    Value(Encoded),
    Attribute { key: Box<[u8]>, or: Option<Encoded> },
}

/// One key, or all that match, or both: the one first.
#[derive(Clone)]
struct Keys {
    key: Option<Box<[u8]>>,
    pattern: Option<Regex>,
}

impl Actions {
    /// Compiles a list of actions.
    ///
    /// # Errors
    ///
    /// [`InvalidAction`] for the first one that can't be carried out, or if there is none.
    pub fn new(actions: Vec<Action>) -> Result<Self, InvalidAction> {
        if actions.is_empty() {
            return Err(InvalidAction::NoAction);
        }
        let steps = actions.into_iter().enumerate().map(|(index, action)| step(index, action));
        Ok(Self { steps: steps.collect::<Result<_, _>>()? })
    }

    /// Lets `others` follow, so that one pass over a request does what two would.
    ///
    /// ```
    /// use spanwire_processors::{Action, Actions, From, Value};
    ///
    /// let set = |key: &str, from| Actions::new(vec![Action::Upsert { key: key.into(), from }]);
    /// let mut both = set("a", From::Value(Value::Int(1)))?;
    /// both.append(set("b", From::Attribute("a".into()))?);
    /// let span = bytes::Bytes::from_static(&[0x0A, 4, 0x12, 2, 0x12, 0]);
    /// let b = [0x0A, 1, b'b', 0x12, 2, 0x18, 1];
    /// assert!(both.spans(span)?.joined().ends_with(&b), "it has what the first one set");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(&mut self, others: Self) {
        self.steps.extend(others.steps);
    }

    /// Carries the actions out on the attributes of each span, as the attributes processor does.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where the framing is wrong down to the fields of a span.
    pub fn spans(&self, request: Bytes) -> Result<Edited, Malformed> {
        edit::span_attributes(&request, |attributes| self.apply(attributes))
    }

    /// Carries the actions out on the attributes of each resource, as the resource processor does.
    /// Where there is no resource, one is made if an attribute is to be in it.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where the framing is wrong; spans are not looked into.
    pub fn resources(&self, request: Bytes) -> Result<Edited, Malformed> {
        edit::resource_attributes(&request, |attributes| self.apply(attributes))
    }

    fn apply<'a>(&'a self, attributes: &mut Attributes<'a>) {
        for step in &self.steps {
            step.apply(attributes);
        }
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actions({})", self.steps.len())
    }
}

fn step(index: usize, action: Action) -> Result<Step, InvalidAction> {
    let key = |key: String| match key.is_empty() {
        true => Err(InvalidAction::NoKey { index }),
        false => Ok(key.into_bytes().into_boxed_slice()),
    };
    let compile = |pattern: &str| {
        pattern::compile(pattern).map_err(|source| InvalidAction::Pattern { index, source })
    };
    let set = |when, name: String, from| {
        let key = key(name)?;
        let encode = |value: action::Value| Encoded::new(&key, &value.into());
        let from = match from {
            From::Value(value) => Source::Value(encode(value)),
            From::Attribute(from) => Source::Attribute { key: from.into_bytes().into(), or: None },
            From::AttributeOr(from, value) => {
                Source::Attribute { key: from.into_bytes().into(), or: Some(encode(value)) }
            }
        };
        Ok(Step::Set { when, key, from })
    };
    // An empty text counts as none, as it does in the configuration.
    let keys = |name: Option<String>, pattern: Option<String>| {
        let pattern = pattern.filter(|pattern| !pattern.is_empty());
        let key = match (name.unwrap_or_default(), &pattern) {
            (name, Some(_)) if name.is_empty() => None,
            (name, _) => Some(key(name)?),
        };
        Ok(Keys { key, pattern: pattern.as_deref().map(compile).transpose()? })
    };
    match action {
        Action::Insert { key, from } => set(When::Absent, key, from),
        Action::Update { key, from } => set(When::Present, key, from),
        Action::Upsert { key, from } => set(When::Always, key, from),
        Action::Delete { key, pattern } => keys(key, pattern).map(Step::Delete),
        Action::Hash { key, pattern } => keys(key, pattern).map(Step::Hash),
        Action::Extract { key: name, pattern } => {
            let (key, pattern) = (key(name)?, compile(&pattern)?);
            let names = pattern.capture_names().skip(1);
            let groups =
                names.map(|name| Some(name?.as_bytes().into())).collect::<Option<Vec<_>>>();
            let groups = groups.ok_or(InvalidAction::UnnamedGroup { index })?;
            if groups.is_empty() {
                return Err(InvalidAction::NoGroup { index });
            }
            Ok(Step::Extract { key, pattern, groups })
        }
        Action::Convert { key: name, to } => Ok(Step::Convert { key: key(name)?, to }),
    }
}

impl Step {
    fn apply<'a>(&'a self, attributes: &mut Attributes<'a>) {
        match self {
            Step::Set { when, key, from } => {
                let wanted = match when {
                    When::Absent => attributes.get(key).is_none(),
                    When::Present => attributes.get(key).is_some(),
                    When::Always => true,
                };
                if wanted {
                    from.set(attributes, key);
                }
            }
            Step::Delete(keys) => {
                attributes.retain(|key| !keys.is(key) && !keys.matches(key));
            }
            Step::Hash(keys) => {
                attributes.update(|key, value| keys.is(key).then(|| hash(value)));
                attributes.update(|key, value| keys.matches(key).then(|| hash(value)));
            }
            Step::Extract { key, pattern, groups } => {
                let Some(AnyValue::String(text)) = attributes.get(key) else { return };
                let Some(captures) = pattern.captures(text) else { return };
                let texts = captures.iter().skip(1).map(|group| match group {
                    Some(group) => group.as_bytes().to_vec(),
                    None => Vec::new(),
                });
                let texts = texts.collect::<Vec<_>>();
                for (group, text) in groups.iter().zip(texts) {
                    attributes.set_value(group, &Value::String(Cow::Owned(text)));
                }
            }
            Step::Convert { key, to } => {
                attributes
                    .update(|this, value| (*this == **key).then(|| convert::to(*to, value))?);
            }
        }
    }
}

impl Source {
    fn set<'a>(&'a self, attributes: &mut Attributes<'a>, key: &'a [u8]) {
        match self {
            Source::Value(attribute) => attributes.set(attribute),
            Source::Attribute { key: from, or } => {
                if !attributes.copy(key, from)
                    && let Some(attribute) = or
                {
                    attributes.set(attribute);
                }
            }
        }
    }
}

impl Keys {
    fn is(&self, key: &[u8]) -> bool {
        self.key.as_deref() == Some(key)
    }

    fn matches(&self, key: &[u8]) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(key))
    }
}

impl std::convert::From<action::Value> for Value<'static> {
    fn from(value: action::Value) -> Self {
        match value {
            action::Value::Str(text) => Value::String(Cow::Owned(text.into_bytes())),
            action::Value::Int(number) => Value::Int(number),
            action::Value::Double(number) => Value::Double(number),
            action::Value::Bool(truth) => Value::Bool(truth),
        }
    }
}

fn hash(value: AnyValue<'_>) -> Value<'static> {
    let digest = match value {
        AnyValue::String(text) => Sha256::digest(text),
        AnyValue::Bool(truth) => Sha256::digest([u8::from(truth)]),
        AnyValue::Int(number) => Sha256::digest(number.to_le_bytes()),
        AnyValue::Double(number) => Sha256::digest(number.to_bits().to_le_bytes()),
        AnyValue::Empty | AnyValue::Array(_) | AnyValue::Map(_) | AnyValue::Bytes(_) => {
            return Value::String(Cow::Borrowed(b""));
        }
    };
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    Value::String(digits.map(|digit| b"0123456789abcdef"[usize::from(digit)]).collect())
}
