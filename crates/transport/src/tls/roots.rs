//! Root certificates of the build: the system's, or those of `webpki-roots`.

use std::sync::Arc;

use rustls::RootCertStore;

use crate::config::{InvalidConfig, TransportConfig};

/// What endpoints without an own CA trust, read once for all of them: it changes with the system
/// and not with us.
pub(crate) struct Roots(Option<Arc<RootCertStore>>);

impl Roots {
    /// Reads them, if an endpoint needs them.
    pub(crate) fn of(config: &TransportConfig) -> Result<Self, InvalidConfig> {
        let tls = &config.tls;
        let are_needed = !tls.accepts_any
            && tls.ca.is_none()
            && config.endpoints.iter().any(|endpoint| endpoint.is_https());
        Ok(Self(if are_needed { Some(Arc::new(read()?)) } else { None }))
    }

    pub(super) fn store(&self) -> Option<Arc<RootCertStore>> {
        self.0.clone()
    }
}

fn read() -> Result<RootCertStore, InvalidConfig> {
    #[cfg_attr(
        not(any(feature = "tls-native-roots", feature = "tls-webpki-roots")),
        expect(unused_mut, reason = "a build without roots has nothing to add")
    )]
    let mut roots = RootCertStore::empty();
    #[cfg(feature = "tls-native-roots")]
    let source = {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        found.errors.into_iter().next().map(Into::into)
    };
    #[cfg(not(feature = "tls-native-roots"))]
    let source = None;
    #[cfg(feature = "tls-webpki-roots")]
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if roots.is_empty() { Err(InvalidConfig::Roots { source }) } else { Ok(roots) }
}
