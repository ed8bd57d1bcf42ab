//! OTLP/HTTP over real sockets, over HTTP/1.1 and HTTP/2.

mod support;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use spanwire_receiver::{Accepted, Encoding, Reason, Received, Refusal, Transport, channel};
use support::*;

const GZIP: &str = "Content-Encoding: gzip\r\n";

/// Two spans in OTLP/JSON.
const JSON_REQUEST: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
    {"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","name":"one","kind":2,
     "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000"},
    {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b175","name":"two","kind":1,
     "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000"}]}]}]}"#;

/// Faults 49, 51.
#[tokio::test]
async fn protobuf_reaches_the_sink_byte_for_byte_in_every_compression() {
    let (sink, mut requests) = channel(8);
    let receiver = start(sink).await;
    let body = wire(300);
    for (encoding, body) in [
        ("", body.clone()),
        ("Content-Encoding: identity\r\n", body.clone()),
        (GZIP, gzip(&body)),
        ("Content-Encoding: zstd\r\n", zstd(&body)),
        // Two members; and two requests joined are a request.
        (GZIP, [gzip(&body[..100]), gzip(&body[100..])].concat()),
    ] {
        let answer = post(&receiver, &[PROTOBUF, encoding].concat(), &body).await;
        assert_eq!(answer.status, 200, "{encoding}");
        assert_eq!(answer.headers["content-type"], "application/x-protobuf");
        assert_eq!(answer.headers["content-length"], "0");
        let received = requests.recv().await.expect("in the queue");
        assert_eq!(received.request, wire(300));
        assert_eq!(received.spans, 300);
        assert_eq!(received.transport, Transport::Http);
        assert_eq!(received.encoding, Encoding::Protobuf);
    }
    assert_eq!(receiver.stats().http.spans_accepted, 1500);
}

#[tokio::test]
async fn json_reaches_the_sink_as_protobuf_and_is_answered_in_json() {
    let (sink, mut requests) = channel(8);
    let receiver = start(sink).await;
    for (headers, body) in [
        (JSON.to_owned(), JSON_REQUEST.as_bytes().to_vec()),
        (format!("{JSON}{GZIP}"), gzip(JSON_REQUEST.as_bytes())),
        (
            "Content-Type: application/json; charset=utf-8\r\n".to_owned(),
            JSON_REQUEST.as_bytes().to_vec(),
        ),
    ] {
        let answer = post(&receiver, &headers, &body).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
        assert_eq!(answer.headers["content-type"], "application/json");
        let received = requests.recv().await.expect("in the queue");
        assert_eq!((received.spans, received.encoding), (2, Encoding::Json));
        let spans =
            opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest::decode(
                received.request.clone(),
            )
            .expect("protobuf");
        let spans = &spans.resource_spans[0].scope_spans[0].spans;
        assert_eq!((&*spans[0].name, &*spans[1].name), ("one", "two"));
        assert_eq!(spans[0].trace_id, spans[1].trace_id);
    }
}

#[tokio::test]
async fn json_too_long_to_be_read_in_passing_is_read_all_the_same() {
    let (sink, mut requests) = channel(8);
    let receiver = start(sink).await;
    let one = r#"{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174"},"#;
    let mut spans = one.repeat(10_000);
    spans.pop();
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    assert_eq!(post(&receiver, JSON, body.as_bytes()).await.status, 200);
    let received = requests.recv().await.expect("in the queue");
    assert_eq!(received.spans, 10_000);
    assert!(receiver.stats().in_flight_bytes >= received.request.len());
}

/// Faults 61.
#[tokio::test]
async fn partial_success_is_answered_in_the_format_of_the_request() {
    let receiver = start(async |_: Received| {
        Ok(Accepted { rejected_spans: 1, message: "too old".to_owned() })
    })
    .await;
    let answer = post(&receiver, PROTOBUF, &wire(3)).await;
    let response = ExportTraceServiceResponse::decode(&answer.body[..]).expect("a response");
    let partial = response.partial_success.expect("set");
    assert_eq!((partial.rejected_spans, &*partial.error_message), (1, "too old"));
    let answer = post(&receiver, JSON, JSON_REQUEST.as_bytes()).await;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let expected = serde_json::json!({"rejectedSpans": "1", "errorMessage": "too old"});
    assert_eq!(json["partialSuccess"], expected);
}

/// Faults 1, 2, 53.
#[tokio::test]
async fn a_request_without_spans_succeeds_and_reaches_no_sink() {
    let receiver = start(async |_| panic!("nothing to accept")).await;
    for (headers, body) in [
        (PROTOBUF.to_owned(), vec![]),
        (PROTOBUF.to_owned(), wire(0)),
        ([PROTOBUF, GZIP].concat(), gzip(b"")),
        (JSON.to_owned(), b"{}".to_vec()),
        (JSON.to_owned(), br#"{"resourceSpans":[]}"#.to_vec()),
    ] {
        assert_eq!(post(&receiver, &headers, &body).await.status, 200, "{body:?}");
    }
    assert_eq!(receiver.stats().http.requests_accepted, 5);
}

/// Faults 69.
#[tokio::test]
async fn requests_follow_each_other_on_one_connection_and_are_answered_in_order() {
    let receiver = start(async |received: Received| {
        Ok(Accepted { rejected_spans: 0, message: received.spans.to_string() })
    })
    .await;
    let mut http = Http1::connect(receiver.http_address()).await;
    let mut pipelined = Vec::new();
    for spans in 1..=20 {
        let body = wire(spans);
        pipelined.extend([head(PROTOBUF, body.len()), body].concat());
    }
    http.send(&pipelined).await;
    for spans in 1..=20 {
        let answer = http.answer().await;
        let response = ExportTraceServiceResponse::decode(&answer.body[..]).expect("a response");
        let message = response.partial_success.expect("set").error_message;
        assert_eq!(message, spans.to_string());
    }
    assert_eq!(receiver.stats().connections_accepted, 1);
}

/// Faults 73.
#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_on_the_same_port() {
    let (sink, mut requests) = channel(8);
    let receiver = start(sink).await;
    let mut http2 = Http2::connect(receiver.http_address()).await;
    let headers = [("content-type", "application/x-protobuf")];
    let mut stream = http2.open("/v1/traces", &headers).await;
    stream.data(&wire(5), true);
    let answer = stream.answer().await;
    assert_eq!(answer.http_status, 200);
    assert_eq!(requests.recv().await.expect("in the queue").spans, 5);
    let stream = http2.open("/v1/metrics", &headers).await;
    let answer = stream.answer().await;
    assert_eq!((answer.http_status, status_code(&answer.message)), (404, 12));
}

/// Faults 60.
#[tokio::test]
async fn any_other_path_is_not_found() {
    let receiver = start(take_all).await;
    for path in [
        "/",
        "/v1/trace",
        "/v1/traces/",
        "//v1/traces",
        "/V1/traces",
        "/v1/metrics",
        "/v1/logs",
        "/v1development/profiles",
    ] {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(
            format!("POST {path} HTTP/1.1\r\nHost: test\r\n{PROTOBUF}Content-Length: 0\r\n\r\n")
                .as_bytes(),
        )
        .await;
        let answer = http.answer().await;
        assert_eq!((answer.status, status_code(&answer.body)), (404, 12), "{path}");
    }
    assert_eq!(receiver.stats().http.refused(Reason::Path).requests, 8);
    // A query is no part of the path.
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(
        format!(
            "POST /v1/traces?a=b HTTP/1.1\r\nHost: test\r\n{PROTOBUF}Content-Length: 0\r\n\r\n"
        )
        .as_bytes(),
    )
    .await;
    assert_eq!(http.answer().await.status, 200);
}

#[tokio::test]
async fn another_path_can_be_served_instead() {
    let receiver = start_with(take_all, |builder| builder.http_traces_path("/otlp/spans")).await;
    for (path, status) in [("/otlp/spans", 200), ("/otlp/spans?a=b", 200), ("/v1/traces", 404)] {
        let mut http = Http1::connect(receiver.http_address()).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\n{PROTOBUF}");
        http.send(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).await;
        assert_eq!(http.answer().await.status, status, "{path}");
    }
}

/// Faults 59.
#[tokio::test]
async fn any_other_method_is_not_allowed() {
    let receiver = start(take_all).await;
    for method in ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"] {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(format!("{method} /v1/traces HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await;
        let answer = http.answer().await;
        assert_eq!((answer.status, &*answer.headers["allow"]), (405, "POST"), "{method}");
        assert_eq!(answer.body.is_empty(), method == "HEAD");
    }
}

/// Faults 58.
#[tokio::test]
async fn any_other_content_type_is_unsupported() {
    let receiver = start(take_all).await;
    for headers in [
        "",
        "Content-Type: text/html\r\n",
        "Content-Type: application/x-protobufs\r\n",
        "Content-Type: application/grpc\r\n",
    ] {
        let answer = post(&receiver, headers, &wire(1)).await;
        assert_eq!((answer.status, status_code(&answer.body)), (415, 12), "{headers}");
        assert_eq!(answer.headers["content-type"], "application/x-protobuf");
    }
    let headers = "Content-Type: application/x-protobuf; charset=x\r\n";
    assert_eq!(post(&receiver, headers, &wire(1)).await.status, 200);
}

/// Faults 51.
#[tokio::test]
async fn any_other_content_encoding_is_unsupported_and_told_the_known_ones() {
    let receiver = start(take_all).await;
    for encoding in ["br", "gzip, gzip", "gzip,identity", "gzip\r\nContent-Encoding: gzip"] {
        let headers = format!("{PROTOBUF}Content-Encoding: {encoding}\r\n");
        let answer = post(&receiver, &headers, &gzip(&wire(1))).await;
        assert_eq!(answer.status, 415, "{encoding}");
        assert_eq!(
            answer.headers["accept-encoding"],
            "gzip, zstd, deflate, snappy, x-snappy-framed, identity"
        );
    }
}

/// Faults 3, 38, 61.
#[tokio::test]
async fn errors_come_in_the_format_of_the_request() {
    let receiver = start(take_all).await;
    let answer = post(&receiver, PROTOBUF, b"\xFF").await;
    assert_eq!((answer.status, status_code(&answer.body)), (400, 3));
    assert_eq!(answer.headers["content-type"], "application/x-protobuf");
    let answer = post(&receiver, JSON, b"{").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.headers["content-type"], "application/json");
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(json["code"], 3);
    assert!(!json["message"].as_str().expect("a string").is_empty());
    assert_eq!(receiver.stats().http.refused(Reason::Malformed).requests, 2);
}

/// Faults 46, 49, 50, 52.
#[tokio::test]
async fn a_body_that_is_not_what_its_headers_say_is_a_bad_request() {
    let receiver = start(take_all).await;
    let good = gzip(&wire(3));
    let with_gzip = [PROTOBUF, GZIP].concat();
    for (headers, body) in [
        (&*with_gzip, wire(3)),
        (&with_gzip, vec![]),
        (&with_gzip, good[..good.len() - 1].to_vec()),
        (&with_gzip, [&good[..], b"garbage"].concat()),
        (&with_gzip, gzip(&good)),
        (PROTOBUF, good.clone()),
        (PROTOBUF, JSON_REQUEST.as_bytes().to_vec()),
        (JSON, wire(3)),
    ] {
        assert_eq!(post(&receiver, headers, &body).await.status, 400, "{headers}");
    }
    assert_eq!(receiver.stats().http.requests_accepted, 0);
}

/// Faults 16.
#[tokio::test]
async fn a_body_at_the_limit_passes_and_one_byte_more_does_not() {
    let body = wire(100);
    for (limit, status) in [(body.len(), 200), (body.len() - 1, 413)] {
        let receiver = start_with(take_all, |builder| builder.http_request_bytes_max(limit)).await;
        assert_eq!(post(&receiver, PROTOBUF, &body).await.status, status);
        let answer = post(&receiver, &[PROTOBUF, GZIP].concat(), &gzip(&body)).await;
        assert_eq!(answer.status, status);
        assert!(!answer.headers.contains_key("retry-after"));
        let mut http = Http1::connect(receiver.http_address()).await;
        let chunked = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: test\r\n{PROTOBUF}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            body.len()
        );
        http.send(&[chunked.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()).await;
        assert_eq!(http.answer().await.status, status);
    }
}

/// Faults 47.
#[tokio::test]
async fn a_bomb_is_refused_for_good() {
    let receiver = start_with(take_all, |builder| builder.http_request_bytes_max(8 << 20)).await;
    let bomb = gzip(&vec![0; 100 << 20]);
    let answer = post(&receiver, &[PROTOBUF, GZIP].concat(), &bomb).await;
    assert_eq!((answer.status, status_code(&answer.body)), (413, 8));
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

/// Faults 91.
#[tokio::test]
async fn a_full_budget_asks_the_peer_to_come_back_before_the_body_is_read() {
    let (gate, mut arrivals, answers) = Gate::new();
    let body = wire(1000);
    let receiver = start_with(gate, |builder| room_for(3, body.len(), builder)).await;
    // The last eighth is not for requests as large as these.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut http = Http1::connect(receiver.http_address()).await;
        http.send(&[head(PROTOBUF, body.len()), body.clone()].concat()).await;
        assert_eq!(soon(arrivals.recv()).await, Some(1000));
        held.push(http);
    }
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(&head(PROTOBUF, body.len())).await;
    let answer = http.answer().await;
    assert_eq!((answer.status, status_code(&answer.body)), (429, 8));
    assert_eq!(answer.headers["retry-after"], "1");

    answers.add_permits(3);
    for mut http in held {
        assert_eq!(http.answer().await.status, 200);
    }
    assert_eq!(post(&receiver, PROTOBUF, &body).await.status, 200);
    assert_eq!(receiver.stats().in_flight_bytes, 0);
}

#[tokio::test]
async fn each_refusal_of_the_sink_is_a_status() {
    let message = || "why".to_owned();
    for (refusal, status, retry_after) in [
        (Refusal::Unavailable { retry_after: None }, 503, None),
        (Refusal::Unavailable { retry_after: Some(Duration::from_millis(1001)) }, 503, Some("2")),
        (Refusal::Exhausted { retry_after: Duration::from_secs(3) }, 429, Some("3")),
        (Refusal::TooLarge { message: message() }, 413, None),
        (Refusal::Invalid { message: message() }, 400, None),
        (Refusal::Internal { message: message() }, 500, None),
    ] {
        let answer = refusal.clone();
        let receiver = start(move |_: Received| std::future::ready(Err(answer.clone()))).await;
        let answer = post(&receiver, PROTOBUF, &wire(1)).await;
        assert_eq!(answer.status, status, "{refusal:?}");
        let header = answer.headers.get("retry-after").map(String::as_str);
        assert_eq!(header, retry_after, "{refusal:?}");
        status_code(&answer.body);
    }
}
