//! TLS of one endpoint: its configuration, kept up with the files it came from.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::any::AnyCertificate;
use super::files::{CHAIN, Material, unusable};
use super::{Pem, Roots, Tls, TlsVersion};
use crate::config::InvalidConfig;

/// Makes connections of TCP into connections of TLS.
pub(crate) struct TlsClient {
    settings: Tls,
    server_name: ServerName<'static>,
    offers_http1: bool,
    /// Those of the build; `None` with an own CA.
    roots: Option<Arc<RootCertStore>>,
    /// One thread at a time looks at the files, however long the disk takes.
    reloading: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    config: Arc<ClientConfig>,
    fingerprint: u64,
    /// Why the files as they are now are not used.
    unused: Option<Arc<InvalidConfig>>,
}

impl TlsClient {
    /// Reads all certificates but `roots`. `host` is the endpoint's.
    pub(crate) fn new(
        settings: &Tls,
        roots: &Roots,
        host: &str,
        offers_http1: bool,
    ) -> Result<Arc<Self>, InvalidConfig> {
        let name = settings.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| InvalidConfig::ServerName { name: name.chars().take(200).collect() })?;
        let roots = roots.store();
        let material = Material::read(settings)?;
        let config = client_config(settings, &material, roots.as_ref(), offers_http1)?;
        let fingerprint = material.fingerprint();
        Ok(Arc::new(Self {
            settings: settings.clone(),
            server_name,
            offers_http1,
            roots,
            reloading: Arc::new(Semaphore::new(1)),
            state: Mutex::new(State { config, fingerprint, unused: None }),
        }))
    }

    /// The handshake on a new connection, with the certificates of this moment.
    pub(crate) async fn handshake(
        self: &Arc<Self>,
        tcp: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        // While another connection looks at them, what was read before is good enough.
        if self.has_files()
            && let Ok(turn) = Arc::clone(&self.reloading).try_acquire_owned()
        {
            // Disks can be slow, and this is the thread of all requests.
            let this = Arc::clone(self);
            let reloading = tokio::task::spawn_blocking(move || {
                this.reload();
                // Held to here even if nobody waits any more.
                drop(turn);
            });
            reloading.await.map_err(io::Error::other)?;
        }
        let config = Arc::clone(&self.lock().config);
        TlsConnector::from(config).connect(self.server_name.clone(), tcp).await
    }

    /// Why the files as they were at the last connection are not used.
    pub(crate) fn unused_files(&self) -> Option<Arc<InvalidConfig>> {
        self.lock().unused.clone()
    }

    fn has_files(&self) -> bool {
        let identity = self.settings.identity.as_ref();
        let all = [self.settings.ca.as_ref(), identity.map(|i| &i.chain), identity.map(|i| &i.key)];
        all.into_iter().flatten().any(|pem| matches!(pem, Pem::File(_)))
    }

    /// Takes what is in the files now, if it can be used. Blocks on the disk.
    fn reload(&self) {
        let material = Material::read(&self.settings);
        let fingerprint = material.as_ref().map(Material::fingerprint).ok();
        // An unchanged configuration stays, with the sessions it may resume.
        if fingerprint == Some(self.lock().fingerprint) {
            self.lock().unused = None;
            return;
        }
        let config = material.and_then(|material| {
            client_config(&self.settings, &material, self.roots.as_ref(), self.offers_http1)
        });
        let mut state = self.lock();
        match (config, fingerprint) {
            (Ok(config), Some(fingerprint)) => {
                *state = State { config, fingerprint, unused: None };
            }
            (Err(error), _) => state.unused = Some(Arc::new(error)),
            // What was read has a fingerprint.
            (Ok(_), None) => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Each write to the state is a single assignment, so a panic leaves none half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client_config(
    settings: &Tls,
    material: &Material,
    roots: Option<&Arc<RootCertStore>>,
    offers_http1: bool,
) -> Result<Arc<ClientConfig>, InvalidConfig> {
    let own = material.roots(settings)?.map(Arc::new);
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| InvalidConfig::Client(error.into()))?;
    let builder = match (settings.accepts_any, own.as_ref().or(roots)) {
        (true, _) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(&provider))),
        (false, Some(roots)) => builder.with_root_certificates(Arc::clone(roots)),
        (false, None) => return Err(InvalidConfig::Roots { source: None }),
    };
    let mut config = match (material.identity(settings)?, &settings.identity) {
        (Some((chain, key)), Some(origin)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(CHAIN, &origin.chain, error))?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match offers_http1 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
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

/// What is wrong with the peer, in words that name it without its details.
pub(crate) fn fault(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return "the connection broke in the handshake";
    };
    use CertificateError as Cert;
    match error {
        rustls::Error::InvalidCertificate(fault) => match fault {
            Cert::Expired | Cert::ExpiredContext { .. } => "its certificate has expired",
            Cert::NotValidYet | Cert::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            Cert::NotValidForName | Cert::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            Cert::UnknownIssuer => "its certificate is of an unknown authority",
            Cert::Revoked => "its certificate is revoked",
            _ => "its certificate is not valid",
        },
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it does not speak the HTTP version needed"
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
        | rustls::Error::PeerIncompatible(_) => "it has no version or cipher of TLS in common",
        rustls::Error::AlertReceived(_) => "it refused the handshake",
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        _ => "the handshake failed",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Protocol, TransportConfig};

    /// A failing handshake, which has looked at the files if it could.
    async fn handshake(client: &Arc<TlsClient>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let tcp = TcpStream::connect(listener.local_addr().expect("bound")).await;
        drop(listener);
        assert!(client.handshake(tcp.expect("listening")).await.is_err(), "nobody answers");
    }

    /// Faults 121.
    #[tokio::test]
    async fn files_are_looked_at_by_one_connection_at_a_time_and_the_others_do_not_wait() {
        let authority = rcgen::generate_simple_self_signed(vec![]).expect("a certificate");
        let path: PathBuf =
            std::env::temp_dir().join(format!("spanwire-{}-reload.pem", std::process::id()));
        std::fs::write(&path, authority.cert.pem()).expect("written");
        let settings = Tls::new().ca(Pem::File(path.clone()));
        let config = TransportConfig::new(Protocol::Grpc, "https://localhost").expect("has TLS");
        let roots = Roots::of(&config.tls(settings.clone())).expect("none needed");
        let client = TlsClient::new(&settings, &roots, "localhost", false).expect("usable");
        std::fs::remove_file(&path).expect("was there");

        let slow = Arc::clone(&client.reloading).acquire_owned().await.expect("never closed");
        handshake(&client).await;
        assert!(client.unused_files().is_none(), "somebody else looks at them");
        drop(slow);
        handshake(&client).await;
        assert!(client.unused_files().is_some(), "one that is gone");
    }
}
