//! TLS of one port: its configuration, kept up with the files it came from.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::files::{CHAIN, CLIENT_CA, Material, unusable};
use super::{InvalidTls, ServerTls, TlsVersion};
use crate::peer::Io;
use crate::sink::Transport;

/// Makes accepted connections into connections of TLS.
pub(crate) struct TlsServer {
    settings: ServerTls,
    transport: Transport,
    /// One thread at a time looks at the files, however long the disk takes.
    looking: Arc<Semaphore>,
    state: Mutex<State>,
    failure: Mutex<Option<Failure>>,
}

struct State {
    config: Arc<ServerConfig>,
    fingerprint: u64,
    looked_at: Instant,
    /// Why the files as they are now are not used.
    unused: Option<Arc<InvalidTls>>,
}

/// When a handshake failed last, and why.
type Failure = (Instant, Arc<io::Error>);

impl TlsServer {
    /// Reads the certificates. Blocks on the disk.
    pub(crate) fn new(settings: ServerTls, transport: Transport) -> Result<Self, InvalidTls> {
        let looked_at = Instant::now();
        let material = Material::read(&settings)?;
        let config = server_config(&settings, &material, transport)?;
        let fingerprint = material.fingerprint();
        let state = Mutex::new(State { config, fingerprint, looked_at, unused: None });
        let looking = Arc::new(Semaphore::new(1));
        Ok(Self { settings, transport, looking, state, failure: Mutex::new(None) })
    }

    /// The handshake on a new connection, with the certificates of this moment.
    pub(crate) async fn handshake<I: Io>(self: &Arc<Self>, io: I) -> io::Result<TlsStream<I>> {
        // While another connection looks at them, what was read before is good enough.
        if self.is_due()
            && let Ok(turn) = Arc::clone(&self.looking).try_acquire_owned()
        {
            let this = Arc::clone(self);
            let looking = tokio::task::spawn_blocking(move || {
                this.look();
                // Held to here even if nobody waits any more.
                drop(turn);
            });
            // A disk that does not answer keeps nobody out.
            let _ = timeout(LOOK_MAX, looking).await;
        }
        let config = Arc::clone(&self.lock().config);
        TlsAcceptor::from(config).accept(io).await
    }

    /// Notes that a handshake failed.
    pub(crate) fn failed(&self, error: io::Error) {
        let failure = (Instant::now(), Arc::new(error));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// The last handshake that failed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the files as they were when they were last looked at are not used.
    pub(crate) fn unused_files(&self) -> Option<Arc<InvalidTls>> {
        self.lock().unused.clone()
    }

    fn is_due(&self) -> bool {
        self.settings.has_files()
            && self.lock().looked_at.elapsed() >= self.settings.reload_interval
    }

    /// Takes what is in the files now, if it can be used. Blocks on the disk.
    fn look(&self) {
        let looked_at = Instant::now();
        let material = Material::read(&self.settings);
        let fingerprint = material.as_ref().map(Material::fingerprint).ok();
        // An unchanged configuration stays, with the sessions that may be resumed.
        if fingerprint == Some(self.lock().fingerprint) {
            let mut state = self.lock();
            state.looked_at = looked_at;
            state.unused = None;
            return;
        }
        let config =
            material.and_then(|material| server_config(&self.settings, &material, self.transport));
        let mut state = self.lock();
        state.looked_at = looked_at;
        match (config, fingerprint) {
            (Ok(config), Some(fingerprint)) => {
                *state = State { config, fingerprint, looked_at, unused: None };
            }
            (Err(error), _) => state.unused = Some(Arc::new(error)),
            // What was read has a fingerprint.
            (Ok(_), None) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each field stands for itself, so a panic leaves none half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn server_config(
    settings: &ServerTls,
    material: &Material,
    transport: Transport,
) -> Result<Arc<ServerConfig>, InvalidTls> {
    let provider = provider();
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| unusable(CHAIN, &settings.chain, error))?;
    let builder = match (material.client_roots(settings)?, &settings.client_ca) {
        (Some(roots), Some(origin)) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| unusable(CLIENT_CA, origin, error))?,
            )
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(material.chain(settings)?, material.key(settings)?)
        .map_err(|error| unusable(CHAIN, &settings.chain, error))?;
    config.alpn_protocols = match transport {
        Transport::Grpc => vec![H2.to_vec()],
        Transport::Http => vec![H2.to_vec(), b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

/// What the process installed, else what the features name.
fn provider() -> Arc<CryptoProvider> {
    match CryptoProvider::get_default() {
        Some(provider) => Arc::clone(provider),
        #[cfg(feature = "tls-ring")]
        None => Arc::new(rustls::crypto::ring::default_provider()),
        #[cfg(all(feature = "tls-aws-lc", not(feature = "tls-ring")))]
        None => Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    }
}

/// The name of HTTP/2 in ALPN, RFC 9113 section 3.2.
pub(crate) const H2: &[u8] = b"h2";

/// Ten times what a slow disk takes for a few kilobytes.
const LOOK_MAX: Duration = Duration::from_secs(1);
