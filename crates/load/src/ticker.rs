//! Waiting for a moment, more exactly than Tokio does.

use std::io;
use std::time::Instant;

/// Wakes one task at given moments.
///
/// Tokio's timer counts in milliseconds, which would be most of the latency on loopback. This one is
/// a `timerfd`, late by some tens of microseconds; where there is none, it is Tokio's.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Ticker(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Ticker {
    /// Needs a runtime with I/O. Costs one file descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "it is unsound for types that name a descriptor they do not own, which \
                      `OwnedFd` cannot; its successor is an unsafe function"
        )]
        let timer = tokio::io::unix::AsyncFd::with_interest(timer, tokio::io::Interest::READABLE);
        timer.map(Self)
    }

    /// Returns at `moment`, and at once when it has passed.
    pub(crate) async fn until(&self, moment: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let once = Itimerspec { it_interval: Timespec::default(), it_value: left };
            // Setting it also takes back an expiry that nobody read, so it is never read at all.
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            self.0.readable().await?.clear_ready();
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Ticker;

#[cfg(not(target_os = "linux"))]
impl Ticker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn until(&self, moment: Instant) -> io::Result<()> {
        tokio::time::sleep_until(moment.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn no_moment_comes_early_and_what_has_passed_does_not_wait() {
        let ticker = Ticker::new().expect("a timer");
        let start = Instant::now();
        for micros in [0, 300, 100, 900, 950, 2_500] {
            let moment = start + Duration::from_micros(micros);
            ticker.until(moment).await.expect("a timer");
            assert!(Instant::now() >= moment, "{micros} µs");
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_disturb_the_next() {
        let ticker = Ticker::new().expect("a timer");
        let soon = Instant::now() + Duration::from_millis(1);
        let far = Instant::now() + Duration::from_secs(3_600);
        let given_up = tokio::time::timeout(Duration::from_millis(2), ticker.until(far)).await;
        assert!(given_up.is_err());
        ticker.until(soon).await.expect("a timer");
        let next = Instant::now() + Duration::from_millis(1);
        ticker.until(next).await.expect("a timer");
        assert!(Instant::now() >= next);
    }
}
