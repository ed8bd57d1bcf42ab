//! Rows of `cpu_benchmarks`.

use super::{Row, grouped};
use crate::bench::figures::{NS, NS_EACH, Name};

const SDK: &str = "opentelemetry_sdk";
const SDK_DROPPED: &str = "opentelemetry_sdk, spans dropped";
const TRACING: &str = "tracing-opentelemetry";
const FASTRACE: &str = "fastrace";

pub(super) fn rows() -> Vec<Row> {
    let mut rows =
        vec![
            Row::new(&["S0.2"], "a new random trace id", time("trace_id", ""))
                .rivals([SDK, FASTRACE])
                .expected(12.0),
            Row::new(&["S1.3"], "a trace id to hex, on the stack", time("trace_id_to_hex", ""))
                .rivals(["format!"])
                .expected(80.0),
            Row::new(&["S0.2"], "a whole new span context", time("span_context", ""))
                .rivals([SDK])
                .expected(45.0),
            Row::new(
                &["G1", "S0.2", "S1.17"],
                "a span without attributes, recorded; ours encoded to OTLP and handed over",
                time("span", "0"),
            )
            .rivals([FASTRACE, SDK, SDK_DROPPED, TRACING])
            .expected(150.0)
            .at_most(40.0)
            .ahead_of(FASTRACE, 1.0)
            .ahead_of(SDK, 4.0),
            Row::new(&["G2", "S0.2"], "a span with 5 attributes, recorded", time("span", "5"))
                .rivals([FASTRACE, SDK, SDK_DROPPED, TRACING])
                .at_most(90.0)
                .ahead_of(FASTRACE, 3.0)
                .ahead_of(SDK, 6.0),
            Row::new(&["S0.2"], "a span with 10 attributes, recorded", time("span", "10"))
                .rivals([FASTRACE, SDK, SDK_DROPPED, TRACING])
                .expected(350.0),
            Row::new(&["S0.2"], "a span with 50 attributes, recorded", time("span", "50"))
                .rivals([FASTRACE, SDK, SDK_DROPPED]),
            Row::new(&["S0.2"], "a span with 100 attributes, recorded", time("span", "100"))
                .rivals([FASTRACE, SDK, SDK_DROPPED])
                .expected(2_100.0),
            Row::new(&["G3"], "a span that is not sampled", time("span_not_sampled", ""))
                .rivals([FASTRACE, SDK])
                .at_most(5.0),
            Row::new(
                &["S1.7"],
                "an attribute of a span of the model, its key static",
                Name::new("attribute_key", "spanwire, static", "", NS_EACH),
            )
            .rivals(["spanwire, owned"])
            .ahead_of("spanwire, owned", 1.0),
            Row::new(
                &["S1.7"],
                "an attribute set on an open span",
                Name::new("attribute_key", "spanwire, on a span", "", NS_EACH),
            )
            .rivals(["opentelemetry_sdk, static", "opentelemetry_sdk, owned"])
            .note("Spanwire encodes the key at once, whether it is static or not."),
            Row::new(&["S0.2"], "a context into W3C headers", time("propagation_inject", ""))
                .rivals([SDK])
                .expected(420.0)
                .note("The SDK also writes an empty tracestate, which Spanwire leaves out."),
            Row::new(&["S0.2"], "a context out of W3C headers", time("propagation_extract", ""))
                .rivals([SDK])
                .expected(380.0),
        ];
    for spans in [10, 100, 1_000, 10_000] {
        let what = format!(
            "{} finished spans pushed until another thread hands back their batch, a span",
            grouped(spans)
        );
        let name = Name::new("batch", "spanwire", &spans.to_string(), NS_EACH);
        rows.push(Row::new(&["S0.2", "S1.13"], &what, name).rivals([SDK]));
    }
    rows.extend(whole_requests());
    rows
}

/// Requests of 1,000 spans of 8 attributes, both ways.
fn whole_requests() -> Vec<Row> {
    let each = |group, function, value| Name::new(group, function, value, NS_EACH);
    let read = |what, function, allowed: &'static [&'static str]| {
        Row::new(allowed, what, each("read_1000_spans", function, ""))
            .rivals(["prost"])
            .ahead_of("prost", 10.0)
    };
    let json_read = |what, text| {
        Row::new(&["G11", "S1.4"], what, each("json_read_1000_spans", "spanwire", text))
            .rivals(["serde_json", "simd-json", "sonic-rs"])
            .ahead_of("serde_json", 3.0)
    };
    vec![
        Row::new(
            &["G5", "S1.1"],
            "finished spans to protobuf, a span",
            each("encode_1000_spans", "spanwire", ""),
        )
        .rivals([
            "opentelemetry-otlp, gRPC: copy, convert, prost",
            "opentelemetry-otlp, HTTP: convert, prost",
            "prost",
        ])
        .expected(468.0)
        .at_most(100.0),
        Row::new(&["S1.5"], "the same, all 1,000 spans", time("encode_1000_spans", ""))
            .expected(450_000.0),
        read("a request read: framing", "spanwire, framing", &["G10"]),
        read("a request read: every span checked", "spanwire, check", &["G10"]),
        read("a request read: name and ids of each span", "spanwire, name and ids", &["G10"]),
        Row::new(
            &["G11", "S1.1"],
            "finished spans to JSON, a span",
            each("json_write_1000_spans", "spanwire", ""),
        )
        .rivals(["serde_json", "prost, then serde_json"])
        .expected(1_270.0)
        .ahead_of("serde_json", 3.0),
        json_read("our JSON to spans, a span", "spanwire's text"),
        json_read("serde_json's JSON to spans, a span", "serde_json's text"),
    ]
}

fn time(group: &str, value: &str) -> Name {
    Name::new(group, "spanwire", value, NS)
}
