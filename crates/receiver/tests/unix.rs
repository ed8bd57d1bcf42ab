//! Sockets of the Unix domain.
#![cfg(unix)]

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use spanwire_receiver::{BindError, Receiver, UnixSocket};
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const LONG: Duration = Duration::from_secs(10);

/// A folder that is removed with its files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spanwire-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn serving(grpc: &Path, http: &Path) -> Result<Receiver, BindError> {
    Receiver::builder().grpc_unix(grpc).http_unix(http).bind(take_all).await
}

/// Sends `bytes` and reads to the end of what comes back.
async fn exchange(path: &Path, bytes: &[u8]) -> String {
    let mut unix = UnixStream::connect(path).await.expect("it listens");
    unix.write_all(bytes).await.expect("open");
    unix.shutdown().await.expect("open");
    let mut answer = Vec::new();
    soon(unix.read_to_end(&mut answer)).await.expect("an orderly end");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn tonic_sends(path: &Path) -> bool {
    let uri = format!("unix://{}", path.display());
    let channel = tonic::transport::Endpoint::new(uri).expect("a path").connect().await;
    let mut client = TraceServiceClient::new(channel.expect("it listens"));
    soon(client.export(request(3))).await.is_ok()
}

#[tokio::test]
async fn both_transports_are_served_on_sockets_of_the_unix_domain() {
    let folder = Folder::new("both");
    let (grpc, http) = (folder.path("grpc"), folder.path("http"));
    let receiver = serving(&grpc, &http).await.expect("free paths");
    assert!(tonic_sends(&grpc).await);
    let answer = exchange(&http, &[head(PROTOBUF, wire(2).len()), wire(2)].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // HTTP/2 is told by its preface here too, however it comes.
    let unix = UnixStream::connect(&http).await.expect("it listens");
    let (client, connection) = h2::client::handshake(unix).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut http2 = Http2(client);
    let headers = [("content-type", "application/x-protobuf")];
    let mut stream = http2.open("/v1/traces", &headers).await;
    stream.data(&wire(5), true);
    assert_eq!(stream.answer().await.http_status, 200);

    let stats = receiver.stats();
    assert_eq!((stats.grpc.spans_accepted, stats.http.spans_accepted), (3, 7));
    assert_eq!((receiver.grpc_addresses(), receiver.http_address()), (&[][..], None));
    drop(http2);
    assert_eq!(receiver.shutdown(LONG).await.connections_cut, 0);
}

#[tokio::test]
async fn a_preface_that_dribbles_in_is_heard_out_and_half_a_one_is_no_request() {
    let folder = Folder::new("dribble");
    let http = folder.path("http");
    let receiver = serving(&folder.path("grpc"), &http).await.expect("free paths");
    let mut unix = UnixStream::connect(&http).await.expect("it listens");
    for byte in b"POST" {
        unix.write_all(&[*byte]).await.expect("open");
        tokio::task::yield_now().await;
    }
    let rest = [&head(PROTOBUF, wire(2).len())[4..], &wire(2)].concat();
    unix.write_all(&rest).await.expect("open");
    unix.shutdown().await.expect("open");
    let mut answer = Vec::new();
    soon(unix.read_to_end(&mut answer)).await.expect("an orderly end");
    assert!(answer.starts_with(b"HTTP/1.1 200 "));

    assert_eq!(exchange(&http, b"PR").await, "");
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(receiver.stats().connections_failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_are_removed_with_the_receiver() {
    let folder = Folder::new("removed");
    let (grpc, http) = (folder.path("grpc"), folder.path("http"));
    let receiver = serving(&grpc, &http).await.expect("free paths");
    assert!(grpc.exists() && http.exists());
    receiver.shutdown(LONG).await;
    assert!(!grpc.exists() && !http.exists());
}

#[tokio::test]
async fn a_file_that_another_has_put_there_meanwhile_stays() {
    let folder = Folder::new("replaced");
    let path = folder.path("grpc");
    let first = UnixSocket::bind(&path).await.expect("a free path");
    // Kept, so that the next file cannot be told by its number that this one had.
    std::fs::rename(&path, folder.path("aside")).expect("there");
    let second = UnixSocket::bind(&path).await.expect("a free path");
    drop(first);
    UnixStream::connect(&path).await.expect("the second one listens");
    assert_eq!(second.path(), path);
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_nobody_answers_on_is_replaced() {
    let folder = Folder::new("stale");
    let (grpc, http) = (folder.path("grpc"), folder.path("http"));
    for path in [&grpc, &http] {
        // Closed without removing its file, as a process that is killed leaves it.
        drop(std::os::unix::net::UnixListener::bind(path).expect("a free path"));
    }
    let receiver = serving(&grpc, &http).await.expect("only stale files");
    assert!(tonic_sends(&grpc).await);
    drop(receiver);
}

/// Faults 165.
#[tokio::test]
async fn what_else_is_at_the_path_stays_and_is_an_error() {
    let folder = Folder::new("taken");
    let listening = folder.path("listening");
    let receiver = serving(&listening, &folder.path("http")).await.expect("free paths");
    let (file, link) = (folder.path("file"), folder.path("link"));
    std::fs::write(&file, "precious").expect("written");
    let stale = folder.path("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("a free path"));
    std::os::unix::fs::symlink(&stale, &link).expect("a link");
    for taken in [&listening, &file, &link] {
        let error = UnixSocket::bind(taken).await.expect_err("taken");
        match &error {
            BindError::Unix { path, source } => {
                assert_eq!((path, source.kind()), (taken, io::ErrorKind::AddrInUse));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(error.to_string(), format!("cannot bind {}", taken.display()));
    }
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
    assert!(link.is_symlink() && stale.exists());
    assert!(tonic_sends(&listening).await, "undisturbed");
    let missing = folder.path("missing/grpc");
    assert!(UnixSocket::bind(&missing).await.is_err());
    drop(receiver);
}

/// Faults 162.
#[tokio::test]
async fn a_receiver_hands_its_socket_over_without_its_file_going_away() {
    let folder = Folder::new("handover");
    let path = folder.path("grpc");
    let socket = UnixSocket::bind(&path).await.expect("a free path");
    let serving = async |socket: &UnixSocket| {
        Receiver::builder().grpc_unix_socket(socket.clone()).bind(take_all).await.expect("given")
    };
    let old = serving(&socket).await;
    assert!(tonic_sends(&path).await);
    let new = serving(&socket).await;
    old.shutdown(LONG).await;
    for _ in 0..3 {
        assert!(tonic_sends(&path).await);
    }
    assert_eq!(new.stats().connections_accepted, 3);
    drop(socket);
    new.shutdown(LONG).await;
    assert!(!path.exists());
}
