//! TLS settings for both stacks, so that neither reaches for a provider that is not there.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::ClientTlsConfig;

use crate::config::{InvalidConfig, TransportConfig};

/// For tonic, which picks the provider as [`provider`] does.
pub(crate) fn grpc(config: &TransportConfig) -> ClientTlsConfig {
    let tls = ClientTlsConfig::new().with_enabled_roots();
    match config.connect_timeout {
        Some(timeout) => tls.timeout(timeout),
        None => tls,
    }
}

/// For reqwest, which would panic without a provider installed for the whole process.
pub(crate) fn http(config: &TransportConfig) -> Result<ClientConfig, InvalidConfig> {
    let mut tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidConfig::Client(error.into()))?
        .with_root_certificates(roots()?)
        .with_no_client_auth();
    tls.alpn_protocols = if config.http2_only {
        vec![b"h2".to_vec()]
    } else {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    };
    Ok(tls)
}

/// What the process installed, else what the features name.
fn provider() -> Arc<CryptoProvider> {
    match CryptoProvider::get_default() {
        Some(provider) => provider.clone(),
        #[cfg(feature = "tls-ring")]
        None => Arc::new(rustls::crypto::ring::default_provider()),
        #[cfg(all(feature = "tls-aws-lc", not(feature = "tls-ring")))]
        None => Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    }
}

fn roots() -> Result<RootCertStore, InvalidConfig> {
    #[cfg_attr(
        not(any(feature = "tls-native-roots", feature = "tls-webpki-roots")),
        expect(unused_mut, reason = "the configuration refuses https without roots")
    )]
    let mut roots = RootCertStore::empty();
    #[cfg(feature = "tls-native-roots")]
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    #[cfg(feature = "tls-webpki-roots")]
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if roots.is_empty() {
        return Err(InvalidConfig::Client("no root certificates found".into()));
    }
    Ok(roots)
}
