use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use spanwire_codec::view::{Expected, NESTING_MAX, Request, Span, SpanError, reject_malformed};

use crate::generate;
use crate::oracle::{assert_agrees, spans};
use crate::soup::{Cook, REQUEST};

/// Wraps a body in a `LEN` field with a one-byte tag.
fn field(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    out.extend(body);
    out
}

/// Fields of a span with both ids.
const IDS: [u8; 28] =
    [0x0A, 16, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0x12, 8, 2, 2, 2, 2, 2, 2, 2, 2];

/// Each message of the schema: its tags on the way down from a request, and its highest number.
const MESSAGES: [(&[u8], u32); 14] = [
    (&[], 1),                                   // ExportTraceServiceRequest
    (&[0x0A], 3),                               // ResourceSpans
    (&[0x0A, 0x0A], 3),                         // Resource
    (&[0x0A, 0x0A, 0x1A], 4),                   // EntityRef
    (&[0x0A, 0x12], 3),                         // ScopeSpans
    (&[0x0A, 0x12, 0x0A], 4),                   // InstrumentationScope
    (&[0x0A, 0x12, 0x12], 16),                  // Span
    (&[0x0A, 0x12, 0x12, 0x5A], 4),             // Event
    (&[0x0A, 0x12, 0x12, 0x6A], 6),             // Link
    (&[0x0A, 0x12, 0x12, 0x7A], 3),             // Status
    (&[0x0A, 0x12, 0x12, 0x4A], 3),             // KeyValue
    (&[0x0A, 0x12, 0x12, 0x4A, 0x12], 8),       // AnyValue
    (&[0x0A, 0x12, 0x12, 0x4A, 0x12, 0x2A], 1), // ArrayValue
    (&[0x0A, 0x12, 0x12, 0x4A, 0x12, 0x32], 1), // KeyValueList
];

/// A request with one message on the way to it, which has this body; spans have ids.
fn request_with(path: &[u8], body: &[u8]) -> Vec<u8> {
    let mut message = body.to_vec();
    for depth in (0..path.len()).rev() {
        if depth == 2 && path[..3] == [0x0A, 0x12, 0x12] {
            message = [&IDS[..], &message].concat();
        }
        message = field(path[depth], &message);
    }
    message
}

/// Faults 8.
#[test]
fn every_wire_type_of_every_number_gets_the_verdict_of_prost() {
    let payloads: [&[u8]; 4] = [&[1], &[0; 8], &[0], &[0; 4]];
    for (path, number_max) in MESSAGES {
        for number in 1..=number_max + 1 {
            for (wire_type, payload) in [0, 1, 2, 5].into_iter().zip(payloads) {
                let mut body = Vec::new();
                prost::encoding::encode_varint(u64::from(number << 3 | wire_type), &mut body);
                body.extend(payload);
                assert_agrees(&request_with(path, &body));
            }
            let mut group = Vec::new();
            prost::encoding::encode_varint(u64::from(number << 3 | 3), &mut group);
            prost::encoding::encode_varint(u64::from(number << 3 | 4), &mut group);
            assert_agrees(&request_with(path, &group));
        }
    }
}

/// Faults 9, 10.
#[test]
fn unknown_fields_of_every_wire_type_are_ignored_and_kept_in_every_message() {
    let unknown = [
        &[0x88, 0x7D, 0x05][..],               // varint, number 2001
        &[0x89, 0x7D, 1, 2, 3, 4, 5, 6, 7, 8], // fixed64
        &[0x8A, 0x7D, 3, 1, 2, 3],             // bytes
        &[0x8D, 0x7D, 1, 2, 3, 4],             // fixed32
        &[0x8B, 0x7D, 0x08, 1, 0x8B, 0x7D, 0x8C, 0x7D, 0x8C, 0x7D], // group in a group
    ];
    for (path, _) in MESSAGES {
        let bytes = request_with(path, &unknown.concat());
        assert_agrees(&bytes);
        let checked = reject_malformed(Bytes::from(bytes.clone())).expect("well-formed");
        assert_eq!((checked.rejected, &checked.request[..]), (0, &bytes[..]));
    }
}

/// Faults 5, 6, 7, 10.
#[test]
fn bad_tags_and_varints_are_refused_in_every_message() {
    let bad: [&[u8]; 12] = [
        &[0x00, 0],                                                         // number 0
        &[0x06],                                                            // wire type 6
        &[0x8F, 0x7D],                                                      // wire type 7
        &[0x80, 0x80, 0x80, 0x80, 0x10, 0],                                 // number 2^29
        &[0x88, 0x7D, 0x80],                                                // varint ends early
        &[0x88, 0x7D, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],      // 65 bits
        &[0x88, 0x7D, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 0], // 11 bytes
        &[0x8A, 0x7D, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],      // length 2^64 - 1
        &[0x8A, 0x7D, 255, 255, 255, 255, 7],                               // length 2^31 - 1
        &[0x8B, 0x7D],                                                      // group not ended
        &[0x8B, 0x7D, 0x94, 0x7D],                                          // by another number
        &[0x8C, 0x7D],                                                      // not begun
    ];
    for (path, _) in MESSAGES {
        for body in bad {
            let bytes = request_with(path, body);
            assert_agrees(&bytes);
            let refused = match Request::parse(&bytes) {
                Ok(request) => spans(&request).any(|span| span.check().is_err()),
                Err(_) => true,
            };
            assert!(refused, "{bytes:02X?}");
        }
    }
}

/// An attribute of a span whose value nests so many lists; `kinds` are used in turn.
fn nested(levels: usize, kinds: &[u8]) -> Vec<u8> {
    // From the inside out into a reversed buffer, so that a million levels take linear time.
    let mut reversed: Vec<u8> = Vec::new();
    let wrap = |tag: u8, reversed: &mut Vec<u8>| {
        let mut header = vec![tag];
        prost::encoding::encode_varint(reversed.len() as u64, &mut header);
        reversed.extend(header.iter().rev());
    };
    for level in 0..levels {
        let kind = kinds[level % kinds.len()];
        if level > 0 {
            // What came so far is an element: of an array it is the value, of a map an entry.
            if kind == 0x32 {
                wrap(0x12, &mut reversed);
            }
            wrap(0x0A, &mut reversed);
        }
        wrap(kind, &mut reversed);
    }
    wrap(0x12, &mut reversed);
    wrap(0x4A, &mut reversed);
    reversed.reverse();
    [&IDS[..], &reversed].concat()
}

/// Faults 12, 13.
#[test]
fn values_nest_to_the_limit_and_no_deeper_on_a_flat_stack() {
    for kinds in [&[0x2A][..], &[0x32], &[0x2A, 0x32], &[0x32, 0x2A]] {
        for (levels, ok) in [
            (1, true),
            (NESTING_MAX - 1, true),
            (NESTING_MAX, true),
            (NESTING_MAX + 1, false),
            (1_000_000, false),
        ] {
            let span = nested(levels, kinds);
            let verdict = Span::new(&span).check();
            if ok {
                assert_eq!(verdict, Ok(()), "{levels} of {kinds:02X?}");
            } else {
                let Err(SpanError::Malformed(error)) = verdict else { panic!("{verdict:?}") };
                assert_eq!(error.expected(), Expected::Nesting, "{levels} of {kinds:02X?}");
            }
        }
        // Well within both limits the depth is what prost sees too.
        assert_agrees(&request_with(&[0x0A, 0x12], &field(0x12, &nested(20, kinds))));
    }
}

/// Faults 11.
#[test]
fn a_million_groups_are_refused_on_a_flat_stack() {
    for (path, _) in MESSAGES {
        let mut groups = [0x8B, 0x7D].repeat(1_000_000);
        groups.extend([0x8C, 0x7D].repeat(1_000_000));
        let bytes = request_with(path, &groups);
        let refused = match Request::parse(&bytes) {
            Ok(request) => spans(&request).any(|span| span.check().is_err()),
            Err(_) => true,
        };
        assert!(refused, "{path:02X?}");
    }
}

#[test]
fn an_error_names_the_offset_and_what_was_expected() {
    let error = Request::parse(&[0x0A, 4, 0x12, 2, 0x10, 1]).expect_err("spans is no varint");
    assert_eq!((error.offset(), error.expected()), (4, Expected::WireType { number: 2 }));
    assert_eq!(
        error.to_string(),
        "malformed protobuf at byte 4: expected the wire type of the schema for field 2"
    );
    let error = Request::parse(&[0x0A, 4, 0x12, 3, 0x12, 0]).expect_err("one byte short");
    assert_eq!((error.offset(), error.expected()), (3, Expected::Value));
    let error = Span::new(&[0x0A, 1, 7]).check().expect_err("an id of one byte");
    assert_eq!(error.to_string(), "trace_id has 1 bytes, not 16");
}

/// Faults 21, 22, 23.
#[test]
fn ids_of_other_lengths_make_the_span_invalid_and_zeros_do_not() {
    let span = |trace_id: usize, span_id: usize, parent: usize| {
        let ids = [
            field(0x0A, &vec![0; trace_id]),
            field(0x12, &vec![0; span_id]),
            field(0x22, &vec![0; parent]),
        ];
        ids.concat()
    };
    for (lens, expected) in [
        ((16, 8, 0), Ok(())),
        ((16, 8, 8), Ok(())),
        ((0, 8, 0), Err(SpanError::TraceId { len: 0 })),
        ((1, 8, 0), Err(SpanError::TraceId { len: 1 })),
        ((15, 8, 0), Err(SpanError::TraceId { len: 15 })),
        ((17, 8, 0), Err(SpanError::TraceId { len: 17 })),
        ((32, 8, 0), Err(SpanError::TraceId { len: 32 })),
        ((16, 0, 0), Err(SpanError::SpanId { len: 0 })),
        ((16, 7, 0), Err(SpanError::SpanId { len: 7 })),
        ((16, 9, 0), Err(SpanError::SpanId { len: 9 })),
        ((16, 8, 7), Err(SpanError::ParentSpanId { len: 7 })),
        ((16, 8, 16), Err(SpanError::ParentSpanId { len: 16 })),
    ] {
        let bytes = span(lens.0, lens.1, lens.2);
        assert_eq!(Span::new(&bytes).check(), expected, "{lens:?}");
    }
    assert!(Span::new(&span(16, 8, 0)).has_zero_id());
    assert!(!Span::new(&IDS).has_zero_id());

    let link = |ids: &[Vec<u8>]| [&IDS[..], &field(0x6A, &ids.concat())].concat();
    let absent = link(&[]);
    assert_eq!(Span::new(&absent).check(), Ok(()));
    let short = link(&[field(0x0A, &[1; 15]), field(0x12, &[1; 8])]);
    assert_eq!(Span::new(&short).check(), Err(SpanError::LinkTraceId { len: 15 }));
    let long = link(&[field(0x0A, &[1; 16]), field(0x12, &[1; 9])]);
    assert_eq!(Span::new(&long).check(), Err(SpanError::LinkSpanId { len: 9 }));
}

/// Faults 17.
#[test]
fn the_last_of_two_ids_counts_as_protobuf_has_it() {
    let right_last = [&field(0x0A, &[1; 3])[..], &IDS].concat();
    assert_eq!(Span::new(&right_last).check(), Ok(()));
    assert_eq!(Span::new(&right_last).trace_id(), Some([1; 16]));
    let wrong_last = [&IDS[..], &field(0x0A, &[1; 3])].concat();
    assert_eq!(Span::new(&wrong_last).check(), Err(SpanError::TraceId { len: 3 }));
    assert_eq!(Span::new(&wrong_last).trace_id(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Framing ends at spans: a cut within the last span is a cut within its envelopes too, so both
    /// verdicts are those of prost, except where a cut leaves a shorter text or id at the end.
    ///
    /// Faults 3.
    #[test]
    fn a_request_cut_anywhere_gets_the_verdict_of_prost(request in generate::request()) {
        let bytes = request.encode_to_vec();
        for end in 0..bytes.len().min(3000) {
            assert_agrees(&bytes[..end]);
            let parsed = Request::parse(&bytes[..end]);
            let resource_spans_ends = request.resource_spans.iter().scan(0, |at, next| {
                let len = next.encoded_len();
                *at += 1 + prost::length_delimiter_len(len) + len;
                Some(*at)
            });
            // Only a cut between two `ResourceSpans` leaves a request.
            let is_boundary = end == 0 || resource_spans_ends.into_iter().any(|at| at == end);
            prop_assert_eq!(parsed.is_ok(), is_boundary, "cut at {}", end);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Faults 4.
    #[test]
    fn random_bytes_get_the_verdict_of_prost(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        assert_agrees(&bytes);
        assert_agrees(&request_with(&[0x0A], &bytes));
        assert_agrees(&request_with(&[0x0A, 0x12, 0x12], &bytes));
        assert_agrees(&request_with(&[0x0A, 0x12, 0x12, 0x4A], &bytes));
        assert_agrees(&request_with(&[0x0A, 0x12, 0x12, 0x4A, 0x12], &bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Faults 4.
    #[test]
    fn a_damaged_request_gets_the_verdict_of_prost(
        request in generate::request(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = request.encode_to_vec();
        damage_bytes(&mut bytes, &damage);
        assert_agrees(&bytes);
        read_all(&bytes);
    }

    #[test]
    fn a_damaged_soup_gets_the_verdict_of_prost(
        numbers in proptest::collection::vec(any::<u8>(), 0..2500),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..32_u8), 1..3),
    ) {
        let mut bytes = Cook::new(&numbers).message(&REQUEST);
        damage_bytes(&mut bytes, &damage);
        assert_agrees(&bytes);
        read_all(&bytes);
    }
}

fn damage_bytes(bytes: &mut [u8], damage: &[(prop::sample::Index, u8)]) {
    for (at, byte) in damage {
        if !bytes.is_empty() {
            bytes[at.index(bytes.len())] = *byte;
        }
    }
}

/// Whatever is in a request, nothing panics on the way to the last value.
fn read_all(bytes: &[u8]) {
    let Ok(request) = Request::parse(bytes) else { return };
    for span in spans(&request) {
        let attributes: Vec<_> = span.attributes().map(|entry| entry.value()).collect();
        assert!(!format!("{attributes:?} {:?}", span.status()).is_empty());
    }
}

/// The forms nearly all attributes have are checked by a path of their own.
#[test]
fn an_attribute_changed_in_any_byte_gets_the_verdict_of_prost() {
    let values = [
        field(0x0A, b"text"),
        field(0x0A, &[b'x'; 130]),
        field(0x3A, &[1, 2, 3]),
        vec![0x10, 1],
        vec![0x18, 5],
        vec![0x18, 0x85, 0x01],
        vec![0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        vec![0x21, 1, 2, 3, 4, 5, 6, 7, 8],
        vec![],
    ];
    for value in values {
        for key in [&b"k"[..], &[b'k'; 128]] {
            let attribute = [field(0x0A, key), field(0x12, &value)].concat();
            assert_agrees(&request_with(&[0x0A, 0x12, 0x12, 0x4A], &attribute));
            for at in 0..attribute.len() {
                let is_text = at >= 6 && attribute[at] == attribute[at - 3];
                for byte in (0..=255).filter(|_| !is_text) {
                    let mut changed = attribute.clone();
                    changed[at] = byte;
                    assert_agrees(&request_with(&[0x0A, 0x12, 0x12, 0x4A], &changed));
                }
                assert_agrees(&request_with(&[0x0A, 0x12, 0x12, 0x4A], &attribute[..at]));
            }
        }
    }
}

/// Faults 4.
#[test]
fn every_first_byte_gets_the_verdict_of_prost() {
    for first in 0..=255 {
        assert_agrees(&[first]);
        assert_agrees(&[first, 0]);
        assert_agrees(&[first, 1, 0]);
    }
}
