//! Certificates of a test's own making, and files to keep them in.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore};
use spanwire_receiver::{Pem, ServerTls};

/// An authority.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Leaf {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("randomness");
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// For this host, as the tests reach it.
    pub(crate) fn server(&self) -> Leaf {
        self.sign(params("server", &["127.0.0.1"]))
    }

    pub(crate) fn client(&self) -> Leaf {
        self.sign(params("client", &[]))
    }

    /// Expired long ago.
    pub(crate) fn old_client(&self) -> Leaf {
        let mut params = params("client", &[]);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("randomness");
        Leaf { certificate: params.signed_by(&key, &self.issuer).expect("a certificate"), key }
    }

    /// A client that trusts this authority, offers `alpn` and shows `identity`.
    pub(crate) fn trusted_by_client(&self, alpn: &[&str], identity: Option<&Leaf>) -> ClientConfig {
        self.trusted_by_client_of(rustls::DEFAULT_VERSIONS, alpn, identity)
    }

    pub(crate) fn trusted_by_client_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&str],
        identity: Option<&Leaf>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("has them")
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(leaf) => {
                let key = PrivatePkcs8KeyDer::from(leaf.key.serialize_der());
                builder
                    .with_client_auth_cert(vec![leaf.certificate.der().clone()], key.into())
                    .expect("they belong together")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Leaf {
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A server that shows this certificate.
    pub(crate) fn tls(&self) -> ServerTls {
        let bytes = |pem: String| Pem::Bytes(pem.into_bytes());
        ServerTls::new(bytes(self.pem()), bytes(self.key_pem()))
    }
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("host names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A folder that is removed with its files.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spanwire-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Replaces a file at once, as certificate managers do.
    pub(crate) fn put(&self, name: &str, content: &str) -> Pem {
        let (path, new) = (self.0.join(name), self.0.join("new"));
        std::fs::write(&new, content).expect("written");
        std::fs::rename(&new, &path).expect("replaced");
        Pem::File(path)
    }

    /// Replaces what a server shows.
    pub(crate) fn put_server(&self, leaf: &Leaf) -> (Pem, Pem) {
        (self.put("server.pem", &leaf.pem()), self.put("server.key", &leaf.key_pem()))
    }

    /// A server whose files are looked at by each connection.
    pub(crate) fn server(&self, leaf: &Leaf) -> ServerTls {
        let (chain, key) = self.put_server(leaf);
        ServerTls::new(chain, key).reload_interval(std::time::Duration::ZERO)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
