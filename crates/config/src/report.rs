//! What was found wrong, with the line it was found in.

use std::cell::{Cell, RefCell};
use std::fmt;

use crate::load::Compat;
use crate::redact;
use crate::tree::Place;

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Nothing can be started with this configuration.
    Error,
    /// It works, but perhaps not as its author meant it.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing a person should know about a configuration.
///
/// [`Display`](fmt::Display) renders it over several lines: the message, where it was found, that
/// line with a mark below it, and what to do. Values that came from the environment are not in it,
/// but for addresses, paths and names that show to be wrong only when they are used; nor is what
/// stands behind keys that usually hold secrets or below headers, or the query of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    help: Option<String>,
    location: Option<Location>,
    // Sorts findings as the files are read; not shown.
    order: Option<Place>,
}

/// Where a [`Diagnostic`] was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The path as it was given, or the name of another source: `env:NAME`, `yaml:`, `--set KEY`.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    snippet: Option<Snippet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Snippet {
    line: String,
    /// Characters before the mark, and of it.
    before: usize,
    width: usize,
}

impl Diagnostic {
    /// One about `place` in `texts`.
    pub(crate) fn new(
        severity: Severity,
        message: String,
        help: Option<String>,
        place: Option<Place>,
        texts: &Texts,
    ) -> Self {
        let location = place.map(|place| texts.locate(place));
        let (message, help) = (in_one_line(message), help.map(in_one_line));
        Self { severity, message, help, location, order: place }
    }

    /// Whether this stops the configuration from being used.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is the matter, in one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, if there is something to say.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Where, if it is at one place.
    #[must_use]
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)?;
        let mut margin = 1;
        if let Some(at) = &self.location {
            let number = at.line.to_string();
            margin = number.len();
            write!(f, "\n{:margin$}--> {}:{}:{}", "", at.file, at.line, at.column)?;
            if let Some(Snippet { line, before, width }) = &at.snippet {
                write!(f, "\n{:margin$} |\n{number} | {line}", "")?;
                write!(f, "\n{:margin$} | {:before$}{:^<width$}", "", "", "")?;
            }
        }
        match &self.help {
            Some(help) => write!(f, "\n{:margin$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

/// Why a configuration cannot be used: all its errors, and its warnings beside them.
///
/// [`Display`](fmt::Display) renders all of them for a person to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
    left_out: usize,
}

impl Report {
    /// What was found, in the order of the files; at least one [`Severity::Error`].
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }
}

/// The report of what was found after a configuration was loaded; see
/// [`Places`](crate::Places).
impl FromIterator<Diagnostic> for Report {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(found: I) -> Self {
        let mut diagnostics: Vec<_> = found.into_iter().collect();
        sort(&mut diagnostics);
        let left_out = diagnostics.len().saturating_sub(DIAGNOSTICS_MAX);
        diagnostics.truncate(DIAGNOSTICS_MAX);
        Self { diagnostics, left_out }
    }
}

/// As the files are read. What has no place is about the whole and comes last; the sort is stable.
fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|found| (found.order.is_none(), found.order));
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            write!(f, "{diagnostic}\n\n")?;
        }
        let errors =
            self.diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
        let warnings = self.diagnostics.len() - errors;
        write!(f, "{}", counted(errors, "error"))?;
        if warnings > 0 {
            write!(f, ", {}", counted(warnings, "warning"))?;
        }
        if self.left_out > 0 {
            write!(f, "; {} more not shown", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The texts of a configuration with their names, so that lines of them can be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Texts(Vec<(String, String)>);

impl fmt::Debug for Texts {
    // They hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} texts", self.0.len())
    }
}

impl Texts {
    fn locate(&self, place: Place) -> Location {
        let (file, text) = self.get(place);
        let shows = (place.width > 0).then(|| place.line.saturating_sub(1));
        let line = shows.and_then(|index| redact::line_of(lines(text), index));
        let line = line.filter(|line| !line.is_empty());
        let snippet = line.map(|line| snip(&line, place));
        Location { file, line: place.line, column: place.column, snippet }
    }

    /// The name of the text that a place is in, and the text.
    fn get(&self, place: Place) -> (String, &str) {
        let text = self.0.get(place.text);
        text.map(|(name, text)| (in_one_line(name.clone()), text.as_str())).unwrap_or_default()
    }
}

/// Collects what is found while a configuration is read, and the texts it is found in.
pub(crate) struct Findings {
    texts: RefCell<Texts>,
    found: RefCell<Vec<Diagnostic>>,
    notes: RefCell<Vec<String>>,
    errors: Cell<usize>,
    left_out: Cell<usize>,
    compat: Compat,
}

/// A report longer than this helps nobody, and a hostile file could ask for one of 100,000.
const DIAGNOSTICS_MAX: usize = 200;

impl Findings {
    pub(crate) fn new(compat: Compat) -> Self {
        Self {
            texts: RefCell::default(),
            found: RefCell::default(),
            notes: RefCell::default(),
            errors: Cell::new(0),
            left_out: Cell::new(0),
            compat,
        }
    }

    /// Keeps a text so that lines of it can be shown; the answer is its [`Place::text`].
    pub(crate) fn keep_text(&self, name: String, text: String) -> usize {
        let Texts(texts) = &mut *self.texts.borrow_mut();
        texts.push((name, text));
        texts.len() - 1
    }

    pub(crate) fn error(&self, place: impl Into<Option<Place>>, message: impl Into<String>) {
        self.add(Severity::Error, place.into(), message.into(), None);
    }

    pub(crate) fn error_with_help(
        &self,
        place: impl Into<Option<Place>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, place.into(), message.into(), Some(help.into()));
    }

    pub(crate) fn warning(
        &self,
        place: impl Into<Option<Place>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, place.into(), message.into(), Some(help.into()));
    }

    /// An error in a secret: its place is told, its line is not shown.
    pub(crate) fn error_in_secret(&self, place: Place, message: impl Into<String>) {
        let hidden = Place { width: 0, ..place };
        self.add(Severity::Error, Some(hidden), message.into(), None);
    }

    /// Something that the Go Collector has: an error, or a warning where the caller chose to run
    /// without what is not supported.
    pub(crate) fn unsupported(
        &self,
        place: impl Into<Option<Place>>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let severity = match self.compat {
            Compat::Strict => Severity::Error,
            Compat::Warn => Severity::Warning,
        };
        self.add(severity, place.into(), message.into(), help);
    }

    /// A key that is taken and changes nothing.
    pub(crate) fn note(&self, place: Place, note: &str) {
        let (file, _) = self.texts.borrow().get(place);
        self.notes.borrow_mut().push(in_one_line(format!("{note} ({file}:{})", place.line)));
    }

    pub(crate) fn failed(&self) -> bool {
        self.errors.get() > 0
    }

    /// Whether a further finding would only be counted, so that its words can be saved.
    pub(crate) fn is_full(&self) -> bool {
        self.found.borrow().len() >= DIAGNOSTICS_MAX
    }

    fn add(&self, severity: Severity, place: Option<Place>, message: String, help: Option<String>) {
        if severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        let mut found = self.found.borrow_mut();
        if found.len() >= DIAGNOSTICS_MAX {
            // A warning must not hide the error because of which nothing starts.
            let Some(warning) = found.iter().position(|held| held.severity == Severity::Warning)
            else {
                self.left_out.set(self.left_out.get() + 1);
                return;
            };
            self.left_out.set(self.left_out.get() + 1);
            if severity == Severity::Warning {
                return;
            }
            found.remove(warning);
        }
        found.push(Diagnostic::new(severity, message, help, place, &self.texts.borrow()));
    }

    /// The warnings, the notes and the texts if there was no error.
    pub(crate) fn finish(self) -> Result<(Vec<Diagnostic>, Vec<String>, Texts), Report> {
        let failed = self.failed();
        let mut diagnostics = self.found.into_inner();
        sort(&mut diagnostics);
        if failed {
            return Err(Report { diagnostics, left_out: self.left_out.get() });
        }
        Ok((diagnostics, self.notes.into_inner(), self.texts.into_inner()))
    }
}

/// The lines of a text as YAML has them (YAML 1.2.2, section 5.4): either break ends one, or both
/// together.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// What is quoted may hold line breaks, or what a terminal obeys.
fn in_one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut shown = String::new();
    for char in text.chars() {
        match char.is_control() {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
    }
    shown
}

/// The part of `line` around `place`.
fn snip(line: &str, place: Place) -> Snippet {
    const CHARS_MAX: usize = 120;
    const CONTEXT: usize = 40;
    // A tab would put the mark at the wrong column, and an escape sequence anything anywhere.
    let line = line.replace(char::is_control, " ");
    let column = place.column.saturating_sub(1);
    let start = if column > CHARS_MAX - CONTEXT { column - CONTEXT } else { 0 };
    let shown: String = line.chars().skip(start).take(CHARS_MAX).collect();
    let length = shown.chars().count();
    let before = (column - start).min(length);
    let width = place.width.min(length - before).max(1);
    Snippet { line: shown.trim_end().to_owned(), before, width }
}

#[cfg(test)]
mod tests {
    use super::{Findings, Severity};
    use crate::load::Compat;
    use crate::tree::Place;

    #[test]
    fn a_diagnostic_shows_its_line_and_marks_the_place() {
        let findings = Findings::new(Compat::Strict);
        let text = findings.keep_text("a.yaml".into(), "x: 1\nkey: value\n".into());
        let place = Place { text, line: 2, column: 6, width: 5 };
        findings.error_with_help(place, "no good", "try another");
        let report = findings.finish().unwrap_err();
        assert_eq!(
            report.diagnostics()[0].to_string(),
            "error: no good\n --> a.yaml:2:6\n  |\n2 | key: value\n  |      ^^^^^\n  = help: try another"
        );
        assert!(report.to_string().ends_with("\n\n1 error"), "{report}");
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let findings = Findings::new(Compat::Strict);
        let line = format!("{}HERE{}", "x".repeat(5000), "y".repeat(5000));
        let text = findings.keep_text("a.yaml".into(), line);
        findings.error(Place { text, line: 1, column: 5001, width: 4 }, "far");
        let shown = findings.finish().unwrap_err().to_string();
        assert!(shown.contains("xxHEREyy") && shown.contains(" ^^^^\n"), "{shown}");
        assert!(shown.len() < 500);
    }

    #[test]
    fn lines_end_as_in_yaml_and_what_is_quoted_stays_in_its_line() {
        let findings = Findings::new(Compat::Strict);
        let text = findings.keep_text("a\nb".into(), "x: 1\ry:\r\n  z: \u{1b}[2Jq".into());
        let place = Place { text, line: 3, column: 6, width: 1 };
        findings.error_with_help(place, "no \"q\n\u{1b}\"", "try\rr");
        let report = findings.finish().unwrap_err();
        assert_eq!(
            report.diagnostics()[0].to_string(),
            "error: no \"q\\n\\u{1b}\"\n --> a\\nb:3:6\n  |\n3 |   z:  [2Jq\n  |      ^\n  = help: try\\rr"
        );
    }

    #[test]
    fn a_report_is_bounded_and_errors_win_over_warnings() {
        let findings = Findings::new(Compat::Strict);
        for number in 0..1000 {
            findings.warning(None, format!("w{number}"), "");
        }
        findings.error(None, "the reason");
        let report = findings.finish().unwrap_err();
        assert_eq!(report.diagnostics().len(), 200);
        assert!(report.diagnostics().iter().any(|found| found.severity() == Severity::Error));
        assert!(report.to_string().ends_with("; 801 more not shown"), "{report}");
    }
}
