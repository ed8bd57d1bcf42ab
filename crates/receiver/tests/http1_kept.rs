//! An HTTP/1.1 connection from one request to the next: what it goes on after, and how it ends.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use spanwire_receiver::{Accepted, Reason, Received};
use support::*;

/// A POST whose body comes in chunks of at most `piece` bytes. `headers` are whole lines.
fn chunked(path: &str, headers: &str, body: &[u8], piece: usize) -> Vec<u8> {
    let mut out = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(piece) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn good(spans: usize) -> Vec<u8> {
    let body = wire(spans);
    [head(PROTOBUF, body.len()), body].concat()
}

/// Faults 62.
#[tokio::test]
async fn a_connection_goes_on_after_a_refused_body_and_takes_nothing_in_it_for_a_request() {
    let receiver = start(take_all).await;
    let hidden = good(7);
    let path = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: test\r\n{PROTOBUF}Content-Length: {}\r\n\r\n",
        hidden.len()
    );
    for (refused, status) in [
        ([path.into_bytes(), hidden.clone()].concat(), 404),
        (chunked("/v1/logs", PROTOBUF, &hidden, 100), 404),
        (chunked("/v1/traces", "Content-Type: text/plain\r\n", &hidden, 10), 415),
        (chunked("/v1/traces", PROTOBUF, &hidden, 10), 400),
    ] {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(&[refused, good(1)].concat()).await;
        assert_eq!(http.answer().await.status, status);
        assert_eq!(http.answer().await.status, 200);
    }
    let stats = receiver.stats();
    assert_eq!((stats.http.requests_accepted, stats.http.spans_accepted), (4, 4));
    assert_eq!(stats.in_flight_bytes, 0);
}

/// Faults 62, 63.
#[tokio::test]
async fn a_refused_body_whose_end_is_in_doubt_ends_its_connection() {
    let receiver = start(take_all).await;
    let start = "POST /v1/logs HTTP/1.1\r\nHost: test\r\n";
    for rest in [
        &b"Transfer-Encoding: chunked\r\n\r\nz\r\n0\r\n\r\n"[..],
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nPOST /v1/traces HTTP/1.1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"Content-Length: 100000\r\n\r\nab",
    ] {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(&[start.as_bytes(), rest, &good(1)].concat()).await;
        let answer = http.answer().await;
        assert_eq!((answer.status, &*answer.headers["connection"]), (404, "close"));
        assert!(http.closes().await);
    }
    assert_eq!(receiver.stats().http.requests_accepted, 0);
}

/// Faults 64, 91.
#[tokio::test]
async fn chunks_over_a_limit_are_refused_and_give_their_bytes_back() {
    let (gate, mut arrivals, answers) = Gate::new();
    let body = wire(100);
    let receiver = start_with(gate, |builder| {
        room_for(2, 4 * body.len(), builder).http_request_bytes_max(body.len())
    })
    .await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&chunked("/v1/traces", PROTOBUF, &vec![0; body.len() + 1], 100)).await;
    assert_eq!(http.answer().await.status, 413);
    assert_eq!(receiver.stats().in_flight_bytes, 0);

    let mut held = Vec::new();
    while receiver.stats().http.refused(Reason::Budget).requests == 0 {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(&chunked("/v1/traces", PROTOBUF, &body, 100)).await;
        tokio::select! {
            spans = arrivals.recv() => {
                assert_eq!(spans, Some(100));
                held.push(http);
            }
            answer = http.answer() => assert_eq!(answer.status, 429),
        }
    }
    // Not even invited to send it, once there is no room for the least of it.
    let expecting = format!("{PROTOBUF}Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n");
    let expecting = format!("POST /v1/traces HTTP/1.1\r\nHost: test\r\n{expecting}\r\n");
    let mut invited = Vec::new();
    let refused = loop {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(expecting.as_bytes()).await;
        match http.answer().await.status {
            100 if invited.len() < 100 => invited.push(http),
            status => break status,
        }
    };
    assert_eq!(refused, 429);
    drop(invited);
    answers.add_permits(held.len());
    for mut http in held {
        assert_eq!(http.answer().await.status, 200);
    }
    until(|| receiver.stats().in_flight_bytes == 0).await;
}

#[tokio::test]
async fn empty_lines_between_requests_are_passed_over() {
    let moment = Duration::from_millis(30);
    let receiver = start_with(take_all, |builder| builder.header_read_timeout(moment)).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    for before in [&b""[..], b"\n", b"\n\r\n"] {
        http.send(&[before, &good(1), b"\r\n\r"].concat()).await;
        assert_eq!(http.answer().await.status, 200);
        // Nor are they the start of a head, which would have come too slowly by then.
        tokio::time::sleep(3 * moment).await;
    }
    assert_eq!(receiver.stats().connections_accepted, 1);
}

#[tokio::test]
async fn a_head_that_has_begun_is_finished_at_shutdown() {
    let receiver = start(take_all).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&good(1)).await;
    assert_eq!(http.answer().await.status, 200);
    let request = good(2);
    http.send(&request[..20]).await;
    // On one thread, what came before this request is seen before its answer.
    assert_eq!(post(&receiver, PROTOBUF, &wire(1)).await.status, 200);
    let (shutdown, answer) = tokio::join!(receiver.shutdown(Duration::from_secs(20)), async {
        tokio::task::yield_now().await;
        http.send(&request[20..]).await;
        let answer = http.answer().await;
        drop(http);
        answer
    });
    assert_eq!((answer.status, &*answer.headers["connection"]), (200, "close"));
    assert_eq!(shutdown.connections_cut, 0);
    assert_eq!(receiver.stats().http.spans_accepted, 4);
}

/// Faults 128.
#[tokio::test]
async fn a_sink_that_panics_leaves_the_connection_to_the_next_request() {
    let receiver = start(async |received: Received| match received.spans {
        1 => panic!("one span too few"),
        _ => Ok(Accepted::default()),
    })
    .await;
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&[good(1), good(2)].concat()).await;
    assert_eq!(http.answer().await.status, 500);
    assert_eq!(http.answer().await.status, 200);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 90.
#[tokio::test]
async fn an_idle_connection_of_age_is_told_with_its_next_answer_and_closed_where_none_comes() {
    let moment = Duration::from_millis(300);
    let receiver =
        start_with(take_all, |builder| builder.connection_age_max(moment, 4 * moment)).await;
    let mut silent = Http1::connect(receiver.http_address()).await;
    let mut talking = Http1::connect(receiver.http_address()).await;
    for http in [&mut silent, &mut talking] {
        http.send(&good(1)).await;
        assert_eq!(http.answer().await.status, 200);
    }
    tokio::time::sleep(2 * moment).await;
    talking.send(&good(1)).await;
    let answer = talking.answer().await;
    assert_eq!((answer.status, &*answer.headers["connection"]), (200, "close"));
    drop(talking);
    assert!(silent.closes().await);
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(receiver.stats().connections_failed, 0);
}

/// A request as it is sent, and the status it is answered with.
fn any_request() -> impl Strategy<Value = (Vec<u8>, u16)> {
    let spans = 0..20_usize;
    let post = |path: &str, body: &[u8]| {
        let start = format!("POST {path} HTTP/1.1\r\nHost: test\r\n{PROTOBUF}");
        [format!("{start}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    prop_oneof![
        spans.clone().prop_map(|spans| (good(spans), 200)),
        (spans.clone(), 1..500_usize).prop_map(|(spans, piece)| {
            (chunked("/v1/traces", PROTOBUF, &wire(spans), piece), 200)
        }),
        spans.prop_map(move |spans| (post("/v1/traces", &wire(spans + 1)[1..]), 400)),
        Just((b"\r\nHEAD /v1/traces HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(), 405)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Faults 69.
    #[test]
    fn answers_are_the_same_however_requests_are_cut(
        requests in prop::collection::vec(any_request(), 1..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (sent, statuses): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let sent = sent.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(sent.len())).collect();
        cuts.extend([0, sent.len()]);
        cuts.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let answered = runtime.expect("a runtime").block_on(async {
            let receiver = start(take_all).await;
            let mut http = Http1::connect(receiver.http_address()).await;
            http.tcp.set_nodelay(true).expect("open");
            for ends in cuts.windows(2) {
                http.send(&sent[ends[0]..ends[1]]).await;
                // On one thread, the receiver has seen it once it has answered somebody else.
                assert_eq!(post(&receiver, PROTOBUF, b"").await.status, 200);
            }
            let mut answered = Vec::new();
            for _ in &statuses {
                answered.push(http.answer().await.status);
            }
            assert_eq!(receiver.stats().in_flight_bytes, 0);
            answered
        });
        prop_assert_eq!(answered, statuses);
    }
}
