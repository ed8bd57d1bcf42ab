//! One type for all connections.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
#[cfg(feature = "_tls")]
use tokio_rustls::client::TlsStream;

/// A connection and what was agreed on it.
pub(crate) struct Stream {
    pub(super) kind: Kind,
    /// HTTP/2 was negotiated by ALPN.
    pub(super) is_h2: bool,
    /// Requests are to be written in the form a forwarding proxy needs.
    pub(super) is_forwarded: bool,
}

pub(super) enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    #[cfg(feature = "_tls")]
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_forwarded);
        if self.is_h2 { connected.negotiated_h2() } else { connected }
    }
}

/// Calls `$method` of whichever connection it is.
macro_rules! each {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match &mut $stream.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(unix)]
            Kind::Unix(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(feature = "_tls")]
            Kind::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Kind::Unix(stream) => stream.is_write_vectored(),
            #[cfg(feature = "_tls")]
            Kind::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lists_of_pieces_are_written_without_joining_them() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let tcp = TcpStream::connect(listener.local_addr().expect("bound")).await;
        let kind = Kind::Tcp(tcp.expect("listening"));
        let mut stream = Stream { kind, is_h2: false, is_forwarded: false };
        assert!(stream.is_write_vectored());
        let pieces = [IoSlice::new(b"one "), IoSlice::new(b"two")];
        let written =
            std::future::poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &pieces)).await;
        assert_eq!(written.expect("open"), 7);
    }
}
