//! Reads request bodies: admitted before they are read, bounded while they are.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::budget::{Reservation, Share};
use crate::fault::Fault;
use crate::stats::Reason;

/// Bytes and the reservation that admits them.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) bytes: Bytes,
    pub(crate) reservation: Reservation,
}

impl Admitted {
    /// Makes a filled buffer what is handed on. Its spare capacity lives as long as its bytes, so it
    /// stays reserved, and what is worth a call of the allocator is given back to that.
    pub(crate) fn filled(mut buffer: Vec<u8>, mut reservation: Reservation) -> Self {
        if buffer.capacity() - buffer.len() > buffer.len() / SPARE_RATIO_MAX {
            buffer.shrink_to_fit();
        }
        debug_assert!(reservation.bytes() >= buffer.capacity(), "reserved before it was allocated");
        reservation.shrink(buffer.capacity());
        Self { bytes: buffer.into(), reservation }
    }
}

/// How slowly a body may arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The time any body has.
    pub(crate) timeout: Duration,
    /// Bytes a second that earn a body more time.
    pub(crate) rate_min: u64,
}

impl Pace {
    /// Runs `read` until the body is in, or until it is later than its bytes have earned.
    pub(crate) async fn keep<T>(
        self,
        read: impl AsyncFnOnce(&Arrived) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let arrived = Arrived(AtomicU64::new(0));
        let mut reading = pin!(read(&arrived));
        // Many bodies are here already, and need neither the time of day nor a timer.
        let mut due = None;
        let mut deadline = pin!(None::<Sleep>);
        poll_fn(|cx| {
            if let Poll::Ready(read) = reading.as_mut().poll(cx) {
                return Poll::Ready(read);
            }
            let due = *due.get_or_insert_with(|| Instant::now() + self.timeout);
            if deadline.is_none() {
                deadline.set(Some(sleep_until(due)));
            }
            while let Some(mut deadline) = deadline.as_mut().as_pin_mut() {
                ready!(deadline.as_mut().poll(cx));
                let earned = arrived.0.load(Ordering::Relaxed) / self.rate_min;
                let earned = due + Duration::from_secs(earned);
                if earned <= deadline.deadline() {
                    break;
                }
                deadline.reset(earned);
            }
            Poll::Ready(Err(too_slow()))
        })
        .await
    }
}

/// The bytes of a body that have arrived.
#[derive(Debug)]
pub(crate) struct Arrived(AtomicU64);

pub(crate) fn too_slow() -> Fault {
    Fault::new(Reason::Timeout, "the body arrives too slowly")
}

/// Reads a whole HTTP body. With a declared length it is admitted before it is read, otherwise as
/// it comes.
///
/// `broken` is what a transport error means to the request.
pub(crate) async fn read_whole<B>(
    body: &mut B,
    bytes_max: usize,
    share: &Arc<Share>,
    arrived: &Arrived,
    broken: impl Fn() -> Fault,
) -> Result<Admitted, Fault>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (length, mut gathered) = match body.size_hint().exact() {
        None => (0, Gathered::undeclared(bytes_max)),
        Some(length) => {
            let length = usize::try_from(length)
                .ok()
                .filter(|length| *length <= bytes_max)
                .ok_or_else(|| Fault::too_large(bytes_max))?;
            (length, Gathered::declared(length))
        }
    };
    let mut reservation = share.reserve(length).ok_or_else(Fault::budget)?;
    while let Some(data) = next(body, arrived).await.map_err(|_error| broken())? {
        if gathered.len() + data.len() > bytes_max {
            return Err(Fault::too_large(bytes_max));
        }
        let beyond = gathered.capacity_with(data.len()).saturating_sub(reservation.bytes());
        if beyond > 0 && !reservation.grow(beyond) {
            return Err(Fault::budget());
        }
        gathered.push(data);
    }
    Ok(gathered.admitted(reservation))
}

/// The next piece of a body, empty ones included; trailers are passed over.
async fn next<B>(body: &mut B, arrived: &Arrived) -> Result<Option<Bytes>, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    arrived.0.fetch_add(data.len() as u64, Ordering::Relaxed);
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Pieces of a body on their way to being one: the first is kept where it lies, and only a second
/// one makes them be copied.
struct Gathered {
    first: Bytes,
    copied: Vec<u8>,
    /// What the buffer is made of at once, where that is not over `bytes_max`.
    initial: usize,
    bytes_max: usize,
}

impl Gathered {
    /// Of a body that says how long it is. That is the peer's word, so the memory follows what has
    /// arrived: it doubles, and ends exactly at the length if the peer keeps its word.
    fn declared(length: usize) -> Self {
        let initial = INITIAL_BYTES_MAX;
        Self { first: Bytes::new(), copied: Vec::new(), initial, bytes_max: length }
    }

    /// Of a body that ends where it ends, at `bytes_max` at the latest. Its memory doubles as well.
    fn undeclared(bytes_max: usize) -> Self {
        Self { first: Bytes::new(), copied: Vec::new(), initial: 0, bytes_max }
    }

    fn len(&self) -> usize {
        self.first.len() + self.copied.len()
    }

    /// The bytes held once `more` have been pushed.
    fn capacity_with(&self, more: usize) -> usize {
        let needed = self.len() + more;
        if self.len() == 0 {
            needed
        } else if needed <= self.copied.capacity() {
            self.copied.capacity()
        } else {
            (2 * needed).max(self.initial).min(self.bytes_max).max(needed)
        }
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        let capacity = self.capacity_with(data.len());
        if capacity > self.copied.capacity() {
            self.copied.reserve_exact(capacity - self.copied.len());
        }
        if !self.first.is_empty() {
            self.copied.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.copied.extend_from_slice(&data);
    }

    fn admitted(self, reservation: Reservation) -> Admitted {
        if !self.copied.is_empty() {
            Admitted::filled(self.copied, reservation)
        } else if self.first.len() < COPY_BELOW {
            Admitted { bytes: Bytes::copy_from_slice(&self.first), reservation }
        } else {
            Admitted { bytes: self.first, reservation }
        }
    }
}

/// What a declared length alone can make us allocate, per request.
pub(crate) const INITIAL_BYTES_MAX: usize = 1 << 20;

/// A buffer may be handed on with one spare byte for this many filled ones.
const SPARE_RATIO_MAX: usize = 8;

/// A piece in place keeps the whole read buffer alive that it lies in. For a small one the buffer
/// would outweigh it many times, unseen by the budget; copying one costs less than 100 ns.
const COPY_BELOW: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::{Frame, SizeHint};

    use super::*;

    /// A body of scripted pieces, which may declare a length of its own.
    struct Script(VecDeque<Bytes>, Option<u64>);

    impl Body for Script {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }

        fn size_hint(&self) -> SizeHint {
            self.1.map(SizeHint::with_exact).unwrap_or_default()
        }
    }

    fn script(pieces: &[&[u8]]) -> Script {
        Script(pieces.iter().copied().map(Bytes::copy_from_slice).collect(), None)
    }

    fn cut_short() -> Fault {
        Fault::new(Reason::Framing, "the body ends early")
    }

    fn nothing_yet() -> Arrived {
        Arrived(AtomicU64::new(0))
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_handed_on_where_it_lies() {
        let share = Share::alone(10_000);
        let piece = Bytes::from(vec![7; 5000]);
        let mut body = Script([piece.clone()].into(), Some(5000));
        let read =
            read_whole(&mut body, 5000, &share, &nothing_yet(), cut_short).await.expect("admitted");
        assert_eq!(read.bytes.as_ptr(), piece.as_ptr());
    }

    #[tokio::test]
    async fn an_undeclared_body_is_admitted_as_it_comes_and_stops_at_each_limit() {
        let pieces: [&[u8]; 3] = [b"abcd", b"efgh", b"ij"];
        let read = async |bytes_max, budget_max| {
            let share = Share::alone(budget_max);
            let body = &mut script(&pieces);
            match read_whole(body, bytes_max, &share, &nothing_yet(), cut_short).await {
                Ok(admitted) => {
                    assert_eq!(share.bytes(), admitted.bytes.len());
                    Ok(admitted.bytes.len())
                }
                Err(fault) => {
                    assert_eq!(share.bytes(), 0);
                    Err(fault.reason)
                }
            }
        };
        assert_eq!(read(10, 10).await, Ok(10));
        assert_eq!(read(9, 10).await, Err(Reason::TooLarge));
        assert_eq!(read(10, 9).await, Err(Reason::Budget));
    }

    /// Faults 5.
    #[tokio::test]
    async fn a_declared_length_allocates_only_as_bytes_arrive() {
        let mut gathered = Gathered::declared(64 << 20);
        gathered.push(Bytes::from_static(b"a"));
        gathered.push(Bytes::from_static(b"b"));
        assert!(gathered.copied.capacity() <= INITIAL_BYTES_MAX);
        gathered.push(Bytes::from(vec![0; INITIAL_BYTES_MAX]));
        assert!(gathered.copied.capacity() <= 4 * INITIAL_BYTES_MAX);
    }

    /// Faults 63.
    #[tokio::test]
    async fn an_undeclared_body_in_a_thousand_pieces_is_moved_a_few_times_only() {
        let piece = Bytes::from(vec![7; 1000]);
        let mut gathered = Gathered::undeclared(64 << 20);
        let mut capacities = HashSet::new();
        for _ in 0..1000 {
            let announced = gathered.capacity_with(piece.len());
            gathered.push(piece.clone());
            assert_eq!(announced, gathered.first.len() + gathered.copied.capacity());
            capacities.insert(gathered.copied.capacity());
        }
        assert!(capacities.len() <= 12, "{capacities:?}");

        let share = Share::alone(64 << 20);
        let mut body = Script(std::iter::repeat_n(piece, 1000).collect(), None);
        let read = read_whole(&mut body, 64 << 20, &share, &nothing_yet(), cut_short).await;
        let Admitted { bytes, reservation } = read.expect("admitted");
        assert_eq!(bytes, vec![7; 1_000_000]);
        let capacity = Vec::from(bytes).capacity();
        assert_eq!(reservation.bytes(), capacity, "the spare bytes are counted");
        assert!(capacity <= 1_000_000 / 8 * 9, "and they are few");
    }

    /// How a body of `bytes` that comes one byte each `gap` fares, and after how long, in seconds.
    async fn drip(pace: Pace, bytes: u64, gap: Duration) -> (Result<(), Reason>, u64) {
        let begun = Instant::now();
        let read = pace.keep(async |arrived: &Arrived| {
            for _ in 0..bytes {
                tokio::time::sleep(gap).await;
                arrived.0.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let read = read.await.map_err(|fault| fault.reason);
        (read, begun.elapsed().as_secs())
    }

    /// Faults 68.
    #[tokio::test(start_paused = true)]
    async fn a_body_has_its_time_and_what_its_bytes_earn_beyond_it() {
        let pace = Pace { timeout: Duration::from_secs(30), rate_min: 2 };
        let seconds = Duration::from_secs;
        assert_eq!(drip(pace, 29, seconds(1)).await, (Ok(()), 29));
        // One byte a second earns half a second each: in all 60 seconds' worth, and no more.
        assert_eq!(drip(pace, 58, seconds(1)).await, (Ok(()), 58));
        assert_eq!(drip(pace, 1000, seconds(1)).await, (Err(Reason::Timeout), 59));
        // At the rate it may go on for ever, below it not.
        assert_eq!(drip(pace, 5000, Duration::from_millis(500)).await, (Ok(()), 2500));
        assert_eq!(drip(pace, 1, seconds(31)).await, (Err(Reason::Timeout), 30));
    }
}
