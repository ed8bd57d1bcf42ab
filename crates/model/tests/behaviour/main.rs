//! The guarantees of `spanwire-model`, one test each.

mod arbitrary;
mod attributes;
mod ids;
mod interner;
mod limits;
mod resource;
mod span;
mod trace_state;
mod tree;
mod values;
