//! Settings from code and from environment variables. No test looks at the process's own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use spanwire::{
    BatchConfig, Builder, Client, Compression, Config, Destination, Endpoint, Explanation, Otlp,
    Output, Protocol, Sampler, Source, Value,
};

const SECOND: Duration = Duration::from_secs(1);

/// A builder in an environment of these variables.
fn builder(variables: &[(&str, &str)]) -> Builder {
    let variables: BTreeMap<String, OsString> =
        variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Client::builder().environment_from(move |name| variables.get(name).cloned())
}

fn resolve(variables: &[(&str, &str)]) -> (Config, Explanation) {
    builder(variables).resolve()
}

/// The settings with the value and the source that each has.
fn rows(explanation: &Explanation) -> BTreeMap<&'static str, (String, Source)> {
    let row = |setting: &spanwire::Setting| (setting.name, (setting.value.clone(), setting.source));
    explanation.settings().map(row).collect()
}

fn value(explanation: &Explanation, name: &str) -> String {
    explanation.get(name).unwrap_or_else(|| panic!("no setting {name}")).value.clone()
}

fn source(explanation: &Explanation, name: &str) -> Source {
    explanation.get(name).unwrap_or_else(|| panic!("no setting {name}")).source
}

/// What the warnings are about.
fn about(explanation: &Explanation) -> Vec<&'static str> {
    explanation.warnings().iter().map(|warning| warning.about).collect()
}

fn otlp(config: &Config) -> &Otlp {
    let main = config.destinations.iter().find_map(|destination| match destination {
        Destination::Otlp(otlp) => Some(otlp),
        _ => None,
    });
    main.expect("an OTLP destination")
}

/// A variable, a value it takes, the setting it sets and how that is shown; and values it does not
/// take.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

const NUMBERS: &[&str] = &["abc", "-1", "1.5", "4294967296", "99999999999999999999999"];
const POSITIVES: &[&str] = &["0", "abc", "-1", "1.5", "4294967296", "99999999999999999999999"];
const NAMES: &[&str] = &["nonsense", "otlp2", "-"];

/// Each variable by itself. What is not false for `otlp.insecure` and `disabled` is another test's.
const CASES: &[Case] = &[
    ("OTEL_SDK_DISABLED", "TRUE", "disabled", "true", &[]),
    ("OTEL_SERVICE_NAME", "shop", "service_name", "shop", &[]),
    ("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b,x=1", "resource", "team, x", &["x", "x=%zz", "=1"]),
    ("OTEL_TRACES_EXPORTER", "Console,otlp", "destinations", "console, otlp", NAMES),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC", "otlp.protocol", "grpc", NAMES),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "otlp.protocol", "http/json", NAMES),
    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true", "otlp.insecure", "true", &[]),
    ("OTEL_EXPORTER_OTLP_INSECURE", "true", "otlp.insecure", "true", &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h/x", "otlp.endpoints", "http://h/x", URLS),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:1", "otlp.endpoints", "http://h:1", URLS),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=1", "otlp.headers", "a: (hidden)", HEADERS),
    ("OTEL_EXPORTER_OTLP_HEADERS", "a=1", "otlp.headers", "a: (hidden)", HEADERS),
    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/ca.pem", "otlp.ca", "/ca.pem", &[]),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem", "otlp.ca", "/ca.pem", &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/c", "otlp.client_certificate", "/c", &[]),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c", "otlp.client_certificate", "/c", &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/k", "otlp.client_key", "/k", &[]),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k", "otlp.client_key", "/k", &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip", "otlp.compression", "gzip", NAMES),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "Zstd", "otlp.compression", "zstd", NAMES),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250", "otlp.request_timeout", "250ms", NUMBERS),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "otlp.request_timeout", "no limit", NUMBERS),
    ("OTEL_BSP_EXPORT_TIMEOUT", "30000", "otlp.retry.elapsed_max", "30s", NUMBERS),
    ("OTEL_BSP_SCHEDULE_DELAY", "5000", "batch.age_max", "5s", NUMBERS),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "batch.spans_max", "512", POSITIVES),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "20480", "batch.queue_spans_max", "20480", POSITIVES),
    (
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_off",
        "sampler",
        "ParentBased{root:AlwaysOffSampler,remoteParentSampled:AlwaysOnSampler,\
         remoteParentNotSampled:AlwaysOffSampler,localParentSampled:AlwaysOnSampler,\
         localParentNotSampled:AlwaysOffSampler}",
        &["nonsense", "jaeger_remote"],
    ),
    ("OTEL_PROPAGATORS", "b3,B3,baggage", "propagators", "b3,baggage", &["jaeger", "nonsense"]),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "7", "limits.attributes", "7", NUMBERS),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "0", "limits.attributes", "0", NUMBERS),
    (
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "2147483647",
        "limits.attribute_value_length",
        "2147483647",
        NUMBERS,
    ),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9", "limits.attribute_value_length", "9", NUMBERS),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "9", "limits.events", "9", NUMBERS),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "9", "limits.event_attributes", "9", NUMBERS),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "9", "limits.links", "9", NUMBERS),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "9", "limits.link_attributes", "9", NUMBERS),
    ("OTEL_LOG_LEVEL", "Error", "diagnostics", "stderr, error", NAMES),
    ("HTTPS_PROXY", "http://p:1", "otlp.proxy", "", PROXIES),
    ("https_proxy", "http://p:1", "otlp.proxy", "", PROXIES),
    ("HTTP_PROXY", "http://p:1", "otlp.proxy", "", PROXIES),
    ("http_proxy", "http://p:1", "otlp.proxy", "", PROXIES),
    ("ALL_PROXY", "http://p:1", "otlp.proxy", "", PROXIES),
    ("all_proxy", "http://p:1", "otlp.proxy", "", PROXIES),
];

const URLS: &[&str] =
    &["h:4317", "localhost", "/x", "ftp://h", "http://", "http://a b", "http://u:p@h", "unix:"];
const HEADERS: &[&str] = &["x", "=1", ",", "x=%zz", "content-type=a", "a b=1"];
const PROXIES: &[&str] = &["socks5://p:1", "http://", "http://a b"];

/// Faults 124, 139.
#[test]
fn each_variable_sets_its_setting_and_is_named_as_its_source() {
    for &(variable, good, setting, shown, _) in CASES {
        let (_, explanation) = resolve(&[(variable, good)]);
        if shown.is_empty() {
            assert!(value(&explanation, setting).contains("http://p:1"), "{variable}");
        } else {
            assert_eq!(value(&explanation, setting), shown, "{variable}");
        }
        assert_eq!(source(&explanation, setting), Source::Variable(variable), "{variable}");
    }
}

/// Faults 124, 139.
#[test]
fn a_value_that_cannot_be_used_changes_nothing_but_a_warning() {
    let defaults = rows(&resolve(&[]).1);
    for &(variable, _, _, _, bad) in CASES {
        for bad in bad {
            let (_, explanation) = resolve(&[(variable, bad)]);
            if !(setting_is_partly_named_by(variable)) {
                assert_eq!(rows(&explanation), defaults, "{variable}={bad}");
            }
            let [warning] = explanation.warnings() else {
                panic!("{variable}={bad}: {:?}", explanation.warnings());
            };
            assert_eq!(warning.about, variable, "{variable}={bad}");
            assert!(warning.problem.contains("ignored"), "{warning}");
        }
    }
}

/// A proxy's variable is read together with the others, so it stays the source of what they say.
fn setting_is_partly_named_by(variable: &str) -> bool {
    variable.to_ascii_uppercase().ends_with("_PROXY")
}

/// Faults 124, 139.
#[test]
fn an_empty_variable_is_as_good_as_none() {
    let defaults = rows(&resolve(&[]).1);
    for &(variable, ..) in CASES {
        for empty in ["", " \t"] {
            let (_, explanation) = resolve(&[(variable, empty)]);
            assert_eq!(rows(&explanation), defaults, "{variable}");
            assert_eq!(explanation.warnings(), [], "{variable}");
        }
    }
}

/// Faults 139.
#[cfg(unix)]
#[test]
fn a_variable_of_a_mebibyte_or_that_is_no_text_is_ignored_with_a_warning() {
    let defaults = rows(&resolve(&[]).1);
    let no_text = {
        use std::os::unix::ffi::OsStringExt;
        OsString::from_vec(vec![b'1', 0xff])
    };
    for &(variable, ..) in CASES {
        for value in [OsString::from("1".repeat(1 << 20)), no_text.clone()] {
            let lookup = |name: &str| (name == variable).then(|| value.clone());
            let (_, explanation) = Config::from_environment(lookup);
            assert_eq!(rows(&explanation), defaults, "{variable}");
            assert_eq!(about(&explanation), [variable]);
        }
    }
}

#[test]
fn every_variable_of_the_documentation_is_among_the_cases() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIGURATION.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    for cell in rows.filter_map(|row| row.split(" | ").nth(2)) {
        for variable in cell.split(", ").map(|name| name.trim_matches('`')) {
            let known = CASES.iter().any(|(name, ..)| *name == variable);
            assert!(known || variable.is_empty(), "{variable} has no case");
        }
    }
}

/// Every variable that has a form for traces and one for all signals.
#[test]
fn code_wins_over_the_variable_for_traces_over_the_general_one_over_the_default() {
    for (name, value_) in [
        ("PROTOCOL", "grpc"),
        ("ENDPOINT", "http://other"),
        ("TIMEOUT", "1"),
        ("COMPRESSION", "gzip"),
        ("INSECURE", "true"),
        ("CERTIFICATE", "/a"),
        ("CLIENT_CERTIFICATE", "/b"),
        ("CLIENT_KEY", "/c"),
    ] {
        let traces = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
        let general = format!("OTEL_EXPORTER_OTLP_{name}");
        let (_, both) = resolve(&[(&traces, value_), (&general, "junk")]);
        let from = |explanation: &Explanation, variable: &str| {
            let is = |source| matches!(source, Source::Variable(name) if name == variable);
            explanation.settings().filter(|setting| is(setting.source)).count()
        };
        assert_eq!((from(&both, &traces), from(&both, &general)), (1, 0), "{name}");
        let (_, one) = resolve(&[(&general, value_)]);
        assert_eq!(from(&one, &general), 1, "{name}");
        // The general one steps in for one that cannot be used.
        if matches!(name, "PROTOCOL" | "TIMEOUT" | "COMPRESSION" | "ENDPOINT") {
            let (_, fallback) = resolve(&[(&traces, "junk"), (&general, value_)]);
            assert_eq!(from(&fallback, &general), 1, "{name}");
            assert_eq!(fallback.warnings().len(), 1, "{name}");
        }
    }

    let all: Vec<_> = CASES.iter().map(|&(variable, good, ..)| (variable, good)).collect();
    let (config, explanation) = builder(&all)
        .destinations([Destination::default()])
        .service_name("from code")
        .protocol(Protocol::HttpProtobuf)
        .endpoint("http://code:4318")
        .compression(Compression::None)
        .request_timeout(3 * SECOND)
        .batch(BatchConfig { age_max: 2 * SECOND, ..BatchConfig::default() })
        .sampler(Sampler::AlwaysOn)
        .resolve();
    for setting in [
        "service_name",
        "otlp.protocol",
        "otlp.endpoints",
        "otlp.compression",
        "otlp.request_timeout",
        "batch.age_max",
        "sampler",
        "destinations",
    ] {
        assert_eq!(source(&explanation, setting), Source::Code, "{setting}");
    }
    let otlp = otlp(&config);
    assert_eq!(otlp.endpoints, [Endpoint::Base("http://code:4318".into())]);
    assert_eq!((otlp.protocol, otlp.compression), (Protocol::HttpProtobuf, Compression::None));
    assert_eq!((otlp.request_timeout, config.batch.age_max), (3 * SECOND, 2 * SECOND));
    // What the struct leaves as it is by default, the environment sets.
    assert_eq!(config.batch.spans_max, 512);
    assert_eq!(config.service_name, "from code");
}

#[test]
fn without_the_environment_there_are_the_code_and_the_defaults() {
    let all: Vec<_> = CASES.iter().map(|&(variable, good, ..)| (variable, good)).collect();
    let (_, explanation) = builder(&all).environment(false).service_name("shop").resolve();
    let sources: Vec<_> = explanation
        .settings()
        .filter(|setting| setting.source != Source::Default)
        .map(|setting| (setting.name, setting.source))
        .collect();
    assert_eq!(sources, [("service_name", Source::Code)]);
}

#[test]
fn a_preset_counts_as_code_where_it_differs_from_the_defaults() {
    let variables = [("OTEL_EXPORTER_OTLP_COMPRESSION", "none"), ("OTEL_BSP_SCHEDULE_DELAY", "7")];
    let (config, explanation) = builder(&variables).config(Config::production()).resolve();
    assert_eq!(otlp(&config).compression, Compression::Gzip);
    assert_eq!(source(&explanation, "otlp.compression"), Source::Code);
    assert_eq!(config.batch.age_max, Duration::from_millis(7));
}

/// Faults 124.
#[test]
fn an_endpoint_without_a_scheme_is_for_grpc_and_secure_unless_told_otherwise() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let endpoint = |value| ("OTEL_EXPORTER_OTLP_ENDPOINT", value);
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
    let shown = |variables: &[(&str, &str)]| value(&resolve(variables).1, "otlp.endpoints");
    assert_eq!(shown(&[grpc, endpoint("h:4317")]), "https://h:4317");
    assert_eq!(shown(&[grpc, endpoint("h:4317"), insecure]), "http://h:4317");
    assert_eq!(shown(&[grpc, endpoint("[::1]:4317"), insecure]), "http://[::1]:4317");
    // A scheme says it all.
    assert_eq!(shown(&[grpc, endpoint("https://h"), insecure]), "https://h");
    assert_eq!(shown(&[grpc, endpoint("http://h")]), "http://h");
    assert_eq!(shown(&[grpc]), "http://localhost:4317");
    assert_eq!(shown(&[]), "http://localhost:4318");
    #[cfg(unix)]
    assert_eq!(shown(&[grpc, endpoint("unix:///run/otel.sock")]), "unix:///run/otel.sock");

    let code = Client::builder().environment(false).protocol(Protocol::Grpc);
    let shown = |builder: Builder| value(&builder.resolve().1, "otlp.endpoints");
    assert_eq!(shown(code.clone().endpoint("h:4317")), "https://h:4317");
    let two = code.insecure(true).endpoint("h:4317").further_endpoint("https://i");
    assert_eq!(shown(two), "http://h:4317, https://i");
}

/// Faults 124.
#[test]
fn the_variable_for_traces_is_the_whole_url_and_the_general_one_its_base() {
    let (config, _) = resolve(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h:4318/a")]);
    assert_eq!(otlp(&config).endpoints, [Endpoint::Exact("http://h:4318/a".into())]);
    let (config, _) = resolve(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/a/")]);
    assert_eq!(otlp(&config).endpoints, [Endpoint::Base("http://h:4318/a/".into())]);
}

/// Faults 124.
#[test]
fn the_port_of_the_other_protocol_is_pointed_out() {
    let endpoint = |value| ("OTEL_EXPORTER_OTLP_ENDPOINT", value);
    let protocol = |value| ("OTEL_EXPORTER_OTLP_PROTOCOL", value);
    for (variables, warned) in [
        (vec![endpoint("http://h:4317")], true),
        (vec![endpoint("http://h:4317/"), protocol("http/json")], true),
        (vec![endpoint("http://h:4318"), protocol("grpc")], true),
        (vec![endpoint("http://h:4318")], false),
        (vec![endpoint("http://h:4317"), protocol("grpc")], false),
        (vec![endpoint("http://h:4317"), ("OTEL_TRACES_EXPORTER", "none")], false),
        (vec![], false),
    ] {
        let (_, explanation) = resolve(&variables);
        let expected: &[&str] = if warned { &["otlp.endpoints"] } else { &[] };
        assert_eq!(about(&explanation), expected, "{variables:?}");
    }
}

#[test]
fn headers_of_the_environment_join_those_of_the_code_which_win() {
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "X-Tenant=blue,authorization=Basic%20eA%3D%3D");
    let (config, explanation) = builder(&[headers]).header("x-tenant", "green").resolve();
    let expected = [("x-tenant", "green"), ("authorization", "Basic eA==")];
    assert_eq!(otlp(&config).headers, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!(source(&explanation, "otlp.headers"), Source::CodeAnd(headers.0));

    let traces = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=1,broken,b=2");
    let (config, explanation) = resolve(&[headers, traces]);
    assert_eq!(otlp(&config).headers.len(), 2, "the other variable has no say");
    assert_eq!(about(&explanation), [traces.0]);
}

#[test]
fn the_resource_of_the_environment_stands_below_that_of_the_code() {
    let variables = [
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=list,service.version=1,team=a,region=eu"),
        ("OTEL_SERVICE_NAME", "variable"),
    ];
    let attribute = |config: &Config, key: &str| config.resource.attributes.get(key).cloned();
    let (config, explanation) = builder(&variables).resource_attribute("team", "b").resolve();
    assert_eq!(config.service_name, "variable");
    assert_eq!(attribute(&config, "service.name"), None);
    assert_eq!(attribute(&config, "service.version"), Some(Value::from("1")));
    assert_eq!(attribute(&config, "team"), Some(Value::from("b")));
    assert_eq!(attribute(&config, "region"), Some(Value::from("eu")));
    assert_eq!(source(&explanation, "resource"), Source::CodeAnd(variables[0].0));
    assert_eq!(source(&explanation, "service_version"), Source::Variable(variables[0].0));

    let (_, explanation) = resolve(&variables[..1]);
    assert_eq!(value(&explanation, "service_name"), "list");
    assert_eq!(source(&explanation, "service_name"), Source::Variable(variables[0].0));

    let (config, explanation) =
        builder(&variables).service_version("2").service_name("c").resolve();
    assert_eq!((config.service_name, config.service_version), ("c".into(), "2".into()));
    assert!(config.resource.attributes.get("service.version").is_none());
    assert_eq!(source(&explanation, "service_name"), Source::Code);
}

#[test]
fn exporters_are_chosen_by_name_and_those_of_the_code_stay_beside_them() {
    let destinations = |value: &str| {
        let (config, explanation) = builder(&[("OTEL_TRACES_EXPORTER", value)])
            .destination(Destination::JsonLines(Output::File("code".into())))
            .resolve();
        let names: Vec<_> = config.destinations.iter().map(ToString::to_string).collect();
        assert_eq!(names.last().map(String::as_str), Some("file:code"), "{value}");
        (names[..names.len() - 1].join(" "), explanation.warnings().len())
    };
    let otlp = "otlp to http://localhost:4318";
    for (value, expected, warnings) in [
        ("otlp", otlp, 0),
        ("console", "console", 0),
        ("none", "", 0),
        ("NONE,", "", 0),
        ("otlp/stdout", "otlp/stdout", 0),
        ("FILE:/Var/x.jsonl", "file:/Var/x.jsonl", 0),
        ("file:///var/a%20b", "file:/var/a b", 0),
        ("console, otlp/stdout ,console", "console otlp/stdout", 0),
        ("none,console", "console", 1),
        ("zipkin,console", "console", 1),
        ("zipkin", otlp, 1),
        ("none,zipkin", "", 1),
        (",", otlp, 1),
        ("file:", otlp, 1),
    ] {
        assert_eq!(destinations(value), (expected.to_owned(), warnings), "{value}");
    }
    let (config, explanation) = builder(&[("OTEL_TRACES_EXPORTER", "console")])
        .destinations([Destination::JsonLines(Output::Stdout), Destination::default()])
        .resolve();
    let names: Vec<_> = config.destinations.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["otlp/stdout", otlp], "in the order of the code");
    assert_eq!(source(&explanation, "destinations"), Source::Code);
}

#[test]
fn how_to_talk_to_a_collector_is_not_explained_where_there_is_none() {
    let (_, explanation) = resolve(&[
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4317"),
    ]);
    assert!(explanation.settings().all(|setting| !setting.name.starts_with("otlp.")));
    assert_eq!(explanation.warnings(), []);
}

#[test]
fn a_limit_for_spans_wins_over_the_one_for_all_signals() {
    let (config, _) = resolve(&[
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "10"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "20"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "30"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "bad"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "40"),
    ]);
    let limits = config.limits;
    assert_eq!((limits.attributes, limits.event_attributes, limits.link_attributes), (20, 10, 40));
    assert_eq!(limits.attribute_value_length, 30);
}

#[test]
fn a_batch_is_no_larger_than_the_queue() {
    let batch = ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "600");
    let queue = ("OTEL_BSP_MAX_QUEUE_SIZE", "500");
    let (config, explanation) = resolve(&[batch, queue]);
    assert_eq!((config.batch.spans_max, config.batch.queue_spans_max), (500, Some(500)));
    assert_eq!(about(&explanation), ["batch.spans_max"]);
    // Nobody has asked for the default.
    let (config, explanation) = resolve(&[queue]);
    assert_eq!(config.batch.spans_max, 500);
    assert_eq!(source(&explanation, "batch.spans_max"), Source::Variable(queue.0));
    assert_eq!(explanation.warnings(), []);
}

/// Pitfalls 3, 4.
#[test]
fn a_timeout_of_zero_is_no_limit() {
    let (config, explanation) =
        resolve(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "0"), ("OTEL_BSP_EXPORT_TIMEOUT", "0")]);
    assert_eq!(otlp(&config).request_timeout, Duration::ZERO);
    assert!(otlp(&config).retry.elapsed_max > 86_400 * 30 * SECOND);
    assert_eq!(value(&explanation, "otlp.request_timeout"), "no limit");
    assert_eq!(value(&explanation, "otlp.retry.elapsed_max"), "no limit");
    let (config, _) = resolve(&[("OTEL_BSP_EXPORT_TIMEOUT", "1500")]);
    assert_eq!(otlp(&config).retry.elapsed_max, Duration::from_millis(1500));
}

#[test]
fn a_sampler_takes_its_argument_and_does_without_a_bad_one() {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let sampler = |variables: &[(&str, &str)]| {
        let (config, explanation) = resolve(variables);
        (config.sampler.description(), about(&explanation))
    };
    let ratio = |ratio: &str| format!("TraceIdRatioBased{{{ratio}}}");
    assert_eq!(sampler(&[(NAME, "traceidratio"), (ARGUMENT, "0.25")]), (ratio("0.250000"), vec![]));
    assert_eq!(sampler(&[(NAME, "traceidratio")]), (ratio("1.000000"), vec![]));
    for bad in ["2", "-1", "NaN", "x"] {
        let read = sampler(&[(NAME, "traceidratio"), (ARGUMENT, bad)]);
        assert_eq!(read, (ratio("1.000000"), vec![ARGUMENT]), "{bad}");
    }
    let (default, warned) = sampler(&[(ARGUMENT, "0.5")]);
    assert_eq!((default, warned), (Sampler::default().description(), vec![ARGUMENT]));
}

#[test]
fn known_propagators_of_a_list_are_used_and_the_others_reported() {
    let (config, explanation) = resolve(&[("OTEL_PROPAGATORS", "jaeger,tracecontext")]);
    assert_eq!(config.propagators.to_string(), "tracecontext");
    assert_eq!(about(&explanation), ["OTEL_PROPAGATORS"]);
    let (config, explanation) = resolve(&[("OTEL_PROPAGATORS", "none")]);
    assert_eq!(config.propagators.to_string(), "none");
    assert_eq!(explanation.warnings(), []);
}

/// Faults 123.
#[test]
fn of_the_proxies_a_bad_one_is_left_out_by_itself() {
    let (_, explanation) = resolve(&[
        ("HTTPS_PROXY", "socks5://u:opensesame@bad"),
        ("HTTP_PROXY", "http://u:opensesame@good:3128"),
        ("NO_PROXY", "internal"),
    ]);
    assert_eq!(about(&explanation), ["HTTPS_PROXY"]);
    let shown = explanation.to_string();
    assert!(shown.contains("good:3128") && !shown.contains("opensesame"), "{shown}");
}

#[test]
fn a_configuration_file_is_not_read_and_that_is_said() {
    for name in ["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"] {
        let (config, explanation) =
            resolve(&[(name, "/etc/otel.yaml"), ("OTEL_SERVICE_NAME", "a")]);
        assert_eq!(about(&explanation), [name]);
        assert_eq!(config.service_name, "a");
    }
}

#[test]
fn half_an_identity_is_pointed_out() {
    let certificate = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c.pem");
    let key = ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem");
    assert_eq!(about(&resolve(&[certificate]).1), ["otlp.client_certificate"]);
    assert_eq!(about(&resolve(&[key]).1), ["otlp.client_key"]);
    assert_eq!(resolve(&[certificate, key]).1.warnings(), []);
}

/// Faults 139, 140.
#[test]
fn words_other_than_true_are_false_with_a_warning() {
    for variable in ["OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_INSECURE"] {
        for (word, warned) in [("false", false), ("1", true), ("yes", true)] {
            let (config, explanation) = resolve(&[(variable, word)]);
            assert!(!config.disabled && !otlp(&config).insecure, "{variable}={word}");
            assert_eq!(about(&explanation), if warned { vec![variable] } else { vec![] });
        }
    }
    assert!(resolve(&[("OTEL_SDK_DISABLED", "True")]).0.disabled);
}

#[test]
fn what_is_secret_is_shown_nowhere() {
    const SECRET: &str = "opensesame";
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/?key=opensesame#opensesame"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=opensesame,opensesame,x=opensesame%zz"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "opensesame"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:opensesame@h"),
        ("HTTP_PROXY", "http://user:opensesame@p:3128"),
        ("ALL_PROXY", "socks5://user:opensesame@p:3128"),
    ];
    let further = Otlp {
        endpoints: vec!["http://u:opensesame@other/?a=opensesame".into()],
        headers: vec![("authorization".into(), SECRET.into())],
        ..Otlp::default()
    };
    let (config, explanation) = builder(&variables)
        .header("x-key", SECRET)
        .client_certificate(
            spanwire::Pem::Bytes(SECRET.into()),
            spanwire::Pem::Bytes(SECRET.into()),
        )
        .destination(further)
        .resolve();
    let shown = format!("{explanation} {explanation:?} {config:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert_eq!(otlp(&config).headers[1].1, SECRET, "it is there all the same");
    let names = value(&explanation, "otlp.headers");
    assert_eq!(names, "x-key: (hidden), authorization: (hidden)");
    assert_eq!(value(&explanation, "otlp.endpoints"), "http://h:4318/?(hidden)");
}

#[test]
fn what_may_be_a_password_in_an_endpoint_is_never_shown() {
    for (url, shown) in [
        ("http://user:pass@h:4318/a", "http://(hidden)@h:4318/a"),
        ("http://user:pa/ss@h:4318", "http://(hidden)"),
        ("http://user:pa?ss@h:4318", "http://(hidden)"),
        ("http://user:pa#ss@h:4318", "http://(hidden)"),
        ("http://h:4318/a?key=a@pass", "http://(hidden)"),
        ("http://h:4318/a?key=pass", "http://h:4318/a?(hidden)"),
        ("http://h:4318/a", "http://h:4318/a"),
    ] {
        assert_eq!(Endpoint::from(url).to_string(), shown);
    }
}
