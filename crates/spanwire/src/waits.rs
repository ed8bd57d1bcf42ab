//! Batches that wait to be sent again, and what ends their wait before its time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The waits of one destination. All of its tasks run on one thread.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    sooner: Notify,
    waiting: AtomicUsize,
    no_later: AtomicBool,
}

/// Batches whose wait one success ends: enough for their number to double with each round after an
/// outage, and few enough that a collector in distress, which takes one in many, is not tried by
/// all of them each time.
const WOKEN_BY_SUCCESS: usize = 2;

impl Waits {
    /// Waits for as long as `wait`, or until others have gone through; then for a moment up to
    /// `spread` more, so that not all come at once. When there is no later, for `spread` at most.
    pub(crate) async fn pause(&self, wait: Duration, spread: Duration) {
        if self.no_later.load(Ordering::Relaxed) {
            return tokio::time::sleep(wait.min(spread)).await;
        }
        // Counted as long as a word would reach it, however it ends.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(&self.waiting);
        tokio::select! {
            () = tokio::time::sleep(wait) => return,
            () = self.sooner.notified() => drop(counted),
        }
        if !self.no_later.load(Ordering::Relaxed) {
            tokio::time::sleep(spread.min(wait).mul_f64(fastrand::f64())).await;
        }
    }

    /// A batch went through: some of those that wait may try.
    pub(crate) fn succeeded(&self) {
        // Nobody's word may be kept for somebody who has not failed yet.
        for _ in 0..self.waiting.load(Ordering::Relaxed).min(WOKEN_BY_SUCCESS) {
            self.sooner.notify_one();
        }
    }

    /// No later chance will come: what waits goes now.
    pub(crate) fn hurry(&self) {
        self.no_later.store(true, Ordering::Relaxed);
        self.sooner.notify_waiters();
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);
    /// In which every task has got to where it waits.
    const MOMENT: Duration = Duration::from_millis(1);

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(test);
    }

    async fn waiting(waits: &Arc<Waits>, batches: usize) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..batches {
            let waits = Arc::clone(waits);
            tasks.spawn(async move { waits.pause(HOUR, SECOND).await });
        }
        tokio::time::sleep(MOMENT).await;
        tasks
    }

    /// Faults 97.
    #[test]
    fn each_success_ends_the_wait_of_two_at_moments_of_their_own() {
        run(async {
            let waits = Arc::new(Waits::default());
            let mut tasks = waiting(&waits, 100).await;
            let start = Instant::now();
            let mut ended = Vec::new();
            for _ in 0..20 {
                waits.succeeded();
                tokio::time::sleep(2 * SECOND).await;
                while tasks.try_join_next().is_some() {
                    ended.push(start.elapsed());
                }
            }
            assert_eq!(ended.len(), 40);
            drop(tasks);
        });
    }

    /// Faults 97.
    #[test]
    fn those_that_are_woken_together_do_not_come_together() {
        run(async {
            let waits = Arc::new(Waits::default());
            let mut tasks = JoinSet::new();
            for _ in 0..64 {
                let waits = Arc::clone(&waits);
                tasks.spawn(async move {
                    let start = Instant::now();
                    waits.pause(HOUR, SECOND).await;
                    start.elapsed()
                });
            }
            tokio::time::sleep(MOMENT).await;
            (0..32).for_each(|_| waits.succeeded());
            let times: Vec<_> = tasks.join_all().await;
            // The timer counts in milliseconds.
            assert!(times.iter().all(|&time| time <= SECOND + 2 * MOMENT));
            let early = times.iter().filter(|&&time| time < SECOND / 2).count();
            assert!((10..=54).contains(&early), "{early} of 64 in the first half");
        });
    }

    #[test]
    fn a_success_with_nobody_waiting_shortens_no_later_wait() {
        run(async {
            let waits = Arc::new(Waits::default());
            waits.succeeded();
            let start = Instant::now();
            waits.pause(HOUR, SECOND).await;
            assert_eq!(start.elapsed(), HOUR);
        });
    }

    #[test]
    fn a_success_right_after_another_shortens_no_later_wait() {
        run(async {
            let waits = Arc::new(Waits::default());
            let tasks = waiting(&waits, 1).await;
            waits.succeeded();
            tokio::task::yield_now().await;
            // The one that was woken is on its way, and hears no more.
            waits.succeeded();
            tasks.join_all().await;
            let start = Instant::now();
            waits.pause(HOUR, SECOND).await;
            assert_eq!(start.elapsed(), HOUR);
        });
    }

    #[test]
    fn when_there_is_no_later_all_go_at_once_and_later_waits_are_short() {
        run(async {
            let waits = Arc::new(Waits::default());
            let tasks = waiting(&waits, 10).await;
            let start = Instant::now();
            waits.hurry();
            tasks.join_all().await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            waits.pause(HOUR, SECOND).await;
            assert_eq!(start.elapsed(), SECOND);
        });
    }
}
