//! What must hold for every input a stranger may send, whatever its bytes.
//!
//! One module for each fuzz target, with one function: `check` takes any bytes and panics where a
//! promise is broken. The targets of `cargo fuzz` call them; so does a test of `xtask` with each file
//! of the corpus, so that what was found once stays found in every `cargo test`.

pub mod config;
pub mod decompress;
pub mod edit;
pub mod environment;
pub mod headers;
pub mod json;
pub mod response;
pub mod seeds;
pub mod split;
pub mod view;

mod peer;

#[path = "../../crates/codec/tests/json/normal.rs"]
mod normal;
#[path = "../../crates/codec/tests/wire/oracle.rs"]
mod oracle;
#[path = "../../crates/processors/tests/behaviour/plain.rs"]
mod plain;
#[path = "../../crates/codec/tests/wire/soup.rs"]
mod soup;
