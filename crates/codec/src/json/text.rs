//! Strings both ways: escaping with repair, and unescaping.

use super::scan;
use crate::wire::put_text;

/// Appends `bytes` as a JSON string, quotes included.
#[inline]
pub(super) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    put_contents(out, bytes);
    out.push(b'"');
}

/// Appends what stands between the quotes of a JSON string. Invalid UTF-8 becomes U+FFFD, one for
/// each maximal part of a character, as `String::from_utf8_lossy` does it.
#[inline]
pub(super) fn put_contents(out: &mut Vec<u8>, bytes: &[u8]) {
    if scan::is_plain_ascii(bytes) {
        put_text(out, bytes);
    } else {
        put_checked(out, bytes);
    }
}

// Out of line, so that the common case stays small where it is inlined; text of most languages
// comes here.
#[inline(never)]
fn put_checked(out: &mut Vec<u8>, bytes: &[u8]) {
    if simdutf8::basic::from_utf8(bytes).is_ok() {
        return put_escaped(out, bytes);
    }
    for chunk in bytes.utf8_chunks() {
        put_escaped(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

fn put_escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let (plain, rest) = text.split_at(scan::plain(text));
        out.extend_from_slice(plain);
        let [special, rest @ ..] = rest else { return };
        let short = match special {
            b'"' | b'\\' => *special,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0C => b'f',
            b'\r' => b'r',
            control => {
                out.extend_from_slice(b"\\u00");
                super::binary::put_hex(out, &[*control]);
                text = rest;
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
        text = rest;
    }
}

/// Appends what stands between a string's quotes, escapes resolved: never more than `raw` has.
///
/// The lexer has checked the escapes; a wrong one would be passed on as it stands.
pub(super) fn put_unescaped(out: &mut Vec<u8>, mut raw: &[u8]) {
    loop {
        let (plain, rest) = raw.split_at(scan::plain(raw));
        out.extend_from_slice(plain);
        let len = match rest {
            [b'\\', b'u', ..] => match scan::unicode_escape(rest) {
                Some((character, len)) => {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    len
                }
                None => return out.extend_from_slice(rest),
            },
            [b'\\', escape, ..] => {
                out.push(match escape {
                    b'b' => 0x08,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'f' => 0x0C,
                    b'r' => b'\r',
                    itself => *itself,
                });
                2
            }
            _ => return out.extend_from_slice(rest),
        };
        raw = &rest[len..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        put_string(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    fn unescaped(raw: &str) -> String {
        let mut out = Vec::new();
        put_unescaped(&mut out, raw.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_must_be_escaped_is_escaped() {
        assert_eq!(string(b"plain /path"), r#""plain /path""#);
        assert_eq!(string("\"\\\u{8}\t\n\u{c}\r".as_bytes()), r#""\"\\\b\t\n\f\r""#);
        assert_eq!(string(b"\0\x1f\x7f"), "\"\\u0000\\u001f\u{7f}\"");
        assert_eq!(string("é\u{2028}😀\"".as_bytes()), "\"é\u{2028}😀\\\"\"");
    }

    #[test]
    fn invalid_utf8_becomes_the_replacement_character() {
        for bytes in [&b"a\xFFb\"c"[..], b"\xED\xA0\x80", b"\xF0\x9F\x98", b"ok \xC3"] {
            let lossy = String::from_utf8_lossy(bytes);
            assert_eq!(string(bytes), format!("\"{}\"", lossy.replace('"', "\\\"")));
        }
    }

    #[test]
    fn every_escape_is_resolved() {
        assert_eq!(unescaped(r#"\"\\\/\b\f\n\r\t"#), "\"\\/\u{8}\u{c}\n\r\t");
        assert_eq!(unescaped(r"x\u0041\uD83D\ude00\u00e9y"), "xA😀éy");
    }

    proptest! {
        #[test]
        fn escaping_agrees_with_serde_json_and_is_undone(text in any::<String>()) {
            let json = string(text.as_bytes());
            prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
            prop_assert_eq!(unescaped(&json[1..json.len() - 1]), text);
        }

        /// Faults 25.
        #[test]
        fn any_bytes_become_what_lossy_decoding_makes_of_them(bytes: Vec<u8>) {
            let read = serde_json::from_str::<String>(&string(&bytes)).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }
    }
}
