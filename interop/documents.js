// The documents of a request, in the form that `spans.py` says.
//
// What comes by gRPC, by protobuf and by JSON differs: integers are Long, number or string, bytes are
// buffers or text, and what is absent is so, or is the default of a message's prototype.
'use strict';

const spans = require('./spans');

function documents(request) {
  return (request.resourceSpans ?? []).flatMap((ofResource) =>
    (ofResource.scopeSpans ?? []).flatMap((ofScope) =>
      (ofScope.spans ?? []).map((span) => document(ofResource, ofScope, span))
    )
  );
}

function document(ofResource, ofScope, span) {
  return {
    resource: { attributes: entries(ofResource.resource?.attributes), schema_url: ofResource.schemaUrl ?? '' },
    scope: {
      name: ofScope.scope?.name ?? '',
      version: ofScope.scope?.version ?? '',
      schema_url: ofScope.schemaUrl ?? '',
      attributes: entries(ofScope.scope?.attributes),
    },
    trace_id: hex(span.traceId),
    span_id: hex(span.spanId),
    parent_span_id: hex(span.parentSpanId),
    trace_state: span.traceState ?? '',
    flags: span.flags ?? 0,
    name: span.name ?? '',
    kind: number(span.kind),
    start: String(span.startTimeUnixNano ?? 0),
    end: String(span.endTimeUnixNano ?? 0),
    attributes: entries(span.attributes),
    dropped_attributes: span.droppedAttributesCount ?? 0,
    events: (span.events ?? []).map((event) => ({
      time: String(event.timeUnixNano ?? 0),
      name: event.name ?? '',
      attributes: entries(event.attributes),
      dropped_attributes: event.droppedAttributesCount ?? 0,
    })),
    dropped_events: span.droppedEventsCount ?? 0,
    links: (span.links ?? []).map((link) => ({
      trace_id: hex(link.traceId),
      span_id: hex(link.spanId),
      trace_state: link.traceState ?? '',
      flags: link.flags ?? 0,
      attributes: entries(link.attributes),
      dropped_attributes: link.droppedAttributesCount ?? 0,
    })),
    dropped_links: span.droppedLinksCount ?? 0,
    status: [number(span.status?.code), span.status?.message ?? ''],
  };
}

function entries(attributes) {
  return (attributes ?? []).map((entry) => [entry.key, value(entry.value)]);
}

function value(given) {
  const has = (name) => Object.hasOwn(given ?? {}, name);
  if (has('stringValue')) return ['string', given.stringValue];
  if (has('boolValue')) return ['bool', given.boolValue];
  if (has('intValue')) return ['int', String(given.intValue)];
  // "NaN" and "Infinity" are text in JSON, and their own numbers here.
  if (has('doubleValue')) return spans.double(Number(given.doubleValue));
  if (has('bytesValue')) return ['bytes', bytes(given.bytesValue, 'base64').toString('hex')];
  if (has('arrayValue')) return ['array', (given.arrayValue.values ?? []).map(value)];
  if (has('kvlistValue')) return ['map', entries(given.kvlistValue.values)];
  return ['empty'];
}

function hex(id) {
  return bytes(id ?? '', 'hex').toString('hex');
}

function bytes(given, encoding) {
  return typeof given === 'string' ? Buffer.from(given, encoding) : Buffer.from(given);
}

/** The gRPC service has enums by name. */
function number(given) {
  const names = {
    SPAN_KIND_INTERNAL: 1,
    SPAN_KIND_SERVER: 2,
    SPAN_KIND_CLIENT: 3,
    SPAN_KIND_PRODUCER: 4,
    SPAN_KIND_CONSUMER: 5,
    STATUS_CODE_UNSET: 0,
    STATUS_CODE_OK: 1,
    STATUS_CODE_ERROR: 2,
  };
  return names[given] ?? given ?? 0;
}

module.exports = { documents };
