//! JSON to wire bytes.

mod parser;

use self::parser::{Parser, Room, Seen};
use super::error::{JsonError, JsonErrorKind};
use super::pull::{array, object};
use crate::field::{
    Len, any_value, array_value, entity_ref, event, key_value, key_value_list, link, request,
    resource, resource_spans, scope, scope_spans, span, status,
};
use crate::view::NESTING_MAX;

/// Reads an export request in OTLP/JSON into its protobuf wire bytes.
///
/// The fields keep the order they have in the text; those with their default are left out. Lengths
/// above 1 KiB within arrays and maps may be written with more bytes than they need, as protobuf
/// allows: moving such a body once for each level would cost more than the reading.
///
/// Time is linear in the text; the result has at most about the size of the text, and nothing else
/// is allocated but a buffer for one string with escapes.
///
/// # Errors
///
/// [`JsonError`] where the text is not JSON or a member is not what the protocol has; see the
/// [module](crate::json) for what is accepted.
///
/// ```
/// use spanwire_codec::json::{JsonErrorKind, read_request};
///
/// let json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"ok","kind":1}]}]}]}"#;
/// let request = read_request(json)?;
/// assert_eq!(request, [0x0A, 10, 0x12, 8, 0x12, 6, 0x2A, 2, b'o', b'k', 0x30, 1]);
///
/// let json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SPAN_KIND_SERVER"}]}]}]}"#;
/// let error = read_request(json).unwrap_err();
/// assert_eq!((error.kind(), error.offset()), (JsonErrorKind::Enum, 51));
/// # Ok::<(), spanwire_codec::json::JsonError>(())
/// ```
pub fn read_request(json: &[u8]) -> Result<Vec<u8>, JsonError> {
    let mut parser = Parser::new(json)?;
    object(&mut parser, |parser, name| match name {
        b"resourceSpans" => {
            let room = parser.room_for_most();
            parser.messages(request::RESOURCE_SPANS, room, resource_spans)
        }
        _ => parser.skip(),
    })?;
    parser.finish()
}

type Done = Result<(), JsonError>;

fn resource_spans(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"resource" => parser.message(resource_spans::RESOURCE, Room::guess(2), resource),
        b"scopeSpans" => {
            let room = parser.room_for_most();
            parser.messages(resource_spans::SCOPE_SPANS, room, scope_spans)
        }
        b"schemaUrl" => parser.text(resource_spans::SCHEMA_URL, &mut seen),
        _ => parser.skip(),
    })
}

fn resource(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"attributes" => attributes(parser, resource::ATTRIBUTES),
        b"droppedAttributesCount" => parser.uint32(resource::DROPPED_ATTRIBUTES_COUNT, &mut seen),
        b"entityRefs" => parser.messages(resource::ENTITY_REFS, Room::guess(1), entity_ref),
        _ => parser.skip(),
    })
}

fn entity_ref(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"schemaUrl" => parser.text(entity_ref::SCHEMA_URL, &mut seen),
        b"type" => parser.text(entity_ref::TYPE, &mut seen),
        b"idKeys" => array(parser, |parser| parser.text_always(entity_ref::ID_KEYS)),
        b"descriptionKeys" => {
            array(parser, |parser| parser.text_always(entity_ref::DESCRIPTION_KEYS))
        }
        _ => parser.skip(),
    })
}

fn scope_spans(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"scope" => parser.message(scope_spans::SCOPE, Room::guess(1), scope),
        b"spans" => parser.messages(scope_spans::SPANS, Room::guess(2), span),
        b"schemaUrl" => parser.text(scope_spans::SCHEMA_URL, &mut seen),
        _ => parser.skip(),
    })
}

fn scope(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"name" => parser.text(scope::NAME, &mut seen),
        b"version" => parser.text(scope::VERSION, &mut seen),
        b"attributes" => attributes(parser, scope::ATTRIBUTES),
        b"droppedAttributesCount" => parser.uint32(scope::DROPPED_ATTRIBUTES_COUNT, &mut seen),
        _ => parser.skip(),
    })
}

fn span(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"traceId" => parser.id(span::TRACE_ID, &mut seen),
        b"spanId" => parser.id(span::SPAN_ID, &mut seen),
        b"traceState" => parser.text(span::TRACE_STATE, &mut seen),
        b"parentSpanId" => parser.id(span::PARENT_SPAN_ID, &mut seen),
        b"name" => parser.text(span::NAME, &mut seen),
        b"kind" => parser.number_of_enum(span::KIND, &mut seen),
        b"startTimeUnixNano" => parser.fixed64(span::START_TIME_UNIX_NANO, &mut seen),
        b"endTimeUnixNano" => parser.fixed64(span::END_TIME_UNIX_NANO, &mut seen),
        b"attributes" => attributes(parser, span::ATTRIBUTES),
        b"droppedAttributesCount" => parser.uint32(span::DROPPED_ATTRIBUTES_COUNT, &mut seen),
        b"events" => parser.messages(span::EVENTS, Room::guess(1), event),
        b"droppedEventsCount" => parser.uint32(span::DROPPED_EVENTS_COUNT, &mut seen),
        b"links" => parser.messages(span::LINKS, Room::guess(1), link),
        b"droppedLinksCount" => parser.uint32(span::DROPPED_LINKS_COUNT, &mut seen),
        b"status" => parser.message(span::STATUS, Room::guess(1), status),
        b"flags" => parser.fixed32(span::FLAGS, &mut seen),
        _ => parser.skip(),
    })
}

fn event(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"timeUnixNano" => parser.fixed64(event::TIME_UNIX_NANO, &mut seen),
        b"name" => parser.text(event::NAME, &mut seen),
        b"attributes" => attributes(parser, event::ATTRIBUTES),
        b"droppedAttributesCount" => parser.uint32(event::DROPPED_ATTRIBUTES_COUNT, &mut seen),
        _ => parser.skip(),
    })
}

fn link(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"traceId" => parser.id(link::TRACE_ID, &mut seen),
        b"spanId" => parser.id(link::SPAN_ID, &mut seen),
        b"traceState" => parser.text(link::TRACE_STATE, &mut seen),
        b"attributes" => attributes(parser, link::ATTRIBUTES),
        b"droppedAttributesCount" => parser.uint32(link::DROPPED_ATTRIBUTES_COUNT, &mut seen),
        b"flags" => parser.fixed32(link::FLAGS, &mut seen),
        _ => parser.skip(),
    })
}

fn status(parser: &mut Parser<'_>) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"message" => parser.text(status::MESSAGE, &mut seen),
        b"code" => parser.number_of_enum(status::CODE, &mut seen),
        _ => parser.skip(),
    })
}

fn attributes(parser: &mut Parser<'_>, field: Len) -> Done {
    array(parser, |parser| {
        if parser.plain_attribute(field) {
            return Ok(());
        }
        parser.message(field, Room::guess(1), |parser| entry(parser, 0))
    })
}

/// An attribute, or an entry of a map that lies within `nesting` arrays and maps.
fn entry(parser: &mut Parser<'_>, nesting: usize) -> Done {
    let mut seen = Seen::default();
    object(parser, |parser, name| match name {
        b"key" => parser.text(key_value::KEY, &mut seen),
        b"value" => {
            let room = parser.room_within(nesting);
            parser.message(key_value::VALUE, room, |parser| value(parser, nesting))
        }
        _ => parser.skip(),
    })
}

/// A value that lies within `nesting` arrays and maps. The recursion ends at [`NESTING_MAX`].
fn value(parser: &mut Parser<'_>, nesting: usize) -> Done {
    object(parser, |parser, name| match name {
        b"stringValue" => parser.text_always(any_value::STRING_VALUE),
        b"boolValue" => parser.bool_always(any_value::BOOL_VALUE),
        b"intValue" => parser.int64_always(any_value::INT_VALUE),
        b"doubleValue" => parser.double_always(any_value::DOUBLE_VALUE),
        b"bytesValue" => parser.base64_always(any_value::BYTES_VALUE),
        b"arrayValue" | b"kvlistValue" if nesting == NESTING_MAX => {
            Err(parser.error(JsonErrorKind::Nesting))
        }
        b"arrayValue" => {
            let room = parser.room_within(nesting + 1);
            parser.message(any_value::ARRAY_VALUE, room, |parser| {
                list(parser, array_value::VALUES, |parser| value(parser, nesting + 1))
            })
        }
        b"kvlistValue" => {
            let room = parser.room_within(nesting + 1);
            parser.message(any_value::KVLIST_VALUE, room, |parser| {
                list(parser, key_value_list::VALUES, |parser| entry(parser, nesting + 1))
            })
        }
        _ => parser.skip(),
    })
}

/// `ArrayValue` or `KeyValueList`: a message with one repeated field.
fn list(parser: &mut Parser<'_>, values: Len, element: impl Fn(&mut Parser<'_>) -> Done) -> Done {
    object(parser, |parser, name| match name {
        b"values" => {
            let room = parser.room_within(1);
            parser.messages(values, room, &element)
        }
        _ => parser.skip(),
    })
}
