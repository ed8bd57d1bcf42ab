//! Wire bytes to JSON.

mod fields;
mod value;

use self::fields::{Pieces, Repeated};
use self::value::{key_value, key_values};
use super::binary::{put_hex, put_hex_id};
use super::number::{put_i64, put_u64};
use super::text::{put_contents, put_string};
use crate::field::{
    entity_ref, event, link, request, resource, resource_spans, scope, scope_spans, span, status,
};
use crate::view::Malformed;
use crate::wire::{Fault, Field, Reader, unknown};

/// Appends an export request, given as protobuf wire bytes, as OTLP/JSON.
///
/// Fields may come in any order, and messages in pieces, as protobuf allows. Ids are written as
/// they are, whatever their length.
///
/// Each byte of the request is looked at once or twice; nothing but `out` allocates, which grows by
/// about twice the size of an ordinary request.
///
/// # Errors
///
/// [`Malformed`] where the bytes are no request, down to the values of attributes, or where a value
/// has more than [`NESTING_MAX`](crate::view::NESTING_MAX) levels. `out` is then as it was. An array
/// or map that a later value of the same attribute overrules is not looked into.
///
/// ```
/// use spanwire_codec::json::write_request;
///
/// let request = [
///     0x0A, 18, 0x12, 16, 0x12, 14, // resource_spans, scope_spans, spans
///     0x12, 8, 0, 1, 2, 3, 4, 5, 6, 0xFF, // span_id
///     0x2A, 2, b'o', b'k', // name
/// ];
/// let mut json = Vec::new();
/// write_request(&request, &mut json)?;
/// let span = r#"{"spanId":"00010203040506ff","name":"ok"}"#;
/// let expected = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
/// assert_eq!(String::from_utf8(json)?, expected);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_request(request: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let start = out.len();
    traces(Reader::new(request), out).map_err(|fault| {
        out.truncate(start);
        Malformed::from(fault)
    })
}

fn traces(reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut fields = Pieces::whole(reader);
    let mut spans = Repeated::new(request::RESOURCE_SPANS);
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(request::RESOURCE_SPANS, body) => spans.add(&fields, body),
            field => unknown(at, &field, request::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    spans.write(out, br#""resourceSpans":["#, resource_spans)?;
    close(out, b'}');
    Ok(())
}

fn resource_spans(reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut fields = Pieces::whole(reader);
    let mut from = None;
    let mut spans = Repeated::new(resource_spans::SCOPE_SPANS);
    let mut schema_url: &[u8] = &[];
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(resource_spans::RESOURCE, body) => {
                fields.merge(&mut from, resource_spans::RESOURCE, body)
            }
            Field::Len(resource_spans::SCOPE_SPANS, body) => spans.add(&fields, body),
            Field::Len(resource_spans::SCHEMA_URL, url) => schema_url = url,
            field => unknown(at, &field, resource_spans::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    if let Some(from) = from {
        out.extend_from_slice(br#""resource":"#);
        resource(from, out)?;
        out.push(b',');
    }
    spans.write(out, br#""scopeSpans":["#, scope_spans)?;
    put_text(out, br#""schemaUrl":""#, schema_url);
    close(out, b'}');
    Ok(())
}

fn resource(mut fields: Pieces<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut attributes = Repeated::new(resource::ATTRIBUTES);
    let mut dropped = 0;
    let mut entities = Repeated::new(resource::ENTITY_REFS);
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(resource::ATTRIBUTES, body) => attributes.add(&fields, body),
            Field::Varint(resource::DROPPED_ATTRIBUTES_COUNT, count) => dropped = count as u32,
            Field::Len(resource::ENTITY_REFS, body) => entities.add(&fields, body),
            field => unknown(at, &field, resource::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    key_values(attributes, out)?;
    put_count(out, br#""droppedAttributesCount":"#, dropped);
    entities.write(out, br#""entityRefs":["#, entity_ref)?;
    close(out, b'}');
    Ok(())
}

fn entity_ref(reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut fields = Pieces::whole(reader);
    let (mut schema_url, mut kind): (&[u8], &[u8]) = (&[], &[]);
    let mut id_keys = Repeated::new(entity_ref::ID_KEYS);
    let mut description_keys = Repeated::new(entity_ref::DESCRIPTION_KEYS);
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(entity_ref::SCHEMA_URL, url) => schema_url = url,
            Field::Len(entity_ref::TYPE, text) => kind = text,
            Field::Len(entity_ref::ID_KEYS, body) => id_keys.add(&fields, body),
            Field::Len(entity_ref::DESCRIPTION_KEYS, body) => description_keys.add(&fields, body),
            field => unknown(at, &field, entity_ref::NUMBER_MAX)?,
        }
    }
    let key = |key: Reader<'_>, out: &mut Vec<u8>| {
        put_string(out, key.rest());
        Ok(())
    };
    out.push(b'{');
    put_text(out, br#""schemaUrl":""#, schema_url);
    put_text(out, br#""type":""#, kind);
    id_keys.write(out, br#""idKeys":["#, key)?;
    description_keys.write(out, br#""descriptionKeys":["#, key)?;
    close(out, b'}');
    Ok(())
}

fn scope_spans(reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut fields = Pieces::whole(reader);
    let mut by = None;
    let mut spans = Repeated::new(scope_spans::SPANS);
    let mut schema_url: &[u8] = &[];
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(scope_spans::SCOPE, body) => fields.merge(&mut by, scope_spans::SCOPE, body),
            Field::Len(scope_spans::SPANS, body) => spans.add(&fields, body),
            Field::Len(scope_spans::SCHEMA_URL, url) => schema_url = url,
            field => unknown(at, &field, scope_spans::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    if let Some(by) = by {
        out.extend_from_slice(br#""scope":"#);
        scope(by, out)?;
        out.push(b',');
    }
    spans.write(out, br#""spans":["#, span)?;
    put_text(out, br#""schemaUrl":""#, schema_url);
    close(out, b'}');
    Ok(())
}

fn scope(mut fields: Pieces<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (mut name, mut version): (&[u8], &[u8]) = (&[], &[]);
    let mut attributes = Repeated::new(scope::ATTRIBUTES);
    let mut dropped = 0;
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(scope::NAME, text) => name = text,
            Field::Len(scope::VERSION, text) => version = text,
            Field::Len(scope::ATTRIBUTES, body) => attributes.add(&fields, body),
            Field::Varint(scope::DROPPED_ATTRIBUTES_COUNT, count) => dropped = count as u32,
            field => unknown(at, &field, scope::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    put_text(out, br#""name":""#, name);
    put_text(out, br#""version":""#, version);
    key_values(attributes, out)?;
    put_count(out, br#""droppedAttributesCount":"#, dropped);
    close(out, b'}');
    Ok(())
}

fn span(reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    if span_in_order(reader, out)? {
        return Ok(());
    }
    out.truncate(start);
    span_in_any_order(reader, out)
}

/// Appends a span whose fields come in number order, a singular one once: what nearly every encoder
/// makes of it, and the order of JSON too. One pass without notes, where [`span_in_any_order`] takes
/// two. `false`, with a part appended, for any other span.
fn span_in_order(mut fields: Reader<'_>, out: &mut Vec<u8>) -> Result<bool, Fault> {
    // The first bytes of the tags ascend with the numbers, if no tag is padded.
    const FLAGS: [u8; 2] = [span::FLAGS.tag() as u8 | 0x80, (span::FLAGS.tag() >> 7) as u8];

    out.push(b'{');
    let mut last = 0;
    while let Some(&tag) = fields.rest().first() {
        if tag <= last || tag >= 0x80 && !fields.rest().starts_with(&FLAGS) {
            return Ok(false);
        }
        last = tag;
        let Some((at, field)) = fields.field_at()? else { break };
        match field {
            Field::Len(span::TRACE_ID, id) => put_id(out, br#""traceId":""#, id),
            Field::Len(span::SPAN_ID, id) => put_id(out, br#""spanId":""#, id),
            Field::Len(span::TRACE_STATE, state) => put_text(out, br#""traceState":""#, state),
            Field::Len(span::PARENT_SPAN_ID, id) => put_id(out, br#""parentSpanId":""#, id),
            Field::Len(span::NAME, text) => put_text(out, br#""name":""#, text),
            Field::Varint(span::KIND, kind) => put_enum(out, br#""kind":"#, kind as i32),
            Field::Fixed64(span::START_TIME_UNIX_NANO, time) => {
                put_time(out, br#""startTimeUnixNano":""#, time);
            }
            Field::Fixed64(span::END_TIME_UNIX_NANO, time) => {
                put_time(out, br#""endTimeUnixNano":""#, time);
            }
            Field::Len(span::ATTRIBUTES, body) => {
                out.extend_from_slice(br#""attributes":["#);
                list_in_order(&mut fields, tag, body, out, |body, out| key_value(body, 0, out))?;
            }
            Field::Varint(span::DROPPED_ATTRIBUTES_COUNT, count) => {
                put_count(out, br#""droppedAttributesCount":"#, count as u32);
            }
            Field::Len(span::EVENTS, body) => {
                out.extend_from_slice(br#""events":["#);
                list_in_order(&mut fields, tag, body, out, event)?;
            }
            Field::Varint(span::DROPPED_EVENTS_COUNT, count) => {
                put_count(out, br#""droppedEventsCount":"#, count as u32);
            }
            Field::Len(span::LINKS, body) => {
                out.extend_from_slice(br#""links":["#);
                list_in_order(&mut fields, tag, body, out, link)?;
            }
            Field::Varint(span::DROPPED_LINKS_COUNT, count) => {
                put_count(out, br#""droppedLinksCount":"#, count as u32);
            }
            Field::Len(span::STATUS, body) => {
                out.extend_from_slice(br#""status":"#);
                status(Pieces::whole(fields.within(body)), out)?;
                out.push(b',');
            }
            Field::Fixed32(span::FLAGS, bits) => put_count(out, br#""flags":"#, bits),
            field => unknown(at, &field, span::NUMBER_MAX)?,
        }
    }
    close(out, b'}');
    Ok(true)
}

/// Appends the element that was just read and those that follow it under the same tag, of one byte,
/// and ends the array.
#[inline]
fn list_in_order<'a>(
    fields: &mut Reader<'a>,
    tag: u8,
    first: &'a [u8],
    out: &mut Vec<u8>,
    element: impl Fn(Reader<'a>, &mut Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    element(fields.within(first), out)?;
    while fields.rest().first() == Some(&tag) {
        fields.tag()?;
        let next = fields.message()?;
        out.push(b',');
        element(next, out)?;
    }
    out.extend_from_slice(b"],");
    Ok(())
}

fn span_in_any_order(reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut fields = Pieces::whole(reader);
    let (mut trace_id, mut span_id, mut parent_span_id): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let (mut trace_state, mut name): (&[u8], &[u8]) = (&[], &[]);
    let (mut kind, mut start, mut end, mut flags) = (0, 0, 0, 0);
    let (mut dropped_attributes, mut dropped_events, mut dropped_links) = (0, 0, 0);
    let mut attributes = Repeated::new(span::ATTRIBUTES);
    let mut events = Repeated::new(span::EVENTS);
    let mut links = Repeated::new(span::LINKS);
    let mut outcome = None;
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(span::ATTRIBUTES, body) => attributes.add(&fields, body),
            Field::Len(span::TRACE_ID, id) => trace_id = id,
            Field::Len(span::SPAN_ID, id) => span_id = id,
            Field::Len(span::TRACE_STATE, state) => trace_state = state,
            Field::Len(span::PARENT_SPAN_ID, id) => parent_span_id = id,
            Field::Len(span::NAME, text) => name = text,
            Field::Varint(span::KIND, number) => kind = number as i32,
            Field::Fixed64(span::START_TIME_UNIX_NANO, time) => start = time,
            Field::Fixed64(span::END_TIME_UNIX_NANO, time) => end = time,
            Field::Varint(span::DROPPED_ATTRIBUTES_COUNT, count) => {
                dropped_attributes = count as u32
            }
            Field::Len(span::EVENTS, body) => events.add(&fields, body),
            Field::Varint(span::DROPPED_EVENTS_COUNT, count) => dropped_events = count as u32,
            Field::Len(span::LINKS, body) => links.add(&fields, body),
            Field::Varint(span::DROPPED_LINKS_COUNT, count) => dropped_links = count as u32,
            Field::Len(span::STATUS, body) => fields.merge(&mut outcome, span::STATUS, body),
            Field::Fixed32(span::FLAGS, bits) => flags = bits,
            field => unknown(at, &field, span::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    put_id(out, br#""traceId":""#, trace_id);
    put_id(out, br#""spanId":""#, span_id);
    put_text(out, br#""traceState":""#, trace_state);
    put_id(out, br#""parentSpanId":""#, parent_span_id);
    put_text(out, br#""name":""#, name);
    put_enum(out, br#""kind":"#, kind);
    put_time(out, br#""startTimeUnixNano":""#, start);
    put_time(out, br#""endTimeUnixNano":""#, end);
    key_values(attributes, out)?;
    put_count(out, br#""droppedAttributesCount":"#, dropped_attributes);
    events.write(out, br#""events":["#, event)?;
    put_count(out, br#""droppedEventsCount":"#, dropped_events);
    links.write(out, br#""links":["#, link)?;
    put_count(out, br#""droppedLinksCount":"#, dropped_links);
    if let Some(outcome) = outcome {
        out.extend_from_slice(br#""status":"#);
        status(outcome, out)?;
        out.push(b',');
    }
    put_count(out, br#""flags":"#, flags);
    close(out, b'}');
    Ok(())
}

fn event(reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut fields = Pieces::whole(reader);
    let mut name: &[u8] = &[];
    let (mut time, mut dropped) = (0, 0);
    let mut attributes = Repeated::new(event::ATTRIBUTES);
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Fixed64(event::TIME_UNIX_NANO, nanos) => time = nanos,
            Field::Len(event::NAME, text) => name = text,
            Field::Len(event::ATTRIBUTES, body) => attributes.add(&fields, body),
            Field::Varint(event::DROPPED_ATTRIBUTES_COUNT, count) => dropped = count as u32,
            field => unknown(at, &field, event::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    put_time(out, br#""timeUnixNano":""#, time);
    put_text(out, br#""name":""#, name);
    key_values(attributes, out)?;
    put_count(out, br#""droppedAttributesCount":"#, dropped);
    close(out, b'}');
    Ok(())
}

fn link(reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut fields = Pieces::whole(reader);
    let (mut trace_id, mut span_id, mut trace_state): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let (mut dropped, mut flags) = (0, 0);
    let mut attributes = Repeated::new(link::ATTRIBUTES);
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(link::TRACE_ID, id) => trace_id = id,
            Field::Len(link::SPAN_ID, id) => span_id = id,
            Field::Len(link::TRACE_STATE, state) => trace_state = state,
            Field::Len(link::ATTRIBUTES, body) => attributes.add(&fields, body),
            Field::Varint(link::DROPPED_ATTRIBUTES_COUNT, count) => dropped = count as u32,
            Field::Fixed32(link::FLAGS, bits) => flags = bits,
            field => unknown(at, &field, link::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    put_id(out, br#""traceId":""#, trace_id);
    put_id(out, br#""spanId":""#, span_id);
    put_text(out, br#""traceState":""#, trace_state);
    key_values(attributes, out)?;
    put_count(out, br#""droppedAttributesCount":"#, dropped);
    put_count(out, br#""flags":"#, flags);
    close(out, b'}');
    Ok(())
}

fn status(mut fields: Pieces<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut message: &[u8] = &[];
    let mut code = 0;
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(status::MESSAGE, text) => message = text,
            Field::Varint(status::CODE, number) => code = number as i32,
            field if field.number() == status::RESERVED => {}
            field => unknown(at, &field, status::NUMBER_MAX)?,
        }
    }
    out.push(b'{');
    put_text(out, br#""message":""#, message);
    put_enum(out, br#""code":"#, code);
    close(out, b'}');
    Ok(())
}

/// Ends an object or array whose members were each written with a comma behind them.
///
/// No value ends in a comma, so the last byte tells whether there was a member.
#[inline]
pub(super) fn close(out: &mut Vec<u8>, bracket: u8) {
    match out.last_mut() {
        Some(comma @ b',') => *comma = bracket,
        _ => out.push(bracket),
    }
}

/// Appends a string member unless it is empty; `name` ends with the opening quote.
#[inline]
pub(super) fn put_text(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    if !text.is_empty() {
        out.extend_from_slice(name);
        put_contents(out, text);
        out.extend_from_slice(b"\",");
    }
}

/// Appends an id unless it is empty; `name` ends with the opening quote.
#[inline]
fn put_id(out: &mut Vec<u8>, name: &[u8], id: &[u8]) {
    if id.is_empty() {
        return;
    }
    out.extend_from_slice(name);
    if let Ok(id) = id.try_into() {
        put_hex_id::<16, 32>(out, id);
    } else if let Ok(id) = id.try_into() {
        put_hex_id::<8, 16>(out, id);
    } else {
        put_hex(out, id);
    }
    out.extend_from_slice(b"\",");
}

/// Appends a time unless it is zero; `name` ends with the opening quote.
#[inline]
fn put_time(out: &mut Vec<u8>, name: &[u8], nanos: u64) {
    if nanos != 0 {
        out.extend_from_slice(name);
        put_u64(out, nanos);
        out.extend_from_slice(b"\",");
    }
}

/// Appends a 32-bit number unless it is zero; `name` ends with the colon.
#[inline]
fn put_count(out: &mut Vec<u8>, name: &[u8], count: u32) {
    if count != 0 {
        out.extend_from_slice(name);
        put_u64(out, u64::from(count));
        out.push(b',');
    }
}

/// Appends an enum's number unless it is zero; `name` ends with the colon.
#[inline]
pub(super) fn put_enum(out: &mut Vec<u8>, name: &[u8], number: i32) {
    if number != 0 {
        out.extend_from_slice(name);
        put_i64(out, i64::from(number));
        out.push(b',');
    }
}
