//! The counters as text for Prometheus, under the Go Collector's names.
//!
//! Names are those of its instruments (`metadata.yaml` of each component). By default they stay as
//! they are, as with the reader that it has by default; where `readers` are written out, units and
//! `_total` are added (OpenTelemetry specification v1.48, "Prometheus and OpenMetrics Compatibility").

use std::fmt::{self, Write as _};
use std::fs;
use std::time::Instant;

use spanwire_config::{MetricNames, MetricsLevel};

use crate::batches::{BatchStats, Histogram};
use crate::ledger::DropReason;
use crate::stats::{
    ExporterStats, MemoryStats, PipelineStats, ProcessorStats, ReceiverStats, Stats,
};

/// The page of `/metrics`: text format 0.0.4 of Prometheus.
pub(crate) fn page(
    stats: &Stats,
    started: Instant,
    names: MetricNames,
    level: MetricsLevel,
) -> String {
    let mut page = Page { names, out: String::new() };
    // A string takes whatever is written to it.
    let _infallible = write(stats, started, level, &mut page);
    page.out
}

fn write(stats: &Stats, started: Instant, level: MetricsLevel, page: &mut Page) -> fmt::Result {
    memory(stats.memory, page)?;
    receivers(&stats.receivers, page)?;
    pipelines(stats, page)?;
    exporters(&stats.exporters, page)?;
    batches(&stats.exporters, level, page)?;
    ledger(stats, page)?;
    process(started, page)
}

fn memory(memory: MemoryStats, page: &mut Page) -> fmt::Result {
    let mut one = |name, help, bytes: usize| page.family(name, Kind::Gauge, help)?.row(&[], bytes);
    one("spanwire_memory_held_bytes", "What requests hold, copies included.", memory.held)?;
    one("spanwire_memory_limit_bytes", "What they hold at most before they are taken.", memory.max)
}

/// What a row shows of one component.
type Value<T> = fn(&T) -> u64;

fn receivers(receivers: &[ReceiverStats], page: &mut Page) -> fmt::Result {
    let rows: [(_, _, _, Value<ReceiverStats>); 11] = [
        ("otelcol_receiver_accepted_spans", Kind::Counter, "Spans taken over.", |one| one.accepted),
        ("otelcol_receiver_refused_spans", Kind::Counter, "Spans that may be sent again.", |one| {
            one.refused
        }),
        ("otelcol_receiver_failed_spans", Kind::Counter, "Spans refused for good.", |one| {
            one.failed
        }),
        ("spanwire_receiver_connections", Kind::Gauge, "Connections open.", |one| {
            one.connections.open as u64
        }),
        (
            "spanwire_receiver_connections_limit",
            Kind::Gauge,
            "Connections that may be open; more wait.",
            |one| one.connections.max as u64,
        ),
        (
            "spanwire_receiver_connections_accepted_total",
            Kind::Counter,
            "Connections that came.",
            |one| one.connections.accepted,
        ),
        (
            "spanwire_receiver_connections_failed_total",
            Kind::Counter,
            "Connections ended by an error.",
            |one| one.connections.failed,
        ),
        (
            "spanwire_receiver_tls_handshakes_failed_total",
            Kind::Counter,
            "TLS handshakes that failed.",
            |one| one.connections.tls_handshakes_failed,
        ),
        (
            "spanwire_receiver_connections_unexpected_tls_total",
            Kind::Counter,
            "Connections that began with TLS where none is served.",
            |one| one.connections.unexpected_tls,
        ),
        (
            "spanwire_receiver_connections_not_grpc_total",
            Kind::Counter,
            "Connections to a gRPC port that spoke neither HTTP/2 nor TLS.",
            |one| one.connections.not_grpc,
        ),
        (
            "spanwire_receiver_accept_errors_total",
            Kind::Counter,
            "Times that the system could not hand over a connection.",
            |one| one.connections.accept_errors,
        ),
    ];
    for (name, kind, help, value) in rows {
        let mut family = page.family(name, kind, help)?;
        for one in receivers {
            let labels = [("receiver", &*one.receiver), ("transport", one.transport)];
            family.row(&labels, value(one))?;
        }
    }
    let mut refused = page.family(
        "spanwire_receiver_refused_requests_total",
        Kind::Counter,
        "Requests refused, also those whose spans are not known.",
    )?;
    for one in receivers {
        for (reason, requests) in &one.requests_refused {
            let labels =
                [("receiver", &*one.receiver), ("transport", one.transport), ("reason", *reason)];
            refused.row(&labels, requests)?;
        }
    }
    Ok(())
}

fn pipelines(stats: &Stats, page: &mut Page) -> fmt::Result {
    let rows: [(_, _, Value<ProcessorStats>); 2] = [
        ("otelcol_processor_incoming_items", "Spans into a processor.", |one| one.incoming),
        ("otelcol_processor_outgoing_items", "Spans out of a processor.", |one| one.outgoing),
    ];
    for (name, help, value) in rows {
        let mut family = page.family(name, Kind::Counter, help)?;
        for one in &stats.processors {
            let labels = [
                ("processor", &*one.processor),
                ("pipeline", &*one.pipeline),
                ("otel_signal", "traces"),
            ];
            family.row(&labels, value(one))?;
        }
    }
    let mut family = page.family(
        "spanwire_pipeline_spans_total",
        Kind::Counter,
        "What became of the spans that a pipeline took over: accepted is the sum of the others.",
    )?;
    for PipelineStats { pipeline, passed } in &stats.pipelines {
        let mut row =
            |state, spans: u64| family.row(&[("pipeline", &**pipeline), ("state", state)], spans);
        row("accepted", passed.accepted)?;
        row("sampled_out", passed.sampled_out)?;
        row("forwarded", passed.forwarded)?;
    }
    Ok(())
}

fn exporters(exporters: &[ExporterStats], page: &mut Page) -> fmt::Result {
    let rows: [(_, _, _, Value<ExporterStats>); 8] = [
        ("otelcol_exporter_sent_spans", Kind::Counter, "Spans the destination took.", |one| {
            one.account.sent
        }),
        (
            "otelcol_exporter_send_failed_spans",
            Kind::Counter,
            "Spans given up, or rejected by the destination.",
            |one| {
                let not_let_in = one.account.dropped(DropReason::QueueFull);
                one.account.dropped_in_all() - not_let_in + one.account.rejected
            },
        ),
        (
            "otelcol_exporter_enqueue_failed_spans",
            Kind::Counter,
            "Spans for which the queue had no room.",
            |one| one.account.refused + one.account.dropped(DropReason::QueueFull),
        ),
        ("otelcol_exporter_in_flight_requests", Kind::Gauge, "Requests on their way.", |one| {
            one.account.requests_in_flight
        }),
        ("spanwire_exporter_queued_spans", Kind::Gauge, "Spans waiting, or on their way.", |one| {
            one.account.queued
        }),
        ("spanwire_exporter_requests_total", Kind::Counter, "Attempts to send.", |one| {
            one.account.requests
        }),
        ("spanwire_exporter_failures_total", Kind::Counter, "Attempts that failed.", |one| {
            one.account.failures
        }),
        ("spanwire_exporter_wire_bytes_total", Kind::Counter, "Bytes of all attempts.", |one| {
            one.account.wire_bytes
        }),
    ];
    for (name, kind, help, value) in rows {
        let mut family = page.family(name, kind, help)?;
        for one in exporters {
            family.row(&[("exporter", &*one.exporter)], value(one))?;
        }
    }
    let of_queues: [(_, _, Value<ExporterStats>); 2] = [
        ("otelcol_exporter_queue_size", "What the queue holds.", |one| one.queue_size as u64),
        ("otelcol_exporter_queue_capacity", "What the queue holds at most.", |one| {
            one.queue_capacity as u64
        }),
    ];
    for (name, help, value) in of_queues {
        let mut family = page.family(name, Kind::Gauge, help)?;
        for one in exporters {
            let labels = [("exporter", &*one.exporter), ("data_type", "traces")];
            family.row(&labels, value(one))?;
        }
    }
    Ok(())
}

/// Batches, by the batch processor that asks for them, or by the exporter that does so itself. Each
/// destination of a processor has its own. Sizes in bytes, and those of exporters, are for the
/// detailed level, as in the Go Collector.
fn batches(exporters: &[ExporterStats], level: MetricsLevel, page: &mut Page) -> fmt::Result {
    let all = || exporters.iter().filter_map(|one| Some((&*one.exporter, one.batches.as_ref()?)));
    let of_processors = || {
        all().filter_map(|(exporter, batches)| {
            let labels = [("processor", batches.processor.as_deref()?), ("exporter", exporter)];
            Some((labels, batches))
        })
    };
    let of_exporters = || {
        let own = all().filter(|(_, batches)| batches.processor.is_none());
        own.map(|(exporter, batches)| ([("exporter", exporter)], batches))
    };
    let counters: [(_, _, Value<BatchStats>); 2] = [
        (
            "otelcol_processor_batch_batch_size_trigger_send",
            "Batches sent as they were large enough.",
            |batches| batches.by_size,
        ),
        (
            "otelcol_processor_batch_timeout_trigger_send",
            "Batches sent as they had waited long enough.",
            |batches| batches.by_age,
        ),
    ];
    for (name, help, value) in counters {
        let mut family = page.family(name, Kind::Counter, help)?;
        for (labels, batches) in of_processors() {
            family.row(&labels, value(batches))?;
        }
    }
    let (spans, bytes) = ("Spans of a batch.", "Bytes of a batch.");
    let mut family =
        page.family("otelcol_processor_batch_batch_send_size", Kind::Histogram, spans)?;
    for (labels, batches) in of_processors() {
        family.histogram(&labels, &batches.spans)?;
    }
    if level < MetricsLevel::Detailed {
        return Ok(());
    }
    let name = "otelcol_processor_batch_batch_send_size_bytes";
    let mut family = page.family(name, Kind::Histogram, bytes)?;
    for (labels, batches) in of_processors() {
        family.histogram(&labels, &batches.bytes)?;
    }
    let mut family =
        page.family("otelcol_exporter_queue_batch_send_size", Kind::Histogram, spans)?;
    for (labels, batches) in of_exporters() {
        family.histogram(&labels, &batches.spans)?;
    }
    let name = "otelcol_exporter_queue_batch_send_size_bytes";
    let mut family = page.family(name, Kind::Histogram, bytes)?;
    for (labels, batches) in of_exporters() {
        family.histogram(&labels, &batches.bytes)?;
    }
    Ok(())
}

fn ledger(stats: &Stats, page: &mut Page) -> fmt::Result {
    let mut family = page.family(
        "spanwire_ledger_spans_total",
        Kind::Counter,
        "What became of each destination's spans: accepted is the sum of the others and of \
         spanwire_exporter_queued_spans.",
    )?;
    for one in &stats.exporters {
        let account = &one.account;
        let mut row = |state, spans: u64| {
            family.row(&[("exporter", &*one.exporter), ("state", state)], spans)
        };
        row("accepted", account.accepted)?;
        row("sampled_out", account.sampled_out)?;
        row("sent", account.sent)?;
        row("rejected", account.rejected)?;
        for reason in DropReason::ALL {
            let spans = account.dropped(reason);
            let labels =
                [("exporter", &*one.exporter), ("state", "dropped"), ("reason", reason.as_str())];
            family.row(&labels, spans)?;
        }
    }
    let mut family = page.family(
        "spanwire_ledger_imbalance",
        Kind::Gauge,
        "Spans that the ledger does not account for: always 0.",
    )?;
    for one in &stats.pipelines {
        family.row(&[("pipeline", &*one.pipeline)], one.passed.imbalance())?;
    }
    for one in &stats.exporters {
        family.row(&[("exporter", &*one.exporter)], one.account.imbalance())?;
    }
    Ok(())
}

fn process(started: Instant, page: &mut Page) -> fmt::Result {
    let mut one = |name, kind, help, value: f64| page.family(name, kind, help)?.row(&[], value);
    let uptime = started.elapsed().as_secs_f64();
    one("otelcol_process_uptime", Kind::Seconds, "Since the start.", uptime)?;
    if let Some((cpu_seconds, rss_bytes)) = used() {
        one("otelcol_process_cpu_seconds", Kind::Seconds, "User and system.", cpu_seconds)?;
        one("otelcol_process_memory_rss", Kind::Bytes, "Resident memory.", rss_bytes)?;
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

/// What a metric is, and what it counts where that is more than things.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// A counter of them.
    Seconds,
    /// A gauge of them.
    Bytes,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter | Self::Seconds => "counter",
            Self::Gauge | Self::Bytes => "gauge",
            Self::Histogram => "histogram",
        }
    }

    /// What is added to a name for the unit, and for the type.
    const fn suffixes(self) -> (&'static str, &'static str) {
        match self {
            Self::Counter => ("", "_total"),
            Self::Seconds => ("_seconds", "_total"),
            Self::Bytes => ("_bytes", ""),
            Self::Gauge | Self::Histogram => ("", ""),
        }
    }
}

struct Page {
    names: MetricNames,
    out: String,
}

impl Page {
    /// The head of a metric, whose rows come next.
    fn family(&mut self, name: &str, kind: Kind, help: &str) -> Result<Family<'_>, fmt::Error> {
        let (unit, suffix) = kind.suffixes();
        let mut name = name.to_owned();
        for (wanted, suffix) in [(self.names.units, unit), (self.names.type_suffix, suffix)] {
            if wanted && !name.ends_with(suffix) {
                name.push_str(suffix);
            }
        }
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str())?;
        Ok(Family { name, out: &mut self.out })
    }
}

/// Rows of one metric.
struct Family<'a> {
    name: String,
    out: &'a mut String,
}

impl Family<'_> {
    fn row(&mut self, labels: &[(&str, &str)], value: impl fmt::Display) -> fmt::Result {
        self.row_of("", labels, value)
    }

    fn histogram(&mut self, labels: &[(&str, &str)], sizes: &Histogram) -> fmt::Result {
        let mut count = 0;
        let bounds = sizes.buckets.iter().map(|(bound, within)| (bound.to_string(), within));
        for (bound, within) in bounds.chain([("+Inf".to_owned(), &sizes.beyond)]) {
            count += within;
            self.row_of("_bucket", &[labels, &[("le", &*bound)]].concat(), count)?;
        }
        self.row_of("_sum", labels, sizes.sum)?;
        self.row_of("_count", labels, count)
    }

    fn row_of(
        &mut self,
        part: &str,
        labels: &[(&str, &str)],
        value: impl fmt::Display,
    ) -> fmt::Result {
        write!(self.out, "{}{part}", self.name)?;
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

    fn text(stats: &Stats, names: MetricNames, level: MetricsLevel) -> String {
        page(stats, Instant::now(), names, level)
    }

    fn plain(stats: &Stats) -> String {
        text(stats, MetricNames::default(), MetricsLevel::Normal)
    }

    fn assert_rows(text: &str, rows: &[String]) {
        for row in rows {
            assert!(text.lines().any(|line| line == row), "{row} in {text}");
        }
    }

    fn exporter(exporter: &str, batches: Option<BatchStats>) -> ExporterStats {
        ExporterStats { exporter: exporter.into(), batches, ..ExporterStats::default() }
    }

    #[test]
    fn names_and_labels_are_those_of_the_go_collector() {
        let processor = ProcessorStats {
            processor: "attributes/2".into(),
            pipeline: "traces/front".into(),
            incoming: 7,
            outgoing: 5,
        };
        let exporter =
            ExporterStats { queue_size: 3, queue_capacity: 1000, ..exporter("otlp", None) };
        let stats =
            Stats { processors: vec![processor], exporters: vec![exporter], ..Stats::default() };
        let processor =
            "{processor=\"attributes/2\",pipeline=\"traces/front\",otel_signal=\"traces\"}";
        let queue = "{exporter=\"otlp\",data_type=\"traces\"}";
        let rows = [
            format!("otelcol_processor_incoming_items{processor} 7"),
            format!("otelcol_processor_outgoing_items{processor} 5"),
            format!("otelcol_exporter_queue_size{queue} 3"),
            format!("otelcol_exporter_queue_capacity{queue} 1000"),
            "otelcol_exporter_sent_spans{exporter=\"otlp\"} 0".into(),
            "spanwire_exporter_queued_spans{exporter=\"otlp\"} 0".into(),
        ];
        assert_rows(&plain(&stats), &rows);
    }

    #[test]
    fn units_and_types_are_added_to_names_where_they_are_wanted_and_not_there() {
        let stats = Stats { exporters: vec![exporter("otlp", None)], ..Stats::default() };
        let names = |units, type_suffix| {
            let text = text(&stats, MetricNames { units, type_suffix }, MetricsLevel::Normal);
            let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            names.map(|line| line.split(' ').next().expect("a name").to_owned()).collect::<Vec<_>>()
        };
        for (units, type_suffix, expected) in [
            (false, false, ["otelcol_exporter_sent_spans", "otelcol_process_uptime"]),
            (false, true, ["otelcol_exporter_sent_spans_total", "otelcol_process_uptime_total"]),
            (true, false, ["otelcol_exporter_sent_spans", "otelcol_process_uptime_seconds"]),
            (
                true,
                true,
                ["otelcol_exporter_sent_spans_total", "otelcol_process_uptime_seconds_total"],
            ),
        ] {
            let names = names(units, type_suffix);
            for expected in expected {
                assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
            }
            let fixed = ["otelcol_exporter_queue_size", "spanwire_ledger_spans_total"];
            for fixed in fixed {
                assert!(names.iter().any(|name| name == fixed), "{fixed} in {names:?}");
            }
        }
        let both = names(true, true);
        for gauge in ["otelcol_process_memory_rss_bytes", "otelcol_process_cpu_seconds_total"] {
            assert!(both.iter().any(|name| name == gauge), "{gauge} in {both:?}");
        }
    }

    #[test]
    fn batches_count_for_the_processor_or_the_exporter_that_asks_for_them() {
        let sizes = Histogram { buckets: vec![(10, 2), (25, 1)], beyond: 1, sum: 60 };
        let of = |processor: Option<&str>| BatchStats {
            processor: processor.map(str::to_owned),
            spans: sizes.clone(),
            by_age: 3,
            ..BatchStats::default()
        };
        let exporters =
            vec![exporter("file", Some(of(Some("batch/2")))), exporter("otlp", Some(of(None)))];
        let stats = Stats { exporters, ..Stats::default() };
        let size = "otelcol_processor_batch_batch_send_size";
        let labels = "processor=\"batch/2\",exporter=\"file\"";
        let rows = [
            format!("# TYPE {size} histogram"),
            format!("{size}_bucket{{{labels},le=\"10\"}} 2"),
            format!("{size}_bucket{{{labels},le=\"25\"}} 3"),
            format!("{size}_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("{size}_sum{{{labels}}} 60"),
            format!("{size}_count{{{labels}}} 4"),
            format!("otelcol_processor_batch_timeout_trigger_send{{{labels}}} 3"),
        ];
        let normal = plain(&stats);
        assert_rows(&normal, &rows);
        assert!(!normal.contains("queue_batch_send_size"), "{normal}");
        let detailed = text(&stats, MetricNames::default(), MetricsLevel::Detailed);
        let own = "otelcol_exporter_queue_batch_send_size_count{exporter=\"otlp\"} 4";
        assert_rows(&detailed, &[own.to_owned()]);
        assert!(!detailed.contains("processor=\"\""), "{detailed}");
    }

    #[test]
    fn what_requests_hold_is_told_beside_what_they_may_hold() {
        let memory = MemoryStats { held: 1 << 30, max: 1 << 28 };
        let text = plain(&Stats { memory, ..Stats::default() });
        let rows = [
            "spanwire_memory_held_bytes 1073741824".to_owned(),
            "spanwire_memory_limit_bytes 268435456".to_owned(),
        ];
        assert_rows(&text, &rows);
    }

    #[test]
    fn no_counter_falls() {
        let text = plain(&Stats::default());
        let of_queue = |line: &str| line.contains("queue") && line.ends_with(" counter");
        let falling: Vec<_> = text.lines().filter(|line| of_queue(line)).collect();
        assert_eq!(falling, ["# TYPE otelcol_exporter_enqueue_failed_spans counter"]);
    }
}
