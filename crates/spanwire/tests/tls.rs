//! Mutual TLS from the standard variables to a server that asks for it, over both protocols.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use spanwire::{Client, Diagnostics};
use spanwire_receiver::{Accepted, Received, Receiver};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

const LONG: Duration = Duration::from_secs(30);

/// An authority with a certificate for the server and one for the client, as files.
struct Certificates {
    folder: std::path::PathBuf,
    server: Arc<ServerConfig>,
}

impl Certificates {
    fn new(alpn: &str) -> Self {
        let name = format!("spanwire-tls-{}-{}", std::process::id(), alpn.replace('/', "-"));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder of its own");
        let write = |name: &str, text: String| {
            fs::write(folder.join(name), text).expect("room for a file");
        };
        let params = |hosts: &[&str]| {
            let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
            CertificateParams::new(hosts).expect("host names")
        };

        let ca_key = KeyPair::generate().expect("randomness");
        let mut ca_params = params(&[]);
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = ca_params.self_signed(&ca_key).expect("a certificate");
        write("ca.pem", ca.pem());
        let issuer = Issuer::new(ca_params, ca_key);

        let client_key = KeyPair::generate().expect("randomness");
        let client = params(&[]).signed_by(&client_key, &issuer).expect("a certificate");
        write("client.pem", client.pem());
        write("client.key", client_key.serialize_pem());

        let server_key = KeyPair::generate().expect("randomness");
        let server = params(&["127.0.0.1"]).signed_by(&server_key, &issuer).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let key = PrivatePkcs8KeyDer::from(server_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("has them")
            .with_client_cert_verifier(clients.build().expect("has roots"))
            .with_single_cert(vec![server.der().clone()], key.into())
            .expect("they belong together");
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Self { folder, server: Arc::new(config) }
    }

    fn path(&self, name: &str) -> OsString {
        self.folder.join(name).into()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // Nothing depends on it: the system clears its temporary files.
        let _left = fs::remove_dir_all(&self.folder);
    }
}

/// Takes TLS off what comes in and passes it on to `upstream`; returns where it listens.
async fn terminate(config: Arc<ServerConfig>, upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        while let Ok((peer, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A peer without a certificate ends here.
                let Ok(mut peer) = acceptor.accept(peer).await else { return };
                let mut upstream = TcpStream::connect(upstream).await.expect("the receiver");
                let _ended = tokio::io::copy_bidirectional(&mut peer, &mut upstream).await;
            });
        }
    });
    address
}

/// Faults 120, 121. Pitfall 23.
#[test]
fn mutual_tls_works_from_the_standard_variables_and_fails_closed_without_them() {
    let runtime = Runtime::new().expect("a runtime");
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    let sink = move |received: Received| {
        count.fetch_add(received.spans, Ordering::Relaxed);
        std::future::ready(Ok(Accepted::default()))
    };
    let localhost = SocketAddr::from(([127, 0, 0, 1], 0));
    let receiver = Receiver::builder().grpc(localhost).http(localhost).bind(sink);
    let receiver = runtime.block_on(receiver).expect("free ports");
    let upstreams = [
        ("grpc", "h2", "", receiver.grpc_address()),
        ("http/protobuf", "http/1.1", "https://", receiver.http_address()),
    ];
    for (protocol, alpn, scheme, upstream) in upstreams {
        let certificates = Certificates::new(alpn);
        let server = Arc::clone(&certificates.server);
        let address = runtime.block_on(terminate(server, upstream.expect("bound")));
        let variables: HashMap<&str, OsString> = [
            // Without a scheme gRPC is secure, by the specification.
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{scheme}{address}").into()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.into()),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.path("ca.pem")),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificates.path("client.pem")),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.path("client.key")),
        ]
        .into();
        let with = |left_out: &'static str| {
            let variables = variables.clone();
            let client = Client::builder()
                .environment_from(move |name| {
                    variables.get(name).filter(|_| !name.contains(left_out)).cloned()
                })
                .diagnostics(Diagnostics::off())
                .build()
                .expect("valid");
            client.tracer("tls").start("span").end();
            client
        };

        let before = arrived.load(Ordering::Relaxed);
        let client = with("NOTHING");
        assert!(client.flush_blocking(LONG).complete, "{protocol}: {:?}", client.stats());
        assert_eq!(client.stats().exported, 1, "{protocol}: {:?}", client.stats());
        assert_eq!(arrived.load(Ordering::Relaxed), before + 1);

        let client = with("CLIENT");
        assert!(!client.flush_blocking(Duration::from_secs(1)).complete, "{protocol}");
        let stats = client.stats();
        assert!(stats.failures > 0 && stats.is_balanced(), "{protocol}: {stats:?}");
        assert!(!client.shutdown_blocking(Duration::ZERO).complete);
        assert_eq!(arrived.load(Ordering::Relaxed), before + 1, "nothing without a certificate");
    }
}
