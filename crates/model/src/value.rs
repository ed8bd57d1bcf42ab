use std::borrow::Cow;

/// An attribute's value: each kind that `AnyValue` of OTLP has.
///
/// The lifetime lets a recording span take borrowed text and bytes without copying them first;
/// `Value<'static>` is what a finished [`Span`](crate::Span) holds.
///
/// Source: `message AnyValue` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
///
/// # Nesting
///
/// Cloning, comparing and dropping go down one stack frame a level. Setting a value on
/// [`Attributes`](crate::Attributes) cuts it to [`Limits::DEPTH_MAX`](crate::Limits::DEPTH_MAX)
/// levels, and readers of encoded values keep to the same bound, so a value within a span is safe
/// whoever sent it. One built by hand, tens of thousands of levels deep, is safe once it is set;
/// dropped before that, it overflows the stack as a list of boxes would.
///
/// ```
/// use spanwire_model::Value;
///
/// let route = String::from("/users/{id}");
/// let borrowed: Value<'_> = route.as_str().into(); // no copy
/// assert_eq!(borrowed.clone().into_owned(), Value::from("/users/{id}"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value<'a> {
    /// No value; distinct from an empty string.
    #[default]
    Empty,
    /// UTF-8 text.
    String(Cow<'a, str>),
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A double, NaN and infinities included.
    Double(f64),
    /// Any bytes.
    Bytes(Cow<'a, [u8]>),
    /// Values in order, of any kinds.
    Array(Vec<Value<'a>>),
    /// Keys with values; keys are unique when built through [`Value::map`], and in any case once the
    /// value is set on something.
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// A map with unique keys: of equal keys the last one wins, in the place of the first.
    ///
    /// Cost: `n log n` in the number of keys; copies owned keys once.
    pub fn map<K, V>(entries: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<Cow<'a, str>>,
        V: Into<Value<'a>>,
    {
        let mut index = std::collections::BTreeMap::<Cow<'a, str>, usize>::new();
        let mut unique: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        for (key, value) in entries {
            let key = key.into();
            match index.get(&key) {
                Some(&at) => unique[at].1 = value.into(),
                None => {
                    index.insert(key.clone(), unique.len());
                    unique.push((key, value.into()));
                }
            }
        }
        Self::Map(unique)
    }

    /// The same value owning all its text; copies what is borrowed.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Empty => Value::Empty,
            Self::String(text) => Value::String(Cow::Owned(text.into_owned())),
            Self::Bool(truth) => Value::Bool(truth),
            Self::Int(number) => Value::Int(number),
            Self::Double(number) => Value::Double(number),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Array(values) => {
                Value::Array(values.into_iter().map(Value::into_owned).collect())
            }
            Self::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (Cow::Owned(key.into_owned()), value.into_owned()))
                    .collect(),
            ),
        }
    }
}

impl Value<'_> {
    /// Frees a value of any depth on the heap rather than on the stack.
    pub(crate) fn dismantle(self) {
        let mut rest = vec![self];
        while let Some(value) = rest.pop() {
            match value {
                Self::Array(values) => rest.extend(values),
                Self::Map(entries) => rest.extend(entries.into_iter().map(|(_, value)| value)),
                _ => {}
            }
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::String(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Cow::Owned(text))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

macro_rules! from_int {
    ($($int:ty),*) => {$(
        impl From<$int> for Value<'_> {
            fn from(number: $int) -> Self {
                Self::Int(i64::from(number))
            }
        }
    )*};
}
from_int!(i8, i16, u16, i32, u32, i64);

/// Numbers beyond the largest that OTLP has become that one.
macro_rules! from_large_int {
    ($($int:ty),*) => {$(
        impl From<$int> for Value<'_> {
            #[inline]
            fn from(number: $int) -> Self {
                Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}
from_large_int!(u64, usize);

impl From<isize> for Value<'_> {
    #[inline]
    fn from(number: isize) -> Self {
        // No platform has larger ones than 64 bits.
        Self::Int(number as i64)
    }
}

impl<'a, V: Into<Value<'a>>, const N: usize> From<[V; N]> for Value<'a> {
    fn from(values: [V; N]) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}

impl From<f32> for Value<'_> {
    fn from(number: f32) -> Self {
        Self::Double(f64::from(number))
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

/// Bytes, like `&[u8]`; this is why there is no conversion from a lone `u8`.
impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Cow::Owned(bytes))
    }
}

impl<'a, V: Into<Value<'a>>> From<Vec<V>> for Value<'a> {
    fn from(values: Vec<V>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}

impl<'a, V: Into<Value<'a>>> FromIterator<V> for Value<'a> {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}
