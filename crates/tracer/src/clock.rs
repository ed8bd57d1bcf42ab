//! The time of day at the price of a counter read.
//!
//! A span stores raw ticks where it starts; both its ends are turned into nanoseconds where it
//! ends, by one and the same line through two anchors. So a duration is never negative, whatever
//! the wall clock does meanwhile, and nothing has to be measured before the first span may start.
//! Where the wall clock steps while a span is open, both its ends are on the new side.
//!
//! Ticks are those of the time stamp counter where the processor guarantees a constant rate and the
//! kernel itself keeps time by it; elsewhere they are nanoseconds of [`Instant`].

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Between an anchor and the reading that gives the line its slope. Reading a clock pair is some
/// 100 ns uncertain, so 10 ms give 10 parts in a million, and each later anchor gives better.
const SETTLED_AFTER: Duration = Duration::from_millis(10);

/// Counts anchors; a thread whose line is of an older count fetches the new one.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The generation of a line that is to be asked for again with the next span.
const NEVER_CURRENT: u64 = u64::MAX;

/// The process's clock, behind a lock that is taken once a thread and anchor.
static STATE: Mutex<Option<State>> = Mutex::new(None);

type StateGuard = MutexGuard<'static, Option<State>>;

/// A line from ticks to nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
struct Line {
    generation: u64,
    ticks: u64,
    unix_nano: u64,
    /// Nanoseconds a tick, times 2^32.
    slope: u64,
}

impl Line {
    /// The line of a thread that has not asked yet.
    const UNKNOWN: Self = Self { generation: NEVER_CURRENT, ticks: 0, unix_nano: 0, slope: 0 };

    #[inline]
    fn unix_nanos(&self, start: u64, end: u64) -> (u64, u64) {
        // The end has fewer ticks where the counters of two processors differ a little, or where the
        // counter began anew meanwhile: then the start means nothing.
        let start = start.min(end);
        let unix_nano = match start.checked_sub(self.ticks) {
            Some(since) => self.unix_nano.wrapping_add(self.nanos(since)),
            // It started before the anchor was moved.
            None => self.unix_nano.saturating_sub(self.nanos(self.ticks - start)),
        };
        (unix_nano, unix_nano.wrapping_add(self.nanos(end - start)))
    }

    #[inline]
    fn nanos(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.slope)) >> 32) as u64
    }

    #[cold]
    fn current() -> Self {
        lock().get_or_insert_with(State::new).line()
    }
}

thread_local! {
    static LINE: Cell<Line> = const { Cell::new(Line::UNKNOWN) };

    /// The lock, while this thread forks.
    static HELD: Cell<Option<StateGuard>> = const { Cell::new(None) };
}

fn lock() -> StateGuard {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps other threads out until [`release`], so that a child finds the clock whole and unlocked.
/// Nothing else if this thread does so already.
pub(crate) fn hold() {
    // A thread in its last moments has no place for it, and then holds nothing.
    let _held = HELD.try_with(|held| held.set(Some(held.take().unwrap_or_else(lock))));
}

/// Ends [`hold`].
pub(crate) fn release() {
    let _held = HELD.try_with(|held| drop(held.take()));
}

/// The time of both ends of a span in nanoseconds since the Unix epoch; the second is never before
/// the first.
#[inline]
pub(crate) fn unix_nanos(start: u64, end: u64) -> (u64, u64) {
    let mut line = LINE.get();
    if line.generation != GENERATION.load(Ordering::Relaxed) {
        line = Line::current();
        LINE.set(line);
    }
    line.unix_nanos(start, end)
}

/// Now, in nanoseconds since the Unix epoch, on the line that spans' ends lie on.
pub(crate) fn unix_nano() -> u64 {
    let now = ticks();
    unix_nanos(now, now).0
}

/// Nanoseconds since the Unix epoch; zero before it, the largest number after the year 2554.
pub(crate) fn unix_nano_of(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Moves the anchor to now, which follows the wall clock and sharpens the slope.
///
/// Whoever drains spans calls it about once a second. Without it, times drift from the wall clock
/// by about 10 parts in a million.
pub(crate) fn anchor() {
    lock().get_or_insert_with(State::new).anchor(Anchor::now());
}

/// How often the anchor was moved.
#[cfg(test)]
pub(crate) fn anchored() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Readings of the three clocks that make an anchor.
const TRIES: usize = 4;

#[derive(Clone, Copy)]
struct Anchor {
    ticks: u64,
    instant: Instant,
    unix_nano: u64,
}

impl Anchor {
    /// Readings at one moment: of a few tries the one that was interrupted least.
    fn now() -> Self {
        let tries = (0..TRIES).map(|_| {
            let before = ticks();
            let instant = Instant::now();
            let wall = SystemTime::now();
            let took = ticks().saturating_sub(before);
            (took, Self { ticks: before + took / 2, instant, unix_nano: unix_nano_of(wall) })
        });
        let (_, best) = tries.min_by_key(|(took, _)| *took).expect("TRIES > 0");
        best
    }

    /// The slope of the line from an earlier anchor, once they are far enough apart to give one.
    fn slope_from(&self, earlier: &Self) -> Option<u64> {
        let nanos = self.instant.saturating_duration_since(earlier.instant).as_nanos();
        let ticks = self.ticks.checked_sub(earlier.ticks).filter(|&ticks| ticks > 0)?;
        u64::try_from((nanos << 32) / u128::from(ticks)).ok().filter(|&slope| slope > 0)
    }
}

struct State {
    anchor: Anchor,
    /// Whether ticks are nanoseconds, so that there is no slope to be measured.
    ticks_are_nanos: bool,
    /// The slope, once two anchors lie [`SETTLED_AFTER`] apart.
    settled: Option<u64>,
    /// A slope measured last that was too different.
    doubted: Option<u64>,
}

impl State {
    fn new() -> Self {
        let state = Self::starting(Anchor::now(), !counter::usable());
        GENERATION.fetch_add(1, Ordering::Relaxed);
        state
    }

    fn starting(anchor: Anchor, ticks_are_nanos: bool) -> Self {
        let settled = ticks_are_nanos.then_some(1 << 32);
        Self { anchor, ticks_are_nanos, settled, doubted: None }
    }

    fn line(&mut self) -> Line {
        let slope = match self.settled {
            Some(slope) => slope,
            None => {
                // Young: a line through the anchor and this very moment, exact in between.
                let now = Anchor::now();
                let slope = now.slope_from(&self.anchor).unwrap_or(1 << 32);
                if now.instant.duration_since(self.anchor.instant) < SETTLED_AFTER {
                    let Anchor { ticks, unix_nano, .. } = self.anchor;
                    return Line { generation: NEVER_CURRENT, ticks, unix_nano, slope };
                }
                self.settled = Some(slope);
                slope
            }
        };
        let generation = GENERATION.load(Ordering::Relaxed);
        let Anchor { ticks, unix_nano, .. } = self.anchor;
        Line { generation, ticks, unix_nano, slope }
    }

    fn anchor(&mut self, now: Anchor) {
        if now.instant.duration_since(self.anchor.instant) < SETTLED_AFTER {
            return;
        }
        if let (false, Some(slope)) = (self.ticks_are_nanos, now.slope_from(&self.anchor)) {
            self.settle(slope);
        }
        self.anchor = now;
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }

    /// Believes a slope that is about the last one, or the second one in a row that is not: while a
    /// machine sleeps, the counter may go on and the monotonic clock does not, and what is measured
    /// across that is no property of the counter.
    fn settle(&mut self, slope: u64) {
        // More than any clock is adjusted by, and than two readings 10 ms apart are uncertain.
        let is_about = |known: u64| known.abs_diff(slope) <= known >> 7;
        if self.settled.is_none_or(is_about) || self.doubted.is_some_and(is_about) {
            self.settled = Some(slope);
            self.doubted = None;
        } else {
            self.doubted = Some(slope);
        }
    }
}

/// Now, in ticks of unknown length that never run backwards on one thread.
#[inline]
pub(crate) fn ticks() -> u64 {
    counter::read().unwrap_or_else(monotonic_nanos)
}

fn monotonic_nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod counter {
    use std::sync::atomic::{AtomicU8, Ordering};

    const UNKNOWN: u8 = 0;
    const USABLE: u8 = 1;
    const UNUSABLE: u8 = 2;

    static VERDICT: AtomicU8 = AtomicU8::new(UNKNOWN);

    #[inline]
    pub(super) fn read() -> Option<u64> {
        if VERDICT.load(Ordering::Relaxed) != USABLE && !usable() {
            return None;
        }
        #[expect(unsafe_code, reason = "the intrinsic is declared unsafe")]
        // SAFETY: `rdtsc` reads a register, takes no operand, and every x86-64 processor has it.
        // Worth it: 2 reads a span; benches/cpu_benchmarks.rs `clock` measures it against `Instant`.
        Some(unsafe { core::arch::x86_64::_rdtsc() })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn usable() -> bool {
        match VERDICT.load(Ordering::Relaxed) {
            UNKNOWN => {
                let usable = has_constant_rate() && kernel_trusts_it();
                VERDICT.store(if usable { USABLE } else { UNUSABLE }, Ordering::Relaxed);
                usable
            }
            verdict => verdict == USABLE,
        }
    }

    /// "Invariant TSC", CPUID leaf 0x8000_0007, EDX bit 8.
    fn has_constant_rate() -> bool {
        use core::arch::x86_64::__cpuid;
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0
    }

    /// The kernel watches the counters of all processors and leaves them where they disagree.
    fn kernel_trusts_it() -> bool {
        let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc")
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod counter {
    pub(super) fn read() -> Option<u64> {
        None
    }

    pub(super) fn usable() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix_nano_now() -> u64 {
        Anchor::now().unix_nano
    }

    #[test]
    fn a_span_lies_between_the_wall_clock_readings_around_it() {
        for _ in 0..1_000 {
            let before = unix_nano_now();
            let (start, end) = unix_nanos(ticks(), ticks());
            let after = unix_nano_now();
            assert!(start <= end);
            // A microsecond for the anchors' uncertainty, ten parts in a million for the slope,
            // and room for an adjustment of the wall clock between the readings.
            let slack = 1_000_000;
            assert!(
                before <= start + slack && end <= after + slack,
                "{before} {start} {end} {after}"
            );
        }
    }

    #[test]
    fn an_end_with_fewer_ticks_than_the_start_gives_an_empty_span() {
        let now = ticks();
        let (start, end) = unix_nanos(now, now - 1_000);
        assert_eq!(start, end);
    }

    #[test]
    fn a_duration_is_the_same_before_and_after_the_anchor_has_moved() {
        let line = Line { generation: 1, ticks: 1_000, unix_nano: 5_000_000, slope: 1 << 31 };
        let moved = Line { ticks: 9_000, unix_nano: 77_000_000, ..line };
        assert_eq!(line.unix_nanos(1_000, 3_000), (5_000_000, 5_001_000));
        assert_eq!(moved.unix_nanos(1_000, 3_000), (76_996_000, 76_997_000), "before its anchor");
    }

    /// A counter of 3 ticks a nanosecond, a second after the process began and a second later.
    fn settled_state() -> State {
        let first = Anchor {
            ticks: 3_000_000_000,
            instant: Instant::now(),
            unix_nano: 1_700_000_000_000_000_000,
        };
        let mut state = State::starting(first, false);
        state.anchor(later(&first, 3_000_000_000, Duration::from_secs(1), 0));
        state
    }

    /// An anchor so many ticks and so much monotonic time later, the wall clock set by so many seconds.
    fn later(anchor: &Anchor, ticks: u64, elapsed: Duration, step_secs: i64) -> Anchor {
        let nanos = elapsed.as_nanos() as i64 + step_secs * 1_000_000_000;
        Anchor {
            ticks: anchor.ticks + ticks,
            instant: anchor.instant + elapsed,
            unix_nano: anchor.unix_nano.saturating_add_signed(nanos),
        }
    }

    /// Within a nanosecond, for what the slope's rounding takes.
    fn assert_about(found: u64, expected: u64) {
        assert!(found.abs_diff(expected) <= 1, "{found} is not {expected}");
    }

    /// Faults 136.
    #[test]
    fn a_wall_clock_that_steps_while_a_span_is_open_leaves_its_duration() {
        for step_secs in [-3_600, 3_600] {
            let mut state = settled_state();
            let start = state.anchor.ticks + 300_000;
            let now = later(&state.anchor, 3_000_000_000, Duration::from_secs(1), step_secs);
            state.anchor(now);
            let (started, ended) = state.line().unix_nanos(start, now.ticks + 600_000);
            assert_about(ended - started, 1_000_000_000 - 100_000 + 200_000);
            assert_about(ended, now.unix_nano + 200_000);
        }
    }

    /// Faults 136.
    #[test]
    fn a_wall_clock_that_is_slewed_is_followed_and_leaves_durations_alone() {
        let mut state = settled_state();
        for _ in 0..100 {
            let mut now = later(&state.anchor, 3_000_000_000, Duration::from_secs(1), 0);
            now.unix_nano += 500_000; // 500 parts in a million, the most a slew is
            state.anchor(now);
            let (started, ended) = state.line().unix_nanos(now.ticks - 3_000_000, now.ticks);
            assert_about(ended - started, 1_000_000);
            assert_about(ended, now.unix_nano);
        }
    }

    /// Faults 136.
    #[test]
    fn a_suspended_machine_does_not_change_the_length_of_a_tick() {
        let mut state = settled_state();
        let slope = state.settled;
        // The counter and the wall clock go on for an hour, the monotonic clock for a second.
        let now = later(&state.anchor, 3_601 * 3_000_000_000, Duration::from_secs(1), 3_600);
        state.anchor(now);
        let (started, ended) = state.line().unix_nanos(now.ticks + 3_000, now.ticks + 9_000);
        assert_about(started, now.unix_nano + 1_000);
        assert_about(ended - started, 2_000);
        state.anchor(later(&now, 3_000_000_000, Duration::from_secs(1), 0));
        assert_eq!((state.settled, state.doubted), (slope, None));
    }

    /// Faults 136.
    #[test]
    fn a_counter_that_begins_anew_gives_a_span_across_that_no_length() {
        let mut state = settled_state();
        let start = state.anchor.ticks + 300_000;
        let now = Anchor { ticks: 900, ..later(&state.anchor, 0, Duration::from_secs(1), 3_600) };
        state.anchor(now);
        let line = state.line();
        let (started, ended) = line.unix_nanos(start, 1_500);
        assert_eq!(started, ended);
        assert_about(ended, now.unix_nano + 200);
        let (started, ended) = line.unix_nanos(1_500, 4_500);
        assert_about(ended - started, 1_000);
    }

    /// Faults 136.
    #[test]
    fn a_tick_of_another_length_is_believed_when_it_was_measured_twice() {
        let mut state = settled_state();
        let before = state.settled;
        // A virtual machine that has moved to a processor of 2 ticks a nanosecond.
        state.anchor(later(&state.anchor.clone(), 2_000_000_000, Duration::from_secs(1), 0));
        assert_eq!(state.settled, before);
        state.anchor(later(&state.anchor.clone(), 2_000_000_000, Duration::from_secs(1), 0));
        assert_eq!(state.settled, Some(1 << 31));
    }

    /// Pitfall 14.
    #[test]
    fn a_clock_is_there_at_once_and_need_not_be_calibrated_first() {
        let made = || {
            let since = Instant::now();
            let (started, before) = (ticks(), Instant::now());
            let mut state = State::new();
            let (ended, after) = (ticks(), Instant::now());
            let (start, end) = state.line().unix_nanos(started, ended);
            let took = since.elapsed();
            let nanos = after.duration_since(before).as_nanos() as u64;
            // The readings around the span are as uncertain as one of them takes.
            assert!((end - start).abs_diff(nanos) < nanos / 2 + 50_000, "{start} {end} {nanos}");
            took
        };
        // Of many, for a machine that is busy.
        let fastest = (0..50).map(|_| made()).min();
        assert!(fastest < Some(Duration::from_millis(2)), "{fastest:?}");
    }

    #[test]
    fn a_slope_needs_ticks_between_the_anchors() {
        let anchor = Anchor::now();
        assert_eq!(anchor.slope_from(&anchor), None);
        let later = Anchor {
            ticks: anchor.ticks + 3_000_000,
            instant: anchor.instant + Duration::from_millis(1),
            ..anchor
        };
        assert_eq!(later.slope_from(&anchor), Some((1 << 32) / 3));
    }
}
