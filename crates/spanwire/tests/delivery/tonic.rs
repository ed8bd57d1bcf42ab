//! A collector on tonic, whose word for "too large" is a code that may be repeated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::{LONG, assert_balanced, client};

#[derive(Clone, Default)]
struct Collector(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = &request.get_ref().resource_spans;
        let scopes = resources.iter().flat_map(|resource| &resource.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Faults 99, 107. Pitfall 8.
#[test]
fn out_of_range_with_a_limit_in_its_message_splits_the_batch() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let collector = Collector::default();
    let localhost = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = runtime.block_on(TcpListener::bind(localhost)).expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let service = TraceServiceServer::new(collector.clone()).max_decoding_message_size(1 << 20);
    let server = Server::builder().add_service(service);
    runtime.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let client = client(&endpoint).build().expect("valid");
    let tracer = client.tracer("large");
    let text = "x".repeat(20_000);
    (0..150).for_each(|_| tracer.start("large").set_attribute("text", text.as_str()));
    let report = client.flush_blocking(LONG);
    assert!(report.complete && report.dropped == 0, "{report}: {:?}", client.stats());
    assert_eq!(collector.0.load(Ordering::Relaxed), 150);
    assert!(client.stats().failures <= 2, "one refusal tells the limit: {:?}", client.stats());
    assert_balanced(&client);
}
