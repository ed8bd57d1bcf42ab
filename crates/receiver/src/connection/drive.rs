//! What ends a connection, beside its peer.

use std::error::Error;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Connection, Phase};
use crate::settings::Settings;

/// Polls a connection of either protocol to its end, drains or retires it when `phase`, its age or
/// its idleness asks for that, and abandons it when it does not heed.
pub(super) async fn drive<C, S, E: Into<Box<dyn Error + Send + Sync>>>(
    connection: &Connection<S>,
    served: &mut C,
    poll: impl Fn(&mut C, &mut Context<'_>) -> Poll<Result<(), E>>,
    drain: impl Fn(&mut C),
    retire: impl Fn(&mut C),
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<()> {
    let Settings { idle_max, connection_age, .. } = connection.shared.settings;
    let mut watched = pin!(sleep(idle_max));
    let mut requests_seen = 0;
    let mut draining = false;
    // Without an age it is never polled, and costs no timer.
    let mut aged = pin!(sleep(connection_age.map_or(idle_max, |age| scattered(age.max))));
    let mut grace = connection_age.map(|age| age.grace);
    // It may have changed while the peer was waited for.
    phase.mark_changed();
    loop {
        tokio::select! {
            biased;
            // First, so that an answer given after a change says so. A receiver that was dropped
            // without a shutdown has no phase any more.
            changed = phase.changed() => match changed.map(|()| *phase.borrow_and_update()) {
                Ok(Phase::Serving) => {}
                Ok(Phase::Retiring) => retire(served),
                Ok(Phase::Draining) => {
                    // A request that has arrived is in flight, read or not.
                    if let Poll::Ready(ended) = poll_fn(|cx| Poll::Ready(poll(served, cx))).await {
                        return ended.map_err(io::Error::other);
                    }
                    drain(served);
                }
                Ok(Phase::Aborting) | Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            },
            ended = poll_fn(|cx| poll(served, cx)) => return ended.map_err(io::Error::other),
            () = &mut aged, if connection_age.is_some() => match grace.take() {
                // Not at once where it cannot be told at once: a request may be on its way.
                Some(grace) => {
                    retire(served);
                    aged.as_mut().reset(Instant::now() + grace);
                }
                None if !draining && connection.requests_open.load(Ordering::Relaxed) == 0 => {
                    draining = true;
                    drain(served);
                    aged.as_mut().reset(Instant::now() + IDLE_DRAIN_MAX);
                }
                None => return Err(io::ErrorKind::TimedOut.into()),
            },
            () = &mut watched => {
                let requests = connection.requests_begun.load(Ordering::Relaxed);
                let idle = requests == requests_seen
                    && connection.requests_open.load(Ordering::Relaxed) == 0;
                requests_seen = requests;
                if !idle {
                    watched.as_mut().reset(Instant::now() + idle_max);
                } else if draining {
                    return Err(io::ErrorKind::TimedOut.into());
                } else {
                    draining = true;
                    drain(served);
                    watched.as_mut().reset(Instant::now() + IDLE_DRAIN_MAX.min(idle_max));
                }
            }
        }
    }
}

/// `age`, up to a tenth more or less: connections that began together, as after a restart, should
/// not all come back together.
fn scattered(age: Duration) -> Duration {
    // The standard library's hash keys are the nearest source of chance.
    let thousandths = RandomState::new().build_hasher().finish() % 1000;
    age / 10 * 9 + age / 5000 * u32::try_from(thousandths).unwrap_or(0)
}

pub(super) fn poll_pinned<C: Future + Unpin>(
    served: &mut C,
    cx: &mut Context<'_>,
) -> Poll<C::Output> {
    Pin::new(served).poll(cx)
}

/// How long an idle connection may take to say goodbye before it is cut.
const IDLE_DRAIN_MAX: Duration = Duration::from_secs(5);
