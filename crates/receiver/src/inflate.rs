//! Decompresses whole bodies within a limit and a budget.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::body::Admitted;
use crate::budget::Reservation;
use crate::coding::Coding;
use crate::fault::Fault;
use crate::sink::Compressed;
use crate::stats::Reason;

mod block;
mod decoder;
#[cfg(test)]
mod tests;

use block::Block;
use decoder::Decoder;

/// A body that was compressed.
pub(crate) struct Inflated {
    pub(crate) plain: Admitted,
    /// As it came, where that is to be kept.
    pub(crate) compressed: Option<Compressed>,
}

/// Decompresses `wire`, to at most `bytes_max` bytes.
///
/// Output memory is taken from the budget before it is allocated; the compressed bytes are given
/// back at the end, unless they are to be kept. What the decompressor itself needs is not taken: it
/// is there for no longer than this runs, and of zstd's window no more is ever touched than has come
/// out. A body that has not ended after [`INLINE_BYTES`] continues on Tokio's blocking threads,
/// because 64 MiB of it would keep every other connection of this worker waiting for a tenth of a
/// second.
pub(crate) async fn inflate(
    wire: Admitted,
    coding: Coding,
    bytes_max: usize,
    keep: bool,
) -> Result<Inflated, Fault> {
    let wire = Wire::new(wire, coding, keep)?;
    let Some(decoder) = Decoder::new(wire.coding, wire.bytes.clone())? else {
        let block = Block::admit(wire, bytes_max)?;
        return match block.len() <= INLINE_BYTES {
            true => block.inflate(),
            false => aside(turn().await, move || block.inflate()).await,
        };
    };
    // Much that gives nothing out takes its time as well.
    let is_short = wire.bytes.len() <= INLINE_BYTES;
    let mut inflating = Inflating::start(wire, decoder, bytes_max)?;
    if is_short && inflating.run(INLINE_BYTES)? {
        return Ok(inflating.finish());
    }
    aside(turn().await, move || {
        inflating.run(bytes_max)?;
        Ok(inflating.finish())
    })
    .await
}

async fn aside<F>(turn: Option<SemaphorePermit<'static>>, rest: F) -> Result<Inflated, Fault>
where
    F: FnOnce() -> Result<Inflated, Fault> + Send + 'static,
{
    let rest = move || {
        let inflated = rest();
        drop(turn);
        inflated
    };
    // A panic in a decompressor is the data's fault, and so is the answer.
    tokio::task::spawn_blocking(rest).await.unwrap_or_else(|_panic| Err(corrupt()))
}

/// Waits for its turn to be decompressed aside.
async fn turn() -> Option<SemaphorePermit<'static>> {
    static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
        let cores = available_parallelism().map_or(1, usize::from);
        Semaphore::new(cores.min(TURNS_MAX))
    });
    // Never closed.
    TURNS.acquire().await.ok()
}

const TURNS_MAX: usize = 4;

/// A compressed body, and the reservation for it and for what it becomes.
struct Wire {
    coding: Coding,
    bytes: Bytes,
    bytes_reserved: usize,
    reservation: Reservation,
    keep: bool,
}

impl Wire {
    fn new(wire: Admitted, coding: Coding, keep: bool) -> Result<Self, Fault> {
        let Admitted { bytes, reservation } = wire;
        if bytes.is_empty() {
            // Not a compressed nothing, which has a header: a stream cut off before its first byte.
            return Err(corrupt());
        }
        let coding = coding.of_body(&bytes);
        Ok(Self { coding, bytes, bytes_reserved: reservation.bytes(), reservation, keep })
    }

    fn inflated(self, out: Vec<u8>) -> Inflated {
        let Self { coding, bytes, bytes_reserved, mut reservation, keep } = self;
        let compressed = keep.then(|| Compressed {
            encoding: coding,
            bytes,
            reservation: reservation.split(bytes_reserved),
        });
        Inflated { plain: Admitted::filled(out, reservation), compressed }
    }
}

struct Inflating {
    wire: Wire,
    decoder: Decoder,
    out: Vec<u8>,
    out_len: usize,
    bytes_max: usize,
}

impl Inflating {
    fn start(wire: Wire, decoder: Decoder, bytes_max: usize) -> Result<Self, Fault> {
        let guess = guess(&wire).clamp(INITIAL_BYTES_MIN, INITIAL_BYTES_MAX);
        let mut inflating = Self { wire, decoder, out: Vec::new(), out_len: 0, bytes_max };
        inflating.extend(guess.min(bytes_max))?;
        Ok(inflating)
    }

    /// Runs until the end, `true`, or until `pause` bytes are out, `false`.
    fn run(&mut self, pause: usize) -> Result<bool, Fault> {
        loop {
            if self.out_len < self.out.len() {
                match self.decoder.read(&mut self.out[self.out_len..])? {
                    0 => return Ok(true),
                    more => self.out_len += more,
                }
            } else {
                // The buffer often has the exact size, so see first whether there is anything more.
                let mut probe = [0; 64];
                let more = self.decoder.read(&mut probe)?;
                if more == 0 {
                    return Ok(true);
                }
                if self.out_len + more > self.bytes_max {
                    return Err(Fault::too_large(self.bytes_max));
                }
                self.extend((2 * self.out_len).clamp(self.out_len + more, self.bytes_max))?;
                self.out[self.out_len..][..more].copy_from_slice(&probe[..more]);
                self.out_len += more;
            }
            if self.out_len >= pause && pause < self.bytes_max {
                return Ok(false);
            }
        }
    }

    fn extend(&mut self, len: usize) -> Result<(), Fault> {
        if !self.wire.reservation.grow(len - self.out.len()) {
            return Err(Fault::budget());
        }
        self.out.reserve_exact(len - self.out.len());
        self.out.resize(len, 0);
        Ok(())
    }

    fn finish(self) -> Inflated {
        let Self { wire, mut out, out_len, .. } = self;
        out.truncate(out_len);
        wire.inflated(out)
    }
}

/// How much may come out; only the first allocation is sized by it.
fn guess(wire: &Wire) -> usize {
    match wire.coding {
        // ISIZE, RFC 1952 section 2.3.1: the length of the last member, modulo 2^32.
        Coding::Gzip => {
            wire.bytes.last_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize)
        }
        Coding::Zstd | Coding::Zlib => 4 * wire.bytes.len(),
        Coding::Snappy | Coding::SnappyFramed => 2 * wire.bytes.len(),
    }
}

fn corrupt() -> Fault {
    Fault::new(Reason::Malformed, "the compressed body is corrupt")
}

/// One to two milliseconds of work, after which a worker should turn to its other connections.
const INLINE_BYTES: usize = 1 << 20;

/// Enough for one or two spans.
const INITIAL_BYTES_MIN: usize = 1 << 10;

/// What a compressed body's word for its own size alone can make us allocate.
const INITIAL_BYTES_MAX: usize = 1 << 20;
