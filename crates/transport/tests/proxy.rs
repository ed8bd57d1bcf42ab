//! Proxies on the way to the collector.

#[expect(dead_code, reason = "shared with the other tests, which use the rest")]
mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spanwire_transport::{
    Accepted, Protocol, Proxy, Retry, SendError, Status, Transport, TransportConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use support::{Collector, causes, dead_addr, grpc_ok, http, send_to};

/// Answers CONNECT, with a tunnel or a refusal.
struct ConnectProxy {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _accepting: JoinSet<()>,
}

impl ConnectProxy {
    /// Opens tunnels if `refusal` is `None`.
    async fn start(refusal: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                serving.spawn(tunnel(socket, refusal, heads.clone()));
            }
        });
        Self { addr, asked, _accepting: accepting }
    }

    fn url(&self) -> String {
        format!("http://al:opensesame@{}", self.addr)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn tunnel(
    mut client: TcpStream,
    refusal: Option<&'static str>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a whole head"));
    }
    let head = String::from_utf8(head).expect("ASCII");
    let target = head.split(' ').nth(1).expect("a request line").to_owned();
    heads.lock().expect("no panic").push(head);
    if let Some(refusal) = refusal {
        client.write_all(refusal.as_bytes()).await.expect("open");
        return;
    }
    let mut server = TcpStream::connect(target).await.expect("the target listens");
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("open");
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

fn through(proxy: &str, config: TransportConfig) -> Transport {
    let proxy = Proxy::url(proxy).expect("a proxy's URL");
    let config = config.proxy(proxy);
    assert!(!format!("{config:?}").contains("opensesame"), "{config:?}");
    Transport::new(&config).expect("usable settings")
}

fn config(protocol: Protocol, url: &str) -> TransportConfig {
    TransportConfig::new(protocol, url).expect("a valid endpoint")
}

/// Faults 123.
#[tokio::test]
async fn grpc_and_http2_go_through_a_tunnel() {
    let collector = Collector::answering(grpc_ok).await;
    let proxy = ConnectProxy::start(None).await;
    let http2 = config(Protocol::HttpProtobuf, &collector.url()).http2_only(true);
    for config in [config(Protocol::Grpc, &collector.url()), http2] {
        let transport = through(&proxy.url(), config);
        for _ in 0..3 {
            let accepted = send_to(&transport).await.expect("taken");
            assert_eq!(accepted.rejected_spans, 0);
        }
    }
    let head = format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nProxy-Authorization: Basic YWw6b3BlbnNlc2FtZQ==\r\n\r\n",
        collector.addr
    );
    assert_eq!(proxy.asked(), [head.clone(), head], "a tunnel for each connection");
    assert_eq!(collector.seen().len(), 6);
    assert!(collector.seen().iter().all(|seen| seen.header("proxy-authorization").is_none()));
}

/// Faults 123.
#[tokio::test]
async fn plain_http_is_forwarded_request_by_request() {
    let proxy =
        Collector::answering(|| http(200, &[("content-type", "application/x-protobuf")], "")).await;
    let config = config(Protocol::HttpProtobuf, "http://collector.example:4318");
    let transport = through(&format!("http://al:opensesame@{}", proxy.addr), config);
    assert_eq!(send_to(&transport).await.expect("taken"), Accepted::default());
    let seen = proxy.only();
    assert_eq!(seen.uri, "http://collector.example:4318/v1/traces");
    assert_eq!(seen.header("host"), Some("collector.example:4318"));
    assert_eq!(seen.header("proxy-authorization"), Some("Basic YWw6b3BlbnNlc2FtZQ=="));
}

/// Faults 123.
#[tokio::test]
async fn a_proxy_that_wants_other_credentials_is_not_asked_again() {
    let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    let proxy = ConnectProxy::start(Some(refusal)).await;
    let transport = through(&proxy.url(), config(Protocol::Grpc, "http://collector.example:4317"));
    // One dials and the other waits for it; both hear why it was refused.
    let (first, second) = tokio::join!(send_to(&transport), send_to(&transport));
    for error in [first.expect_err("407"), second.expect_err("407")] {
        assert!(matches!(error, SendError::Proxy { status: 407, .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Never);
        assert!(error.to_string().contains(&proxy.addr.to_string()), "{error}");
        assert!(!format!("{error:?} {}", causes(&error)).contains("opensesame"), "{error:?}");
    }
    assert_eq!(proxy.asked().len(), 1);

    let proxy = Collector::answering(|| http(407, &[], "")).await;
    let url = format!("http://al:opensesame@{}", proxy.addr);
    let transport = through(&url, config(Protocol::HttpProtobuf, "http://collector.example:4318"));
    let error = send_to(&transport).await.expect_err("407");
    assert!(matches!(error, SendError::Reject { status: Status::Http(407), .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Never);
}

/// Faults 123.
#[tokio::test]
async fn a_proxy_whose_way_is_closed_for_now_is_asked_again() {
    let proxy = ConnectProxy::start(Some("HTTP/1.1 503 Busy\r\n\r\n")).await;
    let transport = through(&proxy.url(), config(Protocol::Grpc, "http://collector.example:4317"));
    for _ in 0..2 {
        let error = send_to(&transport).await.expect_err("503");
        assert!(matches!(error, SendError::Proxy { status: 503, .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Backoff);
    }
    assert_eq!(proxy.asked().len(), 2);
}

/// Faults 123.
#[tokio::test]
async fn a_proxy_that_is_not_there_or_says_nothing_or_nonsense_is_named_as_the_cause() {
    let endpoint = || config(Protocol::Grpc, "http://collector.example:4317");
    let dead = dead_addr().await;
    let error = send_to(&through(&dead.to_string(), endpoint())).await.expect_err("refused");
    assert!(causes(&error).contains(&format!("cannot reach {dead}")), "{}", causes(&error));

    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = silent.local_addr().expect("bound").to_string();
    let hasty = [
        endpoint().connect_timeout(Duration::from_millis(90)),
        // As with a firewall that answers nothing, and less time in all than a connection may take.
        endpoint().request_timeout(Duration::from_millis(100)),
    ];
    for config in hasty {
        let error = send_to(&through(&url, config)).await.expect_err("silence");
        assert!(matches!(error, SendError::Connect(_)), "{error:?}");
        let expected = format!("timeout after 90 ms, waiting for a tunnel through the proxy {url}");
        assert!(causes(&error).contains(&expected), "{}", causes(&error));
    }

    let proxy = ConnectProxy::start(Some("SSH-2.0-OpenSSH_9.9\r\n\r\n")).await;
    let error = send_to(&through(&proxy.url(), endpoint())).await.expect_err("not HTTP");
    assert!(causes(&error).contains("the proxy does not speak HTTP"), "{}", causes(&error));
    assert!(causes(&error).contains(&proxy.addr.to_string()), "{}", causes(&error));
    assert_eq!(error.retry(), Retry::Backoff);
}

/// Faults 123.
#[tokio::test]
async fn a_collector_on_this_host_is_reached_without_the_environment_s_proxy() {
    let collector = Collector::answering(grpc_ok).await;
    let proxy = ConnectProxy::start(Some("HTTP/1.1 500 No\r\n\r\n")).await;
    let environment = Proxy::environment(|name| (name == "ALL_PROXY").then(|| proxy.url()));
    let config = config(Protocol::Grpc, &collector.url()).proxy(environment.expect("valid"));
    let transport = Transport::new(&config).expect("usable settings");
    assert_eq!(send_to(&transport).await.expect("taken"), Accepted::default());
    assert!(proxy.asked().is_empty());
}

/// Faults 123.
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
#[tokio::test]
async fn https_goes_through_a_tunnel_and_the_proxy_sees_no_span() {
    use spanwire_transport::{Pem, Tls};

    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("has them")
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
        )
        .expect("they belong together");
    let collector = Collector::with_tls(config, |_| std::future::ready(http(200, &[], ""))).await;
    let proxy = ConnectProxy::start(None).await;
    let config = self::config(Protocol::HttpProtobuf, &collector.https_url())
        .tls(Tls::new().ca(Pem::Bytes(key.cert.pem().into_bytes())));
    let accepted = send_to(&through(&proxy.url(), config)).await.expect("taken");
    assert_eq!(accepted.rejected_spans, 0);
    assert_eq!((collector.seen().len(), proxy.asked().len()), (1, 1));
}
