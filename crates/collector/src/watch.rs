//! What goes wrong at a server of spans before a pipeline knows of it, in lines of the log: with
//! connections, and with requests that it refuses by itself.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use spanwire_receiver::{Reason, Receiver};

use crate::log::{QUIET, chain};
use crate::stats::{ConnectionStats, MemoryStats, ReceiverStats};

/// Tells what is new of a server since it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Watch(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    /// When there was something to tell.
    told: Option<Instant>,
    seen: Seen,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    connections: ConnectionStats,
    /// Requests refused, by reason.
    refused: Vec<(&'static str, u64)>,
    /// What decides on many of them.
    memory: MemoryStats,
    /// Why the last TLS handshake failed that did.
    handshake: Option<String>,
    /// Why certificate files are not used as they are now.
    unused_files: Vec<String>,
}

impl Watch {
    pub(crate) fn look(
        &self,
        name: &str,
        receiver: &Receiver,
        stats: ReceiverStats,
        memory: MemoryStats,
        now: Instant,
    ) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET) {
            return;
        }
        let files = receiver.unused_tls_files();
        let seen = Seen {
            connections: stats.connections,
            refused: stats.requests_refused,
            memory,
            handshake: receiver.last_tls_failure().map(|error| chain(&*error)),
            unused_files: files.iter().map(|error| chain(&**error)).collect(),
        };
        for message in seen.news(&last.seen) {
            tracing::warn!(component = name, "{message}");
            last.told = Some(now);
        }
        last.seen = seen;
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
        news.extend(other_protocols(now, then));
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
        news.extend(self.for_want_of_memory(before));
        news.extend(self.for_good(before));
        news.extend(self.elsewhere(before));
        if self.unused_files != before.unused_files {
            let message = |why| format!("goes on with the certificates it has: {why}");
            news.extend(self.unused_files.iter().map(message));
        }
        news
    }

    fn for_want_of_memory(&self, before: &Self) -> Option<String> {
        let requests = self.refused_since(before, &MEMORY);
        let MemoryStats { held, max } = self.memory;
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        (requests > 0).then(|| {
            format!(
                "{} refused for want of memory, to be sent again: requests hold {:.1} of {:.1} MiB now",
                Requests(requests),
                mib(held),
                mib(max)
            )
        })
    }

    fn for_good(&self, before: &Self) -> Option<String> {
        let sum = self.refused_since(before, &FOR_GOOD);
        let each = FOR_GOOD.map(|reason| (reason, self.refused_since(before, &[reason])));
        let each = each.iter().filter(|(_, requests)| *requests > 0);
        let each = each.map(|(reason, requests)| format!("{requests} {}", reason.as_str()));
        let each = each.collect::<Vec<_>>().join(", ");
        (sum > 0).then(|| format!("{} refused for good, by reason: {each}", Requests(sum)))
    }

    /// The first ones only.
    fn elsewhere(&self, before: &Self) -> Option<String> {
        let is_new = before.refused_since(&Self::default(), &ELSEWHERE) == 0;
        let requests = self.refused_since(before, &ELSEWHERE);
        (is_new && requests > 0).then(|| {
            format!(
                "{} refused for a path or method that OTLP does not have: a probe, or a sender with a \
                 wrong endpoint; any more are only counted",
                Requests(requests)
            )
        })
    }

    /// Requests refused for one of these reasons since then.
    fn refused_since(&self, before: &Self, reasons: &[Reason]) -> u64 {
        let sum = |seen: &Self| -> u64 {
            let named = |(name, _): &&(&str, u64)| reasons.iter().any(|one| one.as_str() == *name);
            seen.refused.iter().filter(named).map(|(_, requests)| requests).sum()
        };
        sum(self).saturating_sub(sum(before))
    }
}

/// The first connections only, as a probe may be no better.
fn other_protocols(now: &ConnectionStats, then: &ConnectionStats) -> Vec<String> {
    let seen = [
        (
            now.not_grpc,
            then.not_grpc,
            "speak HTTP/1.1 or nothing known, where gRPC is spoken: an exporter of OTLP/HTTP is to send \
             to the port for HTTP, mostly 4318",
        ),
        (
            now.unexpected_tls,
            then.unexpected_tls,
            "begin with TLS, where none is served: set `tls` of this receiver, or have the sender use \
             `http://` or `insecure`",
        ),
    ];
    let first = seen.iter().filter(|(now, then, _)| *then == 0 && *now > 0);
    first
        .map(|(now, _, what)| format!("connections ({now}) {what}; any more are only counted"))
        .collect()
}

/// Nobody but a receiver counts these: what has no room is not read.
const MEMORY: [Reason; 2] = [Reason::Budget, Reason::SinkExhausted];

/// Faults of senders, or of ours: they do not send it again.
const FOR_GOOD: [Reason; 8] = [
    Reason::ContentType,
    Reason::ContentEncoding,
    Reason::TooLarge,
    Reason::Framing,
    Reason::Malformed,
    Reason::Panic,
    Reason::SinkTooLarge,
    Reason::SinkInternal,
];

/// Mostly those of a load balancer that looks whether the port is open, as long as it stands there. A
/// sender with a wrong endpoint sends nothing else, so the first ones are told.
const ELSEWHERE: [Reason; 2] = [Reason::Path, Reason::Method];

/// So many of them.
struct Requests(u64);

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 request"),
            requests => write!(f, "{requests} requests"),
        }
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
        Seen { connections, handshake: Some("no cipher".into()), ..Seen::default() }
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
    fn the_first_connections_of_another_protocol_are_told() {
        let seen = |not_grpc, unexpected_tls| {
            let connections =
                ConnectionStats { not_grpc, unexpected_tls, max: 10, ..ConnectionStats::default() };
            Seen { connections, ..Seen::default() }
        };
        let first = seen(3, 1).news(&seen(0, 0));
        assert!(first[0].contains("(3) speak HTTP/1.1") && first[0].contains("4318"), "{first:?}");
        assert!(first[1].contains("(1) begin with TLS"), "{first:?}");
        assert_eq!(seen(9, 9).news(&seen(3, 1)), Vec::<String>::new());
    }

    #[test]
    fn certificate_files_are_told_of_when_they_change() {
        let wrong = Seen { unused_files: vec!["server.pem: empty".into()], ..seen(0, 0, 0) };
        assert_eq!(wrong.news(&seen(0, 0, 0)).len(), 1);
        assert_eq!(wrong.news(&wrong), Vec::<String>::new());
        assert_eq!(seen(0, 0, 0).news(&wrong), Vec::<String>::new());
    }

    #[test]
    fn requests_that_memory_has_no_room_for_are_told_with_what_it_holds() {
        let seen = |budget, too_large, malformed| {
            let names = [("budget", budget), ("too_large", too_large), ("malformed", malformed)];
            let memory = MemoryStats { held: 64 << 20, max: 64 << 20 };
            Seen { refused: names.to_vec(), memory, ..seen(0, 0, 0) }
        };
        let before = seen(10, 1, 1);
        assert_eq!(before.news(&before), Vec::<String>::new());
        let memory = "52000 requests refused for want of memory, to be sent again: requests hold 64.0 \
                      of 64.0 MiB now";
        assert_eq!(seen(52_010, 1, 1).news(&before), [memory]);
        let for_good = "3 requests refused for good, by reason: 1 too_large, 2 malformed";
        assert_eq!(seen(10, 2, 3).news(&before), [for_good]);
        assert_eq!(seen(0, 1, 0).news(&Seen::default()).len(), 1, "the first look tells, too");
    }

    #[test]
    fn of_probes_the_first_ones_are_told() {
        let seen = |path, method| Seen {
            refused: vec![("path", path), ("method", method)],
            ..seen(0, 0, 0)
        };
        let first = seen(1, 1).news(&seen(0, 0));
        assert!(
            matches!(&first[..], [told] if told.starts_with("2 requests refused for a path or"))
        );
        assert_eq!(seen(100, 1).news(&seen(1, 1)), Vec::<String>::new());
        assert_eq!(seen(100, 1).news(&seen(0, 1)), Vec::<String>::new(), "either is one of them");
    }
}
