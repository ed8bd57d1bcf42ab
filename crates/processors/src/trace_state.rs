use crate::probability::{Randomness, Threshold};

/// Length, in bytes, beyond which the collector reads no `tracestate`.
const BYTES_MAX: usize = 1024;

/// List members of a `tracestate`, and lengths of their keys and values, in W3C Trace Context Level 2.
const MEMBERS_MAX: usize = 32;
const KEY_BYTES_MAX: usize = 256;
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;
const VALUE_BYTES_MAX: usize = 256;

/// A W3C `tracestate` with what OpenTelemetry's member, `ot`, says about sampling.
///
/// Source: "TraceState Handling", opentelemetry-specification v1.60.
#[derive(Clone, Copy, Default)]
pub(crate) struct TraceState<'a> {
    /// All of it.
    text: &'a [u8],
    /// The value of `ot`.
    open_telemetry: &'a [u8],
    threshold: Option<Threshold>,
    randomness: Option<(Randomness, Digits<'a>)>,
}

/// How a number is written: as it came, if it came.
#[derive(Clone, Copy)]
enum Digits<'a> {
    Came(&'a [u8]),
    Made,
}

impl<'a> TraceState<'a> {
    /// Reads a `tracestate`; `None` where it is not one, or its sampling values are not.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let mut state = Self { text, ..Self::default() };
        for (index, member) in members(text).enumerate() {
            if index >= MEMBERS_MAX {
                return None;
            }
            if member.is_empty() {
                continue;
            }
            let (key, value) = split_at(member, b'=')?;
            if !is_key(key) || !is_value(value) {
                return None;
            }
            if key == b"ot" {
                state = Self { text, ..Self::parse_open_telemetry(value)? };
            }
        }
        Some(state)
    }

    fn parse_open_telemetry(value: &'a [u8]) -> Option<Self> {
        let mut state = Self { open_telemetry: value, ..Self::default() };
        for member in value.split(|byte| *byte == b';') {
            let (key, value) = split_at(member, b':')?;
            let [b'a'..=b'z', rest @ ..] = key else { return None };
            if !rest.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9')) {
                return None;
            }
            let is_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
            match key {
                b"th" => state.threshold = Some(Threshold::parse(value)?),
                b"rv" => state.randomness = Some((Randomness::parse(value)?, Digits::Came(value))),
                _ if !value.iter().all(is_char) => return None,
                _ => {}
            }
        }
        Some(state)
    }

    pub(crate) fn threshold(&self) -> Option<Threshold> {
        self.threshold
    }

    pub(crate) fn clear_threshold(&mut self) {
        self.threshold = None;
    }

    /// Raises the threshold: a lower one would say that more was kept than was.
    pub(crate) fn raise_threshold(&mut self, to: Threshold) {
        if self.threshold.is_none_or(|threshold| threshold <= to) {
            self.threshold = Some(to);
        }
    }

    pub(crate) fn randomness(&self) -> Option<Randomness> {
        self.randomness.map(|(randomness, _)| randomness)
    }

    pub(crate) fn set_randomness(&mut self, randomness: Randomness) {
        self.randomness = Some((randomness, Digits::Made));
    }

    /// Appends the `tracestate` as the collector writes it: `ot` first, in it randomness and threshold.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut separator = &b"ot="[..];
        if let Some((randomness, digits)) = self.randomness {
            out.extend_from_slice(separator);
            out.extend_from_slice(b"rv:");
            match digits {
                Digits::Came(digits) => out.extend_from_slice(digits),
                Digits::Made => randomness.put(out),
            }
            separator = b";";
        }
        if let Some(threshold) = self.threshold {
            out.extend_from_slice(separator);
            out.extend_from_slice(b"th:");
            threshold.put(out);
            separator = b";";
        }
        for member in self.open_telemetry.split(|byte| *byte == b';') {
            if !member.is_empty() && !member.starts_with(b"rv:") && !member.starts_with(b"th:") {
                out.extend_from_slice(separator);
                out.extend_from_slice(member);
                separator = b";";
            }
        }
        separator = if separator == b";" { b"," } else { b"" };
        for member in members(self.text) {
            if !member.is_empty() && !member.starts_with(b"ot=") {
                out.extend_from_slice(separator);
                out.extend_from_slice(member);
                separator = b",";
            }
        }
    }
}

/// The list members without the white space around them; they may be empty.
fn members(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b',').map(|mut member| {
        while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = member {
            member = rest;
        }
        member
    })
}

/// What comes before the first `separator`, and what behind it.
fn split_at(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

fn is_key(key: &[u8]) -> bool {
    let is_char = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let is_name =
        |name: &[u8]| matches!(name, [b'a'..=b'z', rest @ ..] if rest.iter().all(is_char));
    if key.len() > KEY_BYTES_MAX {
        return false;
    }
    match split_at(key, b'@') {
        None => is_name(key),
        Some((tenant, system)) => {
            matches!(tenant, [b'a'..=b'z' | b'0'..=b'9', rest @ ..] if rest.iter().all(is_char))
                && tenant.len() <= TENANT_BYTES_MAX
                && is_name(system)
                && system.len() <= SYSTEM_BYTES_MAX
        }
    }
}

fn is_value(value: &[u8]) -> bool {
    let is_char = |byte: &u8| matches!(byte, b' '..=b'~') && !b",=".contains(byte);
    (1..=VALUE_BYTES_MAX).contains(&value.len()) && value.iter().all(is_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(state: &TraceState<'_>) -> String {
        let mut out = Vec::new();
        state.put(&mut out);
        String::from_utf8(out).expect("it is ASCII")
    }

    fn rewritten(text: &str) -> Option<String> {
        TraceState::parse(text.as_bytes()).as_ref().map(written)
    }

    #[test]
    fn other_members_stay_behind_the_one_of_opentelemetry() {
        for (text, expected) in [
            ("", ""),
            ("a=1", "a=1"),
            ("a=1 , b=2,,\tt@s=x y", "a=1,b=2,t@s=x y"),
            ("a=1,ot=th:8", "ot=th:8,a=1"),
            ("ot=th:80000000000000;rv:ABCDEF00000000", "ot=rv:ABCDEF00000000;th:8"),
            ("ot=x:1;th:c;y9:,b=2", "ot=th:c;x:1;y9:,b=2"),
            ("ot=th:8,ot=th:c", "ot=th:c"),
        ] {
            assert_eq!(rewritten(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_tracestate_is_refused() {
        for text in [
            "a",
            "=1",
            "a=",
            "A=1",
            "9=1",
            "a=1=2",
            "a=é",
            "a=\u{1}",
            "@s=1",
            "t@=1",
            "t@S=1",
            "a@b@c=1",
            "ot=",
            "ot=;",
            "ot=th:8;",
            "ot=th",
            "ot=th:",
            "ot=th:-1",
            "ot=th:abababababababab",
            "ot=rv:abababababababab",
            "ot=rv:8",
            "ot=X:1",
            "ot=x:a b",
        ] {
            assert_eq!(rewritten(text), None, "{text}");
        }
    }

    #[test]
    fn the_limits_of_w3c_hold() {
        let long = |count: usize| "a".repeat(count);
        assert!(rewritten(&format!("{}=1", long(256))).is_some());
        assert!(rewritten(&format!("{}=1", long(257))).is_none());
        assert!(rewritten(&format!("{}@{}=1", long(241), long(14))).is_some());
        assert!(rewritten(&format!("{}@s=1", long(242))).is_none());
        assert!(rewritten(&format!("t@{}=1", long(15))).is_none());
        assert!(rewritten(&format!("a={}", long(256))).is_some());
        assert!(rewritten(&format!("a={}", long(257))).is_none());
        assert!(rewritten(&vec!["a=1"; 32].join(",")).is_some());
        assert!(rewritten(&vec!["a=1"; 33].join(",")).is_none());
        assert!(rewritten(&vec![long(250) + "=1"; 5].join(",")).is_none());
    }

    #[test]
    fn a_threshold_is_never_lowered() {
        let mut state = TraceState::parse(b"ot=th:8").expect("it is valid");
        state.raise_threshold(Threshold::ALWAYS);
        assert_eq!(written(&state), "ot=th:8");
        state.raise_threshold(Threshold::of(0.25, 4));
        assert_eq!(written(&state), "ot=th:c");
        state.clear_threshold();
        assert_eq!(written(&state), "");
    }
}
