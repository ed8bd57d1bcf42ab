//! What the actions do, said once more on decoded attributes.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use regex::Regex;
use sha2::{Digest, Sha256};
use spanwire_processors::{self as processors, Action, From, Type};

/// Actions with their patterns, which are simple ones, the same to Go and to `regex`.
pub(crate) struct Plain(Vec<(Action, Option<Regex>)>);

impl Plain {
    pub(crate) fn new(actions: &[Action]) -> Self {
        let compiled = actions.iter().map(|action| {
            let pattern = match action {
                Action::Delete { pattern, .. } | Action::Hash { pattern, .. } => pattern.as_deref(),
                Action::Extract { pattern, .. } => Some(&**pattern),
                _ => None,
            };
            (action.clone(), pattern.map(|pattern| Regex::new(pattern).expect("valid")))
        });
        Self(compiled.collect())
    }

    /// Carries the actions out, one after the other.
    pub(crate) fn apply(&self, attributes: &mut Vec<KeyValue>) {
        for (action, pattern) in &self.0 {
            apply(action, pattern.as_ref(), attributes);
        }
    }
}

fn apply(action: &Action, pattern: Option<&Regex>, attributes: &mut Vec<KeyValue>) {
    let matches = |key: &str| pattern.is_some_and(|pattern| pattern.is_match(key));
    match action {
        Action::Insert { key, from } => {
            if find(attributes, key).is_none() {
                set_from(attributes, key, from);
            }
        }
        Action::Update { key, from } => {
            if find(attributes, key).is_some() {
                set_from(attributes, key, from);
            }
        }
        Action::Upsert { key, from } => set_from(attributes, key, from),
        Action::Delete { key, .. } => {
            attributes.retain(|one| Some(&one.key) != key.as_ref() && !matches(&one.key));
        }
        Action::Hash { key, .. } => {
            attributes.iter_mut().filter(|one| Some(&one.key) == key.as_ref()).for_each(hash);
            attributes.iter_mut().filter(|one| matches(&one.key)).for_each(hash);
        }
        Action::Extract { key, .. } => {
            let Some(Value::StringValue(text)) =
                find(attributes, key).and_then(|value| value.value)
            else {
                return;
            };
            let pattern = pattern.expect("an extraction has one");
            let Some(captures) = pattern.captures(&text) else { return };
            for name in pattern.capture_names().flatten() {
                let group = captures.name(name).map_or("", |group| group.as_str());
                let value = AnyValue { value: Some(Value::StringValue(group.to_owned())) };
                set(attributes, name, Some(value));
            }
        }
        Action::Convert { key, to } => {
            for attribute in attributes.iter_mut().filter(|attribute| attribute.key == *key) {
                let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
                if let Some(value) = convert(value, *to) {
                    attribute.value = Some(AnyValue { value: Some(value) });
                }
            }
        }
    }
}

fn find(attributes: &[KeyValue], key: &str) -> Option<AnyValue> {
    let last = attributes.iter().rfind(|attribute| attribute.key == key)?;
    Some(last.value.clone().unwrap_or_default())
}

fn set(attributes: &mut Vec<KeyValue>, key: &str, value: Option<AnyValue>) {
    let Some(last) = attributes.iter().rposition(|attribute| attribute.key == key) else {
        attributes.push(KeyValue { key: key.to_owned(), value, key_strindex: 0 });
        return;
    };
    attributes[last].value = value;
    let mut index = 0;
    attributes.retain(|attribute| {
        index += 1;
        index > last || attribute.key != key
    });
}

fn set_from(attributes: &mut Vec<KeyValue>, key: &str, from: &From) {
    let constant = |value: &processors::Value| AnyValue {
        value: Some(match value.clone() {
            processors::Value::Str(text) => Value::StringValue(text),
            processors::Value::Int(number) => Value::IntValue(number),
            processors::Value::Double(number) => Value::DoubleValue(number),
            processors::Value::Bool(truth) => Value::BoolValue(truth),
        }),
    };
    let value = match from {
        From::Value(value) => Some(constant(value)),
        From::Attribute(from) => find(attributes, from),
        From::AttributeOr(from, or) => find(attributes, from).or_else(|| Some(constant(or))),
    };
    if value.is_some() {
        set(attributes, key, value);
    }
}

fn hash(attribute: &mut KeyValue) {
    let value = attribute.value.take().and_then(|value| value.value);
    let bytes = match value {
        Some(Value::StringValue(text)) => text.into_bytes(),
        Some(Value::BoolValue(truth)) => vec![u8::from(truth)],
        Some(Value::IntValue(number)) => number.to_le_bytes().to_vec(),
        Some(Value::DoubleValue(number)) => number.to_le_bytes().to_vec(),
        _ => {
            attribute.value = Some(AnyValue { value: Some(Value::StringValue(String::new())) });
            return;
        }
    };
    let digits = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    attribute.value = Some(AnyValue { value: Some(Value::StringValue(digits)) });
}

/// To numbers; texts of values are left to the unit tests.
fn convert(value: Option<&Value>, to: Type) -> Option<Value> {
    Some(match (to, value?) {
        (Type::Int, Value::DoubleValue(number)) => Value::IntValue(number.trunc() as i64),
        (Type::Int, Value::BoolValue(truth)) => Value::IntValue((*truth).into()),
        (Type::Int, Value::StringValue(text)) => Value::IntValue(text.parse().ok()?),
        (Type::Double, Value::IntValue(number)) => Value::DoubleValue(*number as f64),
        (Type::Double, Value::BoolValue(truth)) => Value::DoubleValue(f64::from(*truth)),
        (Type::Double, Value::StringValue(text)) => Value::DoubleValue(double(text)?),
        _ => return None,
    })
}

/// Digits beyond the range are no number to Go, and no sign stands before its `NaN`.
fn double(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let in_digits = text.contains(|char: char| char.is_ascii_digit());
    let is_number = match number.is_nan() {
        true => !text.starts_with(['+', '-']),
        false => number.is_finite() || !in_digits,
    };
    is_number.then_some(number)
}
