//! Each action by example.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use spanwire_processors::{Action, Actions, From, InvalidAction, Type};

use crate::{attribute, decoded, encoded, request, text};

fn value(text: &str) -> From {
    From::Value(spanwire_processors::Value::Str(text.to_owned()))
}

fn none() -> Option<String> {
    None
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The attributes that actions make of some.
fn acted(actions: Vec<Action>, attributes: &[KeyValue]) -> Vec<KeyValue> {
    let actions = Actions::new(actions).expect("they are valid");
    let span = Span { attributes: attributes.to_vec(), ..Span::default() };
    let edited = actions.spans(encoded(&request(vec![span]))).expect("a request");
    decoded(edited).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0).attributes
}

#[test]
fn insert_sets_what_is_absent_and_update_what_is_there() {
    let insert = || vec![Action::Insert { key: "k".into(), from: value("new") }];
    let update = || vec![Action::Update { key: "k".into(), from: value("new") }];
    let upsert = || vec![Action::Upsert { key: "k".into(), from: value("new") }];
    let (old, new, other) = (text("k", "old"), text("k", "new"), text("o", "1"));
    let there = [old.clone(), other.clone()];
    assert_eq!(acted(insert(), &there), there);
    assert_eq!(acted(update(), &there), [new.clone(), other.clone()]);
    assert_eq!(acted(upsert(), &there), [new.clone(), other.clone()]);
    let absent = [other.clone()];
    assert_eq!(acted(insert(), &absent), [other.clone(), new.clone()]);
    assert_eq!(acted(update(), &absent), absent);
    assert_eq!(acted(upsert(), &absent), [other, new]);
}

#[test]
fn a_value_is_taken_from_another_attribute_whatever_its_kind() {
    let values = vec![AnyValue { value: Some(Value::IntValue(1)) }, AnyValue::default()];
    let array = Value::ArrayValue(ArrayValue { values });
    let there = [attribute("s", array.clone())];
    let with = |value| [there[0].clone(), attribute("k", value)];
    let copied = |from| acted(vec![Action::Upsert { key: "k".into(), from }], &there);
    assert_eq!(copied(From::Attribute("s".into())), with(array));
    assert_eq!(copied(From::Attribute("x".into())), there);
    let or = From::AttributeOr("x".into(), spanwire_processors::Value::Bool(true));
    assert_eq!(copied(or), with(Value::BoolValue(true)));
}

#[test]
fn actions_see_what_those_before_them_did() {
    let actions = || {
        vec![
            Action::Insert { key: "operation".into(), from: value("default") },
            Action::Upsert {
                key: "svc.operation".into(),
                from: From::Attribute("operation".into()),
            },
            Action::Delete { key: some("operation"), pattern: none() },
        ]
    };
    assert_eq!(acted(actions(), &[]), [text("svc.operation", "default")]);
    let there = [text("operation", "sum"), text("svc.operation", "add")];
    assert_eq!(acted(actions(), &there), [text("svc.operation", "sum")]);
}

#[test]
fn delete_and_hash_take_a_key_and_all_that_match() {
    let keys = ["one", "two", "three", "four"].map(|key| text(key, "foo"));
    let delete = Action::Delete { key: some("one"), pattern: some("^t.*e$") };
    assert_eq!(acted(vec![delete], &keys), [text("two", "foo"), text("four", "foo")]);
    let digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    let hash = Action::Hash { key: some("one"), pattern: some("our") };
    let hashed = acted(vec![hash], &keys);
    assert_eq!(hashed[0], text("one", digest));
    assert_eq!(hashed[1..3], keys[1..3]);
    assert_eq!(hashed[3], text("four", digest));
}

#[test]
fn hash_is_sha_256_of_the_bytes_of_a_scalar() {
    // Of the byte 1, of 24 in eight bytes, of 2.4, and of nothing: as `sha256sum` prints them.
    for (value, digest) in [
        (
            Value::BoolValue(true),
            "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a",
        ),
        (Value::IntValue(24), "cbb032642036ec7043fa4529f06c9c9d8b12fa70ea6799a19ca8321a808d86fa"),
        (
            Value::DoubleValue(2.4),
            "df3022be03461368aa299f2f30d440fd3ca45c9b62af40733f10296a53d42859",
        ),
        (
            Value::StringValue(String::new()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (Value::BytesValue(vec![1]), ""),
        (Value::ArrayValue(ArrayValue::default()), ""),
    ] {
        let hash = Action::Hash { key: some("k"), pattern: none() };
        assert_eq!(acted(vec![hash], &[attribute("k", value)]), [text("k", digest)]);
    }
}

#[test]
fn extract_sets_an_attribute_for_each_named_group() {
    let pattern = r"^\/api\/v1\/document\/(?P<id>.*)\/update(?:\/(?P<version>\w+))?$";
    let extract = || vec![Action::Extract { key: "path".into(), pattern: pattern.into() }];
    let path = text("path", "/api/v1/document/12345678/update/v1");
    let there = [text("version", "na"), path.clone()];
    let expected = [text("version", "v1"), path, text("id", "12345678")];
    assert_eq!(acted(extract(), &there), expected);
    let path = text("path", "/api/v1/document/1/update");
    let expected = [path.clone(), text("id", "1"), text("version", "")];
    assert_eq!(acted(extract(), &[path]), expected, "a group that took no part is empty");
    for other in [text("path", "/"), attribute("path", Value::IntValue(1)), text("id", "1")] {
        assert_eq!(acted(extract(), std::slice::from_ref(&other)), [other]);
    }
}

#[test]
fn convert_changes_the_type_where_there_is_a_way() {
    use Value::{BoolValue, DoubleValue, IntValue, StringValue};
    let string = |text: &str| StringValue(text.to_owned());
    for (to, before, after) in [
        (Type::Int, string("123"), IntValue(123)),
        (Type::Int, string("4.9"), string("4.9")),
        (Type::Int, DoubleValue(-4.9), IntValue(-4)),
        (Type::Int, BoolValue(true), IntValue(1)),
        (Type::Int, Value::BytesValue(vec![49]), Value::BytesValue(vec![49])),
        (Type::Double, string("1e3"), DoubleValue(1000.0)),
        (Type::Double, string("x"), string("x")),
        (Type::Double, IntValue(3), DoubleValue(3.0)),
        (Type::Double, BoolValue(false), DoubleValue(0.0)),
        (Type::String, IntValue(-1), string("-1")),
        (Type::String, DoubleValue(99.1), string("99.1")),
        (Type::String, BoolValue(true), string("true")),
        (Type::String, Value::BytesValue(vec![1, 2]), string("AQI=")),
        (Type::String, Value::ArrayValue(ArrayValue::default()), string("[]")),
    ] {
        let convert = Action::Convert { key: "k".into(), to };
        let converted = acted(vec![convert], &[attribute("k", before)]);
        assert_eq!(converted, [attribute("k", after)]);
    }
}

/// Faults 26.
#[test]
fn a_key_that_came_twice_is_hashed_and_converted_in_all_its_places() {
    let twice = [text("k", "1"), text("k", "2")];
    let convert = Action::Convert { key: "k".into(), to: Type::Int };
    let converted = acted(vec![convert], &twice);
    assert_eq!(converted, [1, 2].map(|number| attribute("k", Value::IntValue(number))));
    let hash = Action::Hash { key: some("k"), pattern: none() };
    assert!(!acted(vec![hash], &twice).iter().any(|attribute| twice.contains(attribute)));
}

#[test]
fn what_is_set_to_what_it_is_already_is_left_alone() {
    let span = Span { attributes: vec![text("tier", "edge")], ..Span::default() };
    let bytes = encoded(&request(vec![span]));
    let upsert = Action::Upsert { key: "tier".into(), from: value("edge") };
    let convert = Action::Convert { key: "tier".into(), to: Type::String };
    let itself = Action::Update { key: "tier".into(), from: From::Attribute("tier".into()) };
    let actions = Actions::new(vec![upsert, convert, itself]).expect("they are valid");
    let edited = actions.spans(bytes.clone()).expect("a request");
    assert_eq!(edited.pieces[0].as_ptr(), bytes.as_ptr());
}

#[test]
fn what_cannot_be_carried_out_is_refused_by_its_place() {
    let refused = |actions| Actions::new(actions).expect_err("they are invalid");
    let fine = || Action::Delete { key: some("k"), pattern: none() };
    assert_eq!(refused(vec![]), InvalidAction::NoAction);
    for action in [
        Action::Insert { key: String::new(), from: value("v") },
        Action::Delete { key: none(), pattern: none() },
        Action::Hash { key: some(""), pattern: some("") },
        Action::Extract { key: String::new(), pattern: "(?P<a>.)".into() },
        Action::Convert { key: String::new(), to: Type::Int },
    ] {
        assert_eq!(refused(vec![fine(), action]), InvalidAction::NoKey { index: 1 });
    }
    let extract =
        |pattern: &str| vec![Action::Extract { key: "k".into(), pattern: pattern.into() }];
    assert_eq!(refused(extract("a.*")), InvalidAction::NoGroup { index: 0 });
    assert_eq!(refused(extract("(?P<a>.)(.)")), InvalidAction::UnnamedGroup { index: 0 });
    assert!(matches!(refused(extract("(?P<a>")), InvalidAction::Pattern { index: 0, .. }));
}
