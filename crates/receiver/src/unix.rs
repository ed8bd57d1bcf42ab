//! Sockets of the Unix domain: a file that must be made, found stale, and removed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixStream;

use crate::builder::BindError;

/// A listening socket of the Unix domain, and its file.
///
/// Its clones are one socket: a receiver that takes over from another is given a clone, and
/// nobody who connects meanwhile is refused. The file is removed with the last of them, unless
/// another has taken its place.
///
/// ```no_run
/// use spanwire_receiver::{Accepted, Received, Receiver, UnixSocket};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let socket = UnixSocket::bind("/run/otel/grpc.sock").await?;
/// let receiver = Receiver::builder()
///     .grpc_unix_socket(socket.clone())
///     .bind(async |_: Received| Ok(Accepted::default()))
///     .await?;
/// # let _ = receiver;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct UnixSocket(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    listener: UnixListener,
    path: PathBuf,
    file: File,
}

/// What tells a file from another at the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File {
    device: u64,
    inode: u64,
}

impl UnixSocket {
    /// Listens at `path`. Who may connect is left to the process's umask and to the folder.
    ///
    /// A socket file that is there already is replaced if nobody answers on it, which a process
    /// that was killed leaves behind. Anything else that is there stays, and is an error.
    ///
    /// # Errors
    ///
    /// [`BindError::Unix`], with [`io::ErrorKind::AddrInUse`] where the path is taken.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with I/O enabled.
    pub async fn bind(path: impl AsRef<Path>) -> Result<Self, BindError> {
        let path = path.as_ref();
        let bound = Bound::new(path).await;
        let bound = bound.map_err(|source| BindError::Unix { path: path.to_owned(), source })?;
        Ok(Self(Arc::new(bound)))
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A descriptor of its own for Tokio, which takes it over.
    pub(crate) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.0.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    }

    pub(crate) fn failed(&self, source: io::Error) -> BindError {
        BindError::Unix { path: self.0.path.clone(), source }
    }
}

impl Bound {
    async fn new(path: &Path) -> io::Result<Self> {
        // The process may change its folder before it removes the file.
        let path = std::path::absolute(path)?;
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !is_stale(&path).await? {
                    return Err(error);
                }
                fs::remove_file(&path)?;
                UnixListener::bind(&path)?
            }
            bound => bound?,
        };
        let file = File::at(&path)?;
        Ok(Self { listener, path, file })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if File::at(&self.path).is_ok_and(|file| file == self.file) {
            // What cannot be removed is found stale by the next one.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl File {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Whether `path` is a socket that nobody listens on any more.
async fn is_stale(path: &Path) -> io::Result<bool> {
    // A connection to a file of another kind is refused as well.
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let answer = UnixStream::connect(path).await;
    Ok(answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}
