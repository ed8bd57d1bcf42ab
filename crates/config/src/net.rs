//! Addresses and TLS, as receivers and exporters share them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;
use crate::section::Section;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `host:port` as it was written. The host may be a name, an address, or nothing, which is
    /// every interface; the port is a number.
    Tcp(String),
    /// A Unix socket: `transport: unix`, or an endpoint `unix:///path`.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Listen {
    /// Reads `endpoint` and `transport`.
    pub(crate) fn read(section: &Section<'_>, default: &str) -> Self {
        #[derive(Clone, Copy)]
        enum Transport {
            Tcp,
            Unix,
        }
        let transports = [("tcp", Transport::Tcp), ("unix", Transport::Unix)];
        let transport = section.choice("transport", &transports);
        let Some(endpoint) = section.string("endpoint") else {
            return Self::Tcp(default.to_owned());
        };
        let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:"));
        match (transport, path) {
            (None, Some(path)) => Self::Unix(path.into()),
            (Some(Transport::Unix), path) => Self::Unix(path.unwrap_or(&endpoint).into()),
            _ => {
                check_host_port(section, "endpoint", &endpoint);
                Self::Tcp(endpoint)
            }
        }
    }
}

/// Reports what keeps `address`, which is in the value of `key`, from being `host:port`.
pub(crate) fn check_host_port(section: &Section<'_>, key: &str, address: &str) {
    let Err(Wrong { what, help }) = host_port(address) else { return };
    let message = format!("{} {what}: {}", section.path_of(key), section.shown_url(key));
    section.findings.error_with_help(section.place_of(key), message, help);
}

pub(crate) struct Wrong {
    what: &'static str,
    help: &'static str,
}

pub(crate) fn host_port(address: &str) -> Result<(), Wrong> {
    let wrong = |what, help| Err(Wrong { what, help });
    let bracket = address.strip_prefix('[').and_then(|rest| rest.find(']')).map_or(0, |at| at + 2);
    let Some((host, port)) = address[bracket..].rsplit_once(':') else {
        return wrong("has no port", "write it as host:port, such as localhost:4317");
    };
    if host.contains(':') {
        return wrong("is ambiguous", "put an IPv6 address in brackets, such as [::1]:4317");
    }
    if host.contains('/') || (bracket > 0 && !host.is_empty()) {
        return wrong("is not host:port", "write it without a scheme and a path");
    }
    // Rust would take a sign.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return wrong("has a port that is not a number up to 65535", "such as localhost:4317");
    }
    Ok(())
}

/// The lowest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// TLS on a listening socket (`config/configtls/README.md` of the Go Collector).
///
/// Exactly one of `cert_file` and `cert_pem` is set, and one of `key_file` and `key_pem`. Nothing
/// has looked into the files yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// The server's certificate chain, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The same without a file.
    pub cert_pem: Option<Secret>,
    /// The certificate's private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// The same without a file.
    pub key_pem: Option<Secret>,
    /// If set, clients must have a certificate that one of these authorities has signed.
    pub client_ca_file: Option<PathBuf>,
    /// How often the files are read again; the server's own choice if `None`, where the Go Collector
    /// does not read them again.
    pub reload_interval: Option<Duration>,
    /// The lowest version that is accepted.
    pub min_version: TlsVersion,
}

/// TLS towards a server (`config/configtls/README.md` of the Go Collector).
///
/// A certificate comes with a key and the other way round, each from a file or as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// As it was written; [`is_plain`](Self::is_plain) says what it means.
    pub insecure: bool,
    /// With TLS, but with anybody: no certificate is looked into.
    pub insecure_skip_verify: bool,
    /// The authorities that are trusted instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The same without a file.
    pub ca_pem: Option<Secret>,
    /// The client's certificate chain, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The same without a file.
    pub cert_pem: Option<Secret>,
    /// The certificate's private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// The same without a file.
    pub key_pem: Option<Secret>,
    /// The name that the server's certificate must be for, instead of the endpoint's host.
    pub server_name_override: Option<String>,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
}

/// What an endpoint says about TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Tls,
    PlainText,
    /// It is by [`ClientTls::is_plain`].
    Nothing,
}

impl Asked {
    /// Whether TLS is spoken with these settings of it.
    pub(crate) fn is_tls(self, tls: &ClientTls) -> bool {
        match self {
            Self::Tls => true,
            Self::PlainText => false,
            Self::Nothing => !tls.is_plain(),
        }
    }
}

const UNSUPPORTED: [&str; 4] =
    ["include_system_ca_certs_pool", "cipher_suites", "curve_preferences", "tpm"];

impl ServerTls {
    pub(crate) fn read(section: Section<'_>) -> Self {
        section.unsupported(&UNSUPPORTED);
        max_version(&section);
        section.without_effect(&[
            ("ca_file", "a server checks clients against client_ca_file"),
            ("ca_pem", "a server checks clients against client_ca_file"),
            ("client_ca_file_reload", "reload_interval holds for it too"),
        ]);
        let tls = Self {
            cert_file: section.string("cert_file").map(PathBuf::from),
            cert_pem: section.secret("cert_pem"),
            key_file: section.string("key_file").map(PathBuf::from),
            key_pem: section.secret("key_pem"),
            client_ca_file: section.string("client_ca_file").map(PathBuf::from),
            reload_interval: section
                .duration("reload_interval")
                .filter(|interval| !interval.is_zero()),
            min_version: min_version(&section),
        };
        let cert = one_of(&section, "cert_file", "cert_pem");
        let key = one_of(&section, "key_file", "key_pem");
        if !cert || !key {
            let missing = if cert { "key" } else { "certificate" };
            section.findings.error_with_help(
                section.place,
                format!("{} has no {missing}, and a server needs one", section.path),
                "set cert_file and key_file, or cert_pem and key_pem",
            );
        }
        section.finish();
        tls
    }
}

impl ClientTls {
    /// Whether gRPC is spoken without TLS where the endpoint says nothing about it: by `insecure`,
    /// unless an authority is named as well (`LoadTLSConfig` of `ClientConfig` in
    /// `config/configtls/configtls.go` of the Go Collector).
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.insecure && self.ca_file.is_none() && self.ca_pem.is_none()
    }

    pub(crate) fn read(section: Section<'_>, asked: Asked) -> Self {
        section.unsupported(&UNSUPPORTED);
        max_version(&section);
        // Go takes an empty text for nothing.
        let text = |key| section.string(key).filter(|text| !text.is_empty());
        const FILES: &str = "files are looked at again for each new connection";
        section.without_effect(&[("reload_interval", FILES)]);
        let tls = Self {
            insecure: section.boolean("insecure").unwrap_or_default(),
            insecure_skip_verify: section.boolean("insecure_skip_verify").unwrap_or_default(),
            ca_file: text("ca_file").map(PathBuf::from),
            ca_pem: text("ca_pem").map(Secret::from),
            cert_file: text("cert_file").map(PathBuf::from),
            cert_pem: text("cert_pem").map(Secret::from),
            key_file: text("key_file").map(PathBuf::from),
            key_pem: text("key_pem").map(Secret::from),
            server_name_override: text("server_name_override"),
            min_version: min_version(&section),
        };
        if tls.insecure && asked == Asked::Tls {
            section.no_effect("insecure", "the endpoint begins with https://, and TLS is spoken");
        } else if tls.insecure && asked == Asked::Nothing && !tls.is_plain() {
            section.no_effect("insecure", "an authority is named, and TLS is spoken");
        }
        if tls.insecure_skip_verify && asked.is_tls(&tls) {
            section.findings.warning(
                section.place_of("insecure_skip_verify"),
                format!("{} accepts any certificate", section.path_of("insecure_skip_verify")),
                "whoever is in between can read and change all that is sent; name the authority in \
                 ca_file, or the name of the certificate in server_name_override",
            );
        }
        one_of(&section, "ca_file", "ca_pem");
        let cert = one_of(&section, "cert_file", "cert_pem");
        let key = one_of(&section, "key_file", "key_pem");
        if cert != key {
            let (has, lacks) = if cert { ("certificate", "key") } else { ("key", "certificate") };
            let message = format!("{} has a {has} and no {lacks}", section.path);
            section.findings.error(section.place, message);
        }
        section.finish();
        tls
    }
}

/// Whether one of two keys for the same thing is set; both are an error.
fn one_of(section: &Section<'_>, file: &'static str, pem: &'static str) -> bool {
    let [has_file, has_pem] = [file, pem].map(|key| section.has(key) && !section.says_nothing(key));
    if has_file && has_pem {
        section.error(pem, format!("{} has both {file} and {pem}", section.path));
    }
    has_file || has_pem
}

fn min_version(section: &Section<'_>) -> TlsVersion {
    #[derive(Clone, Copy)]
    enum Version {
        Old,
        Spoken(TlsVersion),
    }
    let versions = [
        ("", Version::Spoken(TlsVersion::Tls12)),
        ("1.0", Version::Old),
        ("1.1", Version::Old),
        ("1.2", Version::Spoken(TlsVersion::Tls12)),
        ("1.3", Version::Spoken(TlsVersion::Tls13)),
    ];
    match section.choice("min_version", &versions) {
        Some(Version::Spoken(version)) => version,
        Some(Version::Old) => {
            section.findings.unsupported(
                section.place_of("min_version"),
                format!("{} below 1.2 is not supported", section.path_of("min_version")),
                Some("RFC 8996 forbids TLS 1.0 and 1.1; set 1.2".into()),
            );
            TlsVersion::Tls12
        }
        None => TlsVersion::Tls12,
    }
}

/// There is no version above 1.3, and none below it to stop at.
fn max_version(section: &Section<'_>) {
    let versions = [("", true), ("1.0", false), ("1.1", false), ("1.2", false), ("1.3", true)];
    if section.choice("max_version", &versions) == Some(false) {
        section.findings.unsupported(
            section.place_of("max_version"),
            format!("{} below 1.3 is not supported", section.path_of("max_version")),
            Some("remove it; 1.2 is spoken with whoever does not speak 1.3".into()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::host_port;

    #[test]
    fn an_address_is_a_host_and_a_port_number() {
        for address in ["localhost:4317", ":4317", "[::1]:4317", "0.0.0.0:0", "a-b.c:65535"] {
            assert!(host_port(address).is_ok(), "{address}");
        }
        for address in [
            "localhost",
            "::1:4317",
            "[::1]",
            "[::1]x:1",
            "localhost:",
            "localhost:65536",
            "localhost:+1",
            "localhost:otlp",
            "http://a:1",
            "",
        ] {
            assert!(host_port(address).is_err(), "{address}");
        }
    }
}
