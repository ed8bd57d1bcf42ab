//! Spans of the same process.

mod support;

use std::sync::Arc;
use std::time::Duration;

use spanwire_collector::{CollectError, Collector, Inlet};
use spanwire_model::{Resource, Scope, Span, SpanContext, SpanId, TraceFlags, TraceId};
use support::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn span(number: u64) -> Span {
    let trace = TraceId::new(u128::from(number) + 1).expect("not zero");
    let id = SpanId::new(number + 1).expect("not zero");
    Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "work")
}

/// An inlet of a collector.
fn inlet(collector: &Collector) -> Inlet {
    let inlet = collector.inlet("traces", &Resource::default(), &Scope::new("test"));
    inlet.expect("there is such a pipeline")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_collected_by_ten_threads_arrive_once() {
    let (destination, arrived) = destination(takes_all).await;
    let collector = Collector::start(config(&to(&destination, ""))).await.expect("it starts");
    let inlet = Arc::new(inlet(&collector));
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
    let stats = Arc::into_inner(inlet).expect("the threads are gone").close(PATIENCE).await;
    assert_eq!((stats.collected, stats.forwarded, stats.lost), (10_000, 10_000, 0));
    until("all arrive", || arrived.count() == 10_000).await;
    assert_eq!((arrived.missing(10_000), arrived.duplicates()), (Vec::<u64>::new(), 0));
    assert_balanced(&collector);
    assert_eq!(collector.shutdown(PATIENCE).await.spans_lost, 0);
}

#[tokio::test]
async fn a_full_queue_is_an_error_to_whoever_collects_and_memory_stays_bounded() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1 }";
    let collector = Collector::start(config(&to_address(nobody, queue))).await.expect("it starts");
    let inlet = inlet(&collector);
    let batch: Vec<_> = (0..10_000).map(span).collect();
    let mut taken = 0;
    while inlet.collect_batch(&batch).is_ok() {
        taken += batch.len() as u64;
        assert!(taken < 10_000_000, "the queue has an end");
    }
    let stats = inlet.stats();
    assert_eq!((stats.collected, stats.refused), (taken, 10_000));
}

#[tokio::test]
async fn spans_that_memory_never_has_room_for_are_refused_and_hold_up_no_others() {
    let (destination, arrived) = destination(takes_all).await;
    let yaml = to(&destination, "").replace(
        "service:\n",
        "processors: { memory_limiter: { check_interval: 1s, limit_mib: 4 } }\nservice:\n",
    );
    let yaml = yaml.replace("exporters: [otlp]", "processors: [memory_limiter], exporters: [otlp]");
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let inlet = inlet(&collector);
    let many: Vec<_> = (0..100_000).map(span).collect();
    let refused = inlet.collect_batch(&many).expect_err("more than all there is");
    assert!(matches!(refused, CollectError::TooLarge { bytes: 4_000_000.., .. }), "{refused}");
    inlet.collect_batch(&many[..10_000]).expect("it fits");
    let stats = inlet.close(PATIENCE).await;
    assert_eq!((stats.forwarded, stats.lost, stats.refused), (10_000, 0, 100_000));
    until("all arrive", || arrived.count() == 10_000).await;
}

#[tokio::test]
async fn spans_that_never_fit_once_they_are_processed_are_lost_and_hold_up_no_others() {
    let (destination, arrived) = destination(takes_all).await;
    let value = "x".repeat(2_300);
    let processors = format!(
        "processors:
  memory_limiter: {{ check_interval: 1s, limit_mib: 10 }}
  attributes: {{ actions: [{{ key: long, value: {value}, action: insert }}] }}
  probabilistic_sampler: {{ sampling_percentage: 100 }}
  attributes/2: {{ actions: [{{ key: short, value: x, action: insert }}] }}
service:\n"
    );
    let yaml = to(&destination, "").replace("service:\n", &processors).replace(
        "exporters: [otlp]",
        "processors: [memory_limiter, attributes, probabilistic_sampler, attributes/2], exporters: [otlp]",
    );
    let collector = Collector::start(config(&yaml)).await.expect("it starts");
    let inlet = inlet(&collector);
    // Longer by 4.6 MB, all of which is written anew a second time: of 8 MiB, that is too much.
    let spans: Vec<_> = (0..2_010).map(span).collect();
    inlet.collect_batch(&spans[..2_000]).expect("it fits");
    until("they are lost", || inlet.stats().lost == 2_000).await;
    inlet.collect_batch(&spans[2_000..]).expect("it fits");
    let stats = inlet.close(PATIENCE).await;
    assert_eq!((stats.forwarded, stats.lost), (10, 2_000));
    until("the others arrive", || arrived.count() == 10).await;
}

#[tokio::test]
async fn what_a_pipeline_has_no_room_for_waits_in_the_inlet() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (slow, arrived) = destination_behind(&gate, takes_all).await;
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1, block_on_overflow: false }";
    let collector = Collector::start(config(&to(&slow, queue))).await.expect("it starts");
    let inlet = inlet(&collector);
    for round in 0..10_u64 {
        let spans: Vec<_> = (round * 1_000..(round + 1) * 1_000).map(span).collect();
        inlet.collect_batch(&spans).expect("the queue has room");
        until("the pipeline is asked", || {
            let account = account(&collector, "otlp");
            account.accepted == (round + 1) * 1_000 || account.refused > 0
        })
        .await;
    }
    until("the pipeline has no room", || account(&collector, "otlp").refused > 0).await;
    gate.close();
    let stats = inlet.close(PATIENCE).await;
    assert_eq!((stats.forwarded, stats.lost), (10_000, 0));
    until("all arrive", || arrived.count() == 10_000).await;
    assert_balanced(&collector);
}

#[tokio::test]
async fn closing_ends_at_its_deadline_and_tells_what_was_lost() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let queue = "    sending_queue: { queue_size: 1, num_consumers: 1 }";
    let collector = Collector::start(config(&to_address(nobody, queue))).await.expect("it starts");
    let inlet = inlet(&collector);
    let batch: Vec<_> = (0..30_000).map(span).collect();
    for _ in 0..20 {
        inlet.collect_batch(&batch).expect("the queue has room");
    }
    let stats = tokio::time::timeout(PATIENCE, inlet.close(Duration::from_millis(300))).await;
    let stats = stats.expect("it ends");
    assert!(stats.lost > 0, "{stats:?}");
    assert_eq!((stats.collected, stats.forwarded + stats.lost), (600_000, 600_000));
}
