//! What a run found.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::latencies::Latencies;
use crate::ledger::Arrived;
use crate::process::MemoryPeak;
use crate::schedule::Rate;
use crate::settings::Settings;
use crate::tally::Tally;

/// The figures of a run. `Display` is a table for people, [`json`](Self::json) an object for tools.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Report {
    /// The load that was asked for.
    pub settings: Settings,
    /// Where it went.
    pub url: String,
    /// Bytes of one request in protobuf, before compression.
    pub request_bytes: usize,
    /// The run was ended early.
    pub stopped: bool,
    /// From the end of the warm-up to the end of the run, or to the last answer if that came later.
    pub elapsed: Duration,
    /// What was sent during the warm-up.
    pub warm_up: Tally,
    /// What was sent after it.
    pub measured: Tally,
    /// CPU of the generator's process while it was observed.
    pub generator_cpu: Duration,
    /// How long the processes were observed: as `elapsed`, within some milliseconds.
    pub observed_for: Duration,
    /// Spans that the target took over in that time.
    pub observed_spans: u64,
    /// What the target used, if its process is known.
    pub target: Option<TargetUse>,
    /// What arrived, if that is known.
    pub delivery: Option<Delivery>,
}

/// What the target's process used while it was observed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct TargetUse {
    /// CPU time; `None` if the process ended, or another has its id.
    pub cpu: Option<Duration>,
    /// Memory; `None` if the process ended.
    pub memory_peak: Option<MemoryPeak>,
}

/// What arrived of a whole run, warm-up included.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What was counted.
    pub arrived: Arrived,
    /// Spans that the target said it took over, and that did not arrive.
    pub lost: u64,
    /// How long after the last answer nothing more was missing, or the waiting was over.
    pub settled_after: Duration,
}

/// What makes a run a failure.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// The target took over no span of those that were measured.
    #[error("no span was accepted")]
    NothingAccepted,
    /// Accepted spans are missing, or arrived more than once.
    #[error("{lost} accepted spans lost, {duplicated} duplicated")]
    NotDelivered {
        /// Spans accepted that did not arrive.
        lost: u64,
        /// Arrivals beyond a span's first.
        duplicated: u64,
    },
}

impl Report {
    /// Whether the target did what it must: take over spans, and deliver each once.
    ///
    /// # Errors
    ///
    /// The [`Verdict`], where it did not. Spans refused openly are no failure of the run.
    pub fn verdict(&self) -> Result<(), Verdict> {
        if self.measured.spans_accepted == 0 {
            return Err(Verdict::NothingAccepted);
        }
        match self.delivery {
            Some(Delivery { lost, arrived: Arrived { duplicated, .. }, .. })
                if lost + duplicated > 0 =>
            {
                Err(Verdict::NotDelivered { lost, duplicated })
            }
            _ => Ok(()),
        }
    }

    /// Spans accepted, those of the warm-up included.
    #[must_use]
    pub fn spans_accepted(&self) -> u64 {
        self.warm_up.spans_accepted + self.measured.spans_accepted
    }

    /// Spans accepted a second, warm-up left out; `None` where no time was measured.
    #[must_use]
    pub fn throughput(&self) -> Option<f64> {
        per(self.measured.spans_accepted as f64, self.elapsed.as_secs_f64())
    }

    /// Spans that arrived though the target had not said that it took them over, if that is known.
    #[must_use]
    pub fn unacknowledged(&self) -> Option<u64> {
        let delivery = self.delivery?;
        Some((delivery.arrived.distinct + delivery.lost).saturating_sub(self.spans_accepted()))
    }

    /// What a reader must know before trusting the figures.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let late = self.measured.lateness.max().unwrap_or_default();
        if self.settings.rate != Rate::Max && late > LATE {
            warnings.push(format!(
                "the generator itself was late by up to {}: it had no CPU in time, and latencies \
                 include that",
                Millis(Some(late)),
            ));
        }
        let failed = self.measured.requests_failed();
        if failed > 0 {
            warnings.push(format!(
                "{} of {} requests failed ({:.2} %); latencies include theirs",
                Grouped(failed),
                Grouped(self.measured.requests),
                failed as f64 / self.measured.requests as f64 * 100.0,
            ));
        }
        if self.measured.held_back > 0 {
            warnings.push(format!(
                "{} requests had to wait because --in-flight-max was reached; their latencies \
                 include that",
                Grouped(self.measured.held_back),
            ));
        }
        if self.measured.answers_unreadable > 0 {
            warnings.push(format!(
                "{} answers were successes, but not of OTLP",
                Grouped(self.measured.answers_unreadable),
            ));
        }
        warnings
    }

    /// All figures as one object. Durations are in the unit their names end with; what is not known
    /// is null.
    #[must_use]
    pub fn json(&self) -> Value {
        let Self { settings, measured, .. } = self;
        let wanted = match settings.rate {
            Rate::Spans(rate) => Some(rate.get()),
            Rate::Max => None,
        };
        let failures = measured.failures.iter().map(|(code, failures)| {
            let value = json!({ "requests": failures.requests, "example": failures.example });
            (code.clone(), value)
        });
        json!({
            "url": self.url,
            "protocol": settings.protocol_name(),
            "compression": settings.compression_name(),
            "open_loop": settings.rate != Rate::Max,
            "rate_wanted": wanted,
            "duration_seconds": settings.duration.as_secs_f64(),
            "warm_up_seconds": settings.warm_up.as_secs_f64(),
            "connections": settings.connections.get(),
            "in_flight_max": settings.in_flight_max.get(),
            "spans_per_request": settings.spans_per_request.get(),
            "attributes": settings.attributes,
            "span_bytes": self.span_bytes(),
            "stopped": self.stopped,
            "elapsed_seconds": self.elapsed.as_secs_f64(),
            "requests_sent": measured.requests,
            "requests_accepted": measured.requests_accepted,
            "requests_failed": measured.requests_failed(),
            "requests_held_back": measured.held_back,
            "answers_unreadable": measured.answers_unreadable,
            "spans_sent": measured.spans,
            "spans_accepted": measured.spans_accepted,
            "spans_rejected": measured.spans_rejected,
            "failures": failures.collect::<serde_json::Map<_, _>>(),
            "spans_per_second": self.throughput(),
            "latency_ms": quantiles(&measured.latencies),
            "lateness_ms": quantiles(&measured.lateness),
            "generator": self.usage(Some(self.generator_cpu)),
            "target": self.target.map(|target| json!({
                "cpu": self.usage(target.cpu),
                "memory_peak_bytes": target.memory_peak.map(|peak| peak.bytes),
                "memory_peak_before_measuring": target.memory_peak.map(|peak| peak.before),
            })),
            "delivery": self.delivery.map(|delivery| json!({
                "spans_accepted_with_warm_up": self.spans_accepted(),
                "arrived": delivery.arrived.distinct,
                "lost": delivery.lost,
                "duplicated": delivery.arrived.duplicated,
                "of_other_runs": delivery.arrived.unknown,
                "unacknowledged": self.unacknowledged(),
                "settled_after_ms": delivery.settled_after.as_secs_f64() * 1e3,
            })),
            "warnings": self.warnings(),
        })
    }

    fn usage(&self, cpu: Option<Duration>) -> Value {
        json!({
            "cpu_seconds": cpu.map(|cpu| cpu.as_secs_f64()),
            "cpu_seconds_per_million_spans": cpu.and_then(|cpu| self.cpu_per_million(cpu)),
            "cores": cpu.and_then(|cpu| self.cores(cpu)),
        })
    }

    fn cpu_per_million(&self, cpu: Duration) -> Option<f64> {
        per(cpu.as_secs_f64(), self.observed_spans as f64 / 1e6)
    }

    fn cores(&self, cpu: Duration) -> Option<f64> {
        per(cpu.as_secs_f64(), self.observed_for.as_secs_f64())
    }

    fn span_bytes(&self) -> f64 {
        self.request_bytes as f64 / f64::from(self.settings.spans_per_request.get())
    }

    fn write_load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        let loop_kind = match settings.rate {
            Rate::Spans(rate) => format!("open loop, {} spans/s wanted", Grouped(rate.get())),
            Rate::Max => format!(
                "closed loop of {} requests in flight",
                Grouped(settings.in_flight_max_in_all())
            ),
        };
        writeln!(f, "{} to {}: {loop_kind}", settings.protocol_name(), self.url)?;
        let ended = if self.stopped { ", ended early" } else { "" };
        writeln!(
            f,
            "measured {:.1} s after {:.1} s of warm-up{ended}; {} connections with up to {} requests \
             in flight each, {} spans a request, {:.0} bytes a span, compression {}",
            self.elapsed.as_secs_f64(),
            settings.warm_up.as_secs_f64(),
            settings.connections,
            settings.in_flight_max,
            settings.spans_per_request,
            self.span_bytes(),
            settings.compression_name(),
        )
    }

    fn write_answers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measured = &self.measured;
        let mut counts = |name: &str, requests: u64, spans: u64| {
            let (requests, spans) = (Grouped(requests), Grouped(spans));
            writeln!(f, "{name:<WIDTH$}{spans:>14} spans {requests:>12} requests")
        };
        counts("sent", measured.requests, measured.spans)?;
        counts("accepted", measured.requests_accepted, measured.spans_accepted)?;
        let rejected = Grouped(measured.spans_rejected);
        writeln!(f, "{:<WIDTH$}{rejected:>14} spans by partial success", "rejected")?;
        let failed = measured.requests_failed();
        let spans_failed = measured.spans - measured.spans_accepted - measured.spans_rejected;
        let (requests, spans) = (Grouped(failed), Grouped(spans_failed));
        writeln!(f, "{:<WIDTH$}{spans:>14} spans {requests:>12} requests", "failed")?;
        for (code, failures) in &measured.failures {
            let requests = Grouped(failures.requests);
            let example = &failures.example;
            writeln!(f, "{:<WIDTH$}{code:>20} {requests:>12} requests, as: {example}", "")?;
        }
        write!(f, "{:<WIDTH$}", "throughput")?;
        match (self.throughput(), self.settings.rate) {
            (None, _) => writeln!(f, "not known: no time was measured")?,
            (Some(throughput), Rate::Spans(rate)) => {
                let share = throughput / rate.get() as f64 * 100.0;
                let spans = Grouped(throughput as u64);
                writeln!(f, "{spans:>14} spans/s, {share:.1} % of what was wanted")?;
            }
            (Some(throughput), Rate::Max) => {
                writeln!(f, "{:>14} spans/s", Grouped(throughput as u64))?;
            }
        }
        let counted = match self.settings.rate {
            Rate::Spans(_) => "from when each request was due",
            Rate::Max => "from when each request was sent",
        };
        writeln!(f, "{:<WIDTH$}{} {counted}", "answers", Distribution(&measured.latencies))?;
        if let Rate::Spans(_) = self.settings.rate {
            writeln!(f, "{:<WIDTH$}{}", "generator late", Distribution(&measured.lateness))?;
        }
        Ok(())
    }

    fn write_use(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpu = |name: &str, cpu: Option<Duration>| match cpu {
            None => writeln!(f, "{name:<WIDTH$}not known: the process ended"),
            Some(cpu) => writeln!(
                f,
                "{name:<WIDTH$}{} s per million spans, {} % of a core",
                Known(self.cpu_per_million(cpu), 2),
                Known(self.cores(cpu).map(|cores| cores * 100.0), 1),
            ),
        };
        cpu("generator CPU", Some(self.generator_cpu))?;
        let Some(target) = self.target else {
            return writeln!(f, "{:<WIDTH$}not measured (no --pid)", "target");
        };
        cpu("target CPU", target.cpu)?;
        let Some(peak) = target.memory_peak else {
            return writeln!(f, "{:<WIDTH$}not known: the process ended", "target memory");
        };
        let before = if peak.before { ", before it was measured" } else { "" };
        let mib = peak.bytes as f64 / f64::from(1 << 20);
        writeln!(f, "{:<WIDTH$}{mib:.1} MiB at most{before}", "target memory")
    }

    fn write_delivery(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(delivery) = &self.delivery else {
            return writeln!(f, "{:<WIDTH$}not measured (no --sink)", "delivered");
        };
        let Arrived { distinct, duplicated, unknown } = delivery.arrived;
        writeln!(
            f,
            "{:<WIDTH$}{} lost and {} duplicated of {} accepted with the warm-up",
            "delivered",
            Grouped(delivery.lost),
            Grouped(duplicated),
            Grouped(self.spans_accepted()),
        )?;
        writeln!(
            f,
            "{:<WIDTH$}{} arrived, {} of them not acknowledged; {} of other runs; settled after {}",
            "",
            Grouped(distinct),
            Grouped(self.unacknowledged().unwrap_or_default()),
            Grouped(unknown),
            Millis(Some(delivery.settled_after)),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_load(f)?;
        self.write_answers(f)?;
        self.write_use(f)?;
        self.write_delivery(f)?;
        self.warnings().iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

fn quantiles(latencies: &Latencies) -> Value {
    let millis = |duration: Option<Duration>| duration.map(|d| d.as_secs_f64() * 1e3);
    let mut values: serde_json::Map<String, Value> = QUANTILES
        .iter()
        .map(|(name, quantile)| {
            (name.to_lowercase().replace('.', ""), json!(millis(latencies.quantile(*quantile))))
        })
        .collect();
    values.insert("max".to_owned(), json!(millis(latencies.max())));
    values.into()
}

/// `None` of nothing.
fn per(amount: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| amount / of)
}

/// A figure with so many digits behind the point, if it is known.
struct Known(Option<f64>, usize);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(Some(figure), digits) => write!(f, "{figure:.digits$}"),
            Self(None, _) => f.write_str("–"),
        }
    }
}

/// The usual percentiles and the longest, in milliseconds.
struct Distribution<'a>(&'a Latencies);

impl fmt::Display for Distribution<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, quantile) in QUANTILES {
            write!(f, "{name} {}, ", Millis(self.0.quantile(quantile)))?;
        }
        write!(f, "longest {}", Millis(self.0.max()))
    }
}

/// A duration in milliseconds, to three digits or to the microsecond.
struct Millis(Option<Duration>);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(duration) = self.0 else { return f.write_str("–") };
        let millis = duration.as_secs_f64() * 1e3;
        let digits = match millis {
            ..1.0 => 3,
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        write!(f, "{millis:.digits$} ms")
    }
}

/// A number with its thousands apart.
pub(crate) struct Grouped(pub(crate) u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut grouped = String::with_capacity(digits.len() * 4 / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        f.pad(&grouped)
    }
}

const QUANTILES: [(&str, f64); 4] = [("P50", 0.5), ("P95", 0.95), ("P99", 0.99), ("P99.9", 0.999)];

/// Of the column of names.
const WIDTH: usize = 16;

/// What a scheduler's time slice may take away now and then is not worth a warning.
const LATE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let grouped = [0, 12, 999, 1_000, 12_345, 1_234_567].map(|n| Grouped(n).to_string());
        assert_eq!(grouped, ["0", "12", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!(format!("{:>6}", Grouped(1_000)), " 1,000");
    }

    #[test]
    fn durations_keep_three_digits_or_microseconds() {
        let shown = |micros| Millis(Some(Duration::from_micros(micros))).to_string();
        assert_eq!(
            [45, 1_234, 12_345, 123_456].map(shown),
            ["0.045 ms", "1.23 ms", "12.3 ms", "123 ms"]
        );
        assert_eq!(Millis(None).to_string(), "–");
    }
}
