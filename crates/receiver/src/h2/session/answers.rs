//! From the end of a request to the end of its answer.

use std::time::Duration;

use tokio::time::Instant;

use super::Session;
use super::stream::{Arriving, State, Stream, Window, Work};
use crate::body::{Pace, too_slow};
use crate::fault::Fault;
use crate::grpc::{self, Call, Request};
use crate::h2::fields::Fields;
use crate::h2::frame::{self, ErrorCode};
use crate::h2::hpack;
use crate::h2::patience::Cost;
use crate::message::Message;
use crate::sink::{Accepted, Transport};
use crate::stats::{Reason, Tally};

impl Session {
    /// The peer has ended its side.
    pub(super) fn ended(&mut self, place: usize) {
        let stream = &mut self.streams[place];
        let State::Arriving(arriving) =
            std::mem::replace(&mut stream.state, State::Working { _task: None })
        else {
            return;
        };
        let Arriving { call, message, tally, deadline, content_length, arrived, .. } = *arriving;
        let whole = match content_length.is_none_or(|length| length == arrived) {
            true => message.end(),
            false => Err(Fault::new(Reason::Framing, "content-length tells another length")),
        };
        match whole {
            Ok((is_compressed, wire)) => {
                let request = Request { call, deadline, is_compressed, wire, tally };
                self.requests.push((stream.id, request));
            }
            Err(fault) => {
                tally.refused(fault.reason);
                self.fail(place, &fault, true);
            }
        }
    }

    pub(super) fn open(&mut self, id: u32, call: Call, fields: &Fields) {
        self.requests_begun += 1;
        let window = self.limits.stream_window_bytes;
        let arriving = Arriving {
            call,
            message: Message::default(),
            tally: Tally::open(&self.counters, Transport::Grpc),
            deadline: None,
            received: Window::new(window),
            content_length: fields.content_length,
            arrived: 0,
            since: None,
        };
        let state = State::Arriving(Box::new(arriving));
        self.streams.push(Stream { id, state, sendable: self.stream_sendable });
    }

    /// Whether a stream is still there to be answered.
    pub(in crate::h2) fn has(&self, id: u32) -> bool {
        self.find(id).is_some()
    }

    /// Ties work to the life of its stream.
    pub(in crate::h2) fn works(&mut self, id: u32, work: Work) {
        if let Some(place) = self.find(id) {
            self.streams[place].state = State::Working { _task: Some(work) };
        }
    }

    /// Answers a request, unless its stream was reset.
    pub(in crate::h2) fn answer(&mut self, id: u32, outcome: Result<Accepted, Fault>) {
        let Some(place) = self.find(id) else { return };
        self.patience.rest_a_little();
        match outcome {
            Ok(accepted) => {
                frame::write(frame::HEADERS, frame::END_HEADERS, id, ANSWER_HEAD, &mut self.out);
                let message = grpc::message(accepted);
                self.streams[place].state = State::Answering { message, sent: 0 };
                self.send(place);
            }
            Err(fault) => self.fail(place, &fault, true),
        }
    }

    /// Sends what windows let through of answers.
    pub(super) fn send_on(&mut self) {
        // From behind, as those that are finished go.
        for place in (0..self.streams.len()).rev() {
            self.send(place);
        }
    }

    pub(super) fn send(&mut self, place: usize) {
        let stream = &mut self.streams[place];
        let State::Answering { message, sent } = &mut stream.state else { return };
        while *sent < message.len() {
            let window = usize::try_from(self.sendable.min(stream.sendable)).unwrap_or(0);
            let bytes = (message.len() - *sent).min(window).min(frame::PAYLOAD_BYTES_MAX);
            if bytes == 0 {
                return;
            }
            let part = &message[*sent..*sent + bytes];
            frame::write(frame::DATA, 0, stream.id, part, &mut self.out);
            *sent += bytes;
            self.sendable -= bytes as i64;
            stream.sendable -= bytes as i64;
        }
        let flags = frame::END_HEADERS | frame::END_STREAM;
        frame::write(frame::HEADERS, flags, stream.id, SUCCESS, &mut self.out);
        self.streams.remove(place);
    }

    /// Refuses a request that is arriving. One that could never have been served is a stream begun for
    /// nothing.
    pub(super) fn refuse(
        &mut self,
        place: usize,
        fault: &Fault,
        has_ended: bool,
    ) -> Result<(), ErrorCode> {
        let working = State::Working { _task: None };
        let state = std::mem::replace(&mut self.streams[place].state, working);
        if let State::Arriving(arriving) = state {
            arriving.tally.refused(fault.reason);
        }
        self.fail(place, fault, has_ended);
        match fault.reason {
            Reason::Budget | Reason::Timeout => Ok(()),
            _ => self.patience.tire(Cost::Stream),
        }
    }

    fn fail(&mut self, place: usize, fault: &Fault, has_ended: bool) {
        let id = self.streams.remove(place).id;
        let mut block = hpack::block();
        grpc::failure(fault, &mut block);
        self.write_last(id, &block, has_ended);
    }

    /// An answer of header fields alone. A peer that is not done is told that nobody listens.
    pub(super) fn write_last(&mut self, id: u32, block: &[u8], has_ended: bool) {
        let flags = frame::END_HEADERS | frame::END_STREAM;
        frame::write(frame::HEADERS, flags, id, block, &mut self.out);
        if !has_ended {
            self.write_reset(id, ErrorCode::NoError);
        }
    }

    /// Ends a stream for what its peer did.
    pub(super) fn reset(&mut self, id: u32, code: ErrorCode) -> Result<(), ErrorCode> {
        self.write_reset(id, code);
        if let Some(place) = self.find(id)
            && let State::Arriving(arriving) = self.streams.remove(place).state
        {
            arriving.tally.refused(Reason::Framing);
        }
        self.patience.tire(Cost::Stream)
    }

    fn write_reset(&mut self, id: u32, code: ErrorCode) {
        let code = (code as u32).to_be_bytes();
        frame::write(frame::RST_STREAM, 0, id, &code, &mut self.out);
    }

    pub(super) fn give_back(&mut self, id: u32, bytes: u32) {
        frame::write(frame::WINDOW_UPDATE, 0, id, &bytes.to_be_bytes(), &mut self.out);
    }

    /// Whether streams are open.
    pub(in crate::h2) fn is_busy(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Requests that are not answered yet.
    pub(in crate::h2) fn requests_open(&self) -> usize {
        let is_open = |stream: &&Stream| !matches!(stream.state, State::Answering { .. });
        self.streams.iter().filter(is_open).count()
    }

    /// Gives up what takes longer to arrive than it may, and tells when the next one would be late.
    pub(in crate::h2) fn give_up(&mut self, now: Instant) -> Option<Instant> {
        let Pace { timeout, rate_min } = self.limits.pace;
        let mut next = None;
        for place in (0..self.streams.len()).rev() {
            let State::Arriving(arriving) = &mut self.streams[place].state else { continue };
            let earned = Duration::from_secs(arriving.arrived / rate_min);
            let mut due = *arriving.since.get_or_insert(now) + timeout + earned;
            let mut fault: fn() -> Fault = too_slow;
            if let Some(deadline) = arriving.deadline.filter(|deadline| *deadline < due) {
                due = deadline;
                fault = grpc::passed;
            }
            if due <= now {
                // Slowness is no reason to end a connection.
                let _patient = self.refuse(place, &fault(), false);
            } else {
                next = Some(next.map_or(due, |next: Instant| next.min(due)));
            }
        }
        next
    }
}

/// Of a success, before its message: `:status: 200` and `content-type: application/grpc`. It begins
/// with the size of a table of which nothing is used.
const ANSWER_HEAD: &[u8] = b"\x20\x88\x0F\x10\x10application/grpc";

/// Of a success, behind its message: `grpc-status: 0`.
const SUCCESS: &[u8] = b"\x00\x0Bgrpc-status\x010";
