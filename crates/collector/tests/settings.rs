//! Settings of a configuration show in what runs.

mod support;

use std::time::{Duration, Instant};

use spanwire_collector::Collector;
use spanwire_transport::Protocol;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_connection_by_http_without_a_request_ends_by_its_idle_timeout() {
    let (destination, _) = destination(takes_all).await;
    let idle = "http: { endpoint: 127.0.0.1:0, idle_timeout: 300ms";
    let yaml = to(&destination, "").replace("http: { endpoint: 127.0.0.1:0", idle);
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let connect = async |part| {
        let mut stream = TcpStream::connect(address(&collector, part)).await.expect("it listens");
        // The preface of HTTP/2 and an empty SETTINGS frame, RFC 9113 section 3.4.
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        stream.write_all(preface).await.expect("it reads");
        stream
    };
    let (mut http, mut grpc) = (connect("http").await, connect("grpc").await);
    let asked = Instant::now();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), http.read_to_end(&mut answer)).await;
    ended.expect("it is closed").expect("in order");
    assert!(asked.elapsed() >= Duration::from_millis(300), "{:?}", asked.elapsed());
    // The other protocol has settings of its own.
    let mut byte = [0];
    loop {
        let read = tokio::time::timeout(Duration::from_millis(100), grpc.read(&mut byte)).await;
        match read {
            Ok(read) => assert_eq!(read.expect("it is open"), 1, "it is open"),
            Err(_nothing_to_read) => break,
        }
    }
}

#[tokio::test]
async fn an_exporter_offers_no_version_of_tls_below_its_oldest_and_names_what_is_missing() {
    for (oldest, offers_1_2) in [("", true), (", min_version: '1.3'", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = listener.local_addr().expect("its address");
        let ca = serde_json::to_string(AUTHORITY).expect("text");
        let tls = format!("tls: {{ ca_pem: {ca}{oldest} }}");
        let yaml = to_address(server, "").replace("tls: { insecure: true }", &tls);
        let collector = Collector::start(config(&yaml)).await.expect("it starts");
        let sender = Sender::new(&collector, Protocol::Grpc);
        sender.send(request(0, 10), 10).await.expect("the queue takes it");

        let (mut stream, _) = listener.accept().await.expect("the exporter comes");
        let mut head = [0; 5];
        stream.read_exact(&mut head).await.expect("a record");
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut hello).await.expect("the rest of it");
        // The extension supported_versions, RFC 8446 section 4.2.1.
        let offers = |versions: &[u8]| hello.windows(versions.len()).any(|all| all == versions);
        assert_eq!(offers(b"\x00\x2B\x00\x05\x04\x03\x04\x03\x03"), offers_1_2, "{hello:x?}");
        assert_eq!(offers(b"\x00\x2B\x00\x03\x02\x03\x04"), !offers_1_2, "{hello:x?}");
        // The fatal alert protocol_version, section 6.2.
        stream.write_all(&[21, 3, 3, 0, 2, 2, 70]).await.expect("it reads");
        let told = || collector.stats().exporters[0].failing.clone().map(|(_, error)| error);
        until("it is told", || told().is_some()).await;
        let told = told().expect("nothing else is answered");
        assert!(told.contains("no version or cipher of TLS in common"), "{told}");
    }
}

#[tokio::test]
async fn grpc_is_in_plain_text_only_where_that_is_said_and_no_authority_is_named() {
    let ca = serde_json::to_string(AUTHORITY).expect("text");
    for (scheme, tls, is_plain) in [
        ("", "insecure: true".to_owned(), true),
        ("http://", "insecure: true".to_owned(), true),
        ("http://", format!("ca_pem: {ca}"), false),
        ("", format!("insecure: true, ca_pem: {ca}"), false),
        ("https://", format!("insecure: true, ca_pem: {ca}"), false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = listener.local_addr().expect("its address");
        let yaml = to_address(server, "")
            .replace(&format!("endpoint: {server}"), &format!("endpoint: {scheme}{server}"))
            .replace("tls: { insecure: true }", &format!("tls: {{ {tls} }}"));
        let collector = Collector::start(config(&yaml)).await.expect("it starts");
        let sender = Sender::new(&collector, Protocol::Grpc);
        sender.send(request(0, 10), 10).await.expect("the queue takes it");
        let (mut stream, _) = listener.accept().await.expect("the exporter comes");
        // The preface of HTTP/2, or a record of TLS that holds a handshake.
        let first = stream.read_u8().await.expect("it writes");
        assert_eq!(first, if is_plain { b'P' } else { 22 }, "{yaml}");
    }
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_accepted_where_none_is_verified_and_nowhere_else() {
    let [certificate, key] =
        [CERTIFICATE, KEY].map(|pem| serde_json::to_string(pem).expect("text"));
    let tls = format!(", tls: {{ cert_pem: {certificate}, key_pem: {key} }} }}, http");
    let yaml = to_address("127.0.0.1:9".parse().expect("an address"), "")
        .replacen(" }, http", &tls, 1)
        .replacen("exporters:\n", "exporters:\n  nop:\n", 1)
        .replacen("exporters: [otlp]", "exporters: [nop]", 1);
    let far = Collector::start(config(&yaml)).await.expect("it starts");
    let ca = serde_json::to_string(AUTHORITY).expect("text");
    for (tls, arrive) in [(format!("ca_pem: {ca}"), 0), ("insecure_skip_verify: true".into(), 10)] {
        let tls = format!("tls: {{ {tls} }}");
        let server = address(&far, "grpc").parse().expect("an address");
        let yaml = to_address(server, "").replace("tls: { insecure: true }", &tls);
        let near = Collector::start(config(&yaml)).await.expect("it starts");
        let sender = Sender::new(&near, Protocol::Grpc);
        sender.send(request(0, 10), 10).await.expect("the queue takes it");
        let exporter = || near.stats().exporters.remove(0);
        let has_ended = || exporter().account.sent > 0 || exporter().failing.is_some();
        until("it arrives or fails", has_ended).await;
        assert_eq!(exporter().account.sent, arrive, "{:?}", exporter().failing);
    }
}

/// For `elsewhere.example`, signed by itself, and its key.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBrTCCAVOgAwIBAgIUb9yCU4bXfoJT/cnyiOyUIN2TcIQwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRZWxzZXdoZXJlLmV4YW1wbGUwIBcNMjYxMTIyMDQyMzQ2WhgP
MjEyNjEwMjkwNDIzNDZaMBwxGjAYBgNVBAMMEWVsc2V3aGVyZS5leGFtcGxlMFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOyY4o7nGITxsaHuOQQdPrjUio6yQxnuW
NVBh4AQP6CMCfh8xFZxSGBi4xrOCGfIpNzB3e3RTXGlITnQf4SuYNqNxMG8wHQYD
VR0OBBYEFM4QJwgPBB09hc2XefXPHim2/jYWMB8GA1UdIwQYMBaAFM4QJwgPBB09
hc2XefXPHim2/jYWMA8GA1UdEwEB/wQFMAMBAf8wHAYDVR0RBBUwE4IRZWxzZXdo
ZXJlLmV4YW1wbGUwCgYIKoZIzj0EAwIDSAAwRQIgTu/A3kuBw0eXeJACExxpUlRS
F5DEdlLMLTQzaaLOQZQCIQCn6dykYGH4bRNnxktqEZN8iLdAUKtT+5BozqzGFIpR
rA==
-----END CERTIFICATE-----
";
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgJdh6PpRt9VefDxAR
Vf7KWGxiDCH7MxQiqZ3v0QpAFxmhRANCAAQ7JjijucYhPGxoe45BB0+uNSKjrJDG
e5Y1UGHgBA/oIwJ+HzEVnFIYGLjGs4IZ8ik3MHd7dFNcaUhOdB/hK5g2
-----END PRIVATE KEY-----
";

/// Anybody's, who has signed nothing.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBNDCB56ADAgECAhQBPQZxNP5bJCtQmRJyxwqKzsqILjAFBgMrZXAwDzENMAsG
A1UEAwwEb3VyczAgFw0yNjExMjIwMzM5NDFaGA8yMTI2MTAyOTAzMzk0MVowDzEN
MAsGA1UEAwwEb3VyczAqMAUGAytlcAMhAIK9PRCedIQI4CCi2gh+4ESyglykNYIs
YBvvCKFpM3eDo1MwUTAdBgNVHQ4EFgQU294IX+ShX4XUWLMDnniuQb3kf0UwHwYD
VR0jBBgwFoAU294IX+ShX4XUWLMDnniuQb3kf0UwDwYDVR0TAQH/BAUwAwEB/zAF
BgMrZXADQQC4aWV09k5Kwh89FC+xUvfZ4Ksll91nvBRu75cDJELVgWTvTQn3tin1
BlGwSkE9Sktg5vNXaqvKJqMTFz3HEoQI
-----END CERTIFICATE-----
";
