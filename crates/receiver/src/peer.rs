//! A peer's end of a new connection, and what it speaks.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::socket::Socket;

#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub(crate) use unix::UnixPeer;

/// What a connection is served on.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What a peer speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Tls,
}

/// A connection as the operating system hands it over.
pub(crate) trait Peer: Io + 'static {
    /// What plain HTTP is served on.
    type Plain: Io + 'static;

    /// Sets what a connection should have from the start.
    fn prepare(&self) {}

    /// Tells HTTP/2 from HTTP/1 by the start of HTTP/2's preface, RFC 9113 section 3.4, and TLS by its
    /// first record, RFC 8446 section 5.1; `None` if the peer said nothing and is gone. The bytes stay
    /// to be read.
    fn speaks(&mut self) -> impl Future<Output = io::Result<Option<Protocol>>> + Send;

    /// Takes what has arrived, before a connection is closed that said too little for too long.
    fn forget(&self) {}

    fn plain(socket: Socket<Self>) -> Self::Plain
    where
        Self: Sized;
}

impl Peer for TcpStream {
    type Plain = Socket<Self>;

    fn prepare(&self) {
        // Answers are small and somebody waits for each. A socket that refuses this is already
        // dead, and says so on its first read.
        let _ = self.set_nodelay(true);
    }

    /// Nothing is taken from the socket, so neither protocol has to read through a buffer of ours.
    async fn speaks(&mut self) -> io::Result<Option<Protocol>> {
        // A peek does not wait for more than it has seen, so a peer that dribbles is looked at again
        // after a while, and ever more rarely.
        const LOOK_AGAIN: Duration = Duration::from_millis(5);
        const LOOK_AGAIN_MAX: Duration = Duration::from_millis(320);

        let mut look_again = LOOK_AGAIN;
        let mut start = [0; PREFACE.len()];
        loop {
            let seen = self.peek(&mut start).await?;
            if seen == 0 {
                return Ok(None);
            }
            if let Some(protocol) = protocol(&start[..seen]) {
                return Ok(Some(protocol));
            }
            sleep(look_again).await;
            look_again = LOOK_AGAIN_MAX.min(look_again * 2);
        }
    }

    fn forget(&self) {
        // A socket closed with bytes unread resets the connection instead of ending it.
        let _ = self.try_read(&mut [0; PREFACE.len()]);
    }

    fn plain(socket: Socket<Self>) -> Self::Plain {
        socket
    }
}

/// `None` while `start` may become several.
fn protocol(start: &[u8]) -> Option<Protocol> {
    if start.first() == Some(&HANDSHAKE) {
        Some(Protocol::Tls)
    } else if !PREFACE.starts_with(start) {
        Some(Protocol::Http1)
    } else if start.len() == PREFACE.len() {
        Some(Protocol::Http2)
    } else {
        None
    }
}

const PREFACE: &[u8; 4] = b"PRI ";

/// The type of a record of TLS.
const HANDSHAKE: u8 = 22;
