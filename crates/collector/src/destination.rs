//! The settings of a destination: its own, and those that the pipelines around it add.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use spanwire_batcher::Limits;
use spanwire_config::{self as config, ComponentId, Config, Setting};
use spanwire_receiver::Coding;
use spanwire_transport::{
    Compression, InvalidConfig, Pem, Protocol, RetryPolicy, RetrySettings, Tls, TlsVersion,
    Transport, TransportConfig,
};

use crate::exporter::{self, Batching, Debug, Destination, File, Otlp, Sizer};
use crate::limits;
use crate::start_error::StartError;

/// All that a destination is made of; equal plans make equal destinations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) exporter: config::Exporter,
    /// Of the pipeline's batch processor.
    pub(crate) batch: Option<(ComponentId, config::Batch)>,
}

/// The plans of all destinations that a pipeline leads to. The batch processor of a pipeline is made
/// the batching of its destinations, where these have none of their own.
pub(crate) fn plans(config: &Config) -> BTreeMap<ComponentId, Plan> {
    let mut plans: BTreeMap<ComponentId, Plan> = BTreeMap::new();
    for pipeline in config.service.pipelines.values() {
        let batch = pipeline.processors.iter().find_map(|id| match config.processors.get(id) {
            Some(config::Processor::Batch(batch)) => Some((id.clone(), batch.clone())),
            _ => None,
        });
        for id in &pipeline.exporters {
            let Some(exporter) = config.exporters.get(id) else { continue };
            let plan = || Plan { exporter: exporter.clone(), batch: batch.clone() };
            plans.entry(id.clone()).or_insert_with(plan);
        }
    }
    plans
}

/// What the queue of each destination holds at most: half of the memory is for queues; the rest is
/// for what is read, waits for room, or travels.
pub(crate) fn queue_bytes_max(config: &Config) -> usize {
    let used: BTreeSet<_> =
        config.service.pipelines.values().flat_map(|pipeline| &pipeline.exporters).collect();
    limits::of(config).bytes() / 2 / used.len().max(1)
}

/// The most bytes of one request: gRPC servers take 4 MiB unless they are told otherwise, the Go
/// Collector's HTTP 20 MiB. A little below, as framing comes on top.
const GRPC_BYTES_MAX: usize = (4 << 20) - (64 << 10);
const HTTP_BYTES_MAX: usize = 16 << 20;

impl Plan {
    /// What it runs by, and where it sends to. Nothing runs yet, and no file is changed.
    pub(crate) fn parts(
        &self,
        id: &ComponentId,
    ) -> Result<(exporter::Settings, Destination), StartError> {
        Ok(match &self.exporter {
            config::Exporter::OtlpGrpc(otlp) => self.otlp(id, otlp, Protocol::Grpc)?,
            config::Exporter::OtlpHttp(otlp) => {
                let protocol = match otlp.encoding {
                    config::Encoding::Proto => Protocol::HttpProtobuf,
                    config::Encoding::Json => Protocol::HttpJson,
                };
                self.otlp(id, otlp, protocol)?
            }
            config::Exporter::Debug(debug) => {
                let debug = match debug.verbosity {
                    config::Verbosity::Basic => Debug::Basic,
                    config::Verbosity::Normal => Debug::Normal,
                    config::Verbosity::Detailed => Debug::Detailed,
                };
                (self.local(HTTP_BYTES_MAX), Destination::Debug(debug))
            }
            config::Exporter::File(file) => {
                let rotation = file.rotation.as_ref().map(|rotation| exporter::Rotation {
                    bytes_max: u64::from(rotation.max_megabytes) << 20,
                    backups_max: rotation.max_backups as usize,
                    age_max: rotation
                        .max_days
                        .map(|days| Duration::from_hours(24 * u64::from(days))),
                });
                let output = File::open(&file.path, file.append, rotation).map_err(|source| {
                    let setting = Setting::component("exporters", id).key("path");
                    StartError::File { setting, path: file.path.clone(), source }
                })?;
                (self.local(HTTP_BYTES_MAX), Destination::File(output))
            }
            config::Exporter::Nop => (self.local(HTTP_BYTES_MAX), Destination::Nop),
        })
    }

    /// The compression of requests that may go out as they came: they are not merged, and stay
    /// protobuf.
    pub(crate) fn forwarded_coding(&self) -> Option<Coding> {
        let (config::Exporter::OtlpGrpc(otlp) | config::Exporter::OtlpHttp(otlp)) = &self.exporter
        else {
            return None;
        };
        let queue = &otlp.sending_queue;
        let merges = self.batch.is_some() || queue.enabled && queue.batch.is_some();
        if merges || otlp.encoding == config::Encoding::Json {
            return None;
        }
        match otlp.compression {
            config::Compression::Gzip => Some(Coding::Gzip),
            config::Compression::Zstd => Some(Coding::Zstd),
            config::Compression::None => None,
        }
    }

    fn otlp(
        &self,
        id: &ComponentId,
        otlp: &config::OtlpExporter,
        protocol: Protocol,
    ) -> Result<(exporter::Settings, Destination), StartError> {
        let own = Setting::component("exporters", id);
        let wrong = |source| StartError::Exporter { setting: blamed(&own, otlp, &source), source };
        let transport = transport(otlp, protocol).map_err(wrong)?;
        let retry = &otlp.retry_on_failure;
        let policy = RetryPolicy::new(RetrySettings {
            attempts_max: u32::MAX,
            // 0 is no limit.
            elapsed_max: match retry.max_elapsed_time {
                Duration::ZERO => Duration::MAX,
                elapsed => elapsed,
            },
            interval_initial: retry.initial_interval,
            interval_max: retry.max_interval,
            multiplier: retry.multiplier,
            randomization: retry.randomization_factor,
        });
        let retry = match retry.enabled {
            true => Some(policy.map_err(|error| StartError::Value {
                setting: own.key("retry_on_failure"),
                rule: error.to_string(),
            })?),
            false => None,
        };
        let bytes_max = match protocol {
            Protocol::Grpc => GRPC_BYTES_MAX,
            Protocol::HttpProtobuf | Protocol::HttpJson => HTTP_BYTES_MAX,
        };
        let queue = &otlp.sending_queue;
        let own = queue.batch.as_ref().filter(|_| queue.enabled);
        let (batch, batch_processor) = match own {
            Some(own) => (Some(batching(own, bytes_max)), None),
            None => self.of_processor(bytes_max),
        };
        let (sizer, capacity) = match queue.sizer {
            config::Sizer::Requests => (Sizer::Requests, queue.queue_size),
            config::Sizer::Items => (Sizer::Spans, queue.queue_size),
            config::Sizer::Bytes => (Sizer::Bytes, queue.queue_size),
        };
        let settings = exporter::Settings {
            sizer,
            capacity: capacity.max(1),
            // Without a queue, each sender's request is sent at once.
            consumers: if queue.enabled { queue.num_consumers.max(1) } else { usize::MAX },
            blocks: queue.block_on_overflow,
            waits_for_result: queue.wait_for_result || !queue.enabled,
            batch,
            batch_processor,
        };
        let endpoint = otlp.traces_endpoint.as_ref().unwrap_or(&otlp.endpoint);
        // A query may hold a key.
        let endpoint = endpoint.split('?').next().unwrap_or_default().to_owned();
        let otlp = Otlp { transport, protocol, endpoint, retry };
        Ok((settings, Destination::Otlp(Box::new(otlp))))
    }

    /// A destination on this machine: one request after the other, in order.
    fn local(&self, bytes_max: usize) -> exporter::Settings {
        let (batch, batch_processor) = self.of_processor(bytes_max);
        exporter::Settings {
            sizer: Sizer::Requests,
            capacity: LOCAL_CAPACITY,
            consumers: 1,
            blocks: true,
            waits_for_result: false,
            batch,
            batch_processor,
        }
    }

    /// The batches that a batch processor asks for, and its name.
    fn of_processor(&self, bytes_max: usize) -> (Option<Batching>, Option<String>) {
        self.batch
            .as_ref()
            .map(|(id, batch)| (of_processor(batch, bytes_max), id.to_string()))
            .unzip()
    }
}

const LOCAL_CAPACITY: usize = 1000;

fn of_processor(batch: &config::Batch, bytes_max: usize) -> Batching {
    let spans_max =
        if batch.send_batch_max_size == 0 { usize::MAX } else { batch.send_batch_max_size };
    batch_of(batch.send_batch_size, usize::MAX, batch.timeout, spans_max, bytes_max)
}

fn batching(batch: &config::QueueBatch, bytes_max: usize) -> Batching {
    let most = |max: usize| if max == 0 { usize::MAX } else { max };
    match batch.sizer {
        config::Sizer::Bytes => batch_of(
            usize::MAX,
            batch.min_size,
            batch.flush_timeout,
            usize::MAX,
            bytes_max.min(most(batch.max_size)),
        ),
        config::Sizer::Items | config::Sizer::Requests => batch_of(
            batch.min_size,
            usize::MAX,
            batch.flush_timeout,
            most(batch.max_size),
            bytes_max,
        ),
    }
}

/// A minimum of 0 is none: a batch waits for nobody.
fn batch_of(
    spans_min: usize,
    bytes_min: usize,
    age_max: Duration,
    spans_max: usize,
    bytes_max: usize,
) -> Batching {
    let (spans, bytes) = (spans_min.min(spans_max).max(1), bytes_min.min(bytes_max).max(1));
    let limits = Limits::new(spans, bytes, age_max).expect("neither is zero");
    Batching { limits, spans_max, bytes_max }
}

fn transport(otlp: &config::OtlpExporter, protocol: Protocol) -> Result<Transport, InvalidConfig> {
    let compression = match otlp.compression {
        config::Compression::None => Compression::None,
        config::Compression::Gzip => Compression::Gzip,
        config::Compression::Zstd => Compression::Zstd,
    };
    Transport::new(&settings(otlp, protocol)?.compression(compression)?)
}

/// The setting of an exporter that is the cause of an error.
fn blamed(own: &Setting, otlp: &config::OtlpExporter, error: &InvalidConfig) -> Setting {
    let tls = own.key("tls");
    let endpoint = match &otlp.traces_endpoint {
        Some(_) => own.key("traces_endpoint"),
        None => own.key("endpoint"),
    };
    match error {
        InvalidConfig::Endpoint { .. } | InvalidConfig::Credentials | InvalidConfig::Tls => {
            endpoint
        }
        InvalidConfig::Roots { .. } | InvalidConfig::Client(_) => endpoint,
        InvalidConfig::ServerName { .. } if otlp.tls.server_name_override.is_none() => endpoint,
        InvalidConfig::ServerName { .. } => tls.key("server_name_override"),
        InvalidConfig::Header { name, .. } => {
            let written = otlp.headers.keys().find(|key| key.eq_ignore_ascii_case(name));
            own.key("headers").key(written.unwrap_or(name))
        }
        InvalidConfig::Compression => own.key("compression"),
        InvalidConfig::Pem { what, .. } => tls.key(match *what {
            "CA certificates" if otlp.tls.ca_file.is_none() => "ca_pem",
            "CA certificates" => "ca_file",
            "client certificate" if otlp.tls.cert_file.is_none() => "cert_pem",
            "client certificate" => "cert_file",
            _ if otlp.tls.key_file.is_none() => "key_pem",
            _ => "key_file",
        }),
        // A proxy is not set here, but in the environment.
        _ => own.clone(),
    }
}

/// An endpoint in the forms that gRPC has for it (`doc/naming.md`), as a URL. The resolver of
/// `dns://resolver/host:port` is none of it: the system's own is asked. `http://` says nothing about
/// TLS, while `https://` does (`getGrpcDialOptions` in `config/configgrpc/configgrpc.go` of the Go
/// Collector).
fn grpc_url(endpoint: &str, is_plain: bool) -> String {
    if endpoint.starts_with("unix:") || endpoint.starts_with("https://") {
        return endpoint.to_owned();
    }
    let name = match endpoint.strip_prefix("dns:") {
        Some(name) => {
            name.strip_prefix("//").and_then(|rest| rest.split_once('/')).map_or(name, |it| it.1)
        }
        None => endpoint.strip_prefix("http://").unwrap_or(endpoint),
    };
    let scheme = if is_plain { "http" } else { "https" };
    format!("{scheme}://{name}")
}

/// After which silence a server is pinged, and how long the answer is waited for: 20 s where nothing
/// is said, and no ping more often than each 10 s, as grpc-go has it (`ClientParameters` in
/// `keepalive/keepalive.go`, and `KeepaliveMinPingTime`).
fn keep_alive(keepalive: &config::ClientKeepalive) -> (Duration, Duration) {
    let interval = match keepalive.time {
        Duration::ZERO => Duration::ZERO,
        time => time.max(Duration::from_secs(10)),
    };
    let timeout = match keepalive.timeout {
        Duration::ZERO => Duration::from_secs(20),
        timeout => timeout,
    };
    (interval, timeout)
}

fn settings(
    otlp: &config::OtlpExporter,
    protocol: Protocol,
) -> Result<TransportConfig, InvalidConfig> {
    let tls = &otlp.tls;
    let mut transport = match (&otlp.traces_endpoint, protocol) {
        (Some(url), _) => TransportConfig::with_url(protocol, url)?,
        (None, Protocol::Grpc) => {
            TransportConfig::new(protocol, &grpc_url(&otlp.endpoint, tls.is_plain()))?
        }
        (None, _) => TransportConfig::new(protocol, &otlp.endpoint)?,
    };
    for (name, value) in &otlp.headers {
        transport = transport.header(name, value.expose())?;
    }
    if let Some((interval, timeout)) = otlp.keepalive.as_ref().map(keep_alive) {
        transport = transport.keep_alive(interval, timeout);
    }
    let pem = |file: &Option<PathBuf>, text: &Option<config::Secret>| {
        let file = file.clone().map(Pem::File);
        file.or_else(|| text.as_ref().map(|text| Pem::Bytes(text.expose().into())))
    };
    let mut settings = Tls::new().min_version(match tls.min_version {
        config::TlsVersion::Tls12 => TlsVersion::V1_2,
        config::TlsVersion::Tls13 => TlsVersion::V1_3,
    });
    if tls.insecure_skip_verify {
        settings = settings.dangerously_accept_any_certificate();
    }
    if let Some(ca) = pem(&tls.ca_file, &tls.ca_pem) {
        settings = settings.ca(ca);
    }
    let (chain, key) = (pem(&tls.cert_file, &tls.cert_pem), pem(&tls.key_file, &tls.key_pem));
    if let (Some(chain), Some(key)) = (chain, key) {
        settings = settings.client_certificate(chain, key);
    }
    if let Some(name) = &tls.server_name_override {
        settings = settings.server_name(name);
    }
    Ok(transport.request_timeout(otlp.timeout).tls(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_has_time_to_be_answered_and_is_not_sent_too_often() {
        let seconds =
            |(interval, timeout): (Duration, Duration)| (interval.as_secs(), timeout.as_secs());
        let of = |time, timeout| {
            let [time, timeout] = [time, timeout].map(Duration::from_secs);
            seconds(keep_alive(&config::ClientKeepalive { time, timeout }))
        };
        assert_eq!(of(30, 0), (30, 20), "what is not said is not nothing");
        assert_eq!(of(1, 5), (10, 5));
        assert_eq!(of(0, 5), (0, 5), "never");
    }

    /// What gRPC sends to, with these settings of TLS.
    fn url_by(endpoint: &str, tls: &config::ClientTls) -> String {
        grpc_url(endpoint, tls.is_plain())
    }

    #[test]
    fn endpoints_in_the_forms_of_grpc_are_urls() {
        for (endpoint, expected) in [
            ("tempo:4317", "https://tempo:4317"),
            ("dns:///tempo:4317", "https://tempo:4317"),
            ("dns:tempo:4317", "https://tempo:4317"),
            ("dns://8.8.8.8/tempo:4317", "https://tempo:4317"),
            ("http://tempo:4317", "https://tempo:4317"),
            ("https://tempo:4317", "https://tempo:4317"),
            ("unix:///run/otel.sock", "unix:///run/otel.sock"),
            ("[::1]:4317", "https://[::1]:4317"),
        ] {
            assert_eq!(url_by(endpoint, &config::ClientTls::default()), expected);
        }
    }

    #[test]
    fn grpc_is_in_plain_text_only_where_that_is_said_and_nothing_speaks_against_it() {
        let insecure = config::ClientTls { insecure: true, ..config::ClientTls::default() };
        for endpoint in ["tempo:4317", "http://tempo:4317", "dns:///tempo:4317"] {
            assert_eq!(url_by(endpoint, &insecure), "http://tempo:4317");
        }
        assert_eq!(url_by("https://tempo:4317", &insecure), "https://tempo:4317");
        let file = config::ClientTls { ca_file: Some("ca.pem".into()), ..insecure.clone() };
        let pem = config::ClientTls { ca_pem: Some("ca".into()), ..insecure };
        for tls in [file, pem] {
            for endpoint in ["tempo:4317", "http://tempo:4317", "https://tempo:4317"] {
                assert_eq!(url_by(endpoint, &tls), "https://tempo:4317", "an authority is named");
            }
        }
    }

    #[test]
    fn originals_are_forwarded_where_they_are_neither_merged_nor_read_as_json() {
        let coding = |edit: fn(&mut config::OtlpExporter)| {
            let mut otlp = config::OtlpExporter::http();
            edit(&mut otlp);
            Plan { exporter: config::Exporter::OtlpHttp(otlp), batch: None }.forwarded_coding()
        };
        assert_eq!(coding(|_| {}), Some(Coding::Gzip));
        assert_eq!(coding(|otlp| otlp.compression = config::Compression::Zstd), Some(Coding::Zstd));
        assert_eq!(coding(|otlp| otlp.compression = config::Compression::None), None);
        assert_eq!(coding(|otlp| otlp.encoding = config::Encoding::Json), None);
        let batches = |otlp: &mut config::OtlpExporter| {
            otlp.sending_queue.batch = Some(config::QueueBatch::default());
        };
        assert_eq!(coding(batches), None);
        let without_queue = |otlp: &mut config::OtlpExporter| {
            otlp.sending_queue.batch = Some(config::QueueBatch::default());
            otlp.sending_queue.enabled = false;
        };
        assert_eq!(coding(without_queue), Some(Coding::Gzip));
    }
}
