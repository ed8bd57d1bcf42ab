//! Host names to addresses, anew for each connection.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower_service::Service;

/// Asks the system's resolver, and begins with another address after each failure.
///
/// Nothing is kept from one connection to the next, so a changed record is seen by the next
/// connection (caching is the system's business). A look-up blocks a thread of its own, never that
/// of the requests, and few run at a time, whatever the number of attempts that were given up while
/// they hung.
#[derive(Clone)]
pub(crate) struct Resolver {
    lookup: Lookup,
    /// Counts failures.
    rotation: Arc<AtomicUsize>,
    turns: Arc<Semaphore>,
}

type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

impl Resolver {
    pub(crate) fn new() -> Self {
        // Of a thousand records a few are as good as all; `take` bounds what is copied.
        Self::by(|host| Ok((host, 0).to_socket_addrs()?.take(RECORDS_MAX).collect()))
    }

    fn by(lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self {
            lookup: Arc::new(lookup),
            rotation: Arc::default(),
            turns: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Lets the next connection begin with the next address.
    pub(crate) fn rotate(&self) {
        self.rotation.fetch_add(1, Ordering::Relaxed);
    }

    async fn resolve(self, name: Name) -> io::Result<vec::IntoIter<SocketAddr>> {
        let turn = self.turns.acquire_owned().await.map_err(io::Error::other)?;
        let mut addresses = tokio::task::spawn_blocking(move || {
            let found = (self.lookup)(name.as_str());
            drop(turn);
            found
        })
        .await
        .map_err(io::Error::other)??;
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        let len = addresses.len();
        addresses.rotate_left(self.rotation.load(Ordering::Relaxed) % len);
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses.into_iter())
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.clone().resolve(name))
    }
}

/// Addresses tried for one connection. They share the connect timeout among them, so each must
/// keep enough of it for a far host; those left out have their turn after a failure.
const ADDRESSES_MAX: usize = 4;

/// Threads that look-ups of one endpoint may hold.
const LOOKUPS_MAX: usize = 4;

const RECORDS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    async fn addresses(resolver: &Resolver) -> io::Result<Vec<String>> {
        let name = "collector".parse().expect("a name");
        let found = resolver.clone().call(name).await?;
        Ok(found.map(|address| address.ip().to_string()).collect())
    }

    fn fixed(ips: &'static [&'static str]) -> Resolver {
        Resolver::by(|_| {
            Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 0)).collect())
        })
    }

    /// Faults 118.
    #[tokio::test]
    async fn after_a_failure_the_next_address_comes_first() {
        let resolver = fixed(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(addresses(&resolver).await.expect("some")[0], "10.0.0.1");
        assert_eq!(addresses(&resolver).await.expect("some")[0], "10.0.0.1", "no failure yet");
        for first in ["10.0.0.2", "10.0.0.3", "10.0.0.1"] {
            resolver.rotate();
            let found = addresses(&resolver).await.expect("some");
            assert_eq!((found[0].as_str(), found.len()), (first, 3));
        }
    }

    /// Faults 118, 119.
    #[tokio::test]
    async fn a_record_that_changed_is_seen_by_the_next_connection() {
        let record = Arc::new(Mutex::new("10.0.0.1"));
        let current = record.clone();
        let resolver = Resolver::by(move |_| {
            let ip = current.lock().expect("no panic").parse().expect("an address");
            Ok(vec![SocketAddr::new(ip, 0)])
        });
        assert_eq!(addresses(&resolver).await.expect("some"), ["10.0.0.1"]);
        *record.lock().expect("no panic") = "fd00::1";
        assert_eq!(addresses(&resolver).await.expect("some"), ["fd00::1"], "IPv6 alone is enough");
    }

    /// Faults 118.
    #[tokio::test]
    async fn of_a_thousand_records_a_few_are_tried_and_each_has_its_turn() {
        let resolver = Resolver::by(|_| {
            Ok((0..1000u32)
                .map(|i| SocketAddr::new(std::net::Ipv4Addr::from_bits(i).into(), 0))
                .collect())
        });
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let found = addresses(&resolver).await.expect("some");
            assert_eq!(found.len(), ADDRESSES_MAX);
            seen.insert(found[0].clone());
            resolver.rotate();
        }
        assert_eq!(seen.len(), 1000);
    }

    /// Faults 118.
    #[tokio::test]
    async fn a_name_without_an_address_and_one_that_fails_are_errors() {
        let error = addresses(&fixed(&[])).await.expect_err("empty");
        assert_eq!(error.to_string(), "the name has no address");
        let failing = Resolver::by(|_| Err(io::Error::other("SERVFAIL")));
        assert_eq!(addresses(&failing).await.expect_err("fails").to_string(), "SERVFAIL");
    }

    /// Faults 118.
    #[tokio::test]
    async fn look_ups_that_hang_hold_few_threads_however_many_attempts_wait() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let running = Arc::new(AtomicUsize::new(0));
        let entered = running.clone();
        let resolver = Resolver::by(move |_| {
            entered.fetch_add(1, Ordering::SeqCst);
            let _ = wait.lock().expect("no panic").recv();
            Ok(vec![SocketAddr::from(([10, 0, 0, 1], 0))])
        });
        for _ in 0..20 {
            let attempt = tokio::time::timeout(Duration::from_millis(5), addresses(&resolver));
            assert!(attempt.await.is_err(), "hangs");
        }
        assert!(running.load(Ordering::SeqCst) <= LOOKUPS_MAX);
        drop(go);
        assert_eq!(addresses(&resolver).await.expect("back").len(), 1);
    }
}
