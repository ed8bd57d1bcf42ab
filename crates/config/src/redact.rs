//! What messages and lines show where a secret stands, or may stand.

use crate::expand::is_name_char;

/// Whether all that stands below a key is secret, be the key misspelt or not.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key == "headers" || key.ends_with("_pem")
}

/// The line at `index` as it may be shown: without what stands behind a key that usually holds a
/// secret, or below one that does always, and without who comes before the host of a URL, and its query.
pub(crate) fn line_of<'a>(lines: impl Iterator<Item = &'a str>, index: usize) -> Option<String> {
    // How far the key is indented that is being looked into, and how many brackets are open there.
    let mut secret = None;
    let mut is_below_endpoint = false;
    for (at, line) in lines.enumerate() {
        let text = line.trim_start_matches([' ', '\t', '-']);
        if at < index && (text.is_empty() || text.starts_with('#')) {
            continue;
        }
        let lead = &line[..line.len() - text.len()];
        // A tab may be any number of columns, and within brackets indentation means nothing.
        let flow = line.trim_start().starts_with(['{', '[']);
        secret = secret.filter(|&(indent, open)| {
            open > 0 || flow || lead.len() > indent || lead.contains('\t')
        });
        if at == index {
            return Some(match secret {
                Some(_) => below_secret(line),
                None if is_below_endpoint => format!("{lead}{}", url(&self::line(text))),
                None => self::line(line),
            });
        }
        // Its value may follow in a line of its own.
        is_below_endpoint = text.to_ascii_lowercase().contains("endpoint");
        secret = match secret {
            Some((indent, open)) if open > 0 || flow => Some((indent, brackets(text, open))),
            Some(block) => Some(block),
            None => opens_secret(text).map(|colon| (lead.len(), brackets(&text[colon..], 0))),
        };
    }
    None
}

/// A line by itself, as [`line_of`] has it.
pub(crate) fn line(line: &str) -> String {
    const SECRETS: [&str; 9] = [
        "authorization",
        "token",
        "secret",
        "password",
        "passwd",
        "api-key",
        "api_key",
        "apikey",
        "_pem",
    ];
    let lower = line.to_ascii_lowercase();
    let key = SECRETS.iter().filter_map(|word| lower.find(word)).chain(headers(&lower)).min();
    let Some(colon) = key.and_then(|at| Some(at + line[at..].find(':')?)) else {
        return urls(line);
    };
    let (before, behind) = line.split_at(colon);
    match url_in(before) {
        // What comes before the @ may have begun before the colon.
        Some(from) if behind.contains('@') => {
            format!("{}{REDACTED}", &line[..from + after_scheme(&line[from..])])
        }
        _ => format!("{}{}", urls(before), value(behind)),
    }
}

/// A URL, or a value that should be one.
pub(crate) fn url(url: &str) -> String {
    let (scheme, rest) = url.split_at(after_scheme(url));
    let query = query_of(rest);
    match rest.rfind('@') {
        // A password may have a question mark in it, and a query an @.
        Some(at) if query.is_some_and(|query| query < at) => format!("{scheme}{REDACTED}"),
        Some(at) => format!("{scheme}{REDACTED}{}", query_hidden(&rest[at..])),
        None => format!("{scheme}{}", query_hidden(rest)),
    }
}

/// A URL without credentials, but for its query.
pub(crate) fn query_hidden(url: &str) -> String {
    match query_of(url) {
        Some(query) => format!("{}{REDACTED}", &url[..=query]),
        None => url.to_owned(),
    }
}

/// The name in a reference such as `env:NAME:-default`: what follows it may be the secret itself.
pub(crate) fn reference(written: &str) -> String {
    let rest = written.strip_prefix("env:").unwrap_or(written).trim_start_matches(is_name_char);
    match written.strip_suffix(rest) {
        Some(name) if !rest.is_empty() => format!("{name}…"),
        _ => written.to_owned(),
    }
}

const REDACTED: &str = "[REDACTED]";

/// Where a query begins; a question mark behind a parenthesis is one of a pattern.
fn query_of(url: &str) -> Option<usize> {
    let marks = url.match_indices('?').map(|(at, _)| at);
    marks.into_iter().find(|&at| !url[..at].ends_with('('))
}

/// Where the headers that an exporter sends are in a line; those that a receiver allows are no secret.
fn headers(line: &str) -> Option<usize> {
    line.match_indices("headers").map(|(at, _)| at).find(|&at| !line[..at].ends_with('_'))
}

/// Where the colon is behind a key that has secrets below it.
fn opens_secret(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    let key = headers(&lower).or_else(|| lower.find("_pem"))?;
    Some(key + line[key..].find(':')?)
}

/// How many brackets are open behind a line. A quote that goes on in the next line counts as one
/// that is never closed: better too much is hidden than too little.
fn brackets(line: &str, mut open: usize) -> usize {
    let (mut quote, mut before) = (None, ' ');
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (None, '{' | '[') => open += 1,
            (None, '}' | ']') => open = open.saturating_sub(1),
            // Behind a letter it is an apostrophe.
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(char),
            (None, '#') if before.is_whitespace() => break,
            (Some('"'), '\\') => drop(chars.next()),
            (Some(end), _) if char == end => quote = None,
            _ => {}
        }
        before = char;
    }
    open + usize::from(quote.is_some())
}

/// A line of a map of secrets, or of the text of one.
fn below_secret(line: &str) -> String {
    match line.split_once(':') {
        // Before a comma stands a value, and a colon without a space may be in one.
        Some((key, rest)) if !key.contains(',') && (rest.is_empty() || rest.starts_with(' ')) => {
            format!("{key}{}", value(&line[key.len()..]))
        }
        _ => REDACTED.to_owned(),
    }
}

/// A colon without the value behind it, unless that only names what is secret.
fn value(behind: &str) -> String {
    let value = behind[1..].trim();
    let inner = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    if value.is_empty() || inner.is_some_and(only_names) {
        return behind.to_owned();
    }
    format!(": {REDACTED}")
}

/// Whether a reference is `NAME`, `env:NAME` or `file:PATH`.
fn only_names(reference: &str) -> bool {
    match reference.strip_prefix("file:") {
        Some(path) => !path.contains(['$', '{', '}']),
        None => self::reference(reference) == reference,
    }
}

fn urls(line: &str) -> String {
    match url_in(line) {
        Some(from) => format!("{}{}", &line[..from], url(&line[from..])),
        None => line.to_owned(),
    }
}

/// From where on a line may hold a URL, or what stands where one should.
fn url_in(line: &str) -> Option<usize> {
    if line.contains("://") {
        return Some(0);
    }
    let at = line.to_ascii_lowercase().find("endpoint")?;
    let (_, value) = line[at..].split_once(':')?;
    Some(line.len() - value.trim_start().len())
}

/// Where a URL goes on behind its scheme. Behind a user or a query it is the scheme of another one.
fn after_scheme(url: &str) -> usize {
    let scheme = url.find("://").filter(|&at| !url[..at].contains(['@', '?']));
    scheme.map_or(0, |at| at + 3)
}

#[cfg(test)]
mod tests {
    use super::{line, line_of, reference, url};

    #[test]
    fn a_secret_is_not_shown_even_where_its_line_is() {
        for text in [
            "  Authorization: Bearer abc",
            "x_api_key: abc",
            "{ password: abc }",
            "otlp: {endpoint: x, headers: {x-team: abc}, endpont: y}",
            "{token: ${env:T}, password: abc}",
            "token: ${env:T:-abc}",
            "token: ${env:T-abc}",
            "token: ${T:=abc}",
            "token: ${env:T:?abc}",
            "token: ${T!abc}",
            "token: ${https://abc}",
            "token: ${file:a}${U:+abc}",
            "token: ${env:T} # was abc",
            "token: ${env:T}${env:U:-abc}",
            "{endpoint: http://u:abc@h, token: abc}",
        ] {
            let shown = line(text);
            assert!(shown.ends_with(": [REDACTED]") && !shown.contains("abc"), "{shown}");
        }
        for (text, expected) in [
            (
                "otlphttp: {endpoint: \"http://h\", headers: {x-team: \"me@corp:abc\"}, endpont: q}",
                "otlphttp: {endpoint: \"http://[REDACTED]",
            ),
            ("{endpoint: h, authorization: \"Basic me@corp:abc\"}", "{endpoint: [REDACTED]"),
            ("authorization: \"Basic me@corp:abc\"", "authorization: [REDACTED]"),
            ("endpoint: http://u:a-token:bc@h", "endpoint: http://[REDACTED]"),
        ] {
            assert_eq!(line(text), expected);
        }
        for text in [
            "authorization: ${env:TOKEN}",
            "authorization: ${TOKEN}",
            "authorization: ${file:/run/a-token}",
            "token:",
            "allowed_headers: [x-team]",
            "pattern: ^(?P<scheme>.*)://(?P<host>.*)$",
        ] {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn what_stands_below_headers_or_a_certificate_is_not_shown() {
        let text = "headers:\n  x-team: abc\n  # no end\nother: x\n\"headers\": {\n    \"a\": \"abc\",\n}\n\
                    list:\n- headers:\n  - name: a\n    value: abc\nkey_pem: |\n  -----BEGIN\n\n  abc\n\
                    at: ${env:A}\nlast: {headers: {a: b,\n  c: abc}}\n  headers:\n\tx: abc";
        let shown: Vec<_> =
            (0..text.lines().count()).filter_map(|index| line_of(text.lines(), index)).collect();
        let expected = "headers:\n  x-team: [REDACTED]\n[REDACTED]\nother: x\n\"headers\": [REDACTED]\n    \
                        \"a\": [REDACTED]\n[REDACTED]\nlist:\n- headers:\n  - name: [REDACTED]\n    value: [REDACTED]\n\
                        key_pem: [REDACTED]\n[REDACTED]\n\n[REDACTED]\nat: ${env:A}\n\
                        last: {headers: [REDACTED]\n  c: [REDACTED]\n  headers:\n\tx: [REDACTED]";
        assert_eq!(shown, expected.lines().collect::<Vec<_>>());
    }

    #[test]
    fn an_endpoint_in_a_line_of_its_own_and_headers_misspelt_hide_the_same() {
        let text = "endpoint:\n  host/v1?key=abc\nendpoint: >-\n  # no end\n\n  u:abc@host\nHeaders:\n  x-team: abc";
        let shown: Vec<_> =
            (0..text.lines().count()).filter_map(|at| line_of(text.lines(), at)).collect();
        let expected = "endpoint:\n  host/v1?[REDACTED]\nendpoint: >-\n  # no end\n\n  [REDACTED]@host\n\
                        Headers:\n  x-team: [REDACTED]";
        assert_eq!(shown, expected.lines().collect::<Vec<_>>());
    }

    #[test]
    fn within_brackets_a_secret_goes_on_whatever_the_indentation() {
        for headers in [
            "\"headers\": {\n\"a\": \"abc\",\n\"b\": \"abc\"\n},",
            "\"headers\":\n{\n\"a\":\"abc\", \"b\": \"abc\"\n},",
            "\"headers\": {\"a\": \"x}\", # }\n\"b\":\n\"abc\", \"c\": \"abc\"},",
            "\"headers\": [{\"name\": \"a\"},\n{\"value\": \"abc\"}],",
            "headers: {a: it's, b: '}', c: \"\\\"}\", d: \"${env:T}\",\ne: abc},",
        ] {
            let text = format!("{{\n{headers}\n\"other\": \"shown\"\n}}");
            let shown: Vec<_> =
                (0..text.lines().count()).filter_map(|at| line_of(text.lines(), at)).collect();
            let shown = shown.join("\n");
            assert!(
                !shown.contains("abc") && shown.ends_with("\n\"other\": \"shown\"\n}"),
                "{shown}"
            );
        }
    }

    #[test]
    fn of_a_url_the_user_and_the_query_are_not_shown() {
        for (text, expected) in [
            ("https://u:p/w@host:1", "https://[REDACTED]@host:1"),
            ("https://host/v1?key=abc", "https://host/v1?[REDACTED]"),
            ("https://u:p@host/v1?key=abc", "https://[REDACTED]@host/v1?[REDACTED]"),
            ("https://u:p?w@host", "https://[REDACTED]"),
            ("https://host/?key=a@bc", "https://[REDACTED]"),
            ("u:p@host:1", "[REDACTED]@host:1"),
            ("host:1?key=abc", "host:1?[REDACTED]"),
            ("host:1?key=abc, other: http://b", "host:1?[REDACTED]"),
            ("http://host:1/v1", "http://host:1/v1"),
        ] {
            assert_eq!(url(text), expected);
            assert_eq!(line(&format!("endpoint: {text}")), format!("endpoint: {expected}"));
            assert_eq!(line(&format!("\"endpoint\":{text}")), format!("\"endpoint\":{expected}"));
        }
        let two = "{\"endpoint\":\"u:p@a:1\", \"other\": \"http://b\"}";
        assert_eq!(line(two), "[REDACTED]@a:1\", \"other\": \"http://b\"}");
    }

    #[test]
    fn of_a_reference_only_the_name_is_shown() {
        for (written, expected) in [
            ("env:T:-abc", "env:T…"),
            ("env:T-abc", "env:T…"),
            ("T:=abc", "T…"),
            ("${env:T}abc", "…"),
            ("env:T", "env:T"),
            ("T", "T"),
        ] {
            assert_eq!(reference(written), expected);
        }
    }
}
