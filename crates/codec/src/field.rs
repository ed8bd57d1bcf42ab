//! The OTLP trace schema as this crate uses it: one module per message, field numbers typed by
//! wire type, in number order.
//!
//! Source: `opentelemetry/proto/**` and, for the error body, `google/rpc/*.proto`. A number's type
//! decides which `put` it has and which [`Field`](crate::wire::Field) variant it can match, so a
//! number can't be paired with the wrong wire type. `NUMBER_MAX` is the highest number a message has:
//! a field up to it is refused with any other wire type, a field beyond it is unknown. The tests below compare each with the
//! `opentelemetry-proto` crate.

use bytes::BufMut;

use crate::wire::{FIXED32, FIXED64, LEN, VARINT, put_varint, varint_len};

/// A field of wire type VARINT: `bool`, enums, `int32`, `int64`, `uint32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Varint(pub(crate) u32);

/// A field of wire type I64: `fixed64`, `double`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed64(pub(crate) u32);

/// A field of wire type LEN: `string`, `bytes`, messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Len(pub(crate) u32);

/// A field of wire type I32: `fixed32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed32(pub(crate) u32);

impl Varint {
    /// Number and wire type as they go on the wire.
    pub(crate) const fn tag(self) -> u32 {
        self.0 << 3 | VARINT
    }

    /// Appends the field, a zero included: for oneofs, where presence is the message.
    #[inline]
    pub(crate) fn put(self, out: &mut impl BufMut, value: u64) {
        if self.tag() < 0x80 && value < 0x80 {
            out.put_slice(&[self.tag() as u8, value as u8]);
        } else {
            put_varint(out, u64::from(self.tag()));
            put_varint(out, value);
        }
    }

    /// Appends the field unless it has its proto3 default.
    #[inline]
    pub(crate) fn put_nonzero(self, out: &mut impl BufMut, value: u64) {
        if value != 0 {
            self.put(out, value);
        }
    }

    /// Bytes that [`put`](Self::put) appends.
    #[inline]
    pub(crate) const fn size(self, value: u64) -> usize {
        varint_len(self.tag() as u64) + varint_len(value)
    }
}

impl Fixed64 {
    /// Number and wire type as they go on the wire.
    pub(crate) const fn tag(self) -> u32 {
        self.0 << 3 | FIXED64
    }

    /// Appends the field, a zero included.
    #[inline]
    pub(crate) fn put(self, out: &mut impl BufMut, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        if self.tag() < 0x80 {
            out.put_slice(&[self.tag() as u8, a, b, c, d, e, f, g, h]);
        } else {
            put_varint(out, u64::from(self.tag()));
            out.put_u64_le(value);
        }
    }

    /// Appends the field unless it has its proto3 default.
    #[inline]
    pub(crate) fn put_nonzero(self, out: &mut impl BufMut, value: u64) {
        if value != 0 {
            self.put(out, value);
        }
    }

    /// Bytes that [`put`](Self::put) appends.
    #[inline]
    pub(crate) const fn size(self) -> usize {
        varint_len(self.tag() as u64) + 8
    }
}

impl Fixed32 {
    /// Number and wire type as they go on the wire.
    pub(crate) const fn tag(self) -> u32 {
        self.0 << 3 | FIXED32
    }

    /// Appends the field unless it has its proto3 default.
    #[inline]
    pub(crate) fn put_nonzero(self, out: &mut impl BufMut, value: u32) {
        if value == 0 {
            return;
        }
        let [a, b, c, d] = value.to_le_bytes();
        match self.tag() {
            tag @ 0..0x80 => out.put_slice(&[tag as u8, a, b, c, d]),
            // Two bytes of tag: every other number that a field in use has.
            tag => out.put_slice(&[tag as u8 | 0x80, (tag >> 7) as u8, a, b, c, d]),
        }
    }

    /// Bytes that a nonzero value takes.
    #[inline]
    pub(crate) const fn size(self) -> usize {
        varint_len(self.tag() as u64) + 4
    }
}

impl Len {
    /// Number and wire type as they go on the wire.
    pub(crate) const fn tag(self) -> u32 {
        self.0 << 3 | LEN
    }

    /// Appends the tag and the length of a body of `len` bytes, which the caller appends next.
    #[inline]
    pub(crate) fn put_header(self, out: &mut impl BufMut, len: usize) {
        if self.tag() < 0x80 && len < 0x80 {
            // By far the most common case: one store of both bytes, one capacity check.
            out.put_slice(&[self.tag() as u8, len as u8]);
        } else if self.tag() < 0x80 && len < 0x4000 {
            out.put_slice(&[self.tag() as u8, len as u8 | 0x80, (len >> 7) as u8]);
        } else {
            put_varint(out, u64::from(self.tag()));
            put_varint(out, len as u64);
        }
    }

    /// Appends a field of eight bytes and a number below 16, in one store.
    #[inline]
    pub(crate) fn put_array(self, out: &mut impl BufMut, body: [u8; 8]) {
        debug_assert!(self.tag() < 0x80);
        let [a, b, c, d, e, f, g, h] = body;
        out.put_slice(&[self.tag() as u8, 8, a, b, c, d, e, f, g, h]);
    }

    /// Appends the field, an empty one included: for oneofs and repeated fields.
    #[inline]
    pub(crate) fn put(self, out: &mut impl BufMut, body: &[u8]) {
        self.put_header(out, body.len());
        out.put_slice(body);
    }

    /// Appends the field unless it has its proto3 default.
    #[inline]
    pub(crate) fn put_nonempty(self, out: &mut impl BufMut, body: &[u8]) {
        if !body.is_empty() {
            self.put(out, body);
        }
    }

    /// Bytes that a field with a body of `len` bytes takes, tag and length included.
    #[inline]
    pub(crate) const fn size(self, len: usize) -> usize {
        varint_len(self.tag() as u64) + varint_len(len as u64) + len
    }
}

/// `message ExportTraceServiceRequest` in `collector/trace/v1/trace_service.proto`,
/// opentelemetry-proto v1.11.0.
pub(crate) mod request {
    use super::Len;

    pub(crate) const RESOURCE_SPANS: Len = Len(1);
    pub(crate) const NUMBER_MAX: u32 = 1;
}

/// `message ResourceSpans` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod resource_spans {
    use super::Len;

    pub(crate) const RESOURCE: Len = Len(1);
    pub(crate) const SCOPE_SPANS: Len = Len(2);
    pub(crate) const SCHEMA_URL: Len = Len(3);
    pub(crate) const NUMBER_MAX: u32 = 3;
}

/// `message Resource` in `resource/v1/resource.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod resource {
    use super::{Len, Varint};

    pub(crate) const ATTRIBUTES: Len = Len(1);
    pub(crate) const DROPPED_ATTRIBUTES_COUNT: Varint = Varint(2);
    pub(crate) const ENTITY_REFS: Len = Len(3);
    pub(crate) const NUMBER_MAX: u32 = 3;
}

/// `message EntityRef` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod entity_ref {
    use super::Len;

    pub(crate) const SCHEMA_URL: Len = Len(1);
    pub(crate) const TYPE: Len = Len(2);
    pub(crate) const ID_KEYS: Len = Len(3);
    pub(crate) const DESCRIPTION_KEYS: Len = Len(4);
    pub(crate) const NUMBER_MAX: u32 = 4;
}

/// `message ScopeSpans` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod scope_spans {
    use super::Len;

    pub(crate) const SCOPE: Len = Len(1);
    pub(crate) const SPANS: Len = Len(2);
    pub(crate) const SCHEMA_URL: Len = Len(3);
    pub(crate) const NUMBER_MAX: u32 = 3;
}

/// `message InstrumentationScope` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod scope {
    use super::{Len, Varint};

    pub(crate) const NAME: Len = Len(1);
    pub(crate) const VERSION: Len = Len(2);
    pub(crate) const ATTRIBUTES: Len = Len(3);
    pub(crate) const DROPPED_ATTRIBUTES_COUNT: Varint = Varint(4);
    pub(crate) const NUMBER_MAX: u32 = 4;
}

/// `message Span` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod span {
    use super::{Fixed32, Fixed64, Len, Varint};

    pub(crate) const TRACE_ID: Len = Len(1);
    pub(crate) const SPAN_ID: Len = Len(2);
    pub(crate) const TRACE_STATE: Len = Len(3);
    pub(crate) const PARENT_SPAN_ID: Len = Len(4);
    pub(crate) const NAME: Len = Len(5);
    pub(crate) const KIND: Varint = Varint(6);
    pub(crate) const START_TIME_UNIX_NANO: Fixed64 = Fixed64(7);
    pub(crate) const END_TIME_UNIX_NANO: Fixed64 = Fixed64(8);
    pub(crate) const ATTRIBUTES: Len = Len(9);
    pub(crate) const DROPPED_ATTRIBUTES_COUNT: Varint = Varint(10);
    pub(crate) const EVENTS: Len = Len(11);
    pub(crate) const DROPPED_EVENTS_COUNT: Varint = Varint(12);
    pub(crate) const LINKS: Len = Len(13);
    pub(crate) const DROPPED_LINKS_COUNT: Varint = Varint(14);
    pub(crate) const STATUS: Len = Len(15);
    pub(crate) const FLAGS: Fixed32 = Fixed32(16);
    pub(crate) const NUMBER_MAX: u32 = 16;
}

/// `message Span.Event` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod event {
    use super::{Fixed64, Len, Varint};

    pub(crate) const TIME_UNIX_NANO: Fixed64 = Fixed64(1);
    pub(crate) const NAME: Len = Len(2);
    pub(crate) const ATTRIBUTES: Len = Len(3);
    pub(crate) const DROPPED_ATTRIBUTES_COUNT: Varint = Varint(4);
    pub(crate) const NUMBER_MAX: u32 = 4;
}

/// `message Span.Link` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod link {
    use super::{Fixed32, Len, Varint};

    pub(crate) const TRACE_ID: Len = Len(1);
    pub(crate) const SPAN_ID: Len = Len(2);
    pub(crate) const TRACE_STATE: Len = Len(3);
    pub(crate) const ATTRIBUTES: Len = Len(4);
    pub(crate) const DROPPED_ATTRIBUTES_COUNT: Varint = Varint(5);
    pub(crate) const FLAGS: Fixed32 = Fixed32(6);
    pub(crate) const NUMBER_MAX: u32 = 6;
}

/// `message Status` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod status {
    use super::{Len, Varint};

    pub(crate) const RESERVED: u32 = 1;
    pub(crate) const MESSAGE: Len = Len(2);
    pub(crate) const CODE: Varint = Varint(3);
    pub(crate) const NUMBER_MAX: u32 = 3;
}

/// `message KeyValue` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod key_value {
    use super::{Len, Varint};

    pub(crate) const KEY: Len = Len(1);
    pub(crate) const VALUE: Len = Len(2);
    /// Profiles only; elsewhere read as absent.
    pub(crate) const KEY_STRINDEX: Varint = Varint(3);
    pub(crate) const NUMBER_MAX: u32 = 3;
}

/// The tags of what nearly every span has, for readers that look at them byte by byte.
pub(crate) mod plain_tag {
    use super::{any_value, key_value, span};

    pub(crate) const TRACE_ID: u8 = one_byte(span::TRACE_ID.tag());
    pub(crate) const SPAN_ID: u8 = one_byte(span::SPAN_ID.tag());
    pub(crate) const PARENT_SPAN_ID: u8 = one_byte(span::PARENT_SPAN_ID.tag());
    pub(crate) const SPAN_KIND: u8 = one_byte(span::KIND.tag());
    pub(crate) const START_TIME: u8 = one_byte(span::START_TIME_UNIX_NANO.tag());
    pub(crate) const END_TIME: u8 = one_byte(span::END_TIME_UNIX_NANO.tag());
    pub(crate) const KEY: u8 = one_byte(key_value::KEY.tag());
    pub(crate) const VALUE: u8 = one_byte(key_value::VALUE.tag());
    pub(crate) const STRING: u8 = one_byte(any_value::STRING_VALUE.tag());
    pub(crate) const BOOL: u8 = one_byte(any_value::BOOL_VALUE.tag());
    pub(crate) const INT: u8 = one_byte(any_value::INT_VALUE.tag());
    pub(crate) const DOUBLE: u8 = one_byte(any_value::DOUBLE_VALUE.tag());

    const fn one_byte(tag: u32) -> u8 {
        assert!(tag < 0x80);
        tag as u8
    }
}

/// `message AnyValue` in `common/v1/common.proto`, opentelemetry-proto v1.11.0. All one oneof.
pub(crate) mod any_value {
    use super::{Fixed64, Len, Varint};

    pub(crate) const STRING_VALUE: Len = Len(1);
    pub(crate) const BOOL_VALUE: Varint = Varint(2);
    pub(crate) const INT_VALUE: Varint = Varint(3);
    pub(crate) const DOUBLE_VALUE: Fixed64 = Fixed64(4);
    pub(crate) const ARRAY_VALUE: Len = Len(5);
    pub(crate) const KVLIST_VALUE: Len = Len(6);
    pub(crate) const BYTES_VALUE: Len = Len(7);
    /// Profiles only; elsewhere read as an empty value.
    pub(crate) const STRING_VALUE_STRINDEX: Varint = Varint(8);
    pub(crate) const NUMBER_MAX: u32 = 8;
}

/// `message ArrayValue` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod array_value {
    use super::Len;

    pub(crate) const VALUES: Len = Len(1);
    pub(crate) const NUMBER_MAX: u32 = 1;
}

/// `message KeyValueList` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
pub(crate) mod key_value_list {
    use super::Len;

    pub(crate) const VALUES: Len = Len(1);
    pub(crate) const NUMBER_MAX: u32 = 1;
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1 as common;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
    use prost::Message;

    use super::*;

    /// The first tag of a message's encoding.
    fn tag(message: impl Message) -> u32 {
        let mut bytes = &message.encode_to_vec()[..];
        let tag = prost::encoding::decode_varint(&mut bytes).expect("a field was set");
        u32::try_from(tag).expect("a tag has 32 bits")
    }

    /// Each constant's tag is that of a message of which only this field is set.
    macro_rules! same_tags {
        ($module:ident, $message:ident { $($name:ident: $field:ident = $value:expr),* $(,)? }) => {$(
            let mut message = $message::default();
            message.$field = $value;
            let name = concat!(stringify!($module), "::", stringify!($name));
            assert_eq!($module::$name.tag(), tag(message), "{name}");
        )*};
    }

    #[test]
    fn envelopes_have_the_numbers_of_the_schema() {
        same_tags!(
            request,
            ExportTraceServiceRequest {
                RESOURCE_SPANS: resource_spans = vec![ResourceSpans::default()],
            }
        );
        same_tags!(
            resource_spans,
            ResourceSpans {
                RESOURCE: resource = Some(Resource::default()),
                SCOPE_SPANS: scope_spans = vec![ScopeSpans::default()],
                SCHEMA_URL: schema_url = "u".into(),
            }
        );
        same_tags!(
            resource,
            Resource {
                ATTRIBUTES: attributes = vec![common::KeyValue::default()],
                DROPPED_ATTRIBUTES_COUNT: dropped_attributes_count = 1,
                ENTITY_REFS: entity_refs = vec![common::EntityRef::default()],
            }
        );
        same_tags!(
            scope_spans,
            ScopeSpans {
                SCOPE: scope = Some(common::InstrumentationScope::default()),
                SPANS: spans = vec![Span::default()],
                SCHEMA_URL: schema_url = "u".into(),
            }
        );
        use common::{EntityRef, InstrumentationScope};
        same_tags!(
            entity_ref,
            EntityRef {
                SCHEMA_URL: schema_url = "u".into(),
                TYPE: r#type = "t".into(),
                ID_KEYS: id_keys = vec!["k".into()],
                DESCRIPTION_KEYS: description_keys = vec!["k".into()],
            }
        );
        same_tags!(
            scope,
            InstrumentationScope {
                NAME: name = "n".into(),
                VERSION: version = "1".into(),
                ATTRIBUTES: attributes = vec![common::KeyValue::default()],
                DROPPED_ATTRIBUTES_COUNT: dropped_attributes_count = 1,
            }
        );
    }

    #[test]
    fn spans_have_the_numbers_of_the_schema() {
        same_tags!(
            span,
            Span {
                TRACE_ID: trace_id = vec![1],
                SPAN_ID: span_id = vec![1],
                TRACE_STATE: trace_state = "a=b".into(),
                PARENT_SPAN_ID: parent_span_id = vec![1],
                NAME: name = "n".into(),
                KIND: kind = 1,
                START_TIME_UNIX_NANO: start_time_unix_nano = 1,
                END_TIME_UNIX_NANO: end_time_unix_nano = 1,
                ATTRIBUTES: attributes = vec![common::KeyValue::default()],
                DROPPED_ATTRIBUTES_COUNT: dropped_attributes_count = 1,
                EVENTS: events = vec![Event::default()],
                DROPPED_EVENTS_COUNT: dropped_events_count = 1,
                LINKS: links = vec![Link::default()],
                DROPPED_LINKS_COUNT: dropped_links_count = 1,
                STATUS: status = Some(Status::default()),
                FLAGS: flags = 1,
            }
        );
        same_tags!(
            event,
            Event {
                TIME_UNIX_NANO: time_unix_nano = 1,
                NAME: name = "n".into(),
                ATTRIBUTES: attributes = vec![common::KeyValue::default()],
                DROPPED_ATTRIBUTES_COUNT: dropped_attributes_count = 1,
            }
        );
        same_tags!(
            link,
            Link {
                TRACE_ID: trace_id = vec![1],
                SPAN_ID: span_id = vec![1],
                TRACE_STATE: trace_state = "a=b".into(),
                ATTRIBUTES: attributes = vec![common::KeyValue::default()],
                DROPPED_ATTRIBUTES_COUNT: dropped_attributes_count = 1,
                FLAGS: flags = 1,
            }
        );
        same_tags!(status, Status { MESSAGE: message = "m".into(), CODE: code = 1 });
    }

    #[test]
    fn values_have_the_numbers_of_the_schema() {
        use common::any_value::Value;
        use common::{AnyValue, ArrayValue, KeyValue, KeyValueList};

        same_tags!(
            key_value,
            KeyValue {
                KEY: key = "k".into(),
                VALUE: value = Some(AnyValue::default()),
                KEY_STRINDEX: key_strindex = 1,
            }
        );
        same_tags!(array_value, ArrayValue { VALUES: values = vec![AnyValue::default()] });
        same_tags!(key_value_list, KeyValueList { VALUES: values = vec![KeyValue::default()] });
        let value = |value| tag(AnyValue { value: Some(value) });
        let expected = [
            (any_value::STRING_VALUE.tag(), value(Value::StringValue(String::new()))),
            (any_value::BOOL_VALUE.tag(), value(Value::BoolValue(false))),
            (any_value::INT_VALUE.tag(), value(Value::IntValue(0))),
            (any_value::DOUBLE_VALUE.tag(), value(Value::DoubleValue(0.0))),
            (any_value::ARRAY_VALUE.tag(), value(Value::ArrayValue(ArrayValue::default()))),
            (any_value::KVLIST_VALUE.tag(), value(Value::KvlistValue(KeyValueList::default()))),
            (any_value::BYTES_VALUE.tag(), value(Value::BytesValue(Vec::new()))),
            (any_value::STRING_VALUE_STRINDEX.tag(), value(Value::StringValueStrindex(0))),
        ];
        for (ours, theirs) in expected {
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_put_appends_as_many_bytes_as_its_size_says() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            span::DROPPED_LINKS_COUNT.put(&mut out, value);
            assert_eq!(out.len(), span::DROPPED_LINKS_COUNT.size(value), "{value}");
        }
        for len in [0, 1, 127, 128, 20_000] {
            let mut out = Vec::new();
            span::NAME.put(&mut out, &vec![0; len]);
            assert_eq!(out.len(), span::NAME.size(len), "{len}");
        }
        let mut out = Vec::new();
        span::FLAGS.put_nonzero(&mut out, 1);
        assert_eq!(out, [0x85, 0x01, 1, 0, 0, 0]);
        assert_eq!(out.len(), span::FLAGS.size());
        out.clear();
        event::TIME_UNIX_NANO.put(&mut out, 1);
        assert_eq!(out.len(), event::TIME_UNIX_NANO.size());
    }
}
