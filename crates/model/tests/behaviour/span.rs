use std::error::Error;
use std::fmt;

use spanwire_model::{
    Attributes, Limits, Span, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, Value,
    exception,
};

fn context(span: u64) -> SpanContext {
    let (trace, span) = (TraceId::new(1).expect("not zero"), SpanId::new(span).expect("not zero"));
    SpanContext::new(trace, span, TraceFlags::SAMPLED)
}

fn span() -> Span {
    Span::new(context(2), "work")
}

/// An error with a given number of causes below it; endless where there is none to end it.
#[derive(Debug)]
struct Layer {
    text: &'static str,
    cause: Option<Box<Layer>>,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl Error for Layer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

fn layers(texts: &[&'static str]) -> Layer {
    let (text, below) = texts.split_first().expect("at least one");
    let cause = (!below.is_empty()).then(|| Box::new(layers(below)));
    Layer { text, cause }
}

#[test]
fn a_recorded_error_is_an_exception_event_and_the_status() {
    let mut span = span();
    let error = layers(&["request failed", "connection reset", "wire cut"]);
    span.record_error(9, &error, &Limits::default());

    assert_eq!(span.status, Status::Error { message: "request failed".into() });
    let event = &span.events[0];
    assert_eq!((event.time_unix_nano, event.name.as_str()), (9, "exception"));
    let value = |key: &str| event.attributes.iter().find(|e| &*e.key == key).map(|e| &e.value);
    assert!(matches!(value(exception::TYPE), Some(Value::String(name)) if name.ends_with("Layer")));
    assert_eq!(value(exception::MESSAGE), Some(&Value::from("request failed")));
    let causes = "caused by: connection reset\ncaused by: wire cut";
    assert_eq!(value(exception::STACKTRACE), Some(&Value::from(causes)));
}

#[test]
fn an_error_without_causes_has_no_stacktrace() {
    let mut span = span();
    span.record_error(9, &layers(&["alone"]), &Limits::default());
    assert_eq!(span.events[0].attributes.len(), 2);
    assert_eq!(exception::causes(&layers(&["alone"])), None);
}

#[test]
fn a_chain_of_causes_that_never_ends_is_followed_32_times() {
    #[derive(Debug)]
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }
    impl Error for Endless {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Endless)
        }
    }
    assert_eq!(exception::causes(&Endless).map(|text| text.lines().count()), Some(32));
}

#[test]
fn a_recorded_error_keeps_to_the_limits_of_events() {
    let limits = Limits { event_attributes: 1, attribute_value_length: 3, ..Limits::default() };
    let mut span = span();
    let error: &dyn Error = &layers(&["failed"]);
    span.record_error(9, error, &limits);
    let event = &span.events[0];
    assert_eq!((event.attributes.len(), event.dropped_attributes_count), (1, 1));
    assert!(matches!(&event.attributes[0].value, Value::String(text) if text.len() == 3));

    span.record_error(10, error, &Limits { events: 1, ..limits });
    assert_eq!((span.events.len(), span.dropped_events_count), (1, 1));
}

/// Faults 34.
#[test]
fn events_and_links_over_a_limit_are_left_out_and_counted() {
    let limits = Limits {
        events: 2,
        links: 1,
        event_attributes: 1,
        link_attributes: 2,
        ..Limits::default()
    };
    let mut span = span();
    let facts: Attributes = [("a", 1), ("b", 2), ("c", 3)].into_iter().collect();
    for time in 0..5 {
        span.add_event(time, "tick", facts.clone(), &limits);
        span.add_link(context(7), facts.clone(), &limits);
    }
    assert_eq!((span.events.len(), span.dropped_events_count), (2, 3));
    assert_eq!((span.links.len(), span.dropped_links_count), (1, 4));
    let (event, link) = (&span.events[1], &span.links[0]);
    assert_eq!((event.attributes.len(), event.dropped_attributes_count), (1, 2));
    assert_eq!((link.attributes.len(), link.dropped_attributes_count), (2, 1));
}

#[test]
fn flags_tell_whether_parent_or_link_is_remote() {
    let mut parent = context(3);
    let mut span = span();
    assert_eq!(span.flags, 0x101, "a root: known not to be remote");
    span.set_parent(&parent);
    assert_eq!((span.flags, span.parent_span_id), (0x101, Some(parent.span_id)));
    parent.is_remote = true;
    span.set_parent(&parent);
    assert_eq!(span.flags, 0x301);
    span.add_link(parent, Attributes::new(), &Limits::default());
    assert_eq!(span.links[0].flags, 0x301);
}

#[test]
fn unknown_trace_flags_are_kept() {
    let flags = TraceFlags(0b1010_0000).with(TraceFlags::SAMPLED).with(TraceFlags::RANDOM);
    assert_eq!(flags, TraceFlags(0b1010_0011));
    assert_eq!(flags.without(TraceFlags::SAMPLED), TraceFlags(0b1010_0010));
    assert!(flags.is_sampled() && flags.is_random());
}

/// Faults 19.
#[test]
fn kinds_have_the_numbers_of_the_wire() {
    for (number, kind) in [
        (0, SpanKind::Unspecified),
        (1, SpanKind::Internal),
        (2, SpanKind::Server),
        (3, SpanKind::Client),
        (4, SpanKind::Producer),
        (5, SpanKind::Consumer),
    ] {
        assert_eq!((SpanKind::from_number(number), kind as i32), (kind, number));
    }
    for unknown in [-1, 6, i32::MAX, i32::MIN] {
        assert_eq!(SpanKind::from_number(unknown), SpanKind::Unspecified);
    }
}

/// Faults 29.
#[test]
fn a_span_that_ends_before_it_starts_lasts_no_time() {
    let mut span = span();
    (span.start_time_unix_nano, span.end_time_unix_nano) = (10, 4);
    assert_eq!(span.duration_nanos(), 0);
    span.end_time_unix_nano = u64::MAX;
    assert_eq!(span.duration_nanos(), u64::MAX - 10);
}

#[test]
fn a_span_fits_in_a_kilobyte() {
    assert!(size_of::<Span>() <= 1024, "{} bytes", size_of::<Span>());
}
