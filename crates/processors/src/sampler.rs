use bytes::Bytes;
use spanwire_codec::edit::{self, Candidate, Edited, Verdict};
use spanwire_codec::view::{AnyValue, Malformed};

use crate::convert::parse_double;
use crate::probability::{DIGITS, HASH_BUCKETS, PROBABILITY_MIN, Randomness, Threshold};
use crate::trace_state::TraceState;

/// How a [`Sampler`] decides, and what about: the settings of the `probabilistic_sampler`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// `mode`.
    pub mode: Mode,
    /// `sampling_percentage`: from 100 on all spans are kept, at 0 none. [`Mode::HashSeed`] knows
    /// 16,384 steps, and takes the one below: none of a percentage under 0.0062 is kept then.
    pub percentage: f32,
    /// `hash_seed`: collectors that shall decide alike need the same. Other modes don't use it.
    pub hash_seed: u32,
    /// `fail_closed`: whether a span is dropped, rather than kept, of which no decision can be made.
    pub fail_closed: bool,
    /// `sampling_precision`: hexadecimal digits of a threshold that count, 1 to 14; leading ones of
    /// `0` and `f` come on top. [`Mode::HashSeed`] doesn't use it.
    pub precision: u8,
}

impl Default for Settings {
    /// What the collector takes for settings that are absent.
    fn default() -> Self {
        Self {
            mode: Mode::HashSeed,
            percentage: 0.0,
            hash_seed: 0,
            fail_closed: true,
            precision: 4,
        }
    }
}

/// Where randomness comes from, and what becomes of a decision made before.
///
/// Source: README of `probabilisticsamplerprocessor`, opentelemetry-collector-contrib v0.159.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `hash_seed`: 14 bits of a hash of the trace's id. A span whose `tracestate` has a threshold or
    /// randomness already is one of which no decision can be made.
    HashSeed,
    /// `proportional`: 56 bits of the trace's id, or those in `tracestate`. A probability at which the
    /// span was kept before is multiplied.
    Proportional,
    /// `equalizing`: the same bits. A probability at which the span was kept before is lowered to this
    /// one, and one that is lower stays.
    Equalizing,
}

/// Why settings make no sampler.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidSampler {
    /// The percentage is negative, infinite or not a number.
    #[error("sampling percentage {percentage} is not a finite number from 0 on")]
    Percentage {
        /// As it was set.
        percentage: f32,
    },
    /// The percentage is above 0 but below the least one that a threshold expresses, 100 / 2^56.
    #[error("sampling percentage {percentage} is too small")]
    TooSmall {
        /// As it was set.
        percentage: f32,
    },
    /// The precision is none of 1 to 14.
    #[error("sampling precision {precision} is not from 1 to 14")]
    Precision {
        /// As it was set.
        precision: u8,
    },
}

/// What a [`Sampler`] makes of a request.
#[derive(Clone, Debug)]
#[must_use]
pub struct Sampled {
    /// The request with the spans that are kept; where there is none, `kept.spans` is 0.
    pub kept: Edited,
    /// Spans left out.
    pub dropped: usize,
}

/// Keeps a share of all traces, each span by itself: the `probabilistic_sampler`.
///
/// Samplers with the same mode and seed are consistent: a span that one keeps is kept by each that has
/// a greater percentage. A span that is kept says so in its `tracestate`, `ot=th:..`, from which the
/// number of spans it stands for can be told; `hash_seed` adds the randomness, `rv`. Other members
/// of the `tracestate` stay, behind that one.
///
/// In all modes the attribute `sampling.priority` comes first: a span is dropped where it is 0, and
/// kept where it is above, as a number or as text.
///
/// No decision can be made where `tracestate` can't be read, or contradicts itself, or where there is
/// no randomness: a trace's id that is absent, of another length than 16 bytes, or zero.
///
/// ```
/// use bytes::Bytes;
/// use spanwire_processors::{Mode, Sampler, Settings};
///
/// let settings = Settings { mode: Mode::Proportional, percentage: 50.0, ..Settings::default() };
/// let sampler = Sampler::new(settings)?;
/// let spans = |last: u8| {
///     let id = [1, 2, 3, 4, 5, 6, 7, 8, 9, last, 11, 12, 13, 14, 15, 16];
///     Bytes::from([&[0x0A, 22, 0x12, 20, 0x12, 18, 0x0A, 16], &id[..]].concat())
/// };
/// assert_eq!(sampler.sample(spans(0x7F))?.dropped, 1);
/// let sampled = sampler.sample(spans(0x80))?;
/// assert_eq!(sampled.kept.spans, 1);
/// assert!(sampled.kept.joined().ends_with(b"\x1A\x07ot=th:8"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    decision: Decision,
    fail_closed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Decision {
    /// At 0 %: only priorities matter.
    Never,
    Hash {
        seed: u32,
        threshold: Threshold,
    },
    Proportional {
        ratio: f64,
        precision: u8,
        /// For a span that was not sampled before.
        threshold: Threshold,
    },
    Equalizing {
        threshold: Threshold,
    },
}

impl Sampler {
    /// A sampler that decides by `settings`.
    ///
    /// # Errors
    ///
    /// [`InvalidSampler`] where a number is out of its range.
    pub fn new(settings: Settings) -> Result<Self, InvalidSampler> {
        let Settings { mode, percentage, hash_seed, fail_closed, precision } = settings;
        if !percentage.is_finite() || percentage < 0.0 {
            return Err(InvalidSampler::Percentage { percentage });
        }
        if !(1..=DIGITS).contains(&precision) {
            return Err(InvalidSampler::Precision { precision });
        }
        let ratio = f64::from(percentage.min(100.0)) / 100.0;
        if ratio > 0.0 && ratio < PROBABILITY_MIN {
            return Err(InvalidSampler::TooSmall { percentage });
        }
        let threshold = Threshold::of(ratio, precision);
        // In single precision and towards zero, as the collector has always done it: other collectors
        // with this seed decide alike.
        let buckets = (percentage.min(100.0) * (HASH_BUCKETS as f32 / 100.0)) as u32;
        let decision = match mode {
            _ if ratio == 0.0 => Decision::Never,
            Mode::HashSeed if buckets == 0 => Decision::Never,
            Mode::HashSeed => {
                let threshold = Threshold::of_hash(HASH_BUCKETS - buckets);
                Decision::Hash { seed: hash_seed, threshold }
            }
            Mode::Proportional => Decision::Proportional { ratio, precision, threshold },
            Mode::Equalizing => Decision::Equalizing { threshold },
        };
        Ok(Self { decision, fail_closed })
    }

    /// Leaves out the spans that are not sampled, and says in the others how they were. An envelope
    /// without a span goes, whether it lost its spans or came without any.
    ///
    /// Cost: two scans of each span; spans that are kept with another `tracestate` are rewritten.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where the framing is wrong; of a span only as far as it is rewritten.
    pub fn sample(&self, request: Bytes) -> Result<Sampled, Malformed> {
        let mut dropped = 0;
        let kept = edit::filter(&request, |candidate, trace_state| {
            let verdict = self.judge(&candidate, trace_state);
            dropped += usize::from(verdict == Verdict::Drop);
            verdict
        })?;
        Ok(Sampled { kept, dropped })
    }

    fn judge(&self, candidate: &Candidate<'_>, out: &mut Vec<u8>) -> Verdict {
        let head = candidate.span.head();
        let trace_id = head.trace_id.filter(|id| *id != [0; 16]);
        let mut evidence = self.decision.evidence(trace_id, head.trace_state);
        let threshold = match priority(candidate) {
            Some(Priority::Drop) => return Verdict::Drop,
            Some(Priority::Keep) => Threshold::ALWAYS,
            None if evidence.is_sound => self.decision.threshold(evidence.state.as_ref()),
            None if self.fail_closed => return Verdict::Drop,
            None => Threshold::ALWAYS,
        };
        if !threshold.keeps(evidence.randomness) {
            return Verdict::Drop;
        }
        let Some(state) = &mut evidence.state else { return Verdict::Keep };
        state.raise_threshold(threshold);
        state.put(out);
        if out == head.trace_state { Verdict::Keep } else { Verdict::SetTraceState }
    }
}

/// What a span's decision rests on.
struct Evidence<'a> {
    randomness: Randomness,
    /// What is to be written; `None` where `tracestate` must be left alone.
    state: Option<TraceState<'a>>,
    /// Whether a decision can be made.
    is_sound: bool,
}

impl Decision {
    fn evidence<'a>(&self, trace_id: Option<[u8; 16]>, trace_state: &'a [u8]) -> Evidence<'a> {
        let state = TraceState::parse(trace_state);
        match (self, state) {
            (Decision::Never, state) => {
                Evidence { randomness: Randomness::MAX, is_sound: state.is_some(), state }
            }
            (Decision::Hash { seed, .. }, state) => {
                let randomness = trace_id.map(|id| Randomness::of_hash(*seed, id));
                let is_new = |state: &TraceState<'_>| {
                    state.randomness().is_none() && state.threshold().is_none()
                };
                let mut state = state.filter(is_new);
                let is_sound = randomness.is_some() && state.is_some();
                let randomness = randomness.unwrap_or(Randomness::MAX);
                if let Some(state) = &mut state {
                    state.set_randomness(randomness);
                }
                Evidence { randomness, state, is_sound }
            }
            (_, None) => Evidence { randomness: Randomness::MAX, state: None, is_sound: false },
            (_, Some(mut state)) => {
                let randomness = state.randomness().or(trace_id.map(Randomness::of_trace));
                let mut is_sound = randomness.is_some();
                let randomness = randomness.unwrap_or(Randomness::MAX);
                if state.threshold().is_some_and(|threshold| !threshold.keeps(randomness)) {
                    // What it says can't be true: a sampler with this threshold had dropped the span.
                    state.clear_threshold();
                    is_sound = false;
                }
                Evidence { randomness, state: Some(state), is_sound }
            }
        }
    }

    fn threshold(&self, state: Option<&TraceState<'_>>) -> Threshold {
        let before = state.and_then(TraceState::threshold);
        match *self {
            Decision::Never => Threshold::NEVER,
            Decision::Hash { threshold, .. } => threshold,
            Decision::Equalizing { threshold } => before.map_or(threshold, |b| b.max(threshold)),
            Decision::Proportional { ratio, precision, threshold } => {
                before.map_or(threshold, |b| Threshold::of(b.probability() * ratio, precision))
            }
        }
    }
}

enum Priority {
    Drop,
    Keep,
}

/// What the span itself asks for: the tag `sampling.priority` of OpenTracing's semantic conventions.
fn priority(candidate: &Candidate<'_>) -> Option<Priority> {
    let priority = match candidate.attribute(b"sampling.priority")? {
        AnyValue::Int(priority) => priority as f64,
        AnyValue::Double(priority) => priority,
        AnyValue::String(priority) => parse_double(priority)?,
        _ => return None,
    };
    if priority == 0.0 {
        return Some(Priority::Drop);
    }
    (priority > 0.0).then_some(Priority::Keep)
}
