//! How a destination ends, and who stands in its place then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Exporter, Shared};
use crate::item::Item;

/// How far the end of a destination has come. None of it is taken back.
#[derive(Default)]
pub(super) struct End {
    /// When what it holds then is dropped, once that is known.
    pub(super) by: Option<Instant>,
    /// Its queue takes no more.
    pub(super) is_closed: bool,
    /// Stands in its place, and is to have what it holds. Known at the moment of closing or never.
    pub(super) heir: Option<Arc<Exporter>>,
}

impl End {
    /// Whether nobody is to wait without need, be it for a batch to grow.
    pub(super) fn hurries(&self) -> bool {
        self.is_closed || self.by.is_some()
    }

    /// A wait between two attempts that leaves time for several more.
    fn within(&self, wait: Duration, now: Instant) -> Duration {
        let left = self.by.map(|by| by.saturating_duration_since(now));
        left.map_or(wait, |left| wait.min((left / 4).max(PAUSE_MIN)))
    }
}

/// However near the end is.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The waits of one delivery between its attempts.
pub(super) struct Pauses(watch::Receiver<End>);

impl Pauses {
    /// Waits. Where the end has come nearer since the last attempt, the next one is due at once, or
    /// another destination's.
    pub(super) async fn pause(&mut self, wait: Duration) {
        let wait = self.0.borrow().within(wait, Instant::now());
        let _either = tokio::time::timeout(wait, self.0.changed()).await;
    }
}

impl Shared {
    /// For a delivery that begins now.
    pub(super) fn pauses(&self) -> Pauses {
        let mut end = self.end.clone();
        end.mark_unchanged();
        Pauses(end)
    }

    /// Who takes now what was for this destination, where it has been replaced: the last of those that
    /// replaced each other, unless that one is closed as well.
    pub(super) fn heir(&self) -> Option<Arc<Exporter>> {
        let mut heir = self.end.borrow().heir.clone()?;
        while heir.is_closed() {
            let next = heir.shared.end.borrow().heir.clone()?;
            heir = next;
        }
        Some(heir)
    }

    /// Gives items to whoever takes them now. What comes back is for this destination to send.
    pub(super) fn hand_on(&self, items: Vec<Item>) -> Vec<Item> {
        match self.heir() {
            Some(heir) => items.into_iter().filter_map(|item| heir.inherit(item)).collect(),
            None => items,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_leaves_time_for_several_attempts_before_the_end() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let mut end = End { is_closed: true, ..End::default() };
        assert_eq!(end.within(minute, now), minute);
        end.by = Some(now + 20 * minute);
        assert_eq!(end.within(minute, now), minute);
        end.by = Some(now + minute);
        assert_eq!(end.within(minute, now), minute / 4);
        assert_eq!(end.within(minute, now + 2 * minute), PAUSE_MIN);
    }
}
