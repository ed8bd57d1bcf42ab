//! What doesn't change takes no memory: counted by a measuring allocator, which is why this is a test
//! binary of its own, with a single test.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use spanwire_processors::{Action, Actions, Edited, From, Mode, Sampler, Settings, Type};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn request() -> Bytes {
    let text = Value::StringValue("1".into());
    let attribute = |key: usize| KeyValue {
        key: format!("key{key}"),
        value: Some(AnyValue { value: Some(text.clone()) }),
        key_strindex: 0,
    };
    let span = Span {
        trace_id: vec![0xFF; 16],
        trace_state: "ot=th:8".into(),
        attributes: (0..128).map(attribute).collect(),
        ..Span::default()
    };
    let resource = Some(Resource { attributes: span.attributes.clone(), ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans: vec![span; 100], ..ScopeSpans::default() }; 2];
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// Blocks allocated meanwhile. The harness has a thread that allocates now and then, so the least of
/// several runs is what `f` itself allocates.
fn blocks(f: impl Fn() -> Edited) -> Option<u64> {
    let total = || dhat::HeapStats::get().total_blocks;
    let runs = (0..10).map(|_| {
        let before = total();
        let edited = f();
        let blocks = total() - before;
        assert_eq!(edited.pieces.len(), 1);
        blocks
    });
    runs.min()
}

#[test]
fn an_untouched_request_allocates_the_list_of_its_one_piece_and_nothing_else() {
    let bytes = request();
    // The first clone of `Bytes` made from a vector allocates its reference count.
    drop(bytes.clone());
    let value = || From::Value(spanwire_processors::Value::Str("1".into()));
    let actions = Actions::new(vec![
        Action::Insert { key: "key1".into(), from: value() },
        Action::Update { key: "other".into(), from: value() },
        Action::Upsert { key: "key2".into(), from: value() },
        Action::Upsert { key: "key3".into(), from: From::Attribute("other".into()) },
        Action::Delete { key: Some("other".into()), pattern: Some("^other".into()) },
        Action::Hash { key: Some("other".into()), pattern: None },
        Action::Extract { key: "other".into(), pattern: "(?P<key4>.)".into() },
        Action::Convert { key: "key5".into(), to: Type::String },
    ]);
    let actions = actions.expect("they are valid");
    let settings = Settings { mode: Mode::Equalizing, percentage: 50.0, ..Settings::default() };
    let sampler = Sampler::new(settings).expect("it is valid");
    let sample = || sampler.sample(bytes.clone()).expect("a request").kept;
    // The regular expressions and the buffer for a `tracestate` get their memory once.
    drop(actions.spans(bytes.clone()));
    let _profiler = dhat::Profiler::builder().testing().build();
    assert_eq!(blocks(|| actions.spans(bytes.clone()).expect("a request")), Some(1));
    assert_eq!(blocks(|| actions.resources(bytes.clone()).expect("a request")), Some(1));
    assert!(blocks(sample) <= Some(2), "beside the list, a buffer for all that might be written");
}
