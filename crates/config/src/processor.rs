use std::time::Duration;

use crate::section::Section;
use crate::tree::{Kind, Node, Value as Tree};

/// What happens to spans on their way.
#[derive(Clone, Debug, PartialEq)]
pub enum Processor {
    /// `batch`: gathers spans into larger requests.
    Batch(Batch),
    /// `memory_limiter`: refuses spans while too much memory is used.
    MemoryLimiter(MemoryLimiter),
    /// `attributes`: changes the attributes of spans, action by action.
    Attributes(Vec<Action>),
    /// `resource`: changes the attributes of resources, action by action.
    Resource(Vec<Action>),
    /// `probabilistic_sampler`: keeps a share of the traces.
    ProbabilisticSampler(ProbabilisticSampler),
}

/// `batch` (`processor/batchprocessor/README.md` of the Go Collector). Its `metadata_keys` are not
/// supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How long a span waits for others at most; 200 ms by default, not at all if zero.
    pub timeout: Duration,
    /// Spans that complete a batch; 8192 by default, and any number if zero.
    pub send_batch_size: usize,
    /// Most spans in a batch, larger ones being split; no limit if zero, as by default. Otherwise
    /// not below `send_batch_size`.
    pub send_batch_max_size: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(200), send_batch_size: 8192, send_batch_max_size: 0 }
    }
}

impl Batch {
    pub(crate) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        section.unsupported(&["metadata_keys"]);
        section.without_effect(&[("metadata_cardinality_limit", "there are no metadata_keys")]);
        let batch = Self {
            timeout: section.duration("timeout").unwrap_or(default.timeout),
            send_batch_size: section.size("send_batch_size", 0).unwrap_or(default.send_batch_size),
            send_batch_max_size: section.size("send_batch_max_size", 0).unwrap_or_default(),
        };
        let Self { send_batch_size: size, send_batch_max_size: max, .. } = batch;
        if max > 0 && max < size {
            section.error(
                "send_batch_max_size",
                format!(
                    "{} has send_batch_max_size {max}, below send_batch_size {size}",
                    section.path
                ),
            );
        }
        section.finish();
        batch
    }
}

/// `memory_limiter` (`processor/memorylimiterprocessor/README.md` of the Go Collector).
///
/// After loading, one of `limit_mib` and `limit_percentage` is set; the former wins where both are.
/// The spike limit is below its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimiter {
    /// The hard limit in MiB.
    pub limit_mib: Option<u64>,
    /// The soft limit is this many MiB below the hard one; a fifth of it if `None`.
    pub spike_limit_mib: Option<u64>,
    /// The hard limit as a share of the memory there is, 1 to 100.
    pub limit_percentage: Option<u32>,
    /// The same for the distance of the soft limit.
    pub spike_limit_percentage: Option<u32>,
}

impl MemoryLimiter {
    pub(crate) fn read(section: Section<'_>) -> Self {
        const GARBAGE: &str = "there is no garbage collector to call";
        section.without_effect(&[
            ("check_interval", "each request is counted when it comes"),
            ("min_gc_interval_when_soft_limited", GARBAGE),
            ("min_gc_interval_when_hard_limited", GARBAGE),
        ]);
        let mib = |key| section.number(key, 0..=u64::from(u32::MAX));
        let percentage = |key| section.number(key, 0..=100);
        let [limit_mib, spike_mib] = [mib("limit_mib"), mib("spike_limit_mib")];
        let [limit, spike] = [percentage("limit_percentage"), percentage("spike_limit_percentage")];
        let set = |number: Option<u64>| number.filter(|number| *number > 0);
        let percent = |number| set(number).and_then(|number| u32::try_from(number).ok());
        let limiter = Self {
            limit_mib: set(limit_mib),
            spike_limit_mib: set(spike_mib),
            limit_percentage: percent(limit),
            spike_limit_percentage: percent(spike),
        };
        // A limit that is there but wrong has been reported.
        let wrong = |key, number: Option<u64>| section.has(key) && number.is_none();
        let unclear = wrong("limit_mib", limit_mib) || wrong("limit_percentage", limit);
        if !unclear && limiter.limit_mib.is_none() && limiter.limit_percentage.is_none() {
            section.findings.error_with_help(
                section.place,
                format!("{} has no limit", section.path),
                "set limit_mib or limit_percentage",
            );
        }
        let spikes: [(&str, &str, Option<u64>, Option<u64>); 2] = [
            ("spike_limit_mib", "limit_mib", set(spike_mib), limiter.limit_mib),
            ("spike_limit_percentage", "limit_percentage", set(spike), set(limit)),
        ];
        for (key, limit_key, spike, limit) in spikes {
            if let (Some(spike), Some(limit)) = (spike, limit)
                && spike >= limit
            {
                let message = format!("{} is not below {limit_key}", section.path_of(key));
                section.error(key, message);
            }
        }
        section.finish();
        limiter
    }
}

/// One change to attributes (`processor/attributesprocessor/README.md` of the Go Collector's
/// contrib repository).
///
/// After loading it is complete: who inserts, updates or upserts has a key and one of `value` and
/// `from_attribute`; who deletes or hashes has a key, a pattern or both; who extracts has a key
/// and a pattern; who converts has a key and a type. Nothing has looked into the pattern yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// The attribute it is about.
    pub key: Option<String>,
    /// A regular expression (RE2): which keys to delete or hash, or what to extract.
    pub pattern: Option<String>,
    /// What is done. Written as `action`.
    pub kind: ActionKind,
    /// The new value.
    pub value: Option<Value>,
    /// Where the new value is copied from.
    pub from_attribute: Option<String>,
    /// The type to convert to.
    pub converted_type: Option<ConvertedType>,
}

/// What an [`Action`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionKind {
    /// Adds an attribute where there is none of that key.
    Insert,
    /// Changes an attribute where there is one.
    Update,
    /// Does either.
    Upsert,
    /// Removes attributes.
    Delete,
    /// Replaces values by their hash.
    Hash,
    /// Sets attributes named by the groups of a pattern from what they match.
    Extract,
    /// Gives a value another type.
    Convert,
}

/// What [`ActionKind::Convert`] makes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvertedType {
    /// A string.
    Str,
    /// A 64-bit integer.
    Int,
    /// A double.
    Double,
}

/// The value that an [`Action`] sets.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    Str(String),
    /// A 64-bit integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// A boolean.
    Bool(bool),
}

impl Action {
    /// Reads the list under `key`. `attributes` also takes `include` and `exclude`, which are
    /// refused.
    pub(crate) fn read_all(section: Section<'_>, key: &'static str) -> Vec<Self> {
        if key == "actions" {
            for key in ["include", "exclude"] {
                section.refused(key, "without it, spans would be changed that are not meant");
            }
        }
        let list = section.list(key);
        if list.is_some_and(<[Node]>::is_empty) || !section.has(key) {
            let message = format!("{} has no {key}, so it would change nothing", section.path);
            section.findings.error(section.place, message);
        }
        let mut actions = Vec::new();
        for (number, node) in list.unwrap_or_default().iter().enumerate() {
            let path = format!("{}[{number}]", section.path_of(key));
            let section = Section::of(section.findings, path, node.place, node);
            actions.extend(section.and_then(Self::read));
        }
        section.finish();
        actions
    }

    fn read(section: Section<'_>) -> Option<Self> {
        section.unsupported(&["from_context", "default_value"]);
        let kind = section.choice(
            "action",
            &[
                ("insert", ActionKind::Insert),
                ("update", ActionKind::Update),
                ("upsert", ActionKind::Upsert),
                ("delete", ActionKind::Delete),
                ("hash", ActionKind::Hash),
                ("extract", ActionKind::Extract),
                ("convert", ActionKind::Convert),
            ],
        );
        let types = [
            ("string", ConvertedType::Str),
            ("int", ConvertedType::Int),
            ("double", ConvertedType::Double),
        ];
        let action = kind.map(|kind| Self {
            key: section.string("key").filter(|key| !key.is_empty()),
            pattern: section.string("pattern").filter(|pattern| !pattern.is_empty()),
            kind,
            value: section.raw("value").and_then(|node| value(&section, node)),
            from_attribute: section.string("from_attribute").filter(|from| !from.is_empty()),
            converted_type: section.choice("converted_type", &types),
        });
        match &action {
            Some(action) => action.check(&section),
            None if section.has("action") => {}
            None => {
                let message = format!("{} has no action", section.path);
                section.findings.error(section.place, message);
            }
        }
        // Without an action it is not known which of the keys belong.
        if action.is_some() {
            section.finish();
        }
        action
    }

    fn check(&self, section: &Section<'_>) {
        use ActionKind::{Convert, Delete, Extract, Hash, Insert, Update, Upsert};
        let (needed, unfit): (&[&'static str], &[&'static str]) = match self.kind {
            Insert | Update | Upsert => (&["key"], &["pattern", "converted_type"]),
            Delete | Hash => (&[], &["value", "from_attribute", "converted_type"]),
            Extract => (&["key", "pattern"], &["value", "from_attribute", "converted_type"]),
            Convert => (&["key", "converted_type"], &["value", "from_attribute", "pattern"]),
        };
        let action = format!("{:?}", self.kind).to_lowercase();
        for key in needed {
            if !section.has(key) {
                let message = format!("{} is to {action} and has no {key}", section.path);
                section.findings.error(section.place, message);
            }
        }
        for key in unfit {
            if section.has(key) {
                section
                    .error(key, format!("{} is to {action}, which takes no {key}", section.path));
            }
        }
        let has = |key| section.has(key);
        let problem = match self.kind {
            Delete | Hash if !has("key") && !has("pattern") => "has neither key nor pattern",
            Insert | Update | Upsert => match (has("value"), has("from_attribute")) {
                (false, false) => "has neither value nor from_attribute",
                (true, true) => "has both value and from_attribute",
                _ => return,
            },
            _ => return,
        };
        let message = format!("{} is to {action} and {problem}", section.path);
        section.findings.error(section.place, message);
    }
}

fn value(section: &Section<'_>, node: &Node) -> Option<Value> {
    let Tree::Scalar(scalar) = &node.value else {
        section.findings.unsupported(
            node.place,
            format!("{}::value as {} is not supported", section.path, node.describe()),
            Some("text, numbers and booleans are".into()),
        );
        return None;
    };
    match scalar.kind() {
        Kind::Bool(value) => Some(Value::Bool(value)),
        Kind::Float(value) => Some(Value::Double(value)),
        Kind::Int(value) => match i64::try_from(value) {
            Ok(value) => Some(Value::Int(value)),
            Err(_) => {
                section.error("value", format!("{}::value does not fit 64 bits", section.path));
                None
            }
        },
        Kind::Null | Kind::Text => Some(Value::Str(scalar.text.clone())),
    }
}

/// `probabilistic_sampler` (`processor/probabilisticsamplerprocessor/README.md` of the Go
/// Collector's contrib repository). What it has for logs is not supported.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbabilisticSampler {
    /// The share of traces that is kept, in percent: from 0, as by default, to 100. More than that
    /// was written for all of them as well.
    pub sampling_percentage: f32,
    /// What trace ids are hashed with. Collectors of one tier must share it.
    pub hash_seed: u32,
    /// By what traces are chosen; [`Mode::HashSeed`] by default.
    pub mode: Mode,
    /// Whether a span that cannot be decided about is dropped; true by default.
    pub fail_closed: bool,
    /// Hexadecimal digits of thresholds in the trace state, 1 to 14; 4 by default.
    pub sampling_precision: u8,
}

/// By what a [`ProbabilisticSampler`] chooses traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A hash of the trace id.
    #[default]
    HashSeed,
    /// The randomness of the trace, lowering its probability by the percentage.
    Proportional,
    /// The randomness of the trace, lowering its probability to the percentage.
    Equalizing,
}

impl Default for ProbabilisticSampler {
    fn default() -> Self {
        Self {
            sampling_percentage: 0.0,
            hash_seed: 0,
            mode: Mode::HashSeed,
            fail_closed: true,
            sampling_precision: 4,
        }
    }
}

impl ProbabilisticSampler {
    pub(crate) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        const LOGS: &str = "it is about logs";
        section.without_effect(&[
            ("attribute_source", LOGS),
            ("from_attribute", LOGS),
            ("sampling_priority", LOGS),
        ]);
        let modes = [
            ("", Mode::HashSeed),
            ("hash_seed", Mode::HashSeed),
            ("proportional", Mode::Proportional),
            ("equalizing", Mode::Equalizing),
        ];
        let sampler = Self {
            sampling_percentage: section
                .float("sampling_percentage", 0.0..=f64::MAX)
                .map_or(default.sampling_percentage, |percentage| percentage.min(100.0) as f32),
            hash_seed: section
                .number("hash_seed", 0..=u64::from(u32::MAX))
                .and_then(|seed| u32::try_from(seed).ok())
                .unwrap_or_default(),
            mode: section.choice("mode", &modes).unwrap_or_default(),
            fail_closed: section.boolean("fail_closed").unwrap_or(default.fail_closed),
            sampling_precision: section
                .number("sampling_precision", 1..=14)
                .and_then(|digits| u8::try_from(digits).ok())
                .unwrap_or(default.sampling_precision),
        };
        section.finish();
        sampler
    }
}
