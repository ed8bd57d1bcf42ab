//! Requests in protobuf: views, checking, rejection and decoding.

use bytes::Bytes;
use spanwire_codec::decode;
use spanwire_codec::view::{Request, reject_malformed};

use super::oracle::{assert_agrees, spans};

/// Views read what `prost` reads; a malformed span costs itself only; no span is lost uncounted.
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    assert_agrees(data);
    let bytes = Bytes::copy_from_slice(data);
    let checked = reject_malformed(bytes.clone());
    let request = match Request::parse(data) {
        Ok(request) => request,
        Err(error) => return assert_eq!(checked.err(), Some(error), "both judge the framing"),
    };

    let checked = checked.expect("both judge the framing");
    assert_eq!(checked.spans + checked.rejected, request.spans());
    assert_eq!(checked.reason.is_some(), checked.rejected > 0);
    let left = Request::parse(&checked.request).expect("what is left is a request");
    let kept: Vec<_> =
        spans(&request).filter(|span| span.check().is_ok()).map(|span| span.bytes()).collect();
    assert_eq!(kept, spans(&left).map(|span| span.bytes()).collect::<Vec<_>>());
    if checked.rejected == 0 {
        assert_eq!(checked.request, bytes);
    }

    if let Ok(decoded) = decode::request(&request, DECODED_BYTES_MAX) {
        assert_eq!(decoded.spans + decoded.spans_rejected, request.spans());
    }
}

/// Enough for all that small inputs hold; large ones show that the budget ends it.
const DECODED_BYTES_MAX: usize = 1 << 20;
