//! What messages and lines show where a secret stands, or may stand.

/// Whether all that stands below a key is secret.
pub(crate) fn is_secret(key: &str) -> bool {
    key == "headers" || key.ends_with("_pem")
}

/// The line at `index` as it may be shown: without what stands behind a key that usually holds a
/// secret, or below one that does always, and without who comes before the host of a URL, and its query.
pub(crate) fn line_of<'a>(lines: impl Iterator<Item = &'a str>, index: usize) -> Option<String> {
    // How far the key is indented that is being looked into.
    let mut secret = None;
    for (at, line) in lines.enumerate() {
        let text = line.trim_start_matches([' ', '\t', '-']);
        if at < index && (text.is_empty() || text.starts_with('#')) {
            continue;
        }
        let lead = &line[..line.len() - text.len()];
        // A tab may be any number of columns.
        secret = secret.filter(|&indent| lead.len() > indent || lead.contains('\t'));
        if at == index {
            return Some(if secret.is_some() { below_secret(line) } else { self::line(line) });
        }
        if secret.is_none() && opens_secret(text) {
            secret = Some(lead.len());
        }
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
    let line = &urls(line);
    let lower = line.to_ascii_lowercase();
    let key = SECRETS.iter().filter_map(|word| lower.find(word)).chain(headers(&lower)).min();
    match key.and_then(|at| Some(at + line[at..].find(':')?)) {
        Some(colon) => value(line, colon),
        None => line.clone(),
    }
}

/// A URL, or a value that should be one.
pub(crate) fn url(url: &str) -> String {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
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

/// The name in a reference such as `env:NAME:-default`: the default may be the secret itself.
pub(crate) fn reference(written: &str) -> String {
    match written.split_once('-') {
        Some((name, _)) => format!("{name}-…"),
        None => written.to_owned(),
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

fn opens_secret(line: &str) -> bool {
    let key = headers(line).or_else(|| line.find("_pem"));
    key.is_some_and(|at| line[at..].contains(':'))
}

/// A line of a map of secrets, or of the text of one.
fn below_secret(line: &str) -> String {
    match line.find(": ") {
        Some(colon) => value(line, colon),
        None if line.trim_end().ends_with(':') => line.to_owned(),
        None => REDACTED.to_owned(),
    }
}

/// A line without what stands behind the colon, unless that only names what is secret.
fn value(line: &str, colon: usize) -> String {
    let value = line[colon + 1..].trim();
    let reference = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let names = reference.is_some_and(|inner| !inner.contains(['$', '{', '}', '-']));
    if value.is_empty() || names {
        return line.to_owned();
    }
    format!("{}: {REDACTED}", &line[..colon])
}

fn urls(line: &str) -> String {
    let from = match line.contains("://") {
        true => Some(0),
        false => line.find("endpoint").and_then(|at| Some(at + line[at..].find(": ")? + 2)),
    };
    match from {
        Some(from) => format!("{}{}", &line[..from], url(&line[from..])),
        None => line.to_owned(),
    }
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
            "token: ${env:T} # was abc",
            "token: ${env:T}${env:U:-abc}",
        ] {
            let shown = line(text);
            assert!(shown.ends_with(": [REDACTED]") && !shown.contains("abc"), "{shown}");
        }
        for text in [
            "authorization: ${env:TOKEN}",
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
                        \"a\": [REDACTED]\n}\nlist:\n- headers:\n  - name: [REDACTED]\n    value: [REDACTED]\n\
                        key_pem: [REDACTED]\n[REDACTED]\n\n[REDACTED]\nat: ${env:A}\n\
                        last: {headers: [REDACTED]\n  c: [REDACTED]\n  headers:\n\tx: [REDACTED]";
        assert_eq!(shown, expected.lines().collect::<Vec<_>>());
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
            ("http://host:1/v1", "http://host:1/v1"),
        ] {
            assert_eq!(url(text), expected);
            assert_eq!(line(&format!("endpoint: {text}")), format!("endpoint: {expected}"));
        }
    }

    #[test]
    fn of_a_reference_the_default_is_not_shown() {
        for (written, expected) in
            [("env:T:-abc", "env:T:-…"), ("env:T-abc", "env:T-…"), ("env:T", "env:T")]
        {
            assert_eq!(reference(written), expected);
        }
    }
}
