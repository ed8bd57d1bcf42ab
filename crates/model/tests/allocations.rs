//! What is said to need no heap needs none, counted by the allocator.
//!
//! Runs without the test harness, whose threads allocate beside the tests.

use std::hint::black_box;

use spanwire_model::{
    Attributes, Event, Interner, Span, SpanContext, SpanId, Text, TraceFlags, TraceId, Value,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Blocks allocated while `work` runs, and bytes still held once its result is there.
fn heap_of<T>(work: impl FnOnce() -> T) -> (u64, usize) {
    let _profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get();
    let result = work();
    let after = dhat::HeapStats::get();
    drop(black_box(result));
    (after.total_blocks - before.total_blocks, after.curr_bytes - before.curr_bytes)
}

fn main() {
    a_hex_id_needs_no_heap();
    a_span_of_eight_attributes_and_four_events_needs_no_heap();
    ten_thousand_names_of_fifty_bytes_take_a_twentieth_once_interned();
}

fn context() -> SpanContext {
    let (trace, span) = (TraceId::new(1).expect("not zero"), SpanId::new(2).expect("not zero"));
    SpanContext::new(trace, span, TraceFlags::SAMPLED)
}

fn a_hex_id_needs_no_heap() {
    let context = context();
    assert_eq!(heap_of(|| (context.trace_id.to_hex(), context.span_id.to_hex())), (0, 0));
}

fn a_span_of_eight_attributes_and_four_events_needs_no_heap() {
    const KEYS: [&str; Attributes::INLINE] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let span = || {
        let mut span = Span::new(context(), "GET /users/{id}");
        for (number, key) in KEYS.into_iter().enumerate() {
            match number % 3 {
                0 => span.attributes.set(key, "a static text"),
                1 => span.attributes.set(key, true),
                _ => span.attributes.set(key, 7),
            }
        }
        for _ in 0..Span::EVENTS_INLINE {
            span.events.push(Event { name: Text::from_static("tick"), ..Event::default() });
        }
        span
    };
    assert_eq!(heap_of(span), (0, 0));
    let ninth = || {
        let mut span = span();
        span.attributes.set("i", Value::Empty);
        span
    };
    assert_eq!(heap_of(ninth).0, 1);
}

fn ten_thousand_names_of_fifty_bytes_take_a_twentieth_once_interned() {
    let names: Vec<String> = (0..10_000).map(|n| format!("{:050}", n % 100)).collect();
    let owned = || names.iter().cloned().map(Text::from).for_each(std::mem::forget);
    let (_, owned) = heap_of(owned);
    let (_, interned) = heap_of(|| {
        let mut interner = Interner::new(1_000, 1 << 20);
        for name in &names {
            std::mem::forget(interner.intern(name));
        }
        interner
    });
    assert!(owned >= 500_000, "{owned} bytes");
    assert!(interned <= 20_000, "{interned} bytes");
}
