//! A span of the model that is filled again and again, with a pool and without.

use std::hint::black_box;

use spanwire_model::{self as model, Event, KeyValue, Span, SpanContext, Text};
use spanwire_pool::{ObjectPool, Reset};

/// Spans in use at a time: as many as a batch holds.
pub const SPANS_AT_ONCE: usize = 1_000;

/// A span that keeps its storage from one use to the next; made when it is first filled.
#[derive(Debug, Default)]
pub struct ReusedSpan(Option<Box<Span>>);

impl ReusedSpan {
    /// Starts and fills it.
    pub fn fill(&mut self, context: SpanContext) -> &Span {
        let span = match &mut self.0 {
            Some(span) => {
                span.flags = Span::flags_of(context.flags, false);
                span.context = context;
                span
            }
            empty => empty.insert(Box::new(Span::new(context, NAME))),
        };
        fill(span);
        span
    }
}

impl Reset for ReusedSpan {
    fn reset(&mut self) {
        let Some(span) = &mut self.0 else { return };
        span.parent_span_id = None;
        span.attributes.clear();
        span.events.clear();
        span.links.clear();
        span.status = model::Status::Unset;
        (span.dropped_events_count, span.dropped_links_count) = (0, 0);
    }
}

/// A new span, filled the same way.
#[must_use]
pub fn fresh(context: SpanContext) -> Span {
    let mut span = Span::new(context, NAME);
    fill(&mut span);
    span
}

/// What takes a batch of [`SPANS_AT_ONCE`] spans from a pool, fills them and gives them back, each
/// time it is called.
pub fn pooled_batches() -> impl FnMut() {
    let pool = ObjectPool::<ReusedSpan>::new(SPANS_AT_ONCE);
    batches(move |context| {
        let mut span = pool.take();
        span.fill(context);
        span
    })
}

/// What makes as many new spans, fills them and frees them, each time it is called.
pub fn fresh_batches() -> impl FnMut() {
    batches(fresh)
}

fn batches<T>(span: impl Fn(SpanContext) -> T) -> impl FnMut() {
    let contexts: Vec<SpanContext> = (1..=SPANS_AT_ONCE as u64).filter_map(context).collect();
    let mut batch = Vec::with_capacity(SPANS_AT_ONCE);
    move || {
        batch.extend(black_box(&contexts).iter().cloned().map(&span));
        black_box(&mut batch).clear();
    }
}

/// A context for such a span; its ids are the number.
#[must_use]
pub fn context(number: u64) -> Option<SpanContext> {
    let trace = model::TraceId::new(number.into())?;
    Some(SpanContext::new(trace, model::SpanId::new(number)?, model::TraceFlags::SAMPLED))
}

const NAME: &str = "POST /api/v1/orders";

/// Half as many attributes and events again as a span of the model holds without an allocation. Their
/// keys are known to differ, so nothing is compared: it is the storage that counts here.
fn fill(span: &mut Span) {
    const KEYS: [&str; model::Attributes::INLINE * 3 / 2] = [
        "http.request.method",
        "http.route",
        "url.path",
        "url.scheme",
        "server.address",
        "server.port",
        "client.address",
        "network.protocol.version",
        "user_agent.original",
        "http.response.status_code",
        "user.id",
        "cart.items",
    ];
    for (number, key) in (0_i64..).zip(KEYS) {
        span.attributes.push(match number % 3 {
            0 => KeyValue::new(key, number),
            _ => KeyValue::new(key, "a text that is static"),
        });
    }
    for time_unix_nano in 1..=Span::EVENTS_INLINE as u64 * 3 / 2 {
        let name = Text::from_static("cache miss");
        span.events.push(Event { time_unix_nano, name, ..Event::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_span_is_as_good_as_a_new_one() {
        let pool = ObjectPool::<ReusedSpan>::new(1);
        for number in 1..=3 {
            let context = context(number).expect("not zero");
            let mut reused = pool.take();
            assert_eq!(*reused.fill(context.clone()), fresh(context));
            drop(reused);
            assert_eq!(pool.idle(), 1);
        }
    }
}
