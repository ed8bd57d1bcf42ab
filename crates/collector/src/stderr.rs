//! The log of the process: lines on standard error, written by a thread of their own.
//!
//! Whoever logs never waits. While nobody reads standard error, lines are dropped, and their number is
//! told when somebody does.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use spanwire_config::{Level, LogEncoding, Logs};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

/// The log, as it was started.
pub(crate) struct Log {
    lines: Lines,
    level: reload::Handle<LevelFilter, Registry>,
    encoding: LogEncoding,
}

/// Lines that wait to be written.
const LINES_MAX: usize = 1024;
/// An end of the process waits so long for them.
const FLUSH_MAX: Duration = Duration::from_secs(1);

impl Log {
    /// From here on, whatever this process logs is written.
    pub(crate) fn start(logs: &Logs) -> io::Result<Self> {
        let lines = Lines::start(io::stderr(), logs.encoding)?;
        let writer = lines.clone();
        let (filter, level) = reload::Layer::new(filter(logs.level));
        let layer =
            fmt::layer().with_writer(move || writer.clone()).with_ansi(io::stderr().is_terminal());
        let layer = match logs.encoding {
            LogEncoding::Console => layer.with_target(false).boxed(),
            LogEncoding::Json => layer.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(layer).init();
        Ok(Self { lines, level, encoding: logs.encoding })
    }

    /// Takes over the settings of a configuration that took the place of another.
    pub(crate) fn change(&self, logs: &Logs) {
        // It lasts as long as the process.
        let _there = self.level.reload(filter(logs.level));
        if logs.encoding != self.encoding {
            tracing::warn!("service::telemetry::logs::encoding takes effect at the next start");
        }
    }

    /// Waits for what was logged to be written, but not for long.
    pub(crate) fn flush(&self) {
        self.lines.wait(Instant::now() + FLUSH_MAX);
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    }
}

/// Where lines are handed over.
#[derive(Clone)]
struct Lines {
    waiting: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    /// To be answered when all before it is written.
    Flush(SyncSender<()>),
}

impl Lines {
    fn start(to: impl Write + Send + 'static, encoding: LogEncoding) -> io::Result<Self> {
        let (waiting, messages) = mpsc::sync_channel(LINES_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let lines = Self { waiting, dropped: Arc::clone(&dropped) };
        thread::Builder::new()
            .name("spanwire-log".into())
            .spawn(move || write(&messages, &dropped, to, encoding))?;
        Ok(lines)
    }

    fn wait(&self, until: Instant) {
        let (written, wait) = mpsc::sync_channel(1);
        let mut message = Message::Flush(written);
        while let Err(TrySendError::Full(back)) = self.waiting.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = back;
            thread::sleep(Duration::from_millis(10));
        }
        let left = until.saturating_duration_since(Instant::now());
        let _in_time = wait.recv_timeout(left);
    }
}

/// A whole line at each call.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.waiting.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(
    messages: &Receiver<Message>,
    dropped: &AtomicU64,
    mut to: impl Write,
    encoding: LogEncoding,
) {
    for message in messages {
        match message {
            Message::Line(line) => {
                // There is nobody to tell where standard error is closed.
                let _closed = to.write_all(&line);
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _closed = to.write_all(told(lost, encoding).as_bytes());
                }
            }
            Message::Flush(written) => {
                let _closed = to.flush();
                // Whoever asked may have waited long enough.
                let _gone = written.try_send(());
            }
        }
    }
}

fn told(lost: u64, encoding: LogEncoding) -> String {
    match encoding {
        LogEncoding::Console => {
            format!(" WARN standard error was not read: {lost} lines of the log are missing here\n")
        }
        LogEncoding::Json => format!(
            "{{\"level\":\"WARN\",\"message\":\"standard error was not read\",\"lines_missing\":{lost}}}\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Takes nothing while the lock is held elsewhere.
    #[derive(Clone, Default)]
    struct Stuck(Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_logs_does_not_wait_and_what_is_missing_is_told() {
        let reader = Stuck::default();
        let mut lines = Lines::start(reader.clone(), LogEncoding::Console).expect("a thread");
        let held = reader.0.lock().expect("no panic");
        let count = LINES_MAX + 500;
        for _ in 0..count {
            lines.write_all(b"line\n").expect("it does not wait");
        }
        lines.wait(Instant::now());
        drop(held);
        lines.wait(Instant::now() + Duration::from_secs(30));
        let text = String::from_utf8(reader.0.lock().expect("no panic").clone()).expect("text");
        let written = text.lines().filter(|line| *line == "line").count();
        let missing: usize = text
            .lines()
            .filter_map(|line| {
                line.split_once("not read: ")?.1.split(' ').next()?.parse::<usize>().ok()
            })
            .sum();
        assert!(missing >= 499, "{missing}");
        assert_eq!(written + missing, count);
    }
}
