//! A peer's socket: given up when its peer reads nothing, ended in order.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use crate::peer::Io;

/// A socket whose writes fail once the peer has taken nothing of them for a while.
///
/// Neither protocol has a word for a peer that stays and does not read: pings wait behind what it
/// does not read, and so would the goodbye.
#[derive(Debug)]
pub(crate) struct Socket<P> {
    peer: P,
    write_timeout: Duration,
    /// Runs while a write waits. Answers nearly always fit the system's buffer, so it is made late.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<P> Socket<P> {
    pub(crate) fn new(peer: P, write_timeout: Duration) -> Self {
        Self { peer, write_timeout, stalled: None }
    }

    /// What a write that cannot go on answers: to wait, or that it has waited long enough.
    #[cold]
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let write_timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<P: Io> AsyncRead for Socket<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.peer).poll_read(cx, buf)
    }
}

impl<P: Io> AsyncWrite for Socket<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.peer).poll_write(cx, buf) {
            Poll::Pending => self.wait(cx),
            written => {
                self.stalled = None;
                written
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.peer).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.wait(cx),
            written => {
                self.stalled = None;
                written
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.peer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.peer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.peer).poll_shutdown(cx)
    }
}

/// Ends our side and discards what the peer still sends, for a while.
///
/// A socket closed with bytes unread resets the connection, and the reset can overtake the answer: a
/// peer told that its request is too large would see a broken connection and send it again.
pub(crate) async fn linger(mut io: impl Io) {
    let discard = async {
        io.shutdown().await?;
        let mut scrap = vec![0; LINGER_BUFFER_BYTES];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match io.read(&mut scrap).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<_, io::Error>(())
    };
    // The answer is out already: whether the peer stayed to the end changes nothing.
    let _ = timeout(LINGER_MAX, discard).await;
}

/// Time for a peer on a slow path to notice the answer in the middle of its upload.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// An upload of ordinary size is read to its end, so that even a peer that only listens afterwards
/// gets its answer.
const LINGER_BYTES_MAX: usize = 128 << 20;

const LINGER_BUFFER_BYTES: usize = 16 << 10;
