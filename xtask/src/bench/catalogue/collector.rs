//! Rows of loads through the collector.
//!
//! The rivals are programs of their own, with builds of their own: what is said of them was measured
//! when the goals were set, on another machine of two cores, and is marked so. There is no row of
//! filter conditions: the collector has no such processor.

use super::Row;
use crate::bench::figures::{COLLECTOR, CPU_PER_MILLION, Name};
use crate::relay::Relay;

const ENGINE: &str = "otel-arrow engine";
const ROTEL: &str = "Rotel";

/// By which to tell how much of the machine others had: it does the same work in each run.
const GENERATOR: &str = "the generator";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (relay, cpu, engine, rotel) in [
        (Relay::GRPC_100, 0.30, 0.51, 5.9),
        (Relay::GRPC_1000, 0.20, 0.33, 5.6),
        (Relay::GRPC_10, 1.0, 1.68, 6.6),
        (Relay::HTTP_100, 0.22, 0.33, 5.6),
        (Relay::GZIP_1000, 0.8, 5.1, 6.1),
    ] {
        let figure = |unit| Name::new(COLLECTOR, "spanwire", relay.name, unit);
        let what = format!("spans through the collector, {}: CPU of its process", relay.name);
        rows.push(
            Row::new(&["G8"], &what, figure(CPU_PER_MILLION))
                .beside(GENERATOR, Name::new(COLLECTOR, "generator", relay.name, CPU_PER_MILLION))
                .earlier(ENGINE, engine)
                .earlier(ROTEL, rotel)
                .at_most(cpu),
        );
        if relay == Relay::GRPC_100 {
            rows.extend(as_it_goes(figure));
        }
        rows.push(
            Row::new(&["G8"], "the same: accepted and lost, or sent on twice", figure("lost"))
                .at_most(0.0),
        );
    }
    rows
}

/// What else is asked of the usual load, with generator and sink on the same cores.
fn as_it_goes(figure: impl Fn(&'static str) -> Name) -> [Row; 3] {
    let row = |what, unit| Row::new(&["G9"], what, figure(unit));
    [
        row("the same: as many as it takes", "spans/s")
            .earlier(ENGINE, 1.64e6)
            .earlier(ROTEL, 0.14e6)
            .at_least(1.8e6),
        row("the same: P99 of the answer", "P99 ms")
            .earlier(ENGINE, 4.0)
            .earlier(ROTEL, 48.0)
            .at_most(3.0),
        row("the same: peak memory", "MiB")
            .earlier(ENGINE, 92.0)
            .earlier(ROTEL, 72.0)
            .at_most(48.0),
    ]
}
