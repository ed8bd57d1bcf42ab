//! The processors on encoded requests, beside decoding, changing and encoding them with prost.
//!
//! A request has 1,000 spans of some 400 bytes with eight attributes each. Before anything is measured
//! both ways are seen to do the same.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use spanwire_processors::{Action, Actions, From, Mode, Sampler, Settings};

const SPANS: u64 = 1_000;

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, key_strindex: 0 }
}

fn text(key: &str, text: &str) -> KeyValue {
    attribute(key, Value::StringValue(text.to_owned()))
}

fn request() -> Bytes {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut span = || Span {
        trace_id: rng.u128(1..).to_be_bytes().to_vec(),
        span_id: rng.u64(1..).to_be_bytes().to_vec(),
        parent_span_id: rng.u64(1..).to_be_bytes().to_vec(),
        name: "GET /api/v1/users/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_790_000_000_000_000_000,
        end_time_unix_nano: 1_790_000_000_012_345_678,
        attributes: vec![
            text("http.request.method", "GET"),
            text("url.path", "/api/v1/users/1234567"),
            text("url.scheme", "https"),
            text("server.address", "api.example.com"),
            attribute("server.port", Value::IntValue(443)),
            attribute("http.response.status_code", Value::IntValue(200)),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"),
            text("network.protocol.version", "2"),
        ],
        ..Span::default()
    };
    let spans = (0..SPANS).map(|_| span()).collect();
    let resource = Resource {
        attributes: vec![text("service.name", "users"), text("host.name", "node-1")],
        ..Resource::default()
    };
    let resource_spans = vec![ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// What a collector does that works on structs.
fn by_structs(request: &Bytes, change: impl Fn(&mut Vec<Span>)) -> Vec<u8> {
    let mut request = ExportTraceServiceRequest::decode(&request[..]).expect("prost wrote it");
    for resource_spans in &mut request.resource_spans {
        for scope_spans in &mut resource_spans.scope_spans {
            change(&mut scope_spans.spans);
        }
    }
    request.encode_to_vec()
}

fn both(
    criterion: &mut Criterion,
    name: &str,
    by_bytes: impl Fn(Bytes) -> Bytes,
    change: impl Fn(&mut Vec<Span>),
) {
    let request = request();
    let decode = |bytes: &[u8]| ExportTraceServiceRequest::decode(bytes).expect("a request");
    assert_eq!(decode(&by_bytes(request.clone())), decode(&by_structs(&request, &change)));
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(SPANS));
    group.bench_function("bytes", |bencher| {
        bencher.iter(|| by_bytes(black_box(request.clone())));
    });
    group.bench_function("structs", |bencher| {
        bencher.iter(|| by_structs(black_box(&request), &change));
    });
    group.finish();
}

fn insert(criterion: &mut Criterion) {
    let from = From::Value(spanwire_processors::Value::Str("production".to_owned()));
    let action = Action::Insert { key: "deployment.environment.name".to_owned(), from };
    let actions = Actions::new(vec![action]).expect("it is valid");
    let new = text("deployment.environment.name", "production");
    both(
        criterion,
        "insert",
        |request| actions.spans(request).expect("a request").joined(),
        |spans| {
            for span in spans {
                if span.attributes.iter().all(|attribute| attribute.key != new.key) {
                    span.attributes.push(new.clone());
                }
            }
        },
    );
}

fn delete_nothing(criterion: &mut Criterion) {
    let key = "enduser.id".to_owned();
    let action = Action::Delete { key: Some(key.clone()), pattern: None };
    let actions = Actions::new(vec![action]).expect("it is valid");
    both(
        criterion,
        "delete_of_a_key_nobody_has",
        |request| actions.spans(request).expect("a request").joined(),
        |spans| {
            for span in spans {
                span.attributes.retain(|attribute| attribute.key != key);
            }
        },
    );
}

fn sample(criterion: &mut Criterion) {
    let settings =
        Settings { mode: Mode::Equalizing, percentage: 10.0, precision: 5, ..Settings::default() };
    let sampler = Sampler::new(settings).expect("it is valid");
    both(
        criterion,
        "sample_a_tenth",
        |request| sampler.sample(request).expect("a request").kept.joined(),
        |spans| {
            spans.retain_mut(|span| {
                let has_priority = |attribute: &KeyValue| attribute.key == "sampling.priority";
                assert!(!span.attributes.iter().any(has_priority));
                let randomness = span.trace_id.last_chunk().map(|last| u64::from_be_bytes(*last));
                let is_kept = randomness.is_some_and(|bits| bits << 8 >= 0xE666_6000_0000_0000);
                span.trace_state = "ot=th:e6666".to_owned();
                is_kept
            });
        },
    );
}

criterion_group!(benches, insert, delete_nothing, sample);
criterion_main!(benches);
