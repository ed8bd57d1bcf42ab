use smallvec::SmallVec;

use crate::{Limits, Text, Value};

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValue {
    /// The key.
    pub key: Text,
    /// The value.
    pub value: Value<'static>,
}

impl KeyValue {
    /// A key with its value.
    pub fn new(key: impl Into<Text>, value: impl Into<Value<'static>>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// Attributes with unique keys, up to eight of them without an allocation.
///
/// ```
/// use spanwire_model::Attributes;
///
/// let mut attributes = Attributes::new();
/// attributes.set("http.response.status_code", 500);
/// attributes.set("http.response.status_code", 200); // the last one wins
/// assert_eq!(attributes.len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    entries: SmallVec<[KeyValue; Self::INLINE]>,
    dropped: u32,
}

impl Attributes {
    /// Attributes held without an allocation.
    pub const INLINE: usize = 8;

    /// No attributes.
    #[must_use]
    pub fn new() -> Self {
        Self { entries: SmallVec::new(), dropped: 0 }
    }

    /// Sets an attribute; an earlier one with the same key is replaced where it stands. What is
    /// nested deeper than [`Limits::DEPTH_MAX`] becomes empty.
    ///
    /// Cost: compares the key with each one present.
    pub fn set(&mut self, key: impl Into<Text>, value: impl Into<Value<'static>>) {
        let mut value = value.into();
        // The default limits bound the depth and nothing else of a value.
        Limits::default().cut(&mut value);
        self.insert(key.into(), value, usize::MAX);
    }

    /// Sets an attribute within limits: too long or too deep values are cut, and an attribute over
    /// the count is left out and counted by [`dropped`](Self::dropped).
    pub fn set_within(&mut self, key: impl Into<Text>, mut value: Value<'static>, limits: &Limits) {
        limits.cut(&mut value);
        self.insert(key.into(), value, limits.attributes as usize);
    }

    /// Cuts what is already set to `count_max` attributes and to the limits of a value.
    pub(crate) fn cut(&mut self, count_max: u32, limits: &Limits) {
        let over = self.entries.len().saturating_sub(count_max as usize);
        self.entries.truncate(count_max as usize);
        self.dropped = self.dropped.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
        for entry in &mut self.entries {
            limits.cut(&mut entry.value);
        }
    }

    fn insert(&mut self, key: Text, value: Value<'static>, count_max: usize) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) {
            entry.value = value;
        } else if self.entries.len() < count_max {
            self.entries.push(KeyValue { key, value });
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Appends without looking for an equal key: for readers that must keep what a peer sent.
    pub fn push(&mut self, entry: KeyValue) {
        self.entries.push(entry);
    }

    /// The value of the first attribute with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value<'static>> {
        self.entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.value)
    }

    /// Removes an attribute and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value<'static>> {
        let at = self.entries.iter().position(|entry| &*entry.key == key)?;
        Some(self.entries.remove(at).value)
    }

    /// The attributes in the order they were set.
    pub fn iter(&self) -> std::slice::Iter<'_, KeyValue> {
        self.entries.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many were left out because of a limit.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Sets the count of attributes left out, for readers of encoded spans.
    pub fn set_dropped(&mut self, dropped: u32) {
        self.dropped = dropped;
    }

    /// The attributes and how many were left out; allocates unless there is none.
    #[must_use]
    pub fn into_parts(self) -> (Vec<KeyValue>, u32) {
        (self.entries.into_vec(), self.dropped)
    }

    /// Removes all and keeps the storage, for pools.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.dropped = 0;
    }
}

impl<'a> IntoIterator for &'a Attributes {
    type Item = &'a KeyValue;
    type IntoIter = std::slice::Iter<'a, KeyValue>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Into<Text>, V: Into<Value<'static>>> FromIterator<(K, V)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut attributes = Self::new();
        for (key, value) in entries {
            attributes.set(key, value);
        }
        attributes
    }
}
