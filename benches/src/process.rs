//! What this process has used so far, the time of day, and where a thread runs.

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

/// Nanoseconds since the Unix epoch, by the clock that all processes of a machine share.
#[must_use]
pub fn unix_nanos() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
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

/// Keeps this thread on the `index`-th of the cores it may use, counted round, so that threads which
/// are to run at once are not put on one core. To be called once by a new thread.
///
/// Where the system refuses, or is not Linux, it places the thread itself, as it would have done.
pub fn stay_on_core(index: usize) {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

        let Ok(allowed) = sched_getaffinity(None) else { return };
        let cores = || (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let Some(core) = cores().nth(index % cores().count().max(1)) else { return };
        let mut only = CpuSet::new();
        only.set(core);
        let _placed_by_the_system = sched_setaffinity(None, &only);
    }
    #[cfg(not(target_os = "linux"))]
    let _placed_by_the_system = index;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_that_is_to_stay_on_a_core_may_use_no_other() {
        let cores = |index| {
            let pinned = thread::spawn(move || {
                stay_on_core(index);
                thread::available_parallelism().map_or(0, usize::from)
            });
            pinned.join().expect("no panic")
        };
        assert_eq!([cores(0), cores(1), cores(1_000)], [1, 1, 1]);
    }
}
