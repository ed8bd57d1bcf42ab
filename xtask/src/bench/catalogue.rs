//! What is required and by which figure it is shown: one row for each requirement, as data.
//!
//! The tables name what the programs measure; nothing here knows a result. A row names its
//! requirements (S… what a tracing library must offer, G… how fast this one means to be), its own
//! figure, those of its rivals, the figure expected of such a library where one is published, and its
//! goals. Whether they are reached is for [`super::verdict`] to say.

mod collector;
mod cpu;
mod memory;
mod sockets;
mod whole;

use super::figures::{Name, number, show, show_ratio};
use super::suite::Suite;

/// On what the tables depend beside what is required.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// Cores of the machine: threads beyond them share cores, and nothing is asked of them.
    pub(super) cores: usize,
    /// Whether whole exports are the short ones of a quick run.
    pub(super) quick: bool,
}

/// Every row, in the order of the report.
pub(super) fn sections(setting: Setting) -> Vec<Section> {
    let section = |title, suite, rows| Section { title, suite, rows };
    vec![
        section("Recording, encoding and reading", Some(Suite::Cpu), cpu::rows()),
        section("Memory", Some(Suite::Memory), memory::rows()),
        section("Over sockets", Some(Suite::Network), sockets::rows()),
        section("Threads and requests at once", Some(Suite::Concurrency), whole::threads(setting)),
        section("End to end", Some(Suite::E2e), whole::end_to_end()),
        section("Whole exports", Some(Suite::Export), whole::exports(setting)),
        section("Under load", Some(Suite::Load), whole::load(setting)),
        section("Through the collector", Some(Suite::Collector), collector::rows()),
        section("Optimised builds", None, whole::builds()),
    ]
}

/// The rows of one suite.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    /// What measures them; `None` for `cargo xtask pgo`, whose figures are taken over.
    pub(super) suite: Option<Suite>,
    pub(super) rows: Vec<Row>,
}

/// One requirement or more, and the figure that shows them.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) requirements: &'static [&'static str],
    /// What is measured, in words.
    pub(super) what: String,
    /// What has to be known to read the row aright.
    pub(super) note: Option<&'static str>,
    pub(super) figure: Name,
    pub(super) rivals: Vec<Rival>,
    /// What rivals came to when the goals were set, in the row's unit: nothing here measures them.
    pub(super) earlier: Vec<(&'static str, f64)>,
    /// The published figure expected of such a library, in the row's unit.
    pub(super) expected: Option<f64>,
    pub(super) goals: Vec<Goal>,
}

impl Row {
    fn new(requirements: &'static [&'static str], what: &str, figure: Name) -> Self {
        Self {
            requirements,
            what: what.to_owned(),
            note: None,
            figure,
            rivals: Vec::new(),
            earlier: Vec::new(),
            expected: None,
            goals: Vec::new(),
        }
    }

    fn note(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }

    /// Those who do the same under the same group, value and unit.
    fn rivals<const N: usize>(mut self, functions: [&'static str; N]) -> Self {
        self.rivals.extend(functions.map(|function| Rival {
            label: function.to_owned(),
            name: Name { function: function.to_owned(), ..self.figure.clone() },
        }));
        self
    }

    /// Another figure to compare with, by what it is.
    fn beside(mut self, label: &str, name: Name) -> Self {
        self.rivals.push(Rival { label: label.to_owned(), name });
        self
    }

    /// A rival's figure of another run, for readers: no goal can be about it.
    fn earlier(mut self, label: &'static str, figure: f64) -> Self {
        self.earlier.push((label, figure));
        self
    }

    /// The published figure, which is also the least that is asked for.
    fn expected(mut self, figure: f64) -> Self {
        self.expected = Some(figure);
        self
    }

    fn at_most(mut self, figure: f64) -> Self {
        self.goals.push(Goal::AtMost(figure));
        self
    }

    fn at_least(mut self, figure: f64) -> Self {
        self.goals.push(Goal::AtLeast(figure));
        self
    }

    fn ahead_of(mut self, rival: &str, times: f64) -> Self {
        self.goals.push(Goal::Ahead { rival: rival.to_owned(), times });
        self
    }

    /// All that is asked of the row. The expected figure counts unless a goal in the same unit does.
    pub(super) fn asked(&self) -> Vec<Goal> {
        let absolute = |goal: &Goal| matches!(goal, Goal::AtMost(_) | Goal::AtLeast(_));
        let floor = self.expected.filter(|_| !self.goals.iter().any(absolute)).map(|figure| {
            if self.figure.more_is_better() { Goal::AtLeast(figure) } else { Goal::AtMost(figure) }
        });
        floor.into_iter().chain(self.goals.iter().cloned()).collect()
    }
}

/// Who is compared with, and where its figure is.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    pub(super) label: String,
    pub(super) name: Name,
}

/// What is asked of a figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Goal {
    /// In the row's unit.
    AtMost(f64),
    /// In the row's unit.
    AtLeast(f64),
    /// So many times better than the rival of this label, in the same rounds.
    Ahead { rival: String, times: f64 },
}

impl Goal {
    /// In words, for a row with figures of this unit.
    pub(super) fn show(&self, unit: &str) -> String {
        match self {
            Self::AtMost(0.0) => show(0.0, unit),
            Self::AtMost(figure) => format!("≤ {}", show(*figure, unit)),
            Self::AtLeast(figure) => format!("≥ {}", show(*figure, unit)),
            Self::Ahead { rival, times: 1.0 } => format!("ahead of {rival}"),
            Self::Ahead { rival, times } => format!("≥ {} {rival}", show_ratio(*times)),
        }
    }
}

/// A count in words: thousands apart.
fn grouped(count: u32) -> String {
    number(f64::from(count))
}

/// What a command shows that no figure can.
pub(super) struct Shown {
    pub(super) requirement: &'static str,
    pub(super) what: &'static str,
    pub(super) by: &'static str,
}

/// Requirements that are shown by something else than a figure.
pub(super) const SHOWN: [Shown; 10] = [
    Shown {
        requirement: "S0.1",
        what: "five criterion suites over shared fixtures",
        by: "cargo xtask bench cpu|memory|network|concurrency|e2e",
    },
    Shown {
        requirement: "S0.3",
        what: "leaks: all that is allocated is freed, also where there was a cycle",
        by: "cargo test -p spanwire --test leaks",
    },
    Shown {
        requirement: "S0.7",
        what: "regressions against a named baseline",
        by: "cargo xtask bench --save NAME, then cargo xtask bench --baseline NAME",
    },
    Shown {
        requirement: "S0.9",
        what: "one report of all figures beside the published ones and the rivals'",
        by: "cargo xtask bench",
    },
    Shown {
        requirement: "S1.2",
        what: "flame graph, perf and cachegrind, one command each",
        by: "cargo xtask profile",
    },
    Shown {
        requirement: "S1.6",
        what: "hot paths inlined, cold ones out of line: instructions counted and compared",
        by: "cargo xtask bench --instructions",
    },
    Shown {
        requirement: "S1.12",
        what: "bodies below 1 KiB are sent as they are",
        by: "cargo test -p spanwire-transport compression_starts_at_the_threshold",
    },
    Shown {
        requirement: "S1.13",
        what: "a batch is complete by its age too",
        by: "cargo test -p spanwire-batcher when_its_oldest_span_reaches_the_age",
    },
    Shown {
        requirement: "S3.10",
        what: "spans collected within a process: throughput, a call's time, CPU and memory",
        by: "cargo run --release -p spanwire-collector --example inlet",
    },
    Shown {
        requirement: "S4.6",
        what: "a gigabyte of requests held in about its own size of memory",
        by: "cargo xtask endure",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SETTINGS: [Setting; 2] =
        [Setting { cores: 2, quick: false }, Setting { cores: 16, quick: true }];

    #[test]
    fn each_requirement_has_a_row() {
        let serial = |range: std::ops::RangeInclusive<u32>, stage: &str| -> Vec<String> {
            range.map(|number| format!("{stage}{number}")).collect()
        };
        let of_the_collector = vec!["S3.10".to_owned(), "S4.6".to_owned()];
        let wanted =
            [serial(1..=9, "S0."), serial(1..=17, "S1."), serial(1..=13, "G"), of_the_collector];
        for setting in SETTINGS {
            let mut there: BTreeSet<&str> = SHOWN.iter().map(|shown| shown.requirement).collect();
            for row in sections(setting).iter().flat_map(|section| &section.rows) {
                there.extend(row.requirements);
            }
            for id in wanted.iter().flatten() {
                assert!(there.contains(id.as_str()), "{id} has no row in {setting:?}");
            }
            assert_eq!(there.len(), wanted.iter().flatten().count(), "unknown ones: {there:?}");
        }
    }

    #[test]
    fn each_figure_stands_in_one_row() {
        for setting in SETTINGS {
            let mut seen = BTreeSet::new();
            for row in sections(setting).into_iter().flat_map(|section| section.rows) {
                assert!(seen.insert(row.figure.clone()), "{} twice", row.figure);
            }
        }
    }

    #[test]
    fn a_goal_is_about_a_rival_of_its_row() {
        for row in sections(SETTINGS[1]).into_iter().flat_map(|section| section.rows) {
            assert!(!row.requirements.is_empty() && !row.what.is_empty(), "{}", row.figure);
            assert!(row.note.is_none_or(|note| note.ends_with('.')), "{} has a note", row.figure);
            for rival in &row.rivals {
                assert!(rival.name != row.figure, "{} is its own rival", row.figure);
                assert_eq!(rival.name.unit, row.figure.unit, "{}", row.figure);
            }
            for goal in row.asked() {
                if let Goal::Ahead { rival, .. } = goal {
                    let known = row.rivals.iter().any(|known| known.label == rival);
                    assert!(known, "{}: no rival {rival}", row.figure);
                }
            }
        }
    }

    #[test]
    fn an_expected_figure_is_the_floor_where_no_goal_says_more() {
        let name = || Name::new("g", "spanwire", "", "ns");
        let asked = |row: Row| row.asked();
        let row = || Row::new(&["S0.2"], "x", name()).rivals(["r"]).expected(12.0);
        assert_eq!(asked(row()), [Goal::AtMost(12.0)]);
        assert_eq!(asked(row().at_most(8.0)), [Goal::AtMost(8.0)]);
        let ahead = Goal::Ahead { rival: "r".to_owned(), times: 2.0 };
        assert_eq!(asked(row().ahead_of("r", 2.0)), [Goal::AtMost(12.0), ahead]);
        let throughput = Row::new(&["S0.8"], "x", Name::new("g", "f", "", "spans/s"));
        assert_eq!(asked(throughput.expected(10.0)), [Goal::AtLeast(10.0)]);
    }

    #[test]
    fn a_goal_reads_as_a_sentence_would() {
        let ahead = |times| Goal::Ahead { rival: "prost".to_owned(), times };
        assert_eq!(ahead(1.0).show("ns"), "ahead of prost");
        assert_eq!(ahead(10.0).show("ns"), "≥ 10× prost");
        assert_eq!(Goal::AtMost(0.0).show("allocations"), "0 allocations");
        assert_eq!(Goal::AtMost(500_000.0).show("ns"), "≤ 500 µs");
    }
}
