//! Where a configuration comes from, what is made of all its sources, and what is said about it.

mod support;

use std::fs;
use std::time::Duration;

use spanwire_config::{Compat, Config, Exporter, Processor, Source, print};
use support::*;

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
    let sets = [
        "exporters.debug.verbosity=much",
        "exporters.debug.headers.x=hunter2",
        "exporters.debug.token=hunter2$x",
        "exporters.otlphttp.endpoint=tempo:4318/v1?key=hunter2",
        "exporters.otlp.endpoint=dns:///user:hunter2@tempo:4317",
    ];
    let report = load_all(&[yaml(BASE)], &sets, Compat::Strict).unwrap_err().to_string();
    assert!(report.contains("--> --set exporters.debug.verbosity:1:1"), "{report}");
    assert!(report.contains("debug has no key \"headers\""), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
    let no_value = ["exporters.debug.headers.x hunter2"];
    let report = load_all(&[yaml(BASE)], &no_value, Compat::Strict).unwrap_err().to_string();
    let named = "--set \"exporters.debug.headers.x\" has no equals sign";
    assert!(report.contains(named) && !report.contains("hunter2"), "{report}");
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
fn warn_forgives_what_the_go_collector_has_and_no_key_or_name_that_may_be_misspelt() {
    let warn = |text: &str| load_all(&[yaml(BASE), yaml(text)], &[], Compat::Warn);
    let loaded = warn("exporters: {debug: {output_paths: [stdout]}}").unwrap();
    assert_eq!(messages(&loaded), ["exporters::debug::output_paths is not supported"]);
    assert_eq!(loaded.config.exporters, load(&[yaml(BASE)]).config.exporters);
    let tls = |key: &str| {
        let tls = format!("{{cert_file: a, key_file: b, {key}: c}}");
        warn(&format!("receivers: {{otlp: {{protocols: {{grpc: {{tls: {tls}}}}}}}}}"))
    };
    assert!(tls("client_ca_file").is_ok());
    let report = tls("client_ca_fil").unwrap_err().to_string();
    assert!(report.contains("did you mean \"client_ca_file\"?"), "{report}");
    for wrong in [
        "exporters: {debug: {colour: red}}",
        "exporters: {debug: {verbosity: loud}}",
        "processors: {memory_limitter: {limit_mib: 100}}",
    ] {
        assert!(warn(wrong).is_err(), "{wrong}");
    }
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
    let with_keys = "exporters: {otlp: {endpoint: 'unix:///a?abc'}, otlphttp: \
                     {endpoint: 'https://a/?api-key=abc', traces_endpoint: 'https://a/t?api-key=abc'}}";
    let text = print(&with(with_keys).unwrap_or_else(|report| panic!("{report}")).config);
    assert!(!text.contains("abc"), "{text}");
    assert_eq!(text.matches("?[REDACTED]").count(), 3, "{text}");
}
