//! Rows of `memory_benchmarks` and of the `heap` program.

use super::{Row, grouped};
use crate::bench::figures::{NS, Name};

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
    let allocations = |requirements, what| {
        let name = Name::new("allocations", "spanwire", what, "allocations");
        let row = Row::new(requirements, &format!("allocations: {what}"), name);
        row.rivals(["opentelemetry_sdk"])
    };
    rows.extend([
        allocations(&["G2"], "span, 5 attributes").at_most(0.0),
        allocations(&["S1.8"], "model span, 8 attributes and 4 events").at_most(0.0),
        allocations(&["G5", "S1.5"], "encode 1,000 spans").at_most(1.0),
        allocations(&["S1.3"], "trace id to hex").at_most(0.0),
        allocations(&["S1.7"], "attribute with a static key").at_most(0.0),
        Row::new(
            &["S1.9"],
            "the names of 10,000 spans, 100 of them different",
            Name::new("interned_names", "spanwire, interned", "10000", "B"),
        )
        .rivals(["owned"])
        .expected(50_000.0),
        Row::new(
            &["S1.10"],
            "1,000,000 spans from the pool: allocations",
            Name::new("pooled_spans", "spanwire, pooled", "1000000", "allocations"),
        )
        .rivals(["spanwire, fresh"])
        .expected(1_000.0),
        Row::new(
            &["S1.10"],
            "1,000,000 spans from the pool: time",
            Name::new("pooled_spans", "spanwire, pooled", "1000000", "ms"),
        )
        .rivals(["spanwire, fresh"])
        .expected(120.0),
    ]);
    rows
}
