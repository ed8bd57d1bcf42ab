//! Connections over TLS, once their peer has said something.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::AsyncBufReadExt as _;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::{Phase, Shared, serve_http1, serve_http2};
use crate::h1::Ending;
use crate::peer::Io;
use crate::sink::{Sink, Transport};
use crate::tls::{H2, TlsServer};

/// Serves a connection after its handshake, which like its first bytes has
/// [`header_read_timeout`](crate::Builder::header_read_timeout).
pub(super) async fn serve<S: Sink>(
    shared: Arc<Shared<S>>,
    tls: Arc<TlsServer>,
    socket: impl Io + 'static,
    transport: Transport,
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<()> {
    let handshake = timeout(shared.settings.header_read_timeout, tls.handshake(socket));
    let secured = tokio::select! {
        secured = handshake => secured.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())),
        _ = phase.wait_for(|phase| phase.is_ending()) => return Ok(()),
    };
    let mut secured = match secured {
        Ok(secured) => secured,
        Err(error) => {
            let kind = error.kind();
            // Before it is counted, so that whoever sees the count finds the reason.
            tls.failed(error);
            shared.counters.tls_handshakes_failed.fetch_add(1, Ordering::Relaxed);
            return Err(kind.into());
        }
    };
    let is_gone = tokio::select! {
        first = timeout(shared.settings.header_read_timeout, secured.fill_buf()) => {
            first.map_err(io::Error::from)??.is_empty()
        }
        _ = phase.wait_for(|phase| phase.is_ending()) => true,
    };
    if is_gone {
        return Ok(());
    }
    let speaks_h2 = transport == Transport::Grpc || alpn(&secured) == Some(H2);
    // Not worth a copy of each server for each kind of socket.
    let io: Box<dyn Io> = Box::new(secured);
    match speaks_h2 {
        true => serve_http2(shared, io, transport, phase).await,
        false => serve_http1(shared, io, Ending::Spoken, phase).await,
    }
}

fn alpn<I>(secured: &TlsStream<I>) -> Option<&[u8]> {
    secured.get_ref().1.alpn_protocol()
}
