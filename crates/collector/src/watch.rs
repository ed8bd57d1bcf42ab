//! What goes wrong at a server of spans before there is a request to count, in lines of the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use spanwire_receiver::Receiver;

use crate::log::chain;
use crate::stats::ConnectionStats;

/// Tells what is new of a server since it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Watch(Mutex<Option<(Instant, Seen)>>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    connections: ConnectionStats,
    /// Why the last TLS handshake failed that did.
    handshake: Option<String>,
    /// Why certificate files are not used as they are now.
    unused_files: Vec<String>,
}

/// Looks that come sooner after one another tell nothing. Less than the 10 s after which the process
/// looks by itself, so that none of those is passed over.
const QUIET: Duration = Duration::from_secs(9);

impl Watch {
    pub(crate) fn look(
        &self,
        name: &str,
        receiver: &Receiver,
        connections: ConnectionStats,
        now: Instant,
    ) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(at, _)| now.saturating_duration_since(*at) < QUIET) {
            return;
        }
        let files = receiver.unused_tls_files();
        let seen = Seen {
            connections,
            handshake: receiver.last_tls_failure().map(|error| chain(&*error)),
            unused_files: files.iter().map(|error| chain(&**error)).collect(),
        };
        let before = last.take().map(|(_, seen)| seen).unwrap_or_default();
        for message in seen.news(&before) {
            tracing::warn!(component = name, "{message}");
        }
        *last = Some((now, seen));
    }
}

impl Seen {
    fn news(&self, before: &Self) -> Vec<String> {
        let (now, then) = (&self.connections, &before.connections);
        let mut news = Vec::new();
        let handshakes = now.tls_handshakes_failed - then.tls_handshakes_failed;
        if handshakes > 0 {
            let last = self.handshake.as_deref().unwrap_or("its reason is not known");
            news.push(format!("{handshakes} TLS handshakes failed; the last: {last}"));
        }
        let errors = now.accept_errors - then.accept_errors;
        if errors > 0 {
            news.push(format!(
                "the system could not hand over a connection, {errors} times: mostly as too many \
                 files are open, by the limit of the process"
            ));
        }
        if now.open >= now.max {
            news.push(format!(
                "all {} connections there may be are open, and more wait: the limits of memory and of \
                 open files decide",
                now.max
            ));
        }
        if self.unused_files != before.unused_files {
            let message = |why| format!("goes on with the certificates it has: {why}");
            news.extend(self.unused_files.iter().map(message));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(accept_errors: u64, tls_handshakes_failed: u64, open: usize) -> Seen {
        let connections = ConnectionStats {
            accept_errors,
            tls_handshakes_failed,
            open,
            max: 10,
            ..ConnectionStats::default()
        };
        Seen { connections, handshake: Some("no cipher".into()), unused_files: Vec::new() }
    }

    #[test]
    fn what_is_new_is_told_once_and_what_lasts_is_told_again() {
        assert_eq!(seen(0, 0, 9).news(&Seen::default()), Vec::<String>::new());
        let trouble = seen(2, 3, 10);
        let first = trouble.news(&seen(0, 1, 9));
        assert_eq!(first.len(), 3, "{first:?}");
        assert_eq!(first[0], "2 TLS handshakes failed; the last: no cipher");
        assert!(first[1].contains("2 times"), "{first:?}");
        let again = trouble.news(&trouble);
        assert_eq!(again.len(), 1, "{again:?}");
        assert!(again[0].starts_with("all 10 connections"), "{again:?}");
    }

    #[test]
    fn certificate_files_are_told_of_when_they_change() {
        let wrong = Seen { unused_files: vec!["server.pem: empty".into()], ..seen(0, 0, 0) };
        assert_eq!(wrong.news(&seen(0, 0, 0)).len(), 1);
        assert_eq!(wrong.news(&wrong), Vec::<String>::new());
        assert_eq!(seen(0, 0, 0).news(&wrong), Vec::<String>::new());
    }
}
