//! Runs kept under a name, and what has become slower since.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::figures::{Figures, NS_EACH, Name, Spread, quantile};
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
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let known = match names(folder) {
                    names if names.is_empty() => "there is none yet: save one by --save".to_owned(),
                    names => format!("there are: {}", names.join(", ")),
                };
                format!("no baseline is called {name:?}; {known}")
            }
            _ => shell::failed(&path, &error),
        })?;
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
    /// How many times as long the fixed arithmetic takes now. Nothing is corrected by it.
    pub(super) arithmetic: f64,
    /// Figures that both runs have and that count.
    pub(super) compared: usize,
    pub(super) regressions: Vec<Change>,
    pub(super) improvements: Vec<Change>,
    /// Worse by more than the threshold, but not beyond the noise.
    pub(super) doubtful: Vec<Change>,
    /// Figures of the baseline that this run should have and does not.
    pub(super) gone: Vec<Name>,
}

/// A figure that moved by more than the threshold.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) name: Name,
    /// Both with the machine's shift taken out.
    pub(super) then: Spread,
    pub(super) now: Spread,
    /// Then and now, as they were measured.
    pub(super) measured: [Spread; 2],
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

/// Compares what `counts` says is ours; `program` says what a figure was measured by.
///
/// A figure is a regression when its median is worse by more than `threshold` (0.1 is a tenth) and a
/// quarter of the rounds at most of either run reach into the other's, after the machine's own shift
/// has been taken out of each round; one that counts losses is one as soon as a round has some and
/// none had before. How slow the machine was in a round is told by the foreign code that the same
/// program ran, within the same minute; where there are not three pieces of that, nothing is taken
/// out.
pub(super) fn compare<P: PartialEq>(
    then: Side<'_>,
    now: Side<'_>,
    threshold: f64,
    counts: impl Fn(&Name) -> bool,
    program: impl Fn(&Name) -> Option<P>,
) -> Comparison {
    let speed = |side: Side<'_>| Spread::of(side.arithmetic_ns.iter().copied());
    let arithmetic = match (speed(then), speed(now)) {
        (Some(then), Some(now)) if then.median > 0.0 => now.median / then.median,
        _ => 1.0,
    };
    let mut comparison = Comparison {
        arithmetic,
        compared: 0,
        regressions: Vec::new(),
        improvements: Vec::new(),
        doubtful: Vec::new(),
        gone: Vec::new(),
    };
    let beyond = |low: Spread, high: Spread| high.median > low.median * (1.0 + threshold);
    for (name, _) in then.figures.iter().filter(|(name, _)| counts(name)) {
        let foreign = match program(name) {
            Some(own) => Foreign::of(then.figures, now.figures, |name| {
                program(name).is_some_and(|program| program == own)
            }),
            None => Foreign(Vec::new()),
        };
        let [before, after] = [then, now].map(|side| {
            let rounds = side.figures.rounds(name).iter().enumerate();
            rounds
                .filter_map(|(round, figure)| {
                    Some(without(foreign.shift(side.figures, round), name, (*figure)?))
                })
                .collect::<Vec<f64>>()
        });
        let spreads = (
            Spread::of(before.iter().copied()).zip(Spread::of(after.iter().copied())),
            then.figures.spread(name).zip(now.figures.spread(name)),
        );
        let (Some((spread_then, spread_now)), Some(measured)) = spreads else {
            comparison.gone.push(name.clone());
            continue;
        };
        comparison.compared += 1;
        let change = Change {
            name: name.clone(),
            then: spread_then,
            now: spread_now,
            measured: measured.into(),
        };
        // More is worse from here on, whatever the unit.
        let (less, more) = match name.more_is_better() {
            true => ((spread_now, &after), (spread_then, &before)),
            false => ((spread_then, &before), (spread_now, &after)),
        };
        let first_ever =
            name.each_round_counts() && spread_then.greatest == 0.0 && spread_now.greatest > 0.0;
        if first_ever || beyond(less.0, more.0) && apart(less.1, more.1) {
            comparison.regressions.push(change);
        } else if beyond(less.0, more.0) {
            comparison.doubtful.push(change);
        } else if beyond(more.0, less.0) && apart(more.1, less.1) {
            comparison.improvements.push(change);
        }
    }
    comparison
}

/// Whether the middle half of `high` lies above the middle half of `low`. One round that went astray
/// decides nothing, wherever it lies.
fn apart(low: &[f64], high: &[f64]) -> bool {
    quantile(high, 0.25) > quantile(low, 0.75)
}

/// What a figure would be on the machine as it was then.
fn without(shift: f64, name: &Name, figure: f64) -> f64 {
    match (name.follows_machine(), name.more_is_better()) {
        (false, _) => figure,
        (true, false) => figure / shift,
        (true, true) => figure * shift,
    }
}

/// Code in which nothing of ours runs, with its medians in the baseline: what makes it slower is the
/// machine.
struct Foreign(Vec<(Name, f64)>);

impl Foreign {
    /// Pieces of it that say more than chance.
    const MIN: usize = 3;

    /// What both runs have of it, as far as it is `beside` what is compared.
    fn of(then: &Figures, now: &Figures, beside: impl Fn(&Name) -> bool) -> Self {
        let foreign = then.iter().map(|(name, _)| name).filter(|name| {
            let one_time = name.follows_machine() && name.unit != NS_EACH;
            name.is_foreign() && one_time && beside(name) && now.spread(name).is_some()
        });
        let foreign = foreign.filter_map(|name| Some((name.clone(), then.spread(name)?.median)));
        Self(foreign.filter(|(_, median)| *median > 0.0).collect())
    }

    /// How many times as long as in the baseline it took in a round: the median, so that what befell
    /// one piece alone does not count. 1 where there is too little of it.
    fn shift(&self, figures: &Figures, round: usize) -> f64 {
        let shifts = self.0.iter().filter_map(|(name, then)| {
            let now = figures.rounds(name).get(round).copied().flatten()?;
            Some(if name.more_is_better() { then / now } else { now / then })
        });
        let shifts: Vec<f64> = shifts.filter(|shift| *shift > 0.0 && shift.is_finite()).collect();
        match Spread::of(shifts.iter().copied()) {
            Some(shift) if shifts.len() >= Self::MIN => shift.median,
            _ => 1.0,
        }
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

    /// What a threshold of a tenth finds, everything being measured by one program.
    fn compared(then: &Figures, now: &Figures) -> Comparison {
        let side = |figures| Side { figures, arithmetic_ns: &[100.0] };
        let ours = |name: &Name| name.function == "spanwire";
        compare(side(then), side(now), 0.1, ours, |_| Some(()))
    }

    /// How many regressions, doubtful ones and improvements there are.
    fn found(unit: &str, then: &[f64], now: &[f64]) -> [usize; 3] {
        let comparison = compared(&figures(unit, then), &figures(unit, now));
        let Comparison { regressions, doubtful, improvements, .. } = comparison;
        [regressions.len(), doubtful.len(), improvements.len()]
    }

    #[test]
    fn a_regression_is_beyond_the_threshold_and_beyond_the_noise() {
        let then = [100.0, 101.0, 104.0];
        assert_eq!(found("ns", &then, &[120.0, 118.0, 125.0]), [1, 0, 0]);
        assert_eq!(found("ns", &then, &[106.0, 107.0, 108.0]), [0, 0, 0], "within the threshold");
        assert_eq!(found("ns", &then, &[80.0, 82.0, 83.0]), [0, 0, 1]);
    }

    #[test]
    fn a_figure_that_looks_worse_within_the_noise_is_named_and_is_no_regression() {
        let then = [90.0, 92.0, 100.0, 125.0, 128.0];
        assert_eq!(found("ns", &then, &[99.0, 101.0, 120.0, 125.0, 130.0]), [0, 1, 0]);
    }

    #[test]
    fn one_round_that_went_astray_hides_no_regression() {
        let then = [100.0, 100.0, 101.0, 102.0, 400.0];
        assert_eq!(found("ns", &then, &[130.0, 131.0, 131.0, 132.0, 133.0]), [1, 0, 0]);
        assert_eq!(found("ns", &then[..4], &[50.0, 131.0, 131.0, 132.0, 133.0]), [1, 0, 0]);
    }

    #[test]
    fn fewer_spans_a_second_are_a_regression() {
        assert_eq!(found("spans/s", &[100.0, 102.0], &[80.0, 81.0]), [1, 0, 0]);
        assert_eq!(found("spans/s", &[100.0, 102.0], &[120.0, 121.0]), [0, 0, 1]);
    }

    #[test]
    fn a_span_lost_in_one_round_is_a_regression_where_none_was() {
        assert_eq!(found("lost", &[0.0, 0.0, 0.0], &[0.0, 7.0, 0.0]), [1, 0, 0]);
        assert_eq!(found("lost", &[0.0, 9.0, 0.0], &[0.0, 7.0, 0.0]), [0, 0, 0]);
        assert_eq!(found("lost", &[0.0, 0.0, 0.0], &[0.0, 0.0, 0.0]), [0, 0, 0]);
    }

    /// Ours and those of others in two rounds, each of another group.
    fn beside(ours: [f64; 2], others: &[(&str, [f64; 2])]) -> Figures {
        let mut figures = figures("ns", &ours);
        for (function, rounds) in others {
            let name = Name::new(function, function, "", "ns");
            figures.enter_rounds(name, rounds.map(Some).into());
        }
        figures
    }

    fn regressed(then: &Figures, now: &Figures) -> bool {
        !compared(then, now).regressions.is_empty()
    }

    #[test]
    fn what_slows_foreign_code_down_as_much_is_the_machine() {
        let foreign =
            |[a, b, c]: [f64; 3]| [("fastrace", [a; 2]), ("prost", [b; 2]), ("serde_json", [c; 2])];
        let then = beside([100.0, 101.0], &foreign([200.0; 3]));
        let found = |others| regressed(&then, &beside([130.0, 131.0], &foreign(others)));
        assert!(found([200.0; 3]));
        assert!(!found([260.0, 262.0, 200.0]));
        assert!(found([900.0, 200.0, 200.0]), "what befell one alone");
        let faster = beside([100.0, 101.0], &foreign([150.0; 3]));
        assert!(regressed(&then, &faster), "a faster machine hides none");
    }

    #[test]
    fn a_figure_corrected_is_shown_as_it_was_measured_too() {
        let foreign = |time: f64| ["fastrace", "prost", "serde_json"].map(|who| (who, [time; 2]));
        let then = beside([100.0, 100.0], &foreign(200.0));
        let now = beside([300.0, 300.0], &foreign(400.0));
        let comparison = compared(&then, &now);
        let [change] = &comparison.regressions[..] else { panic!("{comparison:?}") };
        assert_eq!((change.now.median, change.measured[1].median), (150.0, 300.0));
    }

    #[test]
    fn code_of_ours_under_another_name_takes_no_regression_away() {
        // All of it slower by as much as ours, because it runs what became slower.
        let ours = ["copied", "tokio's default", "opentelemetry-otlp", "none"];
        let then = beside([100.0, 101.0], &ours.map(|function| (function, [200.0; 2])));
        let now = beside([130.0, 131.0], &ours.map(|function| (function, [260.0; 2])));
        assert!(regressed(&then, &now));
    }

    #[test]
    fn two_pieces_of_foreign_code_and_those_of_another_program_correct_nothing() {
        let two = |time: f64| ["fastrace", "prost"].map(|function| (function, [time; 2]));
        let (then, now) = (beside([100.0; 2], &two(200.0)), beside([130.0; 2], &two(260.0)));
        assert!(regressed(&then, &now));

        let foreign = |time: f64| ["fastrace", "prost", "serde_json"].map(|who| (who, [time; 2]));
        let (then, now) =
            (beside([100.0; 2], &foreign(200.0)), beside([130.0; 2], &foreign(260.0)));
        assert!(!regressed(&then, &now));
        let side = |figures| Side { figures, arithmetic_ns: &[100.0] };
        let ours = |name: &Name| name.function == "spanwire";
        let apart = compare(side(&then), side(&now), 0.1, ours, |name| Some(ours(name)));
        assert_eq!(apart.regressions.len(), 1);
    }

    #[test]
    fn a_round_in_which_all_were_slow_hides_no_regression() {
        let foreign = ["fastrace", "prost", "serde_json"].map(|who| (who, [200.0, 400.0]));
        let then = beside([100.0, 200.0], &foreign);
        assert!(regressed(&then, &beside([130.0, 260.0], &foreign)));
        assert!(!regressed(&then, &beside([104.0, 208.0], &foreign)));
    }

    #[test]
    fn one_allocation_more_than_none_is_a_regression() {
        assert_eq!(found("allocations", &[0.0, 0.0], &[1.0, 1.0]), [1, 0, 0]);
        assert_eq!(found("allocations", &[0.0, 0.0], &[0.0, 0.0]), [0, 0, 0]);
    }

    #[test]
    fn what_is_no_longer_measured_is_named_and_rivals_do_not_count() {
        let (then, now) = (figures("ns", &[100.0]), Figures::default());
        let side = |figures| Side { figures, arithmetic_ns: &[1.0] };
        let gone = |counts| compare(side(&then), side(&now), 0.1, |_| counts, |_| Some(())).gone;
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
        fs::write(path(&folder, "torn"), [0xff]).expect("can be written");
        let error = Baseline::load(&folder, "torn").expect_err("no text");
        assert!(error.contains("torn.json: "), "{error}");
        fs::remove_dir_all(&folder).expect("can be removed");
    }
}
