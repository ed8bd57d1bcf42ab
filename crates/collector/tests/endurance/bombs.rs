//! Small bodies that become gigabytes, and what a collector answers to them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use spanwire_transport::{Protocol, Retry, SendError, Transport, TransportConfig};
use tokio::runtime::Runtime;

/// A body that is to be decompressed.
#[derive(Clone)]
pub(crate) struct Bomb {
    /// As `Content-Encoding` has it.
    pub(crate) coding: &'static str,
    pub(crate) body: Bytes,
}

/// One of each kind: zeros, which are no protobuf, and the smallest elements of a request that is one.
pub(crate) fn of_each_kind() -> Vec<Bomb> {
    let bomb = |coding, body: Vec<u8>| Bomb { coding, body: body.into() };
    vec![
        bomb("gzip", gzip(&[0], BYTES)),
        bomb("zstd", zstd(BYTES)),
        bomb("deflate", zlib(BYTES)),
        bomb("snappy", snappy(48 << 20)),
        // These end below the limit of a request, so they are held whole before they are refused.
        bomb("gzip", gzip(EMPTY_RESOURCE_SPANS, 30 << 20)),
        bomb("snappy", snappy(30 << 20)),
    ]
}

/// What those become whose format knows no bound.
const BYTES: usize = 2 << 30;

/// What is repeated to make one, so that a bomb costs less to make than to take apart.
const PIECE: usize = 2 << 20;

/// Field 1 of `ExportTraceServiceRequest` in `collector/trace/v1/trace_service.proto`,
/// opentelemetry-proto v1.11.0, of no length.
const EMPTY_RESOURCE_SPANS: &[u8] = &[1 << 3 | 2, 0];

/// Members that follow each other, RFC 1952 section 2.2.
fn gzip(unit: &[u8], bytes: usize) -> Vec<u8> {
    let mut member = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    member.write_all(&unit.repeat(PIECE / unit.len())).expect("memory");
    member.finish().expect("memory").repeat(bytes / PIECE)
}

/// A stream of blocks each of which stands for itself after a full flush, RFC 1950.
fn zlib(bytes: usize) -> Vec<u8> {
    let mut blocks = Vec::with_capacity(PIECE);
    let mut state = Compress::new(Compression::best(), false);
    state.compress_vec(&[0; PIECE], &mut blocks, FlushCompress::Full).expect("memory");
    let last: &[u8] = &[0x03, 0x00];
    // Adler-32 of zeros: the sum of the bytes and 1, and as often that as there are bytes.
    let sum = u32::try_from(bytes % 65_521).expect("small") << 16 | 1;
    [&[0x78, 0xDA], &*blocks.repeat(bytes / PIECE), last, &sum.to_be_bytes()].concat()
}

/// A frame with a window of 8 MiB, of blocks that repeat one byte: RFC 8878 section 3.1.1.
fn zstd(bytes: usize) -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    const RUN_LENGTH: usize = 1 << 1;
    let block = |is_last| {
        let header = (BLOCK << 3 | RUN_LENGTH | usize::from(is_last)).to_le_bytes();
        [header[0], header[1], header[2], 0]
    };
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 13 << 3];
    frame.extend(block(false).repeat(bytes / BLOCK - 1));
    frame.extend(block(true));
    frame
}

/// A block of a zero and of copies of 64 bytes of what is before them: section 2.2.2 of snappy's
/// `format_description.txt`. It can become 21 times its size at most.
fn snappy(bytes: usize) -> Vec<u8> {
    let copies = (bytes - 1) / 64;
    let mut block = Vec::new();
    let mut length = copies * 64 + 1;
    while length > 0x7F {
        block.push(length as u8 | 0x80);
        length >>= 7;
    }
    block.extend([length as u8, 0, 0]);
    block.extend([63 << 2 | 2, 1, 0].repeat(copies));
    block
}

/// What a bomb was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// 413, or RESOURCE_EXHAUSTED for good.
    TooLarge,
    /// 429, or RESOURCE_EXHAUSTED with RetryInfo: there was no room for it beside the others.
    ComeBack,
    /// 400, or INVALID_ARGUMENT: what it became is no request.
    Malformed,
    /// Anything else, which nothing should be.
    Other,
}

/// Sends one by HTTP over a connection of its own.
pub(crate) fn post(address: SocketAddr, bomb: &Bomb) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         content-type: application/x-protobuf\r\ncontent-encoding: {}\r\ncontent-length: {}\r\n\r\n",
        bomb.coding,
        bomb.body.len(),
    );
    // Refused by its head, a body may not be read to its end.
    let _refused = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bomb.body));
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    let status = answer.get(b"HTTP/1.1 ".len()..).and_then(|rest| rest.get(..3));
    match status {
        Some(b"413") => Answer::TooLarge,
        Some(b"429") => Answer::ComeBack,
        Some(b"400") => Answer::Malformed,
        _ => Answer::Other,
    }
}

/// A connection of gRPC for bombs.
pub(crate) struct Grpc {
    runtime: Runtime,
    transport: Transport,
}

impl Grpc {
    /// `None` for a coding that no client of ours sends.
    pub(crate) fn new(address: SocketAddr, bomb: &Bomb) -> Option<Self> {
        let compression = match bomb.coding {
            "gzip" => spanwire_transport::Compression::Gzip,
            "zstd" => spanwire_transport::Compression::Zstd,
            _ => return None,
        };
        let config = TransportConfig::new(Protocol::Grpc, &format!("http://{address}"));
        let config = config.and_then(|config| config.compression(compression));
        let transport = Transport::new(&config.expect("an address")).expect("settings");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Some(Self { runtime: runtime.expect("a runtime"), transport })
    }

    /// Sends one.
    pub(crate) fn send(&self, bomb: &Bomb) -> Answer {
        let encoded = self.transport.frame(bomb.body.clone(), bomb.body.len(), 1);
        let encoded = encoded.expect("it sends compressed requests");
        let error = match self.runtime.block_on(self.transport.send(&encoded)) {
            Ok(_taken) => return Answer::Other,
            Err(error) => error,
        };
        match (&error, error.retry()) {
            (SendError::Oversize { .. }, _) => Answer::TooLarge,
            (SendError::Throttle { .. }, Retry::After(_)) => Answer::ComeBack,
            (SendError::Reject { .. }, _) => Answer::Malformed,
            _ => Answer::Other,
        }
    }
}
