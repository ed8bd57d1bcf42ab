//! Spans to the terminal: counts, a tree for each trace, or all there is.

mod detail;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::rc::Rc;
use std::time::Instant;

use spanwire_codec::view::{self, AnyValue, KeyValue, ResourceSpans, ScopeSpans, Span};

use super::Shared;
use crate::item::{Item, Pieces};
use crate::ledger::DropReason;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Debug {
    /// A line for each batch.
    Basic,
    /// A tree for each trace of a batch.
    Normal,
    /// Every field of every span, its resource and its scope, too.
    Detailed,
}

impl Debug {
    /// Writes to standard output, on a thread where that may block.
    pub(super) async fn deliver(self, items: Vec<Item>, shared: &Shared) -> Vec<Item> {
        let requests: Vec<_> = items.iter().map(|item| item.request.pieces.clone()).collect();
        let written = tokio::task::spawn_blocking(move || {
            let pieces = requests.iter().flat_map(Pieces::iter).map(|piece| &piece[..]);
            self.write(&pieces.collect::<Vec<_>>().concat(), io::stdout().lock())
        });
        let message = match written.await {
            Ok(Ok(())) => {
                shared.health.succeeded(Instant::now());
                items.into_iter().for_each(|item| item.claim.sent(0, None));
                return Vec::new();
            }
            Ok(Err(error)) => format!("standard output: {error}"),
            Err(failed) => failed.to_string(),
        };
        shared.lost(items, DropReason::Internal, &message)
    }

    /// Writes part by part, as all of it may be many times as long as the request.
    fn write(self, request: &[u8], out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(PART_BYTES, out);
        match view::Request::parse(request) {
            Ok(request) => self.show(&request, &mut out)?,
            Err(malformed) => writeln!(out, "malformed request: {malformed}")?,
        }
        out.flush()
    }

    fn show(self, request: &view::Request<'_>, out: &mut dyn Write) -> io::Result<()> {
        let mut traces = Traces::default();
        for resource in request.resource_spans() {
            for scope in resource.scope_spans() {
                let origin = traces.origins.len();
                traces.origins.push(Origin { service: service(&resource), resource, scope });
                scope.spans().for_each(|span| traces.add(span, origin));
            }
        }
        if self == Self::Basic {
            let (traces, spans) = (traces.order.len(), traces.spans.len());
            return writeln!(out, "{} of {}", Count(spans, "span"), Count(traces, "trace"));
        }
        traces.write(self == Self::Detailed, out)
    }
}

/// What is written at once.
const PART_BYTES: usize = 64 << 10;

fn service<'a>(resource: &ResourceSpans<'a>) -> &'a [u8] {
    let attributes = resource.resource().into_iter().flat_map(|resource| resource.attributes());
    let named = attributes.filter(|attribute| attribute.key() == b"service.name").last();
    match named.map(|attribute| attribute.value()) {
        Some(AnyValue::String(name)) => name,
        _ => b"unknown_service",
    }
}

/// Where spans come from.
struct Origin<'a> {
    service: &'a [u8],
    resource: ResourceSpans<'a>,
    scope: ScopeSpans<'a>,
}

/// The spans of a batch, by trace.
#[derive(Default)]
struct Traces<'a> {
    origins: Vec<Origin<'a>>,
    /// With the place of where each comes from.
    spans: Vec<(Span<'a>, usize)>,
    /// Trace ids in the order in which they came, and the spans of each.
    order: Vec<[u8; 16]>,
    of: HashMap<[u8; 16], Vec<usize>>,
}

impl<'a> Traces<'a> {
    fn add(&mut self, span: Span<'a>, origin: usize) {
        let id = span.trace_id().unwrap_or_default();
        let spans = self.of.entry(id).or_default();
        if spans.is_empty() {
            self.order.push(id);
        }
        spans.push(self.spans.len());
        self.spans.push((span, origin));
    }

    fn write(&self, detailed: bool, out: &mut dyn Write) -> io::Result<()> {
        for id in &self.order {
            let spans = &self.of[id];
            write!(out, "trace ")?;
            hex(id, out)?;
            writeln!(out, "  {}", Count(spans.len(), "span"))?;
            if detailed {
                let origins: BTreeSet<_> = spans.iter().map(|&span| self.spans[span].1).collect();
                origins.into_iter().try_for_each(|one| self.origins[one].write(one, out))?;
            }
            self.write_trace(spans, detailed, out)?;
        }
        Ok(())
    }

    /// Walks the tree without recursion: parents may form rings, and chains of any length. What no
    /// root leads to starts a tree of its own.
    fn write_trace(&self, spans: &[usize], detailed: bool, out: &mut dyn Write) -> io::Result<()> {
        let id = |span: usize| self.spans[span].0.span_id().unwrap_or_default();
        let present: HashSet<[u8; 8]> = spans.iter().map(|&span| id(span)).collect();
        let mut children: HashMap<[u8; 8], Vec<usize>> = HashMap::new();
        let mut roots = Vec::new();
        for &span in spans {
            match self.spans[span].0.parent_span_id() {
                Some(parent) if present.contains(&parent) => {
                    children.entry(parent).or_default().push(span);
                }
                _ => roots.push(span),
            }
        }
        let by_start = |span: &usize| self.spans[*span].0.start_time_unix_nano();
        children.values_mut().for_each(|spans| spans.sort_by_key(by_start));
        roots.sort_by_key(by_start);

        let indent_max = if detailed { INDENT_MAX_DETAILED } else { INDENT_MAX };
        let mut shown = HashSet::new();
        let mut starts: Vec<usize> = spans.to_vec();
        starts.reverse();
        starts.extend(roots.into_iter().rev());
        while let Some(start) = starts.pop() {
            let mut left = vec![(start, Rc::<str>::from(""), true, true)];
            while let Some((span, indent, is_last, is_root)) = left.pop() {
                if !shown.insert(span) {
                    continue;
                }
                let (branch, below) = match (is_root, is_last) {
                    (true, _) => ("", ""),
                    (false, true) => ("└─ ", "   "),
                    (false, false) => ("├─ ", "│  "),
                };
                write!(out, "  {indent}{branch}")?;
                let below: Rc<str> = match indent.len() > indent_max {
                    true => indent,
                    false => [&*indent, below].concat().into(),
                };
                self.write_span(span, &below, detailed, out)?;
                let of_this = children.get(&id(span)).map(Vec::as_slice).unwrap_or_default();
                let of_this = of_this.iter().filter(|child| !shown.contains(child));
                for (place, &child) in of_this.rev().enumerate() {
                    left.push((child, Rc::clone(&below), place == 0, false));
                }
            }
        }
        Ok(())
    }

    fn write_span(
        &self,
        span: usize,
        indent: &str,
        detailed: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let (span, origin) = &self.spans[span];
        let texts = if detailed { usize::MAX } else { CHARACTERS_MAX };
        let nanos = span.end_time_unix_nano().saturating_sub(span.start_time_unix_nano());
        printable(span.name(), texts, out)?;
        write!(out, "  {}  {}  [", kind(span.kind()), Millis(nanos))?;
        printable(self.origins[*origin].service, texts, out)?;
        out.write_all(b"]")?;
        if let Some(status) = span.status().filter(|status| status.code() == STATUS_ERROR) {
            out.write_all(b"  ERROR ")?;
            printable(status.message(), texts, out)?;
        }
        if detailed {
            writeln!(out, "  #{}", origin + 1)?;
            return detail::write(span, &format!("  {indent}     "), out);
        }
        let mut attributes = span.attributes();
        for attribute in attributes.by_ref().take(ATTRIBUTES_SHOWN) {
            out.write_all(b"  ")?;
            write_attribute(&attribute, out)?;
        }
        let more = attributes.count();
        if more > 0 {
            write!(out, "  and {more} more")?;
        }
        writeln!(out)
    }
}

/// Bytes of indentation after which a tree grows no further to the right.
const INDENT_MAX: usize = 120;

/// The same where each attribute has a line, and so the indentation of its span.
const INDENT_MAX_DETAILED: usize = 40;

/// Attributes on the line of a span that is not shown in full.
const ATTRIBUTES_SHOWN: usize = 4;

/// `STATUS_CODE_ERROR` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
const STATUS_ERROR: i32 = 2;

fn kind(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    }
}

/// So many of something.
struct Count(usize, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, name) = self;
        write!(f, "{count} {name}{}", if *count == 1 { "" } else { "s" })
    }
}

/// Nanoseconds, shown as milliseconds.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ms", self.0 as f64 / 1e6)
    }
}

fn hex(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

/// A line has room for the size of what holds others.
fn write_attribute(attribute: &KeyValue<'_>, out: &mut dyn Write) -> io::Result<()> {
    printable(attribute.key(), CHARACTERS_MAX, out)?;
    out.write_all(b"=")?;
    match attribute.value() {
        AnyValue::String(text) => printable(text, CHARACTERS_MAX, out),
        AnyValue::Bytes(bytes) => write!(out, "{} bytes", bytes.len()),
        AnyValue::Array(values) => write!(out, "an array of {}", values.count()),
        AnyValue::Map(values) => write!(out, "a map of {}", values.count()),
        plain => write_plain(plain, out),
    }
}

/// A value that holds no others.
fn write_plain(value: AnyValue<'_>, out: &mut dyn Write) -> io::Result<()> {
    match value {
        AnyValue::Bool(value) => write!(out, "{value}"),
        AnyValue::Int(value) => write!(out, "{value}"),
        AnyValue::Double(value) => write!(out, "{value}"),
        AnyValue::Bytes(bytes) => hex(bytes, out),
        AnyValue::String(text) => printable(text, usize::MAX, out),
        AnyValue::Empty | AnyValue::Array(_) | AnyValue::Map(_) => out.write_all(b"-"),
    }
}

/// Text of a peer, which must not steer the terminal, up to a number of characters.
fn printable(text: &[u8], characters_max: usize, out: &mut dyn Write) -> io::Result<()> {
    let text = String::from_utf8_lossy(text);
    let end = text.char_indices().nth(characters_max).map_or(text.len(), |(end, _)| end);
    for part in text[..end].split_inclusive(char::is_control) {
        match part.chars().next_back().filter(|last| last.is_control()) {
            Some(control) => {
                let plain = &part[..part.len() - control.len_utf8()];
                write!(out, "{plain}{}", control.escape_default())?;
            }
            None => out.write_all(part.as_bytes())?,
        }
    }
    match end < text.len() {
        true => out.write_all("…".as_bytes()),
        false => Ok(()),
    }
}

/// Of one text on a line of its span, so many characters are shown.
const CHARACTERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
    use spanwire_model::{
        Resource, Scope, Span, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId,
    };

    use super::*;

    fn span(id: u64, parent: u64, name: &str) -> Span {
        let trace = TraceId::new(0xABCD).expect("not zero");
        let context =
            SpanContext::new(trace, SpanId::new(id).expect("not zero"), TraceFlags::SAMPLED);
        let mut span = Span::new(context, name.to_owned());
        span.parent_span_id = SpanId::new(parent);
        span.start_time_unix_nano = id * 1_000_000;
        span.end_time_unix_nano = id * 1_000_000 + 2_500_000;
        span.kind = SpanKind::Server;
        span
    }

    fn shown(debug: Debug, spans: &[Span]) -> String {
        let mut framed = Vec::new();
        spans.iter().for_each(|span| encode::put_framed(span, &mut framed));
        let scope = EncodedScope::new(&Scope::new("test"));
        let mut request = bytes::BytesMut::new();
        let mut resource = Resource::default();
        resource.attributes.set("service.name", "shop");
        EncodedResource::new(&resource).put_header(scope.field_len(framed.len()), &mut request);
        scope.put_header(framed.len(), &mut request);
        request.extend_from_slice(&framed);
        text(debug, &request)
    }

    fn text(debug: Debug, request: &[u8]) -> String {
        let mut text = Vec::new();
        debug.write(request, &mut text).expect("memory takes all");
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn a_trace_is_a_tree_with_what_failed() {
        let mut failed = span(3, 2, "SELECT orders");
        failed.status = Status::Error { message: "deadline\u{1b}[2J exceeded".into() };
        failed.attributes.set("db.system.name", "postgresql");
        let spans =
            [failed, span(4, 1, "charge card"), span(2, 1, "load cart"), span(1, 0, "GET /")];
        let expected = "\
trace 0000000000000000000000000000abcd  4 spans
  GET /  server  2.500 ms  [shop]
  ├─ load cart  server  2.500 ms  [shop]
  │  └─ SELECT orders  server  2.500 ms  [shop]  ERROR deadline\\u{1b}[2J exceeded  \
db.system.name=postgresql
  └─ charge card  server  2.500 ms  [shop]
";
        assert_eq!(shown(Debug::Normal, &spans), expected);
        assert_eq!(shown(Debug::Basic, &spans), "4 spans of 1 trace\n");
    }

    #[test]
    fn spans_that_are_their_own_ancestors_are_shown_once() {
        let ring = [span(1, 2, "one"), span(2, 1, "two"), span(7, 7, "itself")];
        let text = shown(Debug::Detailed, &ring);
        for name in ["one", "two", "itself"] {
            assert_eq!(text.matches(name).count(), 1, "{text}");
        }
    }

    #[test]
    fn a_chain_of_any_length_is_shown_without_recursion() {
        let chain: Vec<_> = (1..=20_000).map(|id| span(id, id - 1, "step")).collect();
        assert_eq!(shown(Debug::Normal, &chain).matches("step").count(), 20_000);
    }

    /// Where what is written is only measured.
    #[derive(Default)]
    struct Measured {
        bytes: usize,
        largest: usize,
        longest_line: usize,
    }

    impl Write for &mut Measured {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            self.bytes += part.len();
            self.largest = self.largest.max(part.len());
            let lines = part.split(|&byte| byte == b'\n').map(<[u8]>::len);
            self.longest_line = lines.fold(self.longest_line, usize::max);
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_many_times_as_long_as_its_request_is_written_in_parts() {
        use opentelemetry_proto::tonic::common::v1::KeyValue;
        use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
        use prost::Message as _;

        const DEPTH: u64 = 40;
        const ATTRIBUTES: usize = 100_000;
        let span = |id: u64| Span {
            trace_id: vec![1; 16],
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: if id == 1 { Vec::new() } else { (id - 1).to_be_bytes().to_vec() },
            attributes: match id == DEPTH {
                true => vec![KeyValue::default(); ATTRIBUTES],
                false => Vec::new(),
            },
            ..Span::default()
        };
        let spans = (1..=DEPTH).map(span).collect();
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let request = TracesData { resource_spans }.encode_to_vec();
        let mut measured = Measured::default();
        Debug::Detailed.write(&request, &mut measured).expect("it takes all");
        let Measured { bytes, largest, longest_line } = measured;
        assert!(bytes > 10 * request.len(), "{bytes} bytes of {}", request.len());
        assert!(largest <= PART_BYTES, "{largest} bytes at once");
        let each = bytes / ATTRIBUTES;
        assert!(each < 60, "{each} bytes for each attribute");
        assert!(longest_line < 200, "{longest_line}");
    }

    #[test]
    fn detailed_is_all_there_is() {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
        use opentelemetry_proto::tonic::common::v1::{
            AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
        };
        use opentelemetry_proto::tonic::resource::v1::Resource;
        use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
        use opentelemetry_proto::tonic::trace::v1::{
            ResourceSpans, ScopeSpans, Span as WireSpan, Status as WireStatus,
        };
        use prost::Message as _;

        let value = |value| AnyValue { value: Some(value) };
        let one = |key: &str, of| KeyValue {
            key: key.to_owned(),
            value: Some(value(of)),
            ..KeyValue::default()
        };
        let string = |text: &str| Value::StringValue(text.to_owned());
        let stack = format!("at {}\nend", "x".repeat(300));
        let nested = Value::KvlistValue(KeyValueList {
            values: vec![one(
                "list",
                Value::ArrayValue(ArrayValue {
                    values: vec![value(Value::IntValue(1)), value(Value::BytesValue(vec![0xAB]))],
                }),
            )],
        });
        let span = WireSpan {
            trace_id: vec![0xAB; 16],
            span_id: vec![2; 8],
            parent_span_id: vec![1; 8],
            trace_state: "vendor=1".to_owned(),
            flags: 0x101,
            name: "GET /".to_owned(),
            kind: 3,
            start_time_unix_nano: 1_000_000,
            end_time_unix_nano: 3_500_000,
            attributes: vec![one("nested", nested)],
            dropped_attributes_count: 4,
            events: vec![Event {
                time_unix_nano: 2_000_000,
                name: "exception".to_owned(),
                attributes: vec![one("exception.stacktrace", string(&stack))],
                dropped_attributes_count: 5,
            }],
            dropped_events_count: 6,
            links: vec![Link {
                trace_id: vec![0xCD; 16],
                span_id: vec![3; 8],
                trace_state: "other=2".to_owned(),
                attributes: vec![one("why", string("retry"))],
                dropped_attributes_count: 7,
                flags: 1,
            }],
            dropped_links_count: 8,
            status: Some(WireStatus { code: 1, message: "fine".to_owned() }),
        };
        let scope_spans = ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "http".to_owned(),
                version: "1.2".to_owned(),
                attributes: vec![one("short", Value::BoolValue(true))],
                dropped_attributes_count: 9,
            }),
            spans: vec![span],
            schema_url: "https://schema/scope".to_owned(),
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![
                        one("host.name", string("a")),
                        one("service.name", string("shop")),
                    ],
                    dropped_attributes_count: 10,
                    ..Resource::default()
                }),
                scope_spans: vec![scope_spans],
                schema_url: "https://schema/resource".to_owned(),
            }],
        };
        let expected = format!(
            "\
trace {trace}  1 span
  #1 resource  host.name=a  service.name=shop  attributes dropped: 10  schema https://schema/resource
     scope http 1.2  short=true  attributes dropped: 9  schema https://schema/scope
  GET /  client  2.500 ms  [shop]  #1
       span 0202020202020202  parent 0101010101010101  flags 0x101  trace state vendor=1
       from 1000000 ns to 3500000 ns  status ok: fine
       nested={{list=[1, ab]}}
       attributes dropped: 4
       event at 2000000 ns  exception  exception.stacktrace=at {stack}\\nend  attributes dropped: 5
       events dropped: 6
       link to trace {link} span 0303030303030303  flags 0x1  trace state other=2  why=retry  \
attributes dropped: 7
       links dropped: 8
",
            trace = "ab".repeat(16),
            link = "cd".repeat(16),
            stack = "x".repeat(300),
        );
        assert_eq!(text(Debug::Detailed, &request.encode_to_vec()), expected);
        let normal = text(Debug::Normal, &request.encode_to_vec());
        assert!(normal.contains("nested=a map of 1"), "{normal}");
    }

    #[test]
    fn values_within_values_end_somewhere() {
        use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value::Value};
        use prost::Message as _;

        let mut value = AnyValue { value: Some(Value::IntValue(1)) };
        for _ in 0..90 {
            value = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![value] })) };
        }
        let attribute = opentelemetry_proto::tonic::common::v1::KeyValue {
            key: "deep".to_owned(),
            value: Some(value),
            ..Default::default()
        };
        let span = opentelemetry_proto::tonic::trace::v1::Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            attributes: vec![attribute],
            ..Default::default()
        };
        let request = opentelemetry_proto::tonic::trace::v1::TracesData {
            resource_spans: vec![opentelemetry_proto::tonic::trace::v1::ResourceSpans {
                scope_spans: vec![opentelemetry_proto::tonic::trace::v1::ScopeSpans {
                    spans: vec![span],
                    ..Default::default()
                }],
                ..Default::default()
            }],
        };
        let text = text(Debug::Detailed, &request.encode_to_vec());
        let brackets = "[".repeat(16);
        assert!(text.contains(&format!("deep={brackets}…{}", "]".repeat(16))), "{text}");
    }
}
