//! Cross-origin requests, as browsers make them, over real sockets.

mod support;

use spanwire_receiver::{BindError, Cors, Receiver};
use support::*;

const PAGE: &str = "https://shop.example";

fn listed(origins: &[&str], headers: &[&str]) -> Cors {
    let owned = |list: &[&str]| list.iter().map(|&entry| entry.to_owned()).collect();
    Cors {
        allowed_origins: owned(origins),
        allowed_headers: owned(headers),
        max_age: Some(std::time::Duration::from_secs(7200)),
    }
}

async fn serving(cors: Cors) -> Receiver {
    start_with(take_all, |builder| builder.cors(cors)).await
}

/// A preflight of a POST with these headers to set; `lines` are whole lines.
async fn preflight(receiver: &Receiver, lines: &str) -> Answer {
    let mut http = Http1::connect(receiver.http_address()).await;
    http.send(format!("OPTIONS /v1/traces HTTP/1.1\r\nHost: test\r\n{lines}\r\n").as_bytes()).await;
    http.answer().await
}

/// Faults 59.
#[tokio::test]
async fn a_page_that_may_send_is_told_so_before_and_after() {
    let receiver = serving(listed(&["https://*.example"], &["X-Tenant"])).await;
    let asked = "Access-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: content-type,x-tenant\r\n";
    let answer = preflight(&receiver, &format!("Origin: {PAGE}\r\n{asked}")).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
    assert_eq!(answer.headers["access-control-allow-credentials"], "true");
    assert_eq!(answer.headers["access-control-allow-methods"], "POST");
    assert_eq!(answer.headers["access-control-allow-headers"], "content-type,x-tenant");
    assert_eq!(answer.headers["access-control-max-age"], "7200");
    assert!(answer.headers["vary"].contains("Origin"));
    let stats = receiver.stats().http;
    assert_eq!((stats.requests_accepted, stats.refused_in_all().requests), (0, 0), "not counted");

    for (body, status) in [(wire(1), 200), (b"\xFF".to_vec(), 400)] {
        let answer = post(&receiver, &format!("{PROTOBUF}Origin: {PAGE}\r\n"), &body).await;
        assert_eq!(answer.status, status);
        // A page must be able to read why it failed, too.
        assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
        assert_eq!(answer.headers["access-control-allow-credentials"], "true");
        assert_eq!(answer.headers["vary"], "Origin");
    }
}

/// Faults 59.
#[tokio::test]
async fn a_page_that_may_not_send_is_told_nothing() {
    let receiver = serving(listed(&[PAGE], &["X-Tenant"])).await;
    let post_method = "Access-Control-Request-Method: POST\r\n";
    for lines in [
        format!("Origin: https://evil.example\r\n{post_method}"),
        post_method.to_owned(),
        format!("Origin: {PAGE}\r\nAccess-Control-Request-Method: DELETE\r\n"),
        format!("Origin: {PAGE}\r\n{post_method}Access-Control-Request-Headers: x-other\r\n"),
        format!("Origin: {PAGE}\r\n{post_method}Access-Control-Request-Headers: x-tenant, x-o\r\n"),
        format!(
            "Origin: {PAGE}\r\n{post_method}Access-Control-Request-Headers: x-tenant\r\n\
             Access-Control-Request-Headers: x-other\r\n"
        ),
    ] {
        let answer = preflight(&receiver, &lines).await;
        assert_eq!(answer.status, 204, "{lines}");
        let allowed = answer.headers.keys().find(|name| name.starts_with("access-control"));
        assert_eq!(allowed, None, "{lines}");
    }
    // Whoever is no browser may always send; a browser keeps the answer from the page.
    let headers = format!("{PROTOBUF}Origin: https://evil.example\r\n");
    let answer = post(&receiver, &headers, &wire(1)).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    assert_eq!(answer.headers["vary"], "Origin", "caches must not mix the two");
}

#[tokio::test]
async fn headers_are_allowed_as_the_collector_allows_them() {
    for (listed_headers, asked, is_allowed) in [
        (&[][..], "accept, accept-language, content-language, content-type", true),
        (&[], "X-Requested-With", true),
        (&[], "x-tenant", false),
        (&["x-tenant"], "X-TENANT,Content-Type", true),
        (&["x-tenant"], "x-requested-with", false),
        (&["*"], "anything, at-all", true),
    ] {
        let receiver = serving(listed(&[PAGE], listed_headers)).await;
        let lines = format!(
            "Origin: {PAGE}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: {asked}\r\n"
        );
        let answer = preflight(&receiver, &lines).await;
        let allowed = answer.headers.get("access-control-allow-headers").map(String::as_str);
        assert_eq!(allowed, is_allowed.then_some(asked), "{listed_headers:?}");
    }
}

/// Faults 59.
#[tokio::test]
async fn without_origins_there_is_no_cors() {
    for cors in [Cors::default(), listed(&[], &["X-Tenant"])] {
        let receiver = serving(cors).await;
        let lines = format!("Origin: {PAGE}\r\nAccess-Control-Request-Method: POST\r\n");
        assert_eq!(preflight(&receiver, &lines).await.status, 405);
        let answer = post(&receiver, &format!("{PROTOBUF}Origin: {PAGE}\r\n"), &wire(1)).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        assert!(!answer.headers.contains_key("vary"));
    }
    // And OPTIONS alone is no preflight.
    let receiver = serving(listed(&["*"], &[])).await;
    assert_eq!(preflight(&receiver, "").await.status, 405);
}

#[tokio::test]
async fn an_origin_of_two_wildcards_is_refused() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let builder = Receiver::builder().http(any).cors(listed(&["https://*.*"], &[]));
    assert!(matches!(builder.bind(take_all).await, Err(BindError::Setting { .. })));
}

/// Faults 69.
#[tokio::test]
async fn a_preflight_leaves_its_connection_open_for_the_request() {
    let receiver = serving(listed(&["*"], &[])).await;
    let mut http = Http1::connect(receiver.http_address()).await;
    for _ in 0..2 {
        let lines = format!("Origin: {PAGE}\r\nAccess-Control-Request-Method: POST\r\n");
        http.send(format!("OPTIONS /v1/traces HTTP/1.1\r\nHost: test\r\n{lines}\r\n").as_bytes())
            .await;
        let answer = http.answer().await;
        assert_eq!((answer.status, &*answer.headers["access-control-allow-origin"]), (204, "*"));
        http.send(&[head(PROTOBUF, wire(1).len()), wire(1)].concat()).await;
        assert_eq!(http.answer().await.status, 200);
    }
    assert_eq!(receiver.stats().connections_accepted, 1);
}
