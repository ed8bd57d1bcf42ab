//! Rows of `network_benchmarks`.

use super::{Row, grouped};
use crate::bench::figures::{NS, Name};

const OTLP: &str = "opentelemetry-otlp";
const OTLP_GZIP: &str = "opentelemetry-otlp, gzip level 6";
const UNCOMPRESSED: &str = "spanwire, uncompressed";

/// Of the rows about gzip.
const LEVELS: &str = "Spanwire compresses at level 1, which costs less and leaves more bytes.";

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
            let row = match (group, spans) {
                ("export_grpc", 1_000) => {
                    row(&["G13", "S0.4", "S1.17"]).expected(expected).at_most(5e5)
                }
                (_, 1_000) => row(&["S0.4"]).expected(expected),
                _ => row(&["S0.4"]),
            };
            rows.push(match group {
                "export_http_json" => row.note("The rival indents its JSON."),
                _ => row,
            });
        }
    }
    rows.extend([
        Row::new(
            &["S0.4", "S1.12"],
            "1,000 spans compressed: gzip",
            Name::new("compress_1000_spans", "spanwire, gzip", "", NS),
        )
        .rivals([OTLP_GZIP, "flate2, gzip level 1"])
        .expected(1.2e6)
        .note(LEVELS),
        Row::new(
            &["S0.4"],
            "1,000 spans compressed: zstd",
            Name::new("compress_1000_spans", "spanwire, zstd", "", NS),
        )
        .rivals(["spanwire, brotli", OTLP_GZIP]),
        Row::new(
            &["S1.12"],
            "10,000 spans compressed with gzip; 2.5 MB to 350 KB is expected",
            Name::new("compressed_size", "spanwire, gzip", "10000", "B"),
        )
        .rivals([
            UNCOMPRESSED,
            "spanwire, zstd",
            "spanwire, brotli",
            OTLP_GZIP,
            "flate2, gzip level 1",
        ])
        .ahead_of(UNCOMPRESSED, 2.5e6 / 350e3)
        .note(LEVELS),
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
