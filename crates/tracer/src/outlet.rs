use std::time::Duration;

use spanwire_codec::encode::EncodedScope;
use spanwire_pool::{Chunk, Slice};

/// Where full chunks go.
///
/// Called by recording threads, once a chunk: it should return fast. Any function of the same shape
/// is an outlet. A panic in it is caught: a chunk was refused then, and there is no room.
///
/// ```
/// use std::sync::mpsc::{SyncSender, sync_channel};
/// use spanwire_tracer::{Loss, Outlet, Provider, TracedChunk};
///
/// /// To a thread that sends; refuses what there is no room for rather than wait.
/// struct Channel(SyncSender<TracedChunk>);
///
/// impl Outlet for Channel {
///     fn accept(&self, chunk: TracedChunk) -> Result<(), Loss> {
///         self.0.try_send(chunk).map_err(|_| Loss::QueueFull)
///     }
/// }
///
/// let (sender, full_chunks) = sync_channel(64);
/// let provider = Provider::builder().build(Channel(sender));
/// std::thread::spawn({
///     let tracer = provider.tracer("shop");
///     move || tracer.start("checkout").end()
/// })
/// .join()
/// .expect("no panic");
/// let last = full_chunks.recv().expect("a thread that ends hands its chunk over");
/// assert_eq!(last.take().map(|taken| taken.slice.spans), Some(1));
/// ```
pub trait Outlet: Send + Sync + 'static {
    /// Takes a chunk over, with every span in it that nobody took yet.
    ///
    /// # Errors
    ///
    /// Why it cannot. The chunk then stays with its thread, which sheds the newest spans and offers
    /// the chunk again with the next one.
    fn accept(&self, chunk: TracedChunk) -> Result<(), Loss>;

    /// The memory for chunks is used up, and a thread has waited for `waited` already. Frees some, or
    /// waits a little longer; returns whether to try again.
    ///
    /// By default it does not, and the span is lost for [`Loss::Memory`].
    fn make_room(&self, _waited: Duration) -> bool {
        false
    }

    /// Takes over the last chunk of a thread that is ending, for whom it must not wait.
    ///
    /// # Errors
    ///
    /// Why it cannot; the chunk is then left to the next sweep.
    fn accept_last(&self, chunk: TracedChunk) -> Result<(), Loss> {
        self.accept(chunk)
    }
}

impl<F: Fn(TracedChunk) -> Result<(), Loss> + Send + Sync + 'static> Outlet for F {
    fn accept(&self, chunk: TracedChunk) -> Result<(), Loss> {
        self(chunk)
    }
}

/// Why a finished span was not handed on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Loss {
    /// The queue is full.
    QueueFull = 0,
    /// The memory for chunks is used up.
    Memory = 1,
    /// The span ended after the shutdown.
    Shutdown = 2,
}

impl Loss {
    /// How many reasons there are.
    pub(crate) const COUNT: usize = 3;

    /// Each reason.
    pub const ALL: [Self; Self::COUNT] = [Self::QueueFull, Self::Memory, Self::Shutdown];
}

/// A tracer's scope, with its encoded form.
#[derive(Clone, Debug)]
pub struct TracedScope {
    /// Unique within the process.
    pub id: u64,
    /// What precedes its spans in a request.
    pub encoded: EncodedScope,
}

/// A chunk of one tracer's spans, one thread's.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct TracedChunk {
    /// The spans.
    pub chunk: Chunk,
    /// Whose they are.
    pub scope: TracedScope,
}

/// Spans taken out of a [`TracedChunk`].
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct TracedSlice {
    /// The spans.
    pub slice: Slice,
    /// Whose they are.
    pub scope: TracedScope,
}

impl TracedChunk {
    /// The spans nobody took yet.
    #[must_use]
    pub fn take(&self) -> Option<TracedSlice> {
        Some(TracedSlice { slice: self.chunk.take()?, scope: self.scope.clone() })
    }
}
