use proptest::prelude::*;
use spanwire_model::{
    Attributes, Limits, Span, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId,
    TraceTree, Value,
};

const START: u64 = 1_700_000_000_000_000_000;

fn span(id: u64, parent: u64, name: &str, start_us: u64, duration_us: u64) -> Span {
    let trace = TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).expect("not zero");
    let context = SpanContext::new(trace, SpanId::new(id).expect("not zero"), TraceFlags::SAMPLED);
    let mut span = Span::new(context, name.to_owned());
    span.parent_span_id = SpanId::new(parent);
    span.start_time_unix_nano = START + start_us * 1_000;
    span.end_time_unix_nano = span.start_time_unix_nano + duration_us * 1_000;
    span
}

fn draw(spans: &[Span]) -> String {
    TraceTree::new(spans.iter().map(|span| ("", span))).to_string()
}

/// The request that a newcomer meets first.
fn checkout() -> Vec<(&'static str, Span)> {
    let limits = Limits::default();
    let mut root = span(0xa1, 0, "POST /checkout", 0, 42_100);
    root.kind = SpanKind::Server;
    root.attributes.set("http.request.method", "POST");
    root.attributes.set("http.response.status_code", 502);
    root.status = Status::Error { message: "payment failed".into() };

    let mut authenticate = span(0xa2, 0xa1, "authenticate", 210, 1_204);
    authenticate.add_event(START + 900_000, "cache miss", Attributes::new(), &limits);

    let mut select = span(0xa3, 0xa1, "SELECT carts", 1_500, 9_000);
    select.kind = SpanKind::Client;
    select.attributes.set("db.system.name", "postgresql");
    select.attributes.set("db.query.text", "SELECT *\nFROM carts WHERE \"user\" = ?");

    let mut charge = span(0xa4, 0xa1, "POST /charge", 11_000, 30_200);
    charge.kind = SpanKind::Client;

    let mut charged = span(0xa5, 0xa4, "POST /charge", 12_000, 28_000);
    charged.kind = SpanKind::Server;
    charged.attributes.set("payment.amount", 19.9);
    charged.attributes.set("payment.items", Value::from(vec!["book", "pen"]));
    let facts = [("exception.type", "CardError"), ("exception.message", "card declined")];
    charged.add_event(START + 39_900_000, "exception", facts.into_iter().collect(), &limits);
    charged.status = Status::Error { message: "card declined".into() };

    vec![
        ("payments", charged),
        ("shop", select),
        ("shop", charge),
        ("shop", root),
        ("shop", authenticate),
    ]
}

#[test]
fn a_trace_is_drawn_as_a_tree_with_everything_a_reader_looks_for() {
    let spans = checkout();
    let tree = TraceTree::new(spans.iter().map(|(service, span)| (*service, span)));
    assert_eq!(tree.to_string(), include_str!("tree.golden.txt").trim_end_matches('\n'));
}

#[test]
fn colours_add_escape_sequences_and_nothing_else() {
    let spans = checkout();
    let tree = TraceTree::new(spans.iter().map(|(service, span)| (*service, span)));
    let coloured = format!("{tree:#}");
    let plain: String = coloured
        .split('\x1b')
        .enumerate()
        .map(|(at, part)| match at {
            0 => part,
            _ => part.split_once('m').expect("a style").1,
        })
        .collect();
    assert_eq!(plain, tree.to_string());
    assert!(coloured.contains("\x1b[31m✗ ERROR card declined\x1b[0m"));
}

#[test]
fn order_of_arrival_does_not_matter() {
    let spans = checkout();
    let tree = |spans: &mut dyn Iterator<Item = &(&'static str, Span)>| {
        TraceTree::new(spans.map(|(service, span)| (*service, span))).to_string()
    };
    assert_eq!(tree(&mut spans.iter()), tree(&mut spans.iter().rev()));
}

#[test]
fn a_span_without_its_parent_starts_a_tree_and_says_so() {
    let drawn = draw(&[span(2, 9, "orphan", 0, 5), span(3, 2, "child", 1, 2)]);
    assert!(drawn.contains("\norphan"), "{drawn}");
    assert!(drawn.contains("│   ↑ parent 0000000000000009 is not here\n└─ child"), "{drawn}");
}

#[test]
fn a_cycle_of_parents_is_cut_open_at_its_earliest_span() {
    let drawn = draw(&[
        span(1, 3, "one", 2, 1),
        span(2, 1, "two", 1, 1),
        span(3, 2, "three", 3, 1),
        span(4, 4, "self", 9, 1),
    ]);
    for line in ["\n\ntwo  ", "\n└─ three  ", "\n   └─ one  ", "\n\nself  "] {
        assert!(drawn.contains(line), "{drawn}");
    }
    assert!(drawn.contains("│   ↻ parent 0000000000000001 leads back to this span\n"), "{drawn}");
    assert!(drawn.ends_with("    ↻ parent 0000000000000004 leads back to this span"), "{drawn}");
}

#[test]
fn what_hangs_on_a_cycle_is_drawn_below_it_even_where_it_starts_earlier() {
    let drawn =
        draw(&[span(1, 2, "one", 5, 1), span(2, 1, "two", 6, 1), span(3, 2, "early", 0, 1)]);
    for line in ["\n\none  ", "\n└─ two  ", "\n   └─ early  "] {
        assert!(drawn.contains(line), "{drawn}");
    }
}

#[test]
fn of_spans_with_one_id_the_first_has_the_children_and_all_are_drawn() {
    let drawn = draw(&[
        span(1, 0, "root", 0, 9),
        span(2, 1, "late twin", 5, 1),
        span(2, 1, "early twin", 1, 1),
        span(3, 2, "child", 2, 1),
    ]);
    let lines: Vec<&str> = drawn.lines().collect();
    for (line, start) in
        lines[2..].iter().zip(["root ", "├─ early twin ", "│  └─ child ", "└─ late twin "])
    {
        assert!(line.starts_with(start), "{drawn}");
    }
    assert_eq!(lines.len(), 6);
}

#[test]
fn several_traces_stand_in_the_order_of_their_starts() {
    let mut later = span(1, 0, "later", 7, 1);
    later.context.trace_id = TraceId::new(1).expect("not zero");
    let drawn = draw(&[later, span(1, 0, "sooner", 0, 1)]);
    let (sooner, later) = (drawn.find("sooner"), drawn.find("later"));
    assert!(sooner < later, "{drawn}");
    assert_eq!(drawn.matches("Trace ").count(), 2);
}

#[test]
fn control_and_invisible_characters_of_peers_are_escaped() {
    let mut hostile = span(1, 0, "\x1b[2J\r\nname\u{202e}\u{feff}", 0, 1);
    hostile.attributes.set(String::from("key\x07"), "a\0\u{9b}\"\\");
    hostile.status = Status::Error { message: "line\nbreak".into() };
    let tree = TraceTree::new([("ser\tvice", &hostile)]).to_string();
    let control = |c: char| c.is_control() && c != '\n' || ('\u{200b}'..='\u{202e}').contains(&c);
    assert!(!tree.contains(control), "{tree:?}");
    assert!(tree.contains(r"\u{1b}[2J\r\nname\u{202e}\u{feff}"), "{tree}");
    assert!(tree.contains(r#"key\u{7} = "a\u{0}\u{9b}\"\\""#), "{tree}");
    assert!(tree.contains(r"✗ ERROR line\nbreak"), "{tree}");
}

#[test]
fn values_of_every_kind_are_readable() {
    let mut all = span(1, 0, "values", 0, 1);
    all.attributes.set("empty", Value::Empty);
    all.attributes.set("bytes", vec![0_u8, 255]);
    all.attributes.set("double", f64::NAN);
    all.attributes.set("int", i64::MIN);
    all.attributes
        .set("map", Value::map([("a", Value::from(true)), ("b", Value::map([("c", 1.0)]))]));
    all.attributes.set("none", Value::Array(Vec::new()));
    all.attributes.set("deep", crate::arbitrary::nested(60));
    let drawn = draw(&[all]);
    for line in [
        "empty = (empty)",
        "bytes = 0x00ff",
        "double = NaN",
        "int = -9223372036854775808",
        r#"map = {"a": true, "b": {"c": 1.0}}"#,
        "none = []",
        "deep = [[[[…]]]]",
    ] {
        assert!(drawn.contains(&format!("    {line}\n")) || drawn.ends_with(line), "{drawn}");
    }
}

#[test]
fn durations_have_three_digits_in_a_fitting_unit() {
    for (nanos, text) in [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (999_999, "999 µs"),
        (12_345_678, "12.3 ms"),
        (1_009_999_999, "1.00 s"),
        (u64::MAX - START, "16746744073 s"),
    ] {
        let mut span = span(1, 0, "timed", 0, 0);
        span.end_time_unix_nano += nanos;
        let drawn = draw(&[span]);
        assert!(drawn.contains(&format!("  +0 ns  {text:>7}  ━")), "{text}: {drawn}");
    }
}

#[test]
fn a_child_that_starts_before_the_root_by_its_own_clock_has_a_negative_offset() {
    let drawn = draw(&[span(1, 0, "root", 300, 100), span(2, 1, "skewed", 0, 100)]);
    assert!(drawn.contains("   -300 µs   100 µs  ━"), "{drawn}");
}

#[test]
fn what_is_left_out_of_a_span_is_counted() {
    let mut full = span(1, 0, "full", 0, 1);
    full.attributes = (0..20).map(|n| (format!("k{n:02}"), n)).collect();
    full.attributes.set_dropped(1);
    full.dropped_events_count = 2;
    for time in 0..20 {
        full.add_event(time, "tick", Attributes::new(), &Limits::default());
        full.add_link(full.context.clone(), Attributes::new(), &Limits::default());
    }
    let drawn = draw(&[full]);
    assert!(
        drawn.contains("k11 = 11\n    … 8 attributes more, 1 attribute dropped by a limit\n"),
        "{drawn}"
    );
    assert!(drawn.contains("… 12 events more, 2 events dropped by a limit\n"), "{drawn}");
    assert!(drawn.ends_with("… 16 links more"), "{drawn}");
}

#[test]
fn a_chain_of_any_depth_keeps_the_width_and_counts_what_lies_below() {
    let spans: Vec<Span> = (1..=100_000).map(|id| span(id, id - 1, "link", id, 1)).collect();
    let drawn = draw(&spans);
    assert!(drawn.ends_with("└─ … 99979 spans further down"), "{drawn}");
    assert!(drawn.lines().all(|line| line.chars().count() < 200));
}

#[test]
fn more_spans_than_anybody_reads_are_counted_not_drawn() {
    let spans: Vec<Span> =
        (1..=5_000).map(|id| span(id, u64::from(id > 1), "leaf", id, 1)).collect();
    let drawn = draw(&spans);
    assert_eq!(drawn.lines().count(), 1_001);
    assert!(drawn.ends_with("… 4002 spans not drawn"), "{drawn}");
}

#[test]
fn without_names_of_services_there_is_no_column_for_them() {
    assert!(draw(&[span(1, 0, "alone", 0, 1)]).contains("alone  internal      +0 ns  1.00 µs  ━"));
}

#[test]
fn no_spans_make_no_text() {
    assert_eq!(draw(&[]), "");
}

proptest! {
    #[test]
    fn whatever_the_parents_every_span_is_drawn_once_or_counted(
        parents in proptest::collection::vec((1_u64..30, 0_u64..40, 0_u64..9), 0..40),
        extreme in any::<bool>(),
    ) {
        let mut spans: Vec<Span> = Vec::new();
        for (at, &(id, parent, start)) in parents.iter().enumerate() {
            let mut span = span(id, parent, &format!("<{at}>"), start, 2);
            if extreme {
                (span.start_time_unix_nano, span.end_time_unix_nano) =
                    if start > 4 { (u64::MAX, 0) } else { (0, u64::MAX) };
            }
            spans.push(span);
        }
        let drawn = draw(&spans);
        let below: usize = drawn
            .lines()
            .filter(|line| line.ends_with(" further down"))
            .filter_map(|line| line.split_once("… ")?.1.split(' ').next()?.parse::<usize>().ok())
            .sum();
        let shown = (0..spans.len()).filter(|at| drawn.contains(&format!("<{at}>"))).count();
        prop_assert_eq!(shown + below, spans.len(), "{}", drawn);
        prop_assert_eq!(drawn.matches('<').count(), shown);
    }

    #[test]
    fn lines_keep_their_width_whatever_a_peer_sends(
        name in ".{0,99}", key in ".{0,99}", value in crate::arbitrary::value(), text in ".{0,200}",
    ) {
        let mut wide = span(1, 0, &name, 0, 1);
        wide.attributes.set(key, value);
        wide.attributes.set("text", text.clone());
        let drawn = TraceTree::new([(&*text, &wide)]).to_string();
        for line in drawn.lines() {
            prop_assert!(line.chars().count() <= 140, "{}", line);
        }
        let is_control = |c: char| c.is_control() && c != '\n';
        prop_assert!(!drawn.contains(is_control), "{:?}", drawn);
    }
}
