use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message;
use spanwire_codec::view::{Request, SpanError, reject_malformed};

use crate::generate;
use crate::oracle::{read, spans};
use crate::soup::{Cook, REQUEST};

fn span(id_len: usize, name: &str) -> Span {
    Span { trace_id: vec![1; id_len], span_id: vec![2; 8], name: name.into(), ..Span::default() }
}

fn request(scopes: Vec<Vec<Span>>) -> ExportTraceServiceRequest {
    let scope_spans =
        scopes.into_iter().map(|spans| ScopeSpans { spans, ..ScopeSpans::default() }).collect();
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

#[test]
fn a_request_without_fault_passes_as_the_same_bytes_in_the_same_place() {
    let bytes = Bytes::from(request(vec![vec![span(16, "a"), span(16, "b")]]).encode_to_vec());
    let checked = reject_malformed(bytes.clone()).expect("well-formed");
    assert_eq!(checked.request.as_ptr(), bytes.as_ptr());
    assert_eq!(checked.request, bytes);
    assert_eq!((checked.spans, checked.rejected, checked.reason), (2, 0, None));
}

/// Faults 21.
#[test]
fn a_malformed_span_is_left_out_and_its_neighbours_stay() {
    let long = "a name that makes lengths take two bytes ".repeat(4);
    let sent = request(vec![
        vec![span(16, &long), span(15, &long), span(16, "b")],
        vec![span(16, "c"), span(0, "d")],
    ]);
    let kept = request(vec![vec![span(16, &long), span(16, "b")], vec![span(16, "c")]]);
    let checked = reject_malformed(sent.encode_to_vec().into()).expect("framing is right");
    assert_eq!(checked.request, kept.encode_to_vec());
    assert_eq!((checked.spans, checked.rejected), (3, 2));
    assert_eq!(checked.reason, Some(SpanError::TraceId { len: 15 }), "the first one's");
}

/// Faults 2.
#[test]
fn an_envelope_that_loses_all_its_spans_goes_and_one_that_came_empty_stays() {
    let checked = |scopes| {
        let sent: ExportTraceServiceRequest = request(scopes);
        reject_malformed(sent.encode_to_vec().into()).expect("framing is right").request
    };
    assert_eq!(
        checked(vec![vec![span(1, "a")], vec![], vec![span(16, "b")]]),
        request(vec![vec![], vec![span(16, "b")]]).encode_to_vec()
    );
    assert!(checked(vec![vec![span(1, "a")], vec![span(2, "b")]]).is_empty());
}

#[test]
fn a_fault_outside_spans_fails_the_request() {
    let bytes = Bytes::from_static(&[0x0A, 4, 0x12, 2, 0x0A, 9]);
    assert_eq!(reject_malformed(bytes).expect_err("the scope is cut").offset(), 5);
}

/// Faults 14, 32.
#[test]
fn a_million_empty_spans_cost_no_more_than_their_bytes() {
    let spans = [0x12, 0].repeat(1_000_000);
    let mut bytes = Vec::new();
    let scope_spans_len = spans.len();
    let field_len = 1 + prost::length_delimiter_len(scope_spans_len) + scope_spans_len;
    for (tag, len) in [(0x0A, field_len), (0x12, scope_spans_len)] {
        bytes.push(tag);
        prost::encoding::encode_varint(len as u64, &mut bytes);
    }
    bytes.extend(spans);
    let checked = reject_malformed(bytes.into()).expect("framing is right");
    assert_eq!((checked.spans, checked.rejected, checked.request.len()), (0, 1_000_000, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_left_is_what_was_sent_without_the_malformed_spans(
        request in generate::request(),
        bad in proptest::collection::vec(any::<bool>(), 64),
    ) {
        let mut sent = request.clone();
        let mut kept = request;
        let mut flags = bad.iter().copied().cycle();
        let (mut rejected, mut count) = (0, 0);
        for (sent, kept) in sent.resource_spans.iter_mut().zip(&mut kept.resource_spans) {
            let mut lost = false;
            let mut is_lost = Vec::new();
            for (sent, kept) in sent.scope_spans.iter_mut().zip(&mut kept.scope_spans) {
                let mut keep = Vec::new();
                for span in &mut sent.spans {
                    keep.push(flags.next() != Some(true));
                    if keep.last() == Some(&false) {
                        span.span_id.push(0);
                        rejected += 1;
                    } else {
                        count += 1;
                    }
                }
                let mut keep = keep.iter();
                kept.spans.retain(|_| keep.next() == Some(&true));
                is_lost.push(kept.spans.is_empty() && !sent.spans.is_empty());
                lost |= sent.spans.len() != kept.spans.len();
            }
            let mut is_lost = is_lost.iter();
            kept.scope_spans.retain(|_| is_lost.next() == Some(&false));
            let has_spans = kept.scope_spans.iter().any(|scope_spans| !scope_spans.spans.is_empty());
            if lost && !has_spans {
                *kept = ResourceSpans { schema_url: "lost".into(), ..ResourceSpans::default() };
            }
        }
        let lost = ResourceSpans { schema_url: "lost".into(), ..ResourceSpans::default() };
        kept.resource_spans.retain(|resource_spans| *resource_spans != lost);

        let checked = reject_malformed(sent.encode_to_vec().into()).expect("framing is right");
        prop_assert_eq!((checked.spans, checked.rejected), (count, rejected));
        prop_assert!(checked.request == kept.encode_to_vec());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Faults 9, 17, 18.
    #[test]
    fn well_formed_spans_keep_every_byte_whatever_surrounds_them(
        numbers in proptest::collection::vec(any::<u8>(), 0..2500),
    ) {
        let bytes = Cook::new(&numbers).message(&REQUEST);
        let before = Request::parse(&bytes).expect("soups are well-formed");
        let checked = reject_malformed(bytes.clone().into()).expect("soups are well-formed");
        let after = Request::parse(&checked.request).expect("what is left is a request");
        let good: Vec<_> =
            spans(&before).filter(|span| span.check().is_ok()).map(|span| span.bytes()).collect();
        let left: Vec<_> = spans(&after).map(|span| span.bytes()).collect();
        prop_assert_eq!(&left, &good);
        prop_assert_eq!(checked.spans, left.len());
        prop_assert_eq!(checked.rejected, before.spans() - left.len());
        // Envelopes with a span keep all else: resource, scope, schema URL.
        let mut expected = read(&before);
        for resource_spans in &mut expected.resource_spans {
            resource_spans.scope_spans.retain_mut(|scope_spans| {
                let came = scope_spans.spans.len();
                scope_spans.spans.retain(|span| !span.trace_id.is_empty() && !span.span_id.is_empty());
                came == 0 || !scope_spans.spans.is_empty()
            });
        }
        let has_spans = |resource_spans: &&ResourceSpans| {
            resource_spans.scope_spans.iter().any(|scope_spans| !scope_spans.spans.is_empty())
        };
        let encode = |request: &ExportTraceServiceRequest| -> Vec<Vec<u8>> {
            let kept = request.resource_spans.iter().filter(has_spans);
            kept.map(Message::encode_to_vec).collect()
        };
        prop_assert_eq!(encode(&read(&after)), encode(&expected));
    }
}
