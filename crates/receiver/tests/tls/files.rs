//! Certificates in files that are wrong, or change.

use std::path::PathBuf;

use spanwire_receiver::{BindError, Pem, Receiver, ServerTls};

use crate::pki::{Authority, Folder, Leaf};
use crate::support::*;
use crate::{H2, grpc_sends, serving};

/// Why such TLS cannot be served.
async fn refusal(tls: ServerTls) -> String {
    let any = "127.0.0.1:0".parse().expect("an address");
    let bound = Receiver::builder().http(any).http_tls(tls).bind(take_all).await;
    let error = bound.expect_err("cannot be used");
    assert!(matches!(error, BindError::Tls(_)), "{error:?}");
    let cause = std::error::Error::source(&error).expect("has a cause");
    format!("{error}: {cause}")
}

/// Faults 121.
#[tokio::test]
async fn a_file_that_is_missing_or_wrong_is_named_when_the_receiver_is_bound() {
    let folder = Folder::new("wrong");
    let ours = Authority::new("ours");
    let leaf = ours.server();
    let missing = Pem::File(folder.0.join("missing.pem"));
    let path = |name: &str| folder.0.join(name).display().to_string();
    let chain = folder.put("server.pem", &leaf.pem());
    let key = folder.put("server.key", &leaf.key_pem());

    let text = refusal(ServerTls::new(missing.clone(), key.clone())).await;
    let expected = format!("server certificate in {}: No such", path("missing.pem"));
    assert!(text.starts_with(&expected), "{text}");
    let text = refusal(ServerTls::new(chain.clone(), chain.clone())).await;
    assert_eq!(
        text,
        format!("server key in {}: holds no PEM of a private key", path("server.pem"))
    );
    let text = refusal(ServerTls::new(key.clone(), key.clone())).await;
    assert_eq!(text, format!("server certificate in {}: holds no certificate", path("server.key")));
    let broken = Pem::Bytes(b"-----BEGIN CERTIFICATE-----\n".to_vec());
    let text = refusal(ServerTls::new(broken, key.clone())).await;
    assert_eq!(text, "server certificate in the bytes given: is not valid PEM");
    let other = folder.put("other.key", &ours.server().key_pem());
    let text = refusal(ServerTls::new(chain.clone(), other)).await;
    let expected = format!("server certificate in {}: ", path("server.pem"));
    assert!(text.starts_with(&expected), "{text}");

    let tls = ServerTls::new(chain, key);
    let text = refusal(tls.clone().client_ca(missing)).await;
    let expected = format!("client CA certificates in {}: No such", path("missing.pem"));
    assert!(text.starts_with(&expected), "{text}");
    let text = refusal(tls.client_ca(folder.put("ca.pem", ""))).await;
    assert_eq!(text, format!("client CA certificates in {}: holds no certificate", path("ca.pem")));
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_file_or_too_large_a_one_is_not_read() {
    let folder = Folder::new("no-file");
    let pipe = folder.0.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("a system with pipes").success());
    let key = Pem::Bytes(Vec::new());
    for path in [pipe, folder.0.clone(), PathBuf::from("/dev/zero")] {
        let text = refusal(ServerTls::new(Pem::File(path), key.clone())).await;
        assert!(text.ends_with("not a regular file"), "{text}");
    }
    let large = folder.put("large.pem", &"x".repeat((4 << 20) + 1));
    let text = refusal(ServerTls::new(large, key)).await;
    assert!(text.contains("larger than"), "{text}");
}

/// Faults 121.
#[tokio::test]
async fn a_certificate_replaced_on_disk_is_shown_to_the_next_connection() {
    let folder = Folder::new("rotated");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let receiver = serving(folder.server(&old.server())).await;
    assert!(grpc_sends(&receiver, old.trusted_by_client(H2, None)).await);
    folder.put_server(&new.server());
    assert!(grpc_sends(&receiver, new.trusted_by_client(H2, None)).await);
    assert!(!grpc_sends(&receiver, old.trusted_by_client(H2, None)).await);
}

/// Faults 121.
#[tokio::test]
async fn a_client_ca_replaced_on_disk_counts_for_the_next_connection() {
    let folder = Folder::new("client-ca");
    let (ours, old, new) = (Authority::new("ours"), Authority::new("old"), Authority::new("new"));
    let client_ca = folder.put("ca.pem", &old.pem());
    let receiver = serving(folder.server(&ours.server()).client_ca(client_ca)).await;
    let (old_client, new_client) = (old.client(), new.client());
    let sends = async |leaf: &Leaf| {
        // A new one each time, so that no session can be resumed.
        grpc_sends(&receiver, ours.trusted_by_client(H2, Some(leaf))).await
    };
    assert!(sends(&old_client).await);
    assert!(!sends(&new_client).await);
    let resuming = ours.trusted_by_client(H2, Some(&old_client));
    assert!(grpc_sends(&receiver, resuming.clone()).await);
    folder.put("ca.pem", &new.pem());
    assert!(sends(&new_client).await);
    assert!(!sends(&old_client).await);
    assert!(!grpc_sends(&receiver, resuming).await, "not by its old session either");
}

/// Faults 121.
#[tokio::test]
async fn half_a_file_changes_nothing_and_is_told() {
    let folder = Folder::new("half");
    let ours = Authority::new("ours");
    let receiver = serving(folder.server(&ours.server())).await;
    let sends = async || grpc_sends(&receiver, ours.trusted_by_client(H2, None)).await;
    assert!(sends().await);
    assert!(receiver.unused_tls_files().is_empty());

    let next = ours.server();
    let path = folder.0.join("server.pem").display().to_string();
    for half in [&next.pem()[..100], "", "not PEM", &next.pem()] {
        folder.put("server.pem", half);
        assert!(sends().await, "{half}");
        let unused = receiver.unused_tls_files();
        assert_eq!(unused.len(), 1, "{half}");
        assert_eq!(unused[0].to_string(), format!("server certificate in {path}"));
    }
    std::fs::remove_file(folder.0.join("server.pem")).expect("was there");
    assert!(sends().await);
    assert_eq!(receiver.unused_tls_files().len(), 1);
    folder.put_server(&next);
    assert!(sends().await);
    assert!(receiver.unused_tls_files().is_empty());
}

/// Faults 121.
#[tokio::test]
async fn files_are_left_alone_for_the_interval_that_was_set() {
    let folder = Folder::new("interval");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = folder.server(&old.server()).reload_interval(std::time::Duration::from_hours(1));
    let receiver = serving(tls).await;
    folder.put_server(&new.server());
    assert!(grpc_sends(&receiver, old.trusted_by_client(H2, None)).await);
}
