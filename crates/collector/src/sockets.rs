//! Listening sockets, which outlive the receivers that accept on them.

use std::collections::BTreeSet;
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
    protocol: &str,
    endpoint: &Listen,
    standing: Option<&Standing>,
    kept: &mut Vec<(String, Socket)>,
) -> Result<Vec<(String, Socket)>, StartError> {
    // Two endpoints that leave the port to the system are not one.
    let name = match endpoint.to_string() {
        any if any.ends_with(":0") => format!("{id} {protocol} {any}"),
        fixed => fixed,
    };
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
            Listen::Tcp(address) => listen(address, stands).await.map_err(cannot)?,
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

/// Listens on each address of a name, once. One that stands under another name is shared.
async fn listen(name: &str, stands: &[(String, Socket)]) -> io::Result<Vec<Socket>> {
    let addresses: BTreeSet<SocketAddr> = tokio::net::lookup_host(name).await?.collect();
    let standing = |address: SocketAddr| {
        let is_there = |listener: &TcpListener| listener.local_addr().is_ok_and(|at| at == address);
        stands.iter().find_map(|(_, socket)| match socket {
            Socket::Tcp(listener) if is_there(listener) => Some(socket),
            Socket::Tcp(_) | Socket::Unix(_) => None,
        })
    };
    let mut sockets = Vec::new();
    let mut unavailable = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        if let Some(socket) = standing(address) {
            sockets.push(socket.share()?);
            continue;
        }
        match tokio::net::TcpListener::bind(address).await.and_then(|bound| bound.into_std()) {
            Ok(listener) => sockets.push(Socket::Tcp(listener)),
            Err(error) if is_in_the_way(&error) => return Err(error),
            Err(error) => unavailable = error,
        }
    }
    match sockets.is_empty() {
        true => Err(unavailable),
        false => Ok(sockets),
    }
}

/// Whether nobody else's address would do. Of `localhost`, a machine may have one address and not the
/// other, or not know the other's family at all.
fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(sockets: &[Socket]) -> Vec<u16> {
        let port = |socket: &Socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().expect("its address").port(),
            Socket::Unix(_) => unreachable!("all are TCP"),
        };
        sockets.iter().map(port).collect()
    }

    #[tokio::test]
    async fn a_socket_that_stands_is_shared_under_another_name_of_its_address() {
        let first = listen("127.0.0.1:0", &[]).await.expect("a free port");
        let port = ports(&first)[0];
        let stands: Vec<_> =
            first.into_iter().map(|one| (format!("127.0.0.1:{port}"), one)).collect();
        let again = listen(&format!("localhost:{port}"), &stands).await.expect("it is ours");
        assert!(ports(&again).contains(&port));
        let taken = listen(&format!("127.0.0.1:{port}"), &[]).await;
        assert_eq!(taken.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[tokio::test]
    async fn an_address_that_the_machine_does_not_have_is_an_error_of_its_own() {
        // TEST-NET-1 of RFC 5737.
        let nowhere = listen("192.0.2.1:0", &[]).await;
        assert_eq!(nowhere.err().map(|error| error.kind()), Some(io::ErrorKind::AddrNotAvailable));
    }
}
