//! HTTP/2 peers that send frames no client would: each flood ends its connection or costs no more
//! than reading it, and other connections are served meanwhile.
//!
//! Frame types, flags and error codes are those of RFC 9113 sections 6 and 7.

mod support;

use std::time::Duration;

use spanwire_receiver::Receiver;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of an export call, by HPACK's static table and literals that are not indexed.
fn call_headers() -> Vec<u8> {
    let literal = |name: &[u8], value: &str| {
        [name, &[u8::try_from(value.len()).expect("short")], value.as_bytes()].concat()
    };
    // POST, http, :path, :authority, content-type: RFC 7541 appendix A.
    [
        vec![0x83, 0x86],
        literal(&[0x04], EXPORT),
        literal(&[0x01], "test"),
        literal(&[0x0F, 0x10], "application/grpc"),
    ]
    .concat()
}

fn open_stream(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call_headers())
}

/// The streams of a client, in the order it opens them.
fn streams() -> impl Iterator<Item = u32> {
    (1..u32::MAX / 2).step_by(2)
}

/// How a flood ended.
#[derive(Debug, PartialEq)]
enum End {
    /// The receiver closed the connection, with this error code if it could still be read.
    Closed(Option<u32>),
    /// The receiver went on reading until there was nothing left to show.
    Endured,
}

/// Sends a preface and then `frames`, as fast as they are taken, while a bystander on a connection
/// of its own makes calls; ends with the connection, or when the bystander has made its calls and
/// the frames are all sent.
async fn flood(receiver: &Receiver, frames: impl Iterator<Item = Vec<u8>> + Send) -> End {
    let mut bystander = Http2::connect(receiver.grpc_address()).await;
    let calls = async {
        for _ in 0..CALLS {
            assert_eq!(bystander.call(&[], &framed(0, &wire(1))).await.code, 0);
        }
    };
    let tcp = TcpStream::connect(receiver.grpc_address().expect("served")).await;
    let (mut read, mut write) = tcp.expect("it listens").into_split();
    let send = async move {
        let mut batch = preface();
        for frame in frames {
            batch.extend(frame);
            if batch.len() > 16 << 10 {
                if write.write_all(&batch).await.is_err() {
                    break;
                }
                batch.clear();
            }
        }
        let _ = write.write_all(&batch).await;
        write
    };
    let answers = async {
        let mut answers = Vec::new();
        let mut goaway = None;
        // A connection that is closed with frames unread is reset, and then the rest is lost.
        while let Ok(1..) = read.read_buf(&mut answers).await {
            while let Some(head) = answers.first_chunk::<9>() {
                let end = 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if answers.len() < end {
                    break;
                }
                if head[3] == GOAWAY {
                    let code = answers[9 + 4..9 + 8].try_into().expect("four bytes");
                    goaway = Some(u32::from_be_bytes(code));
                }
                answers.drain(..end);
            }
        }
        goaway
    };
    soon(async {
        let endure = async { tokio::join!(calls, send) };
        tokio::select! {
            goaway = answers => End::Closed(goaway),
            _ = endure => End::Endured,
        }
    })
    .await
}

/// The preface and empty SETTINGS, RFC 9113 sections 3.4 and 6.5.
fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat()
}

/// Enough for the bystander to be in the middle of them while a flood is read.
const CALLS: usize = 50;

/// Asserts that a flood ended its connection, by the error code where that arrived, and no other.
async fn assert_ended(receiver: &Receiver, end: End) {
    assert!(
        matches!(end, End::Closed(None | Some(ENHANCE_YOUR_CALM))),
        "the flood should have ended: {end:?}"
    );
    until(|| receiver.stats().connections_failed == 1).await;
    let mut other = Http2::connect(receiver.grpc_address()).await;
    assert_eq!(other.call(&[], &framed(0, &wire(1))).await.code, 0);
    until(|| receiver.stats().in_flight_bytes == 0).await;
}

/// Faults 75.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_opened_and_reset_in_a_loop_end_their_connection() {
    let receiver = start(take_all).await;
    let cancel = 8_u32.to_be_bytes();
    let resets = streams()
        .map(|stream| [open_stream(stream), frame(RST_STREAM, 0, stream, &cancel)].concat());
    let end = flood(&receiver, resets).await;
    assert_ended(&receiver, end).await;
}

/// Faults 76.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_provoke_a_reset_in_a_loop_end_their_connection() {
    // A window must not outgrow 31 bits, and a stream must not depend on itself: RFC 9113 section
    // 6.9.1, RFC 7540 section 5.3.1.
    let provocations: [fn(u32) -> Vec<u8>; 2] = [
        |stream| frame(WINDOW_UPDATE, 0, stream, &[0x7F, 0xFF, 0xFF, 0xFF]),
        |stream| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat()),
    ];
    for provocation in provocations {
        let receiver = start(take_all).await;
        let provoked = streams().map(|stream| [open_stream(stream), provocation(stream)].concat());
        let end = flood(&receiver, provoked).await;
        assert_ended(&receiver, end).await;
    }
}

/// Faults 77.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_continue_for_ever_end_their_connection() {
    let receiver = start(take_all).await;
    for continuation in [vec![], vec![0x83], b"\x00\x01a\x01b".repeat(2000)] {
        let failed = receiver.stats().connections_failed;
        let headers = frame(HEADERS, 0, 1, &call_headers());
        let more = std::iter::repeat_with(|| frame(CONTINUATION, 0, 1, &continuation));
        let end = flood(&receiver, std::iter::once(headers).chain(more)).await;
        assert!(matches!(end, End::Closed(_)), "{} bytes each", continuation.len());
        until(|| receiver.stats().connections_failed == failed + 1).await;
    }
}

/// Faults 77.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_unpack_to_megabytes_end_their_connection() {
    if !is_alone("headers_that_unpack_to_megabytes_end_their_connection").await {
        return;
    }
    let receiver = start(take_all).await;
    // 4,000 bytes into the dynamic table, which then is its one entry, number 62; each further byte
    // repeats them: 16 KiB that stand for 64 MB.
    let entry = [&b"\x40\x01a\x7F\xA1\x1E"[..], &[b'b'; 4000]].concat();
    let repeats = vec![0x80 | 62; (16 << 10) - entry.len() - call_headers().len()];
    let bomb = [call_headers(), entry, repeats].concat();
    let bombs = streams().map(|stream| frame(HEADERS, END_HEADERS, stream, &bomb));
    let before = resident_bytes();
    let end = flood(&receiver, bombs).await;
    assert_ended(&receiver, end).await;
    assert!(resident_bytes() < before + (32 << 20), "the bomb was not unpacked");
}

/// Faults 78.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data_in_a_loop_ends_its_connection() {
    let receiver = start(take_all).await;
    let empty = std::iter::repeat_with(|| frame(DATA, 0, 1, &[]));
    let end = flood(&receiver, std::iter::once(open_stream(1)).chain(empty)).await;
    assert_ended(&receiver, end).await;
}

/// Faults 78.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_in_frames_of_one_byte_is_taken_in_small_doses_only() {
    let receiver = start(take_all).await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let mut call = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
    for byte in framed(0, &wire(20)) {
        call.data(&[byte], false);
    }
    call.data(&[], true);
    assert_eq!(call.answer().await.code, 0);

    let mut message = framed(0, &[]);
    message[1..].copy_from_slice(&(60_u32 << 20).to_be_bytes());
    let bytes = message.into_iter().chain(std::iter::repeat(b'x'));
    let bytes = bytes.map(|byte| frame(DATA, 0, 1, &[byte]));
    let end = flood(&receiver, std::iter::once(open_stream(1)).chain(bytes)).await;
    assert_ended(&receiver, end).await;
}

/// Faults 78.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_ask_for_nothing_cost_no_more_than_reading_them() {
    if !is_alone("frames_that_ask_for_nothing_cost_no_more_than_reading_them").await {
        return;
    }
    let one = 1_u32.to_be_bytes();
    let frames = [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xFF, 0xFF].repeat(100)),
        frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 0]),
        frame(WINDOW_UPDATE, 0, 0, &one),
        frame(WINDOW_UPDATE, 0, 1, &one),
        // A type that no RFC has.
        frame(0xEE, 0xFF, 5, &[0; 100]),
    ];
    let receiver = start(take_all).await;
    let before = resident_bytes();
    for frames in frames {
        let kind = frames[3];
        let many = std::iter::repeat_n(frames, 20_000);
        let end = flood(&receiver, std::iter::once(open_stream(1)).chain(many)).await;
        // To be asked to calm down would be in order as well.
        let is_bounded = matches!(end, End::Endured | End::Closed(Some(ENHANCE_YOUR_CALM) | None));
        assert!(is_bounded, "frame type {kind}: {end:?}");
    }
    assert!(resident_bytes() < before + (32 << 20), "floods leave nothing behind");
    until(|| receiver.stats().connections_open == 0).await;
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 79.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_is_cut_off_once_its_answers_pile_up() {
    let receiver =
        start_with(take_all, |builder| builder.write_timeout(Duration::from_millis(100))).await;
    let not_found = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n";
    let cases = [
        (receiver.grpc_address(), preface(), frame(PING, 0, 0, &[7; 8])),
        (receiver.grpc_address(), preface(), frame(SETTINGS, 0, 0, &[])),
        (receiver.http_address(), vec![], not_found.as_bytes().to_vec()),
    ];
    for (cases_done, (address, start, asks)) in cases.into_iter().enumerate() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 << 10).expect("small is allowed");
        let mut tcp = socket.connect(address.expect("served")).await.expect("it listens");
        soon(async {
            let asks = asks.repeat(1000);
            let mut sent = tcp.write_all(&start).await;
            while sent.is_ok() {
                sent = tcp.write_all(&asks).await;
            }
        })
        .await;
        until(|| receiver.stats().connections_failed == cases_done as u64 + 1).await;
    }
    assert_eq!(receiver.stats().connections_open, 0);
}

/// Faults 79.
#[tokio::test]
async fn a_peer_that_opens_no_window_for_its_answers_is_closed_as_idle() {
    let receiver =
        start_with(take_all, |builder| builder.idle_max(Duration::from_millis(50))).await;
    let tcp = TcpStream::connect(receiver.grpc_address().expect("served")).await;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, bytes::Bytes>(tcp.expect("it listens"))
        .await
        .expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let mut http2 = Http2(client);
    for _ in 0..10 {
        let mut call = http2.open(EXPORT, &[("content-type", "application/grpc")]).await;
        call.data(&framed(0, &wire(1)), true);
        // The spans are taken over and the head of the answer is out; its five bytes never are.
        tokio::spawn(call.answer_unchecked());
    }
    until(|| receiver.stats().grpc.requests_accepted == 10).await;
    until(|| receiver.stats().connections_open == 0).await;
    let _ = soon(connection).await;
}

/// Faults 90.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_stream_a_connection_can_have_is_served() {
    let receiver = start(take_all).await;
    let mut peer = Http1::connect(receiver.grpc_address()).await;
    let last = u32::MAX >> 1;
    let message = frame(DATA, END_STREAM, last, &framed(0, &wire(7)));
    peer.send(&[preface(), open_stream(last), message].concat()).await;
    until(|| receiver.stats().grpc.spans_accepted == 7).await;
    // There is no higher one, and a lower one is over: RFC 9113 section 5.1.1.
    peer.send(&open_stream(1)).await;
    let mut rest = Vec::new();
    soon(peer.tcp.read_to_end(&mut rest)).await.expect("an orderly end");
    until(|| receiver.stats().connections_open == 0).await;
}

/// Runs this test again in a process of its own, whose memory no other test shares; `true` there.
async fn is_alone(name: &str) -> bool {
    const ALONE: &str = "SPANWIRE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().expect("a test binary");
    let arguments = ["--exact", name, "--nocapture"];
    let output = tokio::process::Command::new(this).args(arguments).env(ALONE, "").output();
    let output = soon(output).await.expect("the same binary again");
    let (report, errors) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    assert!(String::from_utf8_lossy(report).contains("1 passed"), "no such test: {name}");
    false
}

/// The memory of this process, from /proc/self/statm.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize =
        statm.split(' ').nth(1).expect("the second field").parse().expect("a number");
    pages * 4096
}
