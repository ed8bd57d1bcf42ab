//! Recording allocates nothing once warm, counted by the allocator.
//!
//! Runs without the test harness, whose threads allocate beside the tests.

use spanwire_tracer::{Provider, Span, Tracer};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Enough to fill chunks of every size and to come round to used ones.
const WARM_UP: u64 = 20_000;
const SPANS: u64 = 20_000;

/// Blocks that recording `SPANS` spans allocates.
fn blocks(tracer: &Tracer, fill: impl Fn(&mut Span, u64)) -> u64 {
    let record = |number| fill(&mut tracer.start("GET /users/{id}"), number);
    (0..WARM_UP).for_each(record);
    let profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().total_blocks;
    (0..SPANS).for_each(record);
    let after = dhat::HeapStats::get().total_blocks;
    drop(profiler);
    after - before
}

fn main() {
    // Full chunks go away at once and come back to the pool, as after an export.
    let provider = Provider::builder().build(|_full_chunk| Ok(()));
    let tracer = provider.tracer("allocations");
    let borrowed = String::from("/users/{id}?a=a-text-that-is-no-constant");

    assert_eq!(blocks(&tracer, |_, _| {}), 0, "an empty span");
    let eight_attributes = |span: &mut Span, number: u64| {
        span.set_attribute("http.request.method", "GET");
        span.set_attribute("http.route", "/users/{id}");
        span.set_attribute("url.path", &borrowed);
        span.set_attribute("http.response.status_code", 200);
        span.set_attribute("user.id", number as i64);
        span.set_attribute("server.load", 0.7);
        span.set_attribute("cache.hit", true);
        span.set_attribute("cache.key", borrowed.as_bytes());
    };
    assert_eq!(blocks(&tracer, eight_attributes), 0, "eight attributes");
    let more = |span: &mut Span, number: u64| {
        eight_attributes(span, number);
        span.set_attribute(&borrowed, &borrowed); // a key that is no constant either
        span.set_attribute("http.response.status_code", 500); // replaces the first one
        span.add_event("cache miss", [("cache.key", borrowed.as_str().into())]);
        span.set_name(&borrowed);
        let _current = span.enter();
        tracer.start("a child").set_attribute("nested", true);
    };
    assert_eq!(blocks(&tracer, more), 0, "a tenth attribute, an event, a new name, a child");
    let long = "x".repeat(3 << 10);
    let prose = |span: &mut Span, _| span.set_attribute("exception.stacktrace", &long);
    assert_eq!(blocks(&tracer, prose), 0, "an attribute of 3 KiB");
    let context = tracer.start("linked to").context().clone();
    let links = |span: &mut Span, _| (0..128).for_each(|_| span.add_link(&context, []));
    assert_eq!(blocks(&tracer, links), 0, "as many links as there may be");
    let too_many = |span: &mut Span, number: u64| {
        links(span, number);
        span.add_link(&context, [("more than there may be", borrowed.as_str().into())]);
    };
    assert_eq!(blocks(&tracer, too_many), 0, "a link over the limit, with an attribute");
    let stats = provider.stats();
    assert_eq!(stats.started(), stats.recorded());

    provider.close();
    let other = provider.tracer("another scope");
    let take_turns = |_: &mut Span, _| other.start("from the other tracer").end();
    assert_eq!(blocks(&tracer, take_turns), 0, "two tracers of a closed provider");
}
