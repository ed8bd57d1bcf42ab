//! Large and arbitrary inputs.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message;
use spanwire_codec::json::{read_request, read_status, write_request};
use spanwire_codec::message::ExportTraceServiceRequest;

use crate::golden;
use crate::text::{around_span, around_value, read};

/// Far more than linear time takes, without optimisation and on a busy machine; far less than
/// quadratic time would.
const LINEAR: Duration = Duration::from_secs(20);
const LARGE: usize = 10 << 20;

fn timed<T>(what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = what();
    assert!(start.elapsed() < LINEAR, "took {:?}", start.elapsed());
    result
}

/// Faults 44.
#[test]
fn a_large_string_of_escapes_takes_linear_time() {
    let escapes = |len: usize| r"\u0000".repeat(len / 6);
    let json = around_span(&format!(r#""name":"{}""#, escapes(LARGE)));
    let wire = timed(|| read_request(json.as_bytes())).unwrap();
    assert!(wire.capacity() <= json.len(), "{} from {}", wire.capacity(), json.len());

    let escapes = escapes(1 << 20);
    for unknown in [format!(r#""unknown":"{escapes}""#), format!(r#""{escapes}":1"#)] {
        timed(|| read(&around_span(&unknown))).unwrap();
    }
    for name in ["traceId", "startTimeUnixNano"] {
        timed(|| read(&around_span(&format!(r#""{name}":"{escapes}""#)))).unwrap_err();
    }
}

/// Faults 44.
#[test]
fn a_large_number_takes_linear_time() {
    let huge = "9".repeat(LARGE);
    timed(|| read(&around_value(&format!(r#"{{"doubleValue":{huge}}}"#)))).unwrap_err();
    timed(|| read(&around_value(&format!(r#"{{"intValue":{huge}}}"#)))).unwrap_err();
    timed(|| read(&around_span(&format!(r#""unknown":{huge}"#)))).unwrap();

    let (nines, zeros) = ("9".repeat(1 << 20), "0".repeat(1 << 20));
    for (number, integer) in [
        (format!("1.{zeros}"), true),
        (format!("0.{zeros}1"), false),
        (format!("0.{zeros}1e{}", zeros.len() + 1), true),
        (format!("1{zeros}e-{}", zeros.len()), true),
        (format!("1e{nines}"), false),
        (format!("1e-{nines}"), false),
    ] {
        for value in
            [format!(r#"{{"intValue":{number}}}"#), format!(r#"{{"intValue":"{number}"}}"#)]
        {
            assert_eq!(timed(|| read(&around_value(&value))).is_ok(), integer);
        }
    }
}

/// Faults 15.
#[test]
fn the_smallest_elements_take_no_more_memory_than_their_text() {
    let elements = vec!["{}"; LARGE / 8].join(",");
    for list in ["attributes", "events", "links"] {
        let json = around_span(&format!(r#""{list}":[{elements}]"#));
        let wire = timed(|| read_request(json.as_bytes())).unwrap();
        assert!(wire.capacity() <= json.len(), "{} from {}", wire.capacity(), json.len());
    }
    for list in ["arrayValue", "kvlistValue"] {
        let json = around_value(&format!(r#"{{"{list}":{{"values":[{elements}]}}}}"#));
        let wire = timed(|| read_request(json.as_bytes())).unwrap();
        assert!(wire.capacity() <= json.len(), "{} from {}", wire.capacity(), json.len());
    }
}

#[test]
fn a_long_body_within_lists_stays_where_it_is_and_has_a_padded_length() {
    let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(10), "]}}".repeat(10));
    let text = |len: usize| "t".repeat(len);
    let json = |len: usize| {
        let value = format!(r#"{open}{{"stringValue":"{}"}}{close}"#, text(len));
        // What follows makes the room for lengths larger than they will need.
        around_span(&format!(r#""attributes":[{{"value":{value}}}],"name":"{}""#, text(LARGE)))
    };
    let excess = |len: usize| {
        let wire = timed(|| read_request(json(len).as_bytes())).unwrap();
        let request = ExportTraceServiceRequest::decode(&wire[..]).unwrap();
        let canonical = request.encode_to_vec();
        let mut written = Vec::new();
        write_request(&wire, &mut written).unwrap();
        assert_eq!(read_request(&written), Ok(canonical.clone()));
        wire.len() - canonical.len()
    };
    assert_eq!(excess(100), 0, "short bodies are moved, so that equal requests have equal bytes");
    assert!(excess(2_000) > 10, "long ones would be moved once for each list");
}

#[test]
fn a_value_in_very_many_pieces_takes_linear_time() {
    // An attribute whose value is an array, each element of it in a piece of its own.
    let pieces = [0x12, 4, 0x2A, 2, 0x0A, 0].repeat(LARGE / 16);
    let wire = [0x4A, 0x12, 0x12, 0x0A].iter().fold(pieces, |body, tag| {
        let mut out = vec![*tag];
        prost::encoding::encode_varint(body.len() as u64, &mut out);
        out.extend(body);
        out
    });
    let mut json = Vec::new();
    timed(|| write_request(&wire, &mut json)).unwrap();
    assert_eq!(json.windows(3).filter(|text| text == b"{},").count(), LARGE / 16 - 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_damaged_text_is_read_only_if_it_is_json(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4)
    ) {
        let mut json = golden::compact().into_bytes();
        for (at, byte, kind) in damage {
            let at = at.index(json.len());
            match kind {
                0 => json[at] = byte,
                1 => drop(json.remove(at)),
                _ => json.insert(at, b"{}[]\",:\\0e.-ntf"[usize::from(byte) % 15]),
            }
        }
        if let Ok(wire) = read_request(&json) {
            if let Err(error) = serde_json::from_slice::<serde_json::Value>(&json) {
                // Their limit, not JSON's: a number in an unknown field that no double can hold.
                prop_assert!(error.to_string().contains("number out of range"), "{}", error);
            }
            prop_assert!(ExportTraceServiceRequest::decode(&wire[..]).is_ok());
            prop_assert!(write_request(&wire, &mut Vec::new()).is_ok());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        read_request(&bytes).ok();
        read_status(&bytes).ok();
        write_request(&bytes, &mut Vec::new()).ok();
    }

    #[test]
    fn a_damaged_request_is_written_only_if_prost_reads_it(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut wire = golden::request().encode_to_vec();
        for (at, byte) in damage {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        let mut json = Vec::new();
        let written = write_request(&wire, &mut json);
        if written.is_ok() {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
            prop_assert!(read_request(&json).is_ok());
        } else {
            prop_assert!(json.is_empty());
        }
        // prost refuses invalid UTF-8, which is repaired here; else the verdict is the same.
        if ExportTraceServiceRequest::decode(&wire[..]).is_ok() {
            prop_assert!(written.is_ok());
        }
    }
}
