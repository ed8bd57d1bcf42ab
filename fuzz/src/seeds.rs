//! The inputs that fuzzing starts from: small ones that between them reach every branch that is
//! known. `cargo xtask fuzz --seed-corpus` writes them; files beside them, such as those that once
//! showed a fault, stay.

use std::io::Write as _;
use std::path::PathBuf;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use spanwire_codec::json::{write_request, write_response, write_status};
use spanwire_codec::message::{
    self, Any, ExportTracePartialSuccess, ExportTraceServiceResponse, RetryInfo,
};

use super::soup::{Cook, REQUEST};

/// The seeds of every target, each with its path below the corpus.
#[must_use]
pub fn all() -> Vec<(PathBuf, Vec<u8>)> {
    let targets = [
        ("view", wire()),
        ("split", split()),
        ("edit", edit()),
        ("json", json()),
        ("decompress", decompress()),
        ("response", response()),
        ("headers", headers()),
        ("environment", environment()),
        ("config", config()),
    ];
    let of_target = |(target, seeds): (&str, Vec<Vec<u8>>)| {
        let folder = PathBuf::from(target);
        let name = move |number| folder.join(format!("seed-{number:02}"));
        seeds.into_iter().enumerate().map(move |(number, seed)| (name(number), seed))
    };
    targets.into_iter().flat_map(of_target).collect()
}

/// Requests in protobuf.
fn wire() -> Vec<Vec<u8>> {
    let full = full().encode_to_vec();
    let plain = request(vec![span(1), span(2), span(3)]).encode_to_vec();
    let bad_id = |len| request(vec![Span { span_id: vec![1; len], ..span(1) }, span(2)]);
    let latin1: Vec<u8> = full.iter().map(|&byte| if byte == b'e' { 0xE9 } else { byte }).collect();
    let mut seeds = vec![
        vec![],
        plain.clone(),
        [&plain[..], &plain].concat(),
        full[..full.len() / 2].to_vec(),
        plain[..plain.len() - 1].to_vec(),
        latin1,
        bad_id(0).encode_to_vec(),
        bad_id(7).encode_to_vec(),
        request(vec![Span { trace_id: vec![0; 16], ..span(1) }]).encode_to_vec(),
        request(vec![nested(3), nested(30)]).encode_to_vec(),
        // Envelopes and elements of nothing.
        vec![0x0A, 0],
        vec![0x0A, 2, 0x12, 0],
        vec![0x0A, 6, 0x12, 4, 0x12, 0, 0x12, 0],
        vec![0x0A, 12, 0x12, 10, 0x12, 8, 0x4A, 0, 0x5A, 0, 0x6A, 0, 0x7A, 0],
        // Groups, padded and overlong varints, bad tags.
        vec![0x8B, 0x7D, 0x08, 1, 0x8C, 0x7D],
        vec![0x8B, 0x7D, 0x94, 0x7D],
        vec![0x8A, 0x80, 0x00, 0x00],
        vec![0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
        vec![0x00, 0x00],
        vec![0x0F],
        full,
    ];
    // Fields in any order, number and number of pieces.
    let all = numbers(1);
    seeds.extend(all.chunks(400).map(|numbers| Cook::new(numbers).message(&REQUEST)));
    seeds
}

/// Sixteen times 400 random numbers, the same each time.
fn numbers(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(16 * 400).collect()
}

fn split() -> Vec<Vec<u8>> {
    let limits = [[0, 0, 1], [64, 0, 255], [0, 1, 2], [255, 255, 3]];
    let with_limits = |(at, wire): (usize, Vec<u8>)| [&limits[at % 4][..], &wire].concat();
    wire().into_iter().enumerate().map(with_limits).collect()
}

/// Every action, on requests as they are and on cooked ones, and every mode of sampling.
fn edit() -> Vec<Vec<u8>> {
    let action = |kind: u8, key: u8, how: u8, which: u8| [key << 4 | kind, how, which];
    let [insert, update, upsert, delete, hash, extract, convert] = [0, 1, 2, 3, 4, 5, 6];
    // By the table of keys in `edit`: 1 and 2 are those of cooked attributes, 4 and 5 those of `span`,
    // 6 to 13 those of `full`, 14 is the priority, 15 is nowhere.
    let plans = [
        vec![action(insert, 15, 2 | 2 << 2, 0)],
        vec![action(update, 4, 2 | 3 << 2, 0), action(insert, 5, 1, 15)],
        vec![action(upsert, 6, 0, 12), action(upsert, 15, 1 | 5 << 2, 15)],
        vec![action(delete, 5, 0, 0)],
        vec![action(delete, 1, 2, 2), action(upsert, 1, 2 | 7 << 2, 0)],
        vec![action(hash, 9, 2, 4)],
        vec![action(hash, 2, 1, 1), action(hash, 2, 1, 1)],
        vec![action(extract, 4, 0, 1), action(extract, 4, 0, 0)],
        vec![action(extract, 2, 0, 3), action(delete, 2, 0, 0)],
        vec![action(convert, 7, 0, 0), action(convert, 8, 0, 1), action(convert, 10, 0, 0)],
        vec![action(convert, 12, 0, 2), action(convert, 11, 0, 2)],
        vec![
            action(upsert, 14, 2 | 3 << 2, 0),
            action(insert, 15, 0, 14),
            action(update, 15, 2 | 1 << 2, 0),
            action(convert, 15, 0, 0),
        ],
        vec![action(upsert, 15, 0, 1), action(hash, 1, 0, 0), action(update, 6, 2 | 3 << 2, 0)],
        vec![action(convert, 1, 0, 1), action(insert, 3, 0, 6), action(delete, 6, 0, 0)],
    ];
    let with_plan = |at: usize, cooks: bool, request: &[u8]| {
        let list = &plans[at % plans.len()];
        let form = (list.len() as u8 - 1) | u8::from(cooks) << 2;
        let mut numbers = list.concat();
        numbers.resize(12, 0);
        // Mode, whether to fail closed, precision; half of what is kept; a seed.
        let sampler = [[0, 100, 22], [1 | 4, 200, 0], [2, 50, 0], [2 | 4 | 9 << 3, 1, 0]][at % 4];
        [&[form], &numbers[..], &sampler, request].concat()
    };
    let state = |trace_state: &str, priority: Value| Span {
        trace_state: trace_state.to_owned(),
        attributes: vec![key_value("sampling.priority", priority)],
        ..span(0xF7)
    };
    let stated = request(vec![
        state("ot=th:8", Value::StringValue("-1".into())),
        state("a=1,ot=rv:c0000000000000;th:c;x:y", Value::StringValue("high".into())),
        state("ot=th:8;rv:10000000000000", Value::BoolValue(true)),
        state("", Value::IntValue(1)),
        state("what?", Value::DoubleValue(0.0)),
    ]);
    // Keys that came twice and thrice, on spans and in a resource.
    let twice = ["a", "text", "a", "b", "text", "tier", "a"].into_iter().zip(0..);
    let twice = twice.map(|(key, number)| key_value(key, Value::IntValue(number))).collect();
    let mut twice = request(vec![Span { attributes: twice, ..span(1) }, span(2)]);
    let attributes = twice.resource_spans[0].scope_spans[0].spans[0].attributes.clone();
    twice.resource_spans[0].resource = Some(Resource { attributes, ..Resource::default() });
    // Long enough to be shared and not copied.
    let long = request(vec![span(1), Span { name: "long ".repeat(900), ..span(2) }, span(3)]);
    let [full, stated, long, twice] =
        [full(), stated, long, twice].map(|request| request.encode_to_vec());
    let mut seeds = Vec::new();
    for at in 0..plans.len() {
        seeds.push(with_plan(at, false, &full));
        seeds.push(with_plan(at, true, &numbers(at as u64 + 2)[..400]));
    }
    seeds.extend((0..4).map(|at| with_plan(at, false, &stated)));
    seeds.push(with_plan(1, false, &long));
    seeds.push(with_plan(4, false, &wire()[4]));
    seeds.push(with_plan(2, false, &wire()[6]));
    // Plans that read and set these keys.
    seeds.extend([2, 4, 12, 13].map(|at| with_plan(at, false, &twice)));
    seeds
}

fn json() -> Vec<Vec<u8>> {
    let full = full();
    let mut ours = Vec::new();
    write_request(&full.encode_to_vec(), &mut ours).expect("a request");
    let around =
        |span: &str| format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
    let value =
        |value: &str| around(&format!(r#"{{"attributes":[{{"key":"k","value":{value}}}]}}"#));
    let texts = [
        "{}".to_owned(),
        " { \"resourceSpans\" : null } ".to_owned(),
        around(r#"{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"","kind":99}"#),
        around(r#"{"trace_id":"zz","new":{"a":[1,-2.5e3,[[]],{"b":null}]},"name":"n","name":"m"}"#),
        around(
            r#"{"startTimeUnixNano":"1e3","endTimeUnixNano":18446744073709551615,"flags":"257"}"#,
        ),
        around(r#"{"kind":"SPAN_KIND_SERVER"}"#),
        around(r#"{"name":"\"\\\/\b\f\n\r\t\u00e9\uD83E\udd80\u0000"}"#),
        around(r#"{"na\u006de":"escaped","status":{"code":2},"status":{"message":"merged"}}"#),
        around(r#"{"name":"\ud83d alone"}"#),
        value("{}"),
        value("null"),
        value(r#"{"intValue":"-9223372036854775808"}"#),
        value(r#"{"intValue":1.50e1}"#),
        value(r#"{"doubleValue":"-Infinity"}"#),
        value(r#"{"doubleValue":1e-7}"#),
        value(r#"{"bytesValue":"-_8="}"#),
        value(r#"{"boolValue":true,"stringValue":""}"#),
        value(r#"{"stringValue":"a","stringValue":"b"}"#),
        value(r#"{"arrayValue":{"values":[{"kvlistValue":{"values":[{"key":"x"}]}},{}]}}"#),
        value(&format!("{}{}", r#"{"arrayValue":{"values":["#.repeat(65), "]}}".repeat(65))),
        "[".repeat(300),
        "{}{}".to_owned(),
        "\u{FEFF}{}".to_owned(),
    ];
    let mut seeds: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    seeds.push(ours);
    seeds.push(serde_json::to_vec(&full).expect("a request"));
    seeds.push(serde_json::to_vec_pretty(&request(vec![span(1)])).expect("a request"));
    seeds.extend(wire());
    seeds
}

fn decompress() -> Vec<Vec<u8>> {
    let plain = request(vec![span(1), span(2)]).encode_to_vec();
    let mut text = Vec::new();
    write_request(&plain, &mut text).expect("a request");
    let bomb = vec![0; super::peer::REQUEST_BYTES_MAX + 1];
    let answer = answer(3, "no ids").encode_to_vec();
    let form = |form: u8, body: &[u8]| [&[form], body].concat();
    let mut damaged = gzip(&plain);
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    vec![
        form(0, &plain),
        form(0, &[]),
        form(1, &[]),
        form(1, &gzip(&[])),
        form(1, &gzip(&plain)),
        form(1, &[gzip(&plain), gzip(&plain)].concat()),
        form(1, &[&gzip(&plain)[..], b"rubbish"].concat()),
        form(1, &gzip(&plain)[..30]),
        form(1, &damaged),
        form(1, &gzip(&gzip(&plain))),
        form(1, &gzip(&bomb)),
        form(1, &gzip(&bomb[1..])),
        form(1, &gzip(&answer)),
        form(1, &plain),
        form(3, &zstd(&plain)),
        form(3, &[zstd(&plain), zstd(&plain)].concat()),
        form(3, &zstd(&plain)[..20]),
        form(3, &zstd(&bomb)),
        // A skippable frame before the data.
        form(3, &[&[0x50, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 7, 7], &zstd(&plain)[..]].concat()),
        // A frame that declares a window of 2^41 bytes.
        form(3, &[0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xF8, 0x01, 0x00, 0x00]),
        form(4, &text),
        form(5, &gzip(&text)),
        form(5, &gzip(b"{} {}")),
        form(7, &zstd(&text)),
    ]
}

fn response() -> Vec<Vec<u8>> {
    let http = |status: u8, form: u8, retry_after: &str, body: &[u8]| {
        [&[status, form << 1, retry_after.len() as u8], retry_after.as_bytes(), body].concat()
    };
    let grpc = |code: u8, form: u8, message: &str, details: &[u8]| {
        [&[code, form << 1 | 1, message.len() as u8], message.as_bytes(), details].concat()
    };
    let wait = |seconds, nanos| {
        let retry = RetryInfo { retry_delay: Some(message::Duration { seconds, nanos }) };
        let detail = Any { type_url: RetryInfo::TYPE_URL.into(), value: retry.encode_to_vec() };
        message::Status { code: 8, message: "too busy".into(), details: vec![detail] }
    };
    let in_json = |status: &message::Status| {
        let mut json = Vec::new();
        write_status(status, &mut json);
        json
    };
    let mut partial = Vec::new();
    write_response(&answer(-1, "\u{7}bell"), &mut partial);
    let busy = wait(5, 0);
    // By the table of `check`: 0 is 200, 2 is 204, 13 is 408, 14 is 413, 16 is 429, 21 is 503.
    vec![
        http(0, 0, "", &[]),
        http(0, 0, "", &answer(3, "no ids").encode_to_vec()),
        http(0, 0, "", &answer(i64::MAX, "").encode_to_vec()),
        http(0, 4, "", &answer(3, "no ids").encode_to_vec()),
        http(0, 1, "", &partial),
        http(0, 1, "", br#"{"partialSuccess":{"rejectedSpans":"2"}}"#),
        http(0, 3, "", b"<html>"),
        http(2, 0, "", &[]),
        http(8, 0, "", &busy.encode_to_vec()),
        http(8, 1, "", &in_json(&busy)),
        http(8, 2, "", &[0xFF; 1200]),
        http(14, 0, "3", &[]),
        http(16, 0, "5", &busy.encode_to_vec()),
        http(16, 0, "-1", &[]),
        http(21, 0, "99999999999999999999", &[]),
        http(21, 2, "Sat, 21 Nov 2026 12:00:30 GMT", b"down for\nmaintenance"),
        http(21, 0, "\u{e9}", &[]),
        http(5, 0, "", &[]),
        grpc(0, 1, "", &answer(3, "no ids").encode_to_vec()),
        grpc(0, 1, "", &[]),
        grpc(0, 3, "", &gzip(&answer(3, "no ids").encode_to_vec())),
        grpc(8, 0, "full", &busy.encode_to_vec()),
        grpc(8, 0, "full", &message::Status::default().encode_to_vec()),
        grpc(8, 0, "", &wait(-1, i32::MIN).encode_to_vec()),
        grpc(14, 0, "per%20cent%ff%", &wait(i64::MAX, i32::MAX).encode_to_vec()),
        grpc(14, 0, "", &[0x1A, 0].repeat(200)),
        grpc(3, 0, "bad", &[0xFF; 40]),
        grpc(19, 0, "", &[]),
    ]
}

fn headers() -> Vec<Vec<u8>> {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
    let members: Vec<String> = (0..70).map(|number| format!("k{number}=v")).collect();
    let members = members.join(",");
    let b3 = |rest: &str| format!("4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{rest}");
    [
        parent.to_owned(),
        format!("{parent}\not=th:c;rv:0123456789abcd,congo=t61rcWkgMzE\ntenant=acme%20inc,tier=gold;until=friday"),
        format!(" {parent}\t\nnot a list\n,,;=,"),
        format!("cc{}-what-the-future-will-be-like", &parent[2..]),
        format!("{parent}-"),
        format!("ff{}", &parent[2..]),
        parent.to_uppercase(),
        parent.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        parent.replace("00f067aa0ba902b7", &"0".repeat(16)),
        format!("{parent}\n{members}\n{members}"),
        format!("{parent}\na@b=1,a@b=2\nk = v ;p = q; r,k=%ff%00"),
        format!("{parent}\na={}\nk={}", "x".repeat(600), "y".repeat(8300)),
        "\n\nk=caf\u{e9}, key with space=1, =novalue, key=".to_owned(),
        String::new(),
        // B3's: all in one, then one for each field.
        format!("\n\n\n{}", b3("1-05e3ac9a4f6e3b90")),
        format!("{parent}\n\ntenant=acme\n{}", b3("d")),
        "\n\n\n\te457b5a2e4d86bd1-00f067aa0ba902b7 ".to_owned(),
        format!("\n\n\n{}", b3("2")),
        "\n\n\n0".to_owned(),
        "\n\n\n\n4bf92f3577b34da6a3ce929d0e0e4736\n00f067aa0ba902b7\n1".to_owned(),
        "\n\n\n\ne457b5a2e4d86bd1\n00f067aa0ba902b7\nfalse\n1".to_owned(),
        "\n\n\n0-0-1\n4bf92f3577b34da6a3ce929d0e0e4736\n00f067aa0ba902b7\nperhaps".to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect()
}

fn environment() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 20] = [
        b"",
        b"OTEL_SDK_DISABLED=TRUE\nOTEL_SERVICE_NAME=shop\nOTEL_LOG_LEVEL=debug",
        b"OTEL_RESOURCE_ATTRIBUTES=service.name=a%20b,k=v,broken\nOTEL_SERVICE_NAME=",
        b"OTEL_TRACES_EXPORTER=console,otlp,none,file:///tmp/a%20b,unknown",
        b"OTEL_EXPORTER_OTLP_ENDPOINT=http://host:4318/base/\nOTEL_EXPORTER_OTLP_PROTOCOL=http/json",
        b"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=host:4317\nOTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
        b"OTEL_EXPORTER_OTLP_ENDPOINT=https://[::1]\nOTEL_EXPORTER_OTLP_INSECURE=true",
        b"OTEL_EXPORTER_OTLP_ENDPOINT=unix:/run/otlp.sock\nOTEL_EXPORTER_OTLP_PROTOCOL=bad",
        b"OTEL_EXPORTER_OTLP_ENDPOINT=http://user:password@host",
        b"OTEL_EXPORTER_OTLP_HEADERS=a=1,b=%41,c,d=%zz,=e",
        b"OTEL_EXPORTER_OTLP_TRACES_HEADERS=x-tenant=blue\nOTEL_EXPORTER_OTLP_HEADERS=host=no",
        b"OTEL_EXPORTER_OTLP_TIMEOUT=0\nOTEL_EXPORTER_OTLP_TRACES_TIMEOUT=-1",
        b"OTEL_EXPORTER_OTLP_COMPRESSION=gzip\nOTEL_EXPORTER_OTLP_TRACES_COMPRESSION=none",
        b"OTEL_EXPORTER_OTLP_CERTIFICATE=/ca.pem\nOTEL_EXPORTER_OTLP_CLIENT_KEY=/key.pem",
        b"OTEL_BSP_SCHEDULE_DELAY=100\nOTEL_BSP_MAX_QUEUE_SIZE=8\nOTEL_BSP_MAX_EXPORT_BATCH_SIZE=16",
        b"OTEL_BSP_EXPORT_TIMEOUT=abc\nOTEL_BSP_MAX_QUEUE_SIZE=99999999999999999999",
        b"OTEL_TRACES_SAMPLER=parentbased_traceidratio\nOTEL_TRACES_SAMPLER_ARG=0.25",
        b"OTEL_TRACES_SAMPLER=traceidratio\nOTEL_TRACES_SAMPLER_ARG=nan\nOTEL_PROPAGATORS=b3,jaeger",
        b"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=1\nOTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=\nOTEL_CONFIG_FILE=/x",
        b"HTTPS_PROXY=http://u:p@proxy:1\nno_proxy=*,.x,10.0.0.0/8\nOTEL_SERVICE_NAME=\xff\xfe",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}

/// The examples and the wrong configurations of `spanwire-config`, and what they lack.
fn config() -> Vec<Vec<u8>> {
    macro_rules! files {
        ($($path:literal),* $(,)?) => {
            [$(include_str!(concat!("../../crates/config/tests/", $path, ".yaml"))),*]
        };
    }
    let files = files![
        "examples/agent",
        "examples/gateway",
        "examples/kubernetes",
        "wrong/alias",
        "wrong/bad_duration",
        "wrong/bad_enum",
        "wrong/bare_variable",
        "wrong/bomb",
        "wrong/duplicate_key",
        "wrong/empty_pipeline",
        "wrong/empty_protocols",
        "wrong/endpoint_without_port",
        "wrong/nested",
        "wrong/other_signals",
        "wrong/out_of_range",
        "wrong/secrets",
        "wrong/tab",
        "wrong/undefined_exporter",
        "wrong/unknown_key",
        "wrong/unsupported_component",
        "wrong/unsupported_key",
        "wrong/wrong_type",
    ];
    let text = |form: u8, text: &str| [&[form], text.as_bytes()].concat();
    let base = "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {debug: }\n\
                service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n";
    let over = |form: u8, more: &str| text(form, &format!("{base}\0{more}"));
    // One that leaves out what is not supported, too; forms are those of `check`.
    let mut seeds: Vec<_> = files.iter().map(|file| text(0, file)).collect();
    seeds.push(text(4, files[files.len() - 2]));
    seeds.extend([
        text(1, base),
        over(2, "exporters: {otlp: {endpoint: '${env:ENDPOINT}', headers: {a: '${env:SECRET}'}}}"),
        over(2, "processors::batch::timeout: 1h30m\nexporters: {debug: &d {}, debug/2: *d}"),
        over(2, "receivers: {otlp: {protocols: {http: {endpoint: 'unix:///x', cors: {}}}}}"),
        over(2, "processors: {attributes: {actions: [{key: k, action: upsert, value: 0x1F}]}}"),
        over(
            2,
            r##"processors: {resource: {attributes: [{key: a$$b, action: insert, value: "\" # :\n\e"}]}}"##,
        ),
        over(
            2,
            "processors: {probabilistic_sampler: {sampling_percentage: 1e-3, sampling_precision: 7}}",
        ),
        over(
            2,
            "processors:\n  memory_limiter:\n    check_interval: 1s\n    limit_mib: ${env:NUMBER}\n",
        ),
        over(2, "exporters: {debug: {verbosity: '${env:STRUCTURE}${env:REFERENCE}'}}"),
        over(2, "exporters: {debug: {verbosity: 'x${env:SECRET}', sampling_initial: '${env:SECRET}'}}"),
        over(2, "exporters: {\"${\\ne}\": {}, debug: {verbosity: \"${\\ne}\"}}"),
        over(2, "exporters:\r  debug:\r    verbosity: [\r"),
        over(2, "a: {<<: [{b: 1}, {c: 2}], ? d : |2-\n   e\n}"),
        over(0, "exporters.debug.verbosity=detailed\0service::telemetry::logs::level=debug"),
        over(
            0,
            "no equals sign\0a..b=1\0exporters.debug=[\0receivers.otlp.headers.x=${env:SECRET}",
        ),
        over(
            6,
            "extensions: {pprof: , health_check: {path: \"\\u00e9\"}}\0service.extensions=[pprof]",
        ),
    ]);
    seeds
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

fn span(number: u8) -> Span {
    Span {
        trace_id: vec![number; 16],
        span_id: vec![number; 8],
        name: format!("span {number}"),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_000_001_000,
        attributes: vec![
            key_value("http.route", Value::StringValue("/orders/{id}".into())),
            key_value("http.response.status_code", Value::IntValue(200)),
        ],
        ..Span::default()
    }
}

fn key_value(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

/// A span with a value of so many levels, arrays and maps in turn.
fn nested(levels: usize) -> Span {
    let value = (0..levels).fold(Value::IntValue(1), |value, level| match level % 2 {
        0 => Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(value) }] }),
        _ => Value::KvlistValue(KeyValueList { values: vec![key_value("k", value)] }),
    });
    Span { attributes: vec![key_value("deep", value)], ..span(9) }
}

/// Every field of the schema and every kind of value.
fn full() -> ExportTraceServiceRequest {
    let attributes = vec![
        key_value("text", Value::StringValue("line\nfeed \"\u{1F980}\"".into())),
        key_value("bool", Value::BoolValue(true)),
        key_value("int", Value::IntValue(i64::MIN)),
        key_value("double", Value::DoubleValue(-1.5e300)),
        key_value("nan", Value::DoubleValue(f64::NAN)),
        key_value("bytes", Value::BytesValue(vec![0xFB, 0xFF, 0])),
        key_value("array", Value::ArrayValue(ArrayValue { values: vec![AnyValue::default()] })),
        key_value("index", Value::StringValueStrindex(3)),
        KeyValue { key: "none".into(), ..KeyValue::default() },
    ];
    let event = Event {
        time_unix_nano: 5,
        name: "exception".into(),
        attributes: attributes[..2].to_vec(),
        dropped_attributes_count: 2,
    };
    let link = Link {
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        trace_state: "a=b".into(),
        attributes: attributes[2..3].to_vec(),
        dropped_attributes_count: 1,
        flags: 0x301,
    };
    let span = Span {
        trace_state: "ot=th:c".into(),
        parent_span_id: vec![3; 8],
        flags: u32::MAX,
        attributes: attributes.clone(),
        dropped_attributes_count: 1,
        events: vec![event],
        dropped_events_count: 2,
        links: vec![link],
        dropped_links_count: 3,
        status: Some(Status { message: "timed out".into(), code: 2 }),
        ..span(1)
    };
    let entity = EntityRef {
        schema_url: "https://example.org/e".into(),
        r#type: "service".into(),
        id_keys: vec!["text".into()],
        description_keys: vec!["int".into()],
    };
    let scope = InstrumentationScope {
        name: "http".into(),
        version: "1.2".into(),
        attributes: attributes[..1].to_vec(),
        dropped_attributes_count: 4,
    };
    let resource = Resource { attributes, dropped_attributes_count: 5, entity_refs: vec![entity] };
    ExportTraceServiceRequest {
        resource_spans: vec![
            ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans: vec![span, nested(2)],
                    schema_url: "https://example.org/s".into(),
                }],
                schema_url: "https://example.org/r".into(),
            },
            ResourceSpans { resource: Some(Resource::default()), ..ResourceSpans::default() },
        ],
    }
}

fn answer(rejected_spans: i64, error_message: &str) -> ExportTraceServiceResponse {
    let error_message = error_message.to_owned();
    ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message }),
    }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("to memory")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).expect("to memory")
}
