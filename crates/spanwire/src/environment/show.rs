//! How values are shown to people.

use std::time::Duration;

use spanwire_model::Value;
use spanwire_transport::{Pem, Proxy};

use super::Draft;
use crate::explain::shown;

pub(super) fn names<T: ToString>(destinations: &[T]) -> String {
    list(destinations.iter().map(|destination| shown(&destination.to_string(), 200)))
}

/// What the resource says over what a setting of its own says.
pub(super) fn attribute(draft: &Draft, key: &str, setting: &str, absent: &str) -> String {
    match draft.config.resource.attributes.get(key) {
        Some(Value::String(value)) => shown(value, 60),
        _ if setting.is_empty() => absent.into(),
        _ => shown(setting, 60),
    }
}

/// Its `Debug` hides credentials.
pub(super) fn proxy(proxy: &Proxy) -> String {
    let text = |proxy: &Proxy| format!("{proxy:?}");
    match text(proxy) {
        none if none == text(&Proxy::none()) => "none".into(),
        some => shown(&some, 400),
    }
}

pub(super) fn pem(pem: Option<&Pem>) -> String {
    match pem {
        Some(Pem::File(path)) => shown(&path.display().to_string(), 200),
        Some(Pem::Bytes(_)) => "given as bytes".into(),
        None => "none".into(),
    }
}

pub(super) fn list(names: impl Iterator<Item = String>) -> String {
    match names.collect::<Vec<_>>() {
        names if names.is_empty() => "none".into(),
        names => names.join(", "),
    }
}

pub(super) fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: T) -> String {
    names.iter().find(|(_, known)| *known == value).map_or("other", |(name, _)| name).into()
}

pub(super) fn yes(value: bool) -> String {
    value.to_string()
}

pub(super) fn limit(value: u32) -> String {
    if value == u32::MAX { "no limit".into() } else { value.to_string() }
}

pub(super) fn timeout(value: Duration) -> String {
    if value.is_zero() { "no limit".into() } else { format!("{value:?}") }
}

pub(super) fn bytes(value: usize) -> String {
    match value {
        0 => "0 B".into(),
        value if value.is_multiple_of(1 << 20) => format!("{} MiB", value >> 20),
        value if value.is_multiple_of(1 << 10) => format!("{} KiB", value >> 10),
        value => format!("{value} B"),
    }
}
