//! Sampling by comparing 56 bits of randomness with a threshold.
//!
//! Source: "TraceState: Probability Sampling", opentelemetry-specification v1.60. A span is kept where
//! its randomness is not below the threshold, which is the share of spans to reject.

/// Bits of randomness and of thresholds, and hexadecimal digits.
const BITS: u32 = 56;
pub(crate) const DIGITS: u8 = 14;

/// The least probability that a threshold can express.
pub(crate) const PROBABILITY_MIN: f64 = 1.0 / (1_u64 << BITS) as f64;

/// How many of all 2^56 values of randomness are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Threshold(u64);

/// A value below 2^56, the same for all spans of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Randomness(u64);

impl Threshold {
    pub(crate) const ALWAYS: Self = Self(0);
    pub(crate) const NEVER: Self = Self(1 << BITS);

    /// The threshold for a probability, with a number of significant hexadecimal digits; leading ones
    /// of `0` or `f` don't count. [`NEVER`](Self::NEVER) below the least probability.
    pub(crate) fn of(probability: f64, digits: u8) -> Self {
        if probability < PROBABILITY_MIN {
            return Self::NEVER;
        }
        if probability >= 1.0 {
            return Self::ALWAYS;
        }
        let leading = leading_digits(probability).max(leading_digits(1.0 - probability));
        let digits = (u32::from(digits) + leading).min(u32::from(DIGITS));
        let exact = (1 << BITS) - (probability * (1_u64 << BITS) as f64).round() as u64;
        let cut = 4 * (u32::from(DIGITS) - digits);
        let half = (1 << cut) >> 1;
        Self((exact + half) >> cut << cut)
    }

    /// The threshold of the 14 bits that a hash is compared in: `rejected` of 2^14.
    pub(crate) const fn of_hash(rejected: u32) -> Self {
        Self((rejected as u64) << (BITS - HASH_BITS))
    }

    pub(crate) fn keeps(self, randomness: Randomness) -> bool {
        self.0 <= randomness.0
    }

    pub(crate) fn probability(self) -> f64 {
        ((1 << BITS) - self.0) as f64 / (1_u64 << BITS) as f64
    }

    /// Reads the value of `th`: 1 to 14 hexadecimal digits, of which trailing zeros may be absent.
    pub(crate) fn parse(digits: &[u8]) -> Option<Self> {
        let absent = u32::from(DIGITS).checked_sub(digits.len() as u32)?;
        Some(Self(parse_hex(digits)? << (4 * absent)))
    }

    /// Appends the value of `th`; nothing for [`NEVER`](Self::NEVER), which has none.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        let zeros = (self.0.trailing_zeros() / 4).min(u32::from(DIGITS) - 1);
        if self < Self::NEVER {
            put_hex(out, self.0 >> (4 * zeros), u32::from(DIGITS) - zeros);
        }
    }
}

impl Randomness {
    /// Kept at any probability.
    pub(crate) const MAX: Self = Self((1 << BITS) - 1);

    /// The last seven bytes of a trace's id, as "Randomness of trace-id" of W3C Trace Context Level 2
    /// has them.
    pub(crate) const fn of_trace(trace_id: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(trace_id) as u64 & Self::MAX.0)
    }

    /// That of the collector's `hash_seed` mode, so made that its first 14 bits compare as the hash does.
    pub(crate) fn of_hash(seed: u32, trace_id: [u8; 16]) -> Self {
        let hash = u64::from(fnv1a(seed.to_le_bytes().into_iter().chain(trace_id)));
        let low = hash & (HASH_BUCKETS as u64 - 1);
        let high = hash >> (32 - HASH_BITS);
        let first = HASH_BUCKETS as u64 - 1 - low;
        Self(first << (BITS - HASH_BITS) | (high ^ high << 10) << HASH_BITS | low)
    }

    /// Reads the value of `rv`: 14 hexadecimal digits.
    pub(crate) fn parse(digits: &[u8]) -> Option<Self> {
        if digits.len() != usize::from(DIGITS) {
            return None;
        }
        parse_hex(digits).map(Self)
    }

    /// Appends the value of `rv`.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        put_hex(out, self.0, u32::from(DIGITS));
    }
}

/// Bits of a hash that `hash_seed` compares.
const HASH_BITS: u32 = 14;
pub(crate) const HASH_BUCKETS: u32 = 1 << HASH_BITS;

/// The 32-bit FNV-1a hash.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Hexadecimal zeros that a fraction above 0 begins with.
fn leading_digits(fraction: f64) -> u32 {
    // The exponent of the binary form 0.1.. × 2^exponent; never a subnormal number.
    let exponent = (fraction.to_bits() >> 52) as i32 - 1022;
    (-exponent / 4).max(0) as u32
}

/// Reads 1 to 14 hexadecimal digits of either case.
fn parse_hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    })
}

fn put_hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    let digits = (0..digits).rev().map(|digit| (number >> (4 * digit)) as usize & 0xF);
    out.extend(digits.map(|digit| b"0123456789abcdef"[digit]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(put: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).expect("it is ASCII")
    }

    #[test]
    fn thresholds_are_those_of_the_specification() {
        for (probability, digits, expected) in [
            (1.0, 14, "0"),
            (0.5, 14, "8"),
            (0.25, 14, "c"),
            (0.01, 14, "fd70a3d70a3d71"),
            (0.01, 5, "fd70a4"),
            (0.01, 4, "fd70a"),
            (0.01, 3, "fd71"),
            (1.0 / 3.0, 4, "aaab"),
            (1.0 / 16384.0, 4, "fffc"),
            (1.0 - 8e-7, 14, "00000d6bf94d6"),
            (PROBABILITY_MIN, 4, "ffffffffffffff"),
            (PROBABILITY_MIN / 2.0, 4, ""),
        ] {
            let threshold = Threshold::of(probability, digits);
            assert_eq!(text(|out| threshold.put(out)), expected, "{probability}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for threshold in ["0", "8", "c", "fd70a4", "00000000000001", "ffffffffffffff"] {
            let read = Threshold::parse(threshold.as_bytes()).expect("it is valid");
            assert_eq!(text(|out| read.put(out)), threshold);
        }
        assert_eq!(Threshold::parse(b"80000000000000"), Threshold::parse(b"8"));
        let randomness = Randomness::parse(b"00Ff0000000001").expect("it is valid");
        assert_eq!(text(|out| randomness.put(out)), "00ff0000000001");
        for bad in ["", "x", "-1", "+1", "1_0", "000000000000000"] {
            assert_eq!(Threshold::parse(bad.as_bytes()), None, "{bad}");
        }
        for bad in ["", "1", "0000000000000", "000000000000000", "0000000000000g"] {
            assert_eq!(Randomness::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn randomness_is_the_last_seven_bytes_of_a_trace_id() {
        let mut trace_id = [0xAA; 16];
        trace_id[9..].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7]);
        let randomness = Randomness::of_trace(trace_id);
        assert_eq!(text(|out| randomness.put(out)), "01020304050607");
    }

    #[test]
    fn a_probability_survives_its_threshold() {
        for exponent in 0..56 {
            let probability = 0.5_f64.powi(exponent);
            assert_eq!(Threshold::of(probability, 4).probability(), probability);
        }
    }

    #[test]
    fn hashes_are_those_of_the_collector() {
        // The lowest 14 bits for no bytes and for 16 zeros, both with seed 0.
        let low = |bytes: &[u8]| {
            fnv1a([0; 4].into_iter().chain(bytes.iter().copied())) & (HASH_BUCKETS - 1)
        };
        assert_eq!((low(&[]), low(&[0; 16])), (0x3515, 0x2455));
        let randomness =
            Randomness::of_hash(653, 0x474a03c76d75951a4b4c537ced8f1122_u128.to_be_bytes());
        assert_eq!(text(|out| randomness.put(out)), "fa402373dec16f");
    }
}
