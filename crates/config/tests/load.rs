//! What is read, from where, and what is said about it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use spanwire_config::{
    Action, ActionKind, ClientTls, Compat, ComponentId, Compression, Config, Exporter, Extension,
    File, HealthCheck, Level, Listen, Loaded, LogEncoding, Metrics, MetricsLevel, Mode,
    OtlpExporter, OtlpReceiver, Processor, Queue, QueueBatch, Receiver, Report, Retry, Rotation,
    Secret, Sizer, Source, TlsVersion, Value, print,
};

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "TOKEN" => "abc$$def$ghi",
        "CLIENT_KEY" => "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----",
        "METRICS_PORT" => "9999",
        "MY_POD_IP" => "10.0.0.7",
        "BACKEND" => "tempo",
        "WHICH" => "BACKEND",
        "STRUCTURE" => "{exporters: [debug]}",
        "RECURSIVE" => "${env:TOKEN}",
        "NUMBER" => "0123",
        "LIST" => "otlp, otlp/2",
        "EMPTY" => "",
        "WHOLE" => "receivers: {otlp: {protocols: {http: }}}",
        _ => return None,
    };
    Some(value.to_owned())
}

fn yaml(text: &str) -> Source {
    Source::Yaml(text.to_owned())
}

fn load_all(sources: &[Source], sets: &[&str], compat: Compat) -> Result<Loaded, Report> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Config::load(sources, &sets, &environment, compat)
}

fn load(sources: &[Source]) -> Loaded {
    load_all(sources, &[], Compat::Strict).unwrap_or_else(|report| panic!("{report}"))
}

/// A configuration that loads, with `text` over it.
fn with(text: &str) -> Result<Loaded, Report> {
    load_all(&[yaml(BASE), yaml(text)], &[], Compat::Strict)
}

const BASE: &str = "
receivers: {otlp: {protocols: {grpc: }}}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";

fn id(text: &str) -> ComponentId {
    text.parse().expect("an id")
}

fn ids(texts: &[&str]) -> Vec<ComponentId> {
    texts.iter().map(|text| id(text)).collect()
}

fn grpc(config: &Config, name: &str) -> OtlpExporter {
    match &config.exporters[&id(name)] {
        Exporter::OtlpGrpc(exporter) => exporter.clone(),
        other => panic!("{other:?}"),
    }
}

fn http(config: &Config, name: &str) -> OtlpExporter {
    match &config.exporters[&id(name)] {
        Exporter::OtlpHttp(exporter) => exporter.clone(),
        other => panic!("{other:?}"),
    }
}

fn otlp(config: &Config, name: &str) -> OtlpReceiver {
    let Receiver::Otlp(receiver) = &config.receivers[&id(name)];
    receiver.clone()
}

fn messages(loaded: &Loaded) -> Vec<&str> {
    loaded.warnings.iter().map(|warning| warning.message()).collect()
}

#[test]
fn the_configuration_that_guides_start_with_loads() {
    let loaded = load(&[Source::File("tests/examples/agent.yaml".into())]);
    assert_eq!(messages(&loaded), Vec::<&str>::new());
    let config = loaded.config;
    let receiver = otlp(&config, "otlp");
    assert_eq!(receiver.grpc.unwrap().endpoint, Listen::Tcp("0.0.0.0:4317".into()));
    assert_eq!(receiver.http.unwrap().endpoint, Listen::Tcp("0.0.0.0:4318".into()));
    let pipeline = &config.service.pipelines[&id("traces")];
    assert_eq!(pipeline.processors, ids(&["memory_limiter", "batch"]));
    assert_eq!(config.service.extensions, ids(&["health_check", "zpages"]));
    assert_eq!(
        config.extensions[&id("health_check")],
        Extension::HealthCheck(HealthCheck::default())
    );
    assert_eq!(config.service.telemetry.metrics, Metrics::default());
}

#[test]
fn every_setting_of_a_gateway_is_read() {
    let loaded = load(&[Source::File("tests/examples/gateway.yaml".into())]);
    assert_eq!(messages(&loaded), Vec::<&str>::new());
    let config = loaded.config;

    let receiver = otlp(&config, "otlp");
    let server = receiver.grpc.unwrap();
    assert_eq!(server.endpoint, Listen::Tcp("0.0.0.0:4317".into()));
    assert_eq!(server.max_recv_msg_size_bytes, 16 << 20);
    assert_eq!(server.max_concurrent_streams, Some(100));
    assert_eq!(server.keepalive.max_connection_age, Some(Duration::from_secs(300)));
    let tls = server.tls.unwrap();
    assert_eq!(tls.client_ca_file, Some(PathBuf::from("/etc/otel/ca.crt")));
    assert_eq!(tls.min_version, TlsVersion::Tls13);
    assert_eq!(tls.reload_interval, Some(Duration::from_secs(3600)));
    let server = receiver.http.unwrap();
    assert_eq!(server.tls, Some(tls));
    assert_eq!(server.max_request_body_size, 4 << 20);
    assert_eq!(server.idle_timeout, None);
    assert_eq!(server.read_header_timeout, Some(Duration::from_secs(20)));
    assert_eq!(server.traces_url_path, "/traces");
    assert_eq!(server.cors.unwrap().max_age, Some(Duration::from_secs(7200)));
    let socket = otlp(&config, "otlp/local");
    assert_eq!(socket.grpc.unwrap().endpoint, Listen::Unix("/run/otel.sock".into()));
    assert_eq!(socket.http, None);

    let Processor::Attributes(actions) = &config.processors[&id("attributes/clean")] else {
        panic!("{config:?}")
    };
    assert_eq!(actions.len(), 8);
    assert_eq!(
        actions[0],
        Action {
            key: Some("environment".into()),
            pattern: None,
            kind: ActionKind::Insert,
            value: Some(Value::Str("production".into())),
            from_attribute: None,
            converted_type: None,
        }
    );
    assert_eq!(
        actions[4].pattern.as_deref(),
        Some("^(?P<http_protocol>.*):\\/\\/(?P<http_domain>.*)$")
    );
    assert_eq!(actions[7].value, Some(Value::Double(0.5)));
    let Processor::ProbabilisticSampler(sampler) = &config.processors[&id("probabilistic_sampler")]
    else {
        panic!("{config:?}")
    };
    assert_eq!((sampler.sampling_percentage, sampler.mode), (15.3, Mode::Proportional));
    assert!(sampler.fail_closed && sampler.sampling_precision == 4);

    let exporter = grpc(&config, "otlp/tempo");
    assert_eq!(exporter.endpoint, "dns:///tempo.monitoring:4317");
    assert_eq!(exporter.compression, Compression::Zstd);
    assert_eq!(exporter.headers["authorization"].expose(), "Bearer abc$$def$ghi");
    assert!(exporter.tls.key_pem.as_ref().is_some_and(|pem| pem.expose().contains("\nMII\n")));
    assert_eq!(exporter.retry_on_failure.max_elapsed_time, Duration::ZERO);
    assert_eq!(exporter.retry_on_failure.multiplier, 1.5);
    assert_eq!(
        exporter.sending_queue,
        Queue {
            num_consumers: 4,
            queue_size: 2000,
            sizer: Sizer::Bytes,
            batch: Some(QueueBatch {
                flush_timeout: Duration::from_millis(500),
                min_size: 1000,
                max_size: 4000,
                sizer: Sizer::Bytes,
            }),
            ..Queue::default()
        }
    );
    let exporter = http(&config, "otlphttp");
    assert_eq!(exporter.headers["x-team"].expose(), "core");
    assert!(!exporter.sending_queue.enabled && !exporter.retry_on_failure.enabled);
    assert_eq!(exporter.timeout, Duration::from_secs(30));
    assert_eq!(
        config.exporters[&id("file")],
        Exporter::File(File {
            path: "/var/log/spans.json".into(),
            rotation: Some(Rotation { max_megabytes: 10, max_days: Some(3), max_backups: 100 }),
            ..File::default()
        })
    );

    let telemetry = config.service.telemetry;
    assert_eq!((telemetry.logs.level, telemetry.logs.encoding), (Level::Warn, LogEncoding::Json));
    assert_eq!(telemetry.metrics.level, MetricsLevel::Detailed);
    assert_eq!(telemetry.metrics.address.as_deref(), Some("0.0.0.0:9999"));
}

#[test]
fn what_has_no_effect_is_noted_with_the_reason() {
    let notes = load(&[Source::File("tests/examples/gateway.yaml".into())]).config.notes;
    for key in [
        "receivers::otlp::protocols::grpc::read_buffer_size",
        "receivers::otlp::protocols::grpc::include_metadata",
        "receivers::otlp::protocols::grpc::keepalive::enforcement_policy",
        "receivers::otlp::protocols::http::metrics_url_path",
        "processors::memory_limiter::check_interval",
        "exporters::file::rotation::localtime",
    ] {
        let note = notes.iter().find(|note| note.starts_with(&format!("{key} has no effect: ")));
        assert!(note.is_some(), "{key}: {notes:#?}");
    }
    assert_eq!(notes.len(), 6, "{notes:#?}");
}

#[test]
fn settings_that_differ_only_in_what_has_no_effect_are_equal() {
    let load = |debug: &str, file: &str, limiter: &str| {
        let yaml = format!(
            "{{exporters: {{debug: {{{debug}}}, file: {{path: /spans.json{file}}}}}, \
             extensions: {{memory_limiter: {{limit_mib: 9{limiter}}}}}, \
             service: {{extensions: [memory_limiter], \
             pipelines: {{traces: {{exporters: [debug, file]}}}}}}}}"
        );
        with(&yaml).unwrap_or_else(|report| panic!("{report}")).config
    };
    let debug = "sampling_initial: 5, sampling_thereafter: 500, use_internal_logger: false";
    let mut written = load(debug, ", flush_interval: 9s", ", check_interval: 5s");
    assert_eq!(written.notes.len(), 5, "{:#?}", written.notes);
    written.notes.clear();
    assert_eq!(written, load("", "", ""));
}

#[test]
fn an_exporter_without_settings_has_the_defaults_of_go_but_waits_when_its_queue_is_full() {
    let config = with("exporters: {otlp: {endpoint: 'a:1'}, otlphttp: {endpoint: 'http://a:1'}}");
    let config = config.unwrap().config;
    let expected = OtlpExporter {
        endpoint: "a:1".into(),
        traces_endpoint: None,
        tls: ClientTls::default(),
        headers: Default::default(),
        compression: Compression::Gzip,
        timeout: Duration::from_secs(5),
        retry_on_failure: Retry {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: Duration::from_secs(300),
        },
        sending_queue: Queue {
            enabled: true,
            num_consumers: 10,
            queue_size: 1000,
            sizer: Sizer::Requests,
            wait_for_result: false,
            block_on_overflow: true,
            batch: None,
        },
        encoding: Default::default(),
        keepalive: None,
    };
    assert_eq!(grpc(&config, "otlp"), expected);
    let timeout = Duration::from_secs(30);
    let expected = OtlpExporter { endpoint: "http://a:1".into(), timeout, ..expected };
    assert_eq!(http(&config, "otlphttp"), expected);
}

#[test]
fn a_batch_of_the_queue_counts_what_the_queue_counts_unless_that_is_requests() {
    let sizer = |queue: &str| {
        let text = format!("exporters: {{otlp: {{endpoint: 'a:1', sending_queue: {queue}}}}}");
        let config = with(&text).unwrap_or_else(|report| panic!("{report}")).config;
        grpc(&config, "otlp").sending_queue.batch.map(|batch| batch.sizer)
    };
    assert_eq!(sizer("{}"), None);
    assert_eq!(sizer("{batch: }"), Some(Sizer::Items));
    assert_eq!(sizer("{batch: {enabled: false}}"), None);
    assert_eq!(sizer("{sizer: bytes, queue_size: 10000, batch: }"), Some(Sizer::Bytes));
    assert_eq!(sizer("{sizer: requests, batch: }"), Some(Sizer::Items));
    assert_eq!(sizer("{sizer: bytes, batch: {sizer: items}}"), Some(Sizer::Items));
}

#[test]
fn endpoints_of_exporters_are_taken_in_all_forms_of_go() {
    for endpoint in [
        "localhost:4317",
        "http://localhost:4317",
        "https://localhost:4317/",
        "dns:///a.b:4317",
        "dns:a.b:4317",
        "unix:///run/otel.sock",
        "[::1]:4317",
    ] {
        let text = format!("exporters: {{otlp: {{endpoint: '{endpoint}'}}}}");
        let config = with(&text).unwrap_or_else(|report| panic!("{report}")).config;
        assert_eq!(grpc(&config, "otlp").endpoint, endpoint);
    }
    let report = with("exporters: {otlp: {endpoint: 'dns://8.8.8.8/a.b:4317'}}").unwrap_err();
    assert!(report.to_string().contains("write dns:///host:port"), "{report}");
    let text = "exporters: {otlphttp: {traces_endpoint: 'https://a/custom?x=1'}}";
    let exporter = http(&with(text).unwrap().config, "otlphttp");
    assert_eq!(exporter.traces_endpoint.as_deref(), Some("https://a/custom?x=1"));
    for text in ["{}", "{endpoint: ''}", "{endpoint: /v1}", "{endpoint: 'https://:1'}"] {
        assert!(with(&format!("exporters: {{otlphttp: {text}}}")).is_err(), "{text}");
    }
}

#[test]
fn the_new_names_of_the_otlp_exporters_are_kept_as_written() {
    let text = "exporters: {otlp_grpc/a: {endpoint: 'a:1'}, otlp_http: {endpoint: 'http://a'}}";
    let config = with(text).unwrap().config;
    assert_eq!(grpc(&config, "otlp_grpc/a").endpoint, "a:1");
    assert_eq!(http(&config, "otlp_http").endpoint, "http://a");
}

#[test]
fn a_later_source_is_merged_map_by_map_and_replaces_lists() {
    let first = "
processors: {batch: {timeout: 1s, send_batch_size: 10}, batch/2: {timeout: 1s}}
exporters: {nop: }
service: {pipelines: {traces: {processors: [batch, batch/2], exporters: [debug, nop]}}}
";
    let second = "
processors: {batch: {timeout: 2s}, batch/2: }
service: {pipelines: {traces: {processors: [batch]}}}
";
    let config = load(&[yaml(BASE), yaml(first), yaml(second)]).config;
    let Processor::Batch(batch) = &config.processors[&id("batch")] else { panic!() };
    assert_eq!((batch.timeout, batch.send_batch_size), (Duration::from_secs(2), 10));
    let Processor::Batch(batch) = &config.processors[&id("batch/2")] else { panic!() };
    assert_eq!(batch.timeout, Duration::from_millis(200), "null replaces the section");
    let pipeline = &config.service.pipelines[&id("traces")];
    assert_eq!(pipeline.processors, ids(&["batch"]));
    assert_eq!(pipeline.exporters, ids(&["debug", "nop"]));
}

#[test]
fn a_set_comes_over_all_sources_with_either_separator() {
    let sources = [yaml(BASE), yaml("exporters::debug::verbosity: normal")];
    let sets = [
        "exporters.debug.verbosity=detailed",
        "exporters::otlp/x.y::endpoint=a.b:4317",
        "service.pipelines.traces.exporters=[debug, otlp/x.y]",
        "exporters::otlp/x.y::sending_queue::queue_size=5",
    ];
    let config = load_all(&sources, &sets, Compat::Strict).unwrap().config;
    assert_eq!(grpc(&config, "otlp/x.y").endpoint, "a.b:4317");
    let Exporter::Debug(debug) = &config.exporters[&id("debug")] else { panic!() };
    assert_eq!(debug.verbosity, spanwire_config::Verbosity::Detailed);
    assert_eq!(grpc(&config, "otlp/x.y").sending_queue.queue_size, 5);
}

#[test]
fn what_is_wrong_with_a_set_names_it_and_keeps_its_headers_secret() {
    let sets = ["exporters.debug.verbosity=much", "exporters.debug.headers.x=hunter2"];
    let report = load_all(&[yaml(BASE)], &sets, Compat::Strict).unwrap_err().to_string();
    assert!(report.contains("--> --set exporters.debug.verbosity:1:1"), "{report}");
    assert!(report.contains("debug has no key \"headers\""), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
    for set in ["novalue", "=1", "a..b=1", ".a=1", "a=[1"] {
        assert!(load_all(&[yaml(BASE)], &[set], Compat::Strict).is_err(), "{set}");
    }
}

#[test]
fn a_whole_configuration_may_come_from_a_variable() {
    let loaded = load(&[yaml(BASE), Source::Env("WHOLE".into())]);
    assert!(otlp(&loaded.config, "otlp").http.is_some());
    let report = load_all(&[Source::Env("UNSET".into())], &[], Compat::Strict).unwrap_err();
    assert_eq!(report.to_string(), "error: env:UNSET is not set\n\n1 error");
}

#[test]
fn sources_that_are_not_supported_are_refused_by_name() {
    for scheme in ["http", "https", "s3"] {
        let error = format!("{scheme}://host/config.yaml").parse::<Source>().unwrap_err();
        assert!(error.to_string().contains(&format!("{scheme}: are not supported")), "{error}");
    }
    assert_eq!("C:/collector.yaml".parse(), Ok(Source::File("C:/collector.yaml".into())));
    assert_eq!("file:a.yaml".parse(), Ok(Source::File("a.yaml".into())));
}

/// Faults 166.
#[test]
fn a_file_that_cannot_be_read_is_named() {
    for path in ["tests/examples/missing.yaml", "tests/examples"] {
        let report = load_all(&[Source::File(path.into())], &[], Compat::Strict).unwrap_err();
        let report = report.to_string();
        assert!(report.starts_with(&format!("error: {path} cannot be read: ")), "{report}");
    }
    assert!(load_all(&[], &[], Compat::Strict).is_err());
}

/// Faults 167.
#[test]
fn a_file_of_a_hundred_megabytes_is_refused_unread() {
    let path = std::env::temp_dir().join(format!("spanwire-config-{}.yaml", std::process::id()));
    // A sparse file: it takes no room.
    fs::File::create(&path).and_then(|file| file.set_len(100 << 20)).unwrap();
    let report = load_all(&[Source::File(path.clone())], &[], Compat::Strict);
    fs::remove_file(&path).unwrap();
    assert!(report.unwrap_err().to_string().contains("larger than 4 MiB"));
}

/// Faults 168.
#[test]
fn a_variable_is_one_value_and_is_not_expanded_again() {
    let config = with(
        "exporters: {otlp: {endpoint: '${BACKEND}:1', headers: {\
         a: '${env:RECURSIVE}', b: 'x-${env:TOKEN}-${env:NUMBER}', c: '${env:STRUCTURE}', \
         d: '$${env:TOKEN} $$ $1 $', e: '${env:NUMBER}', f: '${env:UNSET:-none}', \
         g: '${env:EMPTY:-none}', h: '${env:${env:WHICH}}', i: '${env:UNSET:-${env:BACKEND}}'}}}",
    );
    let exporter = grpc(&config.unwrap_or_else(|report| panic!("{report}")).config, "otlp");
    assert_eq!(exporter.endpoint, "tempo:1");
    let header = |name: &str| exporter.headers[name].expose().to_owned();
    assert_eq!(header("a"), "${env:TOKEN}");
    assert_eq!(header("b"), "x-abc$$def$ghi-0123");
    assert_eq!(header("c"), "{exporters: [debug]}");
    assert_eq!(header("d"), "${env:TOKEN} $ $1 $");
    assert_eq!(header("e"), "0123");
    assert_eq!(header("f"), "none");
    assert_eq!(header("g"), "");
    assert_eq!(header("h"), "tempo");
    assert_eq!(header("i"), "tempo");
    let report = with("exporters: '${env:STRUCTURE}'").unwrap_err().to_string();
    assert!(report.contains("exporters is a map, but here is the text"), "{report}");
}

#[test]
fn a_variable_has_the_type_of_what_it_holds_and_may_hold_a_list() {
    let config = with(
        "receivers: {otlp/2: {protocols: {http: }}}\n\
         exporters: {otlp: {endpoint: 'a:1', sending_queue: {queue_size: '${env:METRICS_PORT}'}}}\n\
         service: {pipelines: {traces: {receivers: '${env:LIST}'}}}",
    );
    let config = config.unwrap_or_else(|report| panic!("{report}")).config;
    assert_eq!(grpc(&config, "otlp").sending_queue.queue_size, 9999);
    assert_eq!(config.service.pipelines[&id("traces")].receivers, ids(&["otlp", "otlp/2"]));
}

/// Faults 168.
#[test]
fn a_variable_that_is_not_set_is_empty_with_a_warning() {
    let loaded = with("exporters: {debug: {verbosity: '${env:NOPE}'}}").unwrap();
    assert_eq!(messages(&loaded), ["${env:NOPE} is not set, so this is empty"]);
    let location = loaded.warnings[0].location().unwrap();
    assert_eq!((location.file.as_str(), location.line), ("yaml:", 1));
    assert_eq!(loaded.config.exporters, load(&[yaml(BASE)]).config.exporters);
}

#[test]
fn a_file_may_stand_for_a_section_or_a_secret() {
    let folder = std::env::temp_dir().join(format!("spanwire-config-files-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(path("token"), "hunter2\n").unwrap();
    fs::write(path("queue.yaml"), "queue_size: ${env:METRICS_PORT}\n").unwrap();
    fs::write(path("wrong.yaml"), "queue_size: many\nnope: 1\n").unwrap();
    fs::write(path("broken.yaml"), "queue_size: 1: 2\n").unwrap();
    fs::write(path("odd"), "@hunter2: *x: !y\r\n").unwrap();
    fs::write(path("pem"), "-----BEGIN X-----\nAB: C\n-----END X-----\n").unwrap();
    fs::write(path("self.yaml"), format!("a: ${{file:{}}}\n", path("self.yaml"))).unwrap();
    let exporter = |queue: &str| {
        with(&format!(
            "exporters: {{otlp: {{endpoint: 'a:1', headers: {{t: 'Bearer ${{file:{}}}', \
             o: '${{file:{}}}'}}, \
             tls: {{ca_pem: '${{file:{}}}'}}, sending_queue: '${{file:{}}}'}}}}",
            path("token"),
            path("odd"),
            path("pem"),
            path(queue)
        ))
    };
    let good = exporter("queue.yaml");
    let wrong = exporter("wrong.yaml").unwrap_err().to_string();
    let broken = exporter("broken.yaml").unwrap_err().to_string();
    let circle = exporter("self.yaml").unwrap_err().to_string();
    let missing = exporter("missing.yaml").unwrap_err().to_string();
    fs::remove_dir_all(&folder).unwrap();

    let exporter = grpc(&good.unwrap_or_else(|report| panic!("{report}")).config, "otlp");
    assert_eq!(exporter.headers["t"].expose(), "Bearer hunter2");
    assert_eq!(exporter.headers["o"].expose(), "@hunter2: *x: !y");
    let pem = exporter.tls.ca_pem.expect("it is set");
    assert_eq!(pem.expose(), "-----BEGIN X-----\nAB: C\n-----END X-----");
    assert_eq!(exporter.sending_queue.queue_size, 9999);
    assert!(wrong.contains("wrong.yaml:1:13\n") && wrong.contains("wrong.yaml:2:1\n"), "{wrong}");
    assert!(broken.contains("broken.yaml}\", in line 1, column 14: this is not YAML"), "{broken}");
    assert!(circle.contains("files name each other more than 8 deep"), "{circle}");
    assert!(missing.contains("missing.yaml}: cannot be read: "), "{missing}");
}

/// Faults 166, 178.
#[test]
fn what_nothing_refers_to_is_a_warning() {
    let loaded = with(
        "receivers: {otlp/2: {protocols: {http: }}}\nprocessors: {batch: }\n\
         exporters: {nop: }\nextensions: {zpages: }",
    );
    let loaded = loaded.unwrap();
    assert_eq!(
        messages(&loaded),
        [
            "receivers::otlp/2 is not used",
            "processors::batch is not used",
            "exporters::nop is not used",
            "extensions::zpages is not used",
        ]
    );
}

#[test]
fn warn_leaves_out_what_is_not_supported_and_runs_the_rest() {
    let source = [Source::File("tests/examples/kubernetes.yaml".into())];
    let report = load_all(&source, &[], Compat::Strict).unwrap_err();
    assert_eq!(report.diagnostics().len(), 4, "{report}");

    let loaded = load_all(&source, &[], Compat::Warn).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(
        messages(&loaded),
        [
            "receivers::prometheus is not supported",
            "processors::k8sattributes is not supported",
            "service::pipelines::logs is not supported: this collector is for traces only",
            "service::pipelines::metrics is not supported: this collector is for traces only",
        ]
    );
    let config = loaded.config;
    assert_eq!(config.service.pipelines.len(), 1);
    let pipeline = &config.service.pipelines[&id("traces")];
    assert_eq!(pipeline.processors, ids(&["memory_limiter", "batch"]));
    assert!(http(&config, "otlp_http").tls.insecure);
    assert_eq!(config.service.telemetry.metrics.address.as_deref(), Some("10.0.0.7:8888"));
}

#[test]
fn warn_leaves_out_a_pipeline_that_has_nothing_left_and_still_needs_one() {
    let jaeger = "
receivers: {jaeger: }
service: {pipelines: {traces/2: {receivers: [jaeger], exporters: [debug]}}}
";
    let loaded = load_all(&[yaml(BASE), yaml(jaeger)], &[], Compat::Warn).unwrap();
    assert_eq!(loaded.config.service.pipelines.len(), 1);
    assert!(messages(&loaded).iter().any(|message| message.contains("traces/2 is left out")));

    let only = "
receivers: {jaeger: }
exporters: {debug: }
service: {pipelines: {traces: {receivers: [jaeger], exporters: [debug]}}}
";
    let report = load_all(&[yaml(only)], &[], Compat::Warn).unwrap_err();
    assert!(report.to_string().contains("no pipeline is left to run"), "{report}");
}

#[test]
fn warn_forgives_unknown_keys_and_nothing_else() {
    let keys = "exporters: {debug: {colour: red, output_paths: [stdout]}}";
    let loaded = load_all(&[yaml(BASE), yaml(keys)], &[], Compat::Warn).unwrap();
    assert_eq!(loaded.warnings.len(), 2);
    assert_eq!(loaded.config.exporters, load(&[yaml(BASE)]).config.exporters);
    let wrong = "exporters: {debug: {verbosity: loud}}";
    assert!(load_all(&[yaml(BASE), yaml(wrong)], &[], Compat::Warn).is_err());
}

#[test]
fn warn_never_opens_a_door_or_widens_a_change() {
    for text in [
        "receivers: {otlp: {protocols: {grpc: {auth: {authenticator: oidc}}}}}",
        "receivers: {otlp: {protocols: {http: {auth: {authenticator: oidc}}}}}",
        "processors: {attributes: {include: {match_type: strict}, actions: [{key: a, action: delete}]}}",
        "processors: {attributes: {exclude: {match_type: strict}, actions: [{key: a, action: delete}]}}",
    ] {
        let report = load_all(&[yaml(BASE), yaml(text)], &[], Compat::Warn).unwrap_err();
        assert!(report.to_string().contains("is not supported"), "{report}");
    }
}

#[test]
fn words_may_be_in_capitals_and_a_percentage_above_all() {
    let config = with(
        "processors: {probabilistic_sampler: {sampling_percentage: 150}, \
         resource: {attributes: [{key: a, action: DELETE}]}}\n\
         service: {telemetry: {logs: {level: WARN}}, \
         pipelines: {traces: {processors: [resource, probabilistic_sampler]}}}",
    );
    let config = config.unwrap_or_else(|report| panic!("{report}")).config;
    assert_eq!(config.service.telemetry.logs.level, Level::Warn);
    let sampler = &config.processors[&id("probabilistic_sampler")];
    let Processor::ProbabilisticSampler(sampler) = sampler else { panic!("{sampler:?}") };
    assert_eq!(sampler.sampling_percentage, 100.0);
}

#[test]
fn names_of_metrics_have_units_and_types_where_readers_are_written_out_and_do_not_say_otherwise() {
    let names = |metrics: &str| {
        let text = format!("service: {{telemetry: {{metrics: {metrics}}}}}");
        let config = with(&text).unwrap_or_else(|report| panic!("{report}")).config;
        let names = config.service.telemetry.metrics.names;
        (names.units, names.type_suffix)
    };
    let reader =
        |more: &str| format!("{{readers: [{{pull: {{exporter: {{prometheus: {{{more}}}}}}}}}]}}");
    assert_eq!(names("{}"), (false, false));
    assert_eq!(names("{address: ':8888'}"), (false, false));
    assert_eq!(names(&reader("host: a")), (true, true));
    assert_eq!(names(&reader("without_units: true")), (false, true));
    assert_eq!(names(&reader("without_type_suffix: true")), (true, false));
}

#[test]
fn settings_of_an_exporter_that_are_not_heeded_are_told_or_refused_by_name() {
    let notes = |settings: &str| {
        let text = format!("exporters: {{otlp: {{endpoint: 'a:1', {settings}}}}}");
        with(&text).unwrap_or_else(|report| panic!("{report}")).config.notes
    };
    for (setting, key) in [
        ("balancer_name: round_robin", "balancer_name"),
        ("keepalive: {permit_without_stream: true}", "keepalive::permit_without_stream"),
        ("tls: {reload_interval: 1h}", "tls::reload_interval"),
    ] {
        let notes = notes(setting);
        let told = format!("exporters::otlp::{key} has no effect: ");
        assert!(notes.len() == 1 && notes[0].starts_with(&told), "{setting}: {notes:?}");
    }
    let heeded = "balancer_name: pick_first, tls: {min_version: '1.2'}, \
                  keepalive: {permit_without_stream: false}";
    assert_eq!(notes(heeded), Vec::<String>::new());
    let above = "exporters: {otlp: {endpoint: 'a:1', tls: {min_version: '1.3'}}}";
    let report = with(above).unwrap_err().to_string();
    assert!(report.contains("exporters::otlp::tls::min_version above 1.2"), "{report}");
}

#[test]
fn metrics_are_served_where_they_are_asked_for_and_not_at_level_none() {
    let address = |metrics: &str| {
        let text = format!("service: {{telemetry: {{metrics: {metrics}}}}}");
        with(&text).unwrap_or_else(|report| panic!("{report}")).config.service.telemetry.metrics
    };
    assert_eq!(address("{}").address.as_deref(), Some("localhost:8888"));
    assert_eq!(address("{level: none}").address, None);
    assert_eq!(address("{readers: []}").address, None);
    let reader = "{readers: [{pull: {exporter: {prometheus: {host: '::', port: 1}}}}]}";
    assert_eq!(address(reader).address.as_deref(), Some("[::]:1"));
    let periodic = "service: {telemetry: {metrics: {readers: [{periodic: {exporter: {}}}]}}}";
    assert!(with(periodic).unwrap_err().to_string().contains("periodic is not supported"));
}

#[test]
fn tls_needs_pairs_and_knows_its_versions() {
    let server = |tls: &str| {
        with(&format!("receivers: {{otlp: {{protocols: {{grpc: {{tls: {tls}}}}}}}}}"))
            .map(|loaded| otlp(&loaded.config, "otlp").grpc.unwrap().tls)
    };
    assert_eq!(server("").unwrap(), None);
    let pem = server("{cert_pem: a, key_pem: b}").unwrap().unwrap();
    assert_eq!((pem.cert_pem, pem.key_pem), (Some(Secret::from("a")), Some(Secret::from("b"))));
    for wrong in ["{}", "{cert_file: a}", "{cert_file: a, cert_pem: a, key_file: b}"] {
        assert!(server(wrong).is_err(), "{wrong}");
    }
    for (version, expected) in [("'1.2'", true), ("'1.3'", true), ("'1.1'", false), ("'2'", false)]
    {
        let text = format!("{{cert_file: a, key_file: b, min_version: {version}}}");
        assert_eq!(server(&text).is_ok(), expected, "{version}");
    }
    for (tls, expected) in
        [("{cert_file: a}", false), ("{ca_file: a, ca_pem: b}", false), ("", true)]
    {
        let text = format!("exporters: {{otlp: {{endpoint: 'a:1', tls: {tls}}}}}");
        assert_eq!(with(&text).is_ok(), expected, "{tls}");
    }
}

#[test]
fn a_print_reads_back_as_the_same_configuration() {
    let mut configs = vec![Config::default_pipeline()];
    for name in ["agent", "gateway"] {
        configs.push(load(&[Source::File(format!("tests/examples/{name}.yaml").into())]).config);
    }
    let odd = r#"
processors:
  attributes:
    actions:
      - {key: "a: b", action: upsert, value: "$${x} \"quoted\"\\\n\ttab\u0085 ünï #no"}
      - {key: "true", action: insert, value: "12"}
      - {key: n, action: insert, value: -9223372036854775808}
      - {key: d, action: insert, value: 1e300}
      - {key: e, action: insert, value: 2.0}
      - {key: t, action: insert, value: true}
      - {pattern: "- x", action: hash}
service: {pipelines: {traces: {processors: [attributes]}}, telemetry: {metrics: {level: none}}}
"#;
    configs.push(with(odd).unwrap_or_else(|report| panic!("{report}")).config);
    for mut config in configs {
        let text = print(&config);
        let mut again = load_all(&[yaml(&text)], &[], Compat::Strict)
            .unwrap_or_else(|report| panic!("{report}\n{text}"))
            .config;
        assert_eq!(print(&again), text);
        for config in [&mut config, &mut again] {
            config.notes.clear();
            for exporter in config.exporters.values_mut() {
                if let Exporter::OtlpGrpc(otlp) | Exporter::OtlpHttp(otlp) = exporter {
                    otlp.headers.clear();
                    otlp.tls.key_pem = None;
                }
            }
        }
        assert_eq!(again, config, "{text}");
    }
}

/// Faults 168.
#[test]
fn no_secret_is_printed() {
    let config = load(&[Source::File("tests/examples/gateway.yaml".into())]).config;
    let text = print(&config) + &format!("{config:?}");
    assert!(!text.contains("abc") && !text.contains("MII"), "{text}");
    assert!(text.contains("authorization: \"[REDACTED]\"\n"), "{text}");
}

#[test]
fn the_default_pipeline_is_what_its_yaml_says() {
    let yaml = yaml(
        "{receivers: {otlp: {protocols: {grpc: , http: }}}, processors: {batch: }, \
         exporters: {debug: {verbosity: normal}}, extensions: {health_check: }, service: {extensions: [health_check], \
         pipelines: {traces: {receivers: [otlp], processors: [batch], exporters: [debug]}}}}",
    );
    let loaded = load(&[yaml]);
    assert_eq!(loaded.config, Config::default_pipeline());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn every_component_of_the_table_is_read_and_no_other() {
    for component in spanwire_config::components() {
        for kind in [Some(component.kind), component.alias].into_iter().flatten() {
            let text = format!("{}: {{{kind}/x: }}", component.section);
            if let Err(report) = with(&text) {
                assert!(!report.to_string().contains("not supported"), "{report}");
            }
        }
        let text = format!("{}: {{nonesuch: }}", component.section);
        assert!(with(&text).unwrap_err().to_string().contains("nonesuch is not supported"));
    }
}
