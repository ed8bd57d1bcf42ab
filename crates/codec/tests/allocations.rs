//! Reading where the bytes lie takes no memory: counted by a measuring allocator, which is why this
//! is a test binary of its own, with a single test.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use spanwire_codec::{split, view};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn request() -> Vec<u8> {
    let value = |value| Some(AnyValue { value: Some(value) });
    let text = value(Value::StringValue("text".into()));
    let values = vec![AnyValue { value: Some(Value::IntValue(1)) }; 3];
    let array = value(Value::ArrayValue(ArrayValue { values }));
    let attribute = |value| KeyValue { key: "key".into(), value, key_strindex: 0 };
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        attributes: vec![attribute(text), attribute(array)],
        ..Span::default()
    };
    let attributes = span.attributes.clone();
    let scope_spans = vec![ScopeSpans { spans: vec![span; 100], ..ScopeSpans::default() }; 2];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// Blocks allocated meanwhile. The harness has a thread that allocates now and then, so the least of
/// several runs is what `f` itself allocates.
fn blocks(f: impl Fn()) -> Option<u64> {
    let total = || dhat::HeapStats::get().total_blocks;
    let runs = (0..10).map(|_| {
        let before = total();
        f();
        total() - before
    });
    runs.min()
}

#[test]
fn parsing_checking_and_reading_allocate_nothing() {
    let bytes = Bytes::from(request());
    // The first clone of `Bytes` made from a vector allocates its reference count.
    drop(bytes.clone());
    let _profiler = dhat::Profiler::builder().testing().build();

    let reading = blocks(|| {
        let mut read = 0;
        let request = view::Request::parse(&bytes).expect("prost wrote it");
        for resource_spans in request.resource_spans() {
            for scope_spans in resource_spans.scope_spans() {
                for span in scope_spans.spans() {
                    span.check().expect("prost wrote it");
                    read += span.head().trace_id.map_or(0, |id| id.len());
                    for attribute in span.attributes() {
                        read += attribute.key().len();
                        if let view::AnyValue::Array(values) = attribute.value() {
                            read += values.count();
                        }
                    }
                }
            }
        }
        assert_eq!(read, 200 * (16 + 3 + 3 + 3));
        assert!(split::prefix(&bytes, 10, 1000).spans == 0, "a request is no framed span");
    });
    assert_eq!(reading, Some(0));

    let checking = blocks(|| {
        let checked = view::reject_malformed(bytes.clone()).expect("prost wrote it");
        assert_eq!((checked.spans, checked.rejected), (200, 0));
    });
    assert_eq!(checking, Some(0));
    assert_ne!(blocks(|| drop(vec![bytes.clone()])), Some(0), "what allocates is seen");
}
