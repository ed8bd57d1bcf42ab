use proptest::prelude::*;
use prost::Message;
use spanwire_codec::view::{AnyValue, Request, Span};

use crate::generate;
use crate::oracle::{assert_agrees, assert_head, read, spans};
use crate::soup::{Cook, REQUEST};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Faults 27.
    #[test]
    fn a_view_reads_what_prost_wrote(request in generate::request()) {
        let bytes = request.encode_to_vec();
        let view = Request::parse(&bytes).expect("prost wrote it");
        let count: usize = request
            .resource_spans
            .iter()
            .flat_map(|resource_spans| &resource_spans.scope_spans)
            .map(|scope_spans| scope_spans.spans.len())
            .sum();
        prop_assert_eq!(view.spans(), count);
        let scopes: usize = request.resource_spans.iter().map(|r| r.scope_spans.len()).sum();
        prop_assert_eq!(view.envelopes(), request.resource_spans.len() + scopes);
        for span in spans(&view) {
            prop_assert_eq!(span.check(), Ok(()));
        }
        prop_assert!(read(&view) == request);
    }

    #[test]
    fn two_requests_joined_are_one_request(
        first in generate::request(), second in generate::request(),
    ) {
        let joined = [first.encode_to_vec(), second.encode_to_vec()].concat();
        let mut both = first;
        both.resource_spans.extend(second.resource_spans);
        prop_assert!(read(&Request::parse(&joined).expect("joined")) == both);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Faults 6, 9, 10, 17, 18, 19, 20.
    #[test]
    fn fields_in_any_order_repeated_split_and_unknown_read_as_prost_reads_them(
        numbers in proptest::collection::vec(any::<u8>(), 0..2500),
    ) {
        let bytes = Cook::new(&numbers).message(&REQUEST);
        assert_agrees(&bytes);
    }

    /// Faults 6, 9, 20.
    #[test]
    fn a_head_has_what_the_getters_give_up_to_the_fault_if_there_is_one(
        numbers in proptest::collection::vec(any::<u8>(), 0..1000), part in 0..=100_usize,
    ) {
        let bytes = Cook::new(&numbers).message(&REQUEST);
        for span in spans(&Request::parse(&bytes).expect("soups are well-formed")) {
            assert_head(&Span::new(&span.bytes()[..span.bytes().len() * part / 100]));
        }
    }
}

#[test]
fn the_soup_reaches_well_formed_spans_with_attributes() {
    let mut seed = 1_u64;
    let mut attributes = 0;
    for _ in 0..500 {
        let numbers: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        })
        .take(1000)
        .collect();
        let bytes = Cook::new(&numbers).message(&REQUEST);
        let request = Request::parse(&bytes).expect("soups are well-formed");
        attributes += spans(&request)
            .filter(|span| span.check().is_ok())
            .map(|span| span.attributes().count())
            .sum::<usize>();
    }
    assert!(attributes > 100, "{attributes}: the property above would show little");
}

/// Faults 17, 28.
#[test]
fn a_value_in_pieces_is_merged_and_the_last_kind_wins() {
    let value = |attribute: &[u8]| -> String {
        let mut span = vec![0x4A, attribute.len() as u8];
        span.extend(attribute);
        let attribute = Span::new(&span).attributes().next().expect("one attribute");
        match attribute.value() {
            AnyValue::Array(values) => format!("{:?}", values.collect::<Vec<_>>()),
            value => format!("{value:?}"),
        }
    };
    // Two pieces of the value, each with a piece of the array.
    assert_eq!(
        value(&[0x12, 6, 0x2A, 4, 0x0A, 2, 0x18, 1, 0x12, 6, 0x2A, 4, 0x0A, 2, 0x18, 2]),
        "[Int(1), Int(2)]"
    );
    // An int between them: the first piece is gone.
    assert_eq!(
        value(&[0x12, 8, 0x2A, 4, 0x0A, 2, 0x18, 1, 0x18, 7, 0x12, 6, 0x2A, 4, 0x0A, 2, 0x18, 2]),
        "[Int(2)]"
    );
    assert_eq!(value(&[0x12, 4, 0x18, 1, 0x10, 2]), "Bool(true)");
    // What only profiles may use reads as absent.
    assert_eq!(value(&[0x12, 4, 0x18, 1, 0x40, 5]), "Empty");
    assert_eq!(value(&[]), "Empty");
}

/// Faults 31.
#[test]
fn doubles_pass_bit_for_bit() {
    for bits in [f64::NAN.to_bits() | 0xBEEF, (-0.0_f64).to_bits(), f64::NEG_INFINITY.to_bits()] {
        let mut span = vec![0x4A, 11, 0x12, 9, 0x21];
        span.extend(bits.to_le_bytes());
        let attribute = Span::new(&span).attributes().next().expect("one attribute");
        match attribute.value() {
            AnyValue::Double(double) => assert_eq!(double.to_bits(), bits),
            other => panic!("{other:?}"),
        }
    }
}

/// The first byte of a longer tag may look like a tag.
#[test]
fn fields_numbered_above_15_are_passed_by_their_whole_tags() {
    let mut span = vec![0x8A, 0x01, 1, 0, 0x8A, 0x01, 2, 0x2A, 4]; // field 17, twice
    span.extend([0x2A, 2, b'o', b'k', 0x8A, 0x01, 0]);
    let span = Span::new(&span);
    assert_eq!((span.name(), span.head().name), (&b"ok"[..], &b"ok"[..]));
}

/// Faults 1.
#[test]
fn an_empty_request_holds_nothing() {
    let request = Request::parse(&[]).expect("the empty message");
    assert_eq!((request.spans(), request.envelopes()), (0, 0));
    assert_eq!(request.resource_spans().count(), 0);
}

#[test]
fn debug_shows_sizes_and_no_values() {
    let bytes = [0x0A, 12, 0x12, 10, 0x12, 8, 0x2A, 6, b's', b'e', b'c', b'r', b'e', b't'];
    let request = Request::parse(&bytes).expect("one span");
    let span = spans(&request).next().expect("one span");
    assert_eq!(format!("{request:?} {span:?}"), "Request(1 spans in 14 bytes) Span(8 bytes)");
}
