//! One connection: two directions, each of which delays, paces and ends what passes.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::plan::{Course, Direction, Fault, Plan, generator};
use crate::stats::{Counters, add};

/// Serves one client to the end of its connection.
pub(crate) async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    mut plans: watch::Receiver<Plan>,
    number: u64,
    counters: Arc<Counters>,
) {
    add(&counters.connections, 1);
    let _open = Open(&counters.ended);
    // Changed before this task ran or after: either way it is looked at once.
    if plans.borrow_and_update().drawn(number).refuse {
        add(&counters.refusals, 1);
        return reset(client);
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        add(&counters.unreachable, 1);
        return reset(client);
    };
    // Pieces are passed on as they come; a failure shows on the first read.
    let _unset = client.set_nodelay(true).and(server.set_nodelay(true));

    let cut = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let pump = |direction| Pump::new(direction, number, plans.clone(), &counters);
        let up = pump(Direction::Up).run(client_read, server_write);
        let down = pump(Direction::Down).run(server_read, client_write);
        let both = async { tokio::try_join!(up, down).err() };
        tokio::select! {
            cut = both => cut,
            _ = plans.wait_for(|plan| plan.drawn(number).refuse) => {
                add(&counters.refusals, 1);
                Some(Cut::Reset)
            }
        }
    };
    match cut {
        Some(Cut::Reset) => {
            reset(client);
            reset(server);
        }
        Some(Cut::Close) => {
            // A socket closed with bytes unread would send a reset after all.
            let _late = timeout(LINGER_MAX, async {
                tokio::join!(end(&mut client), end(&mut server));
            })
            .await;
        }
        None => {}
    }
}

/// Longest time for both sides to notice an orderly end.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// How a connection ends before both sides have ended it.
enum Cut {
    Reset,
    Close,
}

/// Counts a connection as ended, however it ends.
struct Open<'a>(&'a AtomicU64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        add(self.0, 1);
    }
}

fn reset(stream: TcpStream) {
    // Fails only on a socket that is already gone.
    let _unset = stream.set_zero_linger();
}

/// Ends a stream and waits for its peer to end it too.
async fn end(stream: &mut TcpStream) {
    let (read, mut write) = stream.split();
    // A peer that is gone needs no end.
    let _gone = write.shutdown().await;
    discard(read).await;
}

/// Reads to the end, or to a failure.
async fn discard(mut from: ReadHalf<'_>) {
    let mut buffer = [0; 4096];
    while from.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
}

/// One direction of a connection.
struct Pump<'a> {
    direction: Direction,
    number: u64,
    plans: watch::Receiver<Plan>,
    counters: &'a Counters,
    /// What is on its way, oldest first.
    line: VecDeque<Piece>,
}

/// Bytes with the time they are due; none at all for the end of the stream.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    written: usize,
}

/// Pieces on their way at most, of [`PIECE_BYTES`] each: 512 KiB, which bounds what passes within
/// one latency.
const LINE_MAX: usize = 32;
const PIECE_BYTES: usize = 16 << 10;

/// A rate lets pass at once what it allows within this time.
const PACE: Duration = Duration::from_millis(20);

/// What a pump does next.
enum Step {
    Plan,
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Fault,
    End,
}

impl<'a> Pump<'a> {
    fn new(
        direction: Direction,
        number: u64,
        plans: watch::Receiver<Plan>,
        counters: &'a Counters,
    ) -> Self {
        Self { direction, number, plans, counters, line: VecDeque::new() }
    }

    /// Passes bytes until the sender's end has been passed on, or a fault has taken its place.
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Cut> {
        let (counter, stream) = match self.direction {
            Direction::Up => (&self.counters.bytes_up, 0),
            Direction::Down => (&self.counters.bytes_down, 1),
        };
        let mut random = generator(self.number, stream);
        let mut buffer = vec![0; PIECE_BYTES];
        let mut course = self.course();
        let (mut passed, mut ended, mut stalled) = (0, false, false);
        let mut free_at = Instant::now();
        let mut last_due = free_at;
        loop {
            let room = course.fault.map_or(u64::MAX, |(after, _)| after - passed);
            let pace = course.bytes_per_second.map_or(u64::MAX, |rate| {
                (rate.saturating_mul(PACE.as_millis() as u64) / 1000).max(1)
            });
            let step = tokio::select! {
                changed = self.plans.changed() => match changed {
                    Ok(()) => Step::Plan,
                    // The proxy is being dropped.
                    Err(_) => return Err(Cut::Reset),
                },
                read = from.read(&mut buffer), if !ended && !stalled && self.line.len() < LINE_MAX => {
                    Step::Read(read)
                }
                step = deliver(self.line.front(), &mut to, free_at, room.min(pace)), if !stalled => step,
            };
            match step {
                Step::Plan => {
                    course = self.course();
                    passed = 0;
                    stalled = false;
                }
                Step::Read(Ok(len)) => {
                    ended = len == 0;
                    let jitter = course.jitter.mul_f64(random.f64());
                    // Jitter must not let a piece overtake the one before.
                    last_due = last_due.max(Instant::now() + course.latency + jitter);
                    let bytes = buffer[..len].to_vec();
                    self.line.push_back(Piece { due: last_due, bytes, written: 0 });
                }
                Step::Wrote(Ok(len)) => {
                    add(counter, len as u64);
                    passed += len as u64;
                    if let Some(rate) = course.bytes_per_second {
                        let taken = Duration::from_secs_f64(len as f64 / rate as f64);
                        free_at = free_at.max(Instant::now()) + taken;
                    }
                    self.written(len);
                }
                Step::Read(Err(_)) | Step::Wrote(Err(_)) => return Err(Cut::Reset),
                Step::End => {
                    // A receiver that is gone needs no end.
                    let _gone = to.shutdown().await;
                    return Ok(());
                }
                Step::Fault => match course.fault.map(|(_, fault)| fault) {
                    Some(Fault::Reset) => {
                        add(&self.counters.resets, 1);
                        return Err(Cut::Reset);
                    }
                    Some(Fault::Close) => {
                        add(&self.counters.closes, 1);
                        return Err(Cut::Close);
                    }
                    Some(Fault::HalfClose) => {
                        add(&self.counters.half_closes, 1);
                        let _gone = to.shutdown().await;
                        discard(from).await;
                        return Ok(());
                    }
                    Some(Fault::Swallow) => {
                        add(&self.counters.swallows, 1);
                        discard(from).await;
                        return Ok(());
                    }
                    Some(Fault::Stall) => {
                        add(&self.counters.stalls, 1);
                        stalled = true;
                    }
                    None => {}
                },
            }
        }
    }

    fn course(&mut self) -> Course {
        self.plans.borrow_and_update().drawn(self.number).course(self.direction)
    }

    fn written(&mut self, len: usize) {
        let Some(piece) = self.line.front_mut() else { return };
        piece.written += len;
        if piece.written == piece.bytes.len() {
            self.line.pop_front();
        }
    }
}

/// Waits until the piece is due, then writes up to `len_max` bytes of it. Without a piece it never
/// ends; dropped while it waits, it has done nothing.
async fn deliver(
    piece: Option<&Piece>,
    to: &mut WriteHalf<'_>,
    free_at: Instant,
    len_max: u64,
) -> Step {
    let Some(piece) = piece else { return std::future::pending().await };
    sleep_until(piece.due.max(free_at)).await;
    let rest = &piece.bytes[piece.written..];
    if rest.is_empty() {
        return Step::End;
    }
    if len_max == 0 {
        return Step::Fault;
    }
    let len = rest.len().min(usize::try_from(len_max).unwrap_or(usize::MAX));
    Step::Wrote(to.write(&rest[..len]).await)
}
