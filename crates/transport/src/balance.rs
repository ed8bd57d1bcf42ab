//! Which of several endpoints takes the next attempt, as a pure state machine.

use std::time::{Duration, Instant};

/// Goes round the endpoints that are in, and passes over those that failed for a growing time, or
/// for as long as they asked.
///
/// An endpoint whose time is over gets one attempt, a trial; only an answer lets it in again, so a
/// dead one costs an attempt now and then and not its share of all. It owns no clock: `now` is
/// passed in.
#[derive(Debug)]
pub(crate) struct Balance {
    /// `None` is in.
    places: Box<[Option<Out>]>,
    next: usize,
}

/// One attempt's endpoint, to be reported with its outcome. Not reporting it does no harm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick {
    /// Index of the endpoint.
    pub(crate) index: usize,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    /// Failures since the last answer, attempts that ran at the same time counted once.
    failures: u32,
    /// When the last of them was seen.
    failed: Instant,
    /// When it was put out, or tried since.
    tried: Instant,
    /// It has asked for quiet until then.
    quiet_until: Instant,
    /// When it may be tried again.
    until: Instant,
}

impl Balance {
    /// For `places` endpoints, of which there must be one at least.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: vec![None; places.max(1)].into(), next: 0 }
    }

    /// The next endpoint that is in or due for a trial. If there is none, the one out longest of
    /// those that did not ask for quiet; and if all did, the one whose quiet is over first.
    pub(crate) fn pick(&mut self, now: Instant) -> Pick {
        let count = self.places.len();
        let last_resort =
            |&index: &usize| self.places[index].map(|out| (out.quiet_until.max(now), out.tried));
        let index = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|&index| is_due(self.places[index], now))
            .or_else(|| (0..count).min_by_key(last_resort))
            .unwrap_or_default();
        self.next = (index + 1) % count;
        if let Some(out) = &mut self.places[index] {
            // One trial at a time: the others wait for its outcome, or for as long again.
            out.tried = now;
            out.until = out.quiet_until.max(now + penalty(out.failures));
        }
        Pick { index, at: now }
    }

    /// The endpoint answered.
    pub(crate) fn answered(&mut self, pick: Pick, now: Instant) {
        let place = &mut self.places[pick.index];
        // An answer to one request does not take back what was asked in that to another.
        if place.is_none_or(|out| out.quiet_until <= now) {
            *place = None;
        }
    }

    /// The endpoint could not be reached, broke off, said that it is away, or `asked` for quiet.
    /// Longer than [`QUIET_MAX`] counts as that.
    pub(crate) fn failed(&mut self, pick: Pick, now: Instant, asked: Duration) {
        let quiet_until = now + asked.min(QUIET_MAX);
        let place = &mut self.places[pick.index];
        let failures = match place {
            // An attempt from before is the same failure seen again.
            Some(out) if pick.at < out.failed => {
                out.quiet_until = out.quiet_until.max(quiet_until);
                out.until = out.until.max(quiet_until);
                return;
            }
            Some(out) => out.failures.saturating_add(1),
            None => 1,
        };
        let quiet_until = place.map_or(quiet_until, |out| out.quiet_until.max(quiet_until));
        let until = quiet_until.max(now + penalty(failures));
        *place = Some(Out { failures, failed: now, tried: now, quiet_until, until });
    }

    /// The least time until an endpoint other than `index` is in or due for a trial; `None` if
    /// there is no other. Zero means that one can be tried now.
    pub(crate) fn others_due_in(&self, index: usize, now: Instant) -> Option<Duration> {
        let others = self.places.iter().enumerate().filter(|&(other, _)| other != index);
        let left = |place: &Option<Out>| {
            place.map_or(Duration::ZERO, |out| out.until.saturating_duration_since(now))
        };
        others.map(|(_, place)| left(place)).min()
    }
}

fn is_due(place: Option<Out>, now: Instant) -> bool {
    place.is_none_or(|out| out.until <= now)
}

/// 1 s after the first failure, doubling up to 64 s.
fn penalty(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(PENALTY_DOUBLINGS_MAX))
}

const PENALTY_DOUBLINGS_MAX: u32 = 6;

/// The longest that an endpoint is left alone because it asked: no answer decides for a day.
pub(crate) const QUIET_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn attempts_go_round_the_endpoints() {
        let now = Instant::now();
        let mut balance = Balance::new(3);
        let picked: Vec<usize> = (0..7).map(|_| balance.pick(now).index).collect();
        assert_eq!(picked, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_failed_endpoint_is_passed_over_for_a_growing_time_and_tried_once_then() {
        let mut now = Instant::now();
        let mut balance = Balance::new(2);
        for penalty in [1, 2, 4, 8, 16, 32, 64, 64] {
            let failing = loop {
                let pick = balance.pick(now);
                if pick.index == 0 {
                    break pick;
                }
            };
            balance.failed(failing, now, Duration::ZERO);
            now += seconds(penalty) - Duration::from_nanos(1);
            assert!((0..4).all(|_| balance.pick(now).index == 1), "before {penalty} s are over");
            now += Duration::from_nanos(1);
        }
        // Due now; while its trial runs the other takes the rest.
        let picked: Vec<usize> = (0..4).map(|_| balance.pick(now).index).collect();
        assert_eq!(picked.iter().filter(|&&index| index == 0).count(), 1, "{picked:?}");
    }

    #[test]
    fn an_answer_lets_an_endpoint_in_again() {
        let now = Instant::now();
        let mut balance = Balance::new(2);
        let pick = balance.pick(now);
        balance.failed(pick, now, Duration::ZERO);
        balance.answered(pick, now);
        let picked: Vec<usize> = (0..4).map(|_| balance.pick(now).index).collect();
        assert_eq!(picked, [1, 0, 1, 0]);
    }

    #[test]
    fn attempts_that_fail_together_count_once() {
        let now = Instant::now();
        let mut balance = Balance::new(1);
        let picks: Vec<Pick> = (0..16).map(|_| balance.pick(now)).collect();
        let later = now + seconds(5);
        picks.iter().for_each(|&pick| balance.failed(pick, later, Duration::ZERO));
        assert_eq!(balance.places[0].map(|out| out.failures), Some(1));
    }

    #[test]
    fn with_all_out_the_one_out_longest_is_tried() {
        let now = Instant::now();
        let mut balance = Balance::new(3);
        let picks: Vec<Pick> = (0..3).map(|_| balance.pick(now)).collect();
        for (index, after) in [(1, 10), (0, 20), (2, 30)] {
            balance.failed(picks[index], now + Duration::from_millis(after), Duration::ZERO);
        }
        let now = now + Duration::from_millis(40);
        let picked: Vec<usize> =
            (0..4).map(|step| balance.pick(now + Duration::from_millis(step)).index).collect();
        assert_eq!(picked, [1, 0, 2, 1]);
    }

    /// Faults 114.
    #[test]
    fn trials_that_last_longer_than_the_penalty_still_make_it_grow() {
        let start = Instant::now();
        let mut balance = Balance::new(2);
        let mut open: Vec<(Instant, Pick)> = Vec::new();
        let mut attempts = 0;
        for step in 0..3000 {
            let now = start + Duration::from_millis(200 * step);
            for (_, failing) in open.extract_if(.., |(due, _)| *due <= now) {
                balance.failed(failing, now, Duration::ZERO);
            }
            let pick = balance.pick(now);
            if pick.index == 1 {
                balance.answered(pick, now);
                continue;
            }
            attempts += 1;
            open.push((now + seconds(5), pick));
        }
        // Those before the first failure is seen, 5 s of every other pick, and then fewer and fewer.
        assert!((13..50).contains(&attempts), "{attempts} attempts in 600 s");
        assert!(balance.places[0].is_some_and(|out| out.failures > 6), "{balance:?}");
    }

    #[test]
    fn an_endpoint_that_asked_for_quiet_has_it_while_there_is_another_to_try() {
        let now = Instant::now();
        let mut balance = Balance::new(2);
        let (throttled, other) = (balance.pick(now), balance.pick(now));
        let answered_late = throttled;
        balance.failed(throttled, now, seconds(30));
        balance.answered(answered_late, now);
        let all = |balance: &mut Balance, at| -> Vec<usize> {
            (0..4).map(|_| balance.pick(at).index).collect()
        };
        assert_eq!(all(&mut balance, now + seconds(29)), [1; 4]);
        // Not even when the other is out, as that one did not ask.
        balance.failed(other, now, Duration::ZERO);
        assert_eq!(all(&mut balance, now), [1; 4]);
        assert!(all(&mut balance, now + seconds(30)).contains(&0));
    }

    #[test]
    fn when_all_asked_for_quiet_the_first_to_have_had_it_is_tried_first() {
        let now = Instant::now();
        let mut balance = Balance::new(2);
        let picks = [balance.pick(now), balance.pick(now)];
        balance.failed(picks[0], now, Duration::MAX);
        assert_eq!(balance.others_due_in(0, now), Some(Duration::ZERO));
        balance.failed(picks[1], now, seconds(60));
        assert_eq!(balance.others_due_in(1, now), Some(QUIET_MAX));
        assert_eq!(balance.others_due_in(0, now), Some(seconds(60)));
        assert_eq!(balance.pick(now).index, 1);
        assert_eq!(Balance::new(1).others_due_in(0, now), None);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Wait(u64),
        Answer,
        Fail,
        Throttle(u64),
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..90_000u64).prop_map(Step::Wait),
            Just(Step::Answer),
            Just(Step::Fail),
            (0..9_000u64).prop_map(Step::Throttle),
            Just(Step::Forget),
        ]
    }

    proptest! {
        /// Whatever happened, an endpoint that is in is preferred to one that is out, and none is
        /// given up: each is tried within the longest time out.
        #[test]
        fn no_endpoint_is_given_up_and_none_that_is_out_goes_before_one_that_is_in(
            places in 1..5usize,
            steps in prop::collection::vec((step(), 0..8usize), 0..200),
        ) {
            let mut now = Instant::now();
            let mut balance = Balance::new(places);
            let mut open: Vec<Pick> = Vec::new();
            for (step, which) in steps {
                if let Step::Wait(millis) = step {
                    now += Duration::from_millis(millis);
                    let pick = balance.pick(now);
                    prop_assert!(pick.index < places);
                    open.push(pick);
                    continue;
                }
                if open.is_empty() {
                    continue;
                }
                let pick = open.swap_remove(which % open.len());
                match step {
                    Step::Answer => balance.answered(pick, now),
                    Step::Fail => balance.failed(pick, now, Duration::ZERO),
                    Step::Throttle(asked) => balance.failed(pick, now, seconds(asked)),
                    Step::Wait(_) | Step::Forget => {}
                }
            }
            let is_in: Vec<bool> = balance.places.iter().map(Option::is_none).collect();
            let due: Vec<bool> =
                balance.places.iter().map(|p| p.is_none_or(|out| out.until <= now)).collect();
            let pick = balance.pick(now);
            prop_assert!(due[pick.index] || !due.contains(&true));
            prop_assert!(is_in[pick.index] || due[pick.index] || !is_in.contains(&true));

            now += penalty(u32::MAX).max(QUIET_MAX);
            let mut tried = vec![false; places];
            (0..places).for_each(|_| tried[balance.pick(now).index] = true);
            prop_assert!(tried.iter().all(|&t| t), "{tried:?} {balance:?}");
        }
    }
}
