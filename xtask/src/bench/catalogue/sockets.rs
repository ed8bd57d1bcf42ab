//! Rows of `network_benchmarks`.

use super::{Row, grouped};
use crate::bench::figures::{NS, Name};

const OTLP: &str = "opentelemetry-otlp";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (group, wire, expected) in [
        ("export_grpc", "gRPC", 4.2e6),
        ("export_http_protobuf", "HTTP, protobuf", 4.8e6),
        ("export_http_json", "HTTP, JSON", 6.5e6),
    ] {
        for spans in [10, 100, 1_000] {
            let what = format!("{} spans recorded, sent and answered: {wire}", grouped(spans));
            let name = Name::new(group, "spanwire", &spans.to_string(), NS);
            let row = |requirements| Row::new(requirements, &what, name).rivals([OTLP]);
            rows.push(match (group, spans) {
                ("export_grpc", 1_000) => {
                    row(&["G13", "S0.4", "S1.17"]).expected(expected).at_most(5e5)
                }
                (_, 1_000) => row(&["S0.4"]).expected(expected),
                _ => row(&["S0.4"]),
            });
        }
    }
    rows.extend([
        Row::new(
            &["S0.4", "S1.12"],
            "1,000 spans compressed: gzip",
            Name::new("compress_1000_spans", "spanwire, gzip", "", NS),
        )
        .rivals(["opentelemetry-otlp, gzip"])
        .expected(1.2e6),
        Row::new(
            &["S0.4"],
            "1,000 spans compressed: zstd",
            Name::new("compress_1000_spans", "spanwire, zstd", "", NS),
        )
        .rivals(["opentelemetry-otlp, gzip"]),
        Row::new(
            &["S1.12"],
            "10,000 spans compressed with gzip; 2.5 MB to 350 KB is expected",
            Name::new("compressed_size", "gzip", "10000", "B"),
        )
        .rivals(["none", "zstd", "opentelemetry-otlp, gzip"])
        .ahead_of("none", 2.5e6 / 350e3),
        Row::new(
            &["S1.11"],
            "a request over one warm HTTP/2 connection",
            Name::new("request_latency", "spanwire, one warm HTTP/2 connection", "", NS),
        )
        .rivals(["spanwire, a new connection each"])
        .expected(1.5e7),
    ]);
    rows
}
