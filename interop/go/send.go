// Command send sends spans with the OpenTelemetry SDK for Go and prints what it made.
//
//	send grpc|http none|gzip ENDPOINT SPANS BATCH
//
// BATCH is the most spans in a request.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	if len(os.Args) != 6 {
		log.Fatalf("usage: %s grpc|http none|gzip ENDPOINT SPANS BATCH", os.Args[0])
	}
	protocol, compression, endpoint := os.Args[1], os.Args[2], os.Args[3]
	count, batch := number(os.Args[4]), number(os.Args[5])

	ctx := context.Background()
	client, err := otlptrace.New(ctx, exporter(protocol, compression == "gzip", endpoint))
	check(err)
	noting := &noting{SpanExporter: client, acknowledged: map[trace.SpanID]bool{}}
	kept := &kept{}
	provider := sdk.NewTracerProvider(
		sdk.WithResource(resource.NewWithAttributes(
			"https://example.com/1",
			attribute.String("service.name", "interop"),
			attribute.String("service.instance.id", "go"),
		)),
		sdk.WithSpanProcessor(kept),
		sdk.WithBatcher(
			noting,
			sdk.WithMaxQueueSize(2*count),
			sdk.WithMaxExportBatchSize(batch),
			sdk.WithBatchTimeout(50*time.Millisecond),
		),
	)
	record(provider, count)
	check(provider.ForceFlush(ctx))
	check(provider.Shutdown(ctx))

	out := json.NewEncoder(os.Stdout)
	for _, span := range kept.spans {
		made := document(span)
		made["acknowledged"] = noting.acknowledged[span.SpanContext().SpanID()]
		check(out.Encode(made))
	}
}

func exporter(protocol string, gzip bool, endpoint string) otlptrace.Client {
	if protocol == "grpc" {
		options := []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(endpoint)}
		if gzip {
			options = append(options, otlptracegrpc.WithCompressor("gzip"))
		}
		return otlptracegrpc.NewClient(options...)
	}
	options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(endpoint + "/v1/traces")}
	if gzip {
		options = append(options, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	return otlptracehttp.NewClient(options...)
}

// kept keeps every span that ends.
type kept struct {
	spans []sdk.ReadOnlySpan
}

func (*kept) OnStart(context.Context, sdk.ReadWriteSpan) {}
func (k *kept) OnEnd(span sdk.ReadOnlySpan)              { k.spans = append(k.spans, span) }
func (*kept) Shutdown(context.Context) error             { return nil }
func (*kept) ForceFlush(context.Context) error           { return nil }

// noting is another exporter, with notes on which spans it took for accepted.
type noting struct {
	sdk.SpanExporter

	mutex        sync.Mutex
	acknowledged map[trace.SpanID]bool
}

func (n *noting) ExportSpans(ctx context.Context, batch []sdk.ReadOnlySpan) error {
	err := n.SpanExporter.ExportSpans(ctx, batch)
	if err == nil {
		n.mutex.Lock()
		defer n.mutex.Unlock()
		for _, span := range batch {
			n.acknowledged[span.SpanContext().SpanID()] = true
		}
	}
	return err
}

var kinds = []trace.SpanKind{
	trace.SpanKindInternal,
	trace.SpanKindServer,
	trace.SpanKindClient,
	trace.SpanKindProducer,
	trace.SpanKindConsumer,
}

// record makes spans of every kind with every kind of value; each fourth is a root, each tenth has a
// parent elsewhere, the others are children of the one before.
func record(provider *sdk.TracerProvider, count int) {
	tracers := []trace.Tracer{
		provider.Tracer("interop.plain"),
		provider.Tracer(
			"interop.full",
			trace.WithInstrumentationVersion("1.2.3"),
			trace.WithSchemaURL("https://example.com/2"),
			trace.WithInstrumentationAttributes(attribute.String("scope.kind", "full")),
		),
	}
	var before trace.Span
	for n := range count {
		ctx := context.Background()
		switch {
		case n%10 == 9:
			ctx = trace.ContextWithRemoteSpanContext(
				ctx, elsewhere(n, trace.FlagsSampled, fmt.Sprintf("vendor=v%d,other=w", n)),
			)
		case n%4 != 0 && before != nil:
			ctx = trace.ContextWithSpan(ctx, before)
		}
		name := fmt.Sprintf("span %d", n)
		if n%3 != 0 {
			name += " größe ✓"
		}
		start := time.Unix(1_700_000_000, 123_456_789+int64(n)*1_000_000)
		_, span := tracers[n%2].Start(
			ctx, name,
			trace.WithSpanKind(kinds[n%5]),
			trace.WithAttributes(attributes(n)...),
			trace.WithLinks(links(n, before)...),
			trace.WithTimestamp(start),
		)
		for event := range n % 4 {
			span.AddEvent(
				fmt.Sprintf("event %d", event),
				trace.WithAttributes(
					attribute.Int("n", event),
					attribute.String("text", strings.Repeat("x", event)),
				),
				trace.WithTimestamp(start.Add(time.Duration(event))),
			)
		}
		switch {
		case n%3 == 1:
			span.SetStatus(codes.Ok, "")
		case n%3 == 2 && n%2 == 1:
			span.SetStatus(codes.Error, "it failed: größe")
		case n%3 == 2:
			span.SetStatus(codes.Error, "")
		}
		span.End(trace.WithTimestamp(start.Add(time.Duration(1 + n))))
		before = span
	}
}

func attributes(n int) []attribute.KeyValue {
	if n%7 == 0 {
		return nil
	}
	bytes := make([]byte, n%32)
	for at := range bytes {
		bytes[at] = byte(at)
	}
	given := []attribute.KeyValue{
		attribute.String("string", fmt.Sprintf("value %d", n)),
		attribute.String("string.empty", ""),
		attribute.String("string.unicode", "größe ✓ 𝕏 \x00 \u202e \"\\\n"),
		attribute.Bool("bool", n%2 == 0),
		attribute.Int("int", n-500),
		attribute.Int64("int.max", math.MaxInt64),
		attribute.Int64("int.min", math.MinInt64),
		attribute.Float64("double", float64(n)/7),
		attribute.Float64("double.whole", float64(n)),
		attribute.Float64("double.small", math.SmallestNonzeroFloat64),
		attribute.Float64("double.negative.zero", math.Copysign(0, -1)),
		// That of Go has another bit pattern, which JSON cannot tell.
		attribute.Float64("double.nan", math.Float64frombits(0x7ff8000000000000)),
		attribute.Float64("double.infinite", math.Inf(-1)),
		attribute.StringSlice("array.string", []string{"a", "", strconv.Itoa(n)}),
		attribute.BoolSlice("array.bool", []bool{true, false}),
		attribute.IntSlice("array.int", []int{n, -n, 0}),
		attribute.Float64Slice("array.double", []float64{0.5, -1.25, 1e300}),
		attribute.StringSlice("array.empty", []string{}),
		attribute.Slice("array.mixed", attribute.BoolValue(true), attribute.StringValue("d")),
		attribute.ByteSlice("bytes", bytes),
		attribute.Map("map", attribute.Int("a", 1), attribute.Map("b", attribute.Bool("c", true))),
		{Key: "empty"},
	}
	if n%50 == 1 {
		given = append(given, attribute.String("string.long", strings.Repeat("ä", 5000)))
	}
	return given
}

func links(n int, before trace.Span) []trace.Link {
	var given []trace.Link
	if n%5 == 0 && before != nil {
		given = append(given, trace.Link{
			SpanContext: before.SpanContext(),
			Attributes: []attribute.KeyValue{
				attribute.Int("link.n", n),
				attribute.String("link.kind", "before"),
			},
		})
	}
	if n%6 == 0 {
		given = append(given, trace.Link{SpanContext: elsewhere(n+1, 0, "linked=yes")})
	}
	return given
}

// elsewhere is the context of a span of another process.
func elsewhere(n int, flags trace.TraceFlags, state string) trace.SpanContext {
	traceID, err := trace.TraceIDFromHex(fmt.Sprintf("%016x000000000000abcd", n))
	check(err)
	spanID, err := trace.SpanIDFromHex(fmt.Sprintf("%016x", n+1))
	check(err)
	traceState, err := trace.ParseTraceState(state)
	check(err)
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: flags, TraceState: traceState, Remote: true,
	})
}

// document is what the SDK has of a span, apart from its exporter, in the form that spans.py says.
func document(span sdk.ReadOnlySpan) map[string]any {
	spanContext, scope := span.SpanContext(), span.InstrumentationScope()
	parent := ""
	if span.Parent().SpanID().IsValid() {
		parent = span.Parent().SpanID().String()
	}
	events := []any{}
	for _, event := range span.Events() {
		events = append(events, map[string]any{
			"time":               nanos(event.Time),
			"name":               event.Name,
			"attributes":         entries(event.Attributes),
			"dropped_attributes": event.DroppedAttributeCount,
		})
	}
	linked := []any{}
	for _, link := range span.Links() {
		linked = append(linked, map[string]any{
			"trace_id": link.SpanContext.TraceID().String(),
			"span_id":  link.SpanContext.SpanID().String(),
			// This SDK does not send it.
			"trace_state":        "",
			"flags":              flagsOf(link.SpanContext.TraceFlags(), link.SpanContext),
			"attributes":         entries(link.Attributes),
			"dropped_attributes": link.DroppedAttributeCount,
		})
	}
	status := map[codes.Code]int{codes.Unset: 0, codes.Ok: 1, codes.Error: 2}[span.Status().Code]
	return map[string]any{
		"resource": map[string]any{
			"attributes": entries(span.Resource().Attributes()),
			"schema_url": span.Resource().SchemaURL(),
		},
		"scope": map[string]any{
			"name":       scope.Name,
			"version":    scope.Version,
			"schema_url": scope.SchemaURL,
			"attributes": entries(scope.Attributes.ToSlice()),
		},
		"trace_id":           spanContext.TraceID().String(),
		"span_id":            spanContext.SpanID().String(),
		"parent_span_id":     parent,
		"trace_state":        spanContext.TraceState().String(),
		"flags":              flagsOf(spanContext.TraceFlags(), span.Parent()),
		"name":               span.Name(),
		"kind":               int(span.SpanKind()),
		"start":              nanos(span.StartTime()),
		"end":                nanos(span.EndTime()),
		"attributes":         entries(span.Attributes()),
		"dropped_attributes": span.DroppedAttributes(),
		"events":             events,
		"dropped_events":     span.DroppedEvents(),
		"links":              linked,
		"dropped_links":      span.DroppedLinks(),
		"status":             []any{status, span.Status().Description},
	}
}

func flagsOf(flags trace.TraceFlags, parent trace.SpanContext) int {
	if parent.IsRemote() {
		return int(flags) | 0x300
	}
	return int(flags) | 0x100
}

func nanos(at time.Time) string {
	return strconv.FormatInt(at.UnixNano(), 10)
}

func entries(given []attribute.KeyValue) []any {
	made := []any{}
	for _, entry := range given {
		made = append(made, []any{string(entry.Key), value(entry.Value)})
	}
	return made
}

func value(given attribute.Value) []any {
	switch given.Type() {
	case attribute.BOOL:
		return []any{"bool", given.AsBool()}
	case attribute.INT64:
		return []any{"int", strconv.FormatInt(given.AsInt64(), 10)}
	case attribute.FLOAT64:
		return []any{"double", fmt.Sprintf("%016x", math.Float64bits(given.AsFloat64()))}
	case attribute.STRING:
		return []any{"string", given.AsString()}
	case attribute.BYTESLICE:
		return []any{"bytes", fmt.Sprintf("%x", given.AsByteSlice())}
	case attribute.MAP:
		return []any{"map", entries(given.AsMap())}
	case attribute.BOOLSLICE:
		return array(given.AsBoolSlice(), attribute.BoolValue)
	case attribute.INT64SLICE:
		return array(given.AsInt64Slice(), attribute.Int64Value)
	case attribute.FLOAT64SLICE:
		return array(given.AsFloat64Slice(), attribute.Float64Value)
	case attribute.STRINGSLICE:
		return array(given.AsStringSlice(), attribute.StringValue)
	case attribute.SLICE:
		return array(given.AsSlice(), func(of attribute.Value) attribute.Value { return of })
	default:
		return []any{"empty"}
	}
}

func array[T any](given []T, of func(T) attribute.Value) []any {
	made := []any{}
	for _, element := range given {
		made = append(made, value(of(element)))
	}
	return []any{"array", made}
}

func number(text string) int {
	number, err := strconv.Atoi(text)
	check(err)
	return number
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
