//! From slices of chunks to the pieces of a request.

use bytes::{Bytes, BytesMut};
use spanwire_batcher::{Split, Weigh};
use spanwire_codec::encode::EncodedResource;
use spanwire_codec::split;
use spanwire_tracer::{TracedChunk, TracedScope, TracedSlice};

/// A full chunk on its way to the exporter.
pub(crate) struct Queued {
    pub(crate) chunk: TracedChunk,
    spans: usize,
}

impl Queued {
    pub(crate) fn new(chunk: TracedChunk) -> Self {
        // Its thread is done with it and no sweep sees it any more, so the number stands still.
        let spans = chunk.chunk.pending();
        Self { chunk, spans }
    }
}

impl Weigh for Queued {
    fn spans(&self) -> usize {
        self.spans
    }

    fn wire_bytes(&self) -> usize {
        self.chunk.chunk.capacity()
    }

    fn held_bytes(&self) -> usize {
        self.chunk.chunk.capacity()
    }
}

/// Framed spans of one scope.
pub(crate) struct Item {
    bytes: Bytes,
    spans: usize,
    held_bytes: usize,
    scope: TracedScope,
}

impl From<TracedSlice> for Item {
    fn from(TracedSlice { slice, scope, .. }: TracedSlice) -> Self {
        Self { bytes: slice.bytes, spans: slice.spans, held_bytes: slice.held_bytes, scope }
    }
}

impl Weigh for Item {
    fn spans(&self) -> usize {
        self.spans
    }

    /// As if each item had a header of its own: some bytes too many where items share a scope.
    fn wire_bytes(&self) -> usize {
        self.scope.encoded.field_len(self.bytes.len())
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

impl Split for Item {
    fn split(mut self, spans_max: usize, bytes_max: usize) -> (Self, Option<Self>) {
        let header = self.wire_bytes() - self.bytes.len();
        let first = split::prefix(&self.bytes, spans_max, bytes_max.saturating_sub(header));
        let bytes = self.bytes.split_to(first.bytes);
        if self.bytes.is_empty() {
            self.bytes = bytes;
            return (self, None);
        }
        // The buffer is held until its last part is sent, so that one accounts for it.
        let part = Self { bytes, spans: first.spans, held_bytes: 0, scope: self.scope.clone() };
        self.spans -= first.spans;
        (part, Some(self))
    }
}

/// The pieces of one request: a header for each scope, then its spans as they are.
pub(crate) fn request(resource: &EncodedResource, mut items: Vec<Item>) -> Vec<Bytes> {
    // Stable, so spans of one scope keep their order.
    items.sort_by_key(|item| item.scope.id);
    let scopes = || items.chunk_by(|one, other| one.scope.id == other.scope.id);
    let spans_bytes = |scope: &[Item]| scope.iter().map(|item| item.bytes.len()).sum::<usize>();
    let scopes_bytes = scopes().map(|scope| scope[0].scope.encoded.field_len(spans_bytes(scope)));

    let mut pieces = Vec::with_capacity(items.len() * 2);
    let mut header = BytesMut::new();
    resource.put_header(scopes_bytes.sum(), &mut header);
    for scope in scopes() {
        scope[0].scope.encoded.put_header(spans_bytes(scope), &mut header);
        pieces.push(header.split().freeze());
        pieces.extend(scope.iter().map(|item| item.bytes.clone()));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use spanwire_codec::encode::{self, EncodedScope};
    use spanwire_codec::view::Request;
    use spanwire_model::{Resource, Scope, Span, SpanContext, SpanId, TraceFlags, TraceId};

    use super::*;

    fn item(scope: u64, names: &[&str]) -> Item {
        let mut bytes = Vec::new();
        for name in names {
            let trace = TraceId::new(1).expect("nonzero");
            let id = SpanId::new(1).expect("nonzero");
            let context = SpanContext::new(trace, id, TraceFlags::SAMPLED);
            encode::put_framed(&Span::new(context, String::from(*name)), &mut bytes);
        }
        let encoded = EncodedScope::new(&Scope::new(format!("scope {scope}")));
        let scope = TracedScope { id: scope, encoded };
        Item { held_bytes: 1000, spans: names.len(), bytes: bytes.into(), scope }
    }

    fn names(request: &[Bytes]) -> Vec<(String, Vec<String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let bytes = request.concat();
        let request = Request::parse(&bytes).expect("a request");
        let mut names = Vec::new();
        for resource in request.resource_spans() {
            for scope in resource.scope_spans() {
                let spans = scope.spans().map(|span| text(span.name())).collect();
                names.push((text(scope.scope().expect("a scope").name()), spans));
            }
        }
        names
    }

    #[test]
    fn spans_of_one_scope_travel_together_in_the_order_they_ended() {
        let resource = EncodedResource::new(&Resource::default());
        let request =
            request(&resource, vec![item(2, &["a"]), item(1, &["b", "c"]), item(2, &["d"])]);
        let expected = [("scope 1", vec!["b", "c"]), ("scope 2", vec!["a", "d"])];
        let expected = expected.map(|(scope, spans)| {
            (scope.to_owned(), spans.into_iter().map(str::to_owned).collect::<Vec<_>>())
        });
        assert_eq!(names(&request), expected);
    }

    #[test]
    fn a_split_item_keeps_every_span_and_its_last_part_accounts_for_the_memory() {
        let (first, rest) = item(1, &["a", "b", "c"]).split(2, 10_000);
        let rest = rest.expect("one span is left");
        assert_eq!((first.spans, rest.spans), (2, 1));
        assert_eq!((first.held_bytes, rest.held_bytes), (0, 1000));
        let (whole, none) = rest.split(2, 10_000);
        assert!(none.is_none());
        assert_eq!(whole.held_bytes, 1000);
    }
}
