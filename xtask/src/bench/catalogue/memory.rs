//! Rows of `memory_benchmarks` and of the `heap` program.

use super::{Row, grouped};
use crate::bench::figures::{NS, NS_EACH, Name};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for attributes in ["0", "10", "100"] {
        let what = format!("a deep clone of a span with {attributes} attributes");
        let row =
            Row::new(&["S0.3"], &what, Name::new("span_deep_clone", "spanwire", attributes, NS))
                .rivals(["opentelemetry_sdk"]);
        rows.push(if attributes == "10" { row.expected(180.0) } else { row });
    }
    rows.extend([
        Row::new(
            &["S0.3"],
            "a shared clone: Bytes of a chunk",
            Name::new("span_shared_clone", "spanwire", "", NS),
        )
        .rivals(["Arc"])
        .expected(2.0),
        Row::new(
            &["S0.3", "S1.10"],
            "a span from the pool, filled and put back",
            Name::new("object_pool", "spanwire, pooled", "", NS),
        )
        .rivals(["spanwire, fresh"])
        .ahead_of("spanwire, fresh", 1.0),
        Row::new(
            &["S0.3"],
            "a request of 1,000 spans cut and put together, without copying",
            Name::new("zero_copy", "spanwire, sliced", "", NS),
        )
        .rivals(["copied"])
        .ahead_of("copied", 1.0),
    ]);
    for spans in [100, 1_000, 10_000] {
        let what = format!("heap of {} finished spans, encoded, a span", grouped(spans));
        let name = Name::new("heap_of_spans", "spanwire, encoded", &spans.to_string(), "B/span");
        let row = Row::new(&["S0.3"], &what, name);
        rows.push(row.rivals(["spanwire, model", "opentelemetry_sdk"]).expected(256.0));
    }
    let allocations = |requirements, what, most| {
        let name = Name::new("allocations", "spanwire", what, "allocations");
        Row::new(requirements, &format!("allocations: {what}"), name).at_most(most)
    };
    const SDK: [&str; 1] = ["opentelemetry_sdk"];
    rows.extend([
        allocations(&["G2"], "span, 5 attributes", 0.0)
            .rivals(SDK)
            .note("Without what the exporter takes out of a full chunk: one allocation a chunk."),
        allocations(&["S1.8"], "model span, 8 attributes and 4 events", 0.0),
        allocations(&["G5"], "encode 1,000 spans, vector reused", 0.0),
        allocations(&["S1.5"], "encode 1,000 spans", 1.0).rivals(SDK),
        allocations(&["G10"], "read 1,000 spans: framing", 0.0),
        allocations(&["G10"], "read 1,000 spans: check", 0.0),
        allocations(&["G10"], "read 1,000 spans: name and ids", 0.0).beside(
            "prost, everything",
            Name::new("allocations", "prost", "read 1,000 spans", "allocations"),
        ),
        allocations(&["S1.3"], "trace id to hex", 0.0).rivals(SDK),
        allocations(&["S1.7"], "attribute with a static key", 0.0).rivals(SDK),
        allocations(&["S1.7"], "model attribute with a static key", 0.0).beside(
            "an owned key",
            Name::new(
                "allocations",
                "spanwire",
                "model attribute with an owned key",
                "allocations",
            ),
        ),
        Row::new(
            &["S1.9"],
            "the names of 10,000 spans, 100 of them different",
            Name::new("interned_names", "spanwire, interned", "10000", "B"),
        )
        .rivals(["owned"])
        .expected(50_000.0)
        .note("Without the 10,000 handles, which are a part of the spans in either case."),
        Row::new(
            &["S1.10"],
            "1,000,000 spans from the pool: allocations",
            Name::new("pooled_spans", "spanwire, pooled", "1000000", "allocations"),
        )
        .rivals(["spanwire, fresh"])
        .expected(1_000.0)
        .note(
            "Three for each of the 1,000 that are in use at a time: the span itself, and its lists of \
             attributes and of events, which hold more here than a span does by itself.",
        ),
        // 120 ms for 1,000,000.
        Row::new(
            &["S1.10"],
            "a span of 1,000,000 from the pool: time",
            Name::new("pooled_spans", "spanwire, pooled", "", NS_EACH),
        )
        .rivals(["spanwire, fresh"])
        .expected(120.0),
    ]);
    rows
}
