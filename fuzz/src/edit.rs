//! Changing requests: actions on the attributes of spans and of resources, and sampling.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use prost::encoding::{self, DecodeContext, WireType};
use regex::Regex;
use spanwire_codec::view::{self, Request, Span, reject_malformed};
use spanwire_processors::{
    Action, Actions, Edited, From, Mode, Sampled, Sampler, Settings, Type, Value,
};

use super::oracle::{read, spans};
use super::plain::Plain;
use super::soup::{Cook, REQUEST};

/// A request that was checked comes out as one, with the change that the same actions make of decoded
/// attributes and no other: whatever else is in it stays byte for byte. No span is lost uncounted.
///
/// Sixteen bytes are the plan; the request follows, as it is or, so that more of it is well-formed,
/// as numbers to cook it from.
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    let Some((plan, data)) = data.split_first_chunk() else { return };
    let plan = Plan::of(plan);
    let came = match plan.cooks {
        true => Cook::new(data).message(&REQUEST),
        false => data.to_vec(),
    };
    let came = Bytes::from(came);
    let checked = reject_malformed(came.clone());
    if !checked.as_ref().is_ok_and(|checked| checked.rejected == 0) {
        // What was not checked is refused or comes out somehow.
        let _either = (
            plan.actions.spans(came.clone()),
            plan.actions.resources(came.clone()),
            plan.sampler.sample(came),
        );
    }
    let Ok(checked) = checked else { return };
    let request = Request::parse(&checked.request).expect("it was checked");
    of_spans(&plan, &checked.request, &request);
    of_resources(&plan, &checked.request, &request);
    sampled(&plan, &checked.request, &request);
}

fn of_spans(plan: &Plan, bytes: &Bytes, request: &Request<'_>) {
    let out = finished(plan.actions.spans(bytes.clone()).expect("it was checked"));
    let edited = Request::parse(&out).expect("a request");
    assert_eq!(edited.spans(), request.spans());
    assert_eq!(remainder(&out, &SPANS_ATTRIBUTES), remainder(bytes, &SPANS_ATTRIBUTES));
    let mut is_touched = false;
    for (before, after) in spans(request).zip(spans(&edited)) {
        if plan.concerns(before.attributes()) {
            is_touched = true;
        } else {
            assert_eq!(before.bytes(), after.bytes());
        }
    }
    assert!(is_touched || is_same(&out, bytes), "nothing was to change");

    let Some(mut expected) = plan.decoded(bytes, request) else { return };
    for resource_spans in &mut expected.resource_spans {
        for span in resource_spans.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            plan.plain.apply(&mut span.attributes);
        }
    }
    assert_reads(&out, &expected);
}

fn of_resources(plan: &Plan, bytes: &Bytes, request: &Request<'_>) {
    let out = finished(plan.actions.resources(bytes.clone()).expect("it was checked"));
    assert_eq!(remainder(&out, &RESOURCES_ATTRIBUTES), remainder(bytes, &RESOURCES_ATTRIBUTES));
    let is_touched = request.resource_spans().any(|resource_spans| {
        let resource = resource_spans.resource();
        plan.concerns(resource.into_iter().flat_map(|resource| resource.attributes()))
    });
    assert!(is_touched || is_same(&out, bytes), "nothing was to change");

    let Some(mut expected) = plan.decoded(bytes, request) else { return };
    for resource_spans in &mut expected.resource_spans {
        let came = resource_spans.resource.is_some();
        let mut resource = resource_spans.resource.take().unwrap_or_default();
        plan.plain.apply(&mut resource.attributes);
        resource_spans.resource = (came || resource != Resource::default()).then_some(resource);
    }
    assert_reads(&out, &expected);
}

/// Sampling decides of each span as if it were alone, and changes its `tracestate` at most.
fn sampled(plan: &Plan, bytes: &Bytes, request: &Request<'_>) {
    let Sampled { kept, dropped } = plan.sampler.sample(bytes.clone()).expect("it was checked");
    assert_eq!(kept.spans + dropped, request.spans());
    let out = finished(kept);
    let left = Request::parse(&out).expect("a request");
    let alone: Vec<_> = spans(request).map(|span| plan.sampled_alone(&span)).collect();
    let of_left: Vec<_> = spans(&left).map(|span| span.bytes()).collect();
    assert_eq!(alone.iter().flatten().collect::<Vec<_>>(), of_left);
    for (before, after) in spans(request).zip(&alone) {
        if let Some(after) = after {
            let others = remainder(after, &[3]);
            assert_eq!(remainder(before.bytes(), &[3]), others);
            let state = Span::new(after).trace_state().len();
            let once = match state {
                0 => 0,
                _ => 1 + encoding::encoded_len_varint(state as u64) + state,
            };
            let is_once = after.len() - others.len() == once;
            assert!(is_once || before.bytes() == after, "what is written is written once");
        }
    }
    for resource_spans in left.resource_spans() {
        let mut scopes = resource_spans.scope_spans().map(|scope| scope.spans().count()).peekable();
        assert!(scopes.peek().is_some() && scopes.all(|spans| spans > 0), "an empty envelope");
    }

    let is_short = |span: Span<'_>| {
        let state = span.trace_state();
        // What is longer may exceed a limit of W3C's once something is added.
        state.len() < 200 && state.iter().filter(|byte| **byte == b',').count() < 31
    };
    if plan.keeps_what_it_kept && spans(request).all(is_short) {
        let again = plan.sampler.sample(out.clone()).expect("it came from there");
        assert_eq!(again.dropped, 0);
        assert!(is_same(&again.kept.joined(), &out), "it was marked already");
    }

    if ExportTraceServiceRequest::decode(bytes.clone()).is_err() {
        return;
    }
    let mut expected = read(request);
    let mut alone = alone.iter();
    for resource_spans in &mut expected.resource_spans {
        resource_spans.scope_spans.retain_mut(|scope_spans| {
            scope_spans.spans.retain_mut(|span| {
                let Some(Some(kept)) = alone.next() else { return false };
                let state = Span::new(kept).trace_state().to_vec();
                span.trace_state = String::from_utf8(state).expect("prost has accepted it");
                true
            });
            !scope_spans.spans.is_empty()
        });
    }
    expected.resource_spans.retain(|resource_spans| !resource_spans.scope_spans.is_empty());
    assert_reads(&out, &expected);
}

/// What came out, its account of itself checked, and found well-formed.
fn finished(edited: Edited) -> Bytes {
    let (bytes, spans) = (edited.bytes, edited.spans);
    let joined = edited.joined();
    assert_eq!(joined.len(), bytes);
    let checked = reject_malformed(joined.clone()).expect("it is a request");
    assert_eq!((checked.spans, checked.rejected), (spans, 0));
    joined
}

fn assert_reads(bytes: &Bytes, expected: &ExportTraceServiceRequest) {
    ExportTraceServiceRequest::decode(bytes.clone()).expect("prost reads it as it did before");
    let ours = read(&Request::parse(bytes).expect("a request"));
    // By bytes, as NaN is not equal to itself.
    assert!(ours.encode_to_vec() == expected.encode_to_vec(), "{ours:?}\n{expected:?}");
}

fn is_same(one: &Bytes, other: &Bytes) -> bool {
    one == other && (one.is_empty() || one.as_ptr() == other.as_ptr())
}

/// The field numbers on the way to attributes.
const SPANS_ATTRIBUTES: [u32; 4] = [1, 2, 2, 9];
const RESOURCES_ATTRIBUTES: [u32; 3] = [1, 1, 1];

/// A well-formed message without the last field of `path`; what the others of `path` hold stands in
/// brackets, as its length may change, and is left out if nothing is left of it.
fn remainder(message: &[u8], path: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let (number, wire_type) = encoding::decode_key(&mut rest).expect("it was checked");
        let mut body = rest;
        encoding::skip_field(wire_type, number, &mut rest, DecodeContext::default())
            .expect("it was checked");
        match path {
            [next, ..] if *next != number => {
                out.extend_from_slice(&start[..start.len() - rest.len()]);
            }
            [_, inner @ ..] if !inner.is_empty() => {
                assert_eq!(wire_type, WireType::LengthDelimited);
                let len = encoding::decode_varint(&mut body).expect("it was checked");
                let within = remainder(&body[..len as usize], inner);
                if !within.is_empty() {
                    out.extend([&b"("[..], &within, b")"].concat());
                }
            }
            _ => {}
        }
    }
    out
}

/// What is done to a request.
struct Plan {
    cooks: bool,
    list: Vec<(Action, Option<Regex>)>,
    actions: Actions,
    plain: Plain,
    sampler: Sampler,
    /// Whether sampling once more changes nothing.
    keeps_what_it_kept: bool,
}

/// Plans that are kept. Most inputs have one that came before, and its patterns take longer to
/// compile than all else.
const PLANS_MAX: usize = 100;

thread_local! {
    static PLANS: RefCell<HashMap<[u8; 16], Rc<Plan>>> = RefCell::default();
}

impl Plan {
    fn of(numbers: &[u8; 16]) -> Rc<Self> {
        PLANS.with_borrow_mut(|plans| {
            if plans.len() >= PLANS_MAX {
                plans.clear();
            }
            Rc::clone(plans.entry(*numbers).or_insert_with(|| Rc::new(Self::new(numbers))))
        })
    }

    fn new(&[form, ref numbers @ .., mode, percentage, seed]: &[u8; 16]) -> Self {
        let count = usize::from(form % 4) + 1;
        let (numbers, _) = numbers.as_chunks();
        let list: Vec<_> = numbers.iter().take(count).map(|numbers| action(*numbers)).collect();
        let settings = Settings {
            mode: [Mode::HashSeed, Mode::Proportional, Mode::Equalizing][usize::from(mode % 3)],
            percentage: f32::from(percentage) / 2.0,
            hash_seed: seed.into(),
            fail_closed: mode & 4 == 0,
            precision: (mode >> 3) % 14 + 1,
        };
        let with_pattern = |action: &Action| {
            let pattern = match action {
                Action::Delete { pattern, .. } | Action::Hash { pattern, .. } => pattern.as_deref(),
                _ => None,
            };
            (action.clone(), pattern.map(|pattern| Regex::new(pattern).expect("valid")))
        };
        Self {
            cooks: form & 4 != 0,
            list: list.iter().map(with_pattern).collect(),
            plain: Plain::new(&list),
            actions: Actions::new(list).expect("they are valid"),
            sampler: Sampler::new(settings).expect("it is valid"),
            keeps_what_it_kept: settings.mode == Mode::Equalizing && settings.fail_closed,
        }
    }

    /// Whether an action may change these attributes. Where none does, they stay as they are.
    fn concerns<'a>(&self, attributes: impl Iterator<Item = view::KeyValue<'a>>) -> bool {
        let keys: Vec<_> = attributes.map(|attribute| attribute.key()).collect();
        let is_there = |key: &str| keys.contains(&key.as_bytes());
        self.list.iter().any(|(action, pattern)| match action {
            Action::Upsert { .. } => true,
            Action::Insert { key, .. } => !is_there(key),
            Action::Update { key, .. }
            | Action::Extract { key, .. }
            | Action::Convert { key, .. } => is_there(key),
            Action::Delete { key, .. } | Action::Hash { key, .. } => {
                let matches = |key: &&[u8]| {
                    let Some(pattern) = pattern else { return false };
                    // Patterns match what is not UTF-8, too, which this one does not know.
                    str::from_utf8(key).map_or(true, |key| pattern.is_match(key))
                };
                key.as_deref().is_some_and(is_there) || keys.iter().any(matches)
            }
        })
    }

    /// The request as structs, where `prost` reads it and it is known what becomes of its attributes.
    fn decoded(&self, bytes: &Bytes, request: &Request<'_>) -> Option<ExportTraceServiceRequest> {
        let is_text = |action: &Action| matches!(action, Action::Convert { to: Type::String, .. });
        let is_known = !self.list.iter().any(|(action, _)| is_text(action));
        (is_known && ExportTraceServiceRequest::decode(bytes.clone()).is_ok())
            .then(|| read(request))
    }

    /// What sampling makes of a span in a request of its own.
    fn sampled_alone(&self, span: &Span<'_>) -> Option<Vec<u8>> {
        let mut request = span.bytes().to_vec();
        for tag in [0x12, 0x12, 0x0A] {
            let mut framed = vec![tag];
            encoding::encode_varint(request.len() as u64, &mut framed);
            request = [framed, request].concat();
        }
        let sampled = self.sampler.sample(request.into()).expect("it was checked");
        assert_eq!(sampled.kept.spans + sampled.dropped, 1);
        let kept = finished(sampled.kept);
        let request = Request::parse(&kept).expect("a request");
        spans(&request).next().map(|span| span.bytes().to_vec())
    }
}

fn action([what, how, which]: [u8; 3]) -> Action {
    let key = |number: u8| KEYS[usize::from(number % 16)].to_owned();
    // Of what is acted on; it cannot be empty.
    let own = Some(key(what >> 4)).filter(|key| !key.is_empty()).unwrap_or("tier".to_owned());
    let from = || {
        let value = match (how >> 2) % 8 {
            0 => Value::Str(String::new()),
            1 => Value::Str("7".to_owned()),
            2 => Value::Str("long ".repeat(60)),
            3 => Value::Int(0),
            4 => Value::Int(i64::MIN),
            5 => Value::Double(0.5),
            6 => Value::Double(f64::NAN),
            _ => Value::Bool(true),
        };
        match how % 4 {
            0 => From::Attribute(key(which)),
            1 => From::AttributeOr(key(which), value),
            _ => From::Value(value),
        }
    };
    let keys = |own| {
        let pattern = Some(PATTERNS[usize::from(which % 8)].to_owned());
        match how % 3 {
            0 => (Some(own), None),
            1 => (None, pattern),
            _ => (Some(own), pattern),
        }
    };
    match what % 16 % 7 {
        0 => Action::Insert { key: own, from: from() },
        1 => Action::Update { key: own, from: from() },
        2 => Action::Upsert { key: own, from: from() },
        3 => {
            let (key, pattern) = keys(own);
            Action::Delete { key, pattern }
        }
        4 => {
            let (key, pattern) = keys(own);
            Action::Hash { key, pattern }
        }
        5 => {
            let pattern = EXTRACTIONS[usize::from(which % 4)].to_owned();
            Action::Extract { key: own, pattern }
        }
        _ => {
            let to = [Type::Int, Type::Double, Type::String][usize::from(which % 3)];
            Action::Convert { key: own, to }
        }
    }
}

/// Keys of the seeds and of what is cooked.
const KEYS: [&str; 16] = [
    "",
    "a",
    "key",
    "\u{1F980}",
    "http.route",
    "http.response.status_code",
    "text",
    "bool",
    "int",
    "double",
    "nan",
    "bytes",
    "array",
    "none",
    "sampling.priority",
    "tier",
];
const PATTERNS: [&str; 8] = ["^a", "e$", "t|priority", "^$", ".", "http[.]r", "x{3}", "k.y"];
const EXTRACTIONS: [&str; 4] = [
    "(?P<a>[0-9]+)(?:[.](?P<key>[0-9]+))?",
    "^(?P<tier>[^/]*)/(?P<text>.*)",
    "(?P<a>.)",
    "^(?P<key>[^x]*)(?P<tier>x*)",
];
