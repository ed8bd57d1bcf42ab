"""Sends spans with the OpenTelemetry SDK for Python and prints what it made.

    send.py grpc|http none|gzip ENDPOINT SPANS BATCH

BATCH is the most spans in a request.
"""

import math
import sys

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.span import TraceFlags, TraceState

import spans

KINDS = [SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER]
START = 1_700_000_000_123_456_789
MS = 1_000_000


def main(protocol, compression, endpoint, count, batch):
    kept = Kept()
    noting = Noting(exporter(protocol, compression, endpoint))
    provider = TracerProvider(
        resource=Resource({"service.name": "interop", "service.instance.id": "python"}, "https://example.com/1"),
    )
    provider.add_span_processor(kept)
    provider.add_span_processor(
        BatchSpanProcessor(
            noting,
            max_queue_size=2 * count,
            max_export_batch_size=batch,
            schedule_delay_millis=50,
        )
    )
    make(provider, count)
    provider.force_flush(120_000)
    provider.shutdown()
    spans.write(
        document(span) | {"acknowledged": span.get_span_context().span_id in noting.acknowledged}
        for span in kept.spans
    )


def exporter(protocol, compression, endpoint):
    gzip = compression == "gzip"
    if protocol == "grpc":
        code = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        return GrpcExporter(endpoint=endpoint, insecure=True, compression=code)
    code = Compression.Gzip if gzip else Compression.NoCompression
    return HttpExporter(endpoint=f"{endpoint}/v1/traces", compression=code)


class Kept(SpanProcessor):
    """Keeps every span that ends."""

    def __init__(self):
        self.spans = []

    def on_end(self, span):
        self.spans.append(span)


class Noting(SpanExporter):
    """Another exporter, with notes on which spans it took for accepted."""

    def __init__(self, exporter):
        self.exporter = exporter
        self.acknowledged = set()

    def export(self, batch):
        result = self.exporter.export(batch)
        if result is SpanExportResult.SUCCESS:
            self.acknowledged.update(span.get_span_context().span_id for span in batch)
        return result

    def shutdown(self):
        self.exporter.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return self.exporter.force_flush(timeout_millis)


def make(provider, count):
    """Spans of every kind with every kind of value; each fourth is a root, each tenth has a parent
    elsewhere, the others are children of the one before."""
    tracers = [
        provider.get_tracer("interop.plain"),
        provider.get_tracer("interop.full", "1.2.3", "https://example.com/2", {"scope.kind": "full"}),
    ]
    before = None
    for n in range(count):
        if n % 10 == 9:
            elsewhere = SpanContext(
                trace_id=(n << 64) | 0xABCD,
                span_id=n + 1,
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
                trace_state=TraceState([("vendor", f"v{n}"), ("other", "w")]),
            )
            context = trace.set_span_in_context(NonRecordingSpan(elsewhere))
        elif n % 4 == 0 or before is None:
            context = trace.Context()
        else:
            context = trace.set_span_in_context(before)
        start = START + n * MS
        span = tracers[n % 2].start_span(
            f"span {n} größe ✓" if n % 3 else f"span {n}",
            context=context,
            kind=KINDS[n % 5],
            attributes=attributes(n),
            links=links(n, before),
            start_time=start,
        )
        for event in range(n % 4):
            span.add_event(f"event {event}", {"n": event, "text": "x" * event}, start + event)
        if n % 3 == 1:
            span.set_status(Status(StatusCode.OK))
        elif n % 3 == 2:
            span.set_status(Status(StatusCode.ERROR, "it failed: größe" if n % 2 else ""))
        span.end(start + 1 + n)
        before = span


def attributes(n):
    given = {
        "string": f"value {n}",
        "string.empty": "",
        "string.unicode": "größe ✓ 𝕏 \0 \u202e \"\\\n",
        "bool": n % 2 == 0,
        "int": n - 500,
        "int.max": 2**63 - 1,
        "int.min": -(2**63),
        "double": n / 7,
        "double.whole": float(n),
        "double.negative.zero": -0.0,
        "double.nan": math.nan,
        "double.infinite": -math.inf,
        "array.string": ["a", "", f"{n}"],
        "array.bool": [True, False],
        "array.int": [n, -n, 0],
        "array.double": [0.5, -1.25, 1e300],
        "array.empty": [],
        "bytes": bytes(range(n % 32)),
        "map": {"a": 1, "b": {"c": [True, "d"]}},
    }
    if n % 50 == 0:
        given["string.long"] = "ä" * 5000
    return given if n % 7 else {}


def links(n, before):
    given = []
    if n % 5 == 0 and before is not None:
        given.append(Link(before.get_span_context(), {"link.n": n, "link.kind": "before"}))
    if n % 6 == 0:
        given.append(Link(SpanContext(trace_id=n + 1, span_id=n + 2, is_remote=True)))
    return given


def document(span):
    """What the SDK has of a span, apart from its exporter."""
    context = span.get_span_context()
    scope = span.instrumentation_scope
    return {
        "resource": {"attributes": spans.attributes(span.resource.attributes), "schema_url": span.resource.schema_url},
        "scope": {
            "name": scope.name,
            "version": scope.version or "",
            "schema_url": scope.schema_url or "",
            "attributes": spans.attributes(scope.attributes),
        },
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_span_id": f"{span.parent.span_id:016x}" if span.parent else "",
        "trace_state": ",".join(f"{key}={value}" for key, value in context.trace_state.items()),
        "flags": flags(span.parent),
        "name": span.name,
        "kind": span.kind.value + 1,
        "start": str(span.start_time),
        "end": str(span.end_time),
        "attributes": spans.attributes(span.attributes),
        "dropped_attributes": span.dropped_attributes,
        "events": [
            {
                "time": str(event.timestamp),
                "name": event.name,
                "attributes": spans.attributes(event.attributes),
                "dropped_attributes": event.dropped_attributes,
            }
            for event in span.events
        ],
        "dropped_events": span.dropped_events,
        "links": [
            {
                "trace_id": f"{link.context.trace_id:032x}",
                "span_id": f"{link.context.span_id:016x}",
                "trace_state": "",
                "flags": flags(link.context),
                "attributes": spans.attributes(link.attributes),
                "dropped_attributes": link.dropped_attributes,
            }
            for link in span.links
        ],
        "dropped_links": span.dropped_links,
        "status": [span.status.status_code.value, span.status.description or ""],
    }


def flags(context):
    """This SDK sends where a context came from, and no W3C flags with it."""
    return 0x300 if context and context.is_remote else 0x100


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
