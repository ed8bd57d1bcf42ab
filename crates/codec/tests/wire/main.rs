//! The wire format against `prost` as oracle: views, rejection, splitting and decoding.

#[path = "../generate/mod.rs"]
mod generate;

mod decode;
mod hostile;
mod message;
mod oracle;
mod passing;
mod reject;
mod soup;
mod split;
mod view;
