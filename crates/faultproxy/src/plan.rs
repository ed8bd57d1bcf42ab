//! What is to happen to connections.

use std::time::Duration;

use fastrand::Rng;

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens to a connection when a direction's bytes reach a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Both sides get a reset (RST), as from a crashed process or a firewall.
    Reset,
    /// Both sides get an orderly end (FIN). On [`Direction::Down`] it truncates an answer.
    Close,
    /// The receiving side gets an end; what the sending side still sends is thrown away, and the
    /// other direction goes on.
    HalfClose,
    /// Nothing more is read in this direction, and nothing is closed, as with a peer that hangs:
    /// the sender can go on until the buffers are full, and its own end or reset is not seen
    /// either. Any later plan lets the bytes go on.
    Stall,
    /// What is sent is read and thrown away, and nothing is closed: a peer that never answers.
    Swallow,
}

/// What happens to connections.
///
/// Latency, jitter and rate apply to each direction by itself. Each direction has one fault at most.
///
/// ```
/// use std::time::Duration;
/// use spanwire_faultproxy::{Direction, Fault, Plan};
///
/// let slow = Plan::healthy().latency(Duration::from_millis(50)).rate(Direction::Up, 10_000);
/// let answer_cut_short = Plan::healthy().fault(Direction::Down, 12, Fault::Close);
/// let black_hole = Plan::healthy().fault(Direction::Up, 0, Fault::Swallow);
/// # let _ = (slow, answer_cut_short, black_hole);
/// ```
#[must_use = "a plan does nothing until `FaultProxy::set`"]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    seed: Option<u64>,
    pub(crate) refuse: bool,
    latency: Option<Duration>,
    jitter: Option<Duration>,
    up: Path,
    down: Path,
}

/// What one direction has to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Path {
    bytes_per_second: Option<u64>,
    fault: Option<(u64, Fault)>,
}

/// What is drawn for one direction of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    pub(crate) latency: Duration,
    pub(crate) jitter: Duration,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) fault: Option<(u64, Fault)>,
}

impl Plan {
    /// Everything passes, at once.
    pub fn healthy() -> Self {
        Self::default()
    }

    /// New connections are accepted and reset at once, and open ones are reset: the server is gone.
    pub fn refuse() -> Self {
        Self { refuse: true, ..Self::default() }
    }

    /// Each connection draws what happens to it from `seed` and its number, counted from 0 since the
    /// proxy's start. What is set on the plan beside stays as it is set.
    ///
    /// | of 100 connections | |
    /// | --- | --- |
    /// | 50 | no fault |
    /// | 5 | refused |
    /// | 45 | one fault in either direction, at a byte below 64 Ki, six times of ten below 256 |
    ///
    /// Of ten faults three are resets, three closes, two half-closes, one a stall and one a swallow.
    /// Half of all connections have a latency of up to 20 ms and a jitter of up to half of it, and
    /// one in four is limited to between 64 KiB/s and 4 MiB/s each way.
    pub fn seeded(seed: u64) -> Self {
        Self { seed: Some(seed), ..Self::default() }
    }

    /// Delays each byte by `latency` on its way. Connections are still accepted at once.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }

    /// Adds a random delay below `jitter` to the latency. Bytes never overtake one another.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// Lets at most so many bytes a second pass; 0 counts as 1.
    pub fn rate(mut self, direction: Direction, bytes_per_second: u64) -> Self {
        self.path_mut(direction).bytes_per_second = Some(bytes_per_second.max(1));
        self
    }

    /// Lets `after` bytes pass in this direction, and no more. With 0 the first byte strikes.
    pub fn fault(mut self, direction: Direction, after: u64, fault: Fault) -> Self {
        self.path_mut(direction).fault = Some((after, fault));
        self
    }

    /// What happens to the connection of this number: what a failing run should print.
    pub fn drawn(&self, connection: u64) -> Self {
        let mut plan = self.clone();
        let Some(seed) = plan.seed.take() else { return plan };
        let mut random = generator(seed, connection);
        // Drawn whether used or not: what is set beside must not shift the rest.
        let latency = millis(random.u64(0..=20) * u64::from(random.bool()));
        let jitter = latency.mul_f64(random.f64() / 2.0);
        let rate = random.u64(64 << 10..=4 << 20);
        let is_limited = random.u8(0..4) == 0;
        let lot = random.u8(0..100);
        let direction = if random.bool() { Direction::Up } else { Direction::Down };
        // The bound's logarithm is what is even, so that heads and handshakes are struck often.
        let bound = 1 << random.u32(0..=16);
        let after = random.u64(0..bound);
        let fault = match random.u8(0..10) {
            0..3 => Fault::Reset,
            3..6 => Fault::Close,
            6..8 => Fault::HalfClose,
            8 => Fault::Stall,
            _ => Fault::Swallow,
        };

        plan.latency.get_or_insert(latency);
        plan.jitter.get_or_insert(jitter);
        if is_limited {
            plan.up.bytes_per_second.get_or_insert(rate);
            plan.down.bytes_per_second.get_or_insert(rate);
        }
        match lot {
            0..50 => {}
            50..55 => plan.refuse = true,
            _ => {
                plan.path_mut(direction).fault.get_or_insert((after, fault));
            }
        }
        plan
    }

    /// One direction of a plan that was [`drawn`](Self::drawn).
    pub(crate) fn course(&self, direction: Direction) -> Course {
        let path = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        Course {
            latency: self.latency.unwrap_or_default(),
            jitter: self.jitter.unwrap_or_default(),
            bytes_per_second: path.bytes_per_second,
            fault: path.fault,
        }
    }

    fn path_mut(&mut self, direction: Direction) -> &mut Path {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

/// A generator for one thing that is drawn, unlike those of its neighbours.
pub(crate) fn generator(seed: u64, number: u64) -> Rng {
    // An odd constant near 2⁶⁴ / golden ratio spreads small numbers over all bits.
    Rng::with_seed(seed ^ number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_always_draw_the_same() {
        for number in 0..1000 {
            assert_eq!(Plan::seeded(7).drawn(number), Plan::seeded(7).drawn(number));
        }
        assert!(
            (0..1000).any(|number| Plan::seeded(7).drawn(number) != Plan::seeded(8).drawn(number))
        );
    }

    #[test]
    fn a_seed_draws_every_kind_of_fault_in_the_mixture_that_is_documented() {
        const DRAWN: u64 = 10_000;
        let plans: Vec<Plan> = (0..DRAWN).map(|number| Plan::seeded(42).drawn(number)).collect();
        let share = |test: &dyn Fn(&Plan) -> bool| {
            plans.iter().filter(|plan| test(plan)).count() as f64 / DRAWN as f64
        };
        let fault = |plan: &Plan| plan.up.fault.or(plan.down.fault);
        let near = |share: f64, expected: f64| (share - expected).abs() < 0.02;
        assert!(near(share(&|plan| !plan.refuse && fault(plan).is_none()), 0.50));
        assert!(near(share(&|plan| plan.refuse), 0.05));
        assert!(near(share(&|plan| plan.up.fault.is_some()), 0.225));
        let early = |plan: &Plan| fault(plan).is_some_and(|(after, _)| after < 256);
        assert!(near(share(&early), 0.45 * 10.0 / 17.0), "{}", share(&early));
        for (kind, expected) in [
            (Fault::Reset, 0.135),
            (Fault::Close, 0.135),
            (Fault::HalfClose, 0.09),
            (Fault::Stall, 0.045),
            (Fault::Swallow, 0.045),
        ] {
            let share = share(&|plan| fault(plan).is_some_and(|(_, fault)| fault == kind));
            assert!(near(share, expected), "{kind:?}: {share}");
        }
        assert!(near(share(&|plan| plan.up.bytes_per_second.is_some()), 0.25));
        assert!(near(share(&|plan| plan.latency > Some(Duration::ZERO)), 0.5 * 20.0 / 21.0));
    }

    #[test]
    fn what_is_set_beside_a_seed_stays_and_shifts_nothing() {
        let latency = Duration::from_secs(1);
        for number in 0..100 {
            let drawn = Plan::seeded(7).drawn(number);
            let set = Plan::seeded(7).latency(latency).drawn(number);
            assert_eq!(set.latency, Some(latency));
            assert_eq!(Plan { latency: drawn.latency, ..set }, drawn);
        }
    }
}
