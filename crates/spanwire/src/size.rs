//! The largest request that a collector takes, learnt from what it refuses.

use std::time::{Duration, Instant};

/// Decides how large requests may be. It owns no clock and sends nothing.
///
/// A refusal for size alone teaches nothing: RESOURCE_EXHAUSTED may stand for a spent quota too. The
/// limit falls once a smaller request has passed where a larger one was refused, and it doubles
/// again each time [`RELEARN_AFTER`] has gone by without a refusal.
#[derive(Debug)]
pub(crate) struct SizeLimit {
    bytes_max: usize,
    floor_bytes: usize,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    /// What is thought to pass.
    passes: usize,
    /// Whether something has passed since.
    confirmed: bool,
    at: Instant,
}

/// After so long without a refusal, larger requests are tried again.
const RELEARN_AFTER: Duration = Duration::from_secs(600);

impl SizeLimit {
    /// Starts with what the configuration allows, in bytes. Requests of no more than `floor_bytes`
    /// are refused for another reason than their size.
    pub(crate) fn new(bytes_max: usize, floor_bytes: usize) -> Self {
        Self { bytes_max, floor_bytes, refused: None }
    }

    pub(crate) fn floor_bytes(&self) -> usize {
        self.floor_bytes
    }

    /// The largest request to send at `now`, in bytes.
    pub(crate) fn bytes_max(&mut self, now: Instant) -> usize {
        if let Some(refused) = &mut self.refused {
            while now.saturating_duration_since(refused.at) >= RELEARN_AFTER {
                refused.passes = refused.passes.saturating_mul(2);
                refused.at += RELEARN_AFTER;
            }
            if refused.passes >= self.bytes_max {
                self.refused = None;
            }
        }
        match &self.refused {
            Some(refused) if refused.confirmed => refused.passes,
            _ => self.bytes_max,
        }
    }

    /// A request of `bytes` was refused as too large at `now`; `named` is the limit the collector
    /// gave. Returns the size to try next.
    pub(crate) fn refused(&mut self, bytes: usize, named: Option<usize>, now: Instant) -> usize {
        let half = (bytes / 2).max(1);
        let passes =
            named.filter(|named| (self.floor_bytes..bytes).contains(named)).unwrap_or(half);
        let known = self.refused.as_ref().map_or(usize::MAX, |refused| refused.passes);
        if passes >= self.floor_bytes {
            self.refused = Some(Refused { passes: passes.min(known), confirmed: false, at: now });
        }
        passes
    }

    /// A request of `bytes` was taken.
    pub(crate) fn accepted(&mut self, bytes: usize) {
        match &mut self.refused {
            // It was not the size after all.
            Some(refused) if bytes > refused.passes => self.refused = None,
            Some(refused) if bytes >= self.floor_bytes / 2 => refused.confirmed = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_refusal_alone_does_not_lower_the_limit() {
        let now = Instant::now();
        let mut limit = SizeLimit::new(4 * MIB, 64 << 10);
        assert_eq!(limit.refused(4 * MIB, None, now), 2 * MIB);
        assert_eq!(limit.bytes_max(now), 4 * MIB);
    }

    #[test]
    fn what_passes_after_a_refusal_becomes_the_limit() {
        let now = Instant::now();
        let mut limit = SizeLimit::new(4 * MIB, 64 << 10);
        limit.refused(4 * MIB, None, now);
        assert_eq!(limit.refused(2 * MIB, None, now), MIB);
        limit.accepted(MIB - 100);
        assert_eq!(limit.bytes_max(now), MIB);
    }

    #[test]
    fn a_quota_that_is_there_again_teaches_nothing() {
        let now = Instant::now();
        let mut limit = SizeLimit::new(4 * MIB, 64 << 10);
        limit.refused(4 * MIB, None, now);
        limit.accepted(100);
        assert_eq!(limit.bytes_max(now), 4 * MIB, "a tiny request says nothing");
        limit.accepted(4 * MIB);
        limit.accepted(MIB);
        assert_eq!(limit.bytes_max(now), 4 * MIB);
    }

    #[test]
    fn a_limit_that_the_collector_names_is_believed_if_it_can_be_one() {
        let now = Instant::now();
        let mut limit = SizeLimit::new(4 * MIB, 64 << 10);
        assert_eq!(limit.refused(4 * MIB, Some(3 * MIB), now), 3 * MIB);
        assert_eq!(limit.refused(3 * MIB, Some(5 * MIB), now), 3 * MIB / 2);
        assert_eq!(limit.refused(MIB, Some(1), now), MIB / 2);
    }

    #[test]
    fn the_limit_grows_back_when_nothing_is_refused_any_more() {
        let start = Instant::now();
        let mut limit = SizeLimit::new(4 * MIB, 64 << 10);
        limit.refused(4 * MIB, Some(MIB), start);
        limit.accepted(MIB);
        let after = |times| start + RELEARN_AFTER * times;
        assert_eq!(limit.bytes_max(after(1) - Duration::from_nanos(1)), MIB);
        assert_eq!(limit.bytes_max(after(1)), 2 * MIB);
        assert_eq!(limit.bytes_max(after(2)), 4 * MIB);
        limit.refused(4 * MIB, Some(MIB), after(2));
        limit.accepted(MIB);
        assert_eq!(limit.bytes_max(after(2)), MIB);
        assert_eq!(limit.bytes_max(after(100)), 4 * MIB);
    }
}
