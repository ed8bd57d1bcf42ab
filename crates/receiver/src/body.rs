//! Request bodies on their way: admitted before they are read, bounded while they are.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes};
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

/// A body that says how long it is, on its way. It is admitted before any of it is waited for.
#[derive(Debug)]
pub(crate) struct Declared {
    length: usize,
    bytes: Vec<u8>,
    reservation: Reservation,
}

impl Declared {
    pub(crate) fn admit(length: u64, bytes_max: usize, share: &Arc<Share>) -> Result<Self, Fault> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= bytes_max)
            .ok_or_else(|| Fault::too_large(bytes_max))?;
        let reservation = share.reserve(length).ok_or_else(Fault::budget)?;
        Ok(Self { length, bytes: Vec::new(), reservation })
    }

    pub(crate) fn missing(&self) -> usize {
        self.length - self.bytes.len()
    }

    /// Takes what is missing of what has arrived, and answers the rest.
    pub(crate) fn push<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let (own, rest) = data.split_at(self.missing().min(data.len()));
        self.make_room(own.len());
        self.bytes.extend_from_slice(own);
        rest
    }

    /// Where up to `most` bytes may be read to; none if none is missing.
    pub(crate) fn room(&mut self, most: usize) -> impl BufMut {
        let wanted = most.min(self.missing());
        self.make_room(wanted.min(1));
        let room = self.bytes.capacity() - self.bytes.len();
        (&mut self.bytes).limit(wanted.min(room))
    }

    /// What has arrived of it.
    pub(crate) fn admitted(self) -> Admitted {
        Admitted::filled(self.bytes, self.reservation)
    }

    /// The length is the peer's word, so beyond a first part the memory follows what has arrived: it
    /// doubles, and ends exactly at the length if the peer keeps its word.
    fn make_room(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let capacity = (2 * needed).max(INITIAL_BYTES_MAX).min(self.length);
            self.bytes.reserve_exact(capacity.max(needed) - self.bytes.len());
        }
    }
}

/// A body that ends where it ends, on its way. It is admitted as it comes.
#[derive(Debug)]
pub(crate) struct Undeclared {
    bytes: Vec<u8>,
    bytes_max: usize,
    reservation: Reservation,
}

impl Undeclared {
    pub(crate) fn new(bytes_max: usize, share: &Arc<Share>) -> Result<Self, Fault> {
        // Little, so that nobody is invited to send what there is no room for at all.
        let reservation = share.reserve(FIRST_BYTES.min(bytes_max)).ok_or_else(Fault::budget)?;
        Ok(Self { bytes: Vec::new(), bytes_max, reservation })
    }

    /// Takes what has arrived.
    pub(crate) fn push(&mut self, data: &[u8]) -> Result<(), Fault> {
        let needed = self.bytes.len() + data.len();
        if needed > self.bytes_max {
            return Err(Fault::too_large(self.bytes_max));
        }
        if needed > self.bytes.capacity() {
            let reserved = self.reservation.bytes();
            let capacity = (2 * needed).max(reserved).min(self.bytes_max);
            if !self.reservation.grow(capacity - reserved) {
                return Err(Fault::budget());
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    pub(crate) fn admitted(self) -> Admitted {
        Admitted::filled(self.bytes, self.reservation)
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

impl Arrived {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

pub(crate) fn too_slow() -> Fault {
    Fault::new(Reason::Timeout, "the body arrives too slowly")
}

/// Reads a whole body of HTTP/2.
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
    let Some(length) = body.size_hint().exact() else {
        let mut undeclared = Undeclared::new(bytes_max, share)?;
        while let Some(data) = next(body, arrived).await.map_err(|_error| broken())? {
            undeclared.push(&data)?;
        }
        return Ok(undeclared.admitted());
    };
    let mut declared = Declared::admit(length, bytes_max, share)?;
    while let Some(data) = next(body, arrived).await.map_err(|_error| broken())? {
        if !declared.push(&data).is_empty() {
            return Err(broken());
        }
    }
    match declared.missing() {
        0 => Ok(declared.admitted()),
        _ => Err(broken()),
    }
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
                    arrived.add(data.len());
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// What a declared length alone can make us allocate, per request.
const INITIAL_BYTES_MAX: usize = 1 << 20;

/// What a body that tells no length is given in advance.
const FIRST_BYTES: usize = 1 << 10;

/// A buffer may be handed on with one spare byte for this many filled ones.
const SPARE_RATIO_MAX: usize = 8;

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
    #[test]
    fn a_declared_length_allocates_only_as_bytes_arrive() {
        let share = Share::alone(64 << 20);
        let mut body = Declared::admit(64 << 20, 64 << 20, &share).expect("admitted");
        assert_eq!(share.bytes(), 64 << 20);
        body.push(b"ab");
        assert!(body.bytes.capacity() <= INITIAL_BYTES_MAX);
        body.push(&vec![0; INITIAL_BYTES_MAX]);
        assert!(body.bytes.capacity() <= 4 * INITIAL_BYTES_MAX);
    }

    #[test]
    fn a_declared_body_takes_its_length_and_leaves_the_rest() {
        let share = Share::alone(1000);
        let mut body = Declared::admit(5, 1000, &share).expect("admitted");
        assert_eq!(body.push(b"ab"), b"");
        assert_eq!(body.room(1000).remaining_mut(), 3);
        assert_eq!(body.push(b"cdef"), b"f");
        assert_eq!((body.missing(), body.room(1000).remaining_mut()), (0, 0));
        assert_eq!(body.admitted().bytes, "abcde");
        for (length, reason) in [(1001, Reason::TooLarge), (u64::MAX, Reason::TooLarge)] {
            let fault = Declared::admit(length, 1000, &share).expect_err("over the limit");
            assert_eq!(fault.reason, reason);
        }
        let fault = Declared::admit(1001, 2000, &share).expect_err("over the budget");
        assert_eq!((fault.reason, share.bytes()), (Reason::Budget, 0));
    }

    /// Faults 63.
    #[tokio::test]
    async fn an_undeclared_body_in_a_thousand_pieces_is_moved_a_few_times_only() {
        let piece = Bytes::from(vec![7; 1000]);
        let share = Share::alone(64 << 20);
        let mut body = Undeclared::new(64 << 20, &share).expect("admitted");
        let mut capacities = HashSet::new();
        for _ in 0..1000 {
            body.push(&piece).expect("room");
            assert_eq!(body.reservation.bytes(), body.bytes.capacity());
            capacities.insert(body.bytes.capacity());
        }
        assert!(capacities.len() <= 12, "{capacities:?}");
        drop(body);

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
                arrived.add(1);
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
