use std::fmt;

use arrayvec::ArrayVec;

use super::{b3, extract_baggage, extract_span_context, inject_baggage, inject_span_context};
use crate::context::Context;

/// A way of putting a part of a [`Context`] into headers.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Propagator {
    /// `traceparent` and `tracestate`, by W3C Trace Context Level 2.
    TraceContext,
    /// `baggage`, by W3C Baggage.
    Baggage,
    /// Zipkin's `b3`. Reads `X-B3-TraceId` and its kin too, where `b3` is absent.
    B3,
    /// Zipkin's `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled` and `X-B3-Flags`. Reads `b3` too, and
    /// first.
    B3Multi,
}

impl Propagator {
    /// Each of them.
    const ALL: [Self; 4] = [Self::TraceContext, Self::Baggage, Self::B3, Self::B3Multi];

    /// Names of propagators that the specification knows and that are not here.
    const UNSUPPORTED: [&str; 3] = ["jaeger", "xray", "ottrace"];

    /// What it is called in `OTEL_PROPAGATORS`.
    ///
    /// Source: "General SDK Configuration" in `configuration/sdk-environment-variables.md`,
    /// opentelemetry-specification v1.60.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TraceContext => "tracecontext",
            Self::Baggage => "baggage",
            Self::B3 => "b3",
            Self::B3Multi => "b3multi",
        }
    }
}

/// Which headers contexts travel in: several [`Propagator`]s, one after the other.
///
/// By default those of [`Context::extract`] and [`Context::inject`]: W3C's trace context and baggage.
///
/// ```
/// use spanwire_tracer::propagation::Propagators;
///
/// let propagators = Propagators::parse("b3,baggage").propagators;
/// let header = "e457b5a2e4d86bd1-05e3ac9a4f6e3b90-d"; // a trace id of 64 bits, and debug
/// let context = propagators.extract(|name| (name == "b3").then_some(header));
/// assert!(context.is_debug());
///
/// let mut sent = Vec::new();
/// propagators.inject(&context, |name, value| sent.push(format!("{name}: {value}")));
/// assert_eq!(sent, ["b3: 0000000000000000e457b5a2e4d86bd1-05e3ac9a4f6e3b90-d"]);
/// ```
///
/// Source: "Composite Propagator" in `context/api-propagators.md`, opentelemetry-specification v1.60.
#[derive(Clone, PartialEq, Eq)]
pub struct Propagators(ArrayVec<Propagator, { Propagator::ALL.len() }>);

/// What a list of names held: see [`Propagators::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ParsedPropagators {
    /// Those that were named and are there.
    pub propagators: Propagators,
    /// The names left out.
    pub refused: Vec<InvalidPropagator>,
}

/// Why a name means no [`Propagator`].
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPropagator {
    /// The specification knows it, and there is none here.
    #[error("propagator `{name}` is not supported; there are tracecontext, baggage, b3, b3multi")]
    Unsupported {
        /// The name.
        name: String,
    },
    /// Nobody knows it.
    #[error("no propagator `{name}`; there are tracecontext, baggage, b3, b3multi")]
    Unknown {
        /// The name.
        name: String,
    },
}

impl Propagators {
    /// These, in this order, each once. Of several that find a span the last one's goes.
    #[must_use]
    pub fn new(propagators: impl IntoIterator<Item = Propagator>) -> Self {
        let mut unique = ArrayVec::new();
        for propagator in propagators {
            // Each once, so there is room for all there are.
            if !unique.contains(&propagator) {
                unique.push(propagator);
            }
        }
        Self(unique)
    }

    /// Reads a list of names as `OTEL_PROPAGATORS` has it, parted by commas, whatever their case.
    ///
    /// `none` stands for no propagator. Names that mean none are left out and reported; with nothing
    /// else in the list, or nothing at all, it counts as unset, which gives the default.
    ///
    /// ```
    /// use spanwire_tracer::propagation::Propagators;
    ///
    /// let parsed = Propagators::parse("TraceContext, jaeger");
    /// assert_eq!(parsed.propagators.to_string(), "tracecontext");
    /// let refused = "propagator `jaeger` is not supported; \
    ///                there are tracecontext, baggage, b3, b3multi";
    /// assert_eq!(parsed.refused[0].to_string(), refused);
    /// assert_eq!(Propagators::parse("none").propagators.to_string(), "none");
    /// ```
    ///
    /// Source: "General SDK Configuration" and "Enum" in `configuration/sdk-environment-variables.md`,
    /// opentelemetry-specification v1.60.
    pub fn parse(names: &str) -> ParsedPropagators {
        let mut named = Vec::new();
        let mut refused = Vec::new();
        let mut says_none = false;
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let known = Propagator::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(name));
            let is = |other: &&str| other.eq_ignore_ascii_case(name);
            match known {
                Some(propagator) => named.push(propagator),
                None if is(&"none") => says_none = true,
                None if Propagator::UNSUPPORTED.iter().any(is) => {
                    refused.push(InvalidPropagator::Unsupported { name: name.into() });
                }
                None => refused.push(InvalidPropagator::Unknown { name: name.into() }),
            }
        }
        let is_unset = named.is_empty() && !says_none;
        let propagators = if is_unset { Self::default() } else { Self::new(named) };
        ParsedPropagators { propagators, refused }
    }

    /// Reads a context from the caller's headers; `get` looks one up by its lower-case name. What is
    /// malformed is left out.
    ///
    /// Cost: bounded, however long the headers are.
    pub fn extract<'h>(&self, mut get: impl FnMut(&'static str) -> Option<&'h str>) -> Context {
        let mut context = Context::new();
        for propagator in &self.0 {
            context = match propagator {
                Propagator::TraceContext => match extract_span_context(&mut get) {
                    Some(span) => context.with_span(span),
                    None => context,
                },
                Propagator::Baggage => context.with_baggage(extract_baggage(&mut get)),
                Propagator::B3 | Propagator::B3Multi => match b3::extract(&mut get) {
                    Some((span, is_debug)) => context.with_span(span).with_debug(is_debug),
                    None => context,
                },
            };
        }
        context
    }

    /// Writes a context for the callee, those headers that have a value; names are in lower case.
    ///
    /// Cost: allocates nothing.
    pub fn inject(&self, context: &Context, mut set: impl FnMut(&'static str, &str)) {
        for propagator in &self.0 {
            match (propagator, context.span()) {
                (Propagator::Baggage, _) => inject_baggage(context.baggage(), &mut set),
                (_, None) => {}
                (Propagator::TraceContext, Some(span)) => inject_span_context(span, &mut set),
                (Propagator::B3, Some(span)) => {
                    b3::inject_single(span, context.is_debug(), &mut set);
                }
                (Propagator::B3Multi, Some(span)) => {
                    b3::inject_multi(span, context.is_debug(), &mut set);
                }
            }
        }
    }
}

impl Default for Propagators {
    fn default() -> Self {
        Self::new([Propagator::TraceContext, Propagator::Baggage])
    }
}

/// As `OTEL_PROPAGATORS` would have it.
impl fmt::Display for Propagators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [] => f.write_str("none"),
            [first, rest @ ..] => {
                f.write_str(first.name())?;
                rest.iter().try_for_each(|propagator| write!(f, ",{}", propagator.name()))
            }
        }
    }
}

impl fmt::Debug for Propagators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Propagators({self})")
    }
}
