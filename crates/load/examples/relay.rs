//! A pipe of bytes: what is sent to the first address is sent on to the second, unread, and back.
//!
//! Between generator and sink it shows what a machine charges for passing spans on at all, which a
//! collector that looks at them cannot be expected to beat by much:
//!
//! ```text
//! cargo run --release -p spanwire-load --example relay -- 127.0.0.1:5317 127.0.0.1:5319 &
//! cargo run --release -p spanwire-load -- --rate max --spans-per-request 100 \
//!     --endpoint http://127.0.0.1:5317 --sink 127.0.0.1:5319 --pid $(pgrep relay)
//! ```
#![expect(clippy::print_stderr, reason = "a command-line tool")]

use std::env;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    let Some((from, to)) = env::args().nth(1).zip(env::args().nth(2)) else {
        eprintln!("relay FROM TO, each as HOST:PORT");
        return ExitCode::from(2);
    };
    match serve(&from, &to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{from}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(from: &str, to: &str) -> io::Result<()> {
    for peer in TcpListener::bind(from)?.incoming() {
        let (peer, next) = (peer?, TcpStream::connect(to)?);
        peer.set_nodelay(true)?;
        next.set_nodelay(true)?;
        let back = (next.try_clone()?, peer.try_clone()?);
        thread::spawn(move || pass(peer, next));
        thread::spawn(move || pass(back.0, back.1));
    }
    Ok(())
}

/// Whichever end fails, both see the end of it.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // It may be gone already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
