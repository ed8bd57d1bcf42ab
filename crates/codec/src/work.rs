//! Counts what readers do, so that tests show without a clock that time is linear.
//!
//! The unit is a field of a protobuf message, a token of JSON, or a byte that is scanned or moved.
//! Memory that is merely copied once, from input to output, is not counted.

/// Counts `units` of work; nothing at all outside this crate's unit tests.
#[inline(always)]
pub(crate) fn add(units: usize) {
    #[cfg(test)]
    tests::DONE.set(tests::DONE.get() + units);
    #[cfg(not(test))]
    let _ = units;
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use bytes::Bytes;
    use prost::Message as _;

    use crate::message::any_value::Value;
    use crate::message::{
        AnyValue, ArrayValue, Event, ExportTraceServiceRequest, KeyValue, KeyValueList, Link,
        ResourceSpans, ScopeSpans, Span,
    };
    use crate::{decode, json, split, view};

    thread_local! {
        pub(super) static DONE: Cell<usize> = const { Cell::new(0) };
    }

    /// What `f` does.
    pub(crate) fn of(f: impl FnOnce()) -> usize {
        DONE.set(0);
        f();
        DONE.get()
    }

    fn attribute(key: String, value: Option<Value>) -> KeyValue {
        KeyValue { key, value: Some(AnyValue { value }), key_strindex: 0 }
    }

    fn span(attributes: Vec<KeyValue>) -> Span {
        let (trace_id, span_id) = (vec![1; 16], vec![2; 8]);
        Span { trace_id, span_id, name: "work".to_owned(), attributes, ..Span::default() }
    }

    fn scope_spans(spans: Vec<Span>) -> ScopeSpans {
        ScopeSpans { spans, ..ScopeSpans::default() }
    }

    fn resource_spans(scope_spans: Vec<ScopeSpans>) -> ResourceSpans {
        ResourceSpans { scope_spans, ..ResourceSpans::default() }
    }

    fn request(resource_spans: Vec<ResourceSpans>) -> Vec<u8> {
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    fn one(span: Span) -> Vec<u8> {
        request(vec![resource_spans(vec![scope_spans(vec![span])])])
    }

    fn framed(path: &[u8], body: Vec<u8>) -> Vec<u8> {
        path.iter().rev().fold(body, |body, tag| {
            let mut out = vec![*tag];
            prost::encoding::encode_varint(body.len() as u64, &mut out);
            out.extend(body);
            out
        })
    }

    /// Requests with `count` of something, most of which a careless reader would compare, search or move
    /// once for each of the others.
    fn shapes(count: usize) -> Vec<(&'static str, Vec<u8>)> {
        let key = |number: usize| format!("key number {number:06}");
        let ints = |key: fn(usize) -> String| {
            let attributes =
                (0..count).map(|number| attribute(key(number), Some(Value::IntValue(1))));
            attributes.collect::<Vec<_>>()
        };
        let value = |value| one(span(vec![attribute(key(0), Some(value))]));
        let bare = || span(Vec::new());
        let array = ArrayValue { values: vec![AnyValue::default(); count] };
        let map = KeyValueList { values: ints(|number| format!("{number:06}")) };
        let event = Event { name: "event".to_owned(), ..Event::default() };
        let link = Link { trace_state: "a=b".to_owned(), ..Link::default() };
        vec![
            ("spans", request(vec![resource_spans(vec![scope_spans(vec![bare(); count])])])),
            ("scopes", request(vec![resource_spans(vec![scope_spans(vec![bare()]); count])])),
            ("resources", request(vec![resource_spans(vec![scope_spans(vec![bare()])]); count])),
            ("attributes", one(span(ints(|number| format!("key number {number:06}"))))),
            ("attributes of one key", one(span(ints(|_| "key number 000000".to_owned())))),
            ("events", one(Span { events: vec![event; count], ..bare() })),
            ("links", one(Span { links: vec![link; count], ..bare() })),
            ("elements of an array", value(Value::ArrayValue(array))),
            ("entries of a map", value(Value::KvlistValue(map))),
            (
                "pieces of a value",
                framed(&[0x0A, 0x12, 0x12], {
                    let pieces = [0x12, 4, 0x2A, 2, 0x0A, 0].repeat(count);
                    [bare().encode_to_vec(), framed(&[0x4A], pieces)].concat()
                }),
            ),
            (
                "pieces of a status",
                framed(&[0x0A, 0x12, 0x12], {
                    [bare().encode_to_vec(), [0x7A, 2, 0x18, 1].repeat(count)].concat()
                }),
            ),
            ("pieces of a resource", framed(&[0x0A], [0x0A, 2, 0x10, 1].repeat(count))),
            ("unknown fields", framed(&[0x0A, 0x12, 0x12], [0x88, 0x7D, 1].repeat(count))),
        ]
    }

    /// Everything that is done with a request.
    fn all(request: &[u8]) -> [(&'static str, usize); 5] {
        let bytes = Bytes::copy_from_slice(request);
        let mut text = Vec::new();
        let parse = || view::Request::parse(&bytes).expect("a request");
        [
            ("check", of(|| drop(view::reject_malformed(bytes.clone())))),
            ("decode", of(|| drop(decode::request(&parse(), usize::MAX)))),
            ("split", of(|| drop(split::request(&bytes, 16, 4096)))),
            ("write", of(|| json::write_request(&bytes, &mut text).expect("a request"))),
            ("read", of(|| drop(json::read_request(&text)))),
        ]
    }

    /// Faults 32.
    #[test]
    fn twice_as_much_of_anything_is_at_most_twice_the_work() {
        let count = 1_000;
        for ((name, once), (_, twice)) in shapes(count).iter().zip(shapes(2 * count)) {
            assert!(once.len() > 2 * count && twice.len() > 4 * count - 200, "{name}");
            // Three envelopes whose lengths were guessed a byte too long or too short, and thus moved.
            let moved = 3 * twice.len();
            for ((what, once), (_, twice)) in all(once).into_iter().zip(all(&twice)) {
                assert!(twice <= 2 * once + moved, "{what} {name}: {twice} after {once}");
            }
        }
    }

    /// Nothing that a peer sent is hashed or compared with its neighbours, so no choice of keys costs
    /// more than another.
    ///
    /// Faults 33.
    #[test]
    fn keys_that_are_equal_cost_no_more_than_keys_that_differ() {
        let shapes = shapes(1_000);
        let of = |wanted: &str| {
            let shape = shapes.iter().find(|(name, _)| *name == wanted);
            all(&shape.expect("one of the shapes").1)
        };
        assert_eq!(of("attributes"), of("attributes of one key"));
    }

    /// A span left out shifts what follows it: once, not once for each such span.
    ///
    /// Faults 32.
    #[test]
    fn leaving_out_every_other_span_is_linear_too() {
        let work = |count: usize| {
            let bad = Span { trace_id: vec![1], ..span(Vec::new()) };
            let spans = (0..2 * count)
                .map(|number| if number % 2 == 0 { span(Vec::new()) } else { bad.clone() })
                .collect();
            let bytes = Bytes::from(request(vec![resource_spans(vec![scope_spans(spans)])]));
            let mut rejected = 0;
            let work = of(|| {
                rejected = view::reject_malformed(bytes.clone()).expect("a request").rejected;
            });
            assert_eq!(rejected, count);
            work
        };
        assert!(work(2_000) <= 2 * work(1_000) + 100);
    }
}
