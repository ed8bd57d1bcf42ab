// Sends spans with the OpenTelemetry SDK for JavaScript and prints what it made.
//
//     send.js grpc|proto|json none|gzip ENDPOINT SPANS BATCH
//
// BATCH is the most spans in a request.
'use strict';

const { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, createTraceState, trace } = require('@opentelemetry/api');
const { ExportResultCode } = require('@opentelemetry/core');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');

const spans = require('./spans');

const KINDS = [SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER];

async function main(protocol, compression, endpoint, count, batch) {
  const kept = [];
  const noting = new Noting(exporter(protocol, compression, endpoint));
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes(
      { 'service.name': 'interop', 'service.instance.id': 'javascript' },
      { schemaUrl: 'https://example.com/1' }
    ),
    spanProcessors: [
      { onStart() {}, onEnd: (span) => kept.push(span), forceFlush: async () => {}, shutdown: async () => {} },
      new BatchSpanProcessor(noting, {
        maxQueueSize: 2 * count,
        maxExportBatchSize: batch,
        scheduledDelayMillis: 50,
      }),
    ],
  });
  make(provider, protocol, count);
  await provider.forceFlush();
  await provider.shutdown();
  spans.write(
    kept.map((span) => ({
      ...document(span),
      acknowledged: noting.acknowledged.has(span.spanContext().spanId),
    }))
  );
}

/** Another exporter, with notes on which spans it took for accepted. */
class Noting {
  constructor(exporter) {
    this.exporter = exporter;
    this.acknowledged = new Set();
  }

  export(batch, done) {
    this.exporter.export(batch, (result) => {
      if (result.code === ExportResultCode.SUCCESS) {
        batch.forEach((span) => this.acknowledged.add(span.spanContext().spanId));
      }
      done(result);
    });
  }

  forceFlush() {
    return this.exporter.forceFlush();
  }

  shutdown() {
    return this.exporter.shutdown();
  }
}

function exporter(protocol, compression, endpoint) {
  const name = { grpc: 'grpc', proto: 'proto', json: 'http' }[protocol];
  const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${name}`);
  const url = protocol === 'grpc' ? endpoint : `${endpoint}/v1/traces`;
  return new OTLPTraceExporter({ url, compression });
}

/** Spans of every kind with every kind of value; each fourth is a root, each tenth has a parent
 *  elsewhere, the others are children of the one before. */
function make(provider, protocol, count) {
  const tracers = [
    provider.getTracer('interop.plain'),
    provider.getTracer('interop.full', '1.2.3', { schemaUrl: 'https://example.com/2' }),
  ];
  let before;
  for (let n = 0; n < count; n++) {
    let context = ROOT_CONTEXT;
    if (n % 10 === 9) {
      context = trace.setSpanContext(context, {
        traceId: n.toString(16).padStart(16, '0') + '000000000000abcd',
        spanId: (n + 1).toString(16).padStart(16, '0'),
        isRemote: true,
        traceFlags: TraceFlags.SAMPLED,
        traceState: createTraceState(`vendor=v${n},other=w`),
      });
    } else if (n % 4 !== 0 && before) {
      context = trace.setSpan(context, before);
    }
    // [seconds, nanoseconds]: a number would be milliseconds, and not exact.
    const start = [1_700_000_000 + n, 123_456_789];
    const span = tracers[n % 2].startSpan(
      n % 3 ? `span ${n} größe ✓` : `span ${n}`,
      { kind: KINDS[n % 5], attributes: attributes(n, protocol), links: links(n, before), startTime: start },
      context
    );
    for (let event = 0; event < n % 4; event++) {
      span.addEvent(`event ${event}`, { n: event, text: 'x'.repeat(event) }, [start[0], start[1] + event]);
    }
    if (n % 3 === 1) {
      span.setStatus({ code: SpanStatusCode.OK });
    } else if (n % 3 === 2) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: n % 2 ? 'it failed: größe' : undefined });
    }
    span.end([start[0], start[1] + 1 + n]);
    before = span;
  }
}

function attributes(n, protocol) {
  if (n % 7 === 0) {
    return {};
  }
  const given = {
    string: `value ${n}`,
    'string.empty': '',
    'string.unicode': 'größe ✓ 𝕏 \0 \u202e "\\\n',
    bool: n % 2 === 0,
    int: n - 500,
    'int.max': Number.MAX_SAFE_INTEGER,
    'int.min': Number.MIN_SAFE_INTEGER,
    double: n + 0.7,
    'double.small': 5e-324,
    'array.string': ['a', '', `${n}`],
    'array.bool': [true, false],
    'array.int': [n, -n, 0],
    'array.double': [0.5, -1.25, 1.5e-300],
    'array.empty': [],
    bytes: new Uint8Array(n % 32).fill(n),
    map: { a: 1, b: { c: [true, 'd'] } },
  };
  if (protocol !== 'json') {
    // `JSON.stringify` makes `null` of them.
    Object.assign(given, { 'double.nan': NaN, 'double.infinite': -Infinity });
  }
  if (n % 50 === 1) {
    given['string.long'] = 'ä'.repeat(5000);
  }
  return given;
}

function links(n, before) {
  const given = [];
  if (n % 5 === 0 && before) {
    given.push({ context: before.spanContext(), attributes: { 'link.n': n, 'link.kind': 'before' } });
  }
  if (n % 6 === 0) {
    given.push({
      context: {
        traceId: (n + 1).toString(16).padStart(32, '0'),
        spanId: (n + 2).toString(16).padStart(16, '0'),
        isRemote: true,
        traceFlags: TraceFlags.NONE,
        traceState: createTraceState('linked=yes'),
      },
    });
  }
  return given;
}

/** What the SDK has of a span, apart from its exporter. */
function document(span) {
  const context = span.spanContext();
  const scope = span.instrumentationScope;
  return {
    resource: { attributes: entries(span.resource.attributes), schema_url: span.resource.schemaUrl ?? '' },
    scope: {
      name: scope.name,
      version: scope.version ?? '',
      schema_url: scope.schemaUrl ?? '',
      attributes: entries(scope.attributes),
    },
    trace_id: context.traceId,
    span_id: context.spanId,
    parent_span_id: span.parentSpanContext?.spanId ?? '',
    trace_state: context.traceState?.serialize() ?? '',
    flags: flags(context.traceFlags, span.parentSpanContext?.isRemote),
    name: span.name,
    kind: span.kind + 1,
    start: nanos(span.startTime),
    end: nanos(span.endTime),
    attributes: entries(span.attributes),
    dropped_attributes: span.droppedAttributesCount,
    events: span.events.map((event) => ({
      time: nanos(event.time),
      name: event.name,
      attributes: entries(event.attributes),
      dropped_attributes: event.droppedAttributesCount ?? 0,
    })),
    dropped_events: span.droppedEventsCount,
    links: span.links.map((link) => ({
      trace_id: link.context.traceId,
      span_id: link.context.spanId,
      trace_state: link.context.traceState?.serialize() ?? '',
      flags: flags(link.context.traceFlags, link.context.isRemote),
      attributes: entries(link.attributes),
      dropped_attributes: link.droppedAttributesCount ?? 0,
    })),
    dropped_links: span.droppedLinksCount,
    status: [span.status.code, span.status.message ?? ''],
  };
}

function flags(traceFlags, isRemote) {
  return traceFlags | (isRemote ? 0x300 : 0x100);
}

function nanos([seconds, nanoseconds]) {
  return (BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds)).toString();
}

function entries(attributes) {
  return Object.entries(attributes ?? {}).map(([key, of]) => [key, value(of)]);
}

function value(given) {
  switch (typeof given) {
    case 'string':
      return ['string', given];
    case 'boolean':
      return ['bool', given];
    case 'number':
      // The SDK has one kind of number and sends whole ones as integers.
      return Number.isInteger(given) ? ['int', BigInt(given).toString()] : spans.double(given);
    case 'object':
      if (given instanceof Uint8Array) return ['bytes', Buffer.from(given).toString('hex')];
      if (Array.isArray(given)) return ['array', given.map(value)];
      if (given !== null) return ['map', entries(given)];
  }
  return ['empty'];
}

const [protocol, compression, endpoint, count, batch] = process.argv.slice(2);
main(protocol, compression, endpoint, Number(count), Number(batch)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
