//! How a destination fares, by its last attempts.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the attempts at one destination came to.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Attempts that may be made again.
    failing: Option<Failing>,
    /// Requests refused for good, with none taken between them.
    refusing: Option<Failing>,
    /// Requests on their way.
    in_flight: usize,
    /// Since when none of these has come to anything.
    silent: Option<Instant>,
    /// When that was told last.
    told: Option<Instant>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    attempts: u64,
    error: Box<str>,
    /// When a request was taken apart last though everything is refused.
    looked: Option<Instant>,
}

/// Why a destination is not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ailment {
    pub(crate) lasted: Duration,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Fails {
        attempts: u64,
        error: Box<str>,
    },
    /// It neither takes spans nor refuses them: a disk that hangs, a pipe that nobody reads.
    TakesNothing {
        /// That wait, or are on their way.
        spans: u64,
    },
}

impl What {
    /// The last error, or what stands for one.
    pub(crate) fn error(self) -> String {
        match self {
            Self::Fails { error, .. } => error.into(),
            Self::TakesNothing { .. } => "it takes nothing, and does not say why".to_owned(),
        }
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasted.as_secs();
        match &self.what {
            What::Fails { attempts: 1, error } => {
                write!(f, "fails for {seconds} s, 1 attempt: {error}")
            }
            What::Fails { attempts, error } => {
                write!(f, "fails for {seconds} s, {attempts} attempts: {error}")
            }
            What::TakesNothing { spans } => {
                write!(f, "has taken nothing for {seconds} s; spans that wait: {spans}")
            }
        }
    }
}

/// A destination that had nothing to do for so long after its last failure may be well again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Longer than a destination mostly takes to answer, or is given to.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// What lasts is told again after this long.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// A destination that refused so many, for so long, and took none, refuses everything.
const REFUSED_MIN: u64 = 32;
const LOOK: Duration = Duration::from_secs(10);

impl Health {
    /// A request is on its way, until what is returned is dropped.
    pub(crate) fn in_flight(&self) -> InFlight<'_> {
        self.state().began(Instant::now());
        InFlight(self)
    }

    pub(crate) fn succeeded(&self, now: Instant) {
        let mut state = self.state();
        state.heard(now);
        (state.failing, state.refusing) = (None, None);
    }

    /// The same bytes may pass later.
    pub(crate) fn failed(&self, error: &str, now: Instant) {
        let mut state = self.state();
        state.heard(now);
        Failing::again(&mut state.failing, error, now);
    }

    /// The destination answered, and refused the request for good. One such request is the fault of
    /// its sender; one after the other is a wrong path, or key, or destination.
    pub(crate) fn refused(&self, error: &str, now: Instant) {
        let mut state = self.state();
        state.heard(now);
        state.failing = None;
        Failing::again(&mut state.refusing, error, now);
    }

    /// Whether a request that was refused for good is to be taken apart, to find the part that spoils
    /// it. Where the destination takes nothing at all, that would be twice as many requests as there
    /// are parts, of every request and for nothing; it is looked at once in a while then.
    pub(crate) fn halves(&self, now: Instant) -> bool {
        let mut state = self.state();
        let Some(refusing) = &mut state.refusing else { return true };
        let lasted = now.saturating_duration_since(refusing.since);
        if refusing.attempts < REFUSED_MIN || lasted < LOOK {
            return true;
        }
        let is_due = refusing.looked.is_none_or(|looked| now >= looked + LOOK);
        if is_due {
            refusing.looked = Some(now);
        }
        is_due
    }

    /// What fails, if the last attempt did, or that there has been no end of one for long. `queued` are
    /// the spans that wait, or are on their way: where there are none, a failure is forgotten in time.
    pub(crate) fn ailment(&self, now: Instant, queued: u64) -> Option<Ailment> {
        self.state().ailment(now, queued)
    }

    /// That nothing is taken, where it is time to tell: no failure does.
    pub(crate) fn news(&self, now: Instant, queued: u64) -> Option<Ailment> {
        let mut state = self.state();
        let ailment = state.ailment(now, queued);
        let ailment =
            ailment.filter(|ailment| matches!(ailment.what, What::TakesNothing { .. }))?;
        if state.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_FOR) {
            return None;
        }
        state.told = Some(now);
        Some(ailment)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way, however that ends.
pub(crate) struct InFlight<'a>(&'a Health);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.state().ended(Instant::now());
    }
}

impl State {
    fn began(&mut self, now: Instant) {
        self.in_flight += 1;
        self.silent.get_or_insert(now);
    }

    fn ended(&mut self, now: Instant) {
        self.in_flight -= 1;
        self.heard(now);
    }

    /// Some attempt came to an end, whichever.
    fn heard(&mut self, now: Instant) {
        self.silent = (self.in_flight > 0).then_some(now);
        self.told = None;
    }

    fn ailment(&self, now: Instant, queued: u64) -> Option<Ailment> {
        let fails = |failing: &Option<Failing>, until: Option<Instant>| {
            let lasts = |failing: &&Failing| {
                queued > 0 || now.saturating_duration_since(failing.last) < FORGOTTEN_AFTER
            };
            let failing = failing.as_ref().filter(lasts)?;
            let lasted = until.unwrap_or(failing.last).saturating_duration_since(failing.since);
            let (attempts, error) = (failing.attempts, failing.error.clone());
            Some(Ailment { lasted, what: What::Fails { attempts, error } })
        };
        let silent = || {
            let lasted = now.saturating_duration_since(self.silent?);
            let what = What::TakesNothing { spans: queued };
            (queued > 0 && lasted >= SILENT_MAX).then_some(Ailment { lasted, what })
        };
        fails(&self.failing, Some(now)).or_else(silent).or_else(|| fails(&self.refusing, None))
    }
}

impl Failing {
    fn again(before: &mut Option<Self>, error: &str, now: Instant) {
        let failing = before.get_or_insert_with(|| Self {
            since: now,
            last: now,
            attempts: 0,
            error: Box::default(),
            looked: None,
        });
        failing.last = now;
        failing.attempts += 1;
        failing.error = error.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_ailment_lasts_from_the_first_failure_to_the_next_success() {
        let (health, start) = (Health::default(), Instant::now());
        assert_eq!(health.ailment(start, 1), None);
        health.failed("refused", start);
        health.failed("timed out", start + seconds(1));
        let ailment = health.ailment(start + seconds(5), 1).expect("it fails");
        let what = What::Fails { attempts: 2, error: "timed out".into() };
        assert_eq!(ailment, Ailment { lasted: seconds(5), what });
        assert_eq!(ailment.to_string(), "fails for 5 s, 2 attempts: timed out");
        health.succeeded(start + seconds(5));
        assert_eq!(health.ailment(start, 1), None);
    }

    #[test]
    fn a_failure_is_forgotten_once_there_was_nothing_to_do_for_a_while() {
        let (health, start) = (Health::default(), Instant::now());
        health.failed("timed out", start);
        assert!(health.ailment(start + seconds(29), 0).is_some());
        assert!(health.ailment(start + seconds(31), 1).is_some(), "spans wait for it");
        assert_eq!(health.ailment(start + seconds(31), 0), None);
    }

    #[test]
    fn requests_refused_one_after_the_other_are_an_ailment_and_a_single_one_is_none_that_lasts() {
        let (health, start) = (Health::default(), Instant::now());
        health.refused("HTTP 404", start);
        let lasted = |now| health.ailment(now, 1).map(|ailment| ailment.lasted);
        assert_eq!(lasted(start + seconds(20)), Some(Duration::ZERO));
        health.refused("HTTP 404", start + seconds(20));
        assert_eq!(lasted(start + seconds(25)), Some(seconds(20)));
        health.succeeded(start + seconds(25));
        assert_eq!(lasted(start + seconds(25)), None);
        health.refused("HTTP 400", start + seconds(26));
        assert_eq!(lasted(start + seconds(27)), Some(Duration::ZERO));
    }

    #[test]
    fn a_destination_that_refuses_everything_is_sent_parts_once_in_a_while_until_it_takes_one() {
        let (health, start) = (Health::default(), Instant::now());
        assert!(health.halves(start));
        (0..100).for_each(|_| health.refused("HTTP 400", start));
        assert!(health.halves(start + seconds(9)), "it may have been one sender's fault");
        let looks = (10..40).filter(|&second| health.halves(start + seconds(second)));
        assert_eq!(looks.collect::<Vec<_>>(), [10, 20, 30]);
        health.succeeded(start + seconds(40));
        health.refused("HTTP 400", start + seconds(40));
        assert!((41..80).all(|second| health.halves(start + seconds(second))), "a single one");
    }

    #[test]
    fn what_neither_takes_nor_refuses_spans_is_an_ailment_after_a_while() {
        let (health, start) = (Health::default(), Instant::now());
        let text = |second, queued| {
            let ailment = health.ailment(start + seconds(second), queued);
            ailment.map(|ailment| ailment.to_string())
        };
        assert_eq!(
            text(1_000, 500),
            None,
            "spans wait for their batch to grow, none is on its way"
        );
        health.state().began(start);
        assert_eq!(text(29, 500), None);
        let silent = "has taken nothing for 30 s; spans that wait: 500";
        assert_eq!(text(30, 500).as_deref(), Some(silent));
        assert_eq!(text(30, 0), None);
        health.state().began(start + seconds(31));
        assert!(text(31, 500).is_some(), "one more on its way is no sign of life");
        health.succeeded(start + seconds(32));
        assert_eq!(text(61, 500), None);
        assert!(text(62, 500).is_some(), "the other one is on its way still");
        health.refused("HTTP 400", start + seconds(63));
        assert!(text(93, 500).is_some_and(|text| text.contains("taken nothing")));
        health.state().ended(start + seconds(94));
        health.state().ended(start + seconds(95));
        assert!(text(200, 500).is_none_or(|text| !text.contains("taken nothing")));
    }

    #[test]
    fn that_nothing_is_taken_is_told_once_a_minute_and_anew_when_it_happens_again() {
        let (health, start) = (Health::default(), Instant::now());
        health.state().began(start);
        let told = |from: u64, to| {
            let news =
                (from..to).filter(|&second| health.news(start + seconds(second), 1).is_some());
            news.collect::<Vec<_>>()
        };
        assert_eq!(told(0, 100), [30, 90]);
        health.succeeded(start + seconds(100));
        assert_eq!(told(100, 150), [130]);
        health.failed("timed out", start + seconds(150));
        assert_eq!(told(150, 400), Vec::<u64>::new(), "a failure is told where it happens");
    }
}
