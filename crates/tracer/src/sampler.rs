//! Which spans are recorded and exported, decided where they start.
//!
//! # Guarantees
//!
//! - The built-in samplers decide in a few branches, without lock or allocation.
//! - A trace sampled at a ratio is sampled at each higher one, in every process that decides by the
//!   same rule.
//! - A panic in a sampler of the application's own is caught and counted.
//!
//! # Example
//!
//! ```
//! use spanwire_tracer::sampler::{ParentBased, Sampler};
//!
//! // One new trace in a hundred. Spans with a parent do as it does, except that callers from
//! // outside don't get more than one in ten recorded.
//! let sampler = ParentBased::new(Sampler::ratio(0.01)).remote_parent_sampled(Sampler::ratio(0.1));
//! let sampler = Sampler::from(sampler);
//! assert!(sampler.description().starts_with("ParentBased{root:TraceIdRatioBased{0.010000},"));
//! ```

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spanwire_model::{SpanContext, SpanKind, TraceId};

mod named;

pub use named::InvalidSampler;

/// Decides, where a span starts, whether it is recorded and exported.
///
/// The default follows the parent and keeps every trace that starts here.
///
/// ```
/// use spanwire_tracer::sampler::Sampler;
///
/// let sampler = Sampler::parent_based(Sampler::ratio(0.01)); // one new trace in a hundred
/// # let _ = sampler;
/// ```
///
/// Source: "Built-in samplers" in `trace/sdk.md`, opentelemetry-specification v1.60.
#[non_exhaustive]
#[derive(Clone)]
pub enum Sampler {
    /// Every span.
    AlwaysOn,
    /// No span.
    AlwaysOff,
    /// A share of all traces, chosen by the trace's randomness.
    TraceIdRatio(TraceIdRatio),
    /// As the parent does; another sampler decides for spans without one.
    ParentBased(Box<ParentBased>),
    /// The application's own; made by [`custom`](Self::custom).
    Custom(Custom),
}

/// A sampling decision of the application's own, for [`Sampler::custom`].
///
/// ```
/// use spanwire_tracer::sampler::{Sample, Sampler, SamplingParameters};
///
/// struct NoHealthChecks;
///
/// impl Sample for NoHealthChecks {
///     fn sample(&self, parameters: &SamplingParameters<'_>) -> bool {
///         parameters.name != "GET /health"
///     }
///
///     fn description(&self) -> String {
///         "NoHealthChecks".into()
///     }
/// }
///
/// let sampler = Sampler::parent_based(Sampler::custom(NoHealthChecks));
/// # assert!(sampler.description().contains("root:NoHealthChecks"));
/// ```
pub trait Sample: Send + Sync {
    /// Whether to record and export the span. Runs on the thread that starts it, for every span.
    fn sample(&self, parameters: &SamplingParameters<'_>) -> bool;

    /// Name and settings, for people.
    fn description(&self) -> String;
}

/// What is known of a span when it starts.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct SamplingParameters<'a> {
    /// The parent, here or in another process; `None` where a trace starts.
    pub parent: Option<&'a SpanContext>,
    /// The trace the span belongs to.
    pub trace_id: TraceId,
    /// The span's name.
    pub name: &'a str,
    /// The span's kind.
    pub kind: SpanKind,
}

impl<'a> SamplingParameters<'a> {
    /// The parameters of one decision; for callers of [`Sampler::sample`] and tests of a [`Sample`].
    #[inline]
    #[must_use]
    pub const fn new(
        parent: Option<&'a SpanContext>,
        trace_id: TraceId,
        name: &'a str,
        kind: SpanKind,
    ) -> Self {
        Self { parent, trace_id, name, kind }
    }
}

impl Sampler {
    /// Keeps this share of all traces, from 0 to 1: see [`TraceIdRatio::new`].
    #[must_use]
    pub fn ratio(ratio: f64) -> Self {
        Self::TraceIdRatio(TraceIdRatio::new(ratio))
    }

    /// Follows the parent; asks `root` where a trace starts. See [`ParentBased`] for more choices.
    #[must_use]
    pub fn parent_based(root: Self) -> Self {
        Self::ParentBased(Box::new(ParentBased::new(root)))
    }

    /// Asks the application's own code.
    #[must_use]
    pub fn custom(sample: impl Sample + 'static) -> Self {
        Self::Custom(Custom { sample: Arc::new(sample), panics: Arc::default() })
    }

    /// Whether to record and export a span.
    ///
    /// Cost: two branches for the built-in samplers and no allocation.
    #[inline]
    #[must_use]
    pub fn sample(&self, parameters: &SamplingParameters<'_>) -> bool {
        match self {
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
            Self::TraceIdRatio(ratio) => ratio.sample(parameters),
            Self::ParentBased(parent_based) => {
                match parent_based.delegate(Situation::of(parameters.parent)) {
                    Self::AlwaysOn => true,
                    Self::AlwaysOff => false,
                    Self::TraceIdRatio(ratio) => ratio.sample(parameters),
                    other => other.sample_nested(parameters),
                }
            }
            Self::Custom(custom) => custom.sample(parameters),
        }
    }

    /// Out of line, so that the usual cases of [`sample`](Self::sample) can be inlined.
    fn sample_nested(&self, parameters: &SamplingParameters<'_>) -> bool {
        self.sample(parameters)
    }

    /// What it says without being asked: whatever the trace's id, the name and the kind are.
    pub(crate) fn settled(&self) -> Settled {
        let mut settled = Settled::default();
        for situation in Situation::ALL {
            if let Some(sampled) = self.verdict(situation) {
                let SituationBit(bit) = SituationBit::of(situation);
                settled.known |= bit;
                settled.sampled |= if sampled { bit } else { 0 };
            }
        }
        settled
    }

    fn verdict(&self, situation: Situation) -> Option<bool> {
        match self {
            Self::AlwaysOn => Some(true),
            Self::AlwaysOff => Some(false),
            Self::ParentBased(parent_based) => parent_based.delegate(situation).verdict(situation),
            Self::TraceIdRatio(_) | Self::Custom(_) => None,
        }
    }

    /// Name and settings, as the specification names them ("GetDescription" in `trace/sdk.md`,
    /// opentelemetry-specification v1.60).
    ///
    /// ```
    /// use spanwire_tracer::sampler::Sampler;
    ///
    /// assert_eq!(Sampler::AlwaysOn.description(), "AlwaysOnSampler");
    /// assert_eq!(Sampler::ratio(0.0001).description(), "TraceIdRatioBased{0.000100}");
    /// ```
    #[must_use]
    pub fn description(&self) -> String {
        match self {
            Self::AlwaysOn => "AlwaysOnSampler".into(),
            Self::AlwaysOff => "AlwaysOffSampler".into(),
            Self::TraceIdRatio(ratio) => ratio.description(),
            Self::ParentBased(parent_based) => parent_based.description(),
            Self::Custom(custom) => custom.description(),
        }
    }

    /// How often application code that this sampler or a clone of it asked has panicked. A span that
    /// was being decided on was not sampled then.
    #[must_use]
    pub fn panics(&self) -> u64 {
        let mut counters = Vec::new();
        self.collect_panics(&mut counters);
        counters.iter().map(|panics| panics.load(Ordering::Relaxed)).sum()
    }

    /// Each counter once: a custom sampler may decide in several places.
    fn collect_panics<'a>(&'a self, counters: &mut Vec<&'a Arc<AtomicU64>>) {
        match self {
            Self::AlwaysOn | Self::AlwaysOff | Self::TraceIdRatio(_) => {}
            Self::ParentBased(parent_based) => {
                for sampler in parent_based.samplers() {
                    sampler.collect_panics(counters);
                }
            }
            Self::Custom(Custom { panics, .. }) => {
                if !counters.iter().any(|counter| Arc::ptr_eq(counter, panics)) {
                    counters.push(panics);
                }
            }
        }
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::parent_based(Self::AlwaysOn)
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description())
    }
}

/// Keeps the traces whose randomness reaches a threshold.
///
/// With a threshold of (1 − ratio) · 2⁵⁶, a trace is kept if its 56 random bits, read as a number,
/// are no less. Those bits are the rightmost of the trace id, or the `rv` value of the parent's
/// `ot` entry in `tracestate`, by which a caller replaces them. So whoever decides alike about a
/// trace decides the same, in any process, and each ratio keeps all that a lower one keeps.
///
/// This is the rule of consistent probability sampling (`trace/tracestate-probability-sampling.md`,
/// opentelemetry-specification v1.60), to which the specification moves `TraceIdRatioBased`.
/// Samplers from before it chose by other bits, each language in its own way, and disagree with it
/// and with each other; where such a one started the trace, follow it by [`ParentBased`].
///
/// The parent's decision is not looked at. No threshold is written to `tracestate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceIdRatio {
    ratio: f64,
    threshold: u64,
}

/// Number of values that 56 random bits have; a threshold as high keeps nothing.
const RANDOMNESS_VALUES: u64 = 1 << 56;

impl TraceIdRatio {
    /// Keeps this share of all traces.
    ///
    /// A ratio below 0 counts as 0, one above 1 as 1. So does one that is not a number: that is what
    /// the specification takes a sampler's argument for where it cannot be read, and it loses no
    /// span. Ratios are exact to 2⁻⁵⁶.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        let ratio = if ratio.is_nan() { 1.0 } else { ratio.clamp(0.0, 1.0) };
        // Scaling by a power of two is exact; subtracting from 1 first would lose small ratios.
        let kept = (ratio * RANDOMNESS_VALUES as f64).round() as u64;
        Self { ratio, threshold: RANDOMNESS_VALUES - kept }
    }

    #[inline]
    fn sample(self, parameters: &SamplingParameters<'_>) -> bool {
        let explicit = match parameters.parent {
            Some(parent) if !parent.trace_state.is_empty() => explicit_randomness(parent),
            _ => None,
        };
        let from_trace_id = || parameters.trace_id.get() as u64 % RANDOMNESS_VALUES;
        explicit.unwrap_or_else(from_trace_id) >= self.threshold
    }

    fn description(self) -> String {
        let Self { ratio, .. } = self;
        // Six digits as in the specification's example, more where samplers would look alike.
        let short = format!("{ratio:.6}");
        let digits = if short.parse() == Ok(ratio) { short } else { ratio.to_string() };
        format!("TraceIdRatioBased{{{digits}}}")
    }
}

/// The `rv` value of the `ot` entry: exactly 14 lower-case hex digits ("Explicit randomness value
/// rv" in `trace/tracestate-handling.md`, opentelemetry-specification v1.60). A malformed one is
/// ignored.
fn explicit_randomness(parent: &SpanContext) -> Option<u64> {
    let entry = parent.trace_state.get("ot")?;
    let digits = entry.split(';').find_map(|member| member.strip_prefix("rv:"))?;
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 14 || !digits.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// What a parent can mean to a sampler, in the order of [`ParentBased::samplers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Situation {
    Root,
    RemoteSampled,
    RemoteNotSampled,
    LocalSampled,
    LocalNotSampled,
}

impl Situation {
    const ALL: [Self; 5] = [
        Self::Root,
        Self::RemoteSampled,
        Self::RemoteNotSampled,
        Self::LocalSampled,
        Self::LocalNotSampled,
    ];

    #[inline]
    fn of(parent: Option<&SpanContext>) -> Self {
        parent.map_or(Self::Root, Self::under)
    }

    #[inline]
    fn under(parent: &SpanContext) -> Self {
        match (parent.is_remote, parent.is_sampled()) {
            (true, true) => Self::RemoteSampled,
            (true, false) => Self::RemoteNotSampled,
            (false, true) => Self::LocalSampled,
            (false, false) => Self::LocalNotSampled,
        }
    }
}

/// A situation as [`Settled`] keeps it. None at all where the parent has a trace state, so that whoever
/// has nothing settled, and therefore looks at the whole parent, finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SituationBit(u8);

impl SituationBit {
    pub(crate) const ROOT: Self = Self::of(Situation::Root);

    const fn of(situation: Situation) -> Self {
        Self(1 << situation as u8)
    }

    #[inline]
    pub(crate) fn under(parent: &SpanContext) -> Self {
        match parent.trace_state.is_empty() {
            true => Self::of(Situation::under(parent)),
            false => Self(0),
        }
    }
}

/// A sampler's verdicts that depend on the situation alone, a bit each: small enough to lie in every
/// tracer, where starting a span finds it without following a pointer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settled {
    known: u8,
    sampled: u8,
}

impl Settled {
    #[inline(always)]
    pub(crate) fn verdict(self, situation: SituationBit) -> Option<bool> {
        (self.known & situation.0 != 0).then_some(self.sampled & situation.0 != 0)
    }
}

/// Asks one of five samplers, by the span's parent.
///
/// Unless set otherwise, a span is sampled if its parent is.
///
/// Source: "ParentBased" in `trace/sdk.md`, opentelemetry-specification v1.60.
#[derive(Clone)]
pub struct ParentBased {
    root: Sampler,
    remote_parent_sampled: Sampler,
    remote_parent_not_sampled: Sampler,
    local_parent_sampled: Sampler,
    local_parent_not_sampled: Sampler,
}

impl ParentBased {
    /// Follows the parent, and asks `root` where a trace starts.
    #[must_use]
    pub fn new(root: Sampler) -> Self {
        Self {
            root,
            remote_parent_sampled: Sampler::AlwaysOn,
            remote_parent_not_sampled: Sampler::AlwaysOff,
            local_parent_sampled: Sampler::AlwaysOn,
            local_parent_not_sampled: Sampler::AlwaysOff,
        }
    }

    /// Asks `sampler` if the parent is in another process and sampled.
    #[must_use]
    pub fn remote_parent_sampled(self, sampler: Sampler) -> Self {
        Self { remote_parent_sampled: sampler, ..self }
    }

    /// Asks `sampler` if the parent is in another process and not sampled.
    #[must_use]
    pub fn remote_parent_not_sampled(self, sampler: Sampler) -> Self {
        Self { remote_parent_not_sampled: sampler, ..self }
    }

    /// Asks `sampler` if the parent is in this process and sampled.
    #[must_use]
    pub fn local_parent_sampled(self, sampler: Sampler) -> Self {
        Self { local_parent_sampled: sampler, ..self }
    }

    /// Asks `sampler` if the parent is in this process and not sampled.
    #[must_use]
    pub fn local_parent_not_sampled(self, sampler: Sampler) -> Self {
        Self { local_parent_not_sampled: sampler, ..self }
    }

    #[inline]
    fn delegate(&self, situation: Situation) -> &Sampler {
        self.samplers()[situation as usize]
    }

    fn description(&self) -> String {
        let [root, remote_sampled, remote_not, local_sampled, local_not] = self.samplers();
        format!(
            "ParentBased{{root:{root:?},\
             remoteParentSampled:{remote_sampled:?},remoteParentNotSampled:{remote_not:?},\
             localParentSampled:{local_sampled:?},localParentNotSampled:{local_not:?}}}"
        )
    }

    fn samplers(&self) -> [&Sampler; 5] {
        [
            &self.root,
            &self.remote_parent_sampled,
            &self.remote_parent_not_sampled,
            &self.local_parent_sampled,
            &self.local_parent_not_sampled,
        ]
    }
}

impl fmt::Debug for ParentBased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description())
    }
}

impl From<ParentBased> for Sampler {
    fn from(parent_based: ParentBased) -> Self {
        Self::ParentBased(Box::new(parent_based))
    }
}

/// The application's own sampler, kept from harming the thread that starts a span: a panic in it is
/// caught and counted, and the span is not sampled.
#[derive(Clone)]
pub struct Custom {
    sample: Arc<dyn Sample>,
    panics: Arc<AtomicU64>,
}

impl Custom {
    /// Out of line: the landing pad would make [`Sampler::sample`] too large to inline.
    #[inline(never)]
    fn sample(&self, parameters: &SamplingParameters<'_>) -> bool {
        // Nothing of ours is changed by the call, so nothing can be left half changed.
        catch_unwind(AssertUnwindSafe(|| self.sample.sample(parameters))).unwrap_or_else(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            false
        })
    }

    fn description(&self) -> String {
        catch_unwind(AssertUnwindSafe(|| self.sample.description())).unwrap_or_else(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            "Custom".into()
        })
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description())
    }
}
