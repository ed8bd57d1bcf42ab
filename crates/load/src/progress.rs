//! How far a run is, on standard error.

use std::cell::Cell;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use spanwire_load::Progress;

/// A bar on a terminal; a line now and then where it is not one.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    next_line: Cell<Duration>,
}

impl Bar {
    /// For a run of this length.
    pub(crate) fn new(total: Duration) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(millis(total));
            match ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}") {
                Ok(style) => bar.with_style(style),
                Err(_only_looks) => bar,
            }
        });
        Self { bar, next_line: Cell::new(LINE_EVERY) }
    }

    pub(crate) fn show(&self, progress: Progress) {
        let Progress { elapsed, spans_sent, spans_accepted, requests_failed, .. } = progress;
        let counts = || {
            let (sent, accepted) = (HumanCount(spans_sent), HumanCount(spans_accepted));
            let failed = HumanCount(requests_failed);
            format!("{sent} spans sent, {accepted} accepted, {failed} requests failed")
        };
        match &self.bar {
            Some(bar) => {
                bar.set_position(millis(elapsed));
                bar.set_message(counts());
            }
            None if elapsed >= self.next_line.get() => {
                eprintln!("{:>4} s: {}", elapsed.as_secs(), counts());
                self.next_line.set(self.next_line.get() + LINE_EVERY);
            }
            None => {}
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const LINE_EVERY: Duration = Duration::from_secs(10);
