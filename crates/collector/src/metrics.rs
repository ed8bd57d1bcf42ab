//! The counters as text for Prometheus, under the Go Collector's names.
//!
//! These are the names that its metrics have with the reader it has by default, which adds neither
//! `_total` nor units (`createDefaultConfig` in `service/telemetry/otelconftelemetry/factory.go`).

use std::fmt::{self, Write as _};
use std::fs;
use std::time::Instant;

use crate::ledger::DropReason;
use crate::stats::{ExporterStats, ReceiverStats, Stats};

/// What a row shows of one component.
type Value<T> = fn(&T) -> u64;

/// The page of `/metrics`: text format 0.0.4 of Prometheus.
pub(crate) fn page(stats: &Stats, started: Instant) -> String {
    let mut text = String::new();
    // A string takes whatever is written to it.
    let _infallible = write(stats, started, &mut text);
    text
}

fn write(stats: &Stats, started: Instant, out: &mut String) -> fmt::Result {
    let mut family = Family { out };
    let of_receivers: [(_, _, Value<ReceiverStats>); 3] = [
        ("otelcol_receiver_accepted_spans", "Spans taken over.", |one| one.accepted),
        ("otelcol_receiver_refused_spans", "Spans that may be sent again.", |one| one.refused),
        ("otelcol_receiver_failed_spans", "Spans refused for good.", |one| one.failed),
    ];
    for (name, help, value) in of_receivers {
        family.head(name, "counter", help)?;
        for one in &stats.receivers {
            let labels = [("receiver", &*one.receiver), ("transport", one.transport)];
            family.row(name, &labels, value(one))?;
        }
    }
    for (name, help, outgoing) in [
        ("otelcol_processor_incoming_items", "Spans into a processor.", false),
        ("otelcol_processor_outgoing_items", "Spans out of a processor.", true),
    ] {
        family.head(name, "counter", help)?;
        for one in &stats.processors {
            let pipeline = one.pipeline.as_deref().unwrap_or_default();
            let labels =
                [("processor", &*one.id), ("pipeline", pipeline), ("otel_signal", "traces")];
            family.row(name, &labels, if outgoing { one.outgoing } else { one.incoming })?;
        }
    }
    let of_exporters: [(_, _, _, Value<ExporterStats>); 8] = [
        ("otelcol_exporter_sent_spans", "counter", "Spans the destination took.", |one| {
            one.account.sent
        }),
        (
            "otelcol_exporter_send_failed_spans",
            "counter",
            "Spans given up, or rejected by the destination.",
            |one| {
                let not_let_in = one.account.dropped(DropReason::QueueFull);
                one.account.dropped_in_all() - not_let_in + one.account.rejected
            },
        ),
        (
            "otelcol_exporter_enqueue_failed_spans",
            "counter",
            "Spans for which the queue had no room.",
            |one| one.account.refused + one.account.dropped(DropReason::QueueFull),
        ),
        ("otelcol_exporter_in_flight_requests", "gauge", "Requests on their way.", |one| {
            one.account.requests_in_flight
        }),
        ("spanwire_exporter_queued_spans", "gauge", "Spans waiting, or on their way.", |one| {
            one.account.queued
        }),
        ("spanwire_exporter_requests_total", "counter", "Attempts to send.", |one| {
            one.account.requests
        }),
        ("spanwire_exporter_failures_total", "counter", "Attempts that failed.", |one| {
            one.account.failures
        }),
        ("spanwire_exporter_wire_bytes_total", "counter", "Bytes of all attempts.", |one| {
            one.account.wire_bytes
        }),
    ];
    for (name, kind, help, value) in of_exporters {
        family.head(name, kind, help)?;
        for one in &stats.exporters {
            family.row(name, &[("exporter", &*one.exporter)], value(one))?;
        }
    }
    let of_queues: [(_, _, Value<ExporterStats>); 2] = [
        ("otelcol_exporter_queue_size", "What the queue holds.", |one| one.queue_size as u64),
        ("otelcol_exporter_queue_capacity", "What the queue holds at most.", |one| {
            one.queue_capacity as u64
        }),
    ];
    for (name, help, value) in of_queues {
        family.head(name, "gauge", help)?;
        for one in &stats.exporters {
            let labels = [("exporter", &*one.exporter), ("data_type", "traces")];
            family.row(name, &labels, value(one))?;
        }
    }
    let ledger = "spanwire_ledger_spans_total";
    family.head(
        ledger,
        "counter",
        "What became of each destination's spans: accepted is the sum of the others and of \
         spanwire_exporter_queued_spans.",
    )?;
    for one in &stats.exporters {
        let account = &one.account;
        let mut row = |state: &str, spans| {
            family.row(ledger, &[("exporter", &*one.exporter), ("state", state)], spans)
        };
        row("accepted", account.accepted)?;
        row("sent", account.sent)?;
        row("rejected", account.rejected)?;
        for reason in DropReason::ALL {
            let spans = account.dropped(reason);
            let labels =
                [("exporter", &*one.exporter), ("state", "dropped"), ("reason", reason.as_str())];
            family.row(ledger, &labels, spans)?;
        }
    }
    let imbalance = "spanwire_ledger_imbalance";
    family.head(imbalance, "gauge", "Spans that the ledger does not account for: always 0.")?;
    for one in &stats.exporters {
        family.row(imbalance, &[("exporter", &*one.exporter)], one.account.imbalance())?;
    }
    process(started, &mut family)
}

fn process(started: Instant, family: &mut Family<'_>) -> fmt::Result {
    let mut one = |name, kind, help, value: f64| {
        family.head(name, kind, help)?;
        family.row(name, &[], value)
    };
    let uptime = started.elapsed().as_secs_f64();
    one("otelcol_process_uptime", "counter", "Since the start.", uptime)?;
    if let Some((cpu_seconds, rss_bytes)) = used() {
        one("otelcol_process_cpu_seconds", "counter", "User and system.", cpu_seconds)?;
        one("otelcol_process_memory_rss", "gauge", "Resident memory.", rss_bytes)?;
    }
    Ok(())
}

/// CPU seconds and resident bytes of this process, where the system tells them: Linux does, in
/// hundredths of a second (`USER_HZ`, proc_pid_stat(5)) and in kB.
fn used() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = rss.split_whitespace().next()?.parse().ok()?;
    Some(((user + system) / 100.0, kib * 1024.0))
}

/// Rows of one metric.
struct Family<'a> {
    out: &'a mut String,
}

impl Family<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn row(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl fmt::Display,
    ) -> fmt::Result {
        self.out.write_str(name)?;
        for (place, (label, text)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            write!(self.out, "{before}{label}=\"")?;
            for character in text.chars() {
                match character {
                    '"' | '\\' => write!(self.out, "\\{character}")?,
                    '\n' => self.out.write_str("\\n")?,
                    _ => self.out.write_char(character)?,
                }
            }
            self.out.write_char('"')?;
        }
        if !labels.is_empty() {
            self.out.write_char('}')?;
        }
        writeln!(self.out, " {value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::StageStats;

    #[test]
    fn names_and_labels_are_those_of_the_go_collector() {
        let processor = StageStats {
            id: "attributes/2".into(),
            pipeline: Some("traces/front".into()),
            incoming: 7,
            outgoing: 5,
        };
        let exporter = ExporterStats {
            exporter: "otlp".into(),
            queue_size: 3,
            queue_capacity: 1000,
            ..ExporterStats::default()
        };
        let stats =
            Stats { processors: vec![processor], exporters: vec![exporter], ..Stats::default() };
        let text = page(&stats, Instant::now());
        let processor =
            "{processor=\"attributes/2\",pipeline=\"traces/front\",otel_signal=\"traces\"}";
        let queue = "{exporter=\"otlp\",data_type=\"traces\"}";
        for row in [
            format!("otelcol_processor_incoming_items{processor} 7"),
            format!("otelcol_processor_outgoing_items{processor} 5"),
            format!("otelcol_exporter_queue_size{queue} 3"),
            format!("otelcol_exporter_queue_capacity{queue} 1000"),
            "otelcol_exporter_sent_spans{exporter=\"otlp\"} 0".into(),
            "spanwire_exporter_queued_spans{exporter=\"otlp\"} 0".into(),
        ] {
            assert!(text.lines().any(|line| line == row), "{row} in {text}");
        }
    }

    #[test]
    fn no_counter_falls() {
        let text = page(&Stats::default(), Instant::now());
        let of_queue = |line: &str| line.contains("queue") && line.ends_with(" counter");
        let falling: Vec<_> = text.lines().filter(|line| of_queue(line)).collect();
        assert_eq!(falling, ["# TYPE otelcol_exporter_enqueue_failed_spans counter"]);
    }
}
