//! Settings of a configuration show in what runs.

mod support;

use std::time::{Duration, Instant};

use spanwire_collector::Collector;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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
