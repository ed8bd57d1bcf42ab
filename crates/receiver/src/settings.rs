//! The values behind [`Builder`](crate::Builder): their defaults, and the ranges they keep to.

use std::time::Duration;

use http::Uri;
use tokio::sync::Semaphore;

use crate::body::Pace;
use crate::builder::BindError;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) grpc_request_bytes_max: usize,
    pub(crate) http_request_bytes_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) connection_bytes_max: Option<usize>,
    pub(crate) elements_max: usize,
    pub(crate) http_traces_path: String,
    pub(crate) keep_compressed: bool,
    pub(crate) connections_max: usize,
    pub(crate) streams_max: u32,
    pub(crate) frame_bytes_max: u32,
    pub(crate) stream_window_bytes: u32,
    pub(crate) connection_window_bytes: u32,
    pub(crate) header_bytes_max: u32,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) header_read_timeout: Duration,
    pub(crate) body_read_timeout: Duration,
    /// Bytes a second.
    pub(crate) body_rate_min: u32,
    pub(crate) write_timeout: Duration,
    pub(crate) idle_max: Duration,
    pub(crate) connection_age: Option<ConnectionAge>,
}

/// When a connection must end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionAge {
    /// No new requests after this.
    pub(crate) max: Duration,
    /// No requests at all after this much more.
    pub(crate) grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grpc_request_bytes_max: REQUEST_BYTES_MAX,
            http_request_bytes_max: REQUEST_BYTES_MAX,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            connection_bytes_max: None,
            elements_max: REQUEST_BYTES_MAX / ELEMENT_BYTES_LEAST,
            http_traces_path: HTTP_TRACES_PATH.to_owned(),
            keep_compressed: false,
            connections_max: 1024,
            streams_max: 256,
            frame_bytes_max: 1 << 20,
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 4 << 20,
            header_bytes_max: 16 << 10,
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(20),
            header_read_timeout: Duration::from_secs(30),
            body_read_timeout: Duration::from_secs(30),
            body_rate_min: 256 << 10,
            write_timeout: Duration::from_secs(30),
            idle_max: Duration::from_mins(5),
            connection_age: None,
        }
    }
}

impl Settings {
    pub(crate) fn pace(&self) -> Pace {
        Pace { timeout: self.body_read_timeout, rate_min: self.body_rate_min.into() }
    }

    /// What several requests of one connection may take of the budget, and what the only one may.
    pub(crate) fn connection_bytes_max(&self) -> (usize, usize) {
        let several = self.connection_bytes_max.unwrap_or(self.in_flight_bytes_max / 2);
        (several, several.max(self.share_least()))
    }

    /// The largest request as sent, and as it comes out of decompression.
    fn share_least(&self) -> usize {
        self.grpc_request_bytes_max.max(self.http_request_bytes_max).saturating_mul(2)
    }

    /// These settings, with durations that nobody lives to see cut to some that clocks can add.
    pub(crate) fn checked(mut self) -> Result<Self, BindError> {
        let age = self.connection_age.iter_mut();
        let durations = [
            &mut self.keep_alive_interval,
            &mut self.keep_alive_timeout,
            &mut self.header_read_timeout,
            &mut self.body_read_timeout,
            &mut self.write_timeout,
            &mut self.idle_max,
        ]
        .into_iter()
        .chain(age.flat_map(|age| [&mut age.max, &mut age.grace]));
        let mut shortest = Duration::MAX;
        for duration in durations {
            shortest = shortest.min(*duration);
            *duration = (*duration).min(DURATION_MAX);
        }
        let checks = [
            (
                self.grpc_request_bytes_max > 0 && self.http_request_bytes_max > 0,
                "a request limit must not be 0",
            ),
            (
                self.in_flight_bytes_max >= self.share_least(),
                "in_flight_bytes_max must be at least twice the larger request limit",
            ),
            (self.connection_bytes_max != Some(0), "connection_bytes_max must not be 0"),
            (self.elements_max > 0, "elements_max must not be 0"),
            (
                is_path(&self.http_traces_path),
                "http_traces_path must be a path from / on, without a query",
            ),
            (
                (1..=Semaphore::MAX_PERMITS).contains(&self.connections_max),
                "connections_max must be 1 to usize::MAX / 8",
            ),
            (self.streams_max > 0, "streams_max must not be 0"),
            (
                // RFC 9113 section 6.5.2, SETTINGS_MAX_FRAME_SIZE.
                (1 << 14..1 << 24).contains(&self.frame_bytes_max),
                "frame_bytes_max must be 16 KiB to 16 MiB less 1",
            ),
            (
                // RFC 9113 section 6.5.2, SETTINGS_INITIAL_WINDOW_SIZE.
                // Section 6.9.3 there: until a peer knows better, it may send this much.
                (65_535..1 << 31).contains(&self.stream_window_bytes),
                "stream_window_bytes must be 65,535 to 2 GiB less 1",
            ),
            (
                // RFC 9113 section 6.9.2: a connection starts with 65,535, and may only gain.
                (65_535..1 << 31).contains(&self.connection_window_bytes),
                "connection_window_bytes must be 65,535 to 2 GiB less 1",
            ),
            (
                // What clients and the proxies before them may send without being asked.
                self.header_bytes_max >= 1 << 13,
                "header_bytes_max must be at least 8 KiB",
            ),
            (self.body_rate_min > 0, "the rate of a body must not be 0"),
            (!shortest.is_zero(), "a duration must not be 0"),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            None => Ok(self),
            Some((_, rule)) => Err(BindError::Setting { rule }),
        }
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.parse::<Uri>().is_ok_and(|uri| uri.path() == text)
}

/// A year.
const DURATION_MAX: Duration = Duration::from_hours(24 * 365);

/// 64 MiB, for either transport: what the specification recommends servers to take, so that what a
/// conforming client may send is never too large here.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// The largest request can be in flight on both transports at once, compressed and decompressed.
const IN_FLIGHT_BYTES_MAX: usize = 2 // transports
    * 2 // a request as sent, and as it comes out of decompression
    * REQUEST_BYTES_MAX;

/// An attribute with a key of two letters and a small number takes 10 bytes, a span 30 and more;
/// requests of nothing but the smallest attributes are not what applications send.
const ELEMENT_BYTES_LEAST: usize = 16;

/// "OTLP/HTTP Request" in `docs/specification.md`, opentelemetry-proto v1.11.0.
const HTTP_TRACES_PATH: &str = "/v1/traces";
