//! The forms an endpoint may be written in.

use std::fmt;
use std::path::{Path, PathBuf};

use ::http::Uri;
use ::http::uri::{PathAndQuery, Scheme};

use crate::config::{InvalidConfig, Protocol};

/// Where requests go: a URL over TCP, or a Unix socket.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The address in each request. With a Unix socket the host is a stand-in.
    pub(crate) url: Uri,
    /// The path of a Unix socket.
    pub(crate) socket: Option<PathBuf>,
}

impl Endpoint {
    /// Parses `http://`, `https://` and `unix:`. `appends` says that the URL is a base, to which
    /// HTTP appends the path of the signal.
    pub(crate) fn parse(
        protocol: Protocol,
        text: &str,
        appends: bool,
    ) -> Result<Self, InvalidConfig> {
        let text = text.trim();
        let endpoint = match text.strip_prefix("unix:") {
            Some(path) => unix(path).map_err(|reason| invalid(text, reason))?,
            None => Self { url: parse_url(text)?, socket: None },
        };
        let url = match protocol {
            Protocol::HttpProtobuf | Protocol::HttpJson if appends || endpoint.socket.is_some() => {
                append_signal_path(endpoint.url).map_err(|reason| invalid(text, reason))?
            }
            _ => endpoint.url,
        };
        Ok(Self { url, ..endpoint })
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme() == Some(&Scheme::HTTPS)
    }

    /// Host without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        self.url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port written down, else that of the scheme.
    pub(crate) fn port(&self) -> u16 {
        self.url.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// What to call the peer in an error: no path and no query, which may hold a key.
    pub(crate) fn peer(&self) -> String {
        match &self.socket {
            Some(path) => format!("unix:{}", path.display()),
            None => format!("{}:{}", self.url.host().unwrap_or_default(), self.port()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(f, "unix:{}", path.display()),
            None => self.url.fmt(f),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer())
    }
}

fn parse_url(text: &str) -> Result<Uri, InvalidConfig> {
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(InvalidConfig::Credentials);
    }
    let url = match parse_address(text) {
        Ok(url) => url,
        // Whatever it was meant to be, what stands before the sign may be a password.
        Err(_) if text.contains('@') => return Err(InvalidConfig::Credentials),
        Err(reason) => return Err(invalid(text, reason)),
    };
    match url.scheme() == Some(&Scheme::HTTPS) && !cfg!(feature = "_tls") {
        true => Err(InvalidConfig::Tls),
        false => Ok(url),
    }
}

fn parse_address(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| "not a URL")?;
    if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme()) {
        return Err(SCHEMES);
    }
    if url.host().is_none_or(str::is_empty) {
        return Err("names no host");
    }
    if !has_valid_port(&url) {
        return Err("the port must be from 0 to 65535");
    }
    Ok(url)
}

/// Whether what follows the host is a port, or nothing. Parsing a URL lets more pass.
pub(crate) fn has_valid_port(url: &Uri) -> bool {
    let (Some(authority), Some(host)) = (url.authority(), url.host()) else { return false };
    match authority.as_str().strip_prefix(host) {
        Some("" | ":") => true,
        Some(port) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    }
}

/// `unix:path` and `unix:///path`, as in `doc/naming.md` of gRPC.
fn unix(path: &str) -> Result<Endpoint, &'static str> {
    if !cfg!(unix) {
        return Err("Unix sockets need a Unix system");
    }
    let path = match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err("write a Unix socket as unix:path or unix:///path"),
        None => path,
    };
    if path.is_empty() {
        return Err("names no Unix socket");
    }
    let socket = Some(Path::new(path).to_owned());
    Ok(Endpoint { url: Uri::from_static("http://localhost"), socket })
}

fn append_signal_path(base: Uri) -> Result<Uri, &'static str> {
    let mut parts = base.into_parts();
    let (path, query) = match &parts.path_and_query {
        Some(p) => (p.path().trim_end_matches('/'), p.query()),
        None => ("", None),
    };
    let path = match query {
        Some(query) => format!("{path}/v1/traces?{query}"),
        None => format!("{path}/v1/traces"),
    };
    let path = PathAndQuery::try_from(path).map_err(|_| "path too long")?;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| "not a URL")
}

fn invalid(endpoint: &str, reason: &'static str) -> InvalidConfig {
    // A query may hold a key.
    let endpoint = endpoint.split(['?', '#']).next().unwrap_or_default();
    InvalidConfig::Endpoint { endpoint: endpoint.chars().take(200).collect(), reason }
}

const SCHEMES: &str = "must start with http://, https:// or unix:";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(protocol: Protocol, text: &str) -> Result<Endpoint, InvalidConfig> {
        Endpoint::parse(protocol, text, true)
    }

    /// Faults 124.
    #[test]
    fn a_base_gets_the_signal_path_with_one_slash_and_an_exact_url_stays() {
        let cases = [
            ("http://h:4318", "http://h:4318/v1/traces"),
            ("http://h:4318/", "http://h:4318/v1/traces"),
            (" http://h:4318 ", "http://h:4318/v1/traces"),
            ("http://h/otlp", "http://h/otlp/v1/traces"),
            ("http://h/otlp//", "http://h/otlp/v1/traces"),
            ("http://h/otlp?key=1", "http://h/otlp/v1/traces?key=1"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
            ("http://h:/", "http://h:/v1/traces"),
        ];
        for (base, url) in cases {
            assert_eq!(parse(Protocol::HttpProtobuf, base).expect(base).to_string(), url);
        }
        let exact = Endpoint::parse(Protocol::HttpJson, "http://h/a", false).expect("valid");
        assert_eq!(exact.to_string(), "http://h/a");
    }

    /// Faults 124.
    #[test]
    fn host_and_port_are_those_to_dial() {
        let cases = [
            ("http://h", "h", 80),
            ("http://h:", "h", 80),
            ("http://h:4317", "h", 4317),
            ("http://[::1]:4317", "::1", 4317),
            ("http://[::1]", "::1", 80),
        ];
        for (text, host, port) in cases {
            let endpoint = parse(Protocol::Grpc, text).expect(text);
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
        }
    }

    /// Faults 124.
    #[cfg(unix)]
    #[test]
    fn unix_sockets_are_read_in_both_forms_and_http_has_its_own_path_there() {
        for (text, path) in [
            ("unix:/run/o.sock", "/run/o.sock"),
            ("unix:///run/o.sock", "/run/o.sock"),
            ("unix:o", "o"),
        ] {
            for appends in [true, false] {
                let endpoint = Endpoint::parse(Protocol::HttpJson, text, appends).expect(text);
                assert_eq!(endpoint.socket.as_deref(), Some(Path::new(path)));
                assert_eq!(endpoint.url, "http://localhost/v1/traces");
                assert_eq!(endpoint.to_string(), format!("unix:{path}"));
            }
        }
        for text in ["unix:", "unix://", "unix://host/run/o.sock"] {
            assert!(parse(Protocol::Grpc, text).is_err(), "{text}");
        }
    }

    /// Faults 124.
    #[test]
    fn endpoints_that_cannot_be_dialled_are_refused_with_the_reason() {
        for endpoint in [
            "",
            "localhost:4317",
            "ftp://h",
            "http://",
            "http://:80",
            "http://a b",
            "/x",
            "http://h:99999",
        ] {
            let error = parse(Protocol::Grpc, endpoint).expect_err(endpoint);
            assert!(matches!(error, InvalidConfig::Endpoint { .. }), "{endpoint}: {error}");
        }
    }

    #[test]
    fn a_password_in_the_endpoint_is_refused_and_not_repeated() {
        for endpoint in [
            "http://u:pass@h",
            "http://u:pa ss@h",
            "u:pass@h:4317",
            "http:/u:pass@h:4317",
            "http://u:pa/ss@h",
            "http://u:pa?ss@h",
            "http://u:pa#ss@h",
            "u/pass@h",
        ] {
            let error = parse(Protocol::Grpc, endpoint).expect_err("credentials");
            assert!(matches!(error, InvalidConfig::Credentials), "{error:?}");
        }
        for endpoint in ["h:4318/otlp?key=pass", "http://h:x/otlp?key=pass", "h#pass"] {
            let error = parse(Protocol::Grpc, endpoint).expect_err("not valid");
            assert!(matches!(error, InvalidConfig::Endpoint { .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("pass"), "{error:?}");
        }
        assert!(parse(Protocol::HttpJson, "http://h/a@b").is_ok());
    }

    #[test]
    fn https_without_a_tls_feature_is_refused() {
        let result = parse(Protocol::Grpc, "https://h");
        assert_eq!(result.is_ok(), cfg!(feature = "_tls"));
        assert_eq!(matches!(result, Err(InvalidConfig::Tls)), !cfg!(feature = "_tls"));
    }
}
