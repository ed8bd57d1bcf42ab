//! What a configuration does to spans, in words: decided from the settings, without starting anything.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use spanwire_config::{Batch, ComponentId, Config, Exporter, OtlpExporter, Processor, Sizer};
use spanwire_receiver::Budget;

use crate::destination;
use crate::limits;
use crate::listens;
use crate::start_error::StartError;
use crate::steps;

/// For each pipeline what is looked at, copied, compressed and held, and the bound of memory.
///
/// ```
/// let text = spanwire_collector::explain(&spanwire_config::Config::default_pipeline());
/// assert!(text.contains("pipeline traces"), "{text}");
/// ```
#[must_use]
pub fn explain(config: &Config) -> String {
    let mut text = String::new();
    // A string takes whatever is written to it.
    let _infallible = write(config, &mut text);
    text
}

/// What a start does otherwise than the configuration says: requests that would be too large for the
/// memory limit are refused though they are within the limit of their receiver.
///
/// ```
/// let config = spanwire_config::Config::default_pipeline();
/// let limit = spanwire_collector::memory_limit(&config);
/// assert_eq!(spanwire_collector::notes(&config).is_empty(), limit >= 40 << 20);
/// ```
#[must_use]
pub fn notes(config: &Config) -> Vec<String> {
    let memory = memory_limit(config);
    let lowered = listens::servers(config).filter_map(|(id, server)| {
        let ((key, asked), bytes) =
            (server.request_bytes_asked(), server.request_bytes_max(memory));
        let protocol = server.protocol().as_str();
        (bytes < asked).then(|| {
            format!(
                "receiver {id} {protocol} takes requests of {} at most, and not of {} by its {key}: \
                 half of the {} that all requests may hold by the memory limit",
                Mib(bytes),
                Mib(asked),
                Mib(memory)
            )
        })
    });
    lowered.collect()
}

/// What all requests may hold by a configuration, in bytes, before more are taken.
///
/// ```
/// let config = spanwire_config::Config::default_pipeline();
/// assert!(spanwire_collector::memory_limit(&config) <= 256 << 20);
/// ```
#[must_use]
pub fn memory_limit(config: &Config) -> usize {
    limits::of(config).bytes()
}

/// Bytes in MiB.
struct Mib(usize);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1 << 20);
        match mib.fract() == 0.0 {
            true => write!(f, "{mib} MiB"),
            false => write!(f, "{mib:.1} MiB"),
        }
    }
}

/// Makes every part of the configuration that can be made without a socket and lets it go again:
/// what is wrong with its settings, of a receiver's protocol and of an exporter the first thing. No file
/// is changed.
///
/// # Panics
///
/// Outside a Tokio runtime with I/O and time enabled.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let found = spanwire_collector::check(&spanwire_config::Config::default_pipeline()).await;
/// assert!(found.is_empty());
/// # });
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub async fn check(config: &Config) -> Vec<StartError> {
    let mut found = listens::check(config);
    for (id, plan) in destination::plans(config) {
        found.extend(plan.parts(&id).err());
    }
    let pipelines = config.service.pipelines.values();
    let used: BTreeSet<_> = pipelines.flat_map(|pipeline| &pipeline.processors).collect();
    for id in used {
        let processor = config.processors.get(id);
        found.extend(processor.into_iter().flat_map(|processor| steps::check(id, processor)));
    }
    let budget = Arc::new(Budget::new(limits::of(config).bytes()));
    for (id, server) in listens::servers(config) {
        found.extend(server.check(id, Arc::clone(&budget)).await.err());
    }
    found
}

fn write(config: &Config, out: &mut String) -> fmt::Result {
    let (plans, memory) = (destination::plans(config), memory_limit(config));
    for (id, pipeline) in &config.service.pipelines {
        writeln!(out, "pipeline {id}")?;
        for id in &pipeline.receivers {
            writeln!(
                out,
                "  receiver {id}: framing and every span checked in place; protobuf is not decoded or \
                 copied, JSON is rewritten to protobuf once, compressed bodies are decompressed once"
            )?;
            for (_, server) in listens::servers(config).filter(|(one, _)| *one == id) {
                let (protocol, bytes) =
                    (server.protocol().as_str(), server.request_bytes_max(memory));
                writeln!(out, "    {protocol}: requests of {} at most", Mib(bytes))?;
            }
        }
        for id in &pipeline.processors {
            let Some(processor) = config.processors.get(id) else { continue };
            writeln!(out, "  processor {id}: {}", of_processor(processor))?;
        }
        for id in &pipeline.exporters {
            let (Some(exporter), Some(plan)) = (config.exporters.get(id), plans.get(id)) else {
                continue;
            };
            writeln!(out, "  exporter {id}: {}", of_exporter(exporter))?;
            writeln!(out, "    {}", of_overflow(exporter, has_siblings(config, id)))?;
            if let Some(batch) = of_batch(exporter, plan.batch.as_ref().map(|(_, batch)| batch)) {
                writeln!(
                    out,
                    "    {batch}, joined without copying; each source request is accounted for by \
                     itself"
                )?;
            }
            if plan.forwarded_coding().is_some() {
                writeln!(
                    out,
                    "    requests that come compressed as they are to go out, and that no processor \
                     changes, go out as they came"
                )?;
            }
        }
    }
    writeln!(
        out,
        "memory: requests hold at most {}, of all receivers together, before more are \
         taken; queues have half of that and requests on their way a quarter, in equal shares; what \
         memory has no room for is refused before it is read. Copies of what was taken are counted, \
         and not refused: compressed or joined for a destination, lines of JSON, what parts of a \
         request repeat. Not counted is what is being made at the moment: a request for each thread \
         that processes, and one for each consumer of an exporter",
        Mib(memory)
    )
}

/// Whether requests that this destination gets go to others, too.
fn has_siblings(config: &Config, exporter: &ComponentId) -> bool {
    let pipelines = &config.service.pipelines;
    let leads_to = pipelines.values().filter(|pipeline| pipeline.exporters.contains(exporter));
    let receivers: BTreeSet<_> = leads_to.flat_map(|pipeline| &pipeline.receivers).collect();
    let fed = pipelines
        .values()
        .filter(|pipeline| pipeline.receivers.iter().any(|id| receivers.contains(id)));
    fed.flat_map(|pipeline| &pipeline.exporters).any(|id| id != exporter)
}

fn of_overflow(exporter: &Exporter, has_siblings: bool) -> &'static str {
    let waits = match exporter {
        Exporter::OtlpGrpc(otlp) | Exporter::OtlpHttp(otlp) => otlp.sending_queue.block_on_overflow,
        Exporter::Debug(_) | Exporter::File(_) | Exporter::Nop => true,
    };
    match (waits, has_siblings) {
        (true, false) => "while its queue is full, senders wait",
        (false, false) => "while its queue is full, senders are told to come back",
        (true, true) => {
            "while its queue is full, spans that other destinations take are dropped for this one, and \
             counted; senders wait where no other takes them"
        }
        (false, true) => {
            "while its queue is full, spans that other destinations take are dropped for this one, and \
             counted; senders are told to come back where no other takes them"
        }
    }
}

/// An exporter's own batching comes before that of a `batch` processor.
fn of_batch(exporter: &Exporter, processor: Option<&Batch>) -> Option<String> {
    let own = match exporter {
        Exporter::OtlpGrpc(otlp) | Exporter::OtlpHttp(otlp) => {
            otlp.sending_queue.batch.as_ref().filter(|_| otlp.sending_queue.enabled)
        }
        Exporter::Debug(_) | Exporter::File(_) | Exporter::Nop => None,
    };
    if let Some(own) = own {
        let unit = match own.sizer {
            Sizer::Bytes => "bytes",
            Sizer::Items | Sizer::Requests => "spans",
        };
        let text = format!("batches of {} {unit} or {:?}", own.min_size, own.flush_timeout);
        return Some(text + ", by its sending_queue");
    }
    processor
        .map(|batch| format!("batches of {} spans or {:?}", batch.send_batch_size, batch.timeout))
}

fn of_processor(processor: &Processor) -> &'static str {
    match processor {
        Processor::Batch(_) => "done by each exporter, so that senders keep their answers",
        Processor::MemoryLimiter(_) => "the receivers' budget: exact, and before a body is read",
        Processor::Attributes(_) => {
            "only spans that change are rewritten, the bytes around them are kept"
        }
        Processor::Resource(_) => "only resources that change are rewritten, spans are not touched",
        Processor::ProbabilisticSampler(_) => {
            "trace ids are read in place, spans that stay are not copied"
        }
    }
}

fn of_exporter(exporter: &Exporter) -> String {
    let otlp = |otlp: &OtlpExporter| {
        let queue = &otlp.sending_queue;
        let unit = match queue.sizer {
            Sizer::Requests => "requests",
            Sizer::Items => "spans",
            Sizer::Bytes => "bytes",
        };
        let answer = match queue.wait_for_result || !queue.enabled {
            true => "senders wait for the destination's answer",
            false => "senders are answered when the queue has their spans",
        };
        let (size, consumers) = (queue.queue_size, queue.num_consumers);
        let held = match queue.enabled {
            true => format!("queue of {size} {unit}, {consumers} requests on their way at once"),
            false => "no queue, each request on its way at once".to_owned(),
        };
        format!("{held}, compression {}; {answer}", otlp.compression)
    };
    match exporter {
        Exporter::OtlpGrpc(settings) | Exporter::OtlpHttp(settings) => otlp(settings),
        Exporter::Debug(_) => "spans are read in place and shown".to_owned(),
        Exporter::File(_) => "protobuf is rewritten to a line of JSON".to_owned(),
        Exporter::Nop => "drops what it takes, and counts it as sent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use spanwire_config::{Compat, Source};

    use super::*;

    fn config(exporter: &str, more: &str) -> Config {
        let yaml = format!(
            "
receivers: {{ otlp: {{ protocols: {{ grpc: }} }} }}
processors: {{ batch: {{ send_batch_size: 77 }} }}
exporters: {{ nop: , otlp: {{ endpoint: localhost:9, tls: {{ insecure: true }}, {exporter} }} }}
service:
  pipelines:
    traces: {{ receivers: [otlp], exporters: [otlp] {more} }}
"
        );
        let loaded = Config::load(&[Source::Yaml(yaml)], &[], &|_| None, Compat::Warn);
        loaded.unwrap_or_else(|report| panic!("{report}")).config
    }

    #[test]
    fn batching_is_the_exporters_own_where_it_has_one() {
        let own = "sending_queue: { batch: { min_size: 55 } }";
        let text = explain(&config(own, ", processors: [batch]"));
        assert!(text.contains("batches of 55 spans") && !text.contains("77"), "{text}");
        assert!(explain(&config("", ", processors: [batch]")).contains("batches of 77 spans"));
        assert!(!explain(&config("", "")).contains("batches of"));
    }

    #[test]
    fn what_a_full_queue_means_depends_on_the_other_destinations_of_the_same_spans() {
        let blocks = "sending_queue: { block_on_overflow: true }";
        assert!(explain(&config(blocks, "")).contains("full, senders wait"));
        let refuses = "sending_queue: { block_on_overflow: false }";
        assert!(explain(&config(refuses, "")).contains("full, senders are told"));
        let other = "}\n    traces/2: { receivers: [otlp], exporters: [nop]";
        let text = explain(&config(blocks, other));
        assert!(text.contains("senders wait where no other takes them"), "{text}");
    }

    #[test]
    fn a_request_limit_that_memory_lowers_is_told_as_it_is() {
        let limited = |mib: u32| {
            let limiter = format!("memory_limiter: {{ check_interval: 1s, limit_mib: {mib} }}");
            let yaml = format!(
                "
receivers: {{ otlp: {{ protocols: {{ grpc: , http: }} }} }}
processors: {{ {limiter} }}
exporters: {{ nop: }}
service:
  pipelines: {{ traces: {{ receivers: [otlp], processors: [memory_limiter], exporters: [nop] }} }}
"
            );
            let loaded = Config::load(&[Source::Yaml(yaml)], &[], &|_| None, Compat::Strict);
            loaded.unwrap_or_else(|report| panic!("{report}")).config
        };
        let small = limited(20);
        let note = "receiver otlp http takes requests of 8 MiB at most, and not of 20 MiB by its \
                    max_request_body_size: half of the 16 MiB that all requests may hold by the memory \
                    limit";
        assert_eq!(notes(&small), [note]);
        let text = explain(&small);
        assert!(text.contains("    grpc: requests of 4 MiB at most\n"), "{text}");
        assert!(text.contains("    http: requests of 8 MiB at most\n"), "{text}");
        assert_eq!(notes(&limited(50)), Vec::<String>::new());
        assert_eq!(notes(&limited(1)).len(), 2);
    }

    #[test]
    fn compressed_requests_pass_where_they_are_not_merged() {
        assert!(explain(&config("compression: zstd", "")).contains("compression zstd;"));
        let passes = |exporter, more| explain(&config(exporter, more)).contains("as they came");
        assert!(passes("compression: gzip", ""));
        assert!(!passes("compression: gzip", ", processors: [batch]"));
        assert!(!passes("compression: none", ""));
    }

    #[tokio::test]
    async fn a_header_that_may_not_be_set_shows_before_anything_starts() {
        assert!(check(&config("", "")).await.is_empty());
        let found = check(&config("headers: { content-type: mine }", "")).await;
        let settings: Vec<_> = found.iter().map(|error| error.setting().to_string()).collect();
        assert_eq!(settings, ["exporters::otlp::headers::content-type"]);
    }
}
