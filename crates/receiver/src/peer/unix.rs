//! Peers on the same machine.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::{Io, PREFACE, Peer, Protocol, protocol};
use crate::socket::Socket;

/// A socket of the Unix domain. Tokio has no peek for it, so its first bytes are kept.
#[derive(Debug)]
pub(crate) struct UnixPeer {
    unix: UnixStream,
    start: [u8; PREFACE.len()],
    /// Bytes of `start` that are filled, and those that were read out of it again.
    filled: usize,
    read: usize,
}

impl UnixPeer {
    pub(crate) fn new(unix: UnixStream) -> Self {
        Self { unix, start: [0; PREFACE.len()], filled: 0, read: 0 }
    }
}

impl Peer for UnixPeer {
    // Not worth a third copy of each server.
    type Plain = Box<dyn Io>;

    async fn speaks(&mut self) -> io::Result<Option<Protocol>> {
        loop {
            let more = self.unix.read(&mut self.start[self.filled..]).await?;
            self.filled += more;
            match protocol(&self.start[..self.filled]) {
                // Gone in the middle of the preface, or before it.
                None if more == 0 => return Ok(None),
                None => {}
                spoken => return Ok(spoken),
            }
        }
    }

    fn plain(socket: Socket<Self>) -> Self::Plain {
        Box::new(socket)
    }
}

impl AsyncRead for UnixPeer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read == self.filled {
            return Pin::new(&mut self.unix).poll_read(cx, buf);
        }
        let end = self.filled.min(self.read + buf.remaining());
        buf.put_slice(&self.start[self.read..end]);
        self.read = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UnixPeer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.unix).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.unix).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.unix.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.unix).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.unix).poll_shutdown(cx)
    }
}
