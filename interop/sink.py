"""Receives spans with oteltest's sinks and prints them once standard input ends.

    sink.py grpc|http

The first line is the port.
"""

import logging
import socket
import sys
import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from oteltest.sink import GrpcSink, HttpSink
from oteltest.sink.handler import RequestHandler

import spans


def main(protocol):
    kept = Kept()
    port = free_port()
    logger = logging.getLogger("sink")
    sink = {"grpc": GrpcSink, "http": HttpSink}[protocol](kept, logger, port=port)
    sink.start()
    await_port(port)
    spans.write([port])
    sys.stdin.read()
    sink.stop()
    spans.write(document for request in kept.requests for document in documents(request))


class Kept(RequestHandler):
    """Keeps every request for traces."""

    def __init__(self):
        self.requests: list[ExportTraceServiceRequest] = []

    def handle_trace(self, request, headers):
        self.requests.append(request)

    def handle_logs(self, request, headers):
        raise NotImplementedError

    def handle_metrics(self, request, headers):
        raise NotImplementedError


def free_port():
    """The sinks want to be told; nobody else takes ports here in between."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port):
    """The HTTP sink binds on a thread of its own."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def documents(request):
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield document(of_resource, of_scope, span)


def document(of_resource, of_scope, span):
    scope = of_scope.scope
    return {
        "resource": {"attributes": attributes(of_resource.resource.attributes), "schema_url": of_resource.schema_url},
        "scope": {
            "name": scope.name,
            "version": scope.version,
            "schema_url": of_scope.schema_url,
            "attributes": attributes(scope.attributes),
        },
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "trace_state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "start": str(span.start_time_unix_nano),
        "end": str(span.end_time_unix_nano),
        "attributes": attributes(span.attributes),
        "dropped_attributes": span.dropped_attributes_count,
        "events": [
            {
                "time": str(event.time_unix_nano),
                "name": event.name,
                "attributes": attributes(event.attributes),
                "dropped_attributes": event.dropped_attributes_count,
            }
            for event in span.events
        ],
        "dropped_events": span.dropped_events_count,
        "links": [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "trace_state": link.trace_state,
                "flags": link.flags,
                "attributes": attributes(link.attributes),
                "dropped_attributes": link.dropped_attributes_count,
            }
            for link in span.links
        ],
        "dropped_links": span.dropped_links_count,
        "status": [span.status.code, span.status.message],
    }


def attributes(given):
    return [[entry.key, value(entry.value)] for entry in given]


def value(given):
    """An `AnyValue` with its kind."""
    match given.WhichOneof("value"):
        case None:
            return ["empty"]
        case "array_value":
            return ["array", [value(element) for element in given.array_value.values]]
        case "kvlist_value":
            return ["map", attributes(given.kvlist_value.values)]
        case kind:
            return spans.value(getattr(given, kind))


if __name__ == "__main__":
    main(sys.argv[1])
