//! What the system's allocator keeps of large buffers once they are free.

use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Begins this process again, with an allocator that gives large buffers back, unless it has its
/// settings already. It goes on only where that is not needed or not possible.
///
/// The GNU C library has buffers of 128 KiB and more from the system, until one of up to 32 MiB is
/// freed: from then on it keeps them that large, for each thread that decompresses. Under
/// decompression bombs that came to 180 to 280 MiB at a limit of 64 MiB; with the limits fixed here
/// it stays within the limit and 64 MiB. They can be set from outside only, when a process begins.
/// Requests of up to 1,000 spans cost the same with them; at 5,000 (2 MB) it was 30 % more CPU.
///
/// # Errors
///
/// The operating system's, if it cannot begin again.
pub(crate) fn give_back() -> io::Result<()> {
    let is_gnu = cfg!(all(target_os = "linux", target_env = "gnu"));
    if !is_gnu || SETTINGS.iter().any(|(name, _)| env::var_os(name).is_some()) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    Err(again.args(arguments).envs(SETTINGS).exec())
}

/// `mallopt(3)`, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: from this size on a buffer is the system's,
/// and this much free memory at the end of the heap is given back. In bytes.
const SETTINGS: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_TRIM_THRESHOLD_", "4194304")];
