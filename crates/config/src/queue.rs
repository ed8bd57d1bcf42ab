use std::time::Duration;

use crate::section::Section;

/// Sending again with exponential backoff (`exporter/exporterhelper/README.md` of the Go
/// Collector).
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// If not, a request that fails is dropped.
    pub enabled: bool,
    /// The wait after the first failure; 5 s by default.
    pub initial_interval: Duration,
    /// How much shorter than its interval each wait may be at random, as a share of it from 0 to 1;
    /// 0.5 by default. In the Go Collector it may be longer by as much, too.
    pub randomization_factor: f64,
    /// What each wait is longer by than the last; 1.5 by default.
    pub multiplier: f64,
    /// The longest wait; 30 s by default.
    pub max_interval: Duration,
    /// When a request is given up; 300 s by default, and never if zero.
    pub max_elapsed_time: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: Duration::from_secs(300),
        }
    }
}

/// Requests that wait to be sent (`exporter/exporterhelper/README.md` of the Go Collector). Its
/// `storage` is not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// If not, whoever brings spans waits until they are sent.
    pub enabled: bool,
    /// Requests under way at a time; 10 by default.
    pub num_consumers: usize,
    /// Most that may wait, in `sizer`; 1000 by default.
    pub queue_size: usize,
    /// What `queue_size` counts; requests by default.
    pub sizer: Sizer,
    /// Whether whoever brings spans waits for the answer; false by default.
    pub wait_for_result: bool,
    /// What becomes of spans that come while the queue is full: they wait, or are refused.
    ///
    /// True by default, where the Go Collector has false: waiting slows senders down, which they
    /// are made for, while a refusal makes them send the same bytes again.
    pub block_on_overflow: bool,
    /// Gathers requests into larger ones; as they come if `None`.
    pub batch: Option<QueueBatch>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            enabled: true,
            num_consumers: 10,
            queue_size: 1000,
            sizer: Sizer::Requests,
            wait_for_result: false,
            block_on_overflow: true,
            batch: None,
        }
    }
}

/// What a size counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sizer {
    /// Requests as they came, or as `batch` made them.
    Requests,
    /// Spans.
    Items,
    /// Bytes of protobuf, uncompressed.
    Bytes,
}

/// How a [`Queue`] makes batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueBatch {
    /// How long a request waits for others at most; 200 ms by default, never zero.
    pub flush_timeout: Duration,
    /// What completes a batch; 8192 by default.
    pub min_size: usize,
    /// The largest batch; no limit if zero, as by default. Otherwise not below `min_size`.
    pub max_size: usize,
    /// What the sizes count: what the queue's `sizer` counts if that is written and counts spans
    /// or bytes, else spans. Never [`Sizer::Requests`].
    pub sizer: Sizer,
}

impl Default for QueueBatch {
    fn default() -> Self {
        Self {
            flush_timeout: Duration::from_millis(200),
            min_size: 8192,
            max_size: 0,
            sizer: Sizer::Items,
        }
    }
}

impl Retry {
    pub(crate) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        let retry = Self {
            enabled: section.boolean("enabled").unwrap_or(default.enabled),
            initial_interval: section
                .duration("initial_interval")
                .unwrap_or(default.initial_interval),
            randomization_factor: section
                .float("randomization_factor", 0.0..=1.0)
                .unwrap_or(default.randomization_factor),
            multiplier: section.float("multiplier", 0.0..=f64::MAX).unwrap_or(default.multiplier),
            max_interval: section.duration("max_interval").unwrap_or(default.max_interval),
            max_elapsed_time: section
                .duration("max_elapsed_time")
                .unwrap_or(default.max_elapsed_time),
        };
        let elapsed = retry.max_elapsed_time;
        for (key, interval) in
            [("initial_interval", retry.initial_interval), ("max_interval", retry.max_interval)]
        {
            if retry.enabled && !elapsed.is_zero() && elapsed < interval {
                let message = format!("{} has a max_elapsed_time below its {key}", section.path);
                section.error("max_elapsed_time", message);
            }
        }
        section.finish();
        retry
    }
}

const SIZERS: [(&str, Sizer); 3] =
    [("requests", Sizer::Requests), ("items", Sizer::Items), ("bytes", Sizer::Bytes)];

impl Queue {
    pub(crate) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        if section.has("storage") {
            section.findings.unsupported(
                section.place_of("storage"),
                format!(
                    "{} is not supported: there is no queue on disk",
                    section.path_of("storage")
                ),
                Some("remove it; what waits is in memory and is sent before a shutdown".into()),
            );
        }
        section.unsupported(&["blocking"]);
        let sizer = section.choice("sizer", &SIZERS);
        let batch = section.section("batch").and_then(|batch| QueueBatch::read(batch, sizer));
        let queue = Self {
            enabled: section.boolean("enabled").unwrap_or(default.enabled),
            num_consumers: section.size("num_consumers", 1).unwrap_or(default.num_consumers),
            queue_size: section.size("queue_size", 1).unwrap_or(default.queue_size),
            sizer: sizer.unwrap_or(default.sizer),
            wait_for_result: section.boolean("wait_for_result").unwrap_or(default.wait_for_result),
            block_on_overflow: section
                .boolean("block_on_overflow")
                .unwrap_or(default.block_on_overflow),
            batch,
        };
        if let Some(batch) = &queue.batch
            && batch.sizer == queue.sizer
            && batch.min_size > queue.queue_size
        {
            let message = format!(
                "{}::batch::min_size {} does not fit the queue_size {}",
                section.path, batch.min_size, queue.queue_size
            );
            section.error("batch", message);
        }
        section.finish();
        queue
    }
}

impl QueueBatch {
    /// `None` if it is switched off.
    fn read(section: Section<'_>, queue: Option<Sizer>) -> Option<Self> {
        let default = Self::default();
        if let Some(partition) = section.section("partition") {
            partition.unsupported(&["metadata_keys"]);
            partition.finish();
        }
        let inherited = queue.filter(|sizer| *sizer != Sizer::Requests).unwrap_or(default.sizer);
        let batch = Self {
            flush_timeout: section.interval("flush_timeout").unwrap_or(default.flush_timeout),
            min_size: section.size("min_size", 0).unwrap_or(default.min_size),
            max_size: section.size("max_size", 0).unwrap_or(default.max_size),
            sizer: section.choice("sizer", &SIZERS[1..]).unwrap_or(inherited),
        };
        let Self { min_size, max_size, .. } = batch;
        if max_size > 0 && max_size < min_size {
            let message =
                format!("{} has max_size {max_size}, below min_size {min_size}", section.path);
            section.error("max_size", message);
        }
        let enabled = section.boolean("enabled").unwrap_or(true);
        section.finish();
        enabled.then_some(batch)
    }
}
