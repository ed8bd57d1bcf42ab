//! HTTP/1.1 for the one thing it is used for here: a POST, its answer, and the next one.
//!
//! A general server reads ahead into buffers of its own, which for each connection may be hundreds
//! of kilobytes that no budget knows of. Here a head is read into a small buffer, and a body
//! straight into the memory that it is handed on in, once the budget has room for it.
//!
//! Source: RFC 9110 (HTTP semantics), RFC 9112 (HTTP/1.1).

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderValue, Method, Response, StatusCode};
use bytes::{BufMut as _, Bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::body::{Admitted, Arrived, Declared, Undeclared};
use crate::budget::Share;
use crate::connection::Connection;
use crate::fault::Fault;
use crate::http;
use crate::peer::Io;
use crate::sink::{Sink, Transport};
use crate::socket::linger;
use crate::stats::{Reason, Tally};

mod answer;
mod chunks;
mod head;

use answer::Writer;
use chunks::Chunks;
use head::Head;

/// How a connection is closed that has nothing to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By the operating system, when its socket is dropped.
    Silent,
    /// With a word, so that the peer can tell it from one that was cut.
    #[cfg(feature = "_tls")]
    Spoken,
}

/// Serves a connection to its end. It ends between two requests once the connection is to be drained,
/// and with the next answer once it is to be retired.
pub(crate) async fn serve<S: Sink>(
    connection: &Connection<S>,
    io: impl Io,
    ending: Ending,
) -> io::Result<()> {
    let mut wire = Wire { io, input: Vec::new(), taken: 0 };
    let outcome = requests(connection, &mut wire).await;
    match outcome {
        Ok(Rest::Unread) => linger(wire.io).await,
        Ok(Rest::Nothing) if ending == Ending::Silent => {}
        // The peer has all its answers: whether it hears this changes nothing.
        Ok(Rest::Nothing) => drop(wire.io.shutdown().await),
        Err(Broken::Head(_)) => linger(wire.io).await,
        Err(Broken::Connection(error)) => return Err(error),
    }
    match outcome {
        Err(Broken::Head(status)) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("answered with {status}")))
        }
        _ => Ok(()),
    }
}

/// Ends a connection of one who has mistaken the gRPC port for that of HTTP.
pub(crate) async fn turn_away(io: impl Io) -> io::Result<()> {
    let mut wire = Wire { io, input: Vec::new(), taken: 0 };
    let text = Bytes::from_static(b"this port speaks gRPC: OTLP/HTTP has another, mostly 4318\n");
    let mut response = Response::new(text);
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    wire.write(Writer::default().response(&response, &Method::POST, true)).await?;
    linger(wire.io).await;
    Err(io::ErrorKind::InvalidData.into())
}

/// What a peer may still be sending when its connection ends in order.
enum Rest {
    Nothing,
    Unread,
}

/// Why a connection ends in the middle.
enum Broken {
    /// The head of a request, which was answered with this.
    Head(StatusCode),
    Connection(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

/// Answers one request after the other.
async fn requests<S: Sink>(
    connection: &Connection<S>,
    wire: &mut Wire<impl Io>,
) -> Result<Rest, Broken> {
    let mut writer = Writer::default();
    loop {
        let head = match next_head(connection, wire).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Rest::Nothing),
            Err(Broken::Head(status)) => {
                let counters = &connection.shared.counters;
                Tally::open(counters, Transport::Http).refused(Reason::Framing);
                wire.write(writer.refusal(status)).await?;
                return Err(Broken::Head(status));
            }
            Err(broken) => return Err(broken),
        };
        let _open = connection.begin();
        let Head { parts, framing, keep_alive, invites } = head;
        let mut body = Reading { wire: &mut *wire, framing, invites };
        let response = http::answer(connection, &parts, &mut body).await;
        let is_read = body.skip();
        let is_last = connection.is_draining() || connection.is_retiring();
        let closes = !keep_alive || !is_read || is_last;
        wire.write(writer.response(&response, &parts.method, closes)).await?;
        if closes {
            // A peer that is not asked may have sent the next request already, which must not break
            // this answer off.
            let is_all = is_read && wire.unread().is_empty() && !connection.is_retiring();
            return Ok(if is_all { Rest::Nothing } else { Rest::Unread });
        }
    }
}

/// The head of the next request, if there is one before the connection is to end.
async fn next_head<S: Sink>(
    connection: &Connection<S>,
    wire: &mut Wire<impl Io>,
) -> Result<Option<Head>, Broken> {
    let settings = &connection.shared.settings;
    let bytes_max = settings.header_bytes_max as usize;
    let mut due = None;
    let mut seen: usize = 0;
    loop {
        // RFC 9112 section 2.2: some send an empty line behind a body.
        while wire.unread().starts_with(b"\r\n") {
            wire.take(2);
        }
        let unread = wire.unread();
        // A head that comes byte by byte is looked at once it may be whole.
        let is_worth_it = seen == 0 || unread.len() >= bytes_max || unread[seen..].contains(&b'\n');
        if !unread.is_empty()
            && is_worth_it
            && let Some((head, bytes)) = Head::read(unread, bytes_max).map_err(Broken::Head)?
        {
            wire.take(bytes);
            return Ok(Some(head));
        }
        // Half an empty line is no request yet.
        seen = if unread == b"\r" { 0 } else { unread.len() };
        let mut filling = pin!(wire.fill(bytes_max));
        // A head that has begun is of a request that has arrived.
        let filled = poll_fn(|cx| match seen == 0 && connection.is_draining() {
            true => Poll::Ready(None),
            false => filling.as_mut().poll(cx).map(Some),
        });
        let filled = match seen {
            // How long a connection may be idle is not decided here.
            0 => filled.await,
            _ => {
                let due = *due.get_or_insert_with(|| Instant::now() + settings.header_read_timeout);
                timeout_at(due, filled).await.map_err(io::Error::from)?
            }
        };
        match filled {
            None => return Ok(None),
            Some(Ok(0)) if seen == 0 => return Ok(None),
            // TLS says so where a peer leaves without a word.
            Some(Err(error)) if seen == 0 && error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(None);
            }
            Some(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

/// A socket, and what was read of it and not used yet.
struct Wire<I> {
    io: I,
    input: Vec<u8>,
    taken: usize,
}

impl<I: Io> Wire<I> {
    fn unread(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    fn take(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// Reads once, behind what is unread, of which there is less than `unread_max`; 0 at the end.
    async fn fill(&mut self, unread_max: usize) -> io::Result<usize> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let unread = self.input.len();
        if unread == 0 {
            self.input.shrink_to(INPUT_BYTES);
        }
        // Twice as much each time, so that a head of many pieces is not moved for each.
        let room = unread.max(INPUT_BYTES).min(unread_max.max(INPUT_BYTES) - unread);
        self.input.reserve_exact(room);
        self.io.read_buf(&mut (&mut self.input).limit(room)).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }
}

/// How the end of a body is told.
#[derive(Debug)]
enum Framing {
    /// The bytes that are left; none if there is no body, or once it was read.
    Length(u64),
    Chunked(Chunks),
}

/// A body that can be read.
struct Reading<'a, I> {
    wire: &'a mut Wire<I>,
    framing: Framing,
    /// Whether the peer waits to be invited to send it.
    invites: bool,
}

impl<I: Io> Reading<'_, I> {
    /// Passes over what is here already, and tells whether that is all there was left.
    fn skip(&mut self) -> bool {
        let unread = self.wire.unread();
        let mut taken = 0;
        let is_over = match &mut self.framing {
            Framing::Length(left) => {
                taken = usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len());
                *left -= taken as u64;
                *left == 0
            }
            Framing::Chunked(chunks) => {
                chunks.feed(unread, &mut taken, |_| Ok(())).is_ok() && chunks.is_over()
            }
        };
        self.wire.take(taken);
        is_over
    }

    async fn invite(&mut self) -> io::Result<()> {
        if self.invites && self.wire.unread().is_empty() {
            self.wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        self.invites = false;
        Ok(())
    }
}

impl<I: Io> http::Body for Reading<'_, I> {
    async fn read(
        &mut self,
        bytes_max: usize,
        share: &Arc<Share>,
        arrived: &Arrived,
    ) -> Result<Admitted, Fault> {
        let ends_early = |_: io::Error| Fault::new(Reason::Framing, "the body ends early");
        if let Framing::Length(length) = self.framing {
            let mut body = Declared::admit(length, bytes_max, share)?;
            if length > 0 {
                self.invite().await.map_err(ends_early)?;
            }
            let unread = self.wire.unread();
            let rest = body.push(unread).len();
            let here = unread.len() - rest;
            arrived.add(here);
            self.wire.take(here);
            while body.missing() > 0 {
                let mut room = body.room(usize::MAX);
                match self.wire.io.read_buf(&mut room).await.map_err(ends_early)? {
                    0 => return Err(ends_early(io::ErrorKind::UnexpectedEof.into())),
                    read => arrived.add(read),
                }
            }
            self.framing = Framing::Length(0);
            return Ok(body.admitted());
        }
        let mut body = Undeclared::new(bytes_max, share)?;
        self.invite().await.map_err(ends_early)?;
        while let Framing::Chunked(chunks) = &mut self.framing {
            let mut taken = 0;
            let fed = chunks.feed(&self.wire.input[self.wire.taken..], &mut taken, |data| {
                arrived.add(data.len());
                body.push(data)
            });
            self.wire.take(taken);
            fed?;
            if chunks.is_over() {
                break;
            }
            if self.wire.fill(INPUT_BYTES).await.map_err(ends_early)? == 0 {
                return Err(ends_early(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(body.admitted())
    }
}

/// What is read in one go where no body is on its way, and so what is copied of a body that follows:
/// a head is some hundred bytes.
const INPUT_BYTES: usize = 8 << 10;
