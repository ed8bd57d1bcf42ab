//! What a configuration does to spans, in words: decided from the settings, without starting anything.

use std::fmt::{self, Write as _};

use spanwire_config::{Config, Exporter, OtlpExporter, Processor, Sizer};

use crate::destination;
use crate::limits;

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

fn write(config: &Config, out: &mut String) -> fmt::Result {
    let plans = destination::plans(config);
    for (id, pipeline) in &config.service.pipelines {
        writeln!(out, "pipeline {id}")?;
        for id in &pipeline.receivers {
            writeln!(
                out,
                "  receiver {id}: framing and every span checked in place; protobuf is not decoded or \
                 copied, JSON is rewritten to protobuf once, compressed bodies are decompressed once"
            )?;
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
            if let Some(batch) = &plan.batch {
                writeln!(
                    out,
                    "    batches of {} spans or {:?}, joined without copying; each source request is \
                     accounted for by itself",
                    batch.send_batch_size, batch.timeout
                )?;
            }
        }
    }
    let bytes = limits::of(config).bytes() as f64 / f64::from(1 << 20);
    writeln!(
        out,
        "memory: requests hold at most {bytes:.0} MiB, queues half of that; senders wait while the \
         queues are full, and what memory has no room for is refused before it is read"
    )
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
        format!(
            "queue of {} {unit}, {} requests on their way at once, compression {:?}; {answer}",
            queue.queue_size, queue.num_consumers, otlp.compression
        )
    };
    match exporter {
        Exporter::OtlpGrpc(settings) | Exporter::OtlpHttp(settings) => otlp(settings),
        Exporter::Debug(_) => "spans are read in place and shown".to_owned(),
        Exporter::File(_) => "protobuf is rewritten to a line of JSON".to_owned(),
        Exporter::Nop => "drops what it takes, and counts it as sent".to_owned(),
    }
}
