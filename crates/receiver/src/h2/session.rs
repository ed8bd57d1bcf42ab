//! One connection's side of HTTP/2: bytes in, requests and bytes out. It has no socket and no timer.

use std::sync::Arc;

use bytes::BufMut;

use super::fields::Fields;
use super::frame::{self, ErrorCode, Head};
use super::hpack::{self, Decoder, Unread, write_status};
use super::patience::{Cost, Patience};
use crate::budget::Share;
use crate::grpc::{Call, Request};
use crate::stats::{Counters, Reason};

mod answers;
mod block;
mod limits;
mod stream;
#[cfg(test)]
mod tests;

use block::Block;
pub(super) use limits::Limits;
pub(super) use stream::Work;
use stream::{State, Stream, Window};

/// The state of a connection.
pub(super) struct Session {
    limits: Limits,
    share: Arc<Share>,
    counters: Arc<Counters>,
    /// What the next bytes are.
    next: Next,
    /// Whether the peer's first SETTINGS are here.
    is_settled: bool,
    fields: Decoder,
    block: Option<Block>,
    /// In the order of their numbers.
    streams: Vec<Stream>,
    stream_last: u32,
    received: Window,
    /// What may be sent on all streams together, and on a new one.
    sendable: i64,
    stream_sendable: i64,
    patience: Patience,
    goodbye: Goodbye,
    /// Those that were more than a stream refused or reset at once.
    pub(super) requests_begun: u64,
    /// Those whose message is here, to be taken out.
    pub(super) requests: Vec<(u32, Request)>,
    /// What is to be sent, appended to.
    pub(super) out: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Preface,
    Head,
    /// A payload that is looked at as a whole.
    Whole(Head),
    /// The length of what ends a DATA frame.
    Padding {
        stream: u32,
        bytes: usize,
        ends: bool,
    },
    Data {
        stream: u32,
        bytes: usize,
        padding: usize,
        ends: bool,
    },
    Block {
        bytes: usize,
    },
    /// Nothing that is looked at.
    Skip {
        bytes: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    NotYet,
    /// The peer was told; what it sent before it heard of it is taken.
    Announced,
    /// No stream after this one.
    After(u32),
}

impl Session {
    pub(super) fn new(limits: Limits, share: Arc<Share>, counters: Arc<Counters>) -> Self {
        let mut session = Self {
            limits,
            share,
            counters,
            next: Next::Preface,
            is_settled: false,
            fields: Decoder::new(),
            block: None,
            streams: Vec::new(),
            stream_last: 0,
            received: Window::new(limits.connection_window_bytes),
            sendable: frame::WINDOW_BYTES_INITIAL.into(),
            stream_sendable: frame::WINDOW_BYTES_INITIAL.into(),
            patience: Patience::default(),
            goodbye: Goodbye::NotYet,
            requests_begun: 0,
            requests: Vec::new(),
            out: Vec::new(),
        };
        session.introduce();
        session
    }

    fn introduce(&mut self) {
        let limits = self.limits;
        let settings = [
            (frame::MAX_CONCURRENT_STREAMS, limits.streams_max as u32),
            (frame::INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
            (frame::MAX_FRAME_SIZE, limits.frame_bytes_max),
            (frame::MAX_HEADER_LIST_SIZE, limits.header_bytes_max as u32),
        ];
        let mut payload = Vec::with_capacity(6 * settings.len());
        for (id, value) in settings {
            payload.put_u16(id);
            payload.put_u32(value);
        }
        frame::write(frame::SETTINGS, 0, 0, &payload, &mut self.out);
        let more = limits.connection_window_bytes - frame::WINDOW_BYTES_INITIAL;
        if more > 0 {
            self.give_back(0, more);
        }
    }

    /// Takes in what it can of `input`, and tells how much that was: the rest is the start of
    /// something that must be seen as a whole.
    ///
    /// # Errors
    ///
    /// The connection must end with [`end`](Self::end).
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<usize, ErrorCode> {
        let mut rest = input;
        loop {
            match self.next {
                Next::Preface => {
                    let seen = rest.len().min(frame::PREFACE.len());
                    if rest[..seen] != frame::PREFACE[..seen] {
                        return Err(ErrorCode::Protocol);
                    }
                    if seen < frame::PREFACE.len() {
                        break;
                    }
                    rest = &rest[seen..];
                    self.next = Next::Head;
                }
                Next::Head => {
                    let Some((head, payload)) = rest.split_first_chunk() else { break };
                    rest = payload;
                    self.next = self.begin(Head::read(*head))?;
                }
                Next::Whole(head) => {
                    let Some((payload, further)) = rest.split_at_checked(head.bytes) else { break };
                    rest = further;
                    self.next = Next::Head;
                    self.whole(head, payload)?;
                }
                Next::Padding { stream, bytes, ends } => {
                    let Some((padding, further)) = rest.split_first() else { break };
                    rest = further;
                    let padding = usize::from(*padding);
                    let bytes = bytes.checked_sub(padding).ok_or(ErrorCode::Protocol)?;
                    self.next = Next::Data { stream, bytes, padding, ends };
                }
                Next::Data { bytes: 0, .. } => self.data_ended(),
                Next::Data { bytes, .. } => {
                    let (data, further) = rest.split_at(bytes.min(rest.len()));
                    if data.is_empty() {
                        break;
                    }
                    rest = further;
                    self.data(data)?;
                }
                Next::Block { bytes } => {
                    let (part, further) = rest.split_at(bytes.min(rest.len()));
                    if part.is_empty() && bytes > 0 {
                        break;
                    }
                    rest = further;
                    self.block_part(part, bytes - part.len())?;
                }
                Next::Skip { bytes: 0 } => self.next = Next::Head,
                Next::Skip { bytes } => {
                    if rest.is_empty() {
                        break;
                    }
                    let skipped = bytes.min(rest.len());
                    rest = &rest[skipped..];
                    self.next = Next::Skip { bytes: bytes - skipped };
                }
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Where the next bytes may be read to, if they belong to a message and are at least `least`.
    pub(super) fn room(&mut self, least: usize) -> Option<impl BufMut> {
        let Next::Data { stream, bytes, .. } = self.next else { return None };
        let place = self.find(stream)?;
        let State::Arriving(arriving) = &mut self.streams[place].state else { return None };
        arriving.message.room(bytes, least)
    }

    /// Takes note that bytes were read to that [`room`](Self::room).
    pub(super) fn filled(&mut self, read: usize) {
        if let Next::Data { stream, bytes, .. } = &mut self.next {
            *bytes -= read;
            let (stream, is_over) = (*stream, *bytes == 0);
            if let Some(place) = self.find(stream)
                && let State::Arriving(arriving) = &mut self.streams[place].state
            {
                arriving.arrived += read as u64;
            }
            if is_over {
                self.data_ended();
            }
        }
    }

    /// Judges a frame by its head.
    fn begin(&mut self, head: Head) -> Result<Next, ErrorCode> {
        if head.bytes > self.limits.frame_bytes_max as usize {
            return Err(ErrorCode::FrameSize);
        }
        let continues = self.block.as_ref().map(|block| block.head.stream);
        let is_continuation = head.kind == frame::CONTINUATION;
        if continues.is_some() != is_continuation || continues.is_some_and(|id| id != head.stream) {
            return Err(ErrorCode::Protocol);
        }
        if !self.is_settled && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
            return Err(ErrorCode::Protocol);
        }
        let of_connection = matches!(head.kind, frame::SETTINGS | frame::PING | frame::GOAWAY);
        let of_stream =
            matches!(head.kind, frame::DATA | frame::HEADERS | frame::PRIORITY | frame::RST_STREAM);
        if of_connection && head.stream != 0 || of_stream && head.stream == 0 {
            return Err(ErrorCode::Protocol);
        }
        let whole = |is_sized: bool| match is_sized {
            true => Ok(Next::Whole(head)),
            false => Err(ErrorCode::FrameSize),
        };
        match head.kind {
            frame::DATA => self.begin_data(head),
            frame::HEADERS | frame::CONTINUATION => self.begin_block(head),
            frame::RST_STREAM | frame::WINDOW_UPDATE => whole(head.bytes == 4),
            frame::PING => whole(head.bytes == 8),
            // What it says beyond its code is not wanted.
            frame::GOAWAY if head.bytes <= SETTINGS_BYTES_MAX => whole(head.bytes >= 8),
            frame::SETTINGS if head.bytes > SETTINGS_BYTES_MAX => Err(ErrorCode::EnhanceYourCalm),
            frame::SETTINGS => {
                whole(head.bytes.is_multiple_of(6) && (!head.has(frame::ACK) || head.bytes == 0))
            }
            frame::PUSH_PROMISE => Err(ErrorCode::Protocol),
            // Priorities are of the past, and unknown frames are passed over.
            _ => {
                self.patience.tire(Cost::Frame)?;
                Ok(Next::Skip { bytes: head.bytes })
            }
        }
    }

    fn begin_data(&mut self, head: Head) -> Result<Next, ErrorCode> {
        let (id, ends) = (head.stream, head.has(frame::END_STREAM));
        self.known(id)?;
        if head.bytes < DATA_BYTES_LEAST && !ends {
            self.patience.tire(Cost::Frame)?;
        }
        if let Some(back) = self.received.take(head.bytes)? {
            self.give_back(0, back);
        }
        let skip = Next::Skip { bytes: head.bytes };
        let Some(place) = self.find(id) else {
            // It was answered or reset before its end.
            return Ok(skip);
        };
        let State::Arriving(arriving) = &mut self.streams[place].state else {
            self.reset(id, ErrorCode::StreamClosed)?;
            return Ok(skip);
        };
        match arriving.received.take(head.bytes) {
            Err(code) => {
                self.reset(id, code)?;
                return Ok(skip);
            }
            Ok(Some(back)) if !ends => self.give_back(id, back),
            Ok(_) => {}
        }
        if !head.has(frame::PADDED) {
            return Ok(Next::Data { stream: id, bytes: head.bytes, padding: 0, ends });
        }
        let bytes = head.bytes.checked_sub(1).ok_or(ErrorCode::FrameSize)?;
        Ok(Next::Padding { stream: id, bytes, ends })
    }

    fn data(&mut self, data: &[u8]) -> Result<(), ErrorCode> {
        let Next::Data { stream, bytes, padding, .. } = &mut self.next else { return Ok(()) };
        *bytes -= data.len();
        let (stream, after) = (*stream, *bytes + *padding);
        let Some(place) = self.find(stream) else { return Ok(()) };
        let State::Arriving(arriving) = &mut self.streams[place].state else { return Ok(()) };
        arriving.arrived += data.len() as u64;
        let pushed = arriving.message.push(data, self.limits.request_bytes_max, &self.share);
        match pushed {
            Ok(()) => Ok(()),
            Err(fault) => {
                self.next = Next::Skip { bytes: after };
                self.refuse(place, &fault, false)
            }
        }
    }

    fn data_ended(&mut self) {
        let Next::Data { stream, padding, ends, .. } = self.next else { return };
        self.next = Next::Skip { bytes: padding };
        if let Some(place) = self.find(stream).filter(|_| ends) {
            self.ended(place);
        }
    }

    fn begin_block(&mut self, head: Head) -> Result<Next, ErrorCode> {
        match &mut self.block {
            Some(block) => {
                self.patience.tire(Cost::Stream)?;
                block.is_last = head.has(frame::END_HEADERS);
            }
            None => {
                if head.stream.is_multiple_of(2) {
                    return Err(ErrorCode::Protocol);
                }
                let (is_last, bytes) = (head.has(frame::END_HEADERS), Vec::new());
                self.block = Some(Block { head, is_last, bytes, first_bytes: head.bytes });
            }
        }
        Ok(Next::Block { bytes: head.bytes })
    }

    fn block_part(&mut self, part: &[u8], left: usize) -> Result<(), ErrorCode> {
        self.next = Next::Block { bytes: left };
        let Some(mut block) = self.block.take() else { return Err(ErrorCode::Protocol) };
        if block.bytes.len() + part.len() + left > self.limits.header_bytes_max * HEADERS_MAX {
            return Err(ErrorCode::EnhanceYourCalm);
        }
        block.bytes.extend_from_slice(part);
        if left == 0 {
            self.next = Next::Head;
            if block.is_last {
                return self.headers(block.head, block.whole()?);
            }
        }
        self.block = Some(block);
        Ok(())
    }

    fn headers(&mut self, head: Head, block: Vec<u8>) -> Result<(), ErrorCode> {
        let (id, ends) = (head.stream, head.has(frame::END_STREAM));
        let mut call = Call::default();
        let mut fields = Fields::default();
        let bytes_max = self.limits.header_bytes_max;
        let read = self.fields.read(&block, |name, value| {
            fields.note(name, value);
            if fields.bytes <= bytes_max {
                call.field(name, value);
            }
            fields.bytes <= bytes_max * HEADERS_MAX
        });
        match read {
            Ok(()) => {}
            Err(Unread::Malformed) => return Err(ErrorCode::Compression),
            Err(Unread::Unwanted) => return Err(ErrorCode::EnhanceYourCalm),
        }
        self.patience.tire_of_fields(fields.bytes)?;
        if let Some(place) = self.find(id) {
            // Trailers, which say nothing that is wanted.
            return match self.streams[place].state {
                State::Arriving(_) if ends => {
                    self.ended(place);
                    Ok(())
                }
                State::Arriving(_) => self.reset(id, ErrorCode::Protocol),
                State::Working { .. } | State::Answering { .. } => {
                    self.reset(id, ErrorCode::StreamClosed)
                }
            };
        }
        if id <= self.stream_last {
            // Trailers may have been on their way while the stream was answered or reset.
            return if ends {
                self.patience.tire(Cost::Frame)
            } else {
                Err(ErrorCode::StreamClosed)
            };
        }
        self.stream_last = id;
        if let Goodbye::After(last) = self.goodbye
            && id > last
        {
            return self.patience.tire(Cost::Frame);
        }
        if self.streams.len() >= self.limits.streams_max {
            return self.reset(id, ErrorCode::RefusedStream);
        }
        if !fields.is_request() {
            return self.reset(id, ErrorCode::Protocol);
        }
        self.open(id, call, &fields);
        let place = self.streams.len() - 1;
        if fields.bytes > bytes_max {
            if let Some(Stream { state: State::Arriving(arriving), .. }) = self.streams.pop() {
                arriving.tally.refused(Reason::Framing);
            }
            let mut block = hpack::block();
            write_status(431, &mut block);
            self.write_last(id, &block, ends);
            return Ok(());
        }
        let State::Arriving(arriving) = &mut self.streams[place].state else { return Ok(()) };
        let served = arriving.call.deadline().and_then(|deadline| {
            arriving.deadline = deadline;
            arriving.call.check()
        });
        match served {
            Err(fault) => self.refuse(place, &fault, ends),
            Ok(()) if ends => {
                self.ended(place);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn whole(&mut self, head: Head, payload: &[u8]) -> Result<(), ErrorCode> {
        match head.kind {
            frame::SETTINGS if head.has(frame::ACK) => self.patience.tire(Cost::Frame),
            frame::SETTINGS => self.settings(payload),
            frame::PING if head.has(frame::ACK) => {
                if payload == LAST_PING && self.goodbye == Goodbye::Announced {
                    self.goodbye = Goodbye::After(self.stream_last);
                    self.write_goaway(self.stream_last, ErrorCode::NoError);
                }
                Ok(())
            }
            frame::PING => {
                frame::write(frame::PING, frame::ACK, 0, payload, &mut self.out);
                self.patience.tire(Cost::Frame)
            }
            // A peer that has finished opens no more streams; one that found an error hears no answers.
            frame::GOAWAY if payload[4..8] != [0; 4] => Err(ErrorCode::NoError),
            frame::GOAWAY => Ok(()),
            frame::RST_STREAM => {
                self.known(head.stream)?;
                let Some(place) = self.find(head.stream) else {
                    // Its answer may have crossed this on its way.
                    return self.patience.tire(Cost::Frame);
                };
                // Work on it ends, and its account says so.
                self.streams.remove(place);
                self.patience.tire(Cost::Stream)
            }
            _ => {
                let [a, b, c, d] = *payload else { return Err(ErrorCode::FrameSize) };
                let more = u32::from_be_bytes([a, b, c, d]) & frame::STREAM_MAX;
                self.patience.tire(Cost::Frame)?;
                self.window_update(head.stream, more.into())
            }
        }
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), ErrorCode> {
        let mut window = self.stream_sendable;
        for setting in payload.chunks_exact(6) {
            let [i0, i1, v0, v1, v2, v3] = *setting else { continue };
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                frame::ENABLE_PUSH if value > 1 => return Err(ErrorCode::Protocol),
                frame::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(ErrorCode::Protocol);
                }
                frame::INITIAL_WINDOW_SIZE if value > frame::STREAM_MAX => {
                    return Err(ErrorCode::FlowControl);
                }
                frame::INITIAL_WINDOW_SIZE => window = value.into(),
                _ => {}
            }
        }
        let more = window - self.stream_sendable;
        self.stream_sendable = window;
        for stream in &mut self.streams {
            stream.sendable += more;
            if stream.sendable > frame::STREAM_MAX.into() {
                return Err(ErrorCode::FlowControl);
            }
        }
        self.is_settled = true;
        frame::write(frame::SETTINGS, frame::ACK, 0, &[], &mut self.out);
        self.send_on();
        self.patience.tire(Cost::Frame)
    }

    fn window_update(&mut self, id: u32, more: i64) -> Result<(), ErrorCode> {
        let most = i64::from(frame::STREAM_MAX);
        if id == 0 {
            self.sendable += more;
            return match (more, self.sendable) {
                (0, _) => Err(ErrorCode::Protocol),
                (_, sendable) if sendable > most => Err(ErrorCode::FlowControl),
                _ => {
                    self.send_on();
                    Ok(())
                }
            };
        }
        self.known(id)?;
        let Some(place) = self.find(id) else { return Ok(()) };
        let stream = &mut self.streams[place];
        stream.sendable += more;
        match (more, stream.sendable) {
            (0, _) => self.reset(id, ErrorCode::Protocol),
            (_, sendable) if sendable > most => self.reset(id, ErrorCode::FlowControl),
            _ => {
                self.send(place);
                Ok(())
            }
        }
    }

    fn write_goaway(&mut self, last: u32, code: ErrorCode) {
        let payload = [last.to_be_bytes(), (code as u32).to_be_bytes()].concat();
        frame::write(frame::GOAWAY, 0, 0, &payload, &mut self.out);
    }

    /// Asks the peer whether it is there.
    pub(super) fn ping(&mut self) {
        frame::write(frame::PING, 0, 0, b"spanwire", &mut self.out);
    }

    /// Lets a peer have its patience back, as time has passed.
    pub(super) fn rest(&mut self) {
        self.patience = Patience::default();
    }

    /// Says goodbye: streams that the peer opens before it hears of it are still served. The ping
    /// comes back once it has.
    pub(super) fn drain(&mut self) {
        if self.goodbye == Goodbye::NotYet {
            self.goodbye = Goodbye::Announced;
            self.write_goaway(frame::STREAM_MAX, ErrorCode::NoError);
            frame::write(frame::PING, 0, 0, LAST_PING, &mut self.out);
        }
    }

    /// Whether goodbye was said, and everything before it is answered.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.goodbye, Goodbye::After(_)) && self.streams.is_empty()
    }

    /// The connection's last words, after an error of the peer's.
    pub(super) fn end(&mut self, code: ErrorCode) {
        let last = match self.goodbye {
            Goodbye::After(last) => last,
            Goodbye::NotYet | Goodbye::Announced => self.stream_last,
        };
        self.write_goaway(last, code);
    }

    fn find(&self, id: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    /// Whether a stream of this number was ever opened: by the peer, that is.
    fn known(&self, id: u32) -> Result<(), ErrorCode> {
        match !id.is_multiple_of(2) && id <= self.stream_last {
            true => Ok(()),
            false => Err(ErrorCode::Protocol),
        }
    }
}

/// What is read of header fields before the connection is ended, over what a request may have.
const HEADERS_MAX: usize = 4;

/// A frame of less is hardly worth its head.
const DATA_BYTES_LEAST: usize = 64;

/// Six settings of six bytes are defined; a peer may send others, or the same again.
const SETTINGS_BYTES_MAX: usize = 4096;

const LAST_PING: &[u8; 8] = b"goodbye!";
