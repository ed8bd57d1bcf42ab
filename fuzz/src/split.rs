//! Cutting requests at span boundaries.

use bytes::Bytes;
use spanwire_codec::split;
use spanwire_codec::view::Request;

use super::oracle::spans;

/// Parts joined hold the same spans in the same order, and each is a request within its limits.
///
/// Two bytes say how many bytes a part may have, one how many spans; the request follows.
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    let Some((&[low, high, spans_max], data)) = data.split_first_chunk() else { return };
    let (bytes_max, spans_max) =
        (usize::from(u16::from_le_bytes([low, high])), usize::from(spans_max).max(1));
    prefixes(data, spans_max, bytes_max);

    let bytes = Bytes::copy_from_slice(data);
    let parts = split::request(&bytes, spans_max, bytes_max);
    // Splitting looks at less than the view does, so it may accept more, but never less.
    let Ok(whole) = Request::parse(data) else { return };
    let parts = parts.expect("the view finds no fault");
    let mut joined = Vec::new();
    for part in &parts {
        let encoded = part.pieces.concat();
        let request = Request::parse(&encoded).expect("a part is a request");
        assert_eq!((encoded.len(), request.spans()), (part.bytes, part.spans));
        assert!(part.spans > 0);
        let held: usize = spans(&request).map(|span| span.bytes().len()).sum();
        // An envelope of more than half the limit keeps its spans together.
        if (part.bytes - held) * 2 <= bytes_max {
            assert!(part.spans <= spans_max, "{} spans of {spans_max}", part.spans);
            let alone = part.spans == 1;
            assert!(alone || part.bytes <= bytes_max, "{} bytes of {bytes_max}", part.bytes);
        }
        joined.extend(encoded);
    }
    let joined = Request::parse(&joined).expect("parts joined are a request");
    let before: Vec<_> = spans(&whole).map(|span| span.bytes()).collect();
    assert_eq!(before, spans(&joined).map(|span| span.bytes()).collect::<Vec<_>>());
}

/// Cutting prefixes off framed spans comes to an end and loses nothing.
fn prefixes(mut framed: &[u8], spans_max: usize, bytes_max: usize) {
    loop {
        let prefix = split::prefix(framed, spans_max, bytes_max);
        assert!(prefix.spans <= spans_max && prefix.bytes <= framed.len());
        assert!(prefix.bytes <= bytes_max || prefix.spans == 1);
        if prefix.spans == 0 {
            return assert_eq!(prefix.bytes, 0);
        }
        framed = &framed[prefix.bytes..];
    }
}
