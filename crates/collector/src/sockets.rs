//! Listening sockets, which outlive the receivers that accept on them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use spanwire_config::{ComponentId, Listen};
use spanwire_receiver::{BindError, UnixSocket};
use tokio::net::TcpSocket;

use crate::server::Protocol;
use crate::start_error::StartError;

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

/// The sockets of an endpoint, by its name: those of `stands` that are its own, or new ones on each
/// address of its name.
pub(crate) async fn of(
    (id, protocol): &(ComponentId, Protocol),
    endpoint: &Listen,
    stands: &[(String, Socket)],
) -> Result<Vec<(String, Socket)>, StartError> {
    // Two endpoints that leave the port to the system are not one.
    let name = match endpoint.to_string() {
        any if any.ends_with(":0") => format!("{id} {} {any}", protocol.as_str()),
        fixed => fixed,
    };
    let setting = || protocol.setting(id).key("endpoint");
    let cannot = |source| {
        let endpoint = endpoint.to_string();
        StartError::Listen { setting: setting(), endpoint, source }
    };
    let own = stands.iter().filter(|(standing, _)| *standing == name);
    let mut sockets = own.map(|(_, one)| one.share()).collect::<Result<_, _>>().map_err(cannot)?;
    if Vec::is_empty(&sockets) {
        sockets = match endpoint {
            Listen::Tcp(address) => {
                let listeners = stands.iter().filter_map(|(_, one)| match one {
                    Socket::Tcp(listener) => Some(listener),
                    Socket::Unix(_) => None,
                });
                listen(address, &listeners.collect::<Vec<_>>()).await.map_err(cannot)?
            }
            Listen::Unix(path) => {
                let bind = |source: BindError| StartError::Receiver { setting: setting(), source };
                vec![Socket::Unix(UnixSocket::bind(path).await.map_err(bind)?)]
            }
        };
    }
    Ok(sockets.into_iter().map(|socket| (name.clone(), socket)).collect())
}

/// Listens on each address of a name, once. One that stands under another name is shared, and so is
/// one that an address includes: what waits there to be accepted is not lost.
async fn listen(name: &str, stands: &[&TcpListener]) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    let mut unavailable = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses(name).await? {
        match bind(address, stands).await {
            Ok(listener) => {
                sockets.push(Socket::Tcp(listener));
                for (one, at) in stands.iter().filter_map(|one| Some((one, one.local_addr().ok()?)))
                {
                    let is_one = at.port() == address.port() && at != address;
                    if is_one && includes(address.ip(), at.ip()) {
                        sockets.push(Socket::Tcp(one.try_clone()?));
                    }
                }
            }
            Err(error) if is_in_the_way(&error) => return Err(error),
            Err(error) => unavailable = error,
        }
    }
    match sockets.is_empty() {
        true => Err(unavailable),
        false => Ok(sockets),
    }
}

/// Whether who listens on the first address listens on the other.
pub(crate) fn includes(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() && (one.is_ipv6() || other.is_ipv4())
}

/// The addresses of `host:port`, each once. Without a host it is every interface, of both families
/// where the system has both.
pub(crate) async fn addresses(name: &str) -> io::Result<BTreeSet<SocketAddr>> {
    let Some(port) = name.strip_prefix(':') else {
        return Ok(tokio::net::lookup_host(name).await?.collect());
    };
    let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let every: IpAddr = match tokio::net::TcpListener::bind(both).await {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    Ok([SocketAddr::new(every, port)].into())
}

/// Listens on an address; on a listener of `stands` if it is that one's. Where one of them has the
/// port on an address that this one includes, or is included in, as `0.0.0.0` includes `127.0.0.1`,
/// both listen from here on, and the one that is not wanted any more can be let go of.
pub(crate) async fn bind(address: SocketAddr, stands: &[&TcpListener]) -> io::Result<TcpListener> {
    let at = |one: &TcpListener| one.local_addr().ok();
    if let Some(own) = stands.iter().find(|one| at(one) == Some(address)) {
        return own.try_clone();
    }
    let bound = tokio::net::TcpListener::bind(address).await.and_then(|one| one.into_std());
    let same_port = |one: &&&TcpListener| at(one).is_some_and(|at| at.port() == address.port());
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let in_the_way: Vec<_> = stands.iter().filter(same_port).collect();
            if in_the_way.is_empty() {
                return Err(error);
            }
            // Whoever else is in the way stays there.
            beside(address, &in_the_way).map_err(|_| error)
        }
        bound => bound,
    }
}

/// The system lets sockets share a port that all of them are set to share. They are for this moment
/// only, so that nobody else may share it later.
fn beside(address: SocketAddr, stands: &[&&TcpListener]) -> io::Result<TcpListener> {
    let sharing = stands.iter().map(|one| Sharing::begin(one)).collect::<io::Result<Vec<_>>>()?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?.into_std()?;
    drop(sharing);
    drop(Sharing::begin(&listener)?);
    Ok(listener)
}

/// As many connections wait to be accepted as with Tokio's own listeners.
const BACKLOG: u32 = 1024;

/// Until it is dropped, a socket shares its port with others that are set to.
struct Sharing(TcpSocket);

impl Sharing {
    fn begin(listener: &TcpListener) -> io::Result<Self> {
        // Only the option is of interest, which the clone has in common with it.
        let stream = TcpStream::from(OwnedFd::from(listener.try_clone()?));
        let socket = TcpSocket::from_std_stream(stream);
        socket.set_reuseport(true)?;
        Ok(Self(socket))
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        // It could be set, so it can be unset.
        let _unset = self.0.set_reuseport(false);
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

    fn listeners(sockets: Vec<Socket>) -> Vec<TcpListener> {
        let listener = |socket| match socket {
            Socket::Tcp(listener) => listener,
            Socket::Unix(_) => unreachable!("all are TCP"),
        };
        sockets.into_iter().map(listener).collect()
    }

    fn port(listener: &TcpListener) -> u16 {
        listener.local_addr().expect("its address").port()
    }

    #[tokio::test]
    async fn a_socket_that_stands_is_shared_under_another_name_of_its_address() {
        let first = listeners(listen("127.0.0.1:0", &[]).await.expect("a free port"));
        let port = port(&first[0]);
        let again = listen(&format!("localhost:{port}"), &[&first[0]]).await.expect("it is ours");
        assert!(listeners(again).iter().any(|one| self::port(one) == port));
        let taken = listen(&format!("127.0.0.1:{port}"), &[]).await;
        assert_eq!(taken.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[tokio::test]
    async fn an_address_that_the_machine_does_not_have_is_an_error_of_its_own() {
        // TEST-NET-1 of RFC 5737.
        let nowhere = listen("192.0.2.1:0", &[]).await;
        assert_eq!(nowhere.err().map(|error| error.kind()), Some(io::ErrorKind::AddrNotAvailable));
    }

    #[tokio::test]
    async fn without_a_host_it_listens_on_every_interface() {
        let every = listeners(listen(":0", &[]).await.expect("a free port"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&every[0])));
        TcpStream::connect(address).expect("it listens there too");
    }

    #[tokio::test]
    async fn a_wider_or_narrower_address_of_a_port_of_ours_is_taken_over_and_shared_with_nobody() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let narrow = bind(loopback, &[]).await.expect("a free port");
        let connected =
            TcpStream::connect(narrow.local_addr().expect("bound")).expect("it listens");
        let wide_address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(&narrow)));
        let wide = bind(wide_address, &[&narrow]).await.expect("it is ours");
        let stranger = bind(wide_address, &[]).await;
        assert_eq!(stranger.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        let narrow_address = narrow.local_addr().expect("bound");
        drop(narrow);
        TcpStream::connect(narrow_address).expect("the wide one has it now");
        let narrow = bind(narrow_address, &[&wide]).await.expect("and back, with connections open");
        drop((wide, connected));
        TcpStream::connect(narrow_address).expect("the narrow one has it again");
        let stranger = bind(wide_address, &[]).await;
        assert_eq!(stranger.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        drop(narrow);
    }
}
