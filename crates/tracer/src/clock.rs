//! The time of day at the price of a counter read.
//!
//! A span stores raw ticks where it starts; both its ends are turned into nanoseconds where it
//! ends, by one and the same line through two anchors. So a duration is never negative, whatever
//! the wall clock does meanwhile, and nothing has to be measured before the first span may start.
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
static STATE: OnceLock<Mutex<State>> = OnceLock::new();

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
        let unix_nano = match start.checked_sub(self.ticks) {
            Some(since) => self.unix_nano.wrapping_add(self.nanos(since)),
            // It started before the anchor was moved.
            None => self.unix_nano.saturating_sub(self.nanos(self.ticks - start)),
        };
        // Nothing for an end with fewer ticks, which counters of two processors may give.
        (unix_nano, unix_nano.wrapping_add(self.nanos(end.saturating_sub(start))))
    }

    #[inline]
    fn nanos(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.slope)) >> 32) as u64
    }

    #[cold]
    fn current() -> Self {
        State::lock().line()
    }
}

thread_local! {
    static LINE: Cell<Line> = const { Cell::new(Line::UNKNOWN) };
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
    State::lock().anchor();
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
    /// The slope, once two anchors lie [`SETTLED_AFTER`] apart.
    settled: Option<u64>,
}

impl State {
    fn lock() -> MutexGuard<'static, Self> {
        let state = STATE.get_or_init(|| Mutex::new(Self::new()));
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new() -> Self {
        // Without the counter, ticks are nanoseconds and the slope is known.
        let settled = (!counter::usable()).then_some(1 << 32);
        let state = Self { anchor: Anchor::now(), settled };
        GENERATION.fetch_add(1, Ordering::Relaxed);
        state
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

    fn anchor(&mut self) {
        let now = Anchor::now();
        if now.instant.duration_since(self.anchor.instant) < SETTLED_AFTER {
            return;
        }
        if counter::usable() {
            self.settled = now.slope_from(&self.anchor).or(self.settled);
        }
        self.anchor = now;
        GENERATION.fetch_add(1, Ordering::Relaxed);
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
