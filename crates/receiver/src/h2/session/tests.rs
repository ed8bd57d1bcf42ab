use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut as _;
use proptest::prelude::*;
use tokio::time::Instant;

use super::{Limits, Session};
use crate::body::Pace;
use crate::budget::Share;
use crate::fault::Fault;
use crate::h2::frame::{self, ErrorCode, Head};
use crate::h2::hpack::{Decoder, write_field};
use crate::sink::Accepted;
use crate::stats::{Counters, Reason};

const LIMITS: Limits = Limits {
    request_bytes_max: 100_000,
    header_bytes_max: 1000,
    streams_max: 4,
    frame_bytes_max: 1 << 16,
    stream_window_bytes: 1 << 16,
    connection_window_bytes: 1 << 17,
    pace: Pace { timeout: Duration::from_secs(30), rate_min: 1000 },
};

/// A session, and its peer.
struct Peer {
    session: Session,
    share: Arc<Share>,
    counters: Arc<Counters>,
}

/// A frame as the peer sees it.
type Frame = (u8, u8, u32, Vec<u8>);

impl Peer {
    /// One whose preface was not sent yet.
    fn silent() -> Self {
        let share = Share::alone(1 << 20);
        let counters = Arc::new(Counters::default());
        let session = Session::new(LIMITS, Arc::clone(&share), Arc::clone(&counters));
        Self { session, share, counters }
    }

    /// One whose connection is set up.
    fn new() -> Self {
        let mut peer = Self::silent();
        let introduced = peer.frames();
        let kinds: Vec<_> = introduced.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [frame::SETTINGS, frame::WINDOW_UPDATE]);
        assert_eq!(introduced[1].3, ((1_u32 << 17) - 65_535).to_be_bytes());
        peer.send(&preface()).expect("HTTP/2");
        assert_eq!(peer.frames(), [(frame::SETTINGS, frame::ACK, 0, vec![])]);
        peer
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        assert_eq!(self.session.feed(bytes)?, bytes.len(), "whole frames are taken in whole");
        Ok(())
    }

    /// What has come out since the last look.
    fn frames(&mut self) -> Vec<Frame> {
        let mut out = &std::mem::take(&mut self.session.out)[..];
        let mut frames = Vec::new();
        while let Some((head, rest)) = out.split_first_chunk() {
            let Head { bytes, kind, flags, stream } = Head::read(*head);
            frames.push((kind, flags, stream, rest[..bytes].to_vec()));
            out = &rest[bytes..];
        }
        assert!(out.is_empty());
        frames
    }

    /// The streams and messages of the requests that have become whole.
    fn requests(&mut self) -> Vec<(u32, Vec<u8>)> {
        let requests = std::mem::take(&mut self.session.requests);
        requests.into_iter().map(|(id, request)| (id, request.wire.bytes.to_vec())).collect()
    }

    fn refused(&self, reason: Reason) -> u64 {
        self.counters.read(0).grpc.refused(reason).requests
    }
}

fn preface() -> Vec<u8> {
    [&frame::PREFACE[..], &sent(frame::SETTINGS, 0, 0, &[])].concat()
}

fn sent(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn block(more: &[(&str, &str)]) -> Vec<u8> {
    const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let least = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", PATH),
        ("content-type", "application/grpc"),
    ];
    let mut block = Vec::new();
    let pairs = least.iter().chain(more);
    pairs.for_each(|(name, value)| write_field(name, value.as_bytes(), &mut block));
    block
}

fn headers(stream: u32) -> Vec<u8> {
    sent(frame::HEADERS, frame::END_HEADERS, stream, &block(&[]))
}

fn message(body: &[u8]) -> Vec<u8> {
    [&[0][..], &(body.len() as u32).to_be_bytes(), body].concat()
}

fn data(stream: u32, data: &[u8]) -> Vec<u8> {
    sent(frame::DATA, frame::END_STREAM, stream, data)
}

fn fields(block: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let text = |text: &[u8]| String::from_utf8(text.to_vec()).expect("a text");
    let read = Decoder::new().read(block, |name, value| {
        fields.push((text(name), text(value)));
        true
    });
    read.expect("HPACK");
    fields
}

fn has(block: &[u8], name: &str, value: &str) -> bool {
    fields(block).contains(&(name.to_owned(), value.to_owned()))
}

#[test]
fn a_call_is_answered_by_head_message_and_trailers() {
    let mut peer = Peer::new();
    peer.send(&[headers(1), data(1, &message(b"spans"))].concat()).expect("a call");
    assert_eq!(peer.requests(), [(1, b"spans".to_vec())]);
    peer.session.answer(1, Ok(Accepted::default()));
    let [head, body, trailers] = &peer.frames()[..] else { panic!("three frames") };
    assert_eq!((head.0, head.1, head.2), (frame::HEADERS, frame::END_HEADERS, 1));
    assert!(has(&head.3, ":status", "200") && has(&head.3, "content-type", "application/grpc"));
    assert_eq!(*body, (frame::DATA, 0, 1, message(b"")));
    assert_eq!((trailers.0, trailers.1), (frame::HEADERS, frame::END_HEADERS | frame::END_STREAM));
    assert!(has(&trailers.3, "grpc-status", "0"));
    assert!(!peer.session.is_busy());
}

#[test]
fn padding_and_priorities_are_taken_off_wherever_they_may_be() {
    let mut peer = Peer::new();
    let block = block(&[]);
    let (first, rest) = block.split_at(20);
    let first = [&[3, 0, 0, 0, 0, 7][..], first, &[0; 3]].concat();
    let flags = frame::PADDED | frame::HAS_PRIORITY;
    peer.send(&sent(frame::HEADERS, flags, 1, &first)).expect("a part");
    peer.send(&sent(frame::CONTINUATION, 0, 1, &[])).expect("nothing");
    peer.send(&sent(frame::CONTINUATION, frame::END_HEADERS, 1, rest)).expect("the rest");
    let padded = [&[9][..], &message(b"spans"), &[0; 9]].concat();
    peer.send(&sent(frame::DATA, frame::PADDED | frame::END_STREAM, 1, &padded)).expect("data");
    assert_eq!(peer.requests(), [(1, b"spans".to_vec())]);

    // Padding of all there is, and of more.
    peer.send(&headers(3)).expect("a head");
    peer.send(&sent(frame::DATA, frame::PADDED, 3, &[4, 0, 0, 0, 0])).expect("no data");
    let more = peer.send(&sent(frame::DATA, frame::PADDED, 3, &[5, 0, 0, 0, 0]));
    assert_eq!(more, Err(ErrorCode::Protocol));
    let more = Peer::new().send(&sent(frame::HEADERS, 12, 1, &[9, 0x82]));
    assert_eq!(more, Err(ErrorCode::Protocol));
}

#[test]
fn trailers_end_a_request_and_those_that_come_late_are_passed_over() {
    let mut peer = Peer::new();
    let mut trailers = Vec::new();
    write_field("x", b"y", &mut trailers);
    let ending = frame::END_HEADERS | frame::END_STREAM;
    let body = sent(frame::DATA, 0, 1, &message(b"spans"));
    let call = [headers(1), body, sent(frame::HEADERS, ending, 1, &trailers)].concat();
    peer.send(&call).expect("a call");
    assert_eq!(peer.requests().len(), 1);
    peer.session.answer(1, Ok(Accepted::default()));
    peer.send(&sent(frame::HEADERS, ending, 1, &trailers)).expect("late");
    assert_eq!(peer.send(&headers(1)), Err(ErrorCode::StreamClosed), "a stream is used once");
}

#[test]
fn what_comes_behind_a_refusal_is_skipped_and_its_window_given_back() {
    let mut peer = Peer::new();
    peer.send(&headers(1)).expect("a head");
    let large = [&[0][..], &1_000_000_u32.to_be_bytes(), &[7; 60_000]].concat();
    peer.send(&sent(frame::DATA, 0, 1, &large)).expect("skipped");
    let [_update, refusal, reset] = &peer.frames()[..] else { panic!("three frames") };
    assert!(has(&refusal.3, "grpc-status", "8"), "{refusal:?}");
    assert_eq!(*reset, (frame::RST_STREAM, 0, 1, vec![0, 0, 0, 0]));
    assert_eq!((peer.refused(Reason::TooLarge), peer.share.bytes()), (1, 0));
    peer.send(&sent(frame::DATA, 0, 1, &[7; 60_000])).expect("skipped");
    let [(kind, _, stream, back)] = &peer.frames()[..] else { panic!("one frame") };
    assert_eq!((*kind, *stream), (frame::WINDOW_UPDATE, 0));
    assert_eq!(back[..], 120_005_u32.to_be_bytes());
}

#[test]
fn a_peer_keeps_to_its_windows_or_loses_stream_or_connection() {
    let mut peer = Peer::new();
    peer.send(&headers(1)).expect("a head");
    let part = [&message(&[0; 99_000])[..40_000], &[]].concat();
    peer.send(&sent(frame::DATA, 0, 1, &part)).expect("half of the window and more");
    let back = peer.frames();
    assert_eq!(back, [(frame::WINDOW_UPDATE, 0, 1, 40_000_u32.to_be_bytes().to_vec())]);
    // Ends are not worth an update.
    peer.send(&data(1, &vec![0; 59_005])).expect("the rest");
    let back = peer.frames();
    assert_eq!(back, [(frame::WINDOW_UPDATE, 0, 0, 99_005_u32.to_be_bytes().to_vec())]);
    assert_eq!(peer.requests().len(), 1);

    let mut window = super::Window::new(100);
    assert_eq!(window.take(49), Ok(None));
    assert_eq!(window.take(51), Ok(Some(100)));
    assert_eq!(window.take(101), Err(ErrorCode::FlowControl));
    assert_eq!(super::Window::new(0).take(0), Ok(None));
}

#[test]
fn answers_wait_for_the_windows_of_the_peer() {
    let mut peer = Peer::new();
    let window = |bytes: u32| [&[0, 4][..], &bytes.to_be_bytes()].concat();
    peer.send(&sent(frame::SETTINGS, 0, 0, &window(3))).expect("a window");
    peer.send(&[headers(1), data(1, &message(b"spans"))].concat()).expect("a call");
    peer.frames();
    peer.session.answer(1, Ok(Accepted::default()));
    let sizes = |frames: Vec<Frame>| -> Vec<_> {
        frames.iter().map(|(kind, _, _, payload)| (*kind, payload.len())).collect()
    };
    assert_eq!(sizes(peer.frames())[1..], [(frame::DATA, 3)]);
    assert_eq!(peer.session.requests_open(), 0, "it is answered, as far as idleness goes");
    // Below nothing, and up again by less than is missing: section 6.9.2.
    peer.send(&sent(frame::SETTINGS, 0, 0, &window(1))).expect("a window");
    peer.send(&sent(frame::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 2])).expect("an update");
    assert_eq!(sizes(peer.frames()), [(frame::SETTINGS, 0)]);
    peer.send(&sent(frame::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).expect("an update");
    assert_eq!(sizes(peer.frames()), [(frame::DATA, 1)]);
    peer.send(&sent(frame::SETTINGS, 0, 0, &window(100))).expect("a window");
    assert_eq!(
        peer.frames().last().map(|last| last.1),
        Some(frame::END_HEADERS | frame::END_STREAM)
    );
    assert!(!peer.session.is_busy());
}

#[test]
fn a_goodbye_is_said_twice_and_over_once_all_before_it_is_answered() {
    let mut peer = Peer::new();
    peer.send(&headers(1)).expect("a head");
    peer.session.drain();
    peer.session.drain();
    let [goaway, ping] = &peer.frames()[..] else { panic!("two frames") };
    assert_eq!(goaway.3[..4], frame::STREAM_MAX.to_be_bytes());
    // One that was on its way is served.
    peer.send(&[headers(3), data(3, &message(b"spans"))].concat()).expect("a call");
    peer.send(&sent(frame::PING, frame::ACK, 0, &ping.3)).expect("an answer");
    let goaway = [3_u32.to_be_bytes(), [0; 4]].concat();
    assert_eq!(peer.frames(), [(frame::GOAWAY, 0, 0, goaway)]);
    // One of later is not, and may be sent elsewhere.
    peer.send(&[headers(5), data(5, &message(b"spans"))].concat()).expect("ignored");
    assert_eq!(peer.requests().len(), 1);
    peer.session.answer(3, Ok(Accepted::default()));
    assert!(!peer.session.is_over());
    peer.send(&sent(frame::RST_STREAM, 0, 1, &[0, 0, 0, 8])).expect("given up");
    assert!(peer.session.is_over());
    // The other one is that of the request which was taken out and dropped.
    assert_eq!(peer.refused(Reason::Cancelled), 2);
}

#[test]
fn a_reset_request_is_counted_once_wherever_it_is() {
    let mut peer = Peer::new();
    let cancel = |stream| sent(frame::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    peer.send(&[headers(1), cancel(1)].concat()).expect("at its head");
    let half = sent(frame::DATA, 0, 3, &message(b"spans")[..8]);
    peer.send(&[headers(3), half, cancel(3)].concat()).expect("in its message");
    peer.send(&[headers(5), data(5, &message(b"spans")), cancel(5)].concat()).expect("whole");
    assert!(!peer.session.has(5));
    // Its account is closed by whoever takes it out.
    peer.requests();
    peer.session.answer(5, Err(Fault::budget()));
    peer.send(&headers(7)).expect("a head");
    drop(peer.session);
    assert_eq!(peer.counters.read(0).grpc.refused(Reason::Cancelled).requests, 4);
    assert_eq!(peer.share.bytes(), 0);
}

#[test]
fn what_takes_too_long_is_given_up_by_its_bytes_or_its_deadline() {
    let mut peer = Peer::new();
    let begun = Instant::now();
    let after = |seconds: u64| begun + Duration::from_secs(seconds);
    let body = sent(frame::DATA, 0, 1, &message(&[0; 99_000])[..5000]);
    peer.send(&[headers(1), body].concat()).expect("a part");
    // Thirty seconds, and one for each thousand bytes that came.
    assert_eq!(peer.session.give_up(begun), Some(after(35)));
    assert_eq!(peer.session.give_up(after(34)), Some(after(35)));
    assert_eq!(peer.session.give_up(after(35)), None);
    let frames = peer.frames();
    assert!(has(&frames[0].3, "grpc-status", "4"), "{frames:?}");
    assert_eq!((peer.refused(Reason::Timeout), peer.share.bytes()), (1, 0));

    let timed = block(&[("grpc-timeout", "2S")]);
    peer.send(&sent(frame::HEADERS, frame::END_HEADERS, 3, &timed)).expect("a head");
    let due = peer.session.give_up(Instant::now()).expect("a deadline");
    assert!(due <= Instant::now() + Duration::from_secs(2));
}

#[test]
fn the_first_block_of_a_connection_empties_the_table_whatever_it_answers() {
    for call in [headers(1), sent(frame::HEADERS, frame::END_HEADERS, 1, &crowded())] {
        let mut peer = Peer::new();
        peer.send(&[call, data(1, &[9; 5])].concat()).expect("refused");
        assert_eq!(peer.frames()[0].3[0], 0x20);
    }
}

/// A block whose list is over the limit, and not by so much that the connection ends.
fn crowded() -> Vec<u8> {
    block(&[("a", &"v".repeat(2000))])
}

#[test]
fn a_list_over_the_limit_is_answered_by_431_and_counted() {
    let mut peer = Peer::new();
    peer.send(&sent(frame::HEADERS, frame::END_HEADERS, 1, &crowded())).expect("refused");
    let frames = peer.frames();
    assert_eq!(fields(&frames[0].3), [(":status".to_owned(), "431".to_owned())]);
    assert_eq!(frames[1], (frame::RST_STREAM, 0, 1, vec![0; 4]));
    assert_eq!((peer.refused(Reason::Framing), peer.session.requests_open()), (1, 0));
}

/// How many times `frames` can be sent until the connection is ended.
fn endured(mut peer: Peer, frames: impl Fn(u32) -> Vec<u8>) -> u32 {
    (0..20_000)
        .find(|round| {
            let sent = peer.session.feed(&frames(*round));
            peer.requests();
            match sent {
                Ok(_) => false,
                Err(code) => {
                    assert_eq!(code, ErrorCode::EnhanceYourCalm);
                    true
                }
            }
        })
        .unwrap_or(u32::MAX)
}

#[test]
fn what_brings_no_request_on_its_way_ends_the_connection_in_the_end() {
    let ending = frame::END_HEADERS | frame::END_STREAM;
    let late = sent(frame::HEADERS, ending, 1, &block(&[]));
    let mut peer = Peer::new();
    peer.send(&[headers(1), data(1, b"")].concat()).expect("refused");
    assert!(endured(peer, |_| late.clone()) <= 10_000, "headers of closed streams");

    let mut peer = Peer::new();
    peer.session.drain();
    let ping = peer.frames()[1].3.clone();
    peer.send(&sent(frame::PING, frame::ACK, 0, &ping)).expect("an answer");
    assert!(endured(peer, |n| headers(2 * n + 1)) <= 10_000, "headers behind the goodbye");

    let wrong = |n| sent(frame::HEADERS, frame::END_HEADERS, 2 * n + 1, b"\x82\x84\x86");
    assert!(endured(Peer::new(), wrong) <= 1000, "requests that are never served");
    let reset = |n| [headers(2 * n + 1), sent(frame::RST_STREAM, 0, 2 * n + 1, &[0; 4])].concat();
    assert!(endured(Peer::new(), reset) <= 1000, "streams begun and reset");
}

#[test]
fn a_block_pays_for_what_it_stands_for_and_an_ordinary_one_pays_nothing() {
    let mut patience = crate::h2::patience::Patience::default();
    for _ in 0..100_000 {
        patience.tire_of_fields(1000).expect("an ordinary list");
    }
    let large = (0..).take_while(|_| patience.tire_of_fields(64 << 10).is_ok()).count();
    assert_eq!(large, 10_000 / 16);
}

#[test]
fn a_peer_whose_calls_all_end_late_or_for_want_of_room_goes_on() {
    let mut peer = Peer::new();
    for stream in (1..20_000).step_by(2) {
        peer.send(&[headers(stream), data(stream, &message(b"spans"))].concat()).expect("a call");
        assert_eq!(peer.requests().len(), 1);
        peer.session.answer(stream, Err(Fault::budget()));
        // It had given up just then.
        peer.send(&sent(frame::RST_STREAM, 0, stream, &[0; 4])).expect("crossed");
        peer.frames();
    }
}

#[test]
fn last_words_name_no_stream_behind_the_goodbye_and_an_error_of_the_peer_ends_it() {
    let mut peer = Peer::new();
    peer.session.drain();
    let ping = peer.frames()[1].3.clone();
    peer.send(&sent(frame::PING, frame::ACK, 0, &ping)).expect("an answer");
    peer.send(&headers(7)).expect("ignored");
    peer.frames();
    peer.session.end(ErrorCode::Protocol);
    assert_eq!(peer.frames()[0].3[..4], [0; 4]);

    let goaway =
        |code: u8| sent(frame::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, code, b'w', b'h', b'y']);
    assert_eq!(Peer::new().send(&goaway(0)), Ok(()));
    assert_eq!(Peer::new().send(&goaway(9)), Err(ErrorCode::NoError));
}

#[test]
fn an_answer_larger_than_a_frame_goes_out_in_frames_that_any_peer_takes() {
    let mut peer = Peer::new();
    peer.send(&[headers(1), data(1, &message(b"spans"))].concat()).expect("a call");
    peer.requests();
    let long = Accepted { rejected_spans: 1, message: "why ".repeat(10_000) };
    peer.session.answer(1, Ok(long));
    let frames = peer.frames();
    assert!(frames.iter().all(|frame| frame.3.len() <= frame::PAYLOAD_BYTES_MAX));
    let body: Vec<u8> =
        frames.iter().filter(|it| it.0 == frame::DATA).flat_map(|it| it.3.clone()).collect();
    let length = u32::from_be_bytes([body[1], body[2], body[3], body[4]]);
    assert_eq!(body.len(), 5 + length as usize);
    assert!(!peer.session.is_busy());
}

#[test]
fn a_length_that_is_told_must_be_kept() {
    let mut peer = Peer::new();
    for (stream, length, reason) in [(1, "10", None), (3, "11", Some(Reason::Framing))] {
        let block = block(&[("content-length", length)]);
        let head = sent(frame::HEADERS, frame::END_HEADERS, stream, &block);
        peer.send(&[head, data(stream, &message(b"spans"))].concat()).expect("a call");
        assert_eq!(peer.requests().len(), usize::from(reason.is_none()));
    }
    assert_eq!(peer.refused(Reason::Framing), 1);
}

/// RFC 9113 sections 4 to 6: errors of the connection.
#[test]
fn frames_that_break_the_protocol_end_the_connection_by_the_code_of_the_rfc() {
    let one = [0, 0, 0, 1];
    let setting = |id: u8, value: u32| {
        sent(frame::SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat())
    };
    let headers_of = |flags, stream| sent(frame::HEADERS, flags, stream, &block(&[]));
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("DATA on no stream", sent(frame::DATA, 0, 0, b"x"), ErrorCode::Protocol),
        ("DATA on an idle stream", sent(frame::DATA, 0, 1, b"x"), ErrorCode::Protocol),
        ("HEADERS on no stream", headers_of(frame::END_HEADERS, 0), ErrorCode::Protocol),
        ("HEADERS on a server's", headers_of(frame::END_HEADERS, 2), ErrorCode::Protocol),
        ("HEADERS of nonsense", sent(frame::HEADERS, 4, 1, b"\x80"), ErrorCode::Compression),
        ("HEADERS, then another", [headers_of(0, 1), headers(3)].concat(), ErrorCode::Protocol),
        ("HEADERS, then DATA", [headers_of(0, 1), data(1, b"")].concat(), ErrorCode::Protocol),
        ("a lower stream", [headers(3), headers(1)].concat(), ErrorCode::StreamClosed),
        ("CONTINUATION of nothing", sent(frame::CONTINUATION, 4, 1, b""), ErrorCode::Protocol),
        ("RST_STREAM on an idle one", sent(frame::RST_STREAM, 0, 1, &one), ErrorCode::Protocol),
        ("RST_STREAM of no size", sent(frame::RST_STREAM, 0, 1, b""), ErrorCode::FrameSize),
        ("PRIORITY on no stream", sent(frame::PRIORITY, 0, 0, &[0; 5]), ErrorCode::Protocol),
        ("SETTINGS on a stream", sent(frame::SETTINGS, 0, 1, b""), ErrorCode::Protocol),
        ("SETTINGS in part", sent(frame::SETTINGS, 0, 0, b"12345"), ErrorCode::FrameSize),
        ("an ACK with SETTINGS", sent(frame::SETTINGS, 1, 0, &[0; 6]), ErrorCode::FrameSize),
        ("push of 2", setting(2, 2), ErrorCode::Protocol),
        ("a window of 2^31", setting(4, 1 << 31), ErrorCode::FlowControl),
        ("frames of 16,383", setting(5, (1 << 14) - 1), ErrorCode::Protocol),
        ("frames of 2^24", setting(5, 1 << 24), ErrorCode::Protocol),
        ("PUSH_PROMISE", sent(frame::PUSH_PROMISE, 0, 1, &one), ErrorCode::Protocol),
        ("PING on a stream", sent(frame::PING, 0, 1, &[0; 8]), ErrorCode::Protocol),
        ("PING of seven", sent(frame::PING, 0, 0, &[0; 7]), ErrorCode::FrameSize),
        ("GOAWAY on a stream", sent(frame::GOAWAY, 0, 1, &[0; 8]), ErrorCode::Protocol),
        ("a window of nothing", sent(frame::WINDOW_UPDATE, 0, 0, &[0; 4]), ErrorCode::Protocol),
        (
            "a window too far",
            sent(frame::WINDOW_UPDATE, 0, 0, &[0x7F, 255, 255, 255]),
            ErrorCode::FlowControl,
        ),
        ("a window of an idle one", sent(frame::WINDOW_UPDATE, 0, 1, &one), ErrorCode::Protocol),
        ("a frame too large", vec![1, 0, 1, frame::DATA, 0, 0, 0, 0, 1], ErrorCode::FrameSize),
        ("headers too large", sent(frame::HEADERS, 0, 1, &[0; 4001]), ErrorCode::EnhanceYourCalm),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(Peer::new().session.feed(&bytes).err(), Some(code), "{what}");
    }
    for start in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nsm\r\n\r\n"] {
        assert_eq!(Peer::silent().session.feed(start), Err(ErrorCode::Protocol));
    }
    let other = [&frame::PREFACE[..], &sent(frame::PING, 0, 0, &[0; 8])].concat();
    assert_eq!(Peer::silent().session.feed(&other), Err(ErrorCode::Protocol));
}

/// RFC 9113 section 5.4.2: errors of a stream.
#[test]
fn what_is_wrong_with_a_stream_ends_that_stream_alone() {
    let malformed = |more| sent(frame::HEADERS, frame::END_HEADERS, 1, &block(more));
    let call = [headers(1), data(1, &message(b"spans"))].concat();
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("a pseudo-field of answers", malformed(&[(":status", "200")]), ErrorCode::Protocol),
        ("a field of connections", malformed(&[("connection", "close")]), ErrorCode::Protocol),
        (
            "a window too far",
            [headers(1), sent(frame::WINDOW_UPDATE, 0, 1, &[0x7F, 255, 255, 255])].concat(),
            ErrorCode::FlowControl,
        ),
        (
            "a window of nothing",
            [headers(1), sent(frame::WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            ErrorCode::Protocol,
        ),
        ("trailers that do not end", [headers(1), headers(1)].concat(), ErrorCode::Protocol),
        ("DATA behind the end", [call.clone(), data(1, b"x")].concat(), ErrorCode::StreamClosed),
        ("HEADERS behind the end", [call, headers(1)].concat(), ErrorCode::StreamClosed),
    ];
    for (what, bytes, code) in cases {
        let mut peer = Peer::new();
        peer.send(&bytes).expect("the connection goes on");
        let reset = (frame::RST_STREAM, 0, 1, (code as u32).to_be_bytes().to_vec());
        assert!(peer.frames().contains(&reset), "{what}");
        assert!(!peer.session.has(1), "{what}");
        peer.send(&[headers(3), data(3, &message(b"spans"))].concat()).expect("another call");
        assert!(peer.requests().iter().any(|(id, _)| *id == 3), "{what}");
    }
    let mut peer = Peer::new();
    for stream in [1, 3, 5, 7, 9] {
        peer.send(&headers(stream)).expect("a head");
    }
    let refused = (frame::RST_STREAM, 0, 9, vec![0, 0, 0, ErrorCode::RefusedStream as u8]);
    assert_eq!(peer.frames(), [refused], "four streams and no more");
}

/// Frames as peers send them, and as they do not.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = 0..8_u32;
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => stream.clone().prop_map(headers),
        4 => (stream.clone(), 0..3000_usize).prop_map(|(id, n)| data(id, &message(&vec![7; n]))),
        4 => (stream.clone(), any::<bool>(), 0..3000_usize).prop_map(|(id, pads, n)| {
            sent(frame::DATA, if pads { frame::PADDED } else { 0 }, id, &message(&vec![1; n])[..n.min(1500) + 5 - n.min(5)])
        }),
        1 => (stream.clone(), any::<[u8; 4]>()).prop_map(|(id, code)| sent(frame::RST_STREAM, 0, id, &code)),
        1 => (stream.clone(), 0..1_u32 << 31).prop_map(|(id, n)| sent(frame::WINDOW_UPDATE, 0, id, &n.to_be_bytes())),
        1 => any::<[u8; 8]>().prop_map(|ping| sent(frame::PING, 0, 0, &ping)),
        1 => (0..10_u8, 0..100_000_u32).prop_map(|(id, n)| sent(frame::SETTINGS, 0, 0, &[&[0, id][..], &n.to_be_bytes()].concat())),
        1 => (any::<u8>(), any::<u8>(), stream, payload).prop_map(|(kind, flags, id, payload)| sent(kind % 12, flags, id, &payload)),
    ]
}

/// What a connection comes to: its requests, what came out, and its end.
type Fate = (Vec<(u32, Vec<u8>)>, Vec<u8>, Option<ErrorCode>);

fn fate(bytes: &[u8], steps: &[usize], reads_in_place: bool) -> Fate {
    let mut peer = Peer::silent();
    let (mut rest, mut seen, mut requests) = (bytes, Vec::new(), Vec::new());
    let mut steps = steps.iter().copied().cycle();
    while !rest.is_empty() {
        let step = steps.next().unwrap_or(1).min(rest.len());
        let room = (reads_in_place && seen.is_empty()).then(|| peer.session.room(1)).flatten();
        let placed = room.map(|mut room| {
            let step = step.min(room.remaining_mut());
            room.put_slice(&rest[..step]);
            step
        });
        match placed {
            Some(placed) => peer.session.filled(placed),
            None => seen.extend_from_slice(&rest[..step]),
        }
        rest = &rest[placed.unwrap_or(step)..];
        let fed = peer.session.feed(&seen);
        // Answered later, as answers would come earlier in one cut than in another.
        requests.extend(peer.requests());
        match fed {
            Ok(taken) => drop(seen.drain(..taken)),
            Err(code) => return (requests, peer.session.out.clone(), Some(code)),
        }
        assert!(seen.len() <= 5000, "no more than a frame that is looked at as a whole");
    }
    let open = peer.session.requests_open();
    assert!(open <= LIMITS.streams_max);
    let (begun, share) = (peer.session.requests_begun, Arc::clone(&peer.share));
    let out = peer.session.out.clone();
    drop(peer.session);
    let stats = peer.counters.read(0).grpc;
    assert_eq!(stats.refused_in_all().requests, begun, "each one's account is closed, and once");
    assert_eq!((stats.requests_accepted, share.bytes()), (0, 0));
    (requests, out, None)
}

proptest! {
    #[test]
    fn frames_mean_the_same_however_they_are_cut_and_read(
        frames in prop::collection::vec(any_frame(), 0..30),
        steps in prop::collection::vec(1..5000_usize, 1..8),
        reads_in_place: bool,
    ) {
        let bytes = [preface(), frames.concat()].concat();
        let whole = fate(&bytes, &[usize::MAX], false);
        prop_assert_eq!(fate(&bytes, &steps, reads_in_place), whole);
    }

    #[test]
    fn whatever_comes_is_taken_in_or_ends_the_connection(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        step in 1..100_usize,
    ) {
        fate(&[preface(), bytes].concat(), &[step], true);
    }
}
