//! How much memory requests may hold.

use spanwire_config::{Config, MemoryLimiter, Processor};

/// The budget of the process: what the memory limiter that a pipeline names leaves, or a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimits {
    bytes: usize,
}

/// Without a memory limiter.
const BYTES_DEFAULT: usize = 256 << 20;

/// The memory limits of a configuration: the smallest of its limiters.
pub(crate) fn of(config: &Config) -> MemoryLimits {
    let used = config.service.pipelines.values().flat_map(|pipeline| &pipeline.processors);
    let limiters = used.filter_map(|id| match config.processors.get(id) {
        Some(Processor::MemoryLimiter(limiter)) => soft_limit(limiter),
        _ => None,
    });
    MemoryLimits { bytes: limiters.min().unwrap_or(BYTES_DEFAULT) }
}

impl MemoryLimits {
    /// What all requests may hold.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }
}

/// What may be held before senders are refused: the limit less the spike, a fifth by default.
fn soft_limit(limiter: &MemoryLimiter) -> Option<usize> {
    let mib = |mib: Option<u64>| mib.filter(|&mib| mib > 0).map(|mib| (mib as usize) << 20);
    let share = |percentage: Option<u32>| {
        let percentage = percentage.filter(|&percentage| percentage > 0)?;
        Some((memory_bytes()? as f64 * f64::from(percentage) / 100.0) as usize)
    };
    let limit = mib(limiter.limit_mib).or_else(|| share(limiter.limit_percentage))?;
    let spike = mib(limiter.spike_limit_mib).or_else(|| share(limiter.spike_limit_percentage));
    Some(limit.saturating_sub(spike.unwrap_or(limit / 5)))
}

/// Memory that this process may use: its control group's limit, or the machine's.
fn memory_bytes() -> Option<usize> {
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok());
    let machine = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: usize = line.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    };
    group.or_else(machine)
}
