//! The settings of each part, as they are written and as they are read.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use spanwire_config::{
    Action, ActionKind, ClientTls, Compression, Config, Exporter, Extension, File, HealthCheck,
    Level, Listen, LogEncoding, Metrics, MetricsLevel, Mode, OtlpExporter, Processor, Queue,
    QueueBatch, Retry, Rotation, Secret, Sizer, Source, TlsVersion, Value,
};
use support::*;

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
    assert_eq!(exporter.tls.min_version, TlsVersion::Tls13);
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
    let first = "receivers::otlp::protocols::grpc::include_metadata has no effect: ";
    let line = include_str!("examples/gateway.yaml")
        .lines()
        .position(|line| line.contains("include_metadata"))
        .map(|line| format!("(tests/examples/gateway.yaml:{})", line + 1))
        .expect("it is in it");
    assert!(
        notes.iter().any(|note| note.starts_with(first) && note.ends_with(&line)),
        "{notes:#?}"
    );
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
    let heeded = "balancer_name: pick_first, tls: {min_version: '1.3', max_version: '1.3'}, \
                  keepalive: {permit_without_stream: false}";
    assert_eq!(notes(heeded), Vec::<String>::new());
    let below = "exporters: {otlp: {endpoint: 'a:1', tls: {max_version: '1.2'}}}";
    let report = with(below).unwrap_err().to_string();
    assert!(report.contains("exporters::otlp::tls::max_version below 1.3"), "{report}");
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
    for (version, expected) in [
        ("min_version: '1.2'", true),
        ("min_version: '1.3'", true),
        ("min_version: '1.1'", false),
        ("min_version: '2'", false),
        ("max_version: '1.3'", true),
        ("max_version: '1.2'", false),
        ("max_version: '2'", false),
    ] {
        let text = format!("{{cert_file: a, key_file: b, {version}}}");
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
fn what_is_encrypted_against_its_looks_or_with_anybody_is_told() {
    let http = "exporters::NAME::endpoint says http://, and TLS is spoken";
    let any = "exporters::NAME::tls::insecure_skip_verify accepts any certificate";
    let authority = "insecure has no effect: an authority is named, and TLS is spoken";
    let scheme = "insecure has no effect: the endpoint begins with https://, and TLS is spoken";
    let both = "insecure: true, insecure_skip_verify: true";
    let skip = "insecure_skip_verify: true";
    // The exporter, its endpoint and TLS, and what is to be warned of and noted.
    let cases = [
        ("otlp", "http://a:1", "", Some(http), None),
        ("otlp", "a:1", skip, Some(any), None),
        ("otlp", "a:1", both, None, None),
        ("otlp", "http://a:1", both, None, None),
        ("otlp", "https://a:1", both, Some(any), Some(scheme)),
        ("otlp", "https://a:1", "insecure: true", None, Some(scheme)),
        ("otlp", "https://a:1", "ca_file: '', cert_file: ''", None, None),
        ("otlp", "a:1", "insecure: true, ca_file: ca.pem", None, Some(authority)),
        ("otlp", "https://a:1", "insecure: true, ca_file: ca.pem", None, Some(scheme)),
        ("otlp", "unix:///a", skip, None, None),
        ("otlphttp", "https://a:1", both, Some(any), Some(scheme)),
        ("otlphttp", "https://a:1", skip, Some(any), None),
        ("otlphttp", "http://a:1", both, None, None),
        ("otlphttp", "http://a:1", skip, None, None),
        ("otlphttp", "http://a:1', traces_endpoint: 'https://b/t", both, Some(any), Some(scheme)),
        ("otlphttp", "https://a:1', traces_endpoint: 'http://b/t", both, None, None),
    ];
    for (name, endpoint, tls, warning, note) in cases {
        let text = format!(
            "exporters: {{{name}: {{endpoint: '{endpoint}', tls: {{{tls}}}}}}}\n\
             service: {{pipelines: {{traces: {{exporters: [debug, {name}]}}}}}}"
        );
        let loaded = with(&text).unwrap_or_else(|report| panic!("{report}"));
        let warning = warning.map(|warning| warning.replace("NAME", name));
        assert_eq!(messages(&loaded), Vec::from_iter(warning), "{text}");
        let note = note.map(|note| format!("exporters::{name}::tls::{note} (yaml::1)"));
        assert_eq!(loaded.config.notes, Vec::from_iter(note), "{text}");
    }
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
