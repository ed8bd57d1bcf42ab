//! Listening sockets, which outlive the receivers that accept on them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use spanwire_config::{ComponentId, Listen};
use spanwire_receiver::{BindError, UnixSocket};

use crate::build::{Standing, StartError};

/// A socket that listens.
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

impl Socket {
    /// The same socket for another receiver.
    pub(crate) fn share(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.clone()),
        })
    }
}

/// The sockets of an endpoint: those that stand, or new ones on each address of its name. `kept` has
/// a share of each.
pub(crate) async fn of(
    id: &ComponentId,
    endpoint: &Listen,
    standing: Option<&Standing>,
    kept: &mut Vec<(String, Socket)>,
) -> Result<Vec<(String, Socket)>, StartError> {
    let name = endpoint.to_string();
    let cannot = |source| StartError::Listen {
        component: format!("receiver {id}"),
        endpoint: endpoint.to_string(),
        source,
    };
    let stands = standing.map(|standing| &standing.sockets[..]).unwrap_or_default();
    let mut sockets = Vec::new();
    for (_, socket) in stands.iter().filter(|(standing, _)| *standing == name) {
        sockets.push((name.clone(), socket.share().map_err(cannot)?));
    }
    if sockets.is_empty() {
        let bound = match endpoint {
            Listen::Tcp(address) => listen(address).await.map_err(cannot)?,
            Listen::Unix(path) => {
                let bind = |source: BindError| StartError::Receiver { id: id.clone(), source };
                vec![Socket::Unix(UnixSocket::bind(path).await.map_err(bind)?)]
            }
        };
        sockets.extend(bound.into_iter().map(|socket| (name.clone(), socket)));
    }
    for (name, socket) in &sockets {
        kept.push((name.clone(), socket.share().map_err(cannot)?));
    }
    Ok(sockets)
}

async fn listen(address: &str) -> io::Result<Vec<Socket>> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
    let mut sockets = Vec::new();
    let mut unavailable = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::net::TcpListener::bind(address).await.and_then(|bound| bound.into_std()) {
            Ok(listener) => sockets.push(Socket::Tcp(listener)),
            // Of `localhost`, a machine may have one address and not the other.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => unavailable = error,
            Err(error) => return Err(error),
        }
    }
    match sockets.is_empty() {
        true => Err(unavailable),
        false => Ok(sockets),
    }
}
