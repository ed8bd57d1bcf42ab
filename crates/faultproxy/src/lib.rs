//! A TCP proxy that does to connections what networks do, for tests.
//!
//! A [`FaultProxy`] stands between a client and a server and decides how bytes travel: late, slowly,
//! up to a certain byte, or not at all. It knows nothing of the protocol, never changes a byte and
//! never reorders any: what arrives is what was sent, or a beginning of it. Time, order and ends are
//! all it touches. It is no benchmark's network: it costs a copy and a thread.
//!
//! # Guarantees
//!
//! - A fault strikes when the first byte beyond its position is about to pass: exactly so many
//!   bytes arrive before it.
//! - The same seed and the same number of a connection give the same faults.
//! - Dropping the proxy ends its thread and closes its port and every connection.
//!
//! # Example
//!
//! ```
//! use std::io::{ErrorKind, Read, Write};
//! use std::net::{TcpListener, TcpStream};
//!
//! use spanwire_faultproxy::{Direction, Fault, FaultProxy, Plan};
//!
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let proxy = FaultProxy::start(server.local_addr()?)?;
//! proxy.set(Plan::healthy().fault(Direction::Down, 4, Fault::Reset));
//!
//! let mut client = TcpStream::connect(proxy.address())?;
//! server.accept()?.0.write_all(b"HTTP/1.1 200 OK")?;
//! let mut received = Vec::new();
//! let error = client.read_to_end(&mut received).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::ConnectionReset);
//! assert_eq!(proxy.stats().resets, 1);
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

mod plan;
mod relay;
mod stats;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub use plan::{Direction, Fault, Plan};
use stats::Counters;
pub use stats::Stats;

/// A proxy on a free port of localhost, with a thread and a runtime of its own: it can be used in
/// any test, async or not.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    counters: Arc<Counters>,
    /// `None` only while it is dropped; the thread ends once it is.
    plan: Option<watch::Sender<Plan>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy for `upstream` that does no harm until it is told to. Each connection made
    /// to it makes one to `upstream`; where none can be made, the client is reset.
    ///
    /// # Errors
    ///
    /// No free port, or no thread to be had.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // `block_on` would panic within the caller's runtime; entering this one beside it is fine.
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let counters = Arc::new(Counters::default());
        let (plan, plans) = watch::channel(Plan::healthy());
        let proxy = accept(listener, upstream, plans, Arc::clone(&counters));
        let thread = thread::Builder::new()
            .name("spanwire-faultproxy".into())
            .spawn(move || runtime.block_on(proxy))?;
        Ok(Self { address, counters, plan: Some(plan), thread: Some(thread) })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens from now on, to new connections and to those open.
    ///
    /// For an open connection a fault's position counts from now. One that has already lost bytes
    /// keeps the fault it has, since its rest would make no sense; a stalled one has lost none and
    /// goes on where it stood.
    pub fn set(&self, plan: Plan) {
        if let Some(sender) = &self.plan {
            let _before = sender.send_replace(plan);
        }
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.plan.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed; a second one here would abort the test run.
            let _ended = thread.join();
        }
    }
}

/// Takes connections until the plan's sender is gone.
async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    mut plans: watch::Receiver<Plan>,
    counters: Arc<Counters>,
) {
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let counters = Arc::clone(&counters);
                    tokio::spawn(relay::connection(client, upstream, plans.clone(), number, counters));
                    number += 1;
                }
                // Out of file descriptors, as a rule: others may give some back.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            changed = plans.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// How long a listener rests that could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
