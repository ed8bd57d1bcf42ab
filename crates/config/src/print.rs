use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Config;
use crate::emit::{Yaml, scalar};
use crate::exporter::{Exporter, File, FileFormat, Rotation, Verbosity};
use crate::extension::Extension;
use crate::id::ComponentId;
use crate::net::{ClientTls, ServerTls, TlsVersion};
use crate::otlp_exporter::{Encoding, OtlpExporter};
use crate::processor::{Action, ActionKind, ConvertedType, MemoryLimiter, Mode, Processor, Value};
use crate::queue::{Queue, Sizer};
use crate::receiver::{GrpcServer, HttpServer, Receiver};
use crate::redact;
use crate::secret::Secret;
use crate::service::{Level, LogEncoding, Metrics, MetricsLevel, Service};

/// Renders a configuration as YAML with every setting that is in effect, defaults included.
///
/// Secrets show as `[REDACTED]`, and so do queries of endpoints, which may hold a key; but for them, loading the text gives an equal configuration.
///
/// ```
/// use spanwire_config::{Config, print};
///
/// let yaml = print(&Config::default_pipeline());
/// assert!(yaml.contains("  batch:\n    timeout: 200ms\n    send_batch_size: 8192\n"));
/// ```
#[must_use]
pub fn print(config: &Config) -> String {
    let mut yaml = Yaml::default();
    components(&mut yaml, "receivers", &config.receivers, receiver);
    components(&mut yaml, "processors", &config.processors, processor);
    components(&mut yaml, "exporters", &config.exporters, exporter);
    components(&mut yaml, "extensions", &config.extensions, extension);
    yaml.map("service", |yaml| service(yaml, &config.service));
    yaml.finish()
}

fn components<T>(
    yaml: &mut Yaml,
    section: &str,
    components: &BTreeMap<ComponentId, T>,
    write: fn(&mut Yaml, &T),
) {
    yaml.map(section, |yaml| {
        for (id, component) in components {
            yaml.map(&id.to_string(), |yaml| write(yaml, component));
        }
    });
}

fn receiver(yaml: &mut Yaml, receiver: &Receiver) {
    let Receiver::Otlp(otlp) = receiver;
    yaml.map("protocols", |yaml| {
        yaml.optional(otlp.grpc.as_ref(), |yaml, server| {
            yaml.map("grpc", |yaml| grpc_server(yaml, server));
        });
        yaml.optional(otlp.http.as_ref(), |yaml, server| {
            yaml.map("http", |yaml| http_server(yaml, server));
        });
    });
}

fn grpc_server(yaml: &mut Yaml, server: &GrpcServer) {
    yaml.text("endpoint", &server.endpoint.to_string());
    yaml.line("max_recv_msg_size_mib", server.max_recv_msg_size_bytes.div_ceil(1 << 20));
    yaml.optional(server.max_concurrent_streams, |yaml, streams| {
        yaml.line("max_concurrent_streams", streams);
    });
    let keepalive = &server.keepalive;
    yaml.map("keepalive", |yaml| {
        yaml.map("server_parameters", |yaml| {
            for (key, value) in [
                ("max_connection_idle", keepalive.max_connection_idle),
                ("max_connection_age", keepalive.max_connection_age),
                ("max_connection_age_grace", keepalive.max_connection_age_grace),
                ("time", keepalive.time),
                ("timeout", keepalive.timeout),
            ] {
                yaml.optional(value, |yaml, value| yaml.duration(key, value));
            }
        });
    });
    yaml.optional(server.tls.as_ref(), server_tls);
}

fn http_server(yaml: &mut Yaml, server: &HttpServer) {
    yaml.text("endpoint", &server.endpoint.to_string());
    yaml.line("max_request_body_size", server.max_request_body_size);
    yaml.duration("read_header_timeout", server.read_header_timeout.unwrap_or_default());
    yaml.duration("idle_timeout", server.idle_timeout.unwrap_or_default());
    yaml.text("traces_url_path", &server.traces_url_path);
    yaml.optional(server.cors.as_ref(), |yaml, cors| {
        yaml.map("cors", |yaml| {
            yaml.list("allowed_origins", &cors.allowed_origins, String::clone);
            yaml.list("allowed_headers", &cors.allowed_headers, String::clone);
            yaml.optional(cors.max_age, |yaml, age| yaml.line("max_age", age.as_secs()));
        });
    });
    yaml.optional(server.tls.as_ref(), server_tls);
}

fn server_tls(yaml: &mut Yaml, tls: &ServerTls) {
    yaml.map("tls", |yaml| {
        certificates(
            yaml,
            [("cert_file", tls.cert_file.as_deref()), ("key_file", tls.key_file.as_deref())],
            [("cert_pem", tls.cert_pem.as_ref()), ("key_pem", tls.key_pem.as_ref())],
        );
        yaml.optional(tls.client_ca_file.as_deref(), |yaml, path| {
            yaml.path("client_ca_file", path)
        });
        yaml.optional(tls.reload_interval, |yaml, interval| {
            yaml.duration("reload_interval", interval);
        });
        min_version(yaml, tls.min_version);
    });
}

fn client_tls(yaml: &mut Yaml, tls: &ClientTls) {
    yaml.map("tls", |yaml| {
        yaml.line("insecure", tls.insecure);
        yaml.line("insecure_skip_verify", tls.insecure_skip_verify);
        yaml.optional(tls.ca_file.as_deref(), |yaml, path| yaml.path("ca_file", path));
        yaml.optional(tls.ca_pem.as_ref(), |yaml, pem| yaml.text("ca_pem", &pem.to_string()));
        certificates(
            yaml,
            [("cert_file", tls.cert_file.as_deref()), ("key_file", tls.key_file.as_deref())],
            [("cert_pem", tls.cert_pem.as_ref()), ("key_pem", tls.key_pem.as_ref())],
        );
        yaml.optional(tls.server_name_override.as_deref(), |yaml, name| {
            yaml.text("server_name_override", name);
        });
        min_version(yaml, tls.min_version);
    });
}

fn certificates(
    yaml: &mut Yaml,
    files: [(&str, Option<&Path>); 2],
    pems: [(&str, Option<&Secret>); 2],
) {
    for (key, path) in files {
        yaml.optional(path, |yaml, path| yaml.path(key, path));
    }
    for (key, pem) in pems {
        yaml.optional(pem, |yaml, pem| yaml.text(key, &pem.to_string()));
    }
}

fn min_version(yaml: &mut Yaml, version: TlsVersion) {
    let version = match version {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    };
    // Unquoted it would be a number.
    yaml.text("min_version", version);
}

fn processor(yaml: &mut Yaml, processor: &Processor) {
    match processor {
        Processor::Batch(batch) => {
            yaml.duration("timeout", batch.timeout);
            yaml.line("send_batch_size", batch.send_batch_size);
            yaml.line("send_batch_max_size", batch.send_batch_max_size);
        }
        Processor::MemoryLimiter(limiter) => memory_limiter(yaml, limiter),
        Processor::Attributes(list) => actions(yaml, "actions", list),
        Processor::Resource(list) => actions(yaml, "attributes", list),
        Processor::ProbabilisticSampler(sampler) => {
            yaml.line("sampling_percentage", sampler.sampling_percentage);
            yaml.line("hash_seed", sampler.hash_seed);
            yaml.text(
                "mode",
                match sampler.mode {
                    Mode::HashSeed => "hash_seed",
                    Mode::Proportional => "proportional",
                    Mode::Equalizing => "equalizing",
                },
            );
            yaml.line("fail_closed", sampler.fail_closed);
            yaml.line("sampling_precision", sampler.sampling_precision);
        }
    }
}

fn memory_limiter(yaml: &mut Yaml, limiter: &MemoryLimiter) {
    for (key, value) in [
        ("limit_mib", limiter.limit_mib),
        ("spike_limit_mib", limiter.spike_limit_mib),
        ("limit_percentage", limiter.limit_percentage.map(u64::from)),
        ("spike_limit_percentage", limiter.spike_limit_percentage.map(u64::from)),
    ] {
        yaml.optional(value, |yaml, value| yaml.line(key, value));
    }
}

fn actions(yaml: &mut Yaml, key: &str, actions: &[Action]) {
    yaml.map(key, |yaml| {
        for action in actions {
            yaml.item(|yaml| {
                yaml.text(
                    "action",
                    match action.kind {
                        ActionKind::Insert => "insert",
                        ActionKind::Update => "update",
                        ActionKind::Upsert => "upsert",
                        ActionKind::Delete => "delete",
                        ActionKind::Hash => "hash",
                        ActionKind::Extract => "extract",
                        ActionKind::Convert => "convert",
                    },
                );
                yaml.optional(action.key.as_deref(), |yaml, key| yaml.text("key", key));
                yaml.optional(action.pattern.as_deref(), |yaml, pattern| {
                    yaml.text("pattern", pattern)
                });
                match &action.value {
                    Some(Value::Str(value)) => yaml.text("value", value),
                    Some(Value::Int(value)) => yaml.line("value", value),
                    // With a point, so that it stays a double.
                    Some(Value::Double(value)) => yaml.line("value", format_args!("{value:?}")),
                    Some(Value::Bool(value)) => yaml.line("value", value),
                    None => {}
                }
                yaml.optional(action.from_attribute.as_deref(), |yaml, from| {
                    yaml.text("from_attribute", from);
                });
                yaml.optional(action.converted_type, |yaml, to| {
                    yaml.text(
                        "converted_type",
                        match to {
                            ConvertedType::Str => "string",
                            ConvertedType::Int => "int",
                            ConvertedType::Double => "double",
                        },
                    );
                });
            });
        }
    });
}

fn exporter(yaml: &mut Yaml, exporter: &Exporter) {
    match exporter {
        Exporter::OtlpGrpc(otlp) => {
            yaml.text("endpoint", &redact::query_hidden(&otlp.endpoint));
            otlp_exporter(yaml, otlp);
            yaml.optional(otlp.keepalive.as_ref(), |yaml, keepalive| {
                yaml.map("keepalive", |yaml| {
                    yaml.duration("time", keepalive.time);
                    yaml.duration("timeout", keepalive.timeout);
                });
            });
        }
        Exporter::OtlpHttp(otlp) => {
            if !otlp.endpoint.is_empty() {
                yaml.text("endpoint", &redact::query_hidden(&otlp.endpoint));
            }
            yaml.optional(otlp.traces_endpoint.as_deref(), |yaml, url| {
                yaml.text("traces_endpoint", &redact::query_hidden(url));
            });
            otlp_exporter(yaml, otlp);
            yaml.text(
                "encoding",
                match otlp.encoding {
                    Encoding::Proto => "proto",
                    Encoding::Json => "json",
                },
            );
        }
        Exporter::Debug(debug) => {
            yaml.text(
                "verbosity",
                match debug.verbosity {
                    Verbosity::Basic => "basic",
                    Verbosity::Normal => "normal",
                    Verbosity::Detailed => "detailed",
                },
            );
        }
        Exporter::File(file) => file_exporter(yaml, file),
        Exporter::Nop => {}
    }
}

fn otlp_exporter(yaml: &mut Yaml, otlp: &OtlpExporter) {
    client_tls(yaml, &otlp.tls);
    yaml.map("headers", |yaml| {
        for (name, value) in &otlp.headers {
            yaml.text(name, &value.to_string());
        }
    });
    yaml.text("compression", &otlp.compression.to_string());
    yaml.duration("timeout", otlp.timeout);
    let retry = &otlp.retry_on_failure;
    yaml.map("retry_on_failure", |yaml| {
        yaml.line("enabled", retry.enabled);
        yaml.duration("initial_interval", retry.initial_interval);
        yaml.line("randomization_factor", retry.randomization_factor);
        yaml.line("multiplier", retry.multiplier);
        yaml.duration("max_interval", retry.max_interval);
        yaml.duration("max_elapsed_time", retry.max_elapsed_time);
    });
    yaml.map("sending_queue", |yaml| sending_queue(yaml, &otlp.sending_queue));
}

fn sending_queue(yaml: &mut Yaml, queue: &Queue) {
    yaml.line("enabled", queue.enabled);
    yaml.line("num_consumers", queue.num_consumers);
    yaml.line("queue_size", queue.queue_size);
    yaml.text("sizer", sizer(queue.sizer));
    yaml.line("wait_for_result", queue.wait_for_result);
    yaml.line("block_on_overflow", queue.block_on_overflow);
    yaml.optional(queue.batch.as_ref(), |yaml, batch| {
        yaml.map("batch", |yaml| {
            yaml.duration("flush_timeout", batch.flush_timeout);
            yaml.line("min_size", batch.min_size);
            yaml.line("max_size", batch.max_size);
            yaml.text("sizer", sizer(batch.sizer));
        });
    });
}

fn sizer(sizer: Sizer) -> &'static str {
    match sizer {
        Sizer::Requests => "requests",
        Sizer::Items => "items",
        Sizer::Bytes => "bytes",
    }
}

fn file_exporter(yaml: &mut Yaml, file: &File) {
    let FileFormat::Json = file.format;
    yaml.path("path", &file.path);
    yaml.line("append", file.append);
    yaml.text("format", "json");
    yaml.optional(file.rotation.as_ref(), |yaml, rotation: &Rotation| {
        yaml.map("rotation", |yaml| {
            yaml.line("max_megabytes", rotation.max_megabytes);
            yaml.optional(rotation.max_days, |yaml, days| yaml.line("max_days", days));
            yaml.line("max_backups", rotation.max_backups);
        });
    });
}

fn extension(yaml: &mut Yaml, extension: &Extension) {
    match extension {
        Extension::HealthCheck(health) => {
            yaml.text("endpoint", &health.endpoint);
            yaml.text("path", &health.path);
        }
        Extension::Zpages(zpages) => yaml.text("endpoint", &zpages.endpoint),
        Extension::MemoryLimiter(limiter) => memory_limiter(yaml, limiter),
    }
}

fn service(yaml: &mut Yaml, service: &Service) {
    yaml.list("extensions", &service.extensions, ToString::to_string);
    yaml.map("pipelines", |yaml| {
        for (id, pipeline) in &service.pipelines {
            yaml.map(&id.to_string(), |yaml| {
                yaml.list("receivers", &pipeline.receivers, ToString::to_string);
                yaml.list("processors", &pipeline.processors, ToString::to_string);
                yaml.list("exporters", &pipeline.exporters, ToString::to_string);
            });
        }
    });
    let (logs, metrics) = (&service.telemetry.logs, &service.telemetry.metrics);
    yaml.map("telemetry", |yaml| {
        yaml.map("logs", |yaml| {
            yaml.text(
                "level",
                match logs.level {
                    Level::Debug => "debug",
                    Level::Info => "info",
                    Level::Warn => "warn",
                    Level::Error => "error",
                },
            );
            yaml.text(
                "encoding",
                match logs.encoding {
                    LogEncoding::Console => "console",
                    LogEncoding::Json => "json",
                },
            );
        });
        yaml.map("metrics", |yaml| {
            yaml.text(
                "level",
                match metrics.level {
                    MetricsLevel::None => "none",
                    MetricsLevel::Basic => "basic",
                    MetricsLevel::Normal => "normal",
                    MetricsLevel::Detailed => "detailed",
                },
            );
            readers(yaml, metrics);
        });
    });
}

/// Writes the address in the form the Go Collector has since v0.123.
fn readers(yaml: &mut Yaml, metrics: &Metrics) {
    let address = metrics.address.as_deref().and_then(|address| address.rsplit_once(':'));
    let Some((host, port)) = address else {
        yaml.line("readers", "[]");
        return;
    };
    let (host, names) = (scalar(host), metrics.names);
    let (units, suffix) = (!names.units, !names.type_suffix);
    yaml.line(
        "readers",
        format_args!(
            "[{{pull: {{exporter: {{prometheus: {{host: {host}, port: {port}, \
             without_units: {units}, without_type_suffix: {suffix}}}}}}}}}]"
        ),
    );
}
