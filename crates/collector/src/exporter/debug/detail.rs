//! All that is in a span, and where it comes from.

use std::io::{self, Write};

use spanwire_codec::view::{AnyValue, KeyValue, Span};

use super::{Origin, hex, printable, write_plain};

impl Origin<'_> {
    /// Its resource and its scope, under the number that its spans have.
    pub(super) fn write(&self, place: usize, out: &mut dyn Write) -> io::Result<()> {
        let number = format!("#{}", place + 1);
        write!(out, "  {number} resource")?;
        if let Some(resource) = self.resource.resource() {
            attributes(resource.attributes(), out)?;
            dropped("attributes", resource.dropped_attributes_count(), out)?;
        }
        text("schema", self.resource.schema_url(), out)?;
        write!(out, "\n  {:width$} scope", "", width = number.len())?;
        if let Some(scope) = self.scope.scope() {
            for part in [scope.name(), scope.version()] {
                if !part.is_empty() {
                    out.write_all(b" ")?;
                    printable(part, usize::MAX, out)?;
                }
            }
            attributes(scope.attributes(), out)?;
            dropped("attributes", scope.dropped_attributes_count(), out)?;
        }
        text("schema", self.scope.schema_url(), out)?;
        writeln!(out)
    }
}

/// What the line of a span leaves out, each line behind `indent`.
pub(super) fn write(span: &Span<'_>, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{indent}span ")?;
    hex(&span.span_id().unwrap_or_default(), out)?;
    if let Some(parent) = span.parent_span_id() {
        out.write_all(b"  parent ")?;
        hex(&parent, out)?;
    }
    context(span.flags(), span.trace_state(), out)?;
    let (from, to) = (span.start_time_unix_nano(), span.end_time_unix_nano());
    write!(out, "\n{indent}from {from} ns to {to} ns")?;
    let status = span.status();
    let code = match status.as_ref().map_or(0, |status| status.code()) {
        0 => "unset",
        1 => "ok",
        2 => "error",
        _ => "unknown",
    };
    write!(out, "  status {code}")?;
    if let Some(message) = status.map(|status| status.message()).filter(|text| !text.is_empty()) {
        out.write_all(b": ")?;
        printable(message, usize::MAX, out)?;
    }
    writeln!(out)?;
    for one in span.attributes() {
        out.write_all(indent.as_bytes())?;
        attribute(&one, out)?;
        writeln!(out)?;
    }
    dropped_line(indent, "attributes", span.dropped_attributes_count(), out)?;
    for event in span.events() {
        write!(out, "{indent}event at {} ns  ", event.time_unix_nano())?;
        printable(event.name(), usize::MAX, out)?;
        attributes(event.attributes(), out)?;
        dropped("attributes", event.dropped_attributes_count(), out)?;
        writeln!(out)?;
    }
    dropped_line(indent, "events", span.dropped_events_count(), out)?;
    for link in span.links() {
        write!(out, "{indent}link to trace ")?;
        hex(&link.trace_id().unwrap_or_default(), out)?;
        out.write_all(b" span ")?;
        hex(&link.span_id().unwrap_or_default(), out)?;
        context(link.flags(), link.trace_state(), out)?;
        attributes(link.attributes(), out)?;
        dropped("attributes", link.dropped_attributes_count(), out)?;
        writeln!(out)?;
    }
    dropped_line(indent, "links", span.dropped_links_count(), out)
}

fn context(flags: u32, trace_state: &[u8], out: &mut dyn Write) -> io::Result<()> {
    if flags != 0 {
        write!(out, "  flags {flags:#x}")?;
    }
    text("trace state", trace_state, out)
}

fn text(name: &str, text: &[u8], out: &mut dyn Write) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    write!(out, "  {name} ")?;
    printable(text, usize::MAX, out)
}

/// What the sender says that it left out.
fn dropped(what: &str, count: u32, out: &mut dyn Write) -> io::Result<()> {
    match count {
        0 => Ok(()),
        count => write!(out, "  {what} dropped: {count}"),
    }
}

fn dropped_line(indent: &str, what: &str, count: u32, out: &mut dyn Write) -> io::Result<()> {
    match count {
        0 => Ok(()),
        count => writeln!(out, "{indent}{what} dropped: {count}"),
    }
}

fn attributes<'a>(
    attributes: impl Iterator<Item = KeyValue<'a>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    for one in attributes {
        out.write_all(b"  ")?;
        attribute(&one, out)?;
    }
    Ok(())
}

fn attribute(attribute: &KeyValue<'_>, out: &mut dyn Write) -> io::Result<()> {
    printable(attribute.key(), usize::MAX, out)?;
    out.write_all(b"=")?;
    value(attribute.value(), DEPTH_MAX, out)
}

/// `depth` is how many values may be within each other here.
fn value(of: AnyValue<'_>, depth: usize, out: &mut dyn Write) -> io::Result<()> {
    match of {
        AnyValue::Array(_) | AnyValue::Map(_) if depth == 0 => out.write_all("…".as_bytes()),
        AnyValue::Array(values) => {
            out.write_all(b"[")?;
            for (place, one) in values.enumerate() {
                out.write_all(if place == 0 { b"" } else { b", " })?;
                value(one, depth - 1, out)?;
            }
            out.write_all(b"]")
        }
        AnyValue::Map(values) => {
            out.write_all(b"{")?;
            for (place, one) in values.enumerate() {
                out.write_all(if place == 0 { b"" } else { b", " })?;
                printable(one.key(), usize::MAX, out)?;
                out.write_all(b"=")?;
                value(one.value(), depth - 1, out)?;
            }
            out.write_all(b"}")
        }
        plain => write_plain(plain, out),
    }
}

/// Further down, values are left out: nobody reads that, and each level takes stack.
const DEPTH_MAX: usize = 16;
