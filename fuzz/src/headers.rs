//! Span contexts and baggage in the headers of a request.

use std::collections::HashSet;

use spanwire_tracer::Baggage;
use spanwire_tracer::propagation::{
    BAGGAGE, Propagator, Propagators, TRACEPARENT, TRACESTATE, extract_baggage,
    extract_span_context, format_traceparent, inject_baggage, inject_span_context,
    parse_traceparent,
};

/// What is extracted stays the same when injected and extracted again, and what is injected cannot
/// break out of its header.
///
/// Lines are the headers, in the order of [`HEADERS`].
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<_> = text.splitn(HEADERS.len(), '\n').collect();
    let get = |name| {
        let at = HEADERS.iter().position(|header| *header == name)?;
        lines.get(at).copied().filter(|line| !line.is_empty())
    };
    span_context(get);
    baggage(get);
    b3(get);
    if let Some(context) = get(TRACEPARENT).and_then(|header| parse_traceparent(header).ok()) {
        assert_eq!(parse_traceparent(&format_traceparent(&context)), Ok(context));
    }
}

fn span_context<'h>(get: impl Fn(&'static str) -> Option<&'h str>) {
    let Some(context) = extract_span_context(get) else { return };
    assert!(context.is_remote);
    let mut sent = Vec::new();
    inject_span_context(&context, |name, value| sent.push((name, value.to_owned())));
    assert_visible(&sent);
    let again = extract_span_context(|name| {
        sent.iter().find(|(sent, _)| *sent == name).map(|(_, value)| &value[..])
    });
    assert_eq!(again, Some(context));
}

fn baggage<'h>(get: impl Fn(&'static str) -> Option<&'h str>) {
    let baggage = extract_baggage(get);
    let mut sent = Vec::new();
    inject_baggage(&baggage, |name, value| sent.push((name, value.to_owned())));
    assert_visible(&sent);
    assert_eq!(sent.is_empty(), baggage.is_empty());
    assert!(baggage.as_str().len() <= Baggage::BYTES_MAX);
    let again = Baggage::parse(baggage.as_str());
    assert_eq!((again.dropped, again.unread_bytes), (0, 0));
    assert_eq!(again.baggage, baggage);
    let keys: Vec<_> = baggage.iter().map(|entry| entry.key).collect();
    assert!(keys.len() <= Baggage::ENTRIES_MAX);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "keys are unique");
    for entry in baggage.iter() {
        assert_eq!(baggage.get(entry.key), Some(entry.value));
    }
}

/// Both forms of B3 find the same context, and each finds it again in what either sends.
fn b3<'h>(get: impl Fn(&'static str) -> Option<&'h str>) {
    let forms = [Propagator::B3, Propagator::B3Multi].map(|form| Propagators::new([form]));
    let context = forms[0].extract(&get);
    assert_eq!(forms[1].extract(&get).span(), context.span());
    let Some(span) = context.span() else {
        return assert!(!context.is_debug());
    };
    assert!(span.is_remote);
    assert!(span.is_sampled() || !context.is_debug());
    for form in &forms {
        let mut sent = Vec::new();
        form.inject(&context, |name, value| sent.push((name, value.to_owned())));
        assert_visible(&sent);
        for form in &forms {
            let again = form.extract(|name| {
                sent.iter().find(|(sent, _)| *sent == name).map(|(_, value)| &value[..])
            });
            assert_eq!(again.span(), context.span());
            assert_eq!(again.is_debug(), context.is_debug());
        }
    }
}

fn assert_visible(sent: &[(&str, String)]) {
    for (name, value) in sent {
        let visible = |byte| matches!(byte, b' '..=b'~' | b'\t');
        assert!(value.bytes().all(visible), "{name}: {value:?}");
    }
}

/// The headers that are looked at, by the names that readers ask for.
const HEADERS: [&str; 8] = [
    TRACEPARENT,
    TRACESTATE,
    BAGGAGE,
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
];
