//! A tunnel through an HTTP proxy: `CONNECT` (RFC 9110, section 9.3.6).

use std::io;

use ::http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the proxy answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    Open,
    Refused {
        /// The proxy's HTTP status.
        status: u16,
    },
}

/// Asks for a tunnel to `authority`, `host:port`.
///
/// No byte behind the proxy's answer is read: a server of HTTP/2 without TLS may speak first, and
/// its words belong to the connection.
pub(super) async fn open(
    tcp: &mut TcpStream,
    authority: &str,
    authorization: Option<&HeaderValue>,
) -> io::Result<Tunnel> {
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    tcp.write_all(&request).await?;

    let mut bytes_left = HEAD_BYTES_MAX;
    loop {
        let head = read_head(tcp, bytes_left).await?;
        bytes_left = bytes_left.saturating_sub(head.len());
        match status(&head).ok_or_else(|| invalid("the proxy does not speak HTTP"))? {
            // Interim answers go before the one that counts (RFC 9110, section 15.2); 101 is final,
            // and nobody has asked for it.
            100 | 102..=199 => {}
            200..=299 => return Ok(Tunnel::Open),
            status => return Ok(Tunnel::Refused { status }),
        }
    }
}

/// The answer up to the empty line behind its headers.
async fn read_head(tcp: &mut TcpStream, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut ahead = [0; 1024];
    loop {
        let seen = tcp.peek(&mut ahead).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = head.len();
        head.extend_from_slice(&ahead[..seen]);
        // The line end before may have come with the bytes before.
        let from = before.saturating_sub(END.len() - 1);
        let end = head[from..].windows(END.len()).position(|bytes| bytes == END);
        if let Some(end) = end {
            head.truncate(from + end + END.len());
        }
        let mut taken = vec![0; head.len() - before];
        tcp.read_exact(&mut taken).await?;
        if head.len() > bytes_max {
            return Err(invalid("the proxy's answer is too long"));
        }
        if end.is_some() {
            return Ok(head);
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?;
    let code = std::str::from_utf8(line.get(2..5)?).ok()?;
    code.bytes().all(|digit| digit.is_ascii_digit()).then(|| code.parse().ok())?
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

const END: &[u8] = b"\r\n\r\n";
/// Of all answers, interim ones included.
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Opens a tunnel through a proxy that answers with `pieces`, one write each, and returns what
    /// came of it and what could be read behind it.
    async fn through(pieces: &[&str]) -> (io::Result<Tunnel>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut tcp =
            TcpStream::connect(listener.local_addr().expect("bound")).await.expect("listening");
        let (mut peer, _) = listener.accept().await.expect("a connection");
        peer.set_nodelay(true).expect("open");
        let pieces: Vec<String> = pieces.iter().map(|&piece| piece.to_owned()).collect();
        let answering = tokio::spawn(async move {
            // Closing with the request unread would be a reset, and lose the answer.
            let mut request = vec![0; "CONNECT h:4317 HTTP/1.1\r\nHost: h:4317\r\n\r\n".len()];
            peer.read_exact(&mut request).await.expect("a request");
            assert!(request.ends_with(END));
            for piece in pieces {
                peer.write_all(piece.as_bytes()).await.expect("open");
                tokio::task::yield_now().await;
            }
        });
        let outcome = open(&mut tcp, "h:4317", None).await;
        answering.await.expect("no panic");
        let mut behind = String::new();
        if outcome.is_ok() {
            let _ = tcp.read_to_string(&mut behind).await;
        }
        (outcome, behind)
    }

    /// Faults 123.
    #[tokio::test]
    async fn the_bytes_behind_the_answer_belong_to_the_connection() {
        let cases: [&[&str]; 4] = [
            &["HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nPRI"],
            &["HTTP/1.0 200\r", "\n\r", "\nPR", "I"],
            &["HTTP/1.1 204 No Content\r\n\r\n", "PRI"],
            &[
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200\r\n\r\nPRI",
            ],
        ];
        for pieces in cases {
            let (outcome, behind) = through(pieces).await;
            assert_eq!(outcome.expect("open"), Tunnel::Open);
            assert_eq!(behind, "PRI", "{pieces:?}");
        }
    }

    /// Faults 123.
    #[tokio::test]
    async fn a_refusal_has_its_status_and_nonsense_is_an_error() {
        let (outcome, _) = through(&["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"]).await;
        assert_eq!(outcome.expect("an answer"), Tunnel::Refused { status: 407 });
        let nonsense: [&[&str]; 5] = [
            &["SSH-2.0-OpenSSH\r\n\r\n"],
            &["HTTP/1.1 +20 x\r\n\r\n"],
            &["HTTP/1.1\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\n"],
            &[],
        ];
        for pieces in nonsense {
            assert!(through(pieces).await.0.is_err(), "{pieces:?}");
        }
        let (outcome, _) = through(&["HTTP/1.1 101 Switching Protocols\r\n\r\n"]).await;
        assert_eq!(outcome.expect("an answer"), Tunnel::Refused { status: 101 });
        assert!(through(&[&"x".repeat(20_000)]).await.0.is_err(), "without end");
        let (outcome, _) = through(&[&"HTTP/1.1 100\r\n\r\n".repeat(1200)]).await;
        assert!(outcome.expect_err("no end either").to_string().contains("too long"));
    }
}
