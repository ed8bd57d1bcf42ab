//! OTLP JSON lines to a file: a request a line, as "OTLP File Exporter" in
//! `specification/protocol/file-exporter.md` of opentelemetry-specification has it.

use std::fs::{self, File as Handle, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use spanwire_codec::json;

use super::Shared;
use crate::item::Item;
use crate::ledger::DropReason;

/// A file that grows, and by its settings is moved aside for a new one.
pub(crate) struct File(Arc<Mutex<Output>>);

/// When a file is moved aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub(crate) bytes_max: u64,
    /// 0 keeps all.
    pub(crate) backups_max: usize,
    pub(crate) age_max: Option<Duration>,
}

struct Output {
    path: PathBuf,
    file: Handle,
    /// Its length: whole lines only.
    bytes: u64,
    rotation: Option<Rotation>,
}

impl File {
    pub(crate) fn open(path: &Path, append: bool, rotation: Option<Rotation>) -> io::Result<Self> {
        let keeps = append || rotation.is_some();
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .append(keeps)
            .truncate(!keeps)
            .open(path)?;
        let bytes = file.metadata()?.len();
        let output = Output { path: path.to_owned(), file, bytes, rotation };
        Ok(Self(Arc::new(Mutex::new(output))))
    }

    /// Writes the items as one line. A full disk is waited for; other errors lose the spans.
    pub(super) async fn deliver(&self, items: Vec<Item>, shared: &Shared) {
        let requests: Vec<_> = items.iter().map(|item| item.request.pieces.joined()).collect();
        let mut line = Vec::new();
        if let Err(malformed) = json::write_request(&requests.concat(), &mut line) {
            return lost(items, &malformed.to_string());
        }
        line.push(b'\n');
        let line: Arc<[u8]> = line.into();
        let started = Instant::now();
        loop {
            shared.ledger.attempted(line.len());
            let (output, bytes) = (Arc::clone(&self.0), Arc::clone(&line));
            let written = tokio::task::spawn_blocking(move || {
                output.lock().unwrap_or_else(PoisonError::into_inner).write(&bytes)
            });
            let error = match written.await {
                Ok(Ok(())) => {
                    shared.health.succeeded();
                    return items.into_iter().for_each(|item| item.claim.sent(0, None));
                }
                Ok(Err(error)) => error,
                Err(failed) => return lost(items, &failed.to_string()),
            };
            let full =
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let message = error.to_string();
            shared.ledger.failed();
            shared.health.failed(&message, Instant::now());
            if !full || started.elapsed() > FULL_MAX {
                shared.log.failed(
                    &shared.id,
                    &message,
                    items.iter().map(|item| item.request.spans).sum(),
                );
                return lost(items, &message);
            }
            shared.log.failed(&shared.id, &message, 0);
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }
}

fn lost(items: Vec<Item>, message: &str) {
    items.into_iter().for_each(|item| item.claim.dropped(DropReason::WriteFailed, message));
}

/// A full disk is waited for so long, and looked at so often.
const FULL_MAX: Duration = Duration::from_secs(300);
const FULL_PAUSE: Duration = Duration::from_secs(1);

impl Output {
    /// A line is in the file whole or not at all.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let rotates = self.rotation.filter(|rotation| {
            self.bytes > 0 && self.bytes + line.len() as u64 > rotation.bytes_max
        });
        if let Some(rotation) = rotates {
            self.rotate(rotation)?;
        }
        match self.file.write_all(line) {
            Ok(()) => {
                self.bytes += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.bytes)?;
                Err(error)
            }
        }
    }

    fn rotate(&mut self, rotation: Rotation) -> io::Result<()> {
        self.file.sync_data()?;
        let time = millis(SystemTime::now());
        let aside = backup(&self.path, &time);
        fs::rename(&self.path, aside)?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.bytes = 0;
        prune(&self.path, rotation)
    }
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
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut aside = Vec::new();
    for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
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

    #[test]
    fn files_moved_aside_are_pruned_by_number_and_others_are_left_alone() {
        let folder = std::env::temp_dir().join(format!("spanwire-file-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join("spans.json");
        let file = OpenOptions::new().create(true).append(true).open(&path).expect("a file");
        let rotation = Some(Rotation { bytes_max: 10, backups_max: 2, age_max: None });
        let mut output = Output { path: path.clone(), file, bytes: 0, rotation };
        fs::write(folder.join("spans-notes.json"), "mine").expect("a file");
        for old in 1..=4 {
            fs::write(backup(&path, &format!("{old:013}")), "old").expect("a file");
        }
        output.write(b"12345678\n").expect("there is room");
        output.write(b"abcdefgh\n").expect("there is room");
        let mut names: Vec<_> = fs::read_dir(&folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(fs::read_to_string(&path).expect("a file"), "abcdefgh\n");
        assert_eq!(names.len(), 4, "itself, two moved aside, and a stranger: {names:?}");
        assert!(names.contains(&"spans-notes.json".to_owned()), "{names:?}");
        assert!(names.contains(&"spans-0000000000004.json".to_owned()), "{names:?}");
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
