//! TLS of both ports, in builds that have it, against clients of rustls and tonic.
#![cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]

mod files;
mod pki;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use pki::{Authority, Leaf};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use spanwire_receiver::{Builder, Pem, Receiver, ServerTls, TlsVersion};
use support::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

const LONG: Duration = Duration::from_secs(10);
const BOTH: &[&str] = &["h2", "http/1.1"];
const H2: &[&str] = &["h2"];

/// Both ports with this TLS.
async fn serving(tls: ServerTls) -> Receiver {
    serving_with(tls, |builder| builder).await
}

async fn serving_with(tls: ServerTls, settings: impl FnOnce(Builder) -> Builder) -> Receiver {
    start_with(take_all, |builder| settings(builder.grpc_tls(tls.clone()).http_tls(tls))).await
}

async fn handshake<I>(io: I, config: ClientConfig) -> std::io::Result<TlsStream<I>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    soon(TlsConnector::from(Arc::new(config)).connect(name, io)).await
}

async fn connect(
    address: Option<std::net::SocketAddr>,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address.expect("served")).await.expect("it listens");
    handshake(tcp, config).await
}

/// Whether a request by gRPC is taken over such a connection.
async fn grpc_sends(receiver: &Receiver, config: ClientConfig) -> bool {
    let Ok(io) = connect(receiver.grpc_address(), config).await else { return false };
    let Ok((client, connection)) = h2::client::handshake(io).await else { return false };
    let connection = tokio::spawn(connection);
    // In TLS 1.3 a client learns only now that its certificate is not trusted.
    let Ok(client) = client.ready().await else { return false };
    let mut client = client;
    let call = http::Request::post(format!("https://127.0.0.1{EXPORT}"))
        .header("content-type", "application/grpc");
    let sent = client.send_request(call.body(()).expect("a request"), false);
    let Ok((response, mut send)) = sent else { return false };
    let _ = send.send_data(framed(0, &wire(1)).into(), true);
    let Ok(response) = soon(response).await else { return false };
    let mut body = response.into_body();
    while let Some(Ok(_)) = body.data().await {}
    let taken =
        matches!(body.trailers().await, Ok(Some(trailers)) if trailers["grpc-status"] == "0");
    drop((client, body, send));
    let _ = soon(connection).await;
    taken
}

/// What HTTP/1.1 answers over such a connection, which must end with TLS's own goodbye.
async fn http_answers(io: &mut TlsStream<TcpStream>, body: &[u8]) -> String {
    let head = head(&format!("{PROTOBUF}Connection: close\r\n"), body.len());
    io.write_all(&[&head, body].concat()).await.expect("open");
    let mut answer = Vec::new();
    soon(io.read_to_end(&mut answer)).await.expect("not cut off");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn tonic_sends(receiver: &Receiver, trusted: &Authority, identity: Option<&Leaf>) -> bool {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted.pem()));
    if let Some(leaf) = identity {
        tls = tls.identity(Identity::from_pem(leaf.pem(), leaf.key_pem()));
    }
    let uri = format!("https://{}", receiver.grpc_address().expect("served"));
    let channel = tonic::transport::Channel::from_shared(uri).expect("a URI").tls_config(tls);
    let Ok(channel) = channel.expect("usable").connect().await else { return false };
    soon(TraceServiceClient::new(channel).export(request(3))).await.is_ok()
}

#[tokio::test]
async fn both_ports_are_served_over_tls_to_every_protocol_that_alpn_can_name() {
    let ours = Authority::new("ours");
    let receiver = serving(ours.server().tls()).await;
    assert!(tonic_sends(&receiver, &ours, None).await);
    // Without ALPN there is nothing to choose, and nothing is chosen on the gRPC port.
    for alpn in [H2, BOTH, &[]] {
        assert!(grpc_sends(&receiver, ours.trusted_by_client(alpn, None)).await, "{alpn:?}");
    }
    for (alpn, negotiated) in [
        (BOTH, Some(&b"h2"[..])),
        (H2, Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let config = ours.trusted_by_client(alpn, None);
        let mut io = connect(receiver.http_address(), config).await.expect("trusted");
        assert_eq!(io.get_ref().1.alpn_protocol(), negotiated, "{alpn:?}");
        if negotiated == Some(b"h2") {
            let (client, connection) = h2::client::handshake(io).await.expect("HTTP/2");
            tokio::spawn(connection);
            let headers = [("content-type", "application/x-protobuf")];
            let mut stream = Http2(client).open("/v1/traces", &headers).await;
            stream.data(&wire(1), true);
            assert_eq!(stream.answer().await.http_status, 200);
        } else {
            let answer = http_answers(&mut io, &wire(1)).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }
    until(|| receiver.stats().connections_open == 0).await;
    let stats = receiver.stats();
    assert_eq!((stats.grpc.requests_accepted, stats.http.requests_accepted), (4, 4));
    assert_eq!((stats.connections_failed, stats.tls_handshakes_failed), (0, 0));
}

#[tokio::test]
async fn large_bodies_pass_byte_for_byte_and_refused_ones_hear_why() {
    let ours = Authority::new("ours");
    let (sink, mut requests) = spanwire_receiver::channel(8);
    let tls = ours.server().tls();
    let receiver = start_with(sink, |builder| {
        builder.http_tls(tls.clone()).grpc_tls(tls).http_request_bytes_max(8 << 20)
    })
    .await;
    let body = wire(50_000);
    let http1 = || connect(receiver.http_address(), ours.trusted_by_client(&["http/1.1"], None));
    let answer = http_answers(&mut http1().await.expect("trusted"), &body).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(soon(requests.recv()).await.expect("in the queue").request, body);
    // Sent whole before anything is read, as some clients do.
    let answer = http_answers(&mut http1().await.expect("trusted"), &vec![0; 9 << 20]).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 120.
#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_stays_away_and_is_counted() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let receiver = serving(ours.server().tls()).await;
    assert!(receiver.last_tls_failure().is_none());
    for address in [receiver.grpc_address(), receiver.http_address()] {
        assert!(connect(address, theirs.trusted_by_client(H2, None)).await.is_err());
    }
    until(|| receiver.stats().tls_handshakes_failed == 2).await;
    let failure = receiver.last_tls_failure().expect("one of them").to_string();
    assert!(failure.contains("UnknownCA"), "{failure}");
    assert!(grpc_sends(&receiver, ours.trusted_by_client(H2, None)).await);
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(receiver.stats().connections_failed, 2);
}

/// Faults 120, 121.
#[tokio::test]
async fn with_a_client_ca_only_its_own_get_in() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let client_ca = Pem::Bytes(ours.pem().into_bytes());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let receiver = serving(ours.server().tls().client_ca(client_ca.clone())).await;
        let (known, strange, old) = (ours.client(), theirs.client(), ours.old_client());
        for (identity, gets_in) in
            [(Some(&known), true), (None, false), (Some(&strange), false), (Some(&old), false)]
        {
            let config = ours.trusted_by_client_of(&[version], H2, identity);
            assert_eq!(grpc_sends(&receiver, config).await, gets_in, "{version:?}");
        }
        until(|| receiver.stats().tls_handshakes_failed == 3).await;
        assert_eq!(receiver.stats().grpc.requests_accepted, 1);
        assert!(tonic_sends(&receiver, &ours, Some(&known)).await);
        assert!(!tonic_sends(&receiver, &ours, Some(&strange)).await);
        let config = ours.trusted_by_client(&["http/1.1"], Some(&known));
        let mut io = connect(receiver.http_address(), config).await.expect("trusted");
        assert!(http_answers(&mut io, &wire(1)).await.starts_with("HTTP/1.1 200 "));
    }
}

/// Faults 120.
#[tokio::test]
async fn the_oldest_version_is_1_2_unless_it_is_1_3() {
    let ours = Authority::new("ours");
    for (oldest, speaks_1_2) in [(TlsVersion::V1_2, true), (TlsVersion::V1_3, false)] {
        let receiver = serving(ours.server().tls().min_version(oldest)).await;
        for (version, is_spoken) in
            [(&rustls::version::TLS12, speaks_1_2), (&rustls::version::TLS13, true)]
        {
            let config = ours.trusted_by_client_of(&[version], H2, None);
            assert_eq!(grpc_sends(&receiver, config).await, is_spoken, "{oldest:?} {version:?}");
        }
    }
}

/// Faults 120.
#[tokio::test]
async fn a_client_of_other_protocols_only_is_refused_by_alpn() {
    let ours = Authority::new("ours");
    let receiver = serving(ours.server().tls()).await;
    for (address, alpn) in
        [(receiver.grpc_address(), "http/1.1"), (receiver.http_address(), "spdy/1")]
    {
        let refused = connect(address, ours.trusted_by_client(&[alpn], None)).await;
        let error = refused.expect_err("nothing in common").to_string();
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    }
    until(|| receiver.stats().tls_handshakes_failed == 2).await;
}

/// Faults 73.
#[tokio::test]
async fn bytes_that_are_not_tls_end_their_connection_and_no_other() {
    let ours = Authority::new("ours");
    let receiver = serving(ours.server().tls()).await;
    let plain_http = [head(PROTOBUF, wire(1).len()), wire(1)].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let mut failed = 0;
    for bytes in [plain_http, preface, vec![0; 100], vec![0xFF; 1000]] {
        for address in [receiver.grpc_address(), receiver.http_address()] {
            let mut tcp = TcpStream::connect(address.expect("served")).await.expect("it listens");
            tcp.write_all(&bytes).await.expect("open");
            let mut answer = Vec::new();
            // Whether it ends with an alert or a reset is the protocol's affair, but not in HTTP.
            let _ = soon(tcp.read_to_end(&mut answer)).await;
            assert!(!answer.starts_with(b"HTTP"), "nothing is answered in the clear");
            failed += 1;
            until(|| receiver.stats().tls_handshakes_failed == failed).await;
        }
    }
    // A look whether the port is open is no failure.
    drop(TcpStream::connect(receiver.grpc_address().expect("served")).await.expect("it listens"));
    until(|| receiver.stats().connections_accepted == failed + 1).await;
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(receiver.stats().tls_handshakes_failed, failed);
    assert_eq!(receiver.stats().connections_failed, failed);
    assert_eq!(receiver.stats().http.refused_in_all().requests, 0);
    assert!(grpc_sends(&receiver, ours.trusted_by_client(H2, None)).await);
}

/// Faults 67, 122.
#[tokio::test]
async fn a_handshake_that_stalls_is_given_up_and_counted() {
    let ours = Authority::new("ours");
    let receiver = serving_with(ours.server().tls(), |builder| {
        builder.header_read_timeout(Duration::from_millis(50))
    })
    .await;
    let mut tcp = TcpStream::connect(receiver.http_address().expect("served")).await.expect("open");
    // The start of a record of a handshake.
    tcp.write_all(b"\x16\x03\x01\x00\xC4\x01").await.expect("open");
    assert_eq!(soon(tcp.read(&mut [0; 100])).await.unwrap_or(0), 0);
    until(|| receiver.stats().tls_handshakes_failed == 1).await;
    let failure = receiver.last_tls_failure().expect("that one");
    assert_eq!(failure.kind(), std::io::ErrorKind::TimedOut);
    // And one that is done, after which nothing comes.
    let config = ours.trusted_by_client(H2, None);
    let silent = connect(receiver.grpc_address(), config).await.expect("trusted");
    until(|| receiver.stats().connections_failed == 2).await;
    assert_eq!(receiver.stats().tls_handshakes_failed, 1);
    drop(silent);
}

/// Faults 79.
#[tokio::test]
async fn a_peer_that_reads_nothing_is_cut_off_over_tls_too() {
    let ours = Authority::new("ours");
    let receiver = serving_with(ours.server().tls(), |builder| {
        builder.write_timeout(Duration::from_millis(100))
    })
    .await;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("small is allowed");
    let tcp = socket.connect(receiver.http_address().expect("served")).await.expect("it listens");
    let io = handshake(tcp, ours.trusted_by_client(&["http/1.1"], None)).await.expect("trusted");
    let (_unread, mut write) = tokio::io::split(io);
    let not_found = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".repeat(1000);
    soon(async { while write.write_all(not_found.as_bytes()).await.is_ok() {} }).await;
    until(|| receiver.stats().connections_failed == 1).await;
}

/// Faults 90.
#[tokio::test]
async fn a_shutdown_ends_connections_over_tls_in_order() {
    let ours = Authority::new("ours");
    let (gate, mut arrivals, answers) = Gate::new();
    let tls = ours.server().tls();
    let receiver = start_with(gate, |builder| builder.grpc_tls(tls.clone()).http_tls(tls)).await;
    let config = ours.trusted_by_client(&["http/1.1"], None);
    let mut busy = connect(receiver.http_address(), config.clone()).await.expect("trusted");
    busy.write_all(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await.expect("open");
    assert_eq!(soon(arrivals.recv()).await, Some(1));
    let mut silent = connect(receiver.http_address(), config).await.expect("trusted");
    // In the middle of its handshake.
    let mut half =
        TcpStream::connect(receiver.http_address().expect("served")).await.expect("open");
    half.write_all(b"\x16\x03\x01\x00\xC4\x01").await.expect("open");
    until(|| receiver.stats().connections_open == 3).await;

    let begun = Instant::now();
    let (shutdown, answer) = tokio::join!(receiver.shutdown(LONG), async {
        answers.add_permits(1);
        let mut answer = Vec::new();
        soon(busy.read_to_end(&mut answer)).await.expect("not cut off");
        answer
    });
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(shutdown.connections_cut, 0);
    assert!(begun.elapsed() < LONG / 2);
    let _ = soon(silent.read(&mut [0; 1])).await;
    assert_eq!(receiver.stats().connections_open, 0);
}

#[tokio::test]
async fn one_port_can_have_tls_and_the_other_none() {
    let ours = Authority::new("ours");
    let receiver = start_with(take_all, |builder| builder.grpc_tls(ours.server().tls())).await;
    assert!(tonic_sends(&receiver, &ours, None).await);
    assert_eq!(post(&receiver, PROTOBUF, &wire(1)).await.status, 200);
}

#[cfg(unix)]
#[tokio::test]
async fn sockets_of_the_unix_domain_have_the_tls_of_their_port() {
    let ours = Authority::new("ours");
    let folder = pki::Folder::new("unix");
    let path = folder.0.join("grpc");
    let receiver = Receiver::builder()
        .grpc_unix(&path)
        .grpc_tls(ours.server().tls())
        .bind(take_all)
        .await
        .expect("a free path");
    let unix = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    let io = handshake(unix, ours.trusted_by_client(H2, None)).await.expect("trusted");
    let (client, connection) = h2::client::handshake(io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut http2 = Http2(client);
    assert_eq!(http2.call(&[], &framed(0, &wire(1))).await.code, 0);
    assert_eq!(receiver.stats().grpc.requests_accepted, 1);
}
