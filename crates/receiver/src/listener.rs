//! Accepts connections, through whatever errors the operating system has.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use crate::connection::{self, Phase, Shared};
use crate::peer::Peer;
#[cfg(unix)]
use crate::peer::UnixPeer;
use crate::sink::{Sink, Transport};
#[cfg(unix)]
use crate::unix::UnixSocket;

/// Where connections come from.
pub(crate) trait Listen: Send + 'static {
    type Peer: Peer;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Peer>> + Send;
}

impl Listen for TcpListener {
    type Peer = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(tcp, _peer)| tcp)
    }
}

/// A socket of the Unix domain, which keeps its file for as long as it listens.
#[cfg(unix)]
pub(crate) struct UnixListener {
    listener: tokio::net::UnixListener,
    _file: UnixSocket,
}

#[cfg(unix)]
impl UnixListener {
    pub(crate) fn new(listener: tokio::net::UnixListener, file: UnixSocket) -> Self {
        Self { listener, _file: file }
    }
}

#[cfg(unix)]
impl Listen for UnixListener {
    type Peer = UnixPeer;

    async fn accept(&self) -> io::Result<UnixPeer> {
        self.listener.accept().await.map(|(unix, _peer)| UnixPeer::new(unix))
    }
}

/// Serves what `listener` accepts until `phase` is no longer serving.
///
/// An error never ends it. One that concerns a single connection is passed over; after any other,
/// such as no file descriptor being left, it waits, twice as long each time, for connections in
/// progress to give back what is missing.
///
/// A connection waits for its place once it is accepted; those behind it wait in the operating
/// system's queue. Not the other way round: listeners share the places, and an idle one must not
/// hold the last.
///
/// A shutdown waits for `phase` to be dropped, which as the first argument goes after the listener.
pub(crate) async fn run<S: Sink>(
    mut phase: watch::Receiver<Phase>,
    listener: impl Listen,
    transport: Transport,
    shared: Arc<Shared<S>>,
    permits: Arc<Semaphore>,
) {
    let connections = phase.clone();
    let mut backoff = BACKOFF_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(peer) => {
                backoff = BACKOFF_MIN;
                // What was accepted is nobody else's to serve, so it stays where new ones do not.
                let permit = tokio::select! {
                    Ok(permit) = Arc::clone(&permits).acquire_owned() => permit,
                    _ = phase.wait_for(|phase| phase.is_ending()) => return,
                };
                let served =
                    connection::serve(Arc::clone(&shared), peer, transport, connections.clone());
                tokio::spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(error) => {
                shared.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                if concerns_one_connection(&error) {
                    continue;
                }
                tokio::select! {
                    _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
                    () = sleep(backoff) => backoff = (2 * backoff).min(BACKOFF_MAX),
                }
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Short beside the time a request takes to arrive.
const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// A peer that connects in vain gives up after several seconds, so one is not too long.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::budget::Budget;
    use crate::receiver::Receiver;
    use crate::sink::{Accepted, Received};

    /// Fails with each of these before it listens.
    struct Failing(Mutex<Vec<io::Error>>, TcpListener);

    impl Listen for Failing {
        type Peer = TcpStream;

        async fn accept(&self) -> io::Result<TcpStream> {
            let error = self.0.lock().expect("not poisoned").pop();
            match error {
                Some(error) => Err(error),
                None => Listen::accept(&self.1).await,
            }
        }
    }

    /// Tells when it has accepted.
    struct Telling(TcpListener, Arc<Semaphore>);

    impl Listen for Telling {
        type Peer = TcpStream;

        async fn accept(&self) -> io::Result<TcpStream> {
            let accepted = Listen::accept(&self.0).await;
            self.1.add_permits(1);
            accepted
        }
    }

    fn shared() -> Arc<Shared<impl Sink>> {
        let settings = Receiver::builder().settings();
        let budget = Arc::new(Budget::new(settings.in_flight_bytes_max));
        let sink = async |_: Received| Ok(Accepted::default());
        Arc::new(Shared::new(sink, settings, Arc::default(), budget))
    }

    /// The first bytes of what is answered to a request on this connection.
    async fn answer(mut tcp: TcpStream) -> [u8; 12] {
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("open");
        let mut start = [0; 12];
        tcp.read_exact(&mut start).await.expect("an answer");
        start
    }

    /// Faults 74.
    #[tokio::test]
    async fn connections_are_accepted_after_every_error_of_the_system() {
        const EMFILE: i32 = 24;
        const ECONNABORTED: i32 = 103;
        let errors =
            [EMFILE, ECONNABORTED, ECONNABORTED, EMFILE].map(io::Error::from_raw_os_error).into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = shared();
        let (phase, watched) = watch::channel(Phase::Serving);
        let running = tokio::spawn(run(
            watched,
            Failing(Mutex::new(errors), listener),
            Transport::Http,
            Arc::clone(&shared),
            Arc::new(Semaphore::new(1)),
        ));

        let tcp = TcpStream::connect(address).await.expect("it listens");
        assert_eq!(answer(tcp).await, *b"HTTP/1.1 404");
        assert_eq!(shared.counters.accept_errors.load(Ordering::Relaxed), 4);

        phase.send_replace(Phase::Draining);
        running.await.expect("no panic");
    }

    /// Faults 90.
    #[tokio::test]
    async fn a_connection_that_waits_for_its_place_when_no_more_are_accepted_is_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (accepted, places) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (phase, watched) = watch::channel(Phase::Serving);
        let running = tokio::spawn(run(
            watched,
            Telling(listener, Arc::clone(&accepted)),
            Transport::Http,
            shared(),
            Arc::clone(&places),
        ));

        let tcp = TcpStream::connect(address).await.expect("it listens");
        accepted.acquire().await.expect("never closed").forget();
        phase.send_replace(Phase::Retiring);
        places.add_permits(1);
        assert_eq!(answer(tcp).await, *b"HTTP/1.1 404");
        running.await.expect("no panic");
        TcpStream::connect(address).await.expect_err("it listens no more");
    }
}
