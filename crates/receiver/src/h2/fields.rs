//! Which header fields a request must have and must not, RFC 9113 sections 8.2 and 8.3.

use super::hpack::FIELD_OVERHEAD_BYTES;

/// What is known of the fields of a header block.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// As SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub(super) bytes: usize,
    pub(super) content_length: Option<u64>,
    has_method: bool,
    has_scheme: bool,
    has_path: bool,
    has_authority: bool,
    has_regular: bool,
    is_malformed: bool,
}

impl Fields {
    pub(super) fn note(&mut self, name: &[u8], value: &[u8]) {
        self.bytes += name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        let Some(pseudo) = name.strip_prefix(b":") else {
            return self.regular(name, value);
        };
        let seen = match pseudo {
            b"method" => &mut self.has_method,
            b"scheme" => &mut self.has_scheme,
            b"path" => &mut self.has_path,
            b"authority" => &mut self.has_authority,
            _ => &mut self.is_malformed,
        };
        self.is_malformed |= std::mem::replace(seen, true) || self.has_regular;
        self.is_malformed |= pseudo == b"path" && value.is_empty();
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) {
        self.has_regular = true;
        let is_malformed = match name {
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding"
            | b"upgrade" => true,
            b"te" => value != b"trailers",
            b"content-length" => {
                let digits = value.iter().all(u8::is_ascii_digit);
                let length = str::from_utf8(value).ok().filter(|_| digits);
                let length = length.and_then(|value| value.parse().ok());
                let before = std::mem::replace(&mut self.content_length, length);
                length.is_none() || before.is_some_and(|before| Some(before) != length)
            }
            name => !is_name(name),
        };
        self.is_malformed |= is_malformed || !is_value(value);
    }

    /// Whether this is a request at all, whatever it asks for.
    pub(super) fn is_request(&self) -> bool {
        self.has_method && self.has_scheme && self.has_path && !self.is_malformed
    }
}

/// Section 8.2.1: visible, no capitals, no colon.
fn is_name(name: &[u8]) -> bool {
    let is_allowed =
        |byte: &u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && *byte != b':';
    !name.is_empty() && name.iter().all(is_allowed)
}

fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: [(&str, &str); 3] = [(":method", "POST"), (":scheme", "http"), (":path", "/")];

    fn is_request(pairs: &[(&str, &str)]) -> bool {
        let mut fields = Fields::default();
        pairs.iter().for_each(|(name, value)| fields.note(name.as_bytes(), value.as_bytes()));
        fields.is_request()
    }

    fn with(pair: (&str, &str)) -> bool {
        is_request(&[&LEAST[..], &[pair]].concat())
    }

    #[test]
    fn a_request_has_its_pseudo_fields_once_and_first() {
        assert!(is_request(&LEAST));
        assert!(with((":authority", "test")));
        for missing in LEAST {
            let pairs: Vec<_> = LEAST.into_iter().filter(|pair| *pair != missing).collect();
            assert!(!is_request(&pairs), "without {missing:?}");
        }
        for pair in LEAST {
            assert!(!with(pair), "twice {pair:?}");
        }
        assert!(!with((":status", "200")));
        assert!(!is_request(&[LEAST[0], LEAST[1], ("te", "trailers"), LEAST[2]]));
        assert!(!is_request(&[LEAST[0], LEAST[1], (":path", "")]));
    }

    #[test]
    fn fields_of_connections_and_those_no_http_has_are_malformed() {
        for pair in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("Te", "trailers"),
            ("", "x"),
            ("a b", "x"),
            ("a:b", "x"),
            ("a", "x\r\ny: z"),
            ("a", "\0"),
            ("content-length", "-1"),
            ("content-length", "x"),
            ("content-length", "+5"),
        ] {
            assert!(!with(pair), "{pair:?}");
        }
        for pair in [("te", "trailers"), ("a-bin", "\u{e9}"), ("content-length", "5"), ("a", "")] {
            assert!(with(pair), "{pair:?}");
        }
        let lengths = [("content-length", "5"), ("content-length", "6")];
        assert!(!is_request(&[&LEAST[..], &lengths].concat()));
    }
}
