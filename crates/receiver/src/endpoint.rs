//! Where a receiver listens, as it was asked to and as it came to be.

use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;
use std::{io, net};

use tokio::net::TcpListener;

use crate::builder::BindError;
#[cfg(unix)]
use crate::listener::UnixListener;
#[cfg(unix)]
use crate::unix::UnixSocket;

#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Address(SocketAddr),
    Listener(Arc<net::TcpListener>),
    #[cfg(unix)]
    Path(PathBuf),
    #[cfg(unix)]
    Socket(UnixSocket),
}

/// What can be accepted from.
pub(crate) enum Bound {
    Tcp(TcpListener, SocketAddr),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Endpoint {
    pub(crate) async fn bind(self) -> Result<Bound, BindError> {
        match self {
            Self::Address(address) => {
                let bind = async {
                    let listener = TcpListener::bind(address).await?;
                    let bound = listener.local_addr()?;
                    Ok(Bound::Tcp(listener, bound))
                };
                bind.await.map_err(|source| BindError::Address { address, source })
            }
            Self::Listener(listener) => given(listener).map_err(BindError::Listener),
            #[cfg(unix)]
            Self::Path(path) => listen(UnixSocket::bind(path).await?),
            #[cfg(unix)]
            Self::Socket(socket) => listen(socket),
        }
    }
}

fn given(listener: Arc<net::TcpListener>) -> io::Result<Bound> {
    // A builder that was cloned keeps its own.
    let listener = Arc::try_unwrap(listener).or_else(|shared| shared.try_clone())?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    Ok(Bound::Tcp(listener, address))
}

#[cfg(unix)]
fn listen(socket: UnixSocket) -> Result<Bound, BindError> {
    match socket.listener() {
        Ok(listener) => Ok(Bound::Unix(UnixListener::new(listener, socket))),
        Err(source) => Err(socket.failed(source)),
    }
}
