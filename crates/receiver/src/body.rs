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
            Poll::Ready(Err(Fault::new(Reason::Timeout, "the body arrives too slowly")))
        })
        .await
    }
}

/// The bytes of a body that have arrived.
#[derive(Debug)]
pub(crate) struct Arrived(AtomicU64);

/// Reads the one message of a unary gRPC request; also tells whether it is flagged as compressed.
///
/// The five bytes before the message decide: a message over `bytes_max`, or one that the budget has
/// no room for, is refused before any of it is waited for. A message that arrives in one DATA frame
/// is handed on where it lies.
///
/// Source: "Length-Prefixed-Message" in gRPC's `doc/PROTOCOL-HTTP2.md`.
pub(crate) async fn read_message<B>(
    body: &mut B,
    bytes_max: usize,
    share: &Arc<Share>,
    arrived: &Arrived,
) -> Result<(bool, Admitted), Fault>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut prefix = [0; PREFIX_BYTES];
    let mut filled = 0;
    let mut data = Bytes::new();
    while filled < PREFIX_BYTES {
        data = match next(body, arrived).await.map_err(|_reset| cancelled())? {
            Some(data) => data,
            None if filled == 0 => return Err(Fault::new(Reason::Framing, "no message")),
            None => return Err(cut_short()),
        };
        let part = data.split_to(data.len().min(PREFIX_BYTES - filled));
        prefix[filled..filled + part.len()].copy_from_slice(&part);
        filled += part.len();
    }
    let [flag, length @ ..] = prefix;
    let compressed = match flag {
        0 => false,
        1 => true,
        _ => return Err(Fault::new(Reason::Framing, "unknown flag before the message")),
    };
    let length = usize::try_from(u32::from_be_bytes(length))
        .ok()
        .filter(|length| *length <= bytes_max)
        .ok_or_else(|| Fault::too_large(bytes_max))?;
    let reservation = share.reserve(length).ok_or_else(Fault::budget)?;

    let mut gathered = Gathered::declared(data, length);
    while gathered.len() < length {
        let data = next(body, arrived).await.map_err(|_reset| cancelled())?;
        gathered.push(data.ok_or_else(cut_short)?);
    }
    if gathered.len() > length {
        return Err(second_message());
    }
    // The message is only the request's one message once the peer has ended its side.
    while let Some(data) = next(body, arrived).await.map_err(|_reset| cancelled())? {
        if !data.is_empty() {
            return Err(second_message());
        }
    }
    Ok((compressed, gathered.admitted(reservation)))
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
            (length, Gathered::declared(Bytes::new(), length))
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
    fn declared(first: Bytes, length: usize) -> Self {
        Self { first, copied: Vec::new(), initial: INITIAL_BYTES_MAX, bytes_max: length }
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

fn cancelled() -> Fault {
    Fault::new(Reason::Cancelled, "the stream was reset")
}

fn cut_short() -> Fault {
    Fault::new(Reason::Framing, "the message ends early")
}

fn second_message() -> Fault {
    Fault::new(Reason::Framing, "more than one message")
}

/// A flag byte and a length of four bytes, big-endian.
const PREFIX_BYTES: usize = 5;

/// What a declared length alone can make us allocate, per request.
const INITIAL_BYTES_MAX: usize = 1 << 20;

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

    fn nothing_yet() -> Arrived {
        Arrived(AtomicU64::new(0))
    }

    async fn message(pieces: &[&[u8]]) -> Result<(bool, Vec<u8>), Reason> {
        let share = Share::alone(100);
        let read = read_message(&mut script(pieces), 10, &share, &nothing_yet()).await;
        match read {
            Ok((compressed, Admitted { bytes, reservation })) => {
                assert_eq!(reservation.bytes(), bytes.len());
                Ok((compressed, bytes.to_vec()))
            }
            Err(fault) => {
                assert_eq!(share.bytes(), 0);
                Err(fault.reason)
            }
        }
    }

    #[tokio::test]
    async fn one_message_is_read_however_it_is_cut() {
        let wire = b"\x01\0\0\0\x06abcdef";
        for first in 0..wire.len() {
            for second in first..wire.len() {
                let pieces = [&wire[..first], &wire[first..second], &wire[second..], b""];
                assert_eq!(message(&pieces).await, Ok((true, b"abcdef".to_vec())));
            }
        }
        assert_eq!(message(&[b"\0\0\0\0\0"]).await, Ok((false, vec![])));
    }

    /// Faults 56, 81.
    #[tokio::test]
    async fn anything_but_one_whole_message_is_a_framing_error() {
        let wrong: [&[&[u8]]; 7] = [
            &[],
            &[b"", b""],
            &[b"\0\0\0\0"],
            &[b"\0\0\0\0\x02a"],
            &[b"\0\0\0\0\x01ab"],
            &[b"\0\0\0\0\x01a", b"\0\0\0\0\x01b"],
            &[b"\x02\0\0\0\x01a"],
        ];
        for pieces in wrong {
            assert_eq!(message(pieces).await, Err(Reason::Framing), "{pieces:?}");
        }
    }

    /// Faults 82.
    #[tokio::test]
    async fn a_message_is_refused_by_its_prefix_alone() {
        /// Fails the test if anything is read after the prefix.
        struct Prefix(Option<Bytes>);
        impl Body for Prefix {
            type Data = Bytes;
            type Error = Infallible;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                Poll::Ready(Some(Ok(Frame::data(self.0.take().expect("read past the prefix")))))
            }
        }
        let share = Share::alone(100);
        let cases: [(&'static [u8], Reason); 3] = [
            (b"\0\0\0\0\xC9", Reason::TooLarge),
            (b"\0\xFF\xFF\xFF\xFF", Reason::TooLarge),
            (b"\0\0\0\0\x65", Reason::Budget),
        ];
        for (prefix, reason) in cases {
            let mut body = Prefix(Some(Bytes::from_static(prefix)));
            let fault =
                read_message(&mut body, 200, &share, &nothing_yet()).await.expect_err("refused");
            assert_eq!(fault.reason, reason);
            assert_eq!(fault.retry_after.is_some(), reason == Reason::Budget);
        }
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_handed_on_where_it_lies() {
        let share = Share::alone(10_000);
        let piece = Bytes::from(vec![7; 5000]);
        let mut body = Script([piece.clone()].into(), Some(5000));
        let read =
            read_whole(&mut body, 5000, &share, &nothing_yet(), cut_short).await.expect("admitted");
        assert_eq!(read.bytes.as_ptr(), piece.as_ptr());

        let wire = Bytes::from([&b"\0\0\0\x13\x88"[..], &piece].concat());
        let mut body = Script([wire.clone()].into(), None);
        let (_, read) =
            read_message(&mut body, 5000, &share, &nothing_yet()).await.expect("admitted");
        assert_eq!(read.bytes.as_ptr(), wire[5..].as_ptr());
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
        let mut gathered = Gathered::declared(Bytes::new(), 64 << 20);
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
