//! Spans of the same process.

mod support;

use std::sync::Arc;
use std::time::Duration;

use spanwire_collector::Collector;
use spanwire_model::{Resource, Scope, Span, SpanContext, SpanId, TraceFlags, TraceId};
use support::*;

fn span(number: u64) -> Span {
    let trace = TraceId::new(u128::from(number) + 1).expect("not zero");
    let id = SpanId::new(number + 1).expect("not zero");
    Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "work")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_collected_by_ten_threads_arrive_once() {
    let (destination, arrived) = destination(takes_all).await;
    let collector = Collector::start(config(&to(&destination, ""))).await.expect("it starts");
    let inlet = collector.inlet("traces", &Resource::default(), &Scope::new("test"));
    let inlet = Arc::new(inlet.expect("there is such a pipeline"));
    let threads = (0..10).map(|thread| {
        let inlet = Arc::clone(&inlet);
        std::thread::spawn(move || {
            for number in thread * 1_000..(thread + 1) * 1_000 {
                while inlet.collect(&span(number)).is_err() {
                    std::thread::yield_now();
                }
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        tokio::task::block_in_place(|| thread.join()).expect("no panic");
    }
    let stats = Arc::into_inner(inlet).expect("the threads are gone").close().await;
    assert_eq!((stats.collected, stats.forwarded, stats.lost), (10_000, 10_000, 0));
    until("all arrive", || arrived.count() == 10_000).await;
    assert_eq!((arrived.missing(10_000), arrived.duplicates()), (Vec::<u64>::new(), 0));
    assert_balanced(&collector);
    assert_eq!(collector.shutdown(Duration::from_secs(10)).await.spans_lost, 0);
}

#[tokio::test]
async fn a_full_queue_is_an_error_to_whoever_collects_and_memory_stays_bounded() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1 }";
    let collector = Collector::start(config(&to_address(nobody, queue))).await.expect("it starts");
    let inlet = collector.inlet("traces", &Resource::default(), &Scope::new("test"));
    let inlet = inlet.expect("there is such a pipeline");
    let batch: Vec<_> = (0..10_000).map(span).collect();
    let mut taken = 0;
    while inlet.collect_batch(&batch).is_ok() {
        taken += batch.len() as u64;
        assert!(taken < 10_000_000, "the queue has an end");
    }
    let stats = inlet.stats();
    assert_eq!((stats.collected, stats.refused), (taken, 10_000));
}
