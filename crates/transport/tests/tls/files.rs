//! Certificates in files that are wrong, or change.

use std::path::PathBuf;
use std::time::Duration;

use spanwire_transport::{InvalidConfig, Pem, Protocol, SendError, Tls, Transport};
use tokio::time::Instant;

use crate::pki::{Authority, Leaf};
use crate::support::{Collector, causes, grpc_ok, send_to};
use crate::{BOTH, config, taken, transport};

/// A folder that is removed with its files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spanwire-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Replaces a file at once, as certificate managers do.
    fn put(&self, name: &str, content: &str) -> Pem {
        let (path, new) = (self.0.join(name), self.0.join("new"));
        std::fs::write(&new, content).expect("written");
        std::fs::rename(&new, &path).expect("replaced");
        Pem::File(path)
    }

    fn identity(&self, leaf: &Leaf) -> (Pem, Pem) {
        (self.put("client.pem", &leaf.pem()), self.put("client.key", &leaf.key_pem()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn refusal(tls: Tls) -> String {
    let config = config(Protocol::Grpc, "https://localhost:4317").tls(tls);
    let error = Transport::new(&config).expect_err("cannot be used");
    assert!(matches!(error, InvalidConfig::Pem { .. }), "{error:?}");
    let cause = std::error::Error::source(&error).expect("has a cause");
    format!("{error}: {cause}")
}

/// Faults 121.
#[test]
fn a_file_that_is_missing_or_wrong_is_named_when_the_transport_is_made() {
    let folder = Folder::new("wrong");
    let ours = Authority::new("ours");
    let leaf = ours.client();
    let missing = Pem::File(folder.0.join("missing.pem"));
    let path = |name: &str| folder.0.join(name).display().to_string();

    let text = refusal(Tls::new().ca(missing.clone()));
    assert!(
        text.starts_with(&format!("CA certificates in {}: No such", path("missing.pem"))),
        "{text}"
    );
    let text = refusal(Tls::new().ca(folder.put("ca.pem", "")));
    assert_eq!(text, format!("CA certificates in {}: holds no certificate", path("ca.pem")));
    let text = refusal(Tls::new().ca(Pem::Bytes(b"-----BEGIN CERTIFICATE-----\n".to_vec())));
    assert_eq!(text, "CA certificates in the bytes given: is not valid PEM");
    let text = refusal(Tls::new().ca(folder.put("key.pem", &leaf.key_pem())));
    assert_eq!(text, format!("CA certificates in {}: holds no certificate", path("key.pem")));

    let own_ca = || Tls::new().ca(ours.pem());
    let chain = folder.put("client.pem", &leaf.pem());
    let text = refusal(own_ca().client_certificate(chain.clone(), missing));
    assert!(text.starts_with(&format!("client key in {}: No such", path("missing.pem"))), "{text}");
    let text = refusal(own_ca().client_certificate(chain.clone(), chain.clone()));
    assert_eq!(
        text,
        format!("client key in {}: holds no PEM of a private key", path("client.pem"))
    );
    let other = folder.put("other.key", &ours.client().key_pem());
    let text = refusal(own_ca().client_certificate(chain, other));
    assert!(text.starts_with(&format!("client certificate in {}: ", path("client.pem"))), "{text}");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_or_too_large_a_one_is_not_read() {
    let folder = Folder::new("no-file");
    let pipe = folder.0.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("a system with pipes").success());
    for path in [pipe, folder.0.clone(), PathBuf::from("/dev/zero")] {
        let text = refusal(Tls::new().ca(Pem::File(path)));
        assert!(text.ends_with("not a regular file"), "{text}");
    }
    let large = folder.put("large.pem", &"x".repeat((4 << 20) + 1));
    let text = refusal(Tls::new().ca(large));
    assert!(text.contains("larger than"), "{text}");
}

/// Faults 121.
#[tokio::test]
async fn a_client_certificate_replaced_on_disk_is_shown_on_the_next_connection() {
    let folder = Folder::new("rotated");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = new.server().serve(BOTH, Some(&new));
    let collector = Collector::with_tls(server, |_| std::future::ready(grpc_ok())).await;
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let (chain, key) = folder.identity(&old.client());
        let tls = Tls::new().ca(new.pem()).client_certificate(chain, key);
        let transport = transport(&config(protocol, &collector.https_url()).tls(tls));
        assert!(send_to(&transport).await.is_err(), "the old authority is not trusted any more");
        folder.identity(&new.client());
        taken(&transport).await;
    }
}

/// Faults 121.
#[tokio::test]
async fn a_ca_replaced_on_disk_counts_for_the_next_connection() {
    let folder = Folder::new("ca");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let collector = crate::collector(&new.server(), BOTH).await;
    let pem = |authority: &Authority| match authority.pem() {
        Pem::Bytes(pem) => String::from_utf8(pem).expect("ASCII"),
        Pem::File(path) => panic!("{path:?}"),
    };
    let ca = folder.put("ca.pem", &pem(&old));
    let transport =
        transport(&config(Protocol::Grpc, &collector.https_url()).tls(Tls::new().ca(ca)));
    crate::fails(&transport, "unknown authority").await;
    folder.put("ca.pem", &pem(&new));
    taken(&transport).await;
}

/// Faults 121.
#[tokio::test]
async fn half_a_file_changes_nothing_but_is_told_with_the_next_failure() {
    let folder = Folder::new("half");
    let ours = Authority::new("ours");
    let server = ours.server().serve(BOTH, Some(&ours));
    let collector = Collector::with_tls(server, |_| std::future::ready(grpc_ok())).await;
    let (chain, key) = folder.identity(&ours.client());
    let tls = Tls::new().ca(ours.pem()).client_certificate(chain, key);
    let config = config(Protocol::Grpc, &collector.https_url())
        .tls(tls)
        // A new connection for each request.
        .connection_age_max(Duration::from_nanos(1));
    let transport = transport(&config);
    taken(&transport).await;

    let pem = ours.client().pem();
    for half in [&pem[..pem.len() / 2], "", "not PEM"] {
        folder.put("client.pem", half);
        taken(&transport).await;
    }
    std::fs::remove_file(folder.0.join("client.pem")).expect("was there");
    taken(&transport).await;
    folder.put("client.pem", &pem[..pem.len() / 2]);
    taken(&transport).await;

    let addr = collector.addr;
    drop(collector);
    let deadline = Instant::now() + Duration::from_secs(5);
    let error = loop {
        match send_to(&transport).await {
            Err(SendError::Connect(source)) => break causes(&SendError::Connect(source)),
            _ => assert!(Instant::now() < deadline, "nobody is there"),
        }
    };
    assert!(!error.contains("files replaced"), "no matter of certificates: {error}");

    let theirs = Authority::new("theirs").server().serve(BOTH, None);
    let _collector = Collector::with_tls_on(addr, theirs, |_| std::future::ready(grpc_ok())).await;
    let error = causes(&send_to(&transport).await.expect_err("of an unknown authority"));
    let path = folder.0.join("client.pem").display().to_string();
    assert!(error.contains("files replaced on disk are not used"), "{error}");
    assert!(error.contains(&format!("client certificate in {path}")), "{error}");
}
