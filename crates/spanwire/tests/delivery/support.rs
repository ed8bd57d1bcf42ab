//! A real receiver on real sockets, and what it got.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spanwire::{Builder, Client, Diagnostics, Protocol, RetrySettings};
use spanwire_codec::view::Request;
use spanwire_receiver::{Accepted, Builder as ReceiverBuilder, Received, Receiver, Refusal};
use tokio::runtime::Runtime;

pub(crate) const PROTOCOLS: [Protocol; 3] =
    [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];

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
        Self::start_from(Receiver::builder(), answer)
    }

    /// A receiver with settings of its own.
    pub(crate) fn start_from(
        receiver: ReceiverBuilder,
        answer: impl Fn(&Received) -> Result<Accepted, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let localhost = SocketAddr::from(([127, 0, 0, 1], 0));
        let receiver = receiver.grpc(localhost).http(localhost);
        Self::bind(receiver, Arc::default(), Arc::new(answer))
    }

    fn bind(
        receiver: ReceiverBuilder,
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
        let receiver = runtime.block_on(receiver.bind(sink)).expect("free ports");
        Self { runtime, receiver: Some(receiver), requests }
    }

    fn receiver(&self) -> &Receiver {
        self.receiver.as_ref().expect("running")
    }

    pub(crate) fn address(&self, protocol: Protocol) -> SocketAddr {
        let address = match protocol {
            Protocol::Grpc => self.receiver().grpc_address(),
            Protocol::HttpProtobuf | Protocol::HttpJson => self.receiver().http_address(),
        };
        address.expect("bound")
    }

    pub(crate) fn endpoint(&self, protocol: Protocol) -> String {
        format!("http://{}", self.address(protocol))
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
        let receiver = Receiver::builder().grpc(self.grpc).http(self.http);
        Collector::bind(receiver, self.requests, answer)
    }
}

/// A client of any endpoint, with fast retries.
pub(crate) fn client(endpoint: &str) -> Builder {
    Client::builder()
        .environment(false)
        .diagnostics(Diagnostics::off())
        .service_name("test")
        .detect_resource(false)
        .protocol(Protocol::Grpc)
        .endpoint(endpoint)
        .retry(fast_retries())
}

pub(crate) fn fast_retries() -> RetrySettings {
    RetrySettings {
        interval_initial: Duration::from_millis(20),
        interval_max: Duration::from_millis(100),
        attempts_max: u32::MAX,
        ..RetrySettings::default()
    }
}

/// An endpoint where connections are made and never answered.
pub(crate) fn black_hole() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    (listener, endpoint)
}

/// The law of conservation. It holds whenever nothing moves: the exporter may be at work, so this
/// waits for such a moment.
pub(crate) fn assert_balanced(client: &Client) {
    let deadline = Instant::now() + LONG;
    loop {
        let stats = client.stats_of_all();
        let Some(off) = stats.iter().find(|stats| !stats.is_balanced()) else { return };
        assert!(Instant::now() < deadline, "{}: {off}", off.destination);
        std::thread::yield_now();
    }
}
