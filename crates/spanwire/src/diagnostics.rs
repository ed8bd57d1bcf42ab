//! What the exporter says to people, and how often.

use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::explain::{Explanation, shown};

/// Where the exporter says what people should know: a setting that was ignored, a collector that
/// cannot be reached, spans that were lost.
///
/// What happens again and again is said at once and then at most once a minute, with how often it
/// happened meanwhile. The default is [`stderr`](Self::stderr) at [`Severity::Info`].
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use spanwire::{Client, Diagnostics};
///
/// let said = Arc::new(Mutex::new(Vec::new()));
/// let kept = Arc::clone(&said);
/// let diagnostics = Diagnostics::to(move |diagnostic| {
///     if let Ok(mut kept) = kept.lock() {
///         kept.push(diagnostic.to_string());
///     }
/// });
/// let builder = Client::builder().diagnostics(diagnostics);
/// # let _ = (builder, said);
/// ```
///
/// Each clone counts by itself what it has said, so that a destination that is lost does not keep
/// the others from being heard.
pub struct Diagnostics {
    sink: Sink,
    limiter: Mutex<Limiter>,
    stderr: Patient,
}

#[derive(Clone)]
enum Sink {
    Off,
    Stderr(Severity),
    Function(Arc<Function>),
}

type Function = dyn Fn(&Diagnostic) + Send + Sync;

impl Diagnostics {
    /// Standard error, one line a message, for what is at least as severe as `least`.
    ///
    /// `OTEL_LOG_LEVEL` sets it where the code leaves the default. A standard error that is closed
    /// or that nobody reads costs a tenth of a second at most; the message is then left out.
    #[must_use]
    pub fn stderr(least: Severity) -> Self {
        Self::with(Sink::Stderr(least))
    }

    /// Nothing is said; counters and the last error stay in [`Client::stats`](crate::Client::stats).
    #[must_use]
    pub fn off() -> Self {
        Self::with(Sink::Off)
    }

    /// Calls `function` with each message, whatever its severity.
    ///
    /// It runs on the exporter's thread, and for warnings about settings on the one that builds the
    /// client, so it must neither block nor wait for this client: hand the
    /// message on to a logger. A panic in it is caught.
    #[must_use]
    pub fn to(function: impl Fn(&Diagnostic) + Send + Sync + 'static) -> Self {
        Self::with(Sink::Function(Arc::new(function)))
    }

    fn with(sink: Sink) -> Self {
        Self { sink, limiter: Mutex::default(), stderr: Patient::default() }
    }

    /// Says `message`, unless nobody wants it or the like was said less than a minute before `now`.
    /// It is only put together where it is said. Returns whether there is nothing left to say.
    pub(crate) fn say(&self, kind: Kind, now: Instant, message: impl FnOnce() -> String) -> bool {
        if !self.wants(kind.severity()) {
            return true;
        }
        let Some(repeats) = self.limiter().admit(kind, now) else { return false };
        let diagnostic = Diagnostic { kind, message: message(), repeats };
        match &self.sink {
            Sink::Off => {}
            Sink::Stderr(_) => {
                let severity = kind.severity().name();
                let text = diagnostic.to_string();
                let text = match kind {
                    // A table of our own.
                    Kind::Settings => text,
                    // A collector may have had a say in it.
                    _ => shown(&text, STDERR_CHARS_MAX),
                };
                let line = format!("spanwire: {severity}: {text}\n");
                if !self.stderr.write(std::io::stderr(), line) {
                    self.limiter().hold_back(kind, repeats.saturating_add(1));
                }
            }
            Sink::Function(function) => {
                // There is nobody to tell about it: this is where one would be told.
                let _panicked = catch_unwind(AssertUnwindSafe(|| function(&diagnostic)));
            }
        }
        true
    }

    /// Says each warning about the settings and, at [`Severity::Debug`], which are in effect.
    pub(crate) fn explain(&self, explanation: &Explanation, now: Instant) {
        for warning in explanation.warnings() {
            self.say(Kind::Setting, now, || warning.to_string());
        }
        self.say(Kind::Settings, now, || format!("settings in effect\n{explanation}"));
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, severity: Severity) -> bool {
        match &self.sink {
            Sink::Off => false,
            Sink::Stderr(least) => severity <= *least,
            Sink::Function(_) => true,
        }
    }
}

impl Clone for Diagnostics {
    fn clone(&self) -> Self {
        Self {
            sink: self.sink.clone(),
            limiter: Mutex::default(),
            // Standard error is one, whoever writes there.
            stderr: self.stderr.clone(),
        }
    }
}

impl Default for Diagnostics {
    fn default() -> Self {
        Self::stderr(Severity::Info)
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Diagnostics({self})")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sink {
            Sink::Off => f.write_str("off"),
            Sink::Stderr(least) => write!(f, "stderr, {}", least.name()),
            Sink::Function(_) => f.write_str("a function"),
        }
    }
}

/// How much a message matters, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Spans are lost.
    Error,
    /// Something is not as it was meant; no span is lost by it alone.
    Warn,
    /// Nothing is said at this level alone; the default, as the specification has it.
    Info,
    /// The settings in effect, when a client starts.
    Debug,
}

impl Severity {
    /// Each severity, the gravest first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// As `OTEL_LOG_LEVEL` spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// What a message is about.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A setting was ignored, or is probably not what was meant.
    Setting,
    /// The settings in effect.
    Settings,
    /// An attempt to send failed. The message has the chain of causes.
    ExportFailed,
    /// The collector took a request, but not all of its spans, or had something to say about it.
    PartialSuccess,
    /// The other end's answer is not OTLP, so it is probably no collector.
    NotOtlp,
    /// Spans were lost.
    Dropped,
    /// A part of the exporter panicked and was started anew.
    Restarted,
}

impl Kind {
    /// Each kind.
    pub const ALL: &'static [Self] = &[
        Self::Setting,
        Self::Settings,
        Self::ExportFailed,
        Self::PartialSuccess,
        Self::NotOtlp,
        Self::Dropped,
        Self::Restarted,
    ];

    /// How much it matters.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Dropped | Self::Restarted => Severity::Error,
            Self::Setting | Self::ExportFailed | Self::PartialSuccess | Self::NotOtlp => {
                Severity::Warn
            }
            Self::Settings => Severity::Debug,
        }
    }

    /// Shortest time between two messages of this kind.
    const fn interval(self) -> Duration {
        match self {
            // Said once a client, and there are only so many settings.
            Self::Setting | Self::Settings => Duration::ZERO,
            Self::ExportFailed
            | Self::PartialSuccess
            | Self::NotOtlp
            | Self::Dropped
            | Self::Restarted => Duration::from_secs(60),
        }
    }
}

/// One message.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What it is about.
    pub kind: Kind,
    /// What happened, without a full stop.
    pub message: String,
    /// How often the like has happened since the last message of this kind, beside this one.
    pub repeats: u64,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match self.repeats {
            0 => Ok(()),
            repeats => write!(f, " ({repeats} more since the last message)"),
        }
    }
}

/// Room for a chain of causes and what a collector has to say.
const STDERR_CHARS_MAX: usize = 2_000;

/// Which messages are said. Has no clock of its own.
#[derive(Default)]
struct Limiter([Told; Kind::ALL.len()]);

#[derive(Clone, Copy, Default)]
struct Told {
    last: Option<Instant>,
    held_back: u64,
}

impl Limiter {
    /// If one more is to be said: how many were not since the last.
    fn admit(&mut self, kind: Kind, now: Instant) -> Option<u64> {
        let told = &mut self.0[kind as usize];
        match told.last {
            Some(last) if now.saturating_duration_since(last) < kind.interval() => {
                told.held_back = told.held_back.saturating_add(1);
                None
            }
            _ => {
                told.last = Some(now);
                Some(std::mem::take(&mut told.held_back))
            }
        }
    }

    fn hold_back(&mut self, kind: Kind, messages: u64) {
        let told = &mut self.0[kind as usize];
        told.held_back = told.held_back.saturating_add(messages);
    }
}

/// Writes where a write may never end: standard error may be a pipe that nobody reads.
#[derive(Clone, Default)]
struct Patient {
    /// Whether an earlier text is still being written.
    busy: Arc<AtomicBool>,
}

/// What the exporter's thread waits for a text to be written.
const PATIENCE: Duration = Duration::from_millis(100);

impl Patient {
    /// Whether the text was taken. Returns within about [`PATIENCE`].
    ///
    /// Each text has a thread of its own: there are a few a minute, and none when all is well. What
    /// cannot be written is left out, as there is nowhere else to say so.
    fn write(&self, mut out: impl Write + Send + 'static, text: String) -> bool {
        if self.busy.swap(true, Ordering::AcqRel) {
            return false;
        }
        let (done, finished) = sync_channel(1);
        let busy = Arc::clone(&self.busy);
        let write = move || {
            let _unwritable = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            busy.store(false, Ordering::Release);
            let _impatient = done.try_send(());
        };
        if std::thread::Builder::new().name("spanwire-stderr".into()).spawn(write).is_err() {
            self.busy.store(false, Ordering::Release);
            return false;
        }
        // Short programs end soon after their last message, and it should be seen.
        let _too_slow = finished.recv_timeout(PATIENCE);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn collected() -> (Diagnostics, Arc<Mutex<Vec<Diagnostic>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&said);
        let keep = move |diagnostic: &Diagnostic| kept.lock().unwrap().push(diagnostic.clone());
        (Diagnostics::to(keep), said)
    }

    /// Pitfall 10.
    #[test]
    fn what_repeats_is_said_at_once_and_then_once_a_minute_with_its_count() {
        let (diagnostics, said) = collected();
        let start = Instant::now();
        for second in 0..150 {
            let say =
                |kind, text: &str| diagnostics.say(kind, start + SECOND * second, || text.into());
            say(Kind::ExportFailed, "refused");
            if second == 30 {
                say(Kind::Dropped, "lost");
            }
        }
        let said: Vec<_> = said.lock().unwrap().iter().map(|d| d.to_string()).collect();
        let again = "refused (59 more since the last message)";
        assert_eq!(said, ["refused", "lost", again, again]);
    }

    #[test]
    fn each_warning_about_a_setting_is_said() {
        let (diagnostics, said) = collected();
        let now = Instant::now();
        for _ in 0..3 {
            diagnostics.say(Kind::Setting, now, || "odd".into());
        }
        assert_eq!(said.lock().unwrap().len(), 3);
    }

    #[test]
    fn what_nobody_wants_is_not_even_put_together() {
        let wants = |diagnostics: Diagnostics| {
            let wanted = Kind::ALL.iter().map(|&kind| {
                let mut asked = false;
                if !diagnostics.wants(kind.severity()) {
                    diagnostics.say(kind, Instant::now(), || {
                        asked = true;
                        String::new()
                    });
                    assert!(!asked, "{kind:?}");
                }
                diagnostics.wants(kind.severity())
            });
            wanted.collect::<Vec<_>>()
        };
        assert_eq!(wants(Diagnostics::off()), [false; 7]);
        assert_eq!(wants(Diagnostics::to(|_| {})), [true; 7]);
        let count = |severity| {
            wants(Diagnostics::stderr(severity)).into_iter().filter(|wanted| *wanted).count()
        };
        assert_eq!(Severity::ALL.map(count), [2, 6, 6, 7]);
    }

    /// Faults 128.
    #[test]
    fn a_panic_in_the_function_is_caught_and_the_next_message_is_said() {
        let calls = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&calls);
        let diagnostics = Diagnostics::to(move |_| {
            *counted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            panic!("on purpose");
        });
        let now = Instant::now();
        diagnostics.say(Kind::ExportFailed, now, || "one".into());
        diagnostics.say(Kind::Dropped, now, || "two".into());
        assert_eq!(*calls.lock().unwrap_or_else(PoisonError::into_inner), 2);
    }

    #[test]
    fn a_standard_error_that_nobody_reads_holds_nobody_up() {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        // More than any pipe holds, so the writing thread waits until somebody reads.
        let stuck = "x".repeat(1 << 20);
        let patient = Patient::default();
        let start = Instant::now();
        assert!(patient.write(writer.try_clone().expect("a handle"), stuck.clone()));
        assert!(!patient.write(writer.try_clone().expect("a handle"), "too early".into()));
        assert!(start.elapsed() < 30 * SECOND);

        let mut read = vec![0; stuck.len()];
        reader.read_exact(&mut read).expect("the whole text");
        let deadline = Instant::now() + 10 * SECOND;
        while patient.busy.load(Ordering::Acquire) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(patient.write(writer.try_clone().expect("a handle"), "later".into()));
        writer.flush().expect("a pipe");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "later");
    }

    #[test]
    fn a_standard_error_that_is_closed_is_ignored() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let patient = Patient::default();
        for _ in 0..3 {
            // Each write ends at once, if in vain; the next one is taken.
            assert!(patient.write(writer.try_clone().expect("a handle"), "lost".into()));
            let deadline = Instant::now() + 10 * SECOND;
            while patient.busy.load(Ordering::Acquire) && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn what_could_not_be_written_counts_among_the_repeats() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        assert_eq!(limiter.admit(Kind::NotOtlp, now), Some(0));
        limiter.hold_back(Kind::NotOtlp, 1);
        assert_eq!(limiter.admit(Kind::NotOtlp, now + SECOND), None);
        assert_eq!(limiter.admit(Kind::NotOtlp, now + 60 * SECOND), Some(2));
    }
}
