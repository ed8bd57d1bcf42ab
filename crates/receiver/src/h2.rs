//! HTTP/2 for the one thing it is used for here at a high rate: unary gRPC requests.
//!
//! A general server hands each request to a task of its own and each piece of its body to a queue.
//! At a hundred spans a request that costs more than all that is done with the spans. Here a
//! connection is one task: it reads messages into the buffers they are handed on in, takes small
//! requests to the sink on the spot, and gathers answers for one write. Only requests that are
//! large, compressed, or have to wait for the sink get a task.
//!
//! Source: RFC 9113 (HTTP/2), RFC 7541 (HPACK), gRPC's `doc/PROTOCOL-HTTP2.md`.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut as _;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::connection::Connection;
use crate::fault::Fault;
use crate::grpc::{Request, export};
use crate::peer::Io;
use crate::sink::{Accepted, Sink};

mod fields;
mod frame;
mod hpack;
mod huffman;
mod patience;
mod session;

pub(crate) use hpack::{write_field, write_status};
use session::{Limits, Session, Work};

/// A connection that is polled to its end.
pub(crate) struct Served<S, I> {
    connection: Arc<Connection<S>>,
    io: I,
    session: Session,
    /// What was read and not taken in yet lies from `taken` on.
    input: Vec<u8>,
    taken: usize,
    /// Of the session's `out`.
    written: usize,
    tasks: JoinSet<(u32, Result<Accepted, Fault>)>,
    /// Whether something was written that is not flushed yet.
    flushing: bool,
    timer: Pin<Box<Sleep>>,
    look_again: Instant,
    alive: Alive,
    state: State,
}

/// Whether the peer is heard of.
#[derive(Debug)]
struct Alive {
    heard: Instant,
    /// Since when an answer to a ping is waited for.
    asked: Option<Instant>,
    /// When the peer had its patience back.
    rested: Instant,
}

#[derive(Debug)]
enum State {
    Open,
    /// Nothing is read any more; what is left to say is said, and this is how it ends.
    Closing(Option<io::Error>),
}

impl<S: Sink, I: Io> Served<S, I> {
    pub(crate) fn new(connection: Arc<Connection<S>>, io: I) -> Self {
        let shared = &connection.shared;
        let limits = Limits::from(&shared.settings);
        let session =
            Session::new(limits, Arc::clone(&connection.share), Arc::clone(&shared.counters));
        let now = Instant::now();
        let look_again = now + shared.settings.keep_alive_interval.min(REST_AFTER);
        Self {
            io,
            session,
            input: Vec::with_capacity(INPUT_BYTES),
            taken: 0,
            written: 0,
            tasks: JoinSet::new(),
            flushing: false,
            timer: Box::pin(sleep_until(look_again)),
            look_again,
            alive: Alive { heard: now, asked: None, rested: now },
            state: State::Open,
            connection,
        }
    }

    /// Says goodbye; ends once all that came before it is answered.
    pub(crate) fn drain(&mut self) {
        self.session.drain();
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.state, State::Open)
            && let Err(error) = self.poll_open(cx)
        {
            self.state = State::Closing(Some(error));
        }
        let requests = &self.connection;
        requests.requests_begun.store(self.session.requests_begun, Ordering::Relaxed);
        requests.requests_open.store(self.session.requests_open(), Ordering::Relaxed);
        let written = self.poll_write(cx);
        match &mut self.state {
            State::Closing(outcome) => {
                // Whether the peer hears of it changes nothing any more.
                let outcome = outcome.take();
                if written.is_pending() {
                    self.state = State::Closing(outcome);
                    return Poll::Pending;
                }
                let _ended = ready_or_gone(Pin::new(&mut self.io).poll_shutdown(cx));
                Poll::Ready(outcome.map_or(Ok(()), Err))
            }
            State::Open => match written {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if self.session.is_over() => {
                    self.state = State::Closing(None);
                    self.poll(cx)
                }
                _ => Poll::Pending,
            },
        }
    }

    /// Answers, reads and works until there is nothing to do.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut reads = 0;
        loop {
            while !self.tasks.is_empty()
                && let Poll::Ready(Some(done)) = self.tasks.poll_join_next(cx)
            {
                // One that was aborted has no stream any more.
                if let Ok((stream, outcome)) = done {
                    self.session.answer(stream, outcome);
                }
            }
            // Beyond this the peer must take its answers before it is listened to again.
            if (self.flushing || self.session.out.len() - self.written > OUT_BYTES_MAX)
                && self.poll_write(cx)?.is_pending()
            {
                break;
            }
            if reads == READS_MAX {
                // Others want to be served too, and answers to be sent.
                cx.waker().wake_by_ref();
                break;
            }
            reads += 1;
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) if self.session.is_busy() => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Poll::Ready(Ok(0)) => {
                    self.state = State::Closing(None);
                    return Ok(());
                }
                Poll::Ready(Ok(_)) => self.take_in(cx)?,
                // TLS says so where a peer leaves without a word.
                Poll::Ready(Err(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof && !self.session.is_busy() =>
                {
                    self.state = State::Closing(None);
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    reads -= 1;
                    break;
                }
            }
        }
        if reads > 0 {
            self.alive.heard = Instant::now();
        }
        self.poll_timer(cx)
    }

    /// Reads once: to where a message lies, if one is on its way, or else for the session to see.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.taken == self.input.len() {
            self.input.clear();
            self.taken = 0;
            let direct = match self.session.room(DIRECT_BYTES_LEAST) {
                Some(mut room) => Some(ready!(pin!(self.io.read_buf(&mut room)).poll(cx))?),
                None => None,
            };
            if let Some(read) = direct {
                self.session.filled(read);
                return Poll::Ready(Ok(read));
            }
        } else if self.input.capacity() - self.input.len() < INPUT_BYTES / 4 {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
        let room = self.input.capacity() - self.input.len();
        let mut input = (&mut self.input).limit(room);
        pin!(self.io.read_buf(&mut input)).poll(cx)
    }

    /// Looks at what was read, and sets to work on what became whole.
    fn take_in(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let fed = self.session.feed(&self.input[self.taken..]);
        let requests = std::mem::take(&mut self.session.requests);
        for (stream, request) in requests {
            self.set_to_work(stream, request, cx);
        }
        match fed {
            Ok(taken) => {
                self.taken += taken;
                Ok(())
            }
            Err(code) => {
                self.session.end(code);
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("HTTP/2 error {code:?}")))
            }
        }
    }

    fn set_to_work(&mut self, stream: u32, request: Request, cx: &mut Context<'_>) {
        if !self.session.has(stream) {
            return;
        }
        let is_heavy = request.is_compressed || request.wire.bytes.len() > INLINE_BYTES_MAX;
        let mut work = Box::pin(export(Arc::clone(&self.connection), request));
        if !is_heavy && let Poll::Ready(outcome) = work.as_mut().poll(cx) {
            return self.session.answer(stream, outcome);
        }
        let task = self.tasks.spawn(async move { (stream, work.await) });
        self.session.works(stream, Work(task));
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.session.out.len() {
            let rest = &self.session.out[self.written..];
            match Pin::new(&mut self.io).poll_write(cx, rest)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => {
                    self.written += written;
                    self.flushing = true;
                }
                Poll::Pending => {
                    // A peer that always leaves a rest must not make it grow.
                    if self.written > OUT_BYTES_MAX {
                        self.session.out.drain(..self.written);
                        self.written = 0;
                    }
                    return Poll::Pending;
                }
            }
        }
        self.session.out.clear();
        self.session.out.shrink_to(OUT_BYTES_MAX);
        self.written = 0;
        if self.flushing {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushing = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives up what is late, and asks a peer that is not heard of whether it is there.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.session.is_busy()
            && let Some(due) = self.session.give_up(Instant::now())
            && due < self.timer.deadline()
        {
            self.timer.as_mut().reset(due);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.look_again {
                self.look_again = self.look(now)?;
            }
            let due = self.session.give_up(now);
            let next = due.map_or(self.look_again, |due| due.min(self.look_again));
            self.timer.as_mut().reset(next);
        }
        Ok(())
    }

    /// Looks after a peer, and tells when to look again.
    fn look(&mut self, now: Instant) -> io::Result<Instant> {
        let settings = &self.connection.shared.settings;
        let (interval, timeout) = (settings.keep_alive_interval, settings.keep_alive_timeout);
        let alive = &mut self.alive;
        if now >= alive.rested + REST_AFTER {
            alive.rested = now;
            self.session.rest();
        }
        alive.asked = alive.asked.filter(|asked| alive.heard < *asked);
        let next = match alive.asked {
            Some(asked) if now >= asked + timeout => return Err(io::ErrorKind::TimedOut.into()),
            Some(asked) => asked + timeout,
            None if now < alive.heard + interval => alive.heard + interval,
            None => {
                self.session.ping();
                alive.asked = Some(now);
                now + timeout
            }
        };
        Ok(next.min(alive.rested + REST_AFTER))
    }
}

/// A goodbye that cannot be said at once is not waited for.
fn ready_or_gone(ended: Poll<io::Result<()>>) -> io::Result<()> {
    match ended {
        Poll::Ready(ended) => ended,
        Poll::Pending => Ok(()),
    }
}

/// What is read in one go where no message is on its way, and so what is copied of a message at
/// most: heads, small requests, and the start of larger ones.
const INPUT_BYTES: usize = 16 << 10;

/// Less than this is not worth a read of its own.
const DIRECT_BYTES_LEAST: usize = 2 << 10;

/// A request of more takes longer than it takes to hand it to another thread.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// What a connection reads before it lets others go on.
const READS_MAX: usize = 32;

/// After this long a peer has its patience back.
const REST_AFTER: Duration = Duration::from_secs(30);

/// Answers that wait for the peer; beyond it nothing more is read.
const OUT_BYTES_MAX: usize = 16 << 10;
