use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use arrayvec::ArrayString;

/// Identifies a trace: 16 bytes, never all zero.
///
/// Source: `trace_id` of `message Span` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0, and
/// "trace-id" in W3C Trace Context Level 2.
///
/// ```
/// use spanwire_model::TraceId;
///
/// let trace: TraceId = "4BF92F3577B34DA6A3CE929D0E0E4736".parse()?;
/// assert_eq!(trace.to_hex().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736"); // on the stack
/// assert!("00000000000000000000000000000000".parse::<TraceId>().is_err());
/// # Ok::<(), spanwire_model::InvalidId>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(NonZeroU128);

/// Identifies a span within its trace: 8 bytes, never all zero.
///
/// Source: `span_id` of `message Span` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0, and
/// "parent-id" in W3C Trace Context Level 2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(NonZeroU64);

/// Why a text or a byte string is not an id.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The input has another length than the id.
    #[error("expected {expected} hex digits, found {found} bytes")]
    Length {
        /// Hex digits an id of this kind has.
        expected: usize,
        /// Bytes found instead.
        found: usize,
    },
    /// A byte is no hex digit.
    #[error("not a hex digit at byte {at}")]
    Digit {
        /// Offset of the first such byte.
        at: usize,
    },
    /// Every digit is zero, which marks an absent id.
    #[error("an id must not be all zeros")]
    Zero,
}

macro_rules! id {
    ($id:ident, $repr:ty, $nonzero:ty, $bytes:literal, $digits:literal) => {
        impl $id {
            /// The id with this number; `None` for zero.
            #[must_use]
            pub const fn new(number: $repr) -> Option<Self> {
                match <$nonzero>::new(number) {
                    Some(id) => Some(Self(id)),
                    None => None,
                }
            }

            /// The id with these bytes, most significant first as on the wire; `None` for zeros.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Option<Self> {
                Self::new(<$repr>::from_be_bytes(bytes))
            }

            /// The bytes as on the wire, most significant first.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; $bytes] {
                self.0.get().to_be_bytes()
            }

            /// The id as a number.
            #[must_use]
            pub const fn get(self) -> $repr {
                self.0.get()
            }

            /// Lower-case hex digits on the stack; allocates nothing.
            #[must_use]
            pub fn to_hex(self) -> ArrayString<$digits> {
                let digits = hex_digits::<$bytes, $digits>(self.to_bytes());
                // Hex digits are ASCII, so there is no other case.
                ArrayString::from_byte_string(&digits).unwrap_or_default()
            }

            /// Reads hex digits of either case.
            ///
            /// # Errors
            ///
            /// [`InvalidId`] when the length differs, a byte is no hex digit or all are zero.
            pub fn from_hex(hex: &[u8]) -> Result<Self, InvalidId> {
                if hex.len() != $digits {
                    return Err(InvalidId::Length { expected: $digits, found: hex.len() });
                }
                let mut number: $repr = 0;
                for (at, &digit) in hex.iter().enumerate() {
                    let value = hex_value(digit).ok_or(InvalidId::Digit { at })?;
                    number = number << 4 | <$repr>::from(value);
                }
                Self::new(number).ok_or(InvalidId::Zero)
            }
        }

        impl FromStr for $id {
            type Err = InvalidId;

            fn from_str(hex: &str) -> Result<Self, InvalidId> {
                Self::from_hex(hex.as_bytes())
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.to_hex())
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }
    };
}

id!(TraceId, u128, NonZeroU128, 16, 32);
id!(SpanId, u64, NonZeroU64, 8, 16);

fn hex_digits<const BYTES: usize, const DIGITS: usize>(bytes: [u8; BYTES]) -> [u8; DIGITS] {
    const DIGIT: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGIT[usize::from(byte >> 4)];
        pair[1] = DIGIT[usize::from(byte & 15)];
    }
    digits
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
