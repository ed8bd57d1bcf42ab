mod layout;
mod text;

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use self::layout::{Parent, Row, What};
use self::text::{Clip, Nanos, Plural, painted};
use crate::{Event, KeyValue, Span, SpanKind, Status, TraceId};

/// Finished spans drawn as trees, for people: one tree a trace, parents above their children.
///
/// Takes spans of any number of traces in any order, each with the name of its service (empty where
/// that is not known), and draws every one of them exactly once, whatever a peer sent: where a
/// parent is missing the span starts a tree of its own, a parent cycle is cut open at its earliest
/// span, and of spans with the same id the first in time has the children.
///
/// `{}` writes plain text, `{:#}` the same with ANSI colours. Control and invisible characters are
/// escaped. Lines and their width are bounded; what is left out is counted at its place.
///
/// Cost: `n log n` in the number of spans to build, no recursion.
///
/// ```
/// use spanwire_model::{Span, SpanContext, SpanId, SpanKind, TraceFlags, TraceTree};
///
/// let trace = "4bf92f3577b34da6a3ce929d0e0e4736".parse()?;
/// let span = |id: &str, name, start, end| -> Result<Span, spanwire_model::InvalidId> {
///     let context = SpanContext::new(trace, id.parse()?, TraceFlags::SAMPLED);
///     let mut span = Span::new(context, name);
///     (span.start_time_unix_nano, span.end_time_unix_nano) = (start, end);
///     Ok(span)
/// };
/// let root = span("00000000000000a1", "GET /users/{id}", 0, 4_000_000)?;
/// let mut query = span("00000000000000a2", "SELECT users", 1_000_000, 3_000_000)?;
/// query.set_parent(&root.context);
/// query.kind = SpanKind::Client;
///
/// let tree = TraceTree::new([("api", &query), ("api", &root)]);
/// assert_eq!(
///     tree.to_string(),
///     "\
/// Trace 4bf92f3577b34da6a3ce929d0e0e4736 · 2 spans · 1 service · 4.00 ms
///
/// GET /users/{id}  api  internal      +0 ns  4.00 ms  ━━━━━━━━━━━━━━━━━━━━━━━━
/// └─ SELECT users  api  client     +1.00 ms  2.00 ms        ━━━━━━━━━━━━"
/// );
/// # Ok::<(), spanwire_model::InvalidId>(())
/// ```
#[derive(Debug)]
pub struct TraceTree<'a> {
    traces: Vec<Trace<'a>>,
}

/// A span and the name of the service it comes from.
type Entry<'a> = (&'a str, &'a Span);

#[derive(Debug)]
struct Trace<'a> {
    id: TraceId,
    entries: Vec<Entry<'a>>,
    rows: Vec<Row>,
    /// Start of the first root, in nanoseconds since the Unix epoch; offsets count from here.
    origin: u64,
    /// From there to the latest end, in nanoseconds.
    extent: u64,
}

impl<'a> TraceTree<'a> {
    /// Builds the trees. Traces and siblings stand in the order of their starts.
    pub fn new(spans: impl IntoIterator<Item = (&'a str, &'a Span)>) -> Self {
        let mut spans: Vec<Entry<'a>> = spans.into_iter().collect();
        spans.sort_by_key(|(_, span)| (span.context.trace_id, span.start_time_unix_nano));
        let same_trace =
            |a: &Entry<'_>, b: &Entry<'_>| a.1.context.trace_id == b.1.context.trace_id;
        let mut traces: Vec<_> = spans
            .chunk_by(same_trace)
            .map(|entries| Trace::new(entries[0].1.context.trace_id, entries.to_vec()))
            .collect();
        traces.sort_by_key(|trace| trace.origin);
        Self { traces }
    }
}

impl<'a> Trace<'a> {
    /// Places entries that are sorted by start; there is at least one.
    fn new(id: TraceId, entries: Vec<Entry<'a>>) -> Self {
        let rows = layout::rows(&entries);
        let root = match rows.first() {
            Some(Row { what: What::Span { at, .. }, .. }) => *at,
            _ => 0,
        };
        let origin = entries[root].1.start_time_unix_nano;
        let end = entries.iter().map(|(_, span)| span.end_time_unix_nano).max().unwrap_or(origin);
        Self { id, entries, rows, origin, extent: end.saturating_sub(origin) }
    }

    fn is_error(span: &Span) -> bool {
        matches!(span.status, Status::Error { .. })
    }
}

impl fmt::Display for TraceTree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = Page { lines: 0, f };
        let mut left: usize = self.traces.iter().map(|trace| trace.entries.len()).sum();
        for trace in &self.traces {
            if page.is_full() {
                break;
            }
            if page.lines > 0 {
                page.line("")?;
            }
            trace.draw(&mut page, &mut left)?;
        }
        if left > 0 {
            page.line(&format!("… {} not drawn", Plural(left, "span")))?;
        }
        Ok(())
    }
}

impl Trace<'_> {
    /// Draws the trace while the page has room, and takes what it has drawn off `left`.
    fn draw(&self, page: &mut Page<'_, '_>, left: &mut usize) -> fmt::Result {
        page.line(&self.heading(page.colours()))?;
        let columns = Columns::of(self);
        let mut lasts = Vec::new();
        for (row, next) in self.rows.iter().zip(self.rows.iter().skip(1).map(Some).chain([None])) {
            if page.is_full() {
                break;
            }
            lasts.truncate(row.depth);
            let branch = branch(&lasts, row);
            lasts.push(row.last);
            match row.what {
                What::Below(count) => {
                    *left -= count;
                    let spans = Plural(count, "span");
                    page.line(&format!("{branch}… {spans} further down"))?;
                }
                What::Span { at, parent } => {
                    *left -= 1;
                    let (service, span) = self.entries[at];
                    if row.depth == 0 {
                        page.line("")?;
                    }
                    page.line(&self.summary(&columns, &branch, service, span, page.colours()))?;
                    let has_children = next.is_some_and(|next| next.depth > row.depth);
                    let margin = margin(&lasts, has_children);
                    self.details(page, &margin, span, parent)?;
                }
            }
        }
        Ok(())
    }

    fn heading(&self, colours: bool) -> String {
        let spans = Plural(self.entries.len(), "span");
        let services: BTreeSet<&str> =
            self.entries.iter().map(|&(service, _)| service).filter(|s| !s.is_empty()).collect();
        let errors = self.entries.iter().filter(|(_, span)| Self::is_error(span)).count();
        let mut text = painted(&format!("Trace {}", self.id), BOLD, colours);
        // Writing to a `String` can't fail.
        let _infallible = write!(text, " · {spans}");
        if !services.is_empty() {
            let _infallible = write!(text, " · {}", Plural(services.len(), "service"));
        }
        let _infallible = write!(text, " · {}", Nanos(self.extent));
        if errors > 0 {
            let errors = Plural(errors, "error").to_string();
            let _infallible = write!(text, " · {}", painted(&errors, RED, colours));
        }
        text
    }

    /// Name, service, kind, offset, duration and the bar, in columns.
    fn summary(
        &self,
        columns: &Columns,
        branch: &str,
        service: &str,
        span: &Span,
        colours: bool,
    ) -> String {
        let name = name_of(span);
        let pad = columns.name.saturating_sub(branch.chars().count() + name.chars().count());
        let highlight = if Self::is_error(span) { RED } else { BOLD };
        let mut line = format!("{branch}{}{:pad$}", painted(&name, highlight, colours), "");
        if columns.service > 0 {
            let _infallible =
                write!(line, "  {:1$}", Clip::text(service, SERVICE_WIDTH_MAX), columns.service);
        }
        let start = span.start_time_unix_nano;
        let sign = if start < self.origin { '-' } else { '+' };
        let facts = format!(
            "  {:kind$}  {:>9}  {:>7}",
            kind_of(span.kind),
            format!("{sign}{}", Nanos(start.abs_diff(self.origin))),
            Nanos(span.duration_nanos()).to_string(),
            kind = columns.kind,
        );
        line.push_str(&painted(&facts, DIM, colours));
        line.push_str("  ");
        let bar = if Self::is_error(span) { RED } else { CYAN };
        line.push_str(&painted(&self.bar(span), bar, colours));
        line
    }

    /// When the span ran, on a scale of [`BAR_WIDTH`] columns for the whole trace.
    fn bar(&self, span: &Span) -> String {
        let scale = |time: u64, round_up: u128| {
            let extent = u128::from(self.extent.max(1));
            let time = u128::from(time.saturating_sub(self.origin)) * BAR_WIDTH as u128;
            usize::try_from((time + round_up * (extent - 1)) / extent).unwrap_or(BAR_WIDTH)
        };
        let from = scale(span.start_time_unix_nano, 0).min(BAR_WIDTH - 1);
        let to = scale(span.end_time_unix_nano, 1).clamp(from + 1, BAR_WIDTH);
        format!("{}{}", " ".repeat(from), "━".repeat(to - from))
    }

    fn details(
        &self,
        page: &mut Page<'_, '_>,
        margin: &str,
        span: &Span,
        parent: Parent,
    ) -> fmt::Result {
        match parent {
            Parent::Known => {}
            Parent::Missing(id) => page.detail(margin, &format!("↑ parent {id} is not here"))?,
            Parent::Cycle(id) => {
                page.detail(margin, &format!("↻ parent {id} leads back to this span"))?;
            }
        }
        match &span.status {
            Status::Unset => {}
            Status::Ok => page.detail(margin, "✓ OK")?,
            Status::Error { message } => {
                let text = format!("✗ ERROR {}", Clip::text(message, VALUE_WIDTH_MAX));
                let text = painted(text.trim_end(), RED, page.colours());
                page.line(&format!("{margin}{text}"))?;
            }
        }
        let hidden = self.attributes(page, margin, span.attributes.iter(), ATTRIBUTES_MAX)?;
        page.left_out(margin, "attribute", hidden, span.attributes.dropped())?;
        for event in span.events.iter().take(EVENTS_MAX) {
            self.event(page, margin, event)?;
        }
        let hidden = span.events.len().saturating_sub(EVENTS_MAX);
        page.left_out(margin, "event", hidden, span.dropped_events_count)?;
        for link in span.links.iter().take(LINKS_MAX) {
            let (trace, id) = (link.context.trace_id, link.context.span_id);
            page.detail(margin, &format!("→ linked to span {id} of trace {trace}"))?;
        }
        let hidden = span.links.len().saturating_sub(LINKS_MAX);
        page.left_out(margin, "link", hidden, span.dropped_links_count)
    }

    fn event(&self, page: &mut Page<'_, '_>, margin: &str, event: &Event) -> fmt::Result {
        let sign = if event.time_unix_nano < self.origin { '-' } else { '+' };
        let offset = Nanos(event.time_unix_nano.abs_diff(self.origin));
        let name = Clip::text(&event.name, NAME_WIDTH_MAX);
        page.detail(margin, &format!("• {sign}{offset} {name}"))?;
        let margin = format!("{margin}    ");
        let hidden =
            self.attributes(page, &margin, event.attributes.iter(), EVENT_ATTRIBUTES_MAX)?;
        page.left_out(&margin, "attribute", hidden, event.dropped_attributes_count)
    }

    /// Draws at most `max` attributes and returns how many there are beyond.
    fn attributes<'e>(
        &self,
        page: &mut Page<'_, '_>,
        margin: &str,
        entries: impl ExactSizeIterator<Item = &'e KeyValue>,
        max: usize,
    ) -> Result<usize, fmt::Error> {
        let hidden = entries.len().saturating_sub(max);
        for entry in entries.take(max) {
            let key = Clip::text(&entry.key, NAME_WIDTH_MAX);
            let value = Clip::value(&entry.value, VALUE_WIDTH_MAX);
            page.detail(margin, &format!("{key} = {value}"))?;
        }
        Ok(hidden)
    }
}

/// Widths of the columns that depend on the spans, in characters.
struct Columns {
    name: usize,
    service: usize,
    kind: usize,
}

impl Columns {
    fn of(trace: &Trace<'_>) -> Self {
        let mut columns = Self { name: 0, service: 0, kind: 0 };
        for row in &trace.rows {
            let What::Span { at, .. } = row.what else { continue };
            let (service, span) = trace.entries[at];
            let name = row.depth * INDENT + name_of(span).chars().count();
            let service = Clip::text(service, SERVICE_WIDTH_MAX).chars().count();
            columns.name = columns.name.max(name).min(NAME_COLUMN_MAX);
            columns.service = columns.service.max(service);
            columns.kind = columns.kind.max(kind_of(span.kind).len());
        }
        columns
    }
}

/// Where lines go, and how many went there.
struct Page<'p, 'f> {
    lines: usize,
    f: &'p mut fmt::Formatter<'f>,
}

impl Page<'_, '_> {
    fn is_full(&self) -> bool {
        self.lines >= LINES_MAX
    }

    fn colours(&self) -> bool {
        self.f.alternate()
    }

    fn line(&mut self, text: &str) -> fmt::Result {
        if self.lines > 0 {
            self.f.write_char('\n')?;
        }
        self.lines += 1;
        self.f.write_str(text.trim_end())
    }

    fn detail(&mut self, margin: &str, text: &str) -> fmt::Result {
        let text = painted(text, DIM, self.colours());
        self.line(&format!("{margin}{text}"))
    }

    /// Tells what was not drawn, and what a limit had left out of the span before.
    fn left_out(&mut self, margin: &str, what: &str, hidden: usize, dropped: u32) -> fmt::Result {
        let dropped_text = format!("{} dropped by a limit", Plural(dropped as usize, what));
        match (hidden, dropped) {
            (0, 0) => Ok(()),
            (0, _) => self.detail(margin, &format!("… {dropped_text}")),
            (_, 0) => self.detail(margin, &format!("… {} more", Plural(hidden, what))),
            _ => self.detail(margin, &format!("… {} more, {dropped_text}", Plural(hidden, what))),
        }
    }
}

/// The lines that lead to a row, given which ancestors were last among their siblings.
fn branch(lasts: &[bool], row: &Row) -> String {
    let mut text = trunk(lasts);
    if row.depth > 0 {
        text.push_str(if row.last { "└─ " } else { "├─ " });
    }
    text
}

/// What stands before the details of a row.
fn margin(lasts: &[bool], has_children: bool) -> String {
    let mut text = trunk(lasts);
    text.push_str(if has_children { "│   " } else { "    " });
    text
}

/// The vertical lines of the ancestors below the root.
fn trunk(lasts: &[bool]) -> String {
    lasts.iter().skip(1).map(|&last| if last { "   " } else { "│  " }).collect()
}

fn name_of(span: &Span) -> String {
    let name = Clip::text(&span.name, NAME_WIDTH_MAX);
    if name.is_empty() { String::from("(no name)") } else { name }
}

fn kind_of(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "unspecified",
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

/// ANSI "select graphic rendition" codes (ECMA-48).
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const CYAN: &str = "36";

/// Columns a level of the tree is indented by.
const INDENT: usize = 3;
/// Lines after which no further span is begun: some screens, and then it is no picture any more.
const LINES_MAX: usize = 1_000;
const BAR_WIDTH: usize = 24;
const NAME_WIDTH_MAX: usize = 48;
const NAME_COLUMN_MAX: usize = 60;
const SERVICE_WIDTH_MAX: usize = 24;
const VALUE_WIDTH_MAX: usize = 80;
const ATTRIBUTES_MAX: usize = 12;
const EVENTS_MAX: usize = 8;
const EVENT_ATTRIBUTES_MAX: usize = 6;
const LINKS_MAX: usize = 4;
