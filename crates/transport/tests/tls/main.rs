//! https, in builds that have it.
#![cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]

mod files;
mod pki;
#[expect(dead_code, reason = "shared with the other tests, which use the rest")]
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use spanwire_transport::{
    InvalidConfig, Protocol, Retry, SendError, Tls, TlsVersion, Transport, TransportConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use pki::{Authority, Leaf};
use support::{Collector, body, causes, grpc_ok, send_to};

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];
const BOTH: &[&str] = &["h2", "http/1.1"];

fn config(protocol: Protocol, url: &str) -> TransportConfig {
    TransportConfig::new(protocol, url).expect("this build has TLS")
}

fn transport(config: &TransportConfig) -> Transport {
    Transport::new(config).expect("usable settings")
}

async fn collector(leaf: &Leaf, alpn: &[&str]) -> Collector {
    Collector::with_tls(leaf.serve(alpn, None), |_| std::future::ready(grpc_ok())).await
}

async fn taken(transport: &Transport) {
    let accepted = send_to(transport).await.expect("taken");
    assert_eq!(accepted.rejected_spans, 0);
}

/// An error with `cause` in its chain, after which the same bytes may be sent again.
async fn fails(transport: &Transport, cause: &str) {
    let error = send_to(transport).await.expect_err(cause);
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
    assert!(causes(&error).contains(cause), "{}", causes(&error));
}

#[tokio::test]
async fn both_protocols_are_spoken_over_tls_and_h2_where_it_is_negotiated() {
    let authority = Authority::new("ours");
    let cases = [
        (Protocol::Grpc, BOTH, ::http::Version::HTTP_2),
        (Protocol::Grpc, &["h2"], ::http::Version::HTTP_2),
        (Protocol::HttpProtobuf, BOTH, ::http::Version::HTTP_2),
        (Protocol::HttpProtobuf, &["http/1.1"], ::http::Version::HTTP_11),
        (Protocol::HttpProtobuf, &[], ::http::Version::HTTP_11),
    ];
    for (protocol, alpn, version) in cases {
        let collector = collector(&authority.server(), alpn).await;
        let config = config(protocol, &collector.https_url()).tls(Tls::new().ca(authority.pem()));
        let transport = transport(&config);
        for _ in 0..3 {
            taken(&transport).await;
        }
        assert!(collector.seen().iter().all(|seen| seen.version == version), "{alpn:?}");
        let sent = body().pieces().concat();
        assert!(collector.seen().iter().all(|seen| seen.body.ends_with(&sent)), "{alpn:?}");
        assert_eq!(collector.connections(), 1);
    }
}

#[tokio::test]
async fn a_connection_of_h2_is_shared_even_where_none_unused_is_to_be_kept() {
    let authority = Authority::new("ours");
    let collector = collector(&authority.server(), BOTH).await;
    let config = config(Protocol::HttpProtobuf, &collector.https_url())
        .tls(Tls::new().ca(authority.pem()))
        .idle_connections(0, Duration::from_secs(90));
    let transport = transport(&config);
    for _ in 0..3 {
        taken(&transport).await;
    }
    assert_eq!(collector.connections(), 1);
}

/// Faults 120.
#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_and_its_fault_named() {
    let ours = Authority::new("ours");
    let cases = [
        (ours.server_of(2000, 2001), "its certificate has expired"),
        (ours.server_of(2100, 2101), "its certificate is not valid yet"),
        (ours.server_named("other.example"), "its certificate is for another name"),
        (Authority::new("theirs").server(), "its certificate is of an unknown authority"),
        (Leaf::alone(), "its certificate is of an unknown authority"),
    ];
    for (leaf, fault) in cases {
        let collector = collector(&leaf, BOTH).await;
        for protocol in PROTOCOLS {
            let config = config(protocol, &collector.https_url()).tls(Tls::new().ca(ours.pem()));
            fails(&transport(&config), fault).await;
        }
        assert!(collector.seen().is_empty(), "no span without TLS");
    }
}

#[tokio::test]
async fn a_certificate_for_the_name_given_is_accepted_in_place_of_the_host_s() {
    let ours = Authority::new("ours");
    let collector = collector(&ours.server_named("collector.example"), BOTH).await;
    let tls = || Tls::new().ca(ours.pem());
    let config = |tls| config(Protocol::Grpc, &collector.https_url()).tls(tls);
    taken(&transport(&config(tls().server_name("collector.example")))).await;
    fails(&transport(&config(tls())), "is for another name").await;
    fails(&transport(&config(tls().server_name("other.example"))), "is for another name").await;
    let error = Transport::new(&config(tls().server_name("not a name"))).expect_err("a blank");
    assert!(matches!(error, InvalidConfig::ServerName { .. }), "{error:?}");
}

/// Faults 120.
#[tokio::test]
async fn a_server_without_h2_is_no_server_for_grpc() {
    let ours = Authority::new("ours");
    // A server with other protocols says so; one without ALPN says nothing.
    for (alpn, cause) in
        [(&["http/1.1"][..], "the HTTP version needed"), (&[], "does not speak HTTP/2")]
    {
        let collector = collector(&ours.server(), alpn).await;
        let config = config(Protocol::Grpc, &collector.https_url()).tls(Tls::new().ca(ours.pem()));
        fails(&transport(&config), cause).await;
        assert!(collector.seen().is_empty());
    }
}

/// Faults 120.
#[tokio::test]
async fn a_server_of_older_tls_only_is_refused() {
    // What such a server answers to a client that speaks 1.2 and 1.3: the fatal alert
    // protocol_version (RFC 8446, section 6.2).
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let _old = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut hello = [0; 4096];
            let _ = socket.read(&mut hello).await;
            let _ = socket.write_all(&[21, 3, 1, 0, 2, 2, 70]).await;
        }
    });
    for protocol in PROTOCOLS {
        let tls = Tls::new().ca(Authority::new("ours").pem());
        fails(
            &transport(&config(protocol, &url).tls(tls)),
            "no version or cipher of TLS in common",
        )
        .await;
    }
}

#[tokio::test]
async fn the_oldest_version_is_1_2_unless_it_is_1_3() {
    let ours = Authority::new("ours");
    for (version, is_old) in [(&TLS12, true), (&TLS13, false)] {
        let server = ours.server().serve_by(&[version], BOTH, None);
        let collector = Collector::with_tls(server, |_| std::future::ready(grpc_ok())).await;
        for protocol in PROTOCOLS {
            let transport = |tls: Tls| {
                transport(&config(protocol, &collector.https_url()).tls(tls.ca(ours.pem())))
            };
            taken(&transport(Tls::new())).await;
            let strict = transport(Tls::new().min_version(TlsVersion::V1_3));
            match is_old {
                true => fails(&strict, "no version or cipher of TLS in common").await,
                false => taken(&strict).await,
            }
        }
    }
}

#[tokio::test]
async fn whoever_accepts_any_certificate_accepts_each_whose_key_the_server_has_and_no_other() {
    let ours = Authority::new("ours");
    let leaves = [
        ours.server_of(2000, 2001),
        ours.server_of(2100, 2101),
        ours.server_named("other.example"),
        Authority::new("theirs").server(),
        Leaf::alone(),
    ];
    for protocol in PROTOCOLS {
        let careless = |url: &str, tls: Tls| {
            transport(&config(protocol, url).tls(tls.dangerously_accept_any_certificate()))
        };
        for leaf in &leaves {
            let collector = collector(leaf, BOTH).await;
            taken(&careless(&collector.https_url(), Tls::new())).await;
            taken(&careless(&collector.https_url(), Tls::new().ca(ours.pem()))).await;
        }
        for version in [&TLS12, &TLS13] {
            let server = ours.server().serve_without_its_key(version, BOTH);
            let collector = Collector::with_tls(server, |_| std::future::ready(grpc_ok())).await;
            let url = collector.https_url();
            fails(&careless(&url, Tls::new()), "its certificate is not valid").await;
            assert!(collector.seen().is_empty(), "no span to whoever only shows it");
        }
    }
}

/// Faults 73, 120.
#[tokio::test]
async fn a_peer_that_does_not_speak_tls_gets_no_spans() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let _plain = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    for protocol in PROTOCOLS {
        let tls = Tls::new().ca(Authority::new("ours").pem());
        fails(&transport(&config(protocol, &url).tls(tls)), "it does not speak TLS").await;
    }
}

/// Faults 122.
#[tokio::test]
async fn a_handshake_that_stalls_ends_with_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    for protocol in PROTOCOLS {
        let config = || config(protocol, &url).tls(Tls::new().ca(Authority::new("ours").pem()));
        let peer = url.trim_start_matches("https://");
        let cause = format!("timeout after 90 ms, in the TLS handshake with {peer}");
        let connect_timeout = config().connect_timeout(Duration::from_millis(90));
        fails(&transport(&connect_timeout), &cause).await;
        let request_timeout = config().request_timeout(Duration::from_millis(100));
        fails(&transport(&request_timeout), &cause).await;
    }
}

/// Faults 121.
#[tokio::test]
async fn a_client_certificate_is_shown_and_without_the_right_one_nothing_is_taken() {
    let ours = Authority::new("ours");
    let server = ours.server().serve(BOTH, Some(&ours));
    let collector = Collector::with_tls(server, |_| std::future::ready(grpc_ok())).await;
    let tls = |client: Option<Leaf>| match client {
        Some(leaf) => Tls::new().ca(ours.pem()).client_certificate(
            spanwire_transport::Pem::Bytes(leaf.pem().into_bytes()),
            spanwire_transport::Pem::Bytes(leaf.key_pem().into_bytes()),
        ),
        None => Tls::new().ca(ours.pem()),
    };
    for protocol in PROTOCOLS {
        let config = |client| config(protocol, &collector.https_url()).tls(tls(client));
        taken(&transport(&config(Some(ours.client())))).await;
        let before = collector.seen().len();
        for wrong in [None, Some(Authority::new("theirs").client()), Some(ours.old_client())] {
            // In TLS 1.3 a client learns of the refusal only when it reads, so it may look like a
            // broken connection.
            let error = send_to(&transport(&config(wrong))).await.expect_err("refused");
            assert_eq!(error.retry(), Retry::Backoff, "{error:?}");
        }
        assert_eq!(collector.seen().len(), before);
    }
}

#[test]
fn without_roots_and_without_a_ca_https_is_refused_when_the_transport_is_made() {
    let outcome = Transport::new(&config(Protocol::Grpc, "https://localhost"));
    if cfg!(any(feature = "tls-native-roots", feature = "tls-webpki-roots")) {
        // Where the system has none, the same error is right.
        assert!(matches!(outcome, Ok(_) | Err(InvalidConfig::Roots { .. })), "{outcome:?}");
    } else {
        assert!(matches!(outcome, Err(InvalidConfig::Roots { .. })), "{outcome:?}");
    }
}
