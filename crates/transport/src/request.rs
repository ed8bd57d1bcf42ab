//! What goes out, for either protocol, and who reads the answer.

use ::http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

use crate::body::Outgoing;
use crate::config::{InvalidConfig, Protocol, TransportConfig};
use crate::connect::Connector;
use crate::connections::Generation;
use crate::encode::Encoded;
use crate::endpoint::Endpoint;
use crate::error::SendError;
use crate::response::Accepted;
use crate::{grpc, http};

/// All of a request to one endpoint but its body.
pub(crate) struct Template {
    url: Uri,
    headers: HeaderMap,
    /// The header that names a compression.
    coding_header: ::http::HeaderName,
}

impl Template {
    pub(crate) fn new(
        config: &TransportConfig,
        endpoint: &Endpoint,
        connector: &Connector,
    ) -> Result<Self, InvalidConfig> {
        let mut headers = config.headers.clone();
        headers.insert(header::USER_AGENT, config.user_agent.clone());
        let content_type = match config.protocol {
            Protocol::Grpc => grpc::CONTENT_TYPE,
            Protocol::HttpProtobuf => http::PROTOBUF,
            Protocol::HttpJson => http::JSON,
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(authorization) = connector.forward_authorization() {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        let mut url = endpoint.url.clone();
        let mut coding_header = header::CONTENT_ENCODING;
        if config.protocol == Protocol::Grpc {
            url = grpc::method_url(url)?;
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            coding_header = grpc::ENCODING;
        }
        Ok(Self { url, headers, coding_header })
    }

    fn request(&self, encoded: &Encoded) -> Request<Outgoing> {
        let mut request = Request::new(encoded.outgoing());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(coding) = encoded.compression.coding() {
            let coding = HeaderValue::from_static(coding);
            request.headers_mut().insert(self.coding_header.clone(), coding);
        }
        request
    }
}

/// One request and its whole answer.
pub(crate) async fn exchange(
    generation: &Generation,
    template: &Template,
    encoded: &Encoded,
) -> Result<Accepted, SendError> {
    let response = generation.send(template.request(encoded)).await?;
    match encoded.protocol {
        Protocol::Grpc => grpc::read(response, encoded.spans()).await,
        Protocol::HttpProtobuf | Protocol::HttpJson => http::read(response, encoded.spans()).await,
    }
}
