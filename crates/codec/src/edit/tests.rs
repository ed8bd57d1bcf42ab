use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProtoValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::view;
use crate::work::tests::of;

fn attribute(key: &str, text: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(ProtoValue::StringValue(text.to_owned())) });
    KeyValue { key: key.to_owned(), value, key_strindex: 0 }
}

fn span(name: &str, attributes: Vec<KeyValue>) -> Span {
    Span { name: name.to_owned(), attributes, ..Span::default() }
}

fn request(resources: Vec<Vec<Vec<Span>>>) -> ExportTraceServiceRequest {
    let resource_spans = resources.into_iter().map(|scopes| ResourceSpans {
        resource: Some(Resource { attributes: vec![attribute("r", "1")], ..Resource::default() }),
        scope_spans: scopes
            .into_iter()
            .map(|spans| ScopeSpans { spans, schema_url: "scope".into(), ..ScopeSpans::default() })
            .collect(),
        schema_url: "resource".into(),
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn encoded(request: &ExportTraceServiceRequest) -> Bytes {
    request.encode_to_vec().into()
}

fn decoded(edited: &Edited) -> ExportTraceServiceRequest {
    let bytes = edited.clone().joined();
    assert_eq!(bytes.len(), edited.bytes);
    let decoded = ExportTraceServiceRequest::decode(&bytes[..]).expect("a request");
    // Nothing about the framing differs from what prost writes but the order of fields.
    assert_eq!(decoded.encoded_len(), bytes.len(), "lengths are minimal");
    decoded
}

/// A message with a body.
fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    [&out, body].concat()
}

#[test]
fn a_request_in_which_nothing_changes_is_returned_as_it_is() {
    let spans = vec![span("a", vec![attribute("k", "v"), attribute("k", "w")])];
    let same = Encoded::new(b"r", &Value::String(b"1".into()));
    for request in [
        request(vec![]),
        request(vec![vec![]]),
        request(vec![vec![spans.clone(), vec![]]]),
        request(vec![vec![spans]]),
    ] {
        let bytes = encoded(&request);
        let count = view::Request::parse(&bytes).expect("a request").spans();
        let edits = [
            span_attributes(&bytes, |attributes| attributes.retain(|key| key != b"other")),
            span_attributes(&bytes, |attributes| attributes.update(|_, _| None)),
            span_attributes(&bytes, |attributes| assert!(!attributes.copy(b"k", b"other"))),
            resource_attributes(&bytes, |attributes| attributes.set(&same)),
        ];
        // An envelope that came empty would go.
        let has_empty = request.resource_spans.iter().any(|resource_spans| {
            let mut scopes = resource_spans.scope_spans.iter();
            scopes.len() == 0 || scopes.any(|scope_spans| scope_spans.spans.is_empty())
        });
        let kept = (!has_empty).then(|| filter(&bytes, |_, _| Verdict::Keep));
        for edited in edits.into_iter().chain(kept) {
            let edited = edited.expect("a request");
            assert_eq!((edited.pieces.len(), edited.bytes, edited.spans), (1, bytes.len(), count));
            assert_eq!(edited.pieces[0].as_ptr(), bytes.as_ptr());
        }
    }
}

#[test]
fn lengths_grow_and_shrink_by_as_many_bytes_as_they_need() {
    for len in [0, 90, 100, 110, 120, 125, 126, 127, 128, 16_200, 16_370, 16_383, 16_384, 70_000] {
        let text = "x".repeat(len);
        let before = request(vec![vec![vec![span("a", vec![]), span("b", vec![])]]]);
        let after = {
            let spans = ["a", "b"].map(|name| span(name, vec![attribute("k", &text)])).to_vec();
            request(vec![vec![spans]])
        };
        let new = Encoded::new(b"k", &Value::String(text.as_bytes().into()));
        let grown = span_attributes(&encoded(&before), |attributes| attributes.set(&new));
        assert_eq!(decoded(&grown.expect("a request")), after, "{len}");
        let bytes = encoded(&after);
        let shrunk = span_attributes(&bytes, |attributes| attributes.retain(|_| false));
        assert_eq!(decoded(&shrunk.expect("a request")), before, "{len}");
    }
}

#[test]
fn long_stretches_without_a_change_are_slices_of_the_request() {
    let long = |name| span(name, vec![attribute("k", &"x".repeat(5_000))]);
    // Without the second the length of their envelope takes two bytes, with it three.
    let names = ["a", "b", "c", "d"];
    let request = request(vec![vec![names.map(long).to_vec()], vec![vec![long("e")]]]);
    let bytes = encoded(&request);
    let within = bytes.as_ptr_range();
    let edited = filter(&bytes, |candidate, _| match candidate.span.name() {
        b"b" => Verdict::Drop,
        _ => Verdict::Keep,
    });
    let edited = edited.expect("a request");
    let shared = edited.pieces.iter().filter(|piece| within.contains(&piece.as_ptr()));
    let copied: usize = edited.bytes - shared.clone().map(Bytes::len).sum::<usize>();
    assert_eq!(shared.count(), 2);
    assert!(copied <= 20, "{copied} bytes: two headers and a resource");
    let mut expected = request;
    expected.resource_spans[0].scope_spans[0].spans.remove(1);
    assert_eq!(decoded(&edited), expected);
}

/// Faults 2.
#[test]
fn an_envelope_without_a_span_goes_whether_it_lost_its_spans_or_came_without() {
    let keep = |name: &str| span(name, vec![]);
    let before = request(vec![
        vec![vec![keep("a"), keep("x")], vec![keep("x"), keep("x")], vec![]],
        vec![vec![keep("x")], vec![]],
        vec![vec![]],
        vec![vec![keep("b")]],
    ]);
    let after = request(vec![vec![vec![keep("a")]], vec![vec![keep("b")]]]);
    let drop_x = |candidate: Candidate<'_>, _: &mut Vec<u8>| match candidate.span.name() {
        b"x" => Verdict::Drop,
        _ => Verdict::Keep,
    };
    let bytes = encoded(&before);
    let edited = filter(&bytes, drop_x).expect("a request");
    assert_eq!((decoded(&edited), edited.spans), (after, 2));

    let bytes = encoded(&request(vec![vec![vec![keep("x")]]]));
    let nothing = filter(&bytes, drop_x).expect("a request");
    assert_eq!((nothing.pieces.len(), nothing.bytes, nothing.spans), (0, 0, 0));
}

/// Faults 18.
#[test]
fn a_span_is_judged_by_a_resource_that_comes_behind_it() {
    let spans = framed(0x12, &framed(0x12, &[0x30, 1]));
    let resource = framed(0x0A, &framed(0x0A, &attribute("drop", "").encode_to_vec()));
    let bytes = Bytes::from(framed(0x0A, &[spans, resource].concat()));
    let edited = filter(&bytes, |candidate, _| {
        let resource = candidate.resource_spans.resource();
        match resource.is_some_and(|resource| resource.attributes().any(|a| a.key() == b"drop")) {
            true => Verdict::Drop,
            false => Verdict::Keep,
        }
    });
    assert_eq!(edited.expect("a request").spans, 0);
}

/// Faults 17.
#[test]
fn a_resource_in_pieces_is_changed_as_one() {
    let piece = |key, text| framed(0x0A, &framed(0x0A, &attribute(key, text).encode_to_vec()));
    let spans = framed(0x12, &framed(0x12, &[0x30, 1]));
    let bytes = Bytes::from(framed(
        0x0A,
        &[piece("a", "1"), spans, piece("b", "2"), piece("a", "3"), piece("c", "4")].concat(),
    ));
    let five = Encoded::new(b"a", &Value::String(b"5".into()));
    let six = Encoded::new(b"d", &Value::String(b"6".into()));
    let edited = resource_attributes(&bytes, |attributes| {
        assert!(matches!(attributes.get(b"a"), Some(view::AnyValue::String(b"3"))));
        attributes.set(&five);
        attributes.set(&six);
        attributes.retain(|key| key != b"c");
    });
    let edited = edited.expect("a request");
    assert_eq!(edited.spans, 1);
    let decoded = ExportTraceServiceRequest::decode(edited.joined()).expect("a request");
    let resource = decoded.resource_spans[0].resource.as_ref().expect("it has one");
    let expected = [("b", "2"), ("a", "5"), ("d", "6")].map(|(key, text)| attribute(key, text));
    assert_eq!(resource.attributes, expected);
}

#[test]
fn a_resource_is_made_where_there_is_none_and_something_to_put_in_it() {
    let bytes = Bytes::from(framed(0x0A, &framed(0x12, &framed(0x12, &[0x30, 1]))));
    let five = Encoded::new(b"a", &Value::Int(5));
    let edited = resource_attributes(&bytes, |attributes| attributes.set(&five));
    let decoded = decoded(&edited.expect("a request"));
    let resource = decoded.resource_spans[0].resource.as_ref().expect("it was made");
    assert_eq!(resource.attributes[0].key, "a");
    let undone = resource_attributes(&bytes, |attributes| {
        attributes.set(&five);
        attributes.retain(|_| false);
    });
    assert_eq!(undone.expect("a request").joined(), bytes);
}

/// Faults 9.
#[test]
fn unknown_fields_stay_at_every_level() {
    let mark = [0xF8, 0x07, 42]; // field 127
    let value = framed(0x12, &[&framed(0x0A, b"old")[..], &mark].concat());
    let body = [&mark[..], &framed(0x0A, b"k"), &value, &mark].concat();
    let span = [&mark[..], &framed(0x4A, &body), &mark, &framed(0x4A, b"\x0A\x01g")].concat();
    let scope_spans = [&framed(0x12, &span)[..], &mark, &framed(0x12, &mark)].concat();
    let resource_spans = [&framed(0x12, &scope_spans)[..], &mark].concat();
    let bytes = Bytes::from([&framed(0x0A, &resource_spans)[..], &mark].concat());
    let new = Encoded::new(b"k", &Value::String(b"new".into()));
    let edited = span_attributes(&bytes, |attributes| {
        if attributes.get(b"k").is_some() {
            attributes.set(&new);
            attributes.retain(|key| key != b"g");
        }
    });
    let changed = [&mark[..], &framed(0x0A, b"k"), &mark, &framed(0x12, &framed(0x0A, b"new"))];
    let span = [&mark[..], &framed(0x4A, &changed.concat()), &mark].concat();
    let scope_spans = [&framed(0x12, &span)[..], &mark, &framed(0x12, &mark)].concat();
    let resource_spans = [&framed(0x12, &scope_spans)[..], &mark].concat();
    let expected = [&framed(0x0A, &resource_spans)[..], &mark].concat();
    assert_eq!(edited.expect("a request").joined(), expected);
}

/// Faults 26.
#[test]
fn of_duplicate_keys_the_last_is_read_and_setting_leaves_one() {
    let duplicates = vec![attribute("k", "1"), attribute("other", "2"), attribute("k", "3")];
    let bytes = encoded(&request(vec![vec![vec![span("a", duplicates)]]]));
    let copied = span_attributes(&bytes, |attributes| {
        assert!(attributes.copy(b"copy", b"k"));
        attributes.set_value(b"k", &Value::String(b"4".into()));
    });
    let decoded = decoded(&copied.expect("a request"));
    let expected = [("other", "2"), ("k", "4"), ("copy", "3")];
    let attributes = &decoded.resource_spans[0].scope_spans[0].spans[0].attributes;
    assert_eq!(*attributes, expected.map(|(key, text)| attribute(key, text)));
}

#[test]
fn a_trace_state_is_set_once_wherever_it_was() {
    for (before, behind) in [(vec![], vec![]), (vec!["a=1"], vec![]), (vec!["a=1"], vec!["b=2"])] {
        let states = |states: Vec<&str>| -> Vec<u8> {
            states.iter().flat_map(|state| framed(0x1A, state.as_bytes())).collect()
        };
        let span = [states(before), vec![0x30, 1], states(behind)].concat();
        let bytes = Bytes::from(framed(0x0A, &framed(0x12, &framed(0x12, &span))));
        let edited = filter(&bytes, |_, state| {
            state.extend_from_slice(b"ot=th:8");
            Verdict::SetTraceState
        });
        let decoded = decoded(&edited.expect("a request"));
        assert_eq!(decoded.resource_spans[0].scope_spans[0].spans[0].trace_state, "ot=th:8");
    }
}

/// Faults 32, 33.
#[test]
fn twice_as_much_of_anything_is_at_most_twice_the_work() {
    let attribute = attribute("k", "").encode_to_vec();
    let one = Encoded::new(b"k", &Value::Bool(true));
    let change = |attributes: &mut Attributes<'_>| {
        attributes.update(|_, _| Some(Value::Int(1)));
        attributes.retain(|key| key != b"other");
    };
    let work = |count: usize| {
        let pieces = framed(0x0A, &framed(0x0A, &attribute)).repeat(count);
        let pieces = Bytes::from(framed(0x0A, &pieces));
        let span = framed(0x12, &framed(0x4A, &attribute).repeat(count));
        let span = Bytes::from(framed(0x0A, &framed(0x12, &span)));
        let spans = Bytes::from(framed(0x0A, &framed(0x12, &[0x12, 0].repeat(count))));
        let scopes = Bytes::from(framed(0x0A, &framed(0x12, &[0x12, 0]).repeat(count)));
        let mut keep = false;
        let mut judge = |_: Candidate<'_>, state: &mut Vec<u8>| {
            state.extend_from_slice(b"a=1");
            keep = !keep;
            if keep { Verdict::SetTraceState } else { Verdict::Drop }
        };
        [
            of(|| drop(resource_attributes(&pieces, change).expect("a request"))),
            of(|| drop(resource_attributes(&pieces, |a| a.set(&one)).expect("a request"))),
            of(|| drop(span_attributes(&span, change).expect("a request"))),
            of(|| drop(span_attributes(&span, |a| a.set(&one)).expect("a request"))),
            of(|| drop(filter(&spans, &mut judge).expect("a request"))),
            of(|| drop(filter(&scopes, &mut judge).expect("a request"))),
            of(|| drop(span_attributes(&spans, |a| a.set(&one)).expect("a request"))),
        ]
    };
    // Three envelopes of less than 50,000 bytes whose lengths take another number of bytes than they
    // did, and which are thus moved.
    let moved = 3 * 50_000;
    for (index, (once, twice)) in work(2_000).into_iter().zip(work(4_000)).enumerate() {
        assert!(once > 2_000 && twice <= 2 * once + moved, "{index}: {twice} after {once}");
    }
}

#[test]
fn what_is_left_of_less_than_half_a_request_does_not_hold_on_to_it() {
    let long = |name| span(name, vec![attribute("k", &"x".repeat(5_000))]);
    let bytes = encoded(&request(vec![vec![["a", "b", "c"].map(long).to_vec()]]));
    let edited = filter(&bytes, |candidate, _| match candidate.span.name() {
        b"b" => Verdict::Keep,
        _ => Verdict::Drop,
    });
    let edited = edited.expect("a request");
    assert_eq!((edited.pieces.len(), edited.spans), (1, 1));
    assert!(!bytes.as_ptr_range().contains(&edited.pieces[0].as_ptr()));
    assert_eq!(decoded(&edited), request(vec![vec![vec![long("b")]]]));
}

proptest! {
    /// Faults 4.
    #[test]
    fn no_bytes_make_an_edit_panic(bytes in vec(any::<u8>(), 0..200), nested in any::<bool>()) {
        let bytes = match nested {
            true => framed(0x0A, &framed(0x12, &framed(0x12, &bytes))),
            false => bytes,
        };
        let bytes = Bytes::from(bytes);
        let new = Encoded::new(b"k", &Value::Double(0.5));
        let change = |attributes: &mut Attributes<'_>| {
            attributes.update(|key, _| (!key.is_empty()).then_some(Value::Bool(true)));
            _ = attributes.copy(b"copy", b"");
        };
        for edited in [
            span_attributes(&bytes, change),
            span_attributes(&bytes, |attributes| attributes.set(&new)),
            resource_attributes(&bytes, change),
            resource_attributes(&bytes, |attributes| attributes.set(&new)),
            filter(&bytes, |_, state| {
                state.extend_from_slice(b"a=1");
                Verdict::SetTraceState
            }),
            filter(&bytes, |candidate, _| match candidate.attribute(b"") {
                Some(_) => Verdict::Keep,
                None => Verdict::Drop,
            }),
        ].into_iter().flatten() {
            let count = edited.spans;
            prop_assert_eq!(edited.pieces.iter().map(Bytes::len).sum::<usize>(), edited.bytes);
            let joined = edited.joined();
            if view::Request::parse(&bytes).is_ok() {
                let after = view::Request::parse(&joined);
                prop_assert_eq!(after.map(|request| request.spans()), Ok(count));
            }
        }
    }

    /// What is dropped, lengthened and shortened anywhere leaves the rest as it was.
    #[test]
    fn edits_are_what_prost_makes_of_them(
        resources in vec(vec(vec((0..4_u8, 0..6_000_usize), 0..6), 0..4), 0..4),
    ) {
        let span_of = |&(what, len): &(u8, usize)| {
            span(&what.to_string(), vec![attribute("k", &"x".repeat(len)), attribute("l", "")])
        };
        let nested = resources.iter().map(|scopes| {
            scopes.iter().map(|spans| spans.iter().map(span_of).collect()).collect()
        });
        let before = request(nested.collect());
        let bytes = encoded(&before);
        let edited = filter(&bytes, |candidate, state| match candidate.span.name() {
            b"0" => Verdict::Keep,
            b"1" => {
                state.extend_from_slice(b"a=1");
                Verdict::SetTraceState
            }
            _ => Verdict::Drop,
        });
        let mut after = before.clone();
        for resource_spans in &mut after.resource_spans {
            resource_spans.scope_spans.retain_mut(|scope_spans| {
                scope_spans.spans.retain(|span| ["0", "1"].contains(&&span.name[..]));
                for span in scope_spans.spans.iter_mut().filter(|span| span.name == "1") {
                    span.trace_state = "a=1".to_owned();
                }
                !scope_spans.spans.is_empty()
            });
        }
        after.resource_spans.retain(|resource_spans| !resource_spans.scope_spans.is_empty());
        prop_assert_eq!(decoded(&edited.expect("a request")), after);
    }
}
