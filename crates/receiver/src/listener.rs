//! Accepts connections, through whatever errors the operating system has.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::connection::{self, Phase, Shared};
use crate::sink::{Sink, Transport};

/// Where connections come from.
pub(crate) trait Listen: Send + 'static {
    fn accept(&self) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

impl Listen for TcpListener {
    async fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(tcp, _peer)| tcp)
    }
}

/// Serves what `listener` accepts until `phase` is no longer serving.
///
/// An error never ends it. One that concerns a single connection is passed over; after any other,
/// such as no file descriptor being left, it waits, twice as long each time, for connections in
/// progress to give back what is missing.
pub(crate) async fn run<S: Sink>(
    listener: impl Listen,
    transport: Transport,
    shared: Arc<Shared<S>>,
    permits: Arc<Semaphore>,
    mut phase: watch::Receiver<Phase>,
) {
    let connections = phase.clone();
    let mut backoff = BACKOFF_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((tcp, permit)) => {
                backoff = BACKOFF_MIN;
                let served =
                    connection::serve(Arc::clone(&shared), tcp, transport, connections.clone());
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

/// Accepts one connection and waits until there is a place for it; those behind it wait in the
/// operating system's queue. Not the other way round: listeners share the places, and an idle one
/// must not hold the last.
async fn accept(
    listener: &impl Listen,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let tcp = listener.accept().await?;
    let permit = Arc::clone(permits).acquire_owned().await;
    Ok((tcp, permit.map_err(io::Error::other)?))
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
    use crate::stats::Counters;

    /// Fails with each of these before it listens.
    struct Failing(Mutex<Vec<io::Error>>, TcpListener);

    impl Listen for Failing {
        async fn accept(&self) -> io::Result<TcpStream> {
            let error = self.0.lock().expect("not poisoned").pop();
            match error {
                Some(error) => Err(error),
                None => Listen::accept(&self.1).await,
            }
        }
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
        let counters = Arc::new(Counters::default());
        let settings = Receiver::builder().settings();
        let budget = Arc::new(Budget::new(settings.in_flight_bytes_max));
        let sink = async |_: Received| Ok(Accepted::default());
        let shared = Shared::new(sink, settings, Arc::clone(&counters), budget);
        let (phase, watched) = watch::channel(Phase::Serving);
        let running = tokio::spawn(run(
            Failing(Mutex::new(errors), listener),
            Transport::Http,
            Arc::new(shared),
            Arc::new(Semaphore::new(1)),
            watched,
        ));

        let mut tcp = TcpStream::connect(address).await.expect("it listens");
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("open");
        let mut start = [0; 12];
        tcp.read_exact(&mut start).await.expect("an answer");
        assert_eq!(start, *b"HTTP/1.1 404");
        assert_eq!(counters.accept_errors.load(Ordering::Relaxed), 4);

        phase.send_replace(Phase::Draining);
        running.await.expect("no panic");
    }
}
