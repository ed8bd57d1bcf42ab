//! Generated values for property tests.

use proptest::prelude::*;
use spanwire_model::Value;

/// Any value, nested up to eight levels.
pub(crate) fn value() -> impl Strategy<Value = Value<'static>> {
    let scalar = prop_oneof![
        Just(Value::Empty),
        ".{0,12}".prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // A NaN is not equal to itself, so it would say nothing in a comparison.
        any::<f64>().prop_filter("comparable", |f| !f.is_nan()).prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(Value::from),
    ];
    scalar.prop_recursive(8, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::vec(("[a-d]{0,2}", inner), 0..6).prop_map(Value::map),
        ]
    })
}

/// Arrays within arrays around an integer.
pub(crate) fn nested(levels: u32) -> Value<'static> {
    (0..levels).fold(Value::from(7), |value, _| Value::Array(vec![value]))
}
