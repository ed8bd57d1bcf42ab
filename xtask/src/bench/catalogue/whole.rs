//! Rows of several threads, of whole clients, of the load and of optimised builds.

use super::{Row, Setting, grouped};
use crate::bench::figures::{BUILDS, NS, NS_EACH, Name};
use crate::bench::suite::{LOAD_SPANS_PER_SECOND, Length};
use crate::pgo::{ASKED_PERCENT, COLLECT};

const SDK: &str = "opentelemetry_sdk";
const OTLP: &str = "opentelemetry-otlp";

/// `concurrency_benchmarks`.
pub(super) fn threads(setting: Setting) -> Vec<Row> {
    let mut rows = Vec::new();
    let record =
        |threads: usize| Name::new("record_on_threads", "spanwire", &threads.to_string(), NS_EACH);
    for threads in [1, 2, 4, 8, 16] {
        let what = match threads {
            1 => "spans recorded on one thread, a span".to_owned(),
            _ => format!("spans recorded on {threads} threads at once, a span"),
        };
        let row = |requirements| {
            Row::new(requirements, &what, record(threads)).rivals([
                SDK,
                "opentelemetry_sdk, spans dropped",
                "fastrace",
            ])
        };
        // A tenth is left for what threads share in any case: caches, memory and clock rates.
        rows.push(if threads > 1 && threads <= setting.cores {
            let (linear, one) = (0.9 * threads as f64, "spanwire on one thread");
            row(&["G4", "S0.5"]).beside(one, record(1)).ahead_of(one, linear)
        } else {
            row(if threads == 1 { &["G4", "S0.5"] } else { &["S0.5"] })
        });
    }
    for requests in ["1", "10", "100"] {
        let what = format!("a request, with {requests} in flight over one connection");
        let name = Name::new("exports_in_flight", "spanwire", requests, NS_EACH);
        rows.push(Row::new(&["S0.5", "S1.11"], &what, name));
    }
    for producers in ["1", "2", "4"] {
        let what = format!("an item handed over, producers to consumers {producers}:1");
        let name = Name::new("hand_over", "spanwire", producers, NS_EACH);
        let row = Row::new(&["S0.5"], &what, name);
        rows.push(row.rivals(["mutex", "rwlock", "ArrayQueue"]));
    }
    rows.extend([
        // 12 million a second.
        Row::new(
            &["S1.15"],
            "an item pushed and drained in a batch",
            Name::new("queue", "spanwire", "", NS_EACH),
        )
        .rivals(["mutex", "rwlock", "ArrayQueue"])
        .expected(1e9 / 12e6)
        .ahead_of("mutex", 2.0),
        Row::new(
            &["S1.14"],
            "a request served by a receiver on spanwire_runtime's current_thread: its CPU",
            Name::new("runtime", "spanwire, current_thread", "", NS_EACH),
        )
        .beside(
            "tokio's default",
            Name::new("runtime", "tokio's default, multi_thread", "", NS_EACH),
        )
        .ahead_of("tokio's default", 1.0),
    ]);
    rows
}

/// `e2e_benchmarks`.
pub(super) fn end_to_end() -> Vec<Row> {
    let mut rows = Vec::new();
    for spans in [10, 100, 1_000] {
        let what = format!("{} spans created, batched, encoded, sent and answered", grouped(spans));
        let name = Name::new("end_to_end", "spanwire", &spans.to_string(), NS);
        let row = Row::new(&["S0.6"], &what, name);
        let row = row.rivals([OTLP]);
        rows.push(if spans == 1_000 { row.expected(7.2e6) } else { row });
    }
    for percent in ["100", "50", "10"] {
        let what = format!("a span created and exported, {percent} % of them sampled");
        let name = Name::new("sampling", "spanwire", percent, NS_EACH);
        rows.push(Row::new(&["S0.6"], &what, name).rivals([OTLP]));
    }
    rows
}

/// `export_cpu`.
pub(super) fn exports(setting: Setting) -> Vec<Row> {
    let (group, spans) = match setting.quick {
        true => ("export_100000_spans", "100,000"),
        false => ("export_500000_spans", "500,000"),
    };
    let mut rows = Vec::new();
    for (wire, cpu_ns) in [("gRPC", 300.0), ("HTTP", 230.0), ("gRPC+gzip", 1_500.0)] {
        let what = format!("{spans} spans exported, {wire}: CPU of the client, a span");
        let name = Name::new(group, "spanwire", wire, "ns CPU/span");
        let row = Row::new(&["G6"], &what, name).rivals([OTLP]).at_most(cpu_ns);
        rows.push(match wire {
            "gRPC+gzip" => row.note("Spanwire compresses at level 1, the rival at level 6."),
            _ => row,
        });
    }
    let throughput = format!("{spans} spans exported, gRPC: recorded by one thread and arrived");
    let name = Name::new(group, "spanwire", "gRPC", "spans/s");
    rows.push(
        Row::new(&["G6", "S1.17"], &throughput, name)
            .rivals([OTLP])
            .expected(100_000.0)
            .at_least(2e6),
    );

    let burst = |what, function, spans, unit| {
        Row::new(&["G7"], what, Name::new("burst", function, spans, unit))
    };
    let blocking = "spanwire, Overflow::Block";
    rows.push(
        burst("a burst of 100,000 spans, default settings: lost", "spanwire", "100000", "lost")
            .rivals([OTLP])
            .at_most(0.0),
    );
    // Without the rival: one that has lost most of the spans need not hold them.
    rows.push(burst("the same: peak memory", "spanwire", "100000", "MiB").at_most(64.0));
    rows.push(
        burst("a burst of 500,000 spans, waiting for room: lost", blocking, "500000", "lost")
            .rivals([OTLP])
            .at_most(0.0),
    );

    let steady = |requirements, what, spans, unit| {
        let name = Name::new("steady", "spanwire", spans, unit);
        Row::new(requirements, what, name)
    };
    const PACE: &[&str] = &["S1.17"];
    rows.extend([
        steady(PACE, "50,000 spans a second: CPU of the client", "50000", "% CPU")
            .rivals([OTLP])
            .expected(8.0),
        // 200 MB.
        steady(PACE, "the same: peak memory", "50000", "MiB")
            .rivals([OTLP])
            .expected(200e6 / f64::from(1 << 20)),
        steady(PACE, "the same: on the wire", "50000", "Mbit/s").rivals([OTLP]).expected(35.0),
        steady(PACE, "the same: lost", "50000", "lost").rivals([OTLP]).at_most(0.0),
        steady(PACE, "the same: from a span's end to its arrival, P99", "50000", "P99 ms")
            .rivals([OTLP])
            .note("The rival's batches are full at 512 spans, Spanwire's at 4,096."),
        steady(PACE, "300,000 spans a second: CPU of the client", "300000", "% CPU")
            .rivals([OTLP])
            .note(LOSING),
        steady(PACE, "the same: peak memory", "300000", "MiB").rivals([OTLP]).note(LOSING),
        steady(PACE, "the same: lost", "300000", "lost").rivals([OTLP]).at_most(0.0),
        steady(PACE, "the same: from a span's end to its arrival, P99", "300000", "P99 ms")
            .rivals([OTLP])
            .expected(80.0)
            .note(LOSING),
    ]);
    rows
}

/// Of what the rival spends at a rate that it cannot keep up with.
const LOSING: &str =
    "The rival loses some of the spans at this rate, as the row about losses says.";

/// The load generator, against a receiver in a process of its own.
pub(super) fn load(setting: Setting) -> Vec<Row> {
    let length = if setting.quick { Length::QUICK } else { Length::FULL };
    let seconds = length.load.as_secs();
    let row = |what: &str, unit| {
        let what = format!("10,000 spans a second for {seconds} s, by the clock: {what}");
        Row::new(&["S0.8"], &what, Name::new("load", "spanwire", LOAD_SPANS_PER_SECOND, unit))
    };
    vec![
        // What was asked for, or what the clock could not place within the time.
        row("answered", "spans/s").at_least(9_990.0).note(
            "The generator sends what its clock asks for and no more, so the published 10,245 is out \
             of reach.",
        ),
        row("P50 of the answer", "P50 ms").expected(6.5),
        row("P95 of the answer", "P95 ms").expected(12.8),
        row("P99 of the answer", "P99 ms").expected(18.2),
        row("P99.9 of the answer", "P99.9 ms"),
        // 1.2 GB.
        row("peak memory of the receiver", "MiB").expected(1.2e9 / f64::from(1 << 20)),
        row("CPU of the receiver", "% CPU").expected(45.0),
        row("accepted and lost", "lost").at_most(0.0),
    ]
}

/// `cargo xtask pgo`, as far as it was run at this commit.
pub(super) fn builds() -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, what) in [
        ("span_without_attributes", "a span without attributes recorded"),
        ("encode_1000_spans", "a finished span encoded"),
        ("receive_1000_spans", "a span received, of requests of 1,000"),
        (COLLECT, "a span through the collector, of requests of 100"),
    ] {
        let name = |variant: &str| Name::new(BUILDS, variant, path, "ns/span");
        let row = |requirements, variant: &str| {
            let row = Row::new(requirements, &format!("{what}: {variant}"), name(variant));
            row.beside(RELEASE, name(RELEASE))
        };
        // A tenth less time is our own goal. Published are 15 % by LTO alone, and by PGO 21 %: here
        // what it adds to LTO.
        let asked = 1.0 / (1.0 - ASKED_PERCENT / 100.0);
        let optimised = row(&["G12", "S1.16"], "LTO + PGO").ahead_of(RELEASE, asked);
        let optimised = optimised.beside("LTO", name("LTO")).ahead_of("LTO", 1.21);
        rows.push(match path {
            // It is shipped to other machines, so there is no native build of it.
            COLLECT => optimised,
            _ => optimised.beside("LTO, native", name("LTO, native")),
        });
        rows.push(row(&["S1.16"], "LTO").ahead_of(RELEASE, 1.15));
    }
    rows
}

/// The build that the others are compared with.
const RELEASE: &str = "release";
