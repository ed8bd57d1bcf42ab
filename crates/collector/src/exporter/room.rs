//! The bytes that a queue may hold, or requests on their way, which a reload makes more or fewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Counted in KiB, as permits are counted in 32 bits. Whoever waits is served in turn.
pub(super) struct Room {
    permits: Arc<Semaphore>,
    kibibytes: AtomicUsize,
    resized: Notify,
}

/// More can not be counted.
const KIBIBYTES_MAX: usize = u32::MAX as usize >> 3;

fn kibibytes(bytes: usize) -> usize {
    (bytes / 1024).clamp(1, KIBIBYTES_MAX)
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        let kibibytes = kibibytes(bytes);
        Self {
            permits: Arc::new(Semaphore::new(kibibytes)),
            kibibytes: AtomicUsize::new(kibibytes),
            resized: Notify::new(),
        }
    }

    /// Room at once, or none.
    pub(super) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_many_owned(self.weight(bytes)).ok()
    }

    /// Waits for room. `None` never comes, as nobody closes it.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // Mostly there is some, and nothing to be notified of.
        if let Some(permit) = self.try_take(bytes) {
            return Some(permit);
        }
        loop {
            let resized = self.resized.notified();
            // Whoever waits for all of a room that is smaller now would wait forever.
            tokio::select! {
                permit = Arc::clone(&self.permits).acquire_many_owned(self.weight(bytes)) => {
                    return permit.ok();
                }
                () = resized => {}
            }
        }
    }

    /// Makes it larger or smaller, on the current runtime. What is in it stays: where that is more
    /// than there is room for now, nothing comes in until enough of it has left.
    pub(super) fn resize(&self, bytes: usize) {
        let now = kibibytes(bytes);
        let before = self.kibibytes.swap(now, Ordering::Relaxed);
        if now > before {
            self.permits.add_permits(now - before);
        }
        let surplus = before.saturating_sub(now);
        let taken = surplus - self.permits.forget_permits(surplus);
        if taken > 0 {
            let permits = Arc::clone(&self.permits);
            tokio::spawn(async move {
                // Never closed.
                let Ok(left) = permits.acquire_many_owned(taken as u32).await else { return };
                left.forget();
            });
        }
        self.resized.notify_waiters();
    }

    /// A request that is larger than all there is takes all of it.
    fn weight(&self, bytes: usize) -> u32 {
        bytes.div_ceil(1024).min(self.kibibytes.load(Ordering::Relaxed)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    /// Lets the other tasks of this thread run until they wait.
    async fn others() {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_room_that_shrinks_lets_nothing_in_until_enough_has_left() {
        let room = Room::new(10 * KIB);
        let [first, second] = [6, 4].map(|kib| room.try_take(kib * KIB).expect("there is room"));
        room.resize(5 * KIB);
        drop(second);
        others().await;
        assert!(room.try_take(KIB).is_none(), "what is in it is more than it may hold");
        drop(first);
        others().await;
        let all = room.try_take(5 * KIB).expect("it is empty");
        assert!(room.try_take(1).is_none());
        room.resize(7 * KIB);
        let _more = room.try_take(2 * KIB).expect("it is larger now");
        drop(all);
        assert!(room.try_take(6 * KIB).is_none());
    }

    #[tokio::test]
    async fn whoever_waits_for_all_of_a_room_has_all_of_it_when_it_is_smaller() {
        let room = Arc::new(Room::new(10 * KIB));
        let taken = room.try_take(KIB).expect("there is room");
        let waiting = {
            let room = Arc::clone(&room);
            tokio::spawn(async move { drop(room.take(100 * KIB).await) })
        };
        others().await;
        room.resize(4 * KIB);
        drop(taken);
        others().await;
        assert!(waiting.is_finished(), "it does not wait forever");
    }
}
