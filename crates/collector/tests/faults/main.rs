//! What befalls the process of a collector, and what people and their tools may ask of it.

mod admin;
mod host;
mod panics;
mod shared;
#[path = "../support/mod.rs"]
mod support;
