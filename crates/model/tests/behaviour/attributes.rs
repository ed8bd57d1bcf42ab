use std::collections::BTreeMap;

use proptest::prelude::*;
use spanwire_model::{Attributes, KeyValue, Limits, Text, Value};

use crate::arbitrary::{nested, value};

/// What [`Attributes`] must do, in the plainest way.
#[derive(Default)]
struct Oracle {
    order: Vec<String>,
    values: BTreeMap<String, Value<'static>>,
    dropped: u32,
}

impl Oracle {
    fn set(&mut self, key: &str, value: Value<'static>, count_max: usize) {
        if !self.values.contains_key(key) {
            if self.order.len() >= count_max {
                self.dropped += 1;
                return;
            }
            self.order.push(key.to_owned());
        }
        self.values.insert(key.to_owned(), value);
    }

    fn remove(&mut self, key: &str) -> Option<Value<'static>> {
        self.order.retain(|other| other != key);
        self.values.remove(key)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(String, Value<'static>),
    Remove(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => ("[a-f]{1,2}", value()).prop_map(|(key, value)| Step::Set(key, value)),
        1 => "[a-f]{1,2}".prop_map(Step::Remove),
    ]
}

proptest! {
    /// Faults 34.
    #[test]
    fn keys_are_unique_the_last_value_wins_and_what_is_over_the_limit_is_counted(
        steps in proptest::collection::vec(step(), 0..60),
        count_max in 0_usize..20,
    ) {
        let limits = Limits { attributes: count_max as u32, ..Limits::default() };
        let (mut attributes, mut oracle) = (Attributes::new(), Oracle::default());
        for step in steps {
            match step {
                Step::Set(key, value) => {
                    oracle.set(&key, value.clone(), count_max);
                    attributes.set_within(key, value, &limits);
                }
                Step::Remove(key) => prop_assert_eq!(attributes.remove(&key), oracle.remove(&key)),
            }
        }
        let expected: Vec<KeyValue> = oracle
            .order
            .iter()
            .map(|key| KeyValue::new(key.clone(), oracle.values[key].clone()))
            .collect();
        prop_assert_eq!(attributes.len(), expected.len());
        for entry in &expected {
            prop_assert_eq!(attributes.get(&entry.key), Some(&entry.value));
        }
        prop_assert_eq!(attributes.into_parts(), (expected, oracle.dropped));
    }
}

#[test]
fn a_key_is_the_same_whether_static_or_owned() {
    let mut attributes = Attributes::new();
    attributes.set("http.route", "/a");
    attributes.set(String::from("http.route"), "/b");
    attributes.set(Text::from(std::sync::Arc::<str>::from("http.route")), "/c");
    assert_eq!(attributes.iter().collect::<Vec<_>>(), [&KeyValue::new("http.route", "/c")]);
}

/// Faults 26.
#[test]
fn a_reader_keeps_equal_keys_and_finds_the_first() {
    let mut attributes = Attributes::new();
    attributes.push(KeyValue::new("k", 1));
    attributes.push(KeyValue::new("k", 2));
    assert_eq!(attributes.len(), 2);
    assert_eq!(attributes.get("k"), Some(&Value::Int(1)));
}

#[test]
fn cleared_attributes_are_as_new() {
    let mut attributes: Attributes = (0..20).map(|n| (format!("k{n}"), n)).collect();
    attributes.set_dropped(3);
    attributes.clear();
    assert_eq!(attributes, Attributes::new());
    assert!(attributes.is_empty());
}

#[test]
fn a_value_a_million_levels_deep_is_cut_and_freed_without_recursion() {
    let mut attributes = Attributes::new();
    attributes.set("array", nested(1_000_000));
    let map = (0..1_000_000).fold(Value::from(7), |value, _| Value::map([("k", value)]));
    attributes.set_within("map", map, &Limits::default());
    assert_eq!(attributes.len(), 2);
    assert_eq!(attributes.clone(), attributes);
}

#[test]
fn the_sizes_that_the_hot_path_pays_for_do_not_grow_unseen() {
    assert_eq!(size_of::<Text>(), 24);
    assert_eq!(size_of::<Value<'_>>(), 32);
    assert_eq!(size_of::<KeyValue>(), 56);
}
