use crate::{Attributes, Text};

/// The entity that produces spans: a service, its host, its container.
///
/// Source: `message Resource` in `resource/v1/resource.proto` and `schema_url` of `ResourceSpans`,
/// opentelemetry-proto v1.11.0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// Its attributes.
    pub attributes: Attributes,
    /// The schema they follow; may be empty.
    pub schema_url: Text,
}

/// The library that records spans.
///
/// Source: `message InstrumentationScope` in `common/v1/common.proto` and `schema_url` of
/// `ScopeSpans`, opentelemetry-proto v1.11.0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Its name, usually that of the crate.
    pub name: Text,
    /// Its version; may be empty.
    pub version: Text,
    /// Its attributes.
    pub attributes: Attributes,
    /// The schema its spans follow; may be empty.
    pub schema_url: Text,
}

impl Scope {
    /// A scope with a name and nothing else.
    pub fn new(name: impl Into<Text>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}
