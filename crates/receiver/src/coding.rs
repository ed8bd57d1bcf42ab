//! The compressions of bodies, by the names that HTTP and gRPC have for them.

/// A compression of a request's body.
///
/// Sources: RFC 9110 section 8.4.1, `config/confighttp/README.md` and `config/configgrpc/README.md`
/// of the OpenTelemetry Collector, whose exporters send these.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 1952: `gzip`. Several members follow each other as if they were one; anything else after
    /// one is an error.
    Gzip,
    /// RFC 8878: `zstd`, with a window of at most 8 MiB as RFC 9659 has it. Frames likewise follow
    /// each other.
    Zstd,
    /// RFC 1950: `deflate` and `zlib`, by HTTP only. Bare RFC 1951, which some have called `deflate`
    /// too, is none of it.
    Zlib,
    /// Snappy's block format, `snappy`, by HTTP only.
    Snappy,
    /// Snappy's framing format: `x-snappy-framed` by HTTP, where `snappy` may mean it too, and
    /// `snappy` by gRPC.
    SnappyFramed,
}

impl Coding {
    /// What `Content-Encoding` names.
    pub(crate) fn of_http(name: &[u8]) -> Option<Self> {
        let names: [(&[u8], Self); 7] = [
            (b"gzip", Self::Gzip),
            (b"x-gzip", Self::Gzip),
            (b"zstd", Self::Zstd),
            (b"deflate", Self::Zlib),
            (b"zlib", Self::Zlib),
            (b"snappy", Self::Snappy),
            (b"x-snappy-framed", Self::SnappyFramed),
        ];
        names.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, it)| it)
    }

    /// What `grpc-encoding` names.
    pub(crate) fn of_grpc(name: &[u8]) -> Option<Self> {
        let names: [(&[u8], Self); 4] = [
            (b"gzip", Self::Gzip),
            (b"x-gzip", Self::Gzip),
            (b"zstd", Self::Zstd),
            (b"snappy", Self::SnappyFramed),
        ];
        names.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, it)| it)
    }

    /// The format that `body` has, where one name stands for two: Collectors have sent frames as
    /// `snappy`, and some still do.
    pub(crate) fn of_body(self, body: &[u8]) -> Self {
        match self {
            Self::Snappy if body.starts_with(SNAPPY_FRAMES_START) => Self::SnappyFramed,
            coding => coding,
        }
    }
}

/// What `Accept-Encoding` answers to any other coding.
pub(crate) const HTTP_ACCEPTED: &str = "gzip, zstd, deflate, snappy, x-snappy-framed, identity";

/// What `grpc-accept-encoding` answers to any other coding.
pub(crate) const GRPC_ACCEPTED: &str = "identity,gzip,zstd,snappy";

/// The stream identifier that begins every framed stream: section 4.1 of snappy's
/// `framing_format.txt`. A block that begins so claims 895 bytes and contradicts itself.
const SNAPPY_FRAMES_START: &[u8] = b"\xFF\x06\0\0sNaPpY";
