//! Limits that change while a receiver serves.

mod support;

use std::sync::Arc;

use spanwire_receiver::{Budget, Reason};
use support::*;
use tokio::sync::Semaphore;

/// For want of room, so that the peer comes back.
fn is_refused(call: &Call) -> bool {
    call.code == 8 && call.headers.contains_key("grpc-status-details-bin")
}

#[tokio::test]
async fn a_budget_becomes_smaller_and_larger_and_connections_stay() {
    let (gate, mut arrivals, answers) = Gate::new();
    let body = wire(1000);
    let budget = Arc::new(Budget::new(4 * body.len()));
    let receiver = start_with(gate, |builder| {
        room_for(4, body.len(), builder)
            .budget(Arc::clone(&budget))
            .grpc_request_bytes_max(body.len())
    })
    .await;
    let mut http2 = Http2::connect(receiver.grpc_address()).await;
    let message = framed(0, &body);
    let mut held = Vec::new();
    for _ in 0..3 {
        let (mut http2, message) = (http2.clone(), message.clone());
        held.push(tokio::spawn(async move { http2.call(&[], &message).await }));
        assert_eq!(soon(arrivals.recv()).await, Some(1000));
    }

    budget.set_bytes_max(2 * body.len());
    assert_eq!(receiver.stats().in_flight_bytes, 3 * body.len(), "nothing is taken back");
    assert!(is_refused(&http2.call(&[], &message).await));
    answers.add_permits(1);
    until(|| receiver.stats().in_flight_bytes == 2 * body.len()).await;
    assert!(is_refused(&http2.call(&[], &message).await), "it is full still");

    // More than the connection was allowed when it began.
    budget.set_bytes_max(6 * body.len());
    for _ in 0..4 {
        let (mut http2, message) = (http2.clone(), message.clone());
        held.push(tokio::spawn(async move { http2.call(&[], &message).await }));
        assert_eq!(soon(arrivals.recv()).await, Some(1000));
    }
    assert!(is_refused(&http2.call(&[], &message).await));
    answers.add_permits(Semaphore::MAX_PERMITS / 2);
    for call in held {
        assert_eq!(soon(call).await.expect("no panic").code, 0);
    }
    assert_eq!((budget.bytes(), receiver.stats().connections_accepted), (0, 1));
    assert_eq!(receiver.stats().grpc.refused(Reason::Budget).requests, 3);
}

#[tokio::test]
async fn places_for_connections_become_more_and_fewer() {
    let receiver = start_with(take_all, |builder| builder.connections_max(1)).await;
    let ask = async |http: &mut Http1| {
        http.send(&head(PROTOBUF, 0)).await;
        soon(http.answer()).await.status
    };
    let mut first = Http1::connect(receiver.http_address()).await;
    assert_eq!(ask(&mut first).await, 200);
    let mut second = Http1::connect(receiver.http_address()).await;
    second.send(&head(PROTOBUF, 0)).await;
    assert_eq!(ask(&mut first).await, 200);
    assert_eq!(receiver.stats().connections_accepted, 1);
    receiver.set_connections_max(3);
    assert_eq!(soon(second.answer()).await.status, 200);
    let mut third = Http1::connect(receiver.http_address()).await;
    assert_eq!(ask(&mut third).await, 200);

    receiver.set_connections_max(2);
    assert_eq!(receiver.connections_max(), 2);
    for open in [&mut first, &mut second, &mut third] {
        assert_eq!(ask(open).await, 200, "those that are open stay");
    }
    let mut fourth = Http1::connect(receiver.http_address()).await;
    fourth.send(&head(PROTOBUF, 0)).await;
    drop(first);
    until(|| receiver.stats().connections_open == 2).await;
    assert_eq!(ask(&mut second).await, 200);
    assert_eq!(receiver.stats().connections_accepted, 3, "there are two still");
    drop(second);
    assert_eq!(soon(fourth.answer()).await.status, 200);
}
