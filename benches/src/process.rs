//! What this process has used so far.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads, those that ended included, in user and in system mode.
///
/// ```
/// let before = spanwire_benches::process::cpu_time();
/// assert!(spanwire_benches::process::cpu_time() >= before);
/// ```
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most memory it had resident at once, in bytes; zero where the system does not tell (only
/// Linux does).
#[must_use]
pub fn memory_peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
