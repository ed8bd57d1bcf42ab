use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use proptest::prelude::*;
use spanwire_model::{Text, Value};

use crate::arbitrary::{nested, value};

#[test]
fn each_rust_type_becomes_the_kind_it_is() {
    assert_eq!(Value::from("a"), Value::String(Cow::Borrowed("a")));
    assert_eq!(Value::from(&String::from("a")), Value::from(String::from("a")));
    assert_eq!(Value::from(-1_i8), Value::Int(-1));
    assert_eq!(Value::from(u32::MAX), Value::Int(4_294_967_295));
    assert_eq!(Value::from(0.5_f32), Value::Double(0.5));
    assert_eq!(Value::from(vec![1, 2]), Value::Array(vec![Value::Int(1), Value::Int(2)]));
    assert_eq!(["a", "b"].into_iter().collect::<Value<'_>>(), Value::from(vec!["a", "b"]));
    assert_eq!(Value::default(), Value::Empty);
    assert_ne!(Value::Empty, Value::from(""));
}

#[test]
fn bytes_are_bytes_whether_borrowed_or_owned() {
    let bytes = [1_u8, 2, 3];
    assert_eq!(Value::from(&bytes[..]), Value::Bytes(Cow::Borrowed(&bytes)));
    assert_eq!(Value::from(bytes.to_vec()), Value::from(&bytes[..]));
}

#[test]
fn a_value_as_deep_as_the_limit_is_owned_cloned_and_compared() {
    let value = nested(64);
    assert_eq!(value.clone().into_owned(), value);
}

proptest! {
    #[test]
    fn a_map_has_unique_keys_the_last_value_in_the_place_of_the_first(
        entries in proptest::collection::vec(("[a-e]", any::<i64>()), 0..30),
    ) {
        let mut expected: Vec<(String, i64)> = Vec::new();
        for (key, value) in &entries {
            match expected.iter_mut().find(|(other, _)| other == key) {
                Some(entry) => entry.1 = *value,
                None => expected.push((key.clone(), *value)),
            }
        }
        let expected = expected.into_iter().map(|(k, v)| (Cow::Owned(k), Value::Int(v))).collect();
        prop_assert_eq!(Value::map(entries), Value::Map(expected));
    }

    #[test]
    fn an_owned_value_equals_the_borrowed_one(value in value()) {
        prop_assert_eq!(value.clone().into_owned(), value);
    }

    #[test]
    fn texts_are_equal_and_hash_alike_whatever_holds_them(a in "[ab]{0,3}", b in "[ab]{0,3}") {
        let hasher = RandomState::new();
        // A handful of short texts, so that some can be static.
        let leaked: &'static str = a.clone().leak();
        let forms =
            [Text::from_static(leaked), Text::from(a.clone()), Text::from(Arc::<str>::from(&*a)),
             Text::from(Cow::Borrowed(leaked)), Text::from(Cow::<str>::Owned(a.clone()))];
        let other = Text::from(b.clone());
        for form in &forms {
            prop_assert_eq!(form, &forms[0]);
            prop_assert_eq!(hasher.hash_one(form), hasher.hash_one(&forms[0]));
            prop_assert_eq!(form == &other, a == b);
            prop_assert_eq!(form.to_string(), a.clone());
        }
        prop_assert_eq!(forms.into_iter().collect::<HashSet<_>>().len(), 1);
    }
}
