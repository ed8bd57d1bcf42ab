//! Whole OTLP trace messages as `prost` structs, for responses, statuses and tools.
//!
//! The hot paths never build these: a decoded request takes many times its wire size. Strings must
//! be valid UTF-8 here and messages may nest 100 deep, as `prost` has it; [`view`](crate::view) and
//! [`decode`](crate::decode) are the tolerant readers.
//!
//! Source: `opentelemetry/proto/**`, opentelemetry-proto v1.11.0; [`Status`], [`Any`],
//! [`RetryInfo`] and [`Duration`] from `google/rpc/status.proto`, `google/protobuf/any.proto`,
//! `google/rpc/error_details.proto` and `google/protobuf/duration.proto`. Two differ in name, so that all can
//! live in one module: the status of a span is [`SpanStatus`], and enum fields are the numbers that
//! were sent, as peers may be newer than this crate.
//!
//! ```
//! use prost::Message as _;
//! use spanwire_codec::message::{ExportTracePartialSuccess, ExportTraceServiceResponse};
//!
//! let response = ExportTraceServiceResponse {
//!     partial_success: Some(ExportTracePartialSuccess {
//!         rejected_spans: 3,
//!         error_message: "trace_id must have 16 bytes".to_owned(),
//!     }),
//! };
//! let body = response.encode_to_vec();
//! assert_eq!(body[..4], [0x0A, 31, 0x08, 3]);
//! assert_eq!(ExportTraceServiceResponse::decode(&body[..]), Ok(response));
//! ```

use prost::Message;

/// `ExportTraceServiceRequest` of `collector/trace/v1/trace_service.proto`; `TracesData` of
/// `trace/v1/trace.proto` has the same wire form.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceRequest {
    /// Spans by resource. Two encoded requests joined are one with the spans of both.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// `ResourceSpans` of `trace/v1/trace.proto`: spans from one resource.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// What produced the spans; absent means nothing is known.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// The spans by instrumentation scope.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
    /// Schema of the resource, not of the spans.
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

/// `Resource` of `resource/v1/resource.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// What describes the resource; keys are unique.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
    /// Attributes the producer left out.
    #[prost(uint32, tag = "2")]
    pub dropped_attributes_count: u32,
    /// Entities that the resource consists of, by reference to its attributes.
    #[prost(message, repeated, tag = "3")]
    pub entity_refs: Vec<EntityRef>,
}

/// `EntityRef` of `common/v1/common.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct EntityRef {
    /// Schema of the entity.
    #[prost(string, tag = "1")]
    pub schema_url: String,
    /// The kind of entity, such as `service` or `host`.
    #[prost(string, tag = "2")]
    pub r#type: String,
    /// Keys of the attributes that identify the entity.
    #[prost(string, repeated, tag = "3")]
    pub id_keys: Vec<String>,
    /// Keys of the attributes that describe it.
    #[prost(string, repeated, tag = "4")]
    pub description_keys: Vec<String>,
}

/// `ScopeSpans` of `trace/v1/trace.proto`: spans from one instrumentation scope.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// What recorded the spans; absent means unknown.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    /// The spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
    /// Schema of the scope, the spans and their events.
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

/// `InstrumentationScope` of `common/v1/common.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct InstrumentationScope {
    /// The library's name; empty means unknown.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The library's version; empty means unknown.
    #[prost(string, tag = "2")]
    pub version: String,
    /// What else describes the scope; keys are unique.
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
    /// Attributes the producer left out.
    #[prost(uint32, tag = "4")]
    pub dropped_attributes_count: u32,
}

/// `Span` of `trace/v1/trace.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes, not all zero.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes, not all zero.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// W3C `tracestate`.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// 8 bytes; empty in a root span.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// The operation's name.
    #[prost(string, tag = "5")]
    pub name: String,
    /// `SpanKind`: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Start, in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// End, in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// What describes the operation; keys are unique.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// Attributes the producer left out.
    #[prost(uint32, tag = "10")]
    pub dropped_attributes_count: u32,
    /// What happened during the operation.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
    /// Events the producer left out.
    #[prost(uint32, tag = "12")]
    pub dropped_events_count: u32,
    /// Spans in this or other traces that this one relates to.
    #[prost(message, repeated, tag = "13")]
    pub links: Vec<Link>,
    /// Links the producer left out.
    #[prost(uint32, tag = "14")]
    pub dropped_links_count: u32,
    /// The outcome; absent means unset.
    #[prost(message, optional, tag = "15")]
    pub status: Option<SpanStatus>,
    /// Bits 0 to 7: W3C trace flags. Bit 8: bit 9 is meant. Bit 9: the parent is remote.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// `Span.Event` of `trace/v1/trace.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// When, in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// What.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Details; keys are unique.
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
    /// Attributes the producer left out.
    #[prost(uint32, tag = "4")]
    pub dropped_attributes_count: u32,
}

/// `Span.Link` of `trace/v1/trace.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct Link {
    /// Trace of the linked span, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// The linked span, 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// W3C `tracestate` of the linked span.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// What describes the relation; keys are unique.
    #[prost(message, repeated, tag = "4")]
    pub attributes: Vec<KeyValue>,
    /// Attributes the producer left out.
    #[prost(uint32, tag = "5")]
    pub dropped_attributes_count: u32,
    /// As [`Span::flags`], of the linked context.
    #[prost(fixed32, tag = "6")]
    pub flags: u32,
}

/// `Status` of `trace/v1/trace.proto`. Field number 1 is reserved.
#[derive(Clone, PartialEq, Message)]
pub struct SpanStatus {
    /// Says more about an error.
    #[prost(string, tag = "2")]
    pub message: String,
    /// `StatusCode`: 0 unset, 1 ok, 2 error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// `KeyValue` of `common/v1/common.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// The attribute's name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value; absent as an empty one.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
    /// Profiles only: index into their string table.
    #[prost(int32, tag = "3")]
    pub key_strindex: i32,
}

/// `AnyValue` of `common/v1/common.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// The value; `None` is the valid empty value.
    #[prost(oneof = "any_value::Value", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub value: Option<any_value::Value>,
}

/// What [`AnyValue`] holds.
pub mod any_value {
    /// The kinds of value, `oneof value` of `AnyValue`.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// Text.
        #[prost(string, tag = "1")]
        StringValue(String),
        /// A boolean.
        #[prost(bool, tag = "2")]
        BoolValue(bool),
        /// A signed integer.
        #[prost(int64, tag = "3")]
        IntValue(i64),
        /// A double, NaN and infinities included.
        #[prost(double, tag = "4")]
        DoubleValue(f64),
        /// Values of any kinds.
        #[prost(message, tag = "5")]
        ArrayValue(super::ArrayValue),
        /// A map; keys are unique.
        #[prost(message, tag = "6")]
        KvlistValue(super::KeyValueList),
        /// Bytes.
        #[prost(bytes, tag = "7")]
        BytesValue(Vec<u8>),
        /// Profiles only: index into their string table.
        #[prost(int32, tag = "8")]
        StringValueStrindex(i32),
    }
}

/// `ArrayValue` of `common/v1/common.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct ArrayValue {
    /// The elements.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AnyValue>,
}

/// `KeyValueList` of `common/v1/common.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValueList {
    /// The entries; keys are unique.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<KeyValue>,
}

/// `ExportTraceServiceResponse` of `collector/trace/v1/trace_service.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceResponse {
    /// Absent, or empty, when every span was accepted and there is nothing to say.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<ExportTracePartialSuccess>,
}

/// `ExportTracePartialSuccess` of `collector/trace/v1/trace_service.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTracePartialSuccess {
    /// Spans refused for good.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    /// Why; with no span rejected, a warning.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// `google.rpc.Status`: the body of a failed OTLP/HTTP answer, and `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// A `google.rpc.Code`, numbered as gRPC's status codes; OTLP/HTTP clients ignore it.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What went wrong, for developers.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Machine-readable details, such as [`RetryInfo`].
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`: an encoded message and its type.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// Such as [`RetryInfo::TYPE_URL`].
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo`: when the same request may be sent again.
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    /// The least time to wait.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<Duration>,
}

impl RetryInfo {
    /// [`Any::type_url`] of this message.
    pub const TYPE_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";
}

/// `google.protobuf.Duration`; both parts have the same sign.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The rest, -999,999,999 to 999,999,999 nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}
