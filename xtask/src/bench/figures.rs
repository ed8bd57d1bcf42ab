//! Figures by name and round, and what can be said about several rounds of one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Unit of a criterion time that stands for one iteration, whatever it handles.
pub(super) const NS: &str = "ns";

/// Unit of a criterion time divided by the elements of its throughput.
pub(super) const NS_EACH: &str = "ns each";

/// Unit of what a process takes to handle spans: seconds of CPU for a million of them.
pub(super) const CPU_PER_MILLION: &str = "s CPU/M spans";

/// Group of the figures of loads through the collector.
pub(super) const COLLECTOR: &str = "collector";

/// Group of the figures that `cargo xtask pgo` left: taken over, not measured in the run.
pub(super) const BUILDS: &str = "pgo";

/// How far least and greatest may lie apart, as a part of the median, before a figure is `noisy`.
pub(super) const NOISY_ABOVE: f64 = 0.20;

/// What identifies a figure, in criterion's terms and with its unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Name {
    /// What is done.
    pub(super) group: String,
    /// Who does it.
    pub(super) function: String,
    /// What varies, such as a number of spans; may be empty.
    pub(super) value: String,
    /// What the figure counts.
    pub(super) unit: String,
}

impl Name {
    pub(super) fn new(group: &str, function: &str, value: &str, unit: &str) -> Self {
        let [group, function, value, unit] = [group, function, value, unit].map(str::to_owned);
        Self { group, function, value, unit }
    }

    /// Whether Spanwire does it, in whatever form.
    pub(super) fn is_ours(&self) -> bool {
        self.function.starts_with("spanwire")
    }

    /// Whether a greater figure is the better one.
    pub(super) fn more_is_better(&self) -> bool {
        self.unit == "spans/s"
    }

    /// Whether it is foreign code alone that was timed. A rival that sends does so to our receiver, a
    /// row such as `copied` is ours without what it is compared with: when either becomes slower, it
    /// may be our doing.
    pub(super) fn is_foreign(&self) -> bool {
        const FOREIGN: [&str; 8] = [
            "ArrayQueue",
            "fastrace",
            "opentelemetry_sdk",
            "prost",
            "serde_json",
            "simd-json",
            "sonic-rs",
            "tracing-opentelemetry",
        ];
        FOREIGN.iter().any(|foreign| self.function.starts_with(foreign))
    }

    /// Whether each round must be as asked and not only most of them: no span that was lost in one is
    /// made up for in another, and allocations do not depend on chance.
    pub(super) fn each_round_counts(&self) -> bool {
        ["lost", "allocations"].contains(&self.unit.as_str())
    }

    /// Whether a slower machine makes the figure worse in proportion. Sizes and losses do not follow
    /// the machine's speed, nor does what is paced by a clock.
    pub(super) fn follows_machine(&self) -> bool {
        let paced = ["load", "steady"].contains(&self.group.as_str()) && self.unit != "% CPU";
        let speed = [NS, NS_EACH, CPU_PER_MILLION, "ms", "ns CPU/span", "spans/s", "% CPU"];
        !paced && speed.contains(&self.unit.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.function)?;
        if !self.value.is_empty() {
            write!(f, "/{}", self.value)?;
        }
        match self.unit.as_str() {
            NS => Ok(()),
            NS_EACH => f.write_str(", each"),
            unit => write!(f, ", {unit}"),
        }
    }
}

/// One figure for each round; `None` where a round did not give it.
pub(super) type Rounds = [Option<f64>];

/// All figures of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<Name, Vec<Option<f64>>>);

impl Figures {
    /// Enters what a round, counted from 0, gave.
    pub(super) fn enter(&mut self, round: usize, name: Name, figure: f64) {
        let rounds = self.0.entry(name).or_default();
        rounds.resize(rounds.len().max(round + 1), None);
        rounds[round] = Some(figure);
    }

    /// Enters all rounds of a figure at once.
    pub(super) fn enter_rounds(&mut self, name: Name, rounds: Vec<Option<f64>>) {
        self.0.insert(name, rounds);
    }

    /// The rounds of a figure; none if it was never measured.
    pub(super) fn rounds(&self, name: &Name) -> &Rounds {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Median, least and greatest of a figure, if it was measured at all.
    pub(super) fn spread(&self, name: &Name) -> Option<Spread> {
        Spread::of(self.rounds(name).iter().flatten().copied())
    }

    /// All figures in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &Rounds)> {
        self.0.iter().map(|(name, rounds)| (name, rounds.as_slice()))
    }
}

/// Median, least and greatest of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (least, greatest) = (*figures.first()?, *figures.last()?);
        let half = figures.len() / 2;
        let median = match figures.len() % 2 {
            1 => figures[half],
            _ => (figures[half - 1] + figures[half]) / 2.0,
        };
        Some(Self { median, least, greatest })
    }

    /// Whether the rounds lie too far apart for the median to be taken at its word.
    pub(super) fn is_noisy(&self) -> bool {
        self.greatest - self.least > NOISY_ABOVE * self.median.abs()
    }

    /// Median (least–greatest), or the median alone where the three read the same.
    pub(super) fn show(&self, unit: &str) -> String {
        let [median, least, greatest] =
            [self.median, self.least, self.greatest].map(|figure| show(figure, unit));
        if least == greatest {
            return median;
        }
        // The unit once, unless the three are shown in different ones.
        let unit = |shown: &str| shown.split_once(' ').map(|(_, unit)| unit.to_owned());
        let bare = |shown: &str| shown.split(' ').next().unwrap_or_default().to_owned();
        if [&least, &greatest].iter().all(|end| unit(end) == unit(&median)) {
            return format!("{median} ({}–{})", bare(&least), bare(&greatest));
        }
        format!("{median} ({least}–{greatest})")
    }
}

/// The figure that this part of the rounds, of which there is one at least, does not exceed.
pub(crate) fn quantile(rounds: &[f64], part: f64) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * (sorted.len() - 1) as f64;
    let [below, above] = [place.floor(), place.ceil()].map(|place| sorted[place as usize]);
    below + (above - below) * place.fract()
}

/// How many times better `ours` is than `theirs`: taken round by round, so that a round in which the
/// whole machine was slow does not count. `None` where a ratio would divide by nothing.
pub(super) fn ratio(ours: &Rounds, theirs: &Rounds, more_is_better: bool) -> Option<Spread> {
    let pairs = ours.iter().zip(theirs).filter_map(|(ours, theirs)| (*ours).zip(*theirs));
    let ratios: Option<Vec<f64>> = pairs
        .map(|(ours, theirs)| {
            let (worse, better) = if more_is_better { (ours, theirs) } else { (theirs, ours) };
            (worse > 0.0 && better > 0.0).then_some(worse / better)
        })
        .collect();
    Spread::of(ratios?)
}

/// A figure with its unit, for people: three digits, times in the unit that suits them.
pub(super) fn show(figure: f64, unit: &str) -> String {
    match unit {
        NS | NS_EACH | "ns CPU/span" | "ns/span" => {
            let (scale, unit) = match figure {
                f if f < 1e3 => (1.0, "ns"),
                f if f < 1e6 => (1e3, "µs"),
                f if f < 1e9 => (1e6, "ms"),
                _ => (1e9, "s"),
            };
            format!("{} {unit}", number(figure / scale))
        }
        "spans/s" if figure >= 1e6 => format!("{} M spans/s", number(figure / 1e6)),
        // The percentile is part of the name.
        _ => match unit.split_once(' ') {
            Some((percentile, "ms")) if percentile.starts_with('P') => {
                format!("{} ms", number(figure))
            }
            _ => format!("{} {unit}", number(figure)),
        },
    }
}

/// How many times, with the sign that goes with it.
pub(super) fn show_ratio(ratio: f64) -> String {
    format!("{}×", number(ratio))
}

/// Three digits at least; whole numbers in groups of three from a thousand on.
pub(super) fn number(figure: f64) -> String {
    let size = figure.abs();
    if size.fract() == 0.0 && size < 1e3 || (99.95..1e3).contains(&size) {
        return format!("{figure:.0}");
    }
    match size {
        s if s < 0.0995 => format!("{figure:.3}"),
        s if s < 9.995 => format!("{figure:.2}"),
        s if s < 99.95 => format!("{figure:.1}"),
        _ => {
            let digits = format!("{size:.0}");
            let mut grouped = String::from(if figure < 0.0 { "-" } else { "" });
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(figures: &[f64]) -> Vec<Option<f64>> {
        figures.iter().copied().map(Some).collect()
    }

    fn spread(median: f64, least: f64, greatest: f64) -> Option<Spread> {
        Some(Spread { median, least, greatest })
    }

    #[test]
    fn a_spread_is_of_the_middle_and_both_ends() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0));
    }

    #[test]
    fn rounds_more_than_a_fifth_apart_are_noisy() {
        let noisy = |figures: &[f64]| Spread::of(figures.iter().copied()).map(|s| s.is_noisy());
        assert_eq!(noisy(&[100.0, 95.0, 114.0]), Some(false));
        assert_eq!(noisy(&[100.0, 95.0, 116.0]), Some(true));
        assert_eq!(noisy(&[0.0, 0.0, 0.0]), Some(false));
        assert_eq!(noisy(&[0.0, 0.0, 5.0]), Some(true), "nothing lost but once");
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The machine took three times as long in the second round, for both.
        let (ours, theirs) = (rounds(&[10.0, 30.0, 10.0]), rounds(&[40.0, 120.0, 41.0]));
        assert_eq!(ratio(&ours, &theirs, false), spread(4.0, 4.0, 4.1));
        assert_eq!(ratio(&ours, &theirs, true), spread(0.25, 10.0 / 41.0, 0.25));
    }

    #[test]
    fn a_ratio_leaves_out_rounds_that_lack_one_side_and_does_not_divide_by_zero() {
        let ours = [Some(10.0), None, Some(20.0)];
        let theirs = [Some(30.0), Some(1.0), None];
        assert_eq!(ratio(&ours, &theirs, false), spread(3.0, 3.0, 3.0));
        assert_eq!(ratio(&[Some(0.0)], &[Some(2.0)], false), None);
        assert_eq!(ratio(&[None], &[Some(2.0)], false), None);
    }

    #[test]
    fn figures_read_well() {
        let cases = [
            (53.49, NS, "53.5 ns"),
            (4_212.0, NS_EACH, "4.21 µs"),
            (541_000.0, NS, "541 µs"),
            (999.96, NS, "1000 ns"),
            (0.0, "allocations", "0 allocations"),
            (3.0, "allocations", "3 allocations"),
            (147_612.0, "lost", "147,612 lost"),
            (2_190_000.0, "spans/s", "2.19 M spans/s"),
            (10_245.0, "spans/s", "10,245 spans/s"),
            (18.24, "P99 ms", "18.2 ms"),
            (0.0312, "% CPU", "0.031 % CPU"),
            (0.5248, CPU_PER_MILLION, "0.52 s CPU/M spans"),
        ];
        for (figure, unit, shown) in cases {
            assert_eq!(show(figure, unit), shown);
        }
        assert_eq!(show_ratio(10.0), "10×");
        assert_eq!(show_ratio(3.417), "3.42×");
    }

    #[test]
    fn a_spread_says_its_unit_once_and_nothing_twice() {
        assert_eq!(Spread::of([416.0, 416.2]).map(|s| s.show("B")), Some("416 B".to_owned()));
        let spread = Spread::of([50.0, 52.0, 55.0]).map(|s| s.show(NS));
        assert_eq!(spread, Some("52 ns (50–55)".to_owned()));
        let spread = Spread::of([900.0, 950.0, 1_200.0]).map(|s| s.show(NS));
        assert_eq!(spread, Some("950 ns (900 ns–1.20 µs)".to_owned()));
    }

    #[test]
    fn what_a_clock_paces_does_not_follow_the_machine() {
        let follows = |group, unit| Name::new(group, "spanwire", "", unit).follows_machine();
        assert!(follows("span", NS) && follows("steady", "% CPU"));
        assert!(follows("export_500000_spans", "spans/s"));
        assert!(!follows("load", "spans/s") && !follows("load", "P99 ms"));
        assert!(!follows("heap", "allocations") && !follows("burst", "lost"));
    }
}
