//! Requests as text: OTLP JSON lines for machines, trees for people.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use spanwire_codec::view::Request;
use spanwire_codec::{decode, json};
use spanwire_model::{TraceTree, Value};

use crate::destination::{Destination, Output};

/// Appends requests as text to standard output or a file, one after another.
///
/// After an error what was written of a text stays where it is, and the next text starts on a line
/// of its own: a reader finds one broken line and never two that run into each other.
///
/// Source of the JSON lines: `specification/protocol/file-exporter.md`,
/// opentelemetry-specification v1.60.
#[derive(Debug)]
pub(crate) struct LineWriter {
    form: Form,
    /// Held while one text is written, so that texts do not mix.
    out: Mutex<Out>,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Json,
    Tree { colours: bool },
}

#[derive(Debug)]
struct Out {
    /// Standard output where there is none.
    file: Option<File>,
    /// Whether what was written last is the start of a line.
    torn: bool,
}

/// Most memory for the spans of one request while their tree is drawn. Without attributes that is
/// some hundred thousand of them, far more than a tree has lines.
const TREE_BYTES_MAX: usize = 64 << 20;

impl LineWriter {
    /// # Errors
    ///
    /// What opening the file has to say; or that the destination is not one for text.
    pub(crate) fn open(destination: &Destination) -> io::Result<Self> {
        let (form, output) = match destination {
            Destination::Otlp(_) => return Err(io::ErrorKind::Unsupported.into()),
            Destination::Console => {
                (Form::Tree { colours: io::stdout().is_terminal() }, &Output::Stdout)
            }
            Destination::JsonLines(output) => (Form::Json, output),
        };
        let out = match output {
            Output::Stdout => Out { file: None, torn: false },
            Output::File(path) => open_end(path)?,
        };
        Ok(Self { form, out: Mutex::new(out) })
    }

    /// Appends one request, given as its pieces. Blocks for as long as the output does.
    ///
    /// # Errors
    ///
    /// What writing has to say; nothing, a part or all of the text was written then.
    pub(crate) fn write(&self, pieces: &[Bytes]) -> io::Result<()> {
        let text = self.form.text(&pieces.concat())?;
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Out { file, torn } = &mut *out;
        match file {
            Some(file) => append(file, torn, &text),
            None => append(&mut io::stdout().lock(), torn, &text),
        }
    }
}

/// The file with whatever is in it, to be written at its end wherever that may be by then.
fn open_end(path: &Path) -> io::Result<Out> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let mut file = match options.read(true).open(path) {
        // One that may only be written is as good, except that its end cannot be looked at.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            options.read(false).open(path)?
        }
        opened => opened?,
    };
    let torn = file.metadata()?.is_file() && ends_within_a_line(&mut file).unwrap_or(false);
    Ok(Out { file: Some(file), torn })
}

/// As a process leaves it that was killed while it wrote.
fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Writes a text that ends with a line's end; `torn` says whether the one before was cut off.
fn append(out: &mut impl Write, torn: &mut bool, text: &[u8]) -> io::Result<()> {
    if *torn {
        out.write_all(b"\n")?;
        *torn = false;
    }
    let mut rest = text;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                rest = rest.get(written..).unwrap_or_default();
                *torn = true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.flush()?;
    *torn = false;
    Ok(())
}

impl Form {
    fn text(self, request: &[u8]) -> io::Result<Vec<u8>> {
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        match self {
            Self::Json => {
                let mut text = Vec::with_capacity(request.len() * 2);
                json::write_request(request, &mut text).map_err(malformed)?;
                text.push(b'\n');
                Ok(text)
            }
            Self::Tree { colours } => {
                let request = Request::parse(request).map_err(malformed)?;
                Ok(tree(&request, colours, TREE_BYTES_MAX).into_bytes())
            }
        }
    }
}

/// The request's traces as trees, with an empty line below.
fn tree(request: &Request<'_>, colours: bool, bytes_max: usize) -> String {
    let decoded = match decode::request(request, bytes_max) {
        Ok(decoded) => decoded,
        Err(too_large) => return format!("{} spans not drawn: {too_large}\n\n", request.spans()),
    };
    let spans = decoded.resource_spans.iter().flat_map(|resource| {
        let service = match resource.resource.attributes.get("service.name") {
            Some(Value::String(name)) => name,
            _ => "",
        };
        let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
        spans.map(move |span| (service, span))
    });
    let tree = TraceTree::new(spans);
    if colours { format!("{tree:#}\n\n") } else { format!("{tree}\n\n") }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
    use spanwire_model::{Resource, Scope, Span, SpanContext, SpanId, TraceFlags, TraceId};

    use super::*;

    /// A request in pieces, as the exporter has it.
    fn request(names: &[&str]) -> Vec<Bytes> {
        let mut framed = Vec::new();
        for (name, id) in names.iter().zip(1..) {
            let trace = TraceId::new(1).expect("nonzero");
            let id = SpanId::new(id).expect("nonzero");
            let context = SpanContext::new(trace, id, TraceFlags::SAMPLED);
            encode::put_framed(&Span::new(context, String::from(*name)), &mut framed);
        }
        let resource = [("service.name", "shop")].into_iter().collect();
        let resource = Resource { attributes: resource, ..Resource::default() };
        let scope = EncodedScope::new(&Scope::new("tests"));
        let mut header = Vec::new();
        EncodedResource::new(&resource).put_header(scope.field_len(framed.len()), &mut header);
        scope.put_header(framed.len(), &mut header);
        vec![header.into(), framed.into()]
    }

    /// A file of its own for each test, gone with it.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            let name = format!("spanwire-lines-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn open(&self) -> LineWriter {
            to_file(&self.0).expect("writable")
        }

        fn lines(&self) -> Vec<String> {
            let text = std::fs::read_to_string(&self.0).expect("text");
            assert!(text.ends_with('\n'), "{text:?}");
            text.lines().map(String::from).collect()
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _never_made = std::fs::remove_file(&self.0);
        }
    }

    fn to_file(path: &Path) -> io::Result<LineWriter> {
        let destination = Destination::JsonLines(Output::File(path.into()));
        LineWriter::open(&destination)
    }

    /// The wire bytes that a JSON line stands for.
    fn parse(line: &str) -> Vec<u8> {
        json::read_request(line.as_bytes()).expect("OTLP JSON")
    }

    #[test]
    fn each_request_is_one_json_line_at_the_end_of_the_file() {
        let file = Temporary::new("append");
        file.open().write(&request(&["one", "two\nlines"])).expect("room");
        let writer = file.open();
        writer.write(&request(&["three"])).expect("room");
        let lines = file.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!(parse(&lines[0]), request(&["one", "two\nlines"]).concat());
        assert_eq!(parse(&lines[1]), request(&["three"]).concat());
    }

    #[test]
    fn a_line_that_a_killed_process_left_unfinished_does_not_garble_the_next() {
        let file = Temporary::new("killed");
        std::fs::write(&file.0, "{\"resourceSpans\":[").expect("writable");
        file.open().write(&request(&["next"])).expect("room");
        let lines = file.lines();
        assert_eq!(lines[0], "{\"resourceSpans\":[");
        assert_eq!(parse(&lines[1]), request(&["next"]).concat());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_that_says_why() {
        let file = Temporary::new("missing");
        let error = to_file(&file.0.join("below")).expect_err("no such folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_each_time_and_no_panic() {
        let writer = to_file(Path::new("/dev/full")).expect("there on Linux");
        for _ in 0..2 {
            let error = writer.write(&request(&["lost"])).expect_err("no room");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_no_signal() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        drop(reader);
        let error = append(&mut writer, &mut false, b"line\n").expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    /// Takes `room` bytes, a few at a time, and is full then.
    struct Disk {
        held: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room).min(3);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.held.extend_from_slice(&bytes[..taken]);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_cut_off_anywhere_leaves_the_next_one_whole() {
        let (first, second) = (b"first line\n", b"second\n");
        for room in 0..=first.len() {
            let mut disk = Disk { held: Vec::new(), room };
            let mut torn = false;
            let written = append(&mut disk, &mut torn, first);
            assert_eq!(written.is_ok(), room == first.len());
            // Still full: what is there must not change.
            if written.is_err() {
                assert!(append(&mut disk, &mut torn, second).is_err());
            }
            disk.room = 100;
            append(&mut disk, &mut torn, second).expect("room");
            let held = String::from_utf8(disk.held).expect("text");
            let whole: Vec<_> = held.lines().filter(|line| *line == "second").collect();
            assert_eq!(whole.len(), 1, "{held:?}");
            assert!(!held.starts_with('\n') && !held.contains("\n\n"), "{held:?}");
            assert!(held.ends_with("second\n"), "{held:?}");
        }
    }

    #[test]
    fn a_request_that_is_none_is_an_error_and_nothing_is_written() {
        let file = Temporary::new("malformed");
        let writer = file.open();
        let error = writer.write(&[Bytes::from_static(&[0x0A, 200])]).expect_err("truncated");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read(&file.0).expect("opened"), b"");
    }

    #[test]
    fn a_trace_is_drawn_as_a_tree_and_what_is_too_large_for_one_is_counted() {
        let bytes = request(&["checkout", "charge"]).concat();
        let request = Request::parse(&bytes).expect("a request");
        let drawn = tree(&request, false, TREE_BYTES_MAX);
        assert!(drawn.starts_with("Trace 00000000000000000000000000000001 · 2 spans"), "{drawn}");
        assert!(drawn.contains("checkout") && drawn.contains("shop"), "{drawn}");
        assert!(drawn.ends_with("\n\n"));
        assert!(tree(&request, true, TREE_BYTES_MAX).contains('\u{1b}'));
        let left_out = tree(&request, false, 100);
        assert_eq!(left_out, "2 spans not drawn: decoded request exceeds 100 bytes\n\n");
    }
}
