//! fastrace, whose finished spans go nowhere.

use std::borrow::Cow;
use std::hint::black_box;

use fastrace::Span;
use fastrace::collector::{Config, Reporter, SpanRecord};
use fastrace::prelude::SpanContext;

use crate::fixtures::{METHOD, NAME, PORT, ROUTE, Request, SERVER, USER_AGENT};

/// Starts fastrace's collector thread, which assembles the spans and drops them.
pub fn start_fastrace() {
    fastrace::set_reporter(DropRecords, Config::default());
}

struct DropRecords;

impl Reporter for DropRecords {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        drop(black_box(spans));
    }
}

impl Request {
    /// Records it the same way with fastrace, which has no kind of span and no other values than
    /// texts: the integers become some, and constant texts are static.
    #[inline]
    pub fn record_fastrace(&self) {
        let span = Span::root(NAME, SpanContext::random());
        drop(span.with_properties(|| {
            [
                ("http.request.method", Cow::Borrowed(METHOD)),
                ("http.route", Cow::Borrowed(ROUTE)),
                ("url.path", Cow::Owned(self.path.clone())),
                ("server.address", Cow::Borrowed(SERVER)),
                ("server.port", Cow::Owned(PORT.to_string())),
                ("client.address", Cow::Owned(self.client.clone())),
                ("user_agent.original", Cow::Borrowed(USER_AGENT)),
                ("http.response.status_code", Cow::Owned(self.status.to_string())),
            ]
        }));
    }
}
