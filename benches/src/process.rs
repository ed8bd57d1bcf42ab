//! What this process has used so far, the time of day, where a thread runs, and what the environment
//! would have clients do.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
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

/// The most memory it had resident at once, in bytes; `None` where the system does not tell (only
/// Linux does).
#[must_use]
pub fn memory_peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = kib.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Names of the variables that are set and from which clients would take settings.
pub fn otel_variables() -> impl Iterator<Item = OsString> {
    env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(b"OTEL_"))
}

/// Keeps this thread on the `index`-th of the cores it may use, counted round, so that threads which
/// are to run at once are not put on one core. To be called once by a new thread.
///
/// # Errors
///
/// When the system refuses, or is not Linux: it then goes on placing the thread as it likes.
pub fn stay_on_core(index: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

        let allowed = sched_getaffinity(None)?;
        let cores = || (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let core = cores().nth(index % cores().count().max(1));
        let mut only = CpuSet::new();
        only.set(core.ok_or_else(|| io::Error::other("this thread may use no core"))?);
        Ok(sched_setaffinity(None, &only)?)
    }
    #[cfg(not(target_os = "linux"))]
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("core {index} cannot be asked for")))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_that_is_to_stay_on_a_core_may_use_no_other() {
        let cores = |index| {
            let pinned = thread::spawn(move || {
                stay_on_core(index).expect("a core it may use");
                thread::available_parallelism().map_or(0, usize::from)
            });
            pinned.join().expect("no panic")
        };
        assert_eq!([cores(0), cores(1), cores(1_000)], [1, 1, 1]);
    }
}
