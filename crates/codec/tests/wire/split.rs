use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message;
use spanwire_codec::split::{self, Prefix};
use spanwire_codec::view::Request;

use crate::generate;
use crate::oracle::{read, spans};
use crate::soup::{Cook, REQUEST};

/// Spans with names of these lengths, framed.
fn framed(lens: &[usize]) -> Vec<u8> {
    let span = |len| Span { name: "x".repeat(len), ..Span::default() };
    let spans = lens.iter().map(|&len| span(len)).collect();
    ScopeSpans { spans, ..ScopeSpans::default() }.encode_to_vec()
}

#[test]
fn a_prefix_is_the_longest_within_both_limits() {
    let framed = framed(&[10, 10, 10]); // 14 bytes each
    let prefix = |spans_max, bytes_max| {
        let Prefix { bytes, spans } = split::prefix(&framed, spans_max, bytes_max);
        (bytes, spans)
    };
    assert_eq!(prefix(9, 1000), (42, 3));
    assert_eq!(prefix(2, 1000), (28, 2));
    assert_eq!(prefix(9, 42), (42, 3));
    assert_eq!(prefix(9, 41), (28, 2));
    assert_eq!(prefix(9, 13), (14, 1), "a span too large travels alone");
    assert_eq!(prefix(0, 0), (14, 1), "a loop over the rest ends");
}

#[test]
fn a_prefix_ends_where_no_framed_span_is() {
    let mut bytes = framed(&[10, 10]);
    let whole = bytes.len();
    bytes.extend([0x1A, 1, b'u']);
    assert_eq!(split::prefix(&bytes, 9, 1000), Prefix { bytes: whole, spans: 2 });
    assert_eq!(split::prefix(&bytes[..whole - 1], 9, 1000).spans, 1);
    assert_eq!(split::prefix(&[], 9, 1000), Prefix { bytes: 0, spans: 0 });
}

#[test]
fn a_request_within_the_limits_is_one_part_with_one_piece_of_spans_a_scope() {
    let request = request_of(&[&[10, 10, 10]], 0);
    let parts = split::request(&request, 3, request.len()).expect("well-formed");
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].pieces.concat(), request);
    assert_eq!((parts[0].bytes, parts[0].spans), (request.len(), 3));
    let spans = parts[0].pieces.last().expect("spans go last");
    assert_eq!(spans.len(), 42);
    assert!(request.as_ptr_range().contains(&spans.as_ptr()), "spans are not copied");
}

/// One resource with scopes of spans with names of these lengths; the resource's schema URL is long.
fn request_of(scopes: &[&[usize]], schema_url: usize) -> Bytes {
    let span = |&len: &usize| Span { name: "x".repeat(len), ..Span::default() };
    let scope_spans = scopes
        .iter()
        .map(|lens| ScopeSpans { spans: lens.iter().map(span).collect(), ..ScopeSpans::default() })
        .collect();
    let resource = Some(Resource { dropped_attributes_count: 7, ..Resource::default() });
    let schema_url = "u".repeat(schema_url);
    let resource_spans = vec![ResourceSpans { resource, scope_spans, schema_url }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// Names' lengths by part and scope, and the sizes of parts.
fn split_lens(
    request: &Bytes,
    spans_max: usize,
    bytes_max: usize,
) -> (Vec<Vec<Vec<usize>>>, Vec<usize>) {
    let parts = split::request(request, spans_max, bytes_max).expect("well-formed");
    let lens = parts
        .iter()
        .map(|part| {
            let bytes = part.pieces.concat();
            assert_eq!(bytes.len(), part.bytes);
            let part = ExportTraceServiceRequest::decode(&bytes[..]).expect("a request");
            let [resource_spans] = &part.resource_spans[..] else { panic!("one resource") };
            assert_eq!(
                resource_spans.resource.as_ref().map(|r| r.dropped_attributes_count),
                Some(7)
            );
            let scopes = resource_spans.scope_spans.iter();
            scopes.map(|scope| scope.spans.iter().map(|span| span.name.len()).collect()).collect()
        })
        .collect();
    (lens, parts.iter().map(|part| part.bytes).collect())
}

#[test]
fn parts_are_filled_to_the_limit_and_a_span_too_large_travels_alone() {
    let request = request_of(&[&[10, 10, 500, 10], &[10, 10]], 0);
    let (lens, sizes) = split_lens(&request, 100, 37);
    assert_eq!(
        lens,
        [vec![vec![10, 10]], vec![vec![500]], vec![vec![10]], vec![vec![10, 10]]],
        "{sizes:?}"
    );
    assert_eq!(sizes[0], 36);
    // With room for the third span's envelope the parts cross scopes.
    let (lens, sizes) = split_lens(&request, 100, 52);
    assert_eq!(lens[2], [vec![10], vec![10, 10]], "{sizes:?}");
    assert_eq!(sizes[2], 52);
    let (lens, _) = split_lens(&request, 2, 10_000);
    assert_eq!(lens, [vec![vec![10, 10]], vec![vec![500, 10]], vec![vec![10, 10]]]);
}

#[test]
fn a_large_envelope_is_not_repeated_for_each_span() {
    let request = request_of(&[&[10; 50]], 1000);
    let (lens, _) = split_lens(&request, 10, 1500);
    assert_eq!(lens, [vec![vec![10; 50]]]);
    let (lens, _) = split_lens(&request, 10, 3000);
    assert_eq!(lens.len(), 5);
}

/// Faults 32.
#[test]
fn parts_share_one_copy_of_a_large_envelope() {
    let request = request_of(&[&[10; 50]], 10_000);
    let parts = split::request(&request, 10, 1 << 20).expect("well-formed");
    assert_eq!(parts.len(), 5);
    let large = |part: &split::Part| {
        part.pieces.iter().find(|piece| piece.len() > 10_000).expect("the resource").as_ptr()
    };
    assert!(parts.iter().all(|part| large(part) == large(&parts[0])));
    let (lens, _) = split_lens(&request, 10, 1 << 20);
    assert_eq!(lens, vec![vec![vec![10; 10]]; 5]);
}

/// Faults 9.
#[test]
fn unknown_fields_stay_with_their_envelope_and_their_span() {
    let len = |tag: u8, body: &[u8]| [&[tag, body.len() as u8], body].concat();
    let unknown = |value: u8| [0x88, 0x7D, value];
    let span = |value: u8| len(0x12, &[&[0x30, 1][..], &unknown(value)].concat());
    let scope = len(0x12, &[&span(1)[..], &unknown(7), &span(2)].concat());
    let request = Bytes::from(len(0x0A, &[&unknown(8)[..], &scope].concat()));
    let parts = split::request(&request, 1, 1000).expect("well-formed");
    let part = |value: u8| {
        let scope = len(0x12, &[&unknown(7)[..], &span(value)].concat());
        len(0x0A, &[&unknown(8)[..], &scope].concat())
    };
    let parts: Vec<_> = parts.iter().map(|part| part.pieces.concat()).collect();
    assert_eq!(parts, [part(1), part(2)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn parts_hold_the_spans_in_order_within_the_limits(
        request in generate::request(), spans_max in 1_usize..8, bytes_max in 0_usize..4000,
    ) {
        let bytes = Bytes::from(request.encode_to_vec());
        let parts = split::request(&bytes, spans_max, bytes_max).expect("prost wrote it");
        let whole = Request::parse(&bytes).expect("prost wrote it");

        let mut joined = Vec::new();
        for part in &parts {
            let encoded = part.pieces.concat();
            prop_assert_eq!(encoded.len(), part.bytes);
            let part_view = Request::parse(&encoded).expect("a part is a request");
            prop_assert_eq!(part_view.spans(), part.spans);
            prop_assert!(part.spans > 0);
            let read = read(&part_view);
            let mut scopes = read.resource_spans.iter().flat_map(|r| &r.scope_spans);
            prop_assert!(scopes.all(|scope| !scope.spans.is_empty()));
            let envelopes = read.resource_spans.iter().map(|r| {
                let scope = r.scope_spans.iter().map(|s| s.encoded_len() - s.spans.iter()
                    .map(|span| span.encoded_len()).sum::<usize>()).max().unwrap_or(0);
                r.encoded_len() - r.scope_spans.iter().map(|s| s.encoded_len()).sum::<usize>() + scope
            }).max().unwrap_or(0);
            if 2 * envelopes <= bytes_max {
                prop_assert!(part.spans <= spans_max);
                prop_assert!(part.bytes <= bytes_max || part.spans == 1, "{} {}", part.bytes, bytes_max);
            }
            joined.extend(encoded);
        }
        let joined = Request::parse(&joined).expect("parts joined");
        let before: Vec<_> = spans(&whole).map(|span| span.bytes()).collect();
        let after: Vec<_> = spans(&joined).map(|span| span.bytes()).collect();
        prop_assert_eq!(before, after);
        prop_assert_eq!(by_span(&read(&whole)), by_span(&read(&joined)));
    }

    #[test]
    fn a_prefix_ends_where_a_span_ends(lens in proptest::collection::vec(0_usize..300, 0..9),
        spans_max in 1_usize..9, bytes_max in 0_usize..1000,
    ) {
        let bytes = framed(&lens);
        let prefix = split::prefix(&bytes, spans_max, bytes_max);
        let ends: Vec<usize> = (0..=lens.len()).map(|n| framed(&lens[..n]).len()).collect();
        let best = (0..=lens.len()).filter(|&n| n <= spans_max && ends[n] <= bytes_max).max();
        let expected = best.unwrap_or(0).max(1).min(lens.len());
        prop_assert_eq!(prefix, Prefix { bytes: ends[expected], spans: expected });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn soups_split_into_the_same_spans(
        numbers in proptest::collection::vec(any::<u8>(), 0..2500), spans_max in 1_usize..4,
    ) {
        let bytes = Bytes::from(Cook::new(&numbers).message(&REQUEST));
        let parts = split::request(&bytes, spans_max, 1 << 20).expect("soups are well-formed");
        let joined: Vec<u8> = parts.iter().flat_map(|part| part.pieces.concat()).collect();
        let before = Request::parse(&bytes).expect("soups are well-formed");
        let after = Request::parse(&joined).expect("parts joined");
        prop_assert_eq!(by_span(&read(&before)), by_span(&read(&after)));
        prop_assert!(parts.iter().all(|part| part.spans <= spans_max));
    }
}

/// Each span with the resource, scope and schema URLs over it, as bytes.
fn by_span(request: &ExportTraceServiceRequest) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for resource_spans in &request.resource_spans {
        for scope_spans in &resource_spans.scope_spans {
            for span in &scope_spans.spans {
                let scope_spans = vec![ScopeSpans {
                    scope: scope_spans.scope.clone(),
                    spans: vec![span.clone()],
                    schema_url: scope_spans.schema_url.clone(),
                }];
                let resource_spans = ResourceSpans {
                    resource: resource_spans.resource.clone(),
                    scope_spans,
                    schema_url: resource_spans.schema_url.clone(),
                };
                out.push(resource_spans.encode_to_vec());
            }
        }
    }
    out
}
