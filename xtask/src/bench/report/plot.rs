//! Bars as SVG, drawn in percentages of the page's width so that text keeps its size on a phone.

use std::fmt::Write as _;

use super::html::escaped;
use crate::bench::figures::{Figures, Name, Spread, show};

/// Where figures lie further apart than this, bars grow with the logarithm.
const LINEAR_UP_TO: f64 = 20.0;

/// Bars of all figures of a group in one unit, ours first within each value. Empty if there are
/// fewer than two: one bar compares with nothing.
pub(super) fn bars(group: &str, unit: &str, figures: &Figures) -> String {
    let of_group = figures.iter().map(|(name, _)| name);
    let of_group = of_group.filter(|name| name.group == group && name.unit == unit);
    let mut bars: Vec<(&Name, Spread)> =
        of_group.filter_map(|name| Some((name, figures.spread(name)?))).collect();
    if bars.len() < 2 {
        return String::new();
    }
    // Numbers go by their size, texts as they are.
    let order = |name: &Name| name.value.parse::<u64>().unwrap_or(u64::MAX);
    bars.sort_by_key(|(name, _)| (order(name), name.value.clone(), !name.is_ours()));
    let scale = Scale::of(bars.iter().map(|(_, spread)| spread));

    let mut body = String::new();
    let mut top = 0;
    let mut value = "";
    for (name, spread) in &bars {
        if name.value != value {
            value = &name.value;
            let (y, text) = (top + 18, escaped(value));
            let _ = write!(body, r#"<text class="value" x="0" y="{y}">{text}</text>"#);
            top += 24;
        }
        top += bar(&mut body, name, spread, &scale, top);
    }
    let unit = match unit {
        "ns" => "time",
        "ns each" => "time for each",
        unit => unit,
    };
    let kind = match scale {
        Scale::Linear { .. } => "",
        Scale::Logarithmic { .. } => ", logarithmic",
    };
    let title = escaped(&format!("{group}: {unit}{kind}"));
    let height = top + 4;
    format!(
        "<figure><figcaption>{title}</figcaption>\
         <svg role=\"img\" width=\"100%\" height=\"{height}\" aria-label=\"{title}\">{body}</svg>\
         </figure>\n"
    )
}

/// Draws a line of text with its bar and whiskers below; returns the height taken.
fn bar(body: &mut String, name: &Name, spread: &Spread, scale: &Scale, top: i32) -> i32 {
    const TEXT: i32 = 15;
    const BAR: i32 = 11;
    let class = if name.is_ours() { "ours" } else { "rival" };
    let [least, median, greatest] =
        [spread.least, spread.median, spread.greatest].map(|figure| scale.percent(figure));
    let (text, bar, middle) = (top + TEXT - 3, top + TEXT, top + TEXT + BAR / 2);
    let (who, figure) = (escaped(&name.function), escaped(&show(spread.median, &name.unit)));
    let _ = write!(
        body,
        r#"<text x="0" y="{text}">{who}</text><text class="figure" x="100%" y="{text}">{figure}</text><rect class="{class}" x="0" y="{bar}" width="{median:.1}%" height="{BAR}"/>"#
    );
    for (from, to, half) in [(least, greatest, 0), (least, least, 4), (greatest, greatest, 4)] {
        let (up, down) = (middle - half, middle + half);
        let _ = write!(body, r#"<line x1="{from:.1}%" x2="{to:.1}%" y1="{up}" y2="{down}"/>"#);
    }
    TEXT + BAR + 6
}

/// From a figure to a place on the page.
enum Scale {
    Linear { greatest: f64 },
    Logarithmic { least: f64, greatest: f64 },
}

impl Scale {
    fn of<'a>(spreads: impl Iterator<Item = &'a Spread> + Clone) -> Self {
        let greatest = spreads.clone().map(|spread| spread.greatest).fold(0.0, f64::max);
        let positive = spreads.map(|spread| spread.least).filter(|least| *least > 0.0);
        let least = positive.fold(f64::INFINITY, f64::min);
        if greatest > least * LINEAR_UP_TO {
            // The shortest bar keeps some length.
            Self::Logarithmic { least: least / 2.0, greatest }
        } else {
            Self::Linear { greatest }
        }
    }

    fn percent(&self, figure: f64) -> f64 {
        let part = match *self {
            Self::Linear { greatest } if greatest > 0.0 => figure / greatest,
            Self::Logarithmic { least, greatest } if figure > least => {
                (figure / least).ln() / (greatest / least).ln()
            }
            _ => 0.0,
        };
        // A whisker at the very edge would be cut in half.
        part * 99.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(functions: &[(&str, f64)]) -> Figures {
        let mut figures = Figures::default();
        for (function, figure) in functions {
            figures.enter(0, Name::new("span", function, "5", "ns"), *figure);
        }
        figures
    }

    #[test]
    fn a_bar_is_as_long_as_its_figure_up_to_twenty_times() {
        let svg = bars("span", "ns", &figures(&[("fastrace", 50.0), ("spanwire", 100.0)]));
        let ours = svg.find(r#"class="ours" x="0" y="39" width="99.5%""#);
        let rival = svg.find(r#"class="rival" x="0" y="71" width="49.8%""#);
        assert!(ours.is_some() && ours < rival, "{svg}");
        assert!(svg.contains("span: time</figcaption>"), "{svg}");
    }

    #[test]
    fn figures_far_apart_grow_with_the_logarithm() {
        let svg = bars("span", "ns", &figures(&[("a", 1.0), ("b", 32.0)]));
        assert!(svg.contains("span: time, logarithmic"), "{svg}");
        // A factor of two, of the six between half the least and the greatest.
        assert!(svg.contains(r#"width="16.6%""#) && svg.contains(r#"width="99.5%""#), "{svg}");
    }

    #[test]
    fn one_bar_alone_is_not_drawn() {
        assert_eq!(bars("span", "ns", &figures(&[("spanwire", 1.0)])), "");
    }
}
