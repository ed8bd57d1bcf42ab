//! What the actions do, said once more on decoded attributes.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use regex::Regex;
use sha2::{Digest, Sha256};
use spanwire_processors::{self as processors, Action, Actions, From, Type};

use crate::decoded;
use crate::generate::{self, Encoding, UNKNOWN};

fn apply(action: &Action, attributes: &mut Vec<KeyValue>) {
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
        Action::Delete { key, pattern } => {
            let pattern = pattern.as_deref().map(|pattern| Regex::new(pattern).expect("valid"));
            attributes.retain(|attribute| {
                Some(&attribute.key) != key.as_ref()
                    && !pattern.as_ref().is_some_and(|pattern| pattern.is_match(&attribute.key))
            });
        }
        Action::Hash { key, pattern } => {
            let pattern = pattern.as_deref().map(|pattern| Regex::new(pattern).expect("valid"));
            for attribute in attributes.iter_mut().filter(|a| Some(&a.key) == key.as_ref()) {
                hash(attribute);
            }
            let matches = |a: &&mut KeyValue| pattern.as_ref().is_some_and(|p| p.is_match(&a.key));
            attributes.iter_mut().filter(matches).for_each(hash);
        }
        Action::Extract { key, pattern } => {
            let pattern = Regex::new(pattern).expect("valid");
            let Some(Value::StringValue(text)) =
                find(attributes, key).and_then(|value| value.value)
            else {
                return;
            };
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

/// Of the values that are generated; arrays and maps are left to the unit tests.
fn convert(value: Option<&Value>, to: Type) -> Option<Value> {
    Some(match (to, value?) {
        (Type::Int, Value::DoubleValue(number)) => Value::IntValue(number.trunc() as i64),
        (Type::Int, Value::BoolValue(truth)) => Value::IntValue((*truth).into()),
        (Type::Int, Value::StringValue(text)) => Value::IntValue(text.parse().ok()?),
        (Type::Double, Value::IntValue(number)) => Value::DoubleValue(*number as f64),
        (Type::Double, Value::BoolValue(truth)) => Value::DoubleValue(f64::from(*truth)),
        (Type::Double, Value::StringValue(text)) => Value::DoubleValue(text.parse().ok()?),
        _ => return None,
    })
}

fn from() -> impl Strategy<Value = From> {
    let value = prop_oneof![
        "[ab]{0,3}".prop_map(processors::Value::Str),
        (0..3_i64).prop_map(processors::Value::Int),
        (-1.0..1.0).prop_map(processors::Value::Double),
        any::<bool>().prop_map(processors::Value::Bool),
    ];
    prop_oneof![
        value.clone().prop_map(From::Value),
        generate::key().prop_map(From::Attribute),
        (generate::key(), value).prop_map(|(key, value)| From::AttributeOr(key, value)),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let key =
        || generate::key().prop_map(|key| if key.is_empty() { "new".to_owned() } else { key });
    let pattern =
        || prop_oneof![Just("^a"), Just("b$"), Just("a|priority")].prop_map(str::to_owned);
    let keys = || {
        prop_oneof![
            key().prop_map(|key| (Some(key), None)),
            (option::of(key()), pattern()).prop_map(|(key, pattern)| (key, Some(pattern))),
        ]
    };
    let extraction = prop_oneof![
        Just("(?P<a>[0-9]+)(?:\\.(?P<ab>[0-9]+))?"),
        Just("^(?P<new>[a-c]*)(?P<b>[0-9]*)"),
    ];
    let to = prop_oneof![Just(Type::Int), Just(Type::Double)];
    prop_oneof![
        (key(), from()).prop_map(|(key, from)| Action::Insert { key, from }),
        (key(), from()).prop_map(|(key, from)| Action::Update { key, from }),
        (key(), from()).prop_map(|(key, from)| Action::Upsert { key, from }),
        keys().prop_map(|(key, pattern)| Action::Delete { key, pattern }),
        keys().prop_map(|(key, pattern)| Action::Hash { key, pattern }),
        (key(), extraction)
            .prop_map(|(key, pattern)| Action::Extract { key, pattern: pattern.to_owned() }),
        (key(), to).prop_map(|(key, to)| Action::Convert { key, to }),
    ]
}

fn unknown_fields(bytes: &[u8]) -> usize {
    bytes.windows(UNKNOWN.len()).filter(|window| *window == UNKNOWN).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Faults 9, 18, 26.
    #[test]
    fn actions_on_bytes_are_actions_on_decoded_spans(
        request in generate::request(),
        list in vec(action(), 1..4),
        encoding in generate::encoding(),
    ) {
        let actions = Actions::new(list.clone()).expect("they are valid");
        let bytes = encoding.encode(&request);
        let edited = actions.spans(bytes.clone()).expect("a request");
        let mut expected = request.clone();
        for resource in &mut expected.resource_spans {
            for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
                list.iter().for_each(|action| apply(action, &mut span.attributes));
            }
        }
        if list.len() == 1 && expected == request && encoding != Encoding::Newer {
            prop_assert_eq!(edited.pieces[0].as_ptr(), bytes.as_ptr());
        }
        prop_assert_eq!(decoded(edited), expected);
    }

    /// Faults 9, 18, 26.
    #[test]
    fn actions_on_a_resource_are_actions_on_its_decoded_attributes(
        request in generate::request(),
        list in vec(action(), 1..4),
        encoding in generate::encoding(),
    ) {
        let actions = Actions::new(list.clone()).expect("they are valid");
        let bytes = encoding.encode(&request);
        let edited = actions.resources(bytes.clone()).expect("a request");
        let mut expected: ExportTraceServiceRequest = request.clone();
        for resource_spans in &mut expected.resource_spans {
            let came = resource_spans.resource.is_some();
            let mut attributes = resource_spans.resource.take().unwrap_or_default().attributes;
            list.iter().for_each(|action| apply(action, &mut attributes));
            if came || !attributes.is_empty() {
                resource_spans.resource = Some(Resource { attributes, ..Resource::default() });
            }
        }
        if list.len() == 1 && expected == request && encoding != Encoding::Newer {
            prop_assert_eq!(edited.pieces[0].as_ptr(), bytes.as_ptr());
        }
        prop_assert_eq!(decoded(edited), expected);
    }

    /// Faults 9.
    #[test]
    fn a_newer_peers_fields_outlive_each_action_on_another_attribute(
        request in generate::request(),
    ) {
        let bytes = Encoding::Newer.encode(&request);
        let from = From::Value(processors::Value::Str("x".into()));
        let actions = Actions::new(vec![
            Action::Upsert { key: "a".into(), from },
            Action::Hash { key: None, pattern: Some("b".into()) },
            Action::Extract { key: "a".into(), pattern: "(?P<new>.)".into() },
        ]);
        let actions = actions.expect("they are valid");
        // Duplicates of the key that is set go with what is in them; each other one stays.
        let gone = |attributes: &[KeyValue]| {
            attributes.iter().filter(|attribute| attribute.key == "a").count().saturating_sub(1)
        };
        let of_spans: usize = crate::spans(&request).map(|span| gone(&span.attributes)).sum();
        let edited = actions.spans(bytes.clone()).expect("a request").joined();
        prop_assert_eq!(unknown_fields(&edited) + of_spans, unknown_fields(&bytes));
        let resources = request.resource_spans.iter().filter_map(|spans| spans.resource.as_ref());
        let of_resources: usize = resources.map(|resource| gone(&resource.attributes)).sum();
        let edited = actions.resources(bytes.clone()).expect("a request").joined();
        prop_assert_eq!(unknown_fields(&edited) + of_resources, unknown_fields(&bytes));
    }
}
