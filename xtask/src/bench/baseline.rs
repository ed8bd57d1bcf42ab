//! Runs kept under a name, and what has become slower since.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::figures::{Figures, Name, Spread};
use super::machine::Machine;
use super::run::Ran;
use crate::shell;

/// A run as it is kept: every round of every figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    pub(super) command: String,
    pub(super) quick: bool,
    pub(super) machine: Machine,
    /// Time of the fixed arithmetic in each round, in ns.
    pub(super) arithmetic_ns: Vec<f64>,
    /// Part of the time for which other work had the core.
    pub(super) waited: Option<f64>,
    figures: Vec<Kept>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    name: Name,
    rounds: Vec<Option<f64>>,
}

impl Baseline {
    pub(super) fn new(command: String, quick: bool, machine: Machine, ran: &Ran) -> Self {
        let figures = ran.figures.iter();
        Self {
            command,
            quick,
            machine,
            arithmetic_ns: ran.arithmetic_ns.clone(),
            waited: ran.waited(),
            figures: figures
                .map(|(name, rounds)| Kept { name: name.clone(), rounds: rounds.to_vec() })
                .collect(),
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for Kept { name, rounds } in &self.figures {
            figures.enter_rounds(name.clone(), rounds.clone());
        }
        figures
    }

    /// Writes it below `folder`, over one of the same name; returns where.
    pub(super) fn save(&self, folder: &Path, name: &str) -> Result<PathBuf, String> {
        let path = path(folder, name);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| format!("cannot save {}: {error}", path.display()))?;
        shell::create_folder(folder)?;
        shell::write(&path, text)?;
        Ok(path)
    }

    /// Reads the one of this name; an error names those that exist.
    pub(super) fn load(folder: &Path, name: &str) -> Result<Self, String> {
        let path = path(folder, name);
        let Ok(text) = fs::read_to_string(&path) else {
            let known = match names(folder) {
                names if names.is_empty() => "there is none yet: save one by --save".to_owned(),
                names => format!("there are: {}", names.join(", ")),
            };
            return Err(format!("no baseline is called {name:?}; {known}"));
        };
        serde_json::from_str(&text)
            .map_err(|error| format!("cannot read {}: {error}; save it anew", path.display()))
    }
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".json")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

/// A run beside an earlier one.
#[derive(Debug)]
pub(super) struct Comparison {
    /// How many times as long the fixed arithmetic takes now.
    pub(super) shift: f64,
    /// Figures that both runs have and that count.
    pub(super) compared: usize,
    pub(super) regressions: Vec<Change>,
    pub(super) improvements: Vec<Change>,
    /// Figures of the baseline that this run should have and does not.
    pub(super) gone: Vec<Name>,
}

/// A figure that moved by more than the threshold and beyond the noise.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) name: Name,
    pub(super) then: Spread,
    /// With the machine's shift taken out.
    pub(super) now: Spread,
}

impl Change {
    /// How many times as much as before; infinite from nothing.
    pub(super) fn times(&self) -> f64 {
        self.now.median / self.then.median
    }
}

/// One of the two runs that are compared: its figures, and the time of the fixed arithmetic in each
/// round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    pub(super) figures: &'a Figures,
    pub(super) arithmetic_ns: &'a [f64],
}

/// Compares what `counts` says is ours.
///
/// A figure is a regression when its median is worse by more than `threshold` (0.1 is a tenth) and the
/// rounds of then and now do not overlap, after the machine's own shift has been taken out of each
/// round. How slow the machine was in a round is told by the rivals of the same group: their code
/// stays the same, and they ran within the same seconds. For a group without rivals it is told by the
/// fixed arithmetic.
pub(super) fn compare(
    then: Side<'_>,
    now: Side<'_>,
    threshold: f64,
    counts: impl Fn(&Name) -> bool,
) -> Comparison {
    let speed = |side: Side<'_>| Spread::of(side.arithmetic_ns.iter().copied());
    let shift = match (speed(then), speed(now)) {
        (Some(then), Some(now)) if then.median > 0.0 => now.median / then.median,
        _ => 1.0,
    };
    let mut comparison = Comparison {
        shift,
        compared: 0,
        regressions: Vec::new(),
        improvements: Vec::new(),
        gone: Vec::new(),
    };
    for (name, _) in then.figures.iter().filter(|(name, _)| counts(name)) {
        let rivals = Rivals::of(name, then.figures, &counts);
        let corrected = |side: Side<'_>, shift: f64| {
            let rounds = side.figures.rounds(name).iter().enumerate();
            Spread::of(rounds.filter_map(|(round, figure)| {
                let shift = rivals.shift(side.figures, round).unwrap_or(shift);
                figure.map(|figure| without(shift, name, figure))
            }))
        };
        let (Some(before), Some(after)) = (corrected(then, 1.0), corrected(now, shift)) else {
            comparison.gone.push(name.clone());
            continue;
        };
        comparison.compared += 1;
        let change = Change { name: name.clone(), then: before, now: after };
        let (less, more) = match name.more_is_better() {
            true => (after, before),
            false => (before, after),
        };
        // More is worse from here on, whatever the unit.
        if moved(less, more, threshold) {
            comparison.regressions.push(change);
        } else if moved(more, less, threshold) {
            comparison.improvements.push(change);
        }
    }
    comparison
}

/// Whether `high` lies above `low` by more than the threshold and without overlap.
fn moved(low: Spread, high: Spread, threshold: f64) -> bool {
    high.median > low.median * (1.0 + threshold) && high.least > low.greatest
}

/// What a figure would be on the machine as it was then.
fn without(shift: f64, name: &Name, figure: f64) -> f64 {
    match (name.follows_machine(), name.more_is_better()) {
        (false, _) => figure,
        (true, false) => figure / shift,
        (true, true) => figure * shift,
    }
}

/// The rivals in the group of a figure, with their medians in the baseline.
struct Rivals(Vec<(Name, f64)>);

impl Rivals {
    fn of(ours: &Name, then: &Figures, counts: &impl Fn(&Name) -> bool) -> Self {
        let rivals = then.iter().map(|(name, _)| name).filter(|name| {
            let comparable = name.group == ours.group && name.unit == ours.unit;
            comparable && !name.is_ours() && !counts(name)
        });
        let rivals = rivals.filter_map(|name| Some((name.clone(), then.spread(name)?.median)));
        Self(rivals.filter(|(_, median)| *median > 0.0).collect())
    }

    /// How many times as long as in the baseline they took in a round: the median of them, so that
    /// what befell one alone does not count.
    fn shift(&self, figures: &Figures, round: usize) -> Option<f64> {
        let shifts = self.0.iter().filter_map(|(name, then)| {
            let now = figures.rounds(name).get(round).copied().flatten()?;
            let shift = if name.more_is_better() { then / now } else { now / then };
            (shift > 0.0 && shift.is_finite()).then_some(shift)
        });
        Spread::of(shifts).map(|shift| shift.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(unit: &str) -> Name {
        Name::new("encode", "spanwire", "", unit)
    }

    fn figures(unit: &str, rounds: &[f64]) -> Figures {
        let mut figures = Figures::default();
        figures.enter_rounds(name(unit), rounds.iter().copied().map(Some).collect());
        figures
    }

    /// How many regressions and improvements a threshold of a tenth finds.
    fn found(unit: &str, then: &[f64], now: &[f64], slower: f64) -> (usize, usize) {
        let (before, after) = (figures(unit, then), figures(unit, now));
        let then = Side { figures: &before, arithmetic_ns: &[100.0] };
        let now = Side { figures: &after, arithmetic_ns: &[100.0 * slower] };
        let comparison = compare(then, now, 0.1, |_| true);
        (comparison.regressions.len(), comparison.improvements.len())
    }

    #[test]
    fn a_regression_is_beyond_the_threshold_and_beyond_the_noise() {
        let then = [100.0, 101.0, 104.0];
        assert_eq!(found("ns", &then, &[120.0, 118.0, 125.0], 1.0), (1, 0));
        assert_eq!(found("ns", &then, &[106.0, 107.0, 108.0], 1.0), (0, 0), "within the threshold");
        assert_eq!(found("ns", &then, &[103.0, 120.0, 125.0], 1.0), (0, 0), "within the noise");
        assert_eq!(found("ns", &then, &[80.0, 82.0, 83.0], 1.0), (0, 1));
    }

    #[test]
    fn fewer_spans_a_second_are_a_regression() {
        assert_eq!(found("spans/s", &[100.0, 102.0], &[80.0, 81.0], 1.0), (1, 0));
        assert_eq!(found("spans/s", &[100.0, 102.0], &[120.0, 121.0], 1.0), (0, 1));
    }

    #[test]
    fn a_slower_machine_is_not_a_regression_and_a_faster_one_hides_none() {
        let then = [100.0, 101.0, 104.0];
        assert_eq!(found("ns", &then, &[150.0, 152.0, 153.0], 1.5), (0, 0));
        assert_eq!(found("spans/s", &then, &[66.0, 67.0, 68.0], 1.5), (0, 0));
        assert_eq!(found("ns", &then, &[100.0, 101.0, 102.0], 0.8), (1, 0));
        assert_eq!(found("B", &then, &[150.0, 152.0, 153.0], 1.5), (1, 0), "no speed in bytes");
    }

    /// Ours and three rivals in two rounds.
    fn beside(ours: [f64; 2], rivals: [[f64; 2]; 3]) -> Figures {
        let mut figures = figures("ns", &ours);
        for (function, rounds) in ["fastrace", "prost", "serde_json"].iter().zip(rivals) {
            for (round, figure) in rounds.into_iter().enumerate() {
                figures.enter(round, Name::new("encode", function, "", "ns"), figure);
            }
        }
        figures
    }

    fn found_beside(then: &Figures, now: &Figures) -> bool {
        let side = |figures| Side { figures, arithmetic_ns: &[100.0] };
        let ours = |name: &Name| name.function == "spanwire";
        !compare(side(then), side(now), 0.1, ours).regressions.is_empty()
    }

    #[test]
    fn what_slows_the_rivals_down_as_much_is_the_machine() {
        let then = beside([100.0, 101.0], [[200.0; 2]; 3]);
        let found = |rivals| found_beside(&then, &beside([130.0, 131.0], rivals));
        assert!(found([[200.0; 2]; 3]));
        assert!(!found([[260.0; 2], [262.0; 2], [200.0; 2]]));
        assert!(found([[900.0; 2], [200.0; 2], [200.0; 2]]), "what befell one alone");
    }

    #[test]
    fn a_round_in_which_all_were_slow_hides_no_regression() {
        let then = beside([100.0, 200.0], [[200.0, 400.0]; 3]);
        let found = |ours| found_beside(&then, &beside(ours, [[200.0, 400.0]; 3]));
        assert!(found([130.0, 260.0]));
        assert!(!found([104.0, 208.0]));
    }

    #[test]
    fn one_allocation_more_than_none_is_a_regression() {
        assert_eq!(found("allocations", &[0.0, 0.0], &[1.0, 1.0], 1.0), (1, 0));
        assert_eq!(found("allocations", &[0.0, 0.0], &[0.0, 0.0], 1.0), (0, 0));
    }

    #[test]
    fn what_is_no_longer_measured_is_named_and_rivals_do_not_count() {
        let (then, now) = (figures("ns", &[100.0]), Figures::default());
        let side = |figures| Side { figures, arithmetic_ns: &[1.0] };
        let gone = |counts| compare(side(&then), side(&now), 0.1, |_| counts).gone;
        assert_eq!(gone(true), [name("ns")]);
        assert_eq!(gone(false), []);
    }

    #[test]
    fn a_baseline_comes_back_as_it_was_saved_and_a_missing_one_names_the_others() {
        let folder = std::env::temp_dir().join(format!("xtask-baselines-{}", std::process::id()));
        let error = Baseline::load(&folder, "main").expect_err("nothing saved");
        assert!(error.contains("none yet"), "{error}");

        let mut figures = figures("ns", &[0.1 + 0.2, 101.0]);
        figures.enter(1, name("allocations"), 0.0);
        let machine = Machine::read(Path::new(env!("CARGO_MANIFEST_DIR")));
        let command = "cargo xtask bench --save main".to_owned();
        let (arithmetic_ns, waits) = (vec![1.5, 2.5], vec![0.01]);
        let ran = Ran { figures: figures.clone(), arithmetic_ns, waits, ..Ran::default() };
        let baseline = Baseline::new(command, true, machine, &ran);
        baseline.save(&folder, "main").expect("can be written");
        let loaded = Baseline::load(&folder, "main").expect("just saved");
        assert_eq!(loaded, baseline);
        assert_eq!(loaded.figures(), figures);

        let error = Baseline::load(&folder, "mian").expect_err("misspelt");
        assert!(error.contains("there are: main"), "{error}");
        fs::remove_dir_all(&folder).expect("can be removed");
    }
}
