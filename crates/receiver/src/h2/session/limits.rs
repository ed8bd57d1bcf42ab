//! The settings of a receiver, as far as they concern a session.

use crate::body::Pace;
use crate::settings::Settings;

/// What a session keeps to, of [`Settings`].
#[derive(Clone, Copy, Debug)]
pub(in crate::h2) struct Limits {
    pub(super) request_bytes_max: usize,
    pub(super) header_bytes_max: usize,
    pub(super) streams_max: usize,
    pub(super) frame_bytes_max: u32,
    pub(super) stream_window_bytes: u32,
    pub(super) connection_window_bytes: u32,
    pub(super) pace: Pace,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        Self {
            request_bytes_max: settings.grpc_request_bytes_max,
            header_bytes_max: settings.header_bytes_max as usize,
            streams_max: settings.streams_max as usize,
            frame_bytes_max: settings.frame_bytes_max,
            stream_window_bytes: settings.stream_window_bytes,
            connection_window_bytes: settings.connection_window_bytes,
            pace: settings.pace(),
        }
    }
}
