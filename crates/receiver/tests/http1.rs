//! HTTP/1.1 as it should not be: heads and bodies that are wrong, too large, too slow or cut off.

mod support;

use std::time::Duration;

use spanwire_receiver::{Reason, channel};
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Faults 64, 65.
#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_before_the_body() {
    let receiver = start(take_all).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&head(PROTOBUF, (64 << 20) + 1)).await;
    let answer = http.answer().await;
    assert_eq!((answer.status, status_code(&answer.body)), (413, 8));
    assert!(http.closes().await);
    // Not even invited to send it.
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&head(&format!("{PROTOBUF}Expect: 100-continue\r\n"), (64 << 20) + 1)).await;
    assert_eq!(http.answer().await.status, 413);
}

/// Faults 65.
#[tokio::test]
async fn a_body_within_the_limit_is_invited_with_100_continue() {
    let receiver = start(take_all).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&head(&format!("{PROTOBUF}Expect: 100-continue\r\n"), wire(3).len())).await;
    assert_eq!(http.answer().await.status, 100);
    http.send(&wire(3)).await;
    assert_eq!(http.answer().await.status, 200);
}

/// Faults 64.
#[tokio::test]
async fn a_peer_that_uploads_in_full_before_it_listens_still_learns_that_it_sent_too_much() {
    let receiver = start_with(take_all, |builder| builder.http_request_bytes_max(1 << 20)).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    let body = vec![0; 20 << 20];
    http.send(&head(PROTOBUF, body.len())).await;
    soon(http.tcp.write_all(&body)).await.expect("read to the end");
    assert_eq!(http.answer().await.status, 413);
}

/// Faults 62.
#[tokio::test]
async fn a_body_cut_short_is_a_bad_request_and_gives_its_bytes_back() {
    let receiver = start(take_all).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    let body = wire(100);
    http.send(&[head(PROTOBUF, body.len()), body[..body.len() - 1].to_vec()].concat()).await;
    until(|| receiver.stats().in_flight_bytes == body.len()).await;
    http.tcp.shutdown().await.expect("open");
    assert_eq!(http.answer().await.status, 400);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
    assert_eq!(receiver.stats().http.refused(Reason::Framing).requests, 1);
}

/// Faults 70.
#[tokio::test]
async fn a_peer_that_ends_its_side_after_the_request_still_gets_the_answer() {
    let (gate, mut arrivals, answers) = Gate::new();
    let receiver = start(gate).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
    http.tcp.shutdown().await.expect("open");
    assert_eq!(soon(arrivals.recv()).await, Some(1));
    answers.add_permits(1);
    assert_eq!(http.answer().await.status, 200);
}

/// Faults 62, 63.
#[tokio::test]
async fn lengths_that_contradict_themselves_are_bad_requests() {
    let receiver = start(take_all).await;
    for lines in [
        "Content-Length: -1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
    ] {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(
            format!("POST /v1/traces HTTP/1.1\r\nHost: test\r\n{PROTOBUF}{lines}\r\n").as_bytes(),
        )
        .await;
        assert_eq!(http.answer().await.status, 400, "{lines}");
        assert!(http.closes().await, "{lines}");
    }
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(format!("POST /v1/traces HTTP/1.1\r\nHost: test\r\n{PROTOBUF}Transfer-Encoding: chunked\r\n\r\nxyz\r\n").as_bytes())
        .await;
    assert_eq!(http.answer().await.status, 400);
}

/// The head of a POST whose body is chunked. `headers` are whole lines.
fn chunked(headers: &str) -> Vec<u8> {
    format!("POST /v1/traces HTTP/1.1\r\nHost: test\r\n{PROTOBUF}Transfer-Encoding: chunked\r\n{headers}\r\n")
        .into_bytes()
}

/// RFC 9112 section 6.3 lets an end point refuse such a request or go by the encoding alone, and
/// asks it to close in either case; what no reading of it leaves is a second request in the rest.
///
/// Faults 62.
#[tokio::test]
async fn a_length_beside_chunks_is_passed_over_and_ends_the_connection() {
    let (sink, mut requests) = channel(8);
    let receiver = start(sink).await;
    let hidden = head(PROTOBUF, 0);
    for lines in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut http = Http1::connect(receiver.http_address()).await;
        let start = format!("POST /v1/traces HTTP/1.1\r\nHost: test\r\n{PROTOBUF}{lines}\r\n");
        let chunk = format!("{:x}\r\n", wire(3).len());
        let body = [chunk.as_bytes(), &wire(3), b"\r\n0\r\n\r\n"].concat();
        http.send(&[start.as_bytes(), &body, &hidden].concat()).await;
        assert_eq!(http.answer().await.status, 200);
        assert_eq!(requests.recv().await.expect("in the queue").spans, 3);
        // By an end or by a reset, as what follows is never read.
        let mut rest = Vec::new();
        let _ = soon(http.tcp.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(receiver.stats().http.requests_accepted, 2);
}

/// Faults 62.
#[tokio::test]
async fn what_follows_a_body_of_the_declared_length_is_another_request_or_none() {
    let receiver = start(take_all).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[&head(PROTOBUF, wire(1).len())[..], &wire(1), b"more\r\n\r\n"].concat()).await;
    assert_eq!(http.answer().await.status, 200);
    assert_eq!(http.answer().await.status, 400);
    assert!(http.closes().await);
    assert_eq!(receiver.stats().http.requests_accepted, 1);
}

/// Faults 63.
#[tokio::test]
async fn chunks_are_read_however_small_and_refused_when_malformed() {
    let receiver = start(take_all).await;
    let body = wire(1000);
    let bytes: Vec<u8> =
        body.iter().flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n']).collect();
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[&chunked("Trailer: a\r\n")[..], &bytes, b"0\r\na: b\r\n\r\n"].concat()).await;
    assert_eq!(http.answer().await.status, 200);
    assert_eq!(receiver.stats().http.spans_accepted, 1000);

    let long = |byte: &str| byte.repeat(100_000);
    for wrong in [
        "xyz\r\n".to_owned(),
        "-1\r\n".to_owned(),
        "FFFFFFFFFFFFFFFFF\r\n".to_owned(),
        "1\r\nab\r\n0\r\n\r\n".to_owned(),
        format!("1;{}\r\na\r\n", long("e")),
        "1;e=f\r\na\r\n".repeat(10_000),
        format!("0\r\na: {}\r\n\r\n", long("b")),
        format!("0\r\n{}\r\n", long("a: b\r\n")),
    ] {
        let mut http = Http1::connect(receiver.http_address()).await;
        let (mut read, mut write) = http.tcp.split();
        let request = [&chunked("")[..], wrong.as_bytes()].concat();
        // The answer may come, and the connection end, before all is written.
        let mut start = [0; 12];
        let (_, answered) =
            soon(async { tokio::join!(write.write_all(&request), read.read_exact(&mut start)) })
                .await;
        answered.expect("an answer");
        assert_eq!(start, *b"HTTP/1.1 400", "{}", &wrong[..wrong.len().min(20)]);
    }
    assert_eq!(receiver.stats().http.requests_accepted, 1);
    until(|| receiver.stats().in_flight_bytes == 0).await;
}

/// Faults 66.
#[tokio::test]
async fn too_many_or_too_long_headers_are_refused() {
    let receiver = start(take_all).await;
    for headers in ["a: b\r\n".repeat(101), format!("a: {}\r\n", "b".repeat(500_000))] {
        let mut http = Http1::connect(receiver.http_address()).await;
        let (mut read, mut write) = http.tcp.split();
        let head = head(&headers, 0);
        // The answer may come, and the connection end, before all is written.
        let sent = write.write_all(&head);
        let mut start = [0; 12];
        let answered = tokio::io::AsyncReadExt::read_exact(&mut read, &mut start);
        let (_, answered) = soon(async { tokio::join!(sent, answered) }).await;
        answered.expect("an answer");
        assert_eq!(start, *b"HTTP/1.1 431");
    }
    assert_eq!(receiver.stats().http.refused(Reason::Framing).requests, 2);
}

/// Faults 66.
#[tokio::test]
async fn an_address_of_a_megabyte_is_refused() {
    let receiver = start(take_all).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    let (mut read, mut write) = http.tcp.split();
    let head = format!("POST /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(1 << 20));
    let mut start = [0; 12];
    let (_, answered) =
        soon(async { tokio::join!(write.write_all(head.as_bytes()), read.read_exact(&mut start)) })
            .await;
    answered.expect("an answer");
    assert!([*b"HTTP/1.1 414", *b"HTTP/1.1 431"].contains(&start));
}

/// Faults 68.
#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_given_up() {
    let receiver = start_with(take_all, |builder| {
        builder.body_read_timeout(Duration::from_millis(50), 1 << 20)
    })
    .await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[&head(PROTOBUF, 100)[..], b"a"].concat()).await;
    assert_eq!(http.answer().await.status, 408);
    assert!(http.closes().await);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 67.
#[tokio::test]
async fn headers_that_do_not_arrive_in_time_end_the_connection() {
    let receiver =
        start_with(take_all, |builder| builder.header_read_timeout(Duration::from_millis(50)))
            .await;
    for start in [&b""[..], b"P", b"PRI", b"POST /v1/traces HTTP/1.1\r\nHost:"] {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(start).await;
        assert!(http.closes().await, "{start:?}");
    }
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(receiver.stats().connections_failed, 4);
}

/// Faults 67, 68.
#[tokio::test]
async fn a_peer_that_dribbles_is_given_up_as_one_that_stopped() {
    let receiver = start_with(take_all, |builder| {
        let moment = Duration::from_millis(60);
        builder.header_read_timeout(moment).body_read_timeout(moment, 1 << 20)
    })
    .await;
    for (start, status) in [(&b"POST /v1/traces"[..], None), (&head(PROTOBUF, 1 << 20), Some(408))]
    {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(start).await;
        let (mut read, mut write) = http.tcp.split();
        let mut answer = Vec::new();
        let dribble = async {
            while write.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(async {
            tokio::select! {
                _ = read.read_to_end(&mut answer) => {}
                () = dribble => {}
            }
        })
        .await;
        let start = answer.get(9..12).map(|code| String::from_utf8_lossy(code).into_owned());
        assert_eq!(start, status.map(|status: u16| status.to_string()));
        assert_eq!(receiver.stats().in_flight_bytes, 0);
    }
    until(|| receiver.stats().connections_open == 0).await;
}

/// Faults 71.
#[tokio::test]
async fn a_connection_reset_within_a_body_gives_its_bytes_back_and_enqueues_nothing() {
    let receiver = start(async |_| panic!("nothing to accept")).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    let body = wire(100);
    http.send(&[&head(PROTOBUF, body.len())[..], &body[..body.len() / 2]].concat()).await;
    until(|| receiver.stats().in_flight_bytes == body.len()).await;
    http.tcp.set_zero_linger().expect("open");
    drop(http);
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(receiver.stats().in_flight_bytes, 0);
    let refused = receiver.stats().http.refused_in_all();
    assert_eq!((refused.requests, refused.spans), (1, 0));
}

/// Faults 72.
#[tokio::test]
async fn a_request_whose_peer_left_before_the_answer_is_counted_once() {
    let (gate, mut arrivals, answers) = Gate::new();
    let receiver = start(gate).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[head(PROTOBUF, wire(4).len()), wire(4)].concat()).await;
    assert_eq!(soon(arrivals.recv()).await, Some(4));
    // A peer that only ends its side may still be listening, so the sink may finish.
    drop(http);
    answers.add_permits(1);
    until(|| receiver.stats().connections_open == 0).await;
    let stats = receiver.stats().http;
    assert_eq!(stats.spans_accepted + stats.refused(Reason::Cancelled).spans, 4);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}
