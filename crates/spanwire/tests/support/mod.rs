//! A real receiver on real sockets, and what it got.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use spanwire::{Builder, Client, Protocol, RetrySettings};
use spanwire_codec::view::Request;
use spanwire_receiver::{Accepted, Received, Receiver, Refusal};
use tokio::runtime::Runtime;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything here takes; reached only by a test that fails.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// What the collector answers to a request.
pub(crate) type Answer = dyn Fn(&Received) -> Result<Accepted, Refusal> + Send + Sync;

/// A receiver on a runtime of its own, so that tests need none.
pub(crate) struct Collector {
    runtime: Runtime,
    receiver: Option<Receiver>,
    requests: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| Ok(Accepted::default()))
    }

    pub(crate) fn start_with(
        answer: impl Fn(&Received) -> Result<Accepted, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let localhost = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::bind(localhost, localhost, Arc::default(), Arc::new(answer))
    }

    fn bind(
        grpc: SocketAddr,
        http: SocketAddr,
        requests: Arc<Mutex<Vec<Bytes>>>,
        answer: Arc<Answer>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let kept = Arc::clone(&requests);
        let sink = move |received: Received| {
            let answer = answer(&received);
            if answer.is_ok() {
                kept.lock().expect("no panic").push(received.request.clone());
            }
            std::future::ready(answer)
        };
        let receiver = Receiver::builder().grpc(grpc).http(http).bind(sink);
        let receiver = runtime.block_on(receiver).expect("free ports");
        Self { runtime, receiver: Some(receiver), requests }
    }

    fn receiver(&self) -> &Receiver {
        self.receiver.as_ref().expect("running")
    }

    pub(crate) fn endpoint(&self, protocol: Protocol) -> String {
        let address = match protocol {
            Protocol::Grpc => self.receiver().grpc_address(),
            Protocol::HttpProtobuf | Protocol::HttpJson => self.receiver().http_address(),
        };
        format!("http://{}", address.expect("bound"))
    }

    /// A client of this collector, with fast retries.
    pub(crate) fn client(&self, protocol: Protocol) -> Builder {
        client(&self.endpoint(protocol)).protocol(protocol)
    }

    /// Stops it at once, connections and all; returns where it was and what it had.
    pub(crate) fn stop(mut self) -> Stopped {
        let receiver = self.receiver.take().expect("running");
        let grpc = receiver.grpc_address().expect("bound");
        let http = receiver.http_address().expect("bound");
        self.runtime.block_on(receiver.shutdown(Duration::ZERO));
        Stopped { grpc, http, requests: self.requests }
    }

    /// The spans received so far, by name, with how often each came.
    pub(crate) fn names(&self) -> HashMap<String, usize> {
        let mut names = HashMap::new();
        for request in self.requests.lock().expect("no panic").iter() {
            let request = Request::parse(request).expect("the receiver checked it");
            for resource in request.resource_spans() {
                for span in resource.scope_spans().flat_map(|scope| scope.spans()) {
                    span.check().expect("a whole span");
                    let name = String::from_utf8(span.name().to_vec()).expect("UTF-8");
                    *names.entry(name).or_default() += 1;
                }
            }
        }
        names
    }

    pub(crate) fn requests(&self) -> Vec<Bytes> {
        self.requests.lock().expect("no panic").clone()
    }
}

/// A collector that is down.
pub(crate) struct Stopped {
    grpc: SocketAddr,
    http: SocketAddr,
    requests: Arc<Mutex<Vec<Bytes>>>,
}

impl Stopped {
    /// Starts it again where it was.
    pub(crate) fn restart(self) -> Collector {
        let answer = Arc::new(|_: &Received| Ok(Accepted::default()));
        Collector::bind(self.grpc, self.http, self.requests, answer)
    }
}

/// A client of any endpoint, with fast retries.
pub(crate) fn client(endpoint: &str) -> Builder {
    Client::builder().service_name("test").detect_resource(false).endpoint(endpoint).retry(
        RetrySettings {
            interval_initial: Duration::from_millis(20),
            interval_max: Duration::from_millis(100),
            attempts_max: u32::MAX,
            ..RetrySettings::default()
        },
    )
}

/// The law of conservation, once nothing moves.
pub(crate) fn assert_balanced(client: &Client) {
    let stats = client.stats();
    assert!(stats.is_balanced(), "{stats}");
}
