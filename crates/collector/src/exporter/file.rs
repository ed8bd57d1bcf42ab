//! OTLP JSON lines to a file: a request a line, as "OTLP File Exporter" in
//! `specification/protocol/file-exporter.md` of opentelemetry-specification has it.
//!
//! A file is opened at the first write, not before: a configuration that is read and not run leaves
//! it as it is. All exporters of a process that write to one file, a reload's old and new ones among
//! them, share its handle, and it is emptied once in the life of the process at most.

use std::collections::HashMap;
use std::fs::{self, File as Handle, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use spanwire_codec::json;
use spanwire_codec::view::Malformed;

use super::Shared;
use crate::item::{Item, Pieces};
use crate::ledger::DropReason;

/// A file that grows, and by its settings is moved aside for a new one.
pub(crate) struct File {
    output: Arc<Mutex<Output>>,
    keeping: Keeping,
}

/// What becomes of what is in the file.
#[derive(Clone, Copy)]
struct Keeping {
    append: bool,
    rotation: Option<Rotation>,
}

/// When a file is moved aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub(crate) bytes_max: u64,
    /// 0 keeps all.
    pub(crate) backups_max: usize,
    pub(crate) age_max: Option<Duration>,
}

/// Written by one at a time.
struct Output {
    path: PathBuf,
    /// Whether this process has opened it before.
    begun: Arc<AtomicBool>,
    handle: Option<Handle>,
    /// The length of the whole lines, where part of one comes after them.
    torn: Option<u64>,
}

/// The files of this process, by canonical path, and which of them were opened before.
static OUTPUTS: Mutex<Option<HashMap<PathBuf, Known>>> = Mutex::new(None);

#[derive(Default)]
struct Known {
    begun: Arc<AtomicBool>,
    output: Weak<Mutex<Output>>,
}

impl File {
    /// Only looks whether the file can be written to.
    pub(crate) fn open(path: &Path, append: bool, rotation: Option<Rotation>) -> io::Result<Self> {
        let folder = fs::canonicalize(folder(path))?;
        let canonical = match fs::canonicalize(path) {
            Ok(file) if file.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(file) if file.is_file() => {
                OpenOptions::new().append(true).open(&file)?;
                file
            }
            // A pipe would be waited for, and what is not there is made at the first write.
            _ => folder.join(path.file_name().ok_or(io::ErrorKind::InvalidInput)?),
        };
        if !canonical.exists() && fs::metadata(&folder)?.permissions().readonly() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self { output: shared(canonical, path), keeping: Keeping { append, rotation } })
    }

    /// Writes the items as one line. What keeps it from that is waited for, as somebody may put it
    /// right: the senders have their answer already.
    /// Gives them back where another destination has taken this one's place.
    pub(super) async fn deliver(&self, items: Vec<Item>, shared: &Shared) -> Vec<Item> {
        let lost = |items, message: &str| shared.lost(items, DropReason::WriteFailed, message);
        let requests: Vec<_> = items.iter().map(|item| item.request.pieces.clone()).collect();
        let line = match tokio::task::spawn_blocking(move || line(&requests)).await {
            Ok(Ok(line)) => line,
            Ok(Err(malformed)) => return lost(items, &malformed.to_string()),
            Err(failed) => return lost(items, &failed.to_string()),
        };
        // Until it is written, which may be waited for.
        let _line = shared.charge(line.len());
        let started = Instant::now();
        let mut pauses = shared.pauses();
        loop {
            shared.ledger.attempted(line.len());
            let (output, keeping, bytes) = (Arc::clone(&self.output), self.keeping, line.clone());
            let written = tokio::task::spawn_blocking(move || {
                output.lock().unwrap_or_else(PoisonError::into_inner).write(&bytes, keeping)
            });
            let error = match written.await {
                Ok(Ok(beside)) => {
                    if let Some(error) = beside {
                        let message = format!("written, but not moved aside as it should: {error}");
                        shared.log.failed(&message, 0);
                    }
                    shared.health.succeeded(Instant::now());
                    items.into_iter().for_each(|item| item.claim.sent(0, None));
                    return Vec::new();
                }
                Ok(Err(error)) => error,
                Err(failed) => return lost(items, &failed.to_string()),
            };
            shared.ledger.failed();
            let message = error.to_string();
            if started.elapsed() > WAIT_MAX {
                return lost(items, &message);
            }
            shared.health.failed(&message, Instant::now());
            shared.log.failed(&message, 0);
            pauses.pause(PAUSE).await;
            if shared.heir().is_some() {
                return items;
            }
        }
    }
}

/// The handle on a file that all who write to it have.
fn shared(canonical: PathBuf, path: &Path) -> Arc<Mutex<Output>> {
    let mut outputs = OUTPUTS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = outputs.get_or_insert_default().entry(canonical).or_default();
    known.output.upgrade().unwrap_or_else(|| {
        let output = Output {
            path: path.to_owned(),
            begun: Arc::clone(&known.begun),
            handle: None,
            torn: None,
        };
        let output = Arc::new(Mutex::new(output));
        known.output = Arc::downgrade(&output);
        output
    })
}

/// Requests one after the other are a request; as JSON they are one line.
fn line(requests: &[Pieces]) -> Result<Bytes, Malformed> {
    let pieces: Vec<_> = requests.iter().flat_map(Pieces::iter).map(|piece| &piece[..]).collect();
    let mut line = Vec::new();
    json::write_request(&pieces.concat(), &mut line)?;
    line.push(b'\n');
    line.shrink_to_fit();
    Ok(line.into())
}

/// A disk that is full, or a folder that is away, is waited for so long, and looked at so often.
const WAIT_MAX: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);

impl Output {
    /// A line is in the file whole or not at all. What goes wrong beside that is returned: a file
    /// that cannot be moved aside grows on.
    fn write(&mut self, line: &[u8], keeping: Keeping) -> io::Result<Option<io::Error>> {
        let (mut handle, mut end) = self.at_end(keeping)?;
        let rotates = keeping
            .rotation
            .filter(|rotation| end > 0 && end + line.len() as u64 > rotation.bytes_max);
        let mut beside = None;
        if let Some(rotation) = rotates {
            beside = self.rotate(rotation).err();
            (handle, end) = self.at_end(keeping)?;
        }
        let Err(error) = handle.write_all(line) else { return Ok(beside) };
        // Of what is no file, as a pipe whose reader is gone, nothing is left to be cut off.
        let is_file = handle.metadata().is_ok_and(|metadata| metadata.is_file());
        self.torn = (is_file && handle.set_len(end).is_err()).then_some(end);
        if self.torn.is_none() {
            // The next attempt looks for the file anew.
            self.handle = None;
        }
        Err(error)
    }

    /// The file, opened if need be, and where its last whole line ends.
    fn at_end(&mut self, keeping: Keeping) -> io::Result<(&Handle, u64)> {
        // A handle of a disk that was away leads nowhere.
        self.handle.take_if(|handle| handle.metadata().is_err());
        let handle = match &mut self.handle {
            Some(handle) => handle,
            none => {
                // What is appended goes to the end, wherever that is after a line was cut off.
                let handle = OpenOptions::new().create(true).append(true).open(&self.path)?;
                let keeps = keeping.append || keeping.rotation.is_some();
                let begun = self.begun.swap(true, Ordering::Relaxed);
                if !keeps && !begun && handle.metadata()?.is_file() {
                    handle.set_len(0)?;
                }
                none.insert(handle)
            }
        };
        let mut end = handle.metadata()?.len();
        if let Some(whole) = self.torn {
            // Somebody else may have made it shorter meanwhile.
            if end > whole {
                handle.set_len(whole)?;
                end = whole;
            }
            self.torn = None;
        }
        Ok((&*handle, end))
    }

    /// The next write opens a new file.
    fn rotate(&mut self, rotation: Rotation) -> io::Result<()> {
        let mut now = SystemTime::now();
        let mut aside = backup(&self.path, &millis(now));
        while aside.exists() {
            now += Duration::from_millis(1);
            aside = backup(&self.path, &millis(now));
        }
        match fs::rename(&self.path, aside) {
            Ok(()) => {}
            // Somebody else moved it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let synced = self.handle.take().map_or(Ok(()), |handle| handle.sync_data());
        prune(&self.path, rotation).and(synced)
    }
}

/// Where the file is.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `spans.json` moved aside at a time is `spans-TIME.json`.
fn backup(path: &Path, time: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{time}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{time}"),
    };
    path.with_file_name(name)
}

/// Milliseconds since 1970, in as many digits for a long time to come: names sort by age.
fn millis(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:013}", since.as_millis())
}

/// Removes the oldest files moved aside, by number and by age.
fn prune(path: &Path, rotation: Rotation) -> io::Result<()> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut aside = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let path_aside = entry?.path();
        let name = path_aside.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let time = name.strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-'));
        let millis = time.filter(|time| time.len() == 13).and_then(|time| time.parse::<u64>().ok());
        if let Some(millis) = millis.filter(|_| path_aside.extension() == path.extension()) {
            aside.push((millis, path_aside));
        }
    }
    aside.sort_unstable_by(|one, other| other.cmp(one));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for (place, (millis, path)) in aside.iter().enumerate() {
        let too_many = rotation.backups_max > 0 && place >= rotation.backups_max;
        let age = now.saturating_sub(Duration::from_millis(*millis));
        if too_many || rotation.age_max.is_some_and(|age_max| age > age_max) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPEND: Keeping = Keeping { append: true, rotation: None };
    const REPLACE: Keeping = Keeping { append: false, rotation: None };

    /// A folder of its own for each test.
    fn scratch(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("spanwire-file-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        folder
    }

    fn output(path: &Path) -> Output {
        Output { path: path.to_owned(), begun: Arc::default(), handle: None, torn: None }
    }

    fn rotating(bytes_max: u64, backups_max: usize) -> Keeping {
        let rotation = Some(Rotation { bytes_max, backups_max, age_max: None });
        Keeping { append: false, rotation }
    }

    fn write(output: &mut Output, line: &str, keeping: Keeping) {
        let beside = output.write(line.as_bytes(), keeping).expect("there is room");
        assert!(beside.is_none(), "{beside:?}");
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("a file")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_moved_aside_are_pruned_by_number_and_others_are_left_alone() {
        let folder = scratch("prune");
        let path = folder.join("spans.json");
        let mut output = output(&path);
        fs::write(folder.join("spans-notes.json"), "mine").expect("a file");
        for old in 1..=4 {
            fs::write(backup(&path, &format!("{old:013}")), "old").expect("a file");
        }
        write(&mut output, "12345678\n", rotating(10, 2));
        write(&mut output, "abcdefgh\n", rotating(10, 2));
        let names = names(&folder);
        assert_eq!(text(&path), "abcdefgh\n");
        assert_eq!(names.len(), 4, "itself, two moved aside, and a stranger: {names:?}");
        assert!(names.contains(&"spans-notes.json".to_owned()), "{names:?}");
        assert!(names.contains(&"spans-0000000000004.json".to_owned()), "{names:?}");
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn a_file_that_is_not_written_to_stays_as_it_is() {
        let folder = scratch("untouched");
        let path = folder.join("spans.json");
        fs::write(&path, "before\n").expect("a file");
        let file = File::open(&path, false, None).expect("it can be written to");
        assert_eq!(text(&path), "before\n");
        write(&mut file.output.lock().expect("no panic"), "one\n", REPLACE);
        assert_eq!(text(&path), "one\n");
        assert!(File::open(&folder, false, None).is_err(), "a folder is no file");
        assert!(File::open(&folder.join("none/spans.json"), false, None).is_err(), "no folder");
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn exporters_of_one_file_share_it_and_it_is_emptied_once() {
        let folder = scratch("shared");
        let path = folder.join("spans.json");
        fs::write(&path, "before\n").expect("a file");
        let first = File::open(&path, false, None).expect("it can be written to");
        let second = File::open(&folder.join("./spans.json"), false, None).expect("the same");
        assert!(Arc::ptr_eq(&first.output, &second.output));
        write(&mut first.output.lock().expect("no panic"), "one\n", REPLACE);
        write(&mut second.output.lock().expect("no panic"), "two\n", REPLACE);
        drop((first, second));
        let third = File::open(&path, false, None).expect("it can be written to");
        write(&mut third.output.lock().expect("no panic"), "three\n", REPLACE);
        assert_eq!(text(&path), "one\ntwo\nthree\n");
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn part_of_a_line_that_could_not_be_cut_off_at_once_is_cut_off_before_the_next() {
        let folder = scratch("torn");
        let path = folder.join("spans.json");
        let mut output = output(&path);
        write(&mut output, "whole\n", APPEND);
        output.handle.as_ref().expect("open").write_all(b"ha").expect("there is room");
        output.torn = Some(6);
        write(&mut output, "next\n", APPEND);
        assert_eq!(text(&path), "whole\nnext\n");
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn a_pipe_whose_reader_is_gone_has_the_next_line_when_there_is_another() {
        let folder = scratch("pipe");
        let path = folder.join("spans.json");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("a system with pipes").success());
        let mut output = output(&path);
        let reader = || {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut line = [0; 4];
                let mut pipe = Handle::open(path).expect("there is a writer");
                io::Read::read_exact(&mut pipe, &mut line).map(|()| line)
            })
        };
        let first = reader();
        write(&mut output, "one\n", APPEND);
        assert_eq!(first.join().expect("no panic").expect("a line"), *b"one\n");
        output.write(b"two\n", APPEND).expect_err("nobody reads it");
        let second = reader();
        write(&mut output, "two\n", APPEND);
        assert_eq!(second.join().expect("no panic").expect("a line"), *b"two\n");
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn a_file_that_is_gone_when_it_is_to_be_moved_aside_is_begun_anew() {
        let folder = scratch("gone");
        let path = folder.join("spans.json");
        let mut output = output(&path);
        write(&mut output, "12345678\n", rotating(10, 0));
        fs::remove_file(&path).expect("it is there");
        write(&mut output, "abcdefgh\n", rotating(10, 0));
        assert_eq!(text(&path), "abcdefgh\n");
        write(&mut output, "ijklmnop\n", rotating(10, 0));
        assert_eq!((text(&path), names(&folder).len()), ("ijklmnop\n".to_owned(), 2));
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn old_files_that_cannot_be_removed_lose_no_line() {
        let folder = scratch("stuck");
        let path = folder.join("spans.json");
        let mut output = output(&path);
        // A folder of that name cannot be removed as a file is.
        let stuck = backup(&path, &format!("{:013}", 1));
        fs::create_dir_all(&stuck).expect("a folder");
        write(&mut output, "12345678\n", rotating(10, 1));
        let beside = output.write(b"abcdefgh\n", rotating(10, 1)).expect("there is room");
        assert!(beside.is_some(), "it is told");
        assert_eq!(text(&path), "abcdefgh\n");
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
