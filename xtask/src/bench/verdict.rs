//! Holds the figures of a run against the catalogue: pure decisions on data.

use std::collections::BTreeSet;

use super::catalogue::{Goal, Row, Section};
use super::figures::{Figures, NS, NS_EACH, Name, Spread, ratio};

/// A row of the catalogue with what was measured.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) row: &'a Row,
    /// `None` if the figure was not measured.
    pub(super) ours: Option<Spread>,
    pub(super) rivals: Vec<Beside<'a>>,
    pub(super) goals: Vec<(Goal, Option<bool>)>,
    /// Whether the figure, or a ratio that a goal is about, varies too much for its median to be
    /// taken at its word.
    pub(super) noisy: bool,
}

/// A rival's figure and how many times better ours is.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    pub(super) label: &'a str,
    pub(super) figure: Option<Spread>,
    pub(super) ratio: Option<Spread>,
}

/// What a line comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All goals are.
    Reached,
    /// At least one goal is not.
    Missed,
    /// The figure of the row, or that of a rival a goal is about, is not there.
    NotMeasured,
    /// Nothing is asked: the figure stands for itself.
    NoGoal,
}

impl Line<'_> {
    pub(super) fn outcome(&self) -> Outcome {
        if self.ours.is_none() {
            return Outcome::NotMeasured;
        }
        let reached = self.goals.iter().map(|(_, reached)| *reached);
        if reached.clone().any(|reached| reached == Some(false)) {
            Outcome::Missed
        } else if reached.clone().any(|reached| reached.is_none()) {
            Outcome::NotMeasured
        } else if self.goals.is_empty() {
            Outcome::NoGoal
        } else {
            Outcome::Reached
        }
    }

    /// Whether one of the goals of this library is about the line.
    pub(super) fn is_goal(&self) -> bool {
        self.row.requirements.iter().any(|id| id.starts_with('G'))
    }
}

/// Each row of a section with its figures. Goals are held against medians, those of losses and of
/// allocations against the worst round.
pub(super) fn lines<'a>(section: &'a Section, figures: &Figures) -> Vec<Line<'a>> {
    section.rows.iter().map(|row| line(row, figures)).collect()
}

fn line<'a>(row: &'a Row, figures: &Figures) -> Line<'a> {
    let ours = figures.spread(&row.figure);
    let rivals: Vec<Beside<'_>> = row
        .rivals
        .iter()
        .map(|rival| Beside {
            label: &rival.label,
            figure: figures.spread(&rival.name),
            ratio: ratio(
                figures.rounds(&row.figure),
                figures.rounds(&rival.name),
                row.figure.more_is_better(),
            ),
        })
        .collect();
    let ratio_to = |label: &str| rivals.iter().find(|beside| beside.label == label)?.ratio;
    let mut noisy = ours.is_some_and(|ours| ours.is_noisy());
    let mut goals = Vec::new();
    for goal in row.asked() {
        let reached = match &goal {
            Goal::AtMost(most) if row.figure.each_round_counts() => {
                ours.map(|ours| ours.greatest <= *most)
            }
            Goal::AtMost(most) => ours.map(|ours| ours.median <= *most),
            Goal::AtLeast(least) => ours.map(|ours| ours.median >= *least),
            Goal::Ahead { rival, times } => {
                let ratio = ratio_to(rival);
                noisy |= ratio.is_some_and(|ratio| ratio.is_noisy());
                ratio.map(|ratio| ratio.median >= *times)
            }
        };
        goals.push((goal, reached));
    }
    Line { row, ours, rivals, goals, noisy }
}

/// Figures that no row of the catalogue shows, be it as its own or as a rival's.
pub(super) fn others<'a>(sections: &[Section], figures: &'a Figures) -> Vec<(&'a Name, Spread)> {
    // Whole times and those of one element are two views of one figure.
    let plain = |name: &Name| match name.unit.as_str() {
        NS_EACH => Name { unit: NS.to_owned(), ..name.clone() },
        _ => name.clone(),
    };
    let mut shown = BTreeSet::new();
    for row in sections.iter().flat_map(|section| &section.rows) {
        shown.insert(plain(&row.figure));
        shown.extend(row.rivals.iter().map(|rival| plain(&rival.name)));
    }
    let unknown = figures.iter().filter(|(name, _)| !shown.contains(&plain(name)));
    let whole = unknown.filter(|(name, _)| name.unit != NS_EACH);
    whole.filter_map(|(name, _)| Some((name, figures.spread(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::catalogue::Rival;

    fn name(function: &str) -> Name {
        Name::new("g", function, "", NS)
    }

    fn row(expected: Option<f64>, goals: &[Goal]) -> Row {
        Row {
            requirements: &["G1"],
            what: "x".to_owned(),
            note: None,
            figure: name("spanwire"),
            rivals: vec![Rival { label: "slow".to_owned(), name: name("slow") }],
            earlier: Vec::new(),
            expected,
            goals: goals.to_vec(),
        }
    }

    fn figures(ours: &[f64], slow: &[f64]) -> Figures {
        let mut figures = Figures::default();
        for (function, rounds) in [("spanwire", ours), ("slow", slow)] {
            for (round, figure) in rounds.iter().enumerate() {
                figures.enter(round, name(function), *figure);
            }
        }
        figures
    }

    fn ahead(times: f64) -> Goal {
        Goal::Ahead { rival: "slow".to_owned(), times }
    }

    #[test]
    fn all_goals_of_a_row_must_be_reached() {
        let figures = figures(&[10.0, 10.5, 11.0], &[40.0, 42.0, 44.0]);
        let outcome = |row: Row| line(&row, &figures).outcome();
        assert_eq!(outcome(row(None, &[])), Outcome::NoGoal);
        assert_eq!(outcome(row(Some(12.0), &[ahead(4.0)])), Outcome::Reached);
        assert_eq!(outcome(row(Some(12.0), &[ahead(4.1)])), Outcome::Missed);
        assert_eq!(outcome(row(Some(10.0), &[ahead(4.0)])), Outcome::Missed);
        assert_eq!(outcome(row(None, &[Goal::AtLeast(10.5)])), Outcome::Reached);
    }

    #[test]
    fn one_round_with_a_lost_span_misses_the_goal_of_none() {
        let lost = Name::new("burst", "spanwire", "", "lost");
        let outcome = |rounds: [f64; 3]| {
            let mut figures = Figures::default();
            figures.enter_rounds(lost.clone(), rounds.map(Some).into());
            let row = Row { figure: lost.clone(), ..row(None, &[Goal::AtMost(0.0)]) };
            line(&row, &figures).outcome()
        };
        assert_eq!(outcome([0.0, 0.0, 0.0]), Outcome::Reached);
        assert_eq!(outcome([0.0, 7.0, 0.0]), Outcome::Missed);
    }

    #[test]
    fn what_was_not_measured_is_not_reached() {
        let row = row(Some(12.0), &[ahead(1.0)]);
        assert_eq!(line(&row, &figures(&[], &[40.0])).outcome(), Outcome::NotMeasured);
        assert_eq!(line(&row, &figures(&[10.0], &[])).outcome(), Outcome::NotMeasured);
        assert_eq!(line(&row, &figures(&[13.0], &[])).outcome(), Outcome::Missed);
    }

    #[test]
    fn a_wide_spread_of_the_figure_or_of_a_ratio_that_counts_is_noisy() {
        let row = |goals| row(Some(12.0), goals);
        let (row, unasked) = (row(&[ahead(2.0)]), row(&[]));
        assert!(!line(&row, &figures(&[10.0, 10.5], &[40.0, 42.0])).noisy);
        assert!(line(&row, &figures(&[10.0, 14.0], &[40.0, 56.0])).noisy, "the figure");
        let ratio = figures(&[10.0, 10.5], &[40.0, 80.0]);
        assert!(line(&row, &ratio).noisy, "the ratio");
        assert!(!line(&unasked, &ratio).noisy, "nothing is asked of the ratio");
    }

    #[test]
    fn others_are_what_no_row_shows() {
        let mut figures = figures(&[1.0], &[2.0]);
        figures.enter(0, Name::new("clock", "Instant", "", NS), 46.0);
        figures.enter(0, Name { unit: NS_EACH.to_owned(), ..name("slow") }, 1.0);
        let section = Section { title: "", suite: None, rows: vec![row(None, &[])] };
        let others = others(&[section], &figures);
        let names: Vec<String> = others.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["clock/Instant"]);
    }
}
