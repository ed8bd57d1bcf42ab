//! The paths whose instructions and allocations are counted and compared with kept figures.
//!
//! Each does a fixed amount of work on fixed inputs, so that two builds of the same code take the
//! same instructions, whatever else the machine does meanwhile.

use std::hint::black_box;

use spanwire_codec::encode;
use spanwire_codec::view::Request;
use spanwire_tracer::{Sampler, Tracer};

use crate::fixtures::{Requests, SCOPE, checkout, spans};
use crate::tracers;

/// A path, set up and ready to be taken.
pub struct HotPath {
    /// How the kept figures call it.
    pub name: &'static str,
    /// Spans that one run handles.
    pub spans: u64,
    run: Box<dyn FnMut()>,
}

impl HotPath {
    fn new(name: &'static str, spans: u64, run: impl FnMut() + 'static) -> Self {
        Self { name, spans, run: Box::new(run) }
    }

    /// Takes the path once. A function of its own under this name, for `callgrind` to find.
    #[inline(never)]
    pub fn measured(&mut self) {
        (self.run)();
    }
}

/// All paths, in the order of the goals they stand for, with what sets each up.
const PATHS: [(&str, SetUp); 7] = [
    ("span_without_attributes", |name| {
        record(name, Sampler::default(), |tracer| tracer.start(black_box("checkout")).end())
    }),
    ("span_with_5_attributes", |name| {
        record(name, Sampler::default(), |tracer| checkout(tracer).end())
    }),
    ("span_not_sampled", |name| {
        record(name, Sampler::AlwaysOff, |tracer| {
            let span = tracer.start(black_box("checkout"));
            // A span that nobody looks at might not be made at all.
            black_box(&span);
            span.end();
        })
    }),
    ("encode_1000_spans", |name| {
        let spans = Requests::new(1_000).model();
        let mut out = Vec::new();
        HotPath::new(name, 1_000, move || {
            out.clear();
            encode::put_batch(black_box(&spans), &mut out);
            black_box(&out);
        })
    }),
    ("read_1000_spans: framing", |name| {
        read(name, |request| {
            black_box(request.spans());
        })
    }),
    ("read_1000_spans: check", |name| {
        read(name, |request| {
            black_box(spans(request).filter(|span| span.check().is_ok()).count());
        })
    }),
    ("read_1000_spans: name and ids", |name| {
        read(name, |request| {
            for span in spans(request) {
                let head = span.head();
                black_box((head.name, head.trace_id, head.span_id, head.parent_span_id));
            }
        })
    }),
];

type SetUp = fn(&'static str) -> HotPath;

/// Names of all paths.
pub fn names() -> impl Iterator<Item = &'static str> {
    PATHS.into_iter().map(|(name, _)| name)
}

/// Sets up the path of this name.
///
/// ```
/// let mut path = spanwire_benches::hot_paths::by_name("encode_1000_spans").expect("there is one");
/// path.measured();
/// assert_eq!(path.spans, 1_000);
/// ```
#[must_use]
pub fn by_name(name: &str) -> Option<HotPath> {
    let (name, set_up) = PATHS.into_iter().find(|(known, _)| *known == name)?;
    Some(set_up(name))
}

/// A thousand spans, one after the other.
fn record(name: &'static str, sampler: Sampler, one: impl Fn(&Tracer) + 'static) -> HotPath {
    let provider = tracers::spanwire(sampler);
    let tracer = provider.tracer(SCOPE);
    HotPath::new(name, 1_000, move || {
        let _kept = &provider;
        for _ in 0..1_000 {
            one(&tracer);
        }
    })
}

fn read(name: &'static str, look: impl Fn(&Request<'_>) + 'static) -> HotPath {
    let bytes = Requests::new(1_000).encoded();
    HotPath::new(name, 1_000, move || {
        look(&Request::parse(black_box(&bytes)).expect("encoded here"));
    })
}
