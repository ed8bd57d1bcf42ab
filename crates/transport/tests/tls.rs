//! https, in builds that have it.
#![cfg(all(
    any(feature = "tls-ring", feature = "tls-aws-lc"),
    any(feature = "tls-native-roots", feature = "tls-webpki-roots")
))]

use bytes::Bytes;
use spanwire_transport::{Body, Protocol, Retry, SendError, Transport, TransportConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_gets_no_spans_and_no_panic_follows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let _plain = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let config = TransportConfig::new(protocol, &url).expect("this build has TLS");
        let transport = Transport::new(&config).expect("inside a runtime");
        let body = Body::new([Bytes::from_static(b"\x0A\x00")], 1);
        let encoded = transport.encode(&body).await.expect("within limits");
        let error = transport.send(&encoded).await.expect_err("no TLS there");
        assert!(matches!(error, SendError::Connect(_)), "{error:?}");
        assert_eq!(error.retry(), Retry::Backoff);
    }
}
