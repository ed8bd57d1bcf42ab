//! Certificates of a test's own making.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use spanwire_transport::Pem;

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

    pub(crate) fn pem(&self) -> Pem {
        Pem::Bytes(self.certificate.pem().into_bytes())
    }

    /// For this host, as the tests reach it.
    pub(crate) fn server(&self) -> Leaf {
        self.sign(params("server", &["127.0.0.1"]))
    }

    pub(crate) fn server_named(&self, name: &str) -> Leaf {
        self.sign(params("server", &[name]))
    }

    /// Valid from the first to the last of these years.
    pub(crate) fn server_of(&self, from: i32, to: i32) -> Leaf {
        let mut params = params("server", &["127.0.0.1"]);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        self.sign(params)
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
}

impl Leaf {
    /// Signed by itself.
    pub(crate) fn alone() -> Self {
        let key = KeyPair::generate().expect("randomness");
        let certificate = params("alone", &["127.0.0.1"]).self_signed(&key).expect("a certificate");
        Self { certificate, key }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A server that shows this certificate and offers `alpn`. With `clients` it wants one of
    /// theirs.
    pub(crate) fn serve(&self, alpn: &[&str], clients: Option<&Authority>) -> ServerConfig {
        self.serve_by(rustls::DEFAULT_VERSIONS, alpn, clients)
    }

    /// The same in these versions of TLS only.
    pub(crate) fn serve_by(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        clients: Option<&Authority>,
    ) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .expect("has them");
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate.der().clone()).expect("a certificate");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .expect("has roots");
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let (chain, key) = self.der();
        let mut config = builder.with_single_cert(chain, key).expect("they belong together");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// A server that shows this certificate and signs with a key of its own.
    pub(crate) fn serve_without_its_key(
        &self,
        version: &'static SupportedProtocolVersion,
        alpn: &[&str],
    ) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (_, key) = Self::alone().der();
        let key = provider.key_provider.load_private_key(key).expect("a key");
        let shown = Shown(Arc::new(CertifiedKey::new(self.der().0, key)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("has it")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        (vec![self.certificate.der().clone()], key.into())
    }
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("host names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Shown to whoever comes, be it right or not.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
