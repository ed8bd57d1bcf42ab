//! OTLP/JSON against the protocol's rules, `prost` and `serde_json` on `opentelemetry-proto`.

#[path = "../generate/mod.rs"]
mod generate;
#[path = "../wire/soup.rs"]
mod soup;

mod accepted;
mod deep;
mod golden;
mod hostile;
mod normal;
mod oracle;
mod pieces;
mod refused;
mod reply;
mod text;
