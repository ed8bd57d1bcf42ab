use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use smallvec::SmallVec;

use super::script::Script;
use crate::field::{Len, any_value, key_value};
use crate::view::{AnyValue, KeyValue};
use crate::wire::{self, Fault, Field, Reader};

/// Attributes that are kept track of without allocating: the limit that producers have by default,
/// `AttributeCountLimit` of opentelemetry-specification v1.60.
const INLINE: usize = 128;

/// The attributes of one span or resource, to be changed before they are written.
///
/// Where a key came twice, reading takes its last value, as the protocol asks for. Setting a key
/// leaves one attribute with it, so that no change makes a duplicate; what is not changed stays
/// as it came, byte for byte. Each method visits every attribute once.
pub struct Attributes<'a> {
    list: SmallVec<[Attribute<'a>; INLINE]>,
}

struct Attribute<'a> {
    key: &'a [u8],
    /// The encoded `KeyValue`; `None` once it is removed.
    body: Option<Cow<'a, [u8]>>,
    /// The field in the request; empty for one that was added.
    range: Range<usize>,
    changed: bool,
}

impl<'a> Attributes<'a> {
    /// The value of the last attribute with this key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<AnyValue<'_>> {
        self.last(key).map(|(_, body)| KeyValue::new(body).value())
    }

    /// Sets the attribute to what was encoded before, added as the last if there is none with its key.
    pub fn set(&mut self, attribute: &'a Encoded) {
        self.assign(attribute.key(), Cow::Borrowed(&attribute.body));
    }

    /// Sets the attribute `key` to a value, added as the last if there is none. Allocates its encoding.
    pub fn set_value(&mut self, key: &'a [u8], value: &Value<'_>) {
        self.assign(key, Cow::Owned(encode(key, value)));
    }

    /// Sets the attribute `key` to the value that the attribute `from` has, whatever its kind, byte
    /// for byte. Allocates its encoding. `false`, and no change, if there is no such attribute.
    #[must_use]
    pub fn copy(&mut self, key: &'a [u8], from: &[u8]) -> bool {
        let Some((_, source)) = self.last(from) else { return false };
        let mut body = Vec::with_capacity(source.len() + key.len());
        key_value::KEY.put(&mut body, key);
        values(source).for_each(|value| body.extend_from_slice(value));
        self.assign(key, Cow::Owned(body));
        true
    }

    /// Changes values: each attribute for which `change` returns a new value gets it, duplicates too.
    pub fn update(
        &mut self,
        mut change: impl FnMut(&[u8], AnyValue<'_>) -> Option<Value<'static>>,
    ) {
        crate::work::add(self.list.len());
        for attribute in &mut self.list {
            let Some(body) = &attribute.body else { continue };
            let Some(value) = change(attribute.key, KeyValue::new(body).value()) else { continue };
            let new = Cow::Owned(encode(attribute.key, &value));
            attribute.replace(replacement(body, new));
        }
    }

    /// Removes each attribute, duplicates too, for whose key `keep` returns `false`.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        crate::work::add(self.list.len());
        for attribute in &mut self.list {
            if attribute.body.is_some() && !keep(attribute.key) {
                attribute.remove();
            }
        }
    }

    pub(super) fn new() -> Self {
        Self { list: SmallVec::new() }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Adds those that `message` has as its `field`.
    #[inline]
    pub(super) fn read(&mut self, mut message: Reader<'a>, field: Len) -> Result<(), Fault> {
        while let Some((at, this)) = message.field_at()? {
            let Field::Len(number, body) = this else { continue };
            if number == field {
                self.came(body, at..message.pos());
                // The rest of a run, which is told from other fields by one comparison.
                let mut at = message.pos();
                while let Some(body) = message.short(field) {
                    self.came(body, at..message.pos());
                    at = message.pos();
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn came(&mut self, body: &'a [u8], range: Range<usize>) {
        let (key, body) = (key(body), Some(Cow::Borrowed(body)));
        self.list.push(Attribute { key, body, range, changed: false });
    }

    pub(super) fn is_changed(&self) -> bool {
        self.list.iter().any(|attribute| attribute.changed)
    }

    /// Writes the changed ones among those that came from the `first` on and before `end` in the request.
    /// Returns the first behind them.
    pub(super) fn write_changed(
        &self,
        script: &mut Script<'_>,
        field: Len,
        first: usize,
        end: usize,
    ) -> usize {
        let mut next = first;
        while let Some(Attribute { body, range, changed, .. }) = self.list.get(next)
            && range.end <= end
            && !range.is_empty()
        {
            crate::work::add(1);
            if *changed {
                script.replace(range.clone(), |out| put(out, field, body.as_deref()));
            }
            next += 1;
        }
        next
    }

    /// Appends those that were added.
    pub(super) fn put_added(&self, out: &mut Vec<u8>, field: Len) {
        for attribute in self.added() {
            put(out, field, attribute.body.as_deref());
        }
    }

    /// What [`put_added`](Self::put_added) appends, in bytes.
    pub(super) fn added_bytes(&self, field: Len) -> usize {
        self.added().filter_map(|added| Some(field.size(added.body.as_ref()?.len()))).sum()
    }

    fn added(&self) -> impl Iterator<Item = &Attribute<'a>> {
        // They are the last.
        let came = self.list.iter().rposition(|attribute| !attribute.range.is_empty());
        self.list[came.map_or(0, |index| index + 1)..].iter()
    }

    fn last(&self, key: &[u8]) -> Option<(usize, &[u8])> {
        crate::work::add(self.list.len());
        let mut list = self.list.iter().enumerate().rev();
        list.find_map(|(index, attribute)| {
            let body = attribute.body.as_deref()?;
            (attribute.key == key).then_some((index, body))
        })
    }

    fn assign(&mut self, key: &'a [u8], body: Cow<'a, [u8]>) {
        let Some((last, old)) = self.last(key) else {
            let body = Some(body);
            self.list.push(Attribute { key, body, range: 0..0, changed: true });
            return;
        };
        let new = replacement(old, body);
        self.list[last].replace(new);
        for attribute in &mut self.list[..last] {
            if attribute.key == key && attribute.body.is_some() {
                attribute.remove();
            }
        }
    }
}

impl<'a> Attribute<'a> {
    fn replace(&mut self, new: Option<Cow<'a, [u8]>>) {
        if new.is_some() {
            self.body = new;
            self.changed = true;
        }
    }

    fn remove(&mut self) {
        self.body = None;
        self.changed = true;
    }
}

impl fmt::Debug for Attributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.list.iter().filter(|attribute| attribute.body.is_some()).count();
        write!(f, "Attributes({count})")
    }
}

/// A value to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'v> {
    /// Text, which should be UTF-8.
    String(Cow<'v, [u8]>),
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A double, bit for bit.
    Double(f64),
}

/// An attribute that is encoded once, to be set on many spans.
///
/// ```
/// use spanwire_codec::edit::{Encoded, Value};
///
/// assert_eq!(Encoded::new(b"tier", &Value::Int(1)).key(), b"tier");
/// ```
#[derive(Clone)]
pub struct Encoded {
    body: Vec<u8>,
    key: Range<usize>,
}

impl Encoded {
    /// Encodes an attribute.
    #[must_use]
    pub fn new(key: &[u8], value: &Value<'_>) -> Self {
        let header = key_value::KEY.size(key.len()) - key.len();
        Self { body: encode(key, value), key: header..header + key.len() }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.body[self.key.clone()]
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.body.len())
    }
}

/// The body of a `KeyValue`.
fn encode(key: &[u8], value: &Value<'_>) -> Vec<u8> {
    let len = match value {
        Value::String(text) => any_value::STRING_VALUE.size(text.len()),
        Value::Bool(truth) => any_value::BOOL_VALUE.size(u64::from(*truth)),
        Value::Int(number) => any_value::INT_VALUE.size(*number as u64),
        Value::Double(_) => any_value::DOUBLE_VALUE.size(),
    };
    let mut out = Vec::with_capacity(key_value::KEY.size(key.len()) + key_value::VALUE.size(len));
    key_value::KEY.put(&mut out, key);
    key_value::VALUE.put_header(&mut out, len);
    match value {
        Value::String(text) => any_value::STRING_VALUE.put(&mut out, text),
        Value::Bool(truth) => any_value::BOOL_VALUE.put(&mut out, u64::from(*truth)),
        Value::Int(number) => any_value::INT_VALUE.put(&mut out, *number as u64),
        Value::Double(number) => any_value::DOUBLE_VALUE.put(&mut out, number.to_bits()),
    }
    out
}

/// The attribute `old` with the value of `new`, which has the same key; `None` where it has that value.
/// What `old` has beside key and value, a newer peer's fields, stays.
fn replacement<'b>(old: &[u8], new: Cow<'b, [u8]>) -> Option<Cow<'b, [u8]>> {
    if values(old).eq(values(&new)) {
        return None;
    }
    if plain_key(old).is_some() {
        return Some(new);
    }
    let mut body = Vec::with_capacity(old.len() + new.len());
    for (bytes, field) in fields(old) {
        if !is_value(&field) {
            body.extend_from_slice(bytes);
        }
    }
    values(&new).for_each(|value| body.extend_from_slice(value));
    Some(Cow::Owned(body))
}

/// The fields of a `KeyValue` that make up its value, tags included.
fn values(key_value: &[u8]) -> impl Iterator<Item = &[u8]> {
    fields(key_value).filter_map(|(bytes, field)| is_value(&field).then_some(bytes))
}

/// The fields of a message and their bytes, up to the first malformed one.
fn fields(message: &[u8]) -> impl Iterator<Item = (&[u8], Field<'_>)> {
    let mut fields = Reader::new(message);
    std::iter::from_fn(move || fields.field_bytes().ok()?)
}

fn is_value(field: &Field<'_>) -> bool {
    matches!(field, Field::Len(key_value::VALUE, _))
}

fn put(out: &mut Vec<u8>, field: Len, body: Option<&[u8]>) {
    if let Some(body) = body {
        field.put(out, body);
    }
}

/// The key of an attribute.
#[inline]
pub(super) fn key(key_value: &[u8]) -> &[u8] {
    plain_key(key_value).unwrap_or_else(|| KeyValue::new(key_value).key())
}

/// The key of an attribute that is a key and a value, in this order or, as the Go Collector has it, the
/// other. A third of what reading it otherwise takes, where a later field may be another key.
#[inline]
fn plain_key(key_value: &[u8]) -> Option<&[u8]> {
    match key_value {
        [KEY, rest @ ..] => match wire::split_len(rest)? {
            (key, [VALUE, value @ ..]) => ends(value).then_some(key),
            _ => None,
        },
        [VALUE, rest @ ..] => match wire::split_len(rest)? {
            (_, [KEY, key @ ..]) => match wire::split_len(key)? {
                (key, []) => Some(key),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Whether nothing comes behind a length and its body.
#[inline]
fn ends(bytes: &[u8]) -> bool {
    matches!(wire::split_len(bytes), Some((_, [])))
}

const KEY: u8 = key_value::KEY.tag() as u8;
const VALUE: u8 = key_value::VALUE.tag() as u8;
