//! What recording, batching, encoding and reading cost, beside the rivals in the same run.
//!
//! Rows of one group start from the same spans; the ratio between them is the result, not the time.
//! What a row includes that another leaves out stands with its group. There is no network in any of
//! them, and no other thread but behind queues.
//!
//! `cargo bench -p spanwire-benches --bench cpu_benchmarks [-- FILTER]`

mod cpu {
    pub(crate) mod batch;
    pub(crate) mod codec;
    pub(crate) mod context;
    pub(crate) mod ground;
    pub(crate) mod json;
    pub(crate) mod span;
}

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    cpu::context::all(&mut criterion);
    cpu::span::all(&mut criterion);
    cpu::batch::all(&mut criterion);
    cpu::codec::all(&mut criterion);
    cpu::json::all(&mut criterion);
    cpu::ground::all(&mut criterion);
    criterion.final_summary();
}
