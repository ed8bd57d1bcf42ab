use proptest::prelude::*;
use spanwire_model::{Limits, Value};

use crate::arbitrary::{nested, value};

fn length(attribute_value_length: u32) -> Limits {
    Limits { attribute_value_length, ..Limits::default() }
}

fn depth(attribute_value_depth: u32) -> Limits {
    Limits { attribute_value_depth, ..Limits::default() }
}

fn cut(limits: Limits, mut value: Value<'_>) -> Value<'_> {
    limits.cut(&mut value);
    value
}

fn depth_of(value: &Value<'_>) -> u32 {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth_of).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, v)| depth_of(v)).max().unwrap_or(0),
        _ => 0,
    }
}

fn longest_in(value: &Value<'_>) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(values) => values.iter().map(longest_in).max().unwrap_or(0),
        Value::Map(entries) => entries.iter().map(|(_, v)| longest_in(v)).max().unwrap_or(0),
        _ => 0,
    }
}

/// Faults 34.
#[test]
fn the_defaults_are_those_of_the_specification() {
    let limits = Limits::default();
    let counts = [limits.attributes, limits.events, limits.links];
    assert_eq!((counts, limits.event_attributes, limits.link_attributes), ([128; 3], 128, 128));
    assert_eq!((limits.attribute_value_length, limits.attribute_value_depth), (u32::MAX, 64));
}

#[test]
fn of_entries_of_a_map_with_one_key_the_last_is_kept_however_the_map_was_built() {
    let twice = |value| Value::Map(vec![("key".into(), Value::Int(1)), ("key".into(), value)]);
    let once = |value| Value::map([("key", value)]);
    let nested = cut(Limits::default(), Value::Array(vec![twice(twice(Value::Int(2)))]));
    assert_eq!(nested, Value::Array(vec![once(once(Value::Int(2)))]));
}

#[test]
fn strings_are_cut_in_characters_and_bytes_in_bytes() {
    for (limit, text, kept) in [
        (3, "añé€", "añé"),
        (4, "añé€", "añé€"),
        (1, "🦀🦀", "🦀"),
        (0, "a", ""),
        (5, "abc", "abc"),
        (2, "e\u{301}x", "e\u{301}"),
    ] {
        assert_eq!(length(limit).cut_text(text), kept);
        assert_eq!(cut(length(limit), Value::from(text)), Value::from(kept));
        assert_eq!(cut(length(limit), Value::from(text.to_owned())), Value::from(kept));
    }
    assert_eq!(cut(length(2), Value::from(&[1_u8, 2, 3][..])), Value::from(vec![1_u8, 2]));
    assert_eq!(cut(length(2), Value::from(vec![1_u8, 2, 3])), Value::from(vec![1_u8, 2]));
}

#[test]
fn numbers_and_keys_have_no_length_to_cut() {
    let map = Value::map([("a long key", Value::from(i64::MIN)), ("b", Value::from(0.1))]);
    assert_eq!(cut(length(1), map.clone()), map);
}

#[test]
fn what_is_nested_deeper_than_the_limit_becomes_empty() {
    assert_eq!(cut(depth(2), nested(2)), nested(2));
    let two_and_empty = Value::Array(vec![Value::Array(vec![Value::Empty])]);
    assert_eq!(cut(depth(2), nested(3)), two_and_empty);
    assert_eq!(cut(depth(0), nested(1)), Value::Empty);
    assert_eq!(cut(depth(0), Value::from("scalar")), Value::from("scalar"));
}

#[test]
fn no_configured_depth_goes_beyond_what_recursion_bears() {
    assert_eq!(depth_of(&cut(depth(u32::MAX), nested(65))), Limits::DEPTH_MAX);
    assert_eq!(cut(depth(u32::MAX), nested(64)), nested(64));
}

proptest! {
    #[test]
    fn a_cut_value_is_within_the_limits_and_cutting_it_again_changes_nothing(
        value in value(), length_max in 0_u32..8, depth_max in 0_u32..6,
    ) {
        let limits = Limits { attribute_value_depth: depth_max, ..length(length_max) };
        let once = cut(limits, value.clone());
        prop_assert!(depth_of(&once) <= depth_max);
        prop_assert!(longest_in(&once) <= length_max as usize);
        if depth_of(&value) <= depth_max && longest_in(&value) <= length_max as usize {
            prop_assert_eq!(&once, &value);
        }
        prop_assert_eq!(cut(limits, once.clone()), once);
    }
}
