//! What processes use: CPU and memory, as the operating system counts them.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// CPU time of this process: all its threads, in user and in system mode.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Another process, by its entry in `/proc`; see proc_pid_stat(5) and proc_pid_status(5).
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    /// The peak of its memory before it was last reset, if it could not be reset.
    peak_before: Option<u64>,
}

/// The most memory a process had resident at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPeak {
    /// In bytes.
    pub bytes: u64,
    /// It was reached before the measured part of the run; during it there was less.
    pub before: bool,
}

impl Process {
    /// Needs the process to exist and `/proc` to be there.
    pub(crate) fn new(pid: u32) -> io::Result<Self> {
        let process = Self { pid, peak_before: None };
        process.cpu()?;
        Ok(process)
    }

    /// CPU time of all its threads, in user and in system mode, to a hundredth of a second.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let ticks = cpu_ticks(&stat).ok_or_else(|| io::Error::other("its stat is unreadable"))?;
        Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
    }

    /// Lets the peak of its memory begin anew, where this process may.
    pub(crate) fn reset_memory_peak(&mut self) {
        let reset = fs::write(format!("/proc/{}/clear_refs", self.pid), RESET_PEAK);
        self.peak_before = if reset.is_err() { self.memory_peak_bytes().ok() } else { None };
    }

    /// The peak of its memory since the reset.
    pub(crate) fn memory_peak(&self) -> io::Result<MemoryPeak> {
        let bytes = self.memory_peak_bytes()?;
        Ok(MemoryPeak { bytes, before: self.peak_before == Some(bytes) })
    }

    fn memory_peak_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        peak_kib(&status).map(|kib| kib << 10).ok_or_else(|| io::Error::other("it has no memory"))
    }
}

/// `utime` and `stime`, fields 14 and 15. The command before them may hold anything, so fields are
/// counted from its closing parenthesis, behind which comes field 3.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn peak_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What proc_pid_clear_refs(5) calls 5: the peak of the resident set.
const RESET_PEAK: &str = "5";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_behind_whatever_a_command_is_called() {
        let stat = "17 (a) R 1 (b) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 9 0 123";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("17 (a) S 1 17"), None);
    }

    #[test]
    fn the_peak_is_read_from_its_line() {
        assert_eq!(peak_kib("VmPeak:\t 9 kB\nVmHWM:\t  1234 kB\nVmRSS:\t 7 kB\n"), Some(1234));
        assert_eq!(peak_kib("Name:\tkthreadd\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen_from_outside_as_from_inside() {
        let mut process = Process::new(std::process::id()).expect("it runs");
        process.reset_memory_peak();
        let peak = process.memory_peak().expect("it has memory");
        assert!(peak.bytes > 1 << 16, "{peak:?}");
        // Two clocks of the same time: one in hundredths, read first.
        let outside = process.cpu().expect("it runs");
        assert!(own_cpu() + Duration::from_millis(20) >= outside);
        assert!(Process::new(u32::MAX).is_err());
    }
}
