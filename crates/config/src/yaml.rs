//! From YAML text to the tree: the one place that knows the parser.

use std::collections::BTreeMap;
use std::mem;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::report::{Findings, lines};
use crate::tree::{Entry, Map, Node, Place, Scalar, Value};

/// Deep enough for any configuration there is, and shallow enough to walk by recursion.
pub(crate) const DEPTH_MAX: usize = 64;

/// What all texts of one configuration may hold together, copies made by aliases included.
pub(crate) struct Budget {
    nodes: usize,
    /// Of what variables and files stand for.
    expanded_bytes: usize,
}

/// A configuration of a thousand pipelines has some 10,000 nodes.
const NODES_MAX: usize = 100_000;

/// Four of the largest files. Without it a short text could name a large file many times.
const EXPANDED_BYTES_MAX: usize = 16 << 20;

impl Budget {
    pub(crate) fn new() -> Self {
        Self { nodes: NODES_MAX, expanded_bytes: EXPANDED_BYTES_MAX }
    }

    /// Whether so much more may be put in by expansion.
    pub(crate) fn take_bytes(&mut self, bytes: usize) -> bool {
        match self.expanded_bytes.checked_sub(bytes) {
            Some(left) => self.expanded_bytes = left,
            None => return false,
        }
        true
    }

    fn take(&mut self, nodes: usize, place: Place) -> Result<(), Failure> {
        let message = || {
            format!(
                "the configuration holds more than {NODES_MAX} values, copies by aliases included"
            )
        };
        let left = self.nodes.checked_sub(nodes);
        self.nodes = left.ok_or_else(|| Failure::too_much(place, message()))?;
        Ok(())
    }
}

/// Why a text is not one document of YAML.
pub(crate) struct Failure {
    place: Place,
    message: String,
    help: Option<&'static str>,
    /// It is YAML, but more than is taken.
    pub(crate) too_much: bool,
}

impl Failure {
    fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), help: None, too_much: false }
    }

    fn too_much(place: Place, message: String) -> Self {
        Self { place, message, help: None, too_much: true }
    }

    pub(crate) fn report(self, findings: &Findings) {
        match self.help {
            Some(help) => findings.error_with_help(self.place, self.message, help),
            None => findings.error(self.place, self.message),
        }
    }

    /// The same in half a line, for a text that may be meant as it is.
    pub(crate) fn brief(&self) -> String {
        format!("line {}, column {}: {}", self.place.line, self.place.column, self.message)
    }
}

/// Parses one document.
///
/// Duplicate keys are findings, but do not end it, so that what else is wrong is found.
pub(crate) fn parse(
    id: usize,
    text: &str,
    budget: &mut Budget,
    findings: &Findings,
) -> Result<Node, Failure> {
    let options = granit_parser::options! {
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut builder = Builder {
        text: id,
        budget,
        duplicates: Vec::new(),
        stack: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        documents: 0,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => return Err(scan_error(id, text, &error)),
        };
        builder.event(event, place(id, &span))?;
    }
    for (place, message, help) in builder.duplicates {
        findings.error_with_help(place, message, help);
    }
    let start = Place { text: id, line: 1, column: 1, width: 1 };
    Ok(builder.root.unwrap_or_else(|| null(start)))
}

fn null(place: Place) -> Node {
    Node { place, value: Value::Scalar(Scalar::new(String::new(), true)) }
}

fn at(id: usize, marker: &Marker) -> Place {
    Place { text: id, line: marker.line(), column: marker.col() + 1, width: 1 }
}

fn place(id: usize, span: &Span) -> Place {
    let one_line = span.start.line() == span.end.line();
    let width = if one_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    Place { width: width.max(1), ..at(id, &span.start) }
}

fn scan_error(id: usize, text: &str, error: &ScanError) -> Failure {
    let place = at(id, error.marker());
    // The parser notices a tab only where the indentation stops making sense.
    let tab = |line: usize| {
        let content = lines(text).nth(line.checked_sub(1)?)?;
        let indentation = &content[..content.len() - content.trim_start().len()];
        let column = indentation.chars().position(|char| char == '\t')? + 1;
        Some(Place { text: id, line, column, width: 1 })
    };
    if let Some(place) = tab(place.line).or_else(|| tab(place.line.saturating_sub(1))) {
        let help = Some("use spaces");
        return Failure { help, ..Failure::new(place, "a tab is used for indentation") };
    }
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(place),
        ErrorKind::UnknownAnchor => {
            Failure::new(place, "this alias refers to an anchor that is not defined above it")
        }
        kind => Failure::new(place, format!("this is not YAML: {kind}")),
    }
}

fn too_deep(place: Place) -> Failure {
    Failure::too_much(place, format!("values are nested more than {DEPTH_MAX} deep"))
}

/// Puts nodes together from events without recursion.
struct Builder<'a> {
    text: usize,
    budget: &'a mut Budget,
    /// Where, what and how to mend it.
    duplicates: Vec<(Place, String, String)>,
    stack: Vec<Open>,
    /// Complete anchored nodes and the number of nodes in each.
    anchors: BTreeMap<usize, (Node, usize)>,
    root: Option<Node>,
    documents: usize,
}

/// A list or map that is not complete yet.
struct Open {
    place: Place,
    anchor: usize,
    nodes: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        map: Map,
        /// The key whose value comes next.
        key: Option<(String, Place, bool)>,
        /// Maps named by `<<`, which give way to the map's own keys.
        merged: Vec<Map>,
    },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Failure> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref(), place)?;
                let scalar = Scalar::new(text.into_owned(), plain);
                self.budget.take(1, place)?;
                self.complete(Node { place, value: Value::Scalar(scalar) }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                is_text(tag.as_deref(), place)?;
                self.open(Content::List(Vec::new()), anchor, place)
            }
            Event::MappingStart(_, anchor, tag) => {
                is_text(tag.as_deref(), place)?;
                let content = Content::Map { map: Map::new(), key: None, merged: Vec::new() };
                self.open(content, anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let (node, nodes) = self.anchors.get(&anchor).ok_or_else(|| {
                    Failure::new(place, "this alias is part of what it refers to")
                })?;
                let (nodes, mut node) = (*nodes, {
                    self.budget.take(*nodes, place)?;
                    node.clone()
                });
                // What is wrong with it is wrong where it is used: the anchor may fit elsewhere.
                node.place = place;
                self.complete(node, 0, nodes)
            }
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a configuration is one document; here a second one starts";
                    return Err(Failure::new(place, message));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, content: Content, anchor: usize, place: Place) -> Result<(), Failure> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(too_deep(place));
        }
        self.budget.take(1, place)?;
        self.stack.push(Open { place, anchor, nodes: 1, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        let Some(Open { place, anchor, nodes, content }) = self.stack.pop() else {
            return Ok(());
        };
        let value = match content {
            Content::List(list) => Value::List(list),
            Content::Map { mut map, merged, .. } => {
                for (key, entry) in merged.into_iter().flatten() {
                    map.entry(key).or_insert(entry);
                }
                Value::Map(map)
            }
        };
        self.complete(Node { place, value }, anchor, nodes)
    }

    fn complete(&mut self, node: Node, anchor: usize, nodes: usize) -> Result<(), Failure> {
        if anchor != 0 {
            // The copy kept for aliases counts as well: anchors may be nested in anchors.
            self.budget.take(nodes, node.place)?;
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        let Some(parent) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.nodes += nodes;
        match &mut parent.content {
            Content::List(list) => list.push(node),
            Content::Map { key: key @ None, .. } => {
                let Value::Scalar(scalar) = node.value else {
                    return Err(Failure::new(node.place, "a key is text, not a list or a map"));
                };
                let merge = scalar.plain && scalar.text == "<<";
                *key = Some((scalar.text, node.place, merge));
            }
            Content::Map { map, key, merged } => match mem::take(key) {
                Some((_, _, true)) => merged.extend(maps(node)?),
                Some((key, key_place, false)) => {
                    if let Some(first) = map.get(&key) {
                        let line = first.key_place.line;
                        let message = format!("the key {key:?} is here a second time");
                        let help = format!("the first is in line {line}; remove one of them");
                        self.duplicates.push((key_place, message, help));
                        return Ok(());
                    }
                    map.insert(key, Entry { key_place, node });
                }
                None => {}
            },
        }
        debug_assert!(self.stack.iter().all(|open| open.place.text == self.text));
        Ok(())
    }
}

/// What `<<` merges: a map, or a list of maps of which the first wins.
fn maps(node: Node) -> Result<Vec<Map>, Failure> {
    let nodes = match node.value {
        Value::List(nodes) => nodes,
        _ => vec![node],
    };
    let maps = nodes.into_iter().map(|node| match node.value {
        Value::Map(map) => Ok(map),
        _ => Err(Failure::new(node.place, "<< merges a map or a list of maps")),
    });
    maps.collect()
}

/// Whether a tag makes a scalar text; an error for tags with a meaning of their own.
fn is_text(tag: Option<&Tag>, place: Place) -> Result<bool, Failure> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.is_yaml_core_schema_tag("str")),
        Some(tag) => {
            Err(Failure::new(place, format!("the tag {} is not supported", tag.original())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{Budget, parse};
    use crate::load::Compat;
    use crate::report::Findings;
    use crate::tree::{Node, Value};

    fn read(text: &str) -> Result<Node, String> {
        let findings = Findings::new(Compat::Strict);
        let id = findings.keep_text("t".into(), text.into());
        let node = parse(id, text, &mut Budget::new(), &findings);
        let node = node.map_err(|failure| failure.report(&findings)).ok();
        findings.finish().map_err(|report| report.to_string())?;
        Ok(node.expect("no finding, so there is a node"))
    }

    /// A tree on one line.
    fn line(node: &Node) -> String {
        match &node.value {
            Value::Scalar(scalar) => scalar.text.clone(),
            Value::Broken => "!".into(),
            Value::List(list) => {
                format!("[{}]", list.iter().map(line).collect::<Vec<_>>().join(","))
            }
            Value::Map(map) => {
                let mut out = String::from("{");
                for (key, entry) in map {
                    write!(out, "{key}:{};", line(&entry.node)).expect("into a string");
                }
                out + "}"
            }
        }
    }

    #[test]
    fn nodes_know_their_line_and_column() {
        let node = read("a:\n  b: value\n").unwrap();
        let Value::Map(map) = &node.value else { panic!("{node:?}") };
        let Value::Map(inner) = &map["a"].node.value else { panic!("{node:?}") };
        let entry = &inner["b"];
        assert_eq!(
            (entry.key_place.line, entry.key_place.column, entry.key_place.width),
            (2, 3, 1)
        );
        assert_eq!(
            (entry.node.place.line, entry.node.place.column, entry.node.place.width),
            (2, 6, 5)
        );
    }

    #[test]
    fn aliases_are_copies_and_a_merge_gives_way_to_own_keys() {
        let text = "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nlist: [*b, *b]\n";
        assert_eq!(
            line(&read(text).unwrap()),
            "{base:{x:1;y:2;};list:[{x:1;y:2;},{x:1;y:2;}];use:{x:1;y:3;};}"
        );
    }

    #[test]
    fn of_several_merged_maps_the_first_wins() {
        let text = "a: &a {k: 1}\nb: &b {k: 2, l: 3}\nc: {<<: [*a, *b]}\n";
        assert!(line(&read(text).unwrap()).ends_with("c:{k:1;l:3;};}"));
    }

    /// Faults 167.
    #[test]
    fn a_bomb_of_aliases_is_refused_before_it_is_built() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let last = format!("*a{}", level - 1);
            writeln!(text, "a{level}: &a{level} [{}]", [last.as_str(); 10].join(", ")).unwrap();
        }
        let error = read(&text).unwrap_err();
        assert!(error.contains("more than 100000 values"), "{error}");
    }

    /// Faults 167.
    #[test]
    fn nesting_ends_at_64_levels_in_both_notations() {
        let flow = format!("{}x{}", "[".repeat(64), "]".repeat(64));
        assert!(read(&flow).is_ok());
        for depth in [65, 10_000] {
            let flow = format!("{}x{}", "[".repeat(depth), "]".repeat(depth));
            assert!(read(&flow).unwrap_err().contains("nested more than 64 deep"));
        }
        let mut block = String::new();
        for depth in 0..200 {
            writeln!(block, "{:depth$}k:", "").unwrap();
        }
        assert!(read(&block).unwrap_err().contains("nested more than 64 deep"));
    }

    #[test]
    fn an_alias_within_its_own_anchor_is_refused() {
        assert!(read("a: &a [*a]\n").is_err());
    }

    #[test]
    fn a_second_document_and_a_custom_tag_are_refused() {
        assert!(read("a: 1\n---\nb: 2\n").unwrap_err().contains("second one starts"));
        assert!(read("a: !secret x\n").unwrap_err().contains("!secret"));
        assert_eq!(line(&read("---\na: !!str 1\n").unwrap()), "{a:1;}");
    }

    #[test]
    fn nothing_is_null() {
        for text in ["", "\n", "# only this\n", "---\n"] {
            assert!(read(text).unwrap().is_null(), "{text:?}");
        }
    }
}
