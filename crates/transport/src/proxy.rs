//! Whether there is a proxy on the way, and which.

use std::fmt;
use std::net::IpAddr;

use ::http::{HeaderValue, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::InvalidConfig;
use crate::endpoint::{Endpoint, has_valid_port};

/// HTTP proxies on the way to the collector.
///
/// gRPC, https and HTTP/2 go through a tunnel (`CONNECT`, RFC 9110, section 9.3.6), so that the
/// proxy sees no span; plain HTTP/1.1 asks the proxy to forward each request (RFC 9112, section
/// 3.2.2). Proxies are spoken to over plain HTTP. Unix sockets never go through one. `Debug` shows
/// no credentials.
///
/// ```
/// use spanwire_transport::{Protocol, Proxy, TransportConfig};
///
/// let proxy = Proxy::url("http://user:opensesame@proxy.example:3128")?;
/// assert!(!format!("{proxy:?}").contains("opensesame"));
/// let config = TransportConfig::new(Protocol::Grpc, "http://collector.example:4317")?.proxy(proxy);
///
/// // The process's own settings: HTTPS_PROXY and its relatives.
/// let config = config.proxy(Proxy::environment(|name| std::env::var(name).ok())?);
/// # Ok::<(), spanwire_transport::InvalidConfig>(())
/// ```
#[derive(Clone, Default)]
pub struct Proxy {
    http: Option<Hop>,
    https: Option<Hop>,
    exempt: Vec<Exempt>,
    exempts_loopback: bool,
}

/// A proxy to go through.
#[derive(Clone)]
pub(crate) struct Hop {
    /// `http://host:port`, without credentials.
    pub(crate) address: Uri,
    /// For `Proxy-Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exempt {
    All,
    Network { address: IpAddr, bits: u32, port: Option<u16> },
    Name { suffix: String, port: Option<u16> },
}

impl Proxy {
    /// Straight to the collector, whatever the environment says. The default.
    pub fn none() -> Self {
        Self::default()
    }

    /// Through the proxy at `url`, `http://[user:password@]host[:port]`, wherever the collector is.
    /// User and password are percent-decoded and sent by the Basic scheme. Without a port: 80.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Proxy`], which does not repeat `url`.
    pub fn url(url: &str) -> Result<Self, InvalidConfig> {
        let hop = Hop::parse("proxy", url)?;
        Ok(Self { http: Some(hop.clone()), https: Some(hop), ..Self::default() })
    }

    /// As the variables that `lookup` finds have it: `HTTPS_PROXY` for endpoints of https,
    /// `HTTP_PROXY` for the others, `ALL_PROXY` for what has none of its own, and `NO_PROXY` for what goes without:
    /// a list of `*`, host names with all that are below them, IP addresses and networks, each with
    /// a port if it has one (an IPv6 address in brackets then). A lower-case form counts where the upper-case one is absent
    /// or empty.
    ///
    /// `localhost` and loopback addresses go without a proxy always. `HTTP_PROXY` is ignored if
    /// there is a `REQUEST_METHOD`: in a CGI program a client can set it by a header.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Proxy`], which names the variable and does not repeat its value.
    pub fn environment(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidConfig> {
        let value = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, value(name)?)))
        };
        let hop = |found: Option<(&'static str, String)>| {
            found.map(|(name, url)| Hop::parse(name, &url)).transpose()
        };
        let is_cgi = lookup("REQUEST_METHOD").is_some();
        let http = first([if is_cgi { "http_proxy" } else { "HTTP_PROXY" }, "http_proxy"]);
        let https = first(["HTTPS_PROXY", "https_proxy"]);
        // It may be of a kind for other programs, which is no matter where nothing is left for it.
        let all = match http.is_some() && https.is_some() {
            true => None,
            false => hop(first(["ALL_PROXY", "all_proxy"]))?,
        };
        let exempt = first(["NO_PROXY", "no_proxy"]).map(|(_, list)| list).unwrap_or_default();
        Ok(Self {
            http: hop(http)?.or_else(|| all.clone()),
            https: hop(https)?.or(all),
            exempt: exempt.split([',', ' ']).filter_map(Exempt::parse).collect(),
            exempts_loopback: true,
        })
    }

    /// The proxy on the way to `endpoint`, if there is one.
    pub(crate) fn to(&self, endpoint: &Endpoint) -> Option<&Hop> {
        let hop = if endpoint.is_https() { &self.https } else { &self.http };
        let host = endpoint.host().trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse().ok().map(|address: IpAddr| address.to_canonical());
        let is_loopback = host == "localhost" || address.is_some_and(|a| a.is_loopback());
        let is_exempt = endpoint.socket.is_some()
            || (self.exempts_loopback && is_loopback)
            || self.exempt.iter().any(|entry| entry.covers(&host, address, endpoint.port()));
        hop.as_ref().filter(|_| !is_exempt)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |hop: &Option<Hop>| hop.as_ref().map(|hop| hop.address.to_string());
        f.debug_struct("Proxy")
            .field("http", &address(&self.http))
            .field("https", &address(&self.https))
            .field("exempt", &self.exempt)
            .finish()
    }
}

impl Hop {
    fn parse(setting: &'static str, url: &str) -> Result<Self, InvalidConfig> {
        let invalid = |reason| InvalidConfig::Proxy { setting, reason };
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(invalid("only proxies of http:// are supported"));
        }
        let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if behind.contains('@') {
            return Err(invalid("user and password must be percent-encoded"));
        }
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let address: Uri = format!("http://{host}/").parse().map_err(|_| invalid("not a URL"))?;
        if address.host().is_none_or(str::is_empty) {
            return Err(invalid("names no host"));
        }
        if !has_valid_port(&address) {
            return Err(invalid("the port must be from 0 to 65535"));
        }
        let authorization = match credentials {
            Some(credentials) => Some(basic(credentials).map_err(invalid)?),
            None => None,
        };
        Ok(Self { address, authorization })
    }
}

/// RFC 7617, section 2.
fn basic(credentials: &str) -> Result<HeaderValue, &'static str> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let joined = [decode(user), b":".to_vec(), decode(password)].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(joined)))
        .map_err(|_| "credentials cannot be sent")?;
    value.set_sensitive(true);
    Ok(value)
}

impl Exempt {
    /// `None` for an empty entry.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.is_empty() || entry == "*" {
            return (!entry.is_empty()).then_some(Self::All);
        }
        let (host, port) = match entry.rsplit_once(':') {
            // Without brackets all colons of an IPv6 address are its own.
            Some((host, _)) if host.contains(':') && !host.ends_with(']') => (entry.as_str(), None),
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (entry.as_str(), None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (address, bits) = match host.split_once('/') {
            Some((address, bits)) => (address.parse().ok(), bits.parse().ok()),
            None => (host.parse().ok().map(|ip: IpAddr| ip.to_canonical()), Some(128)),
        };
        if let (Some(address), Some(bits)) = (address, bits) {
            return Some(Self::Network { address, bits, port });
        }
        let suffix = host.trim_start_matches('*').trim_matches('.').to_owned();
        Some(Self::Name { suffix, port })
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, to_port: u16) -> bool {
        let (is_named, port) = match self {
            Self::All => (true, None),
            Self::Network { address: network, bits, port } => {
                (address.is_some_and(|address| shares_prefix(address, *network, *bits)), *port)
            }
            Self::Name { suffix, port } => {
                let is_below = host
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                (is_below, *port)
            }
        };
        is_named && port.is_none_or(|port| port == to_port)
    }
}

/// Whether the first `bits` bits are equal; more bits than there are mean all.
fn shares_prefix(a: IpAddr, b: IpAddr, bits: u32) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits.min(32)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits.min(128)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;

    fn way(variables: &[(&str, &str)], endpoint: &str) -> Option<String> {
        let lookup = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        let proxy = Proxy::environment(lookup).expect("valid");
        let endpoint = match endpoint.strip_prefix("https://") {
            // Also where the build has no TLS: only the scheme matters here.
            Some(rest) => {
                Endpoint { url: format!("https://{rest}").parse().expect("a URL"), socket: None }
            }
            None => Endpoint::parse(Protocol::Grpc, endpoint, true).expect("valid"),
        };
        proxy.to(&endpoint).map(|hop| hop.address.authority().expect("has one").to_string())
    }

    fn goes(variables: &[(&str, &str)], endpoint: &str, through: Option<&str>) {
        assert_eq!(way(variables, endpoint).as_deref(), through, "{endpoint} by {variables:?}");
    }

    /// Faults 123.
    #[test]
    fn the_scheme_of_the_endpoint_chooses_the_variable() {
        let both = [("HTTP_PROXY", "http://a:1"), ("HTTPS_PROXY", "b:2")];
        goes(&both, "http://h", Some("a:1"));
        goes(&both, "https://h", Some("b:2"));
        let all = [("ALL_PROXY", "http://c:3"), ("https_proxy", "http://d:4")];
        goes(&all, "http://h", Some("c:3"));
        goes(&all, "https://h", Some("d:4"));
        goes(&[("HTTP_PROXY", ""), ("http_proxy", "e")], "http://h", Some("e"));
        goes(&[], "http://h", None);
        goes(&[("ALL_PROXY", " ")], "http://h", None);
        let unneeded = [("ALL_PROXY", "socks5://s"), ("HTTP_PROXY", "a"), ("HTTPS_PROXY", "b")];
        goes(&unneeded, "http://h", Some("a"));
        goes(&unneeded, "https://h", Some("b"));
        #[cfg(unix)]
        goes(&all, "unix:/run/o.sock", None);
    }

    /// Faults 123.
    #[test]
    fn a_cgi_program_does_not_believe_http_proxy_in_capitals() {
        let cgi = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "evil"), ("HTTPS_PROXY", "b")];
        goes(&cgi, "http://h", None);
        goes(&cgi, "https://h", Some("b"));
        let lower = [("REQUEST_METHOD", ""), ("HTTP_PROXY", "evil"), ("http_proxy", "good")];
        goes(&lower, "http://h", Some("good"));
    }

    /// Faults 123.
    #[test]
    fn no_proxy_names_hosts_domains_networks_and_ports() {
        let list = "example.com, .internal ,*.star, 10.0.0.0/8,::1,fd00::/8,1.2.3.4,only:4317,[fe80::1],\
             [2001:db8::1]:4317,1.2.3.5:4317";
        let no = [("ALL_PROXY", "p"), ("NO_PROXY", list)];
        for without in [
            "http://example.com",
            "http://EXAMPLE.com.",
            "http://a.b.example.com",
            "http://x.internal",
            "http://internal",
            "http://x.star",
            "http://10.255.0.1",
            "http://[fd00::9]:4317",
            "http://1.2.3.4",
            "http://only:4317",
            "http://[fe80::1]",
            "http://[::ffff:10.0.0.1]",
            "http://[::ffff:1.2.3.4]",
            "http://[2001:db8::1]:4317",
            "http://1.2.3.5:4317",
        ] {
            goes(&no, without, None);
        }
        for with in [
            "http://notexample.com",
            "http://example.com.org",
            "http://11.0.0.1",
            "http://1.2.3.5",
            "http://[fe00::1]",
            "http://only:4318",
            "http://[2001:db8::1]:4318",
        ] {
            goes(&no, with, Some("p"));
        }
        goes(&[("ALL_PROXY", "p"), ("no_proxy", "*")], "http://h", None);
        goes(&[("ALL_PROXY", "p"), ("no_proxy", ",10.0.0.0/x,")], "http://10.0.0.1", Some("p"));
    }

    /// Faults 123.
    #[test]
    fn the_environment_s_proxy_is_not_for_this_host_and_a_given_one_is_for_all() {
        for local in [
            "http://localhost:4317",
            "http://127.0.0.9",
            "http://[::1]:4317",
            "http://[::ffff:127.0.0.1]:4317",
        ] {
            goes(&[("ALL_PROXY", "p")], local, None);
            let proxy = Proxy::url("http://p").expect("valid");
            let endpoint = Endpoint::parse(Protocol::Grpc, local, true).expect("valid");
            assert!(proxy.to(&endpoint).is_some());
        }
    }

    /// Faults 123.
    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_without_repeating_its_password() {
        for url in [
            "https://u:hunter2@p",
            "socks5://u:hunter2@p",
            "http://u:hunter2@",
            "http://u:hunter2@:80",
            "http://u:hunter2@a b",
            "u:hunter2/@p",
            "http://user:123/hunter2@p",
            "http://user:123?hunter2@p",
            "http://user:123#hunter2@p",
        ] {
            let error = Proxy::url(url).expect_err(url);
            assert!(matches!(error, InvalidConfig::Proxy { setting: "proxy", .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let error = Proxy::environment(|name| (name == "https_proxy").then(|| "ftp://x".into()));
        let error = error.expect_err("not http").to_string();
        assert!(error.contains("https_proxy"), "{error}");
    }

    #[test]
    fn credentials_are_decoded_for_the_proxy_and_hidden_from_everybody_else() {
        let proxy = Proxy::url("http://al:ope%3Anses%40@p:3128").expect("valid");
        let hop = proxy.http.as_ref().expect("for all");
        let expected = format!("Basic {}", STANDARD.encode("al:ope:nses@"));
        assert_eq!(hop.authorization.as_ref().expect("given"), expected.as_str());
        let shown = format!("{proxy:?} {:?}", hop.authorization);
        assert!(!shown.contains("nses") && shown.contains("p:3128"), "{shown}");
    }
}
