//! Faults of our own: code that panics where a destination is being served.
//!
//! What panics is the log of this process, on each line about a destination of one name. It is the
//! one piece of code within a destination that a test can put there.

use std::fmt;
use std::sync::atomic::Ordering;

use spanwire_collector::{Collector, DropReason};
use spanwire_transport::Protocol;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::support::*;

struct Panics;

const ILL_FATED: &str = "otlp/panics";

impl<S: Subscriber> Layer<S> for Panics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Component(bool);
        impl Visit for Component {
            fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

            fn record_str(&mut self, field: &Field, value: &str) {
                self.0 |= field.name() == "component" && value == ILL_FATED;
            }
        }
        let mut component = Component(false);
        event.record(&mut component);
        assert!(!component.0, "a line about {ILL_FATED}");
    }
}

/// Faults 164.
#[tokio::test]
async fn a_panic_while_a_request_is_sent_costs_that_request_alone_and_is_counted() {
    // On this thread, which is the only one of the test's runtime.
    let _panics = tracing::subscriber::set_default(tracing_subscriber::registry().with(Panics));
    let (well, arrived) = destination(takes_all).await;
    let (ill, arrived_there, away) = away().await;
    let another = format!(
        "  {ILL_FATED}:
    endpoint: {}
    tls: {{ insecure: true }}
    compression: none
    sending_queue: {{ num_consumers: 1, wait_for_result: true }}
",
        ill.grpc_address().expect("served")
    );
    let yaml = to(&well, &another).replace("exporters: [otlp]", "exporters: [otlp, otlp/panics]");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let sender = Sender::new(&collector, Protocol::Grpc);

    let told = sender.send(request(0, 10), 10).await;
    assert!(told.is_err(), "who waits for a result is told that there is none: {told:?}");
    until("it is counted", || account(&collector, ILL_FATED).dropped(DropReason::Internal) == 10)
        .await;
    assert_balanced(&collector);
    until("the other has it", || arrived.count() == 10).await;

    // Its only consumer is free again.
    away.store(false, Ordering::Relaxed);
    sender.send(request(10, 10), 10).await.expect("all is well");
    until("it is sent", || arrived_there.count() == 10 && arrived.count() == 20).await;
    let there = account(&collector, ILL_FATED);
    assert_eq!((there.accepted, there.sent, there.requests_in_flight), (20, 10, 0));
    assert_balanced(&collector);
}
