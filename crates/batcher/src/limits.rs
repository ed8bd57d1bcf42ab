//! How large and how old a batch may become, and which of these completes it.

use std::time::Duration;

/// How large and how old a [`Batch`](crate::Batch) may become.
///
/// The three limits are checked when the value is made, so a [`Batcher`](crate::Batcher) built on
/// them cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    spans_max: usize,
    bytes_max: usize,
    overhead_bytes: usize,
    age_max: Duration,
}

impl Limits {
    /// At most `spans_max` spans and `bytes_max` bytes a request, the oldest of them waiting no
    /// longer than `age_max`.
    ///
    /// With an `age_max` of zero each push completes its own batch.
    ///
    /// # Errors
    ///
    /// If `spans_max` or `bytes_max` is zero: no span could ever leave.
    ///
    /// ```
    /// use std::time::Duration;
    /// use spanwire_batcher::{InvalidLimits, Limits};
    ///
    /// let second = Duration::from_secs(1);
    /// assert!(Limits::new(512, 4 << 20, second).is_ok());
    /// assert_eq!(Limits::new(0, 4 << 20, second), Err(InvalidLimits::NoSpans));
    /// ```
    pub fn new(
        spans_max: usize,
        bytes_max: usize,
        age_max: Duration,
    ) -> Result<Self, InvalidLimits> {
        if spans_max == 0 {
            return Err(InvalidLimits::NoSpans);
        }
        if bytes_max == 0 {
            return Err(InvalidLimits::NoBytes);
        }
        Ok(Self { spans_max, bytes_max, overhead_bytes: 0, age_max })
    }

    /// The same limits, keeping `overhead_bytes` of each request's `bytes_max` for what is sent
    /// beside the items: a resource's and a scope's header, the frame.
    ///
    /// # Errors
    ///
    /// If nothing is left for the items.
    pub fn with_overhead(self, overhead_bytes: usize) -> Result<Self, InvalidLimits> {
        if overhead_bytes >= self.bytes_max {
            return Err(InvalidLimits::OnlyOverhead { overhead_bytes, bytes_max: self.bytes_max });
        }
        Ok(Self { overhead_bytes, ..self })
    }

    /// The same limits with another `spans_max`, as an [`Adaptive`](crate::Adaptive) decides it.
    ///
    /// # Errors
    ///
    /// If `spans_max` is zero.
    pub fn with_spans_max(self, spans_max: usize) -> Result<Self, InvalidLimits> {
        if spans_max == 0 {
            return Err(InvalidLimits::NoSpans);
        }
        Ok(Self { spans_max, ..self })
    }

    /// Spans a batch may hold.
    pub fn spans_max(&self) -> usize {
        self.spans_max
    }

    /// Bytes a request may have, overhead included.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes that the items of a batch may have together; at least 1.
    pub fn items_bytes_max(&self) -> usize {
        self.bytes_max - self.overhead_bytes
    }

    /// How long a span may wait in the batcher.
    pub fn age_max(&self) -> Duration {
        self.age_max
    }
}

/// Why [`Limits`] were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    /// `spans_max` is zero.
    #[error("a batch must be allowed at least one span")]
    NoSpans,
    /// `bytes_max` is zero.
    #[error("a batch must be allowed at least one byte")]
    NoBytes,
    /// The reserve for headers takes the whole request.
    #[error("an overhead of {overhead_bytes} bytes leaves nothing of a {bytes_max}-byte request")]
    OnlyOverhead {
        /// What was to be reserved.
        overhead_bytes: usize,
        /// What a request may have in all.
        bytes_max: usize,
    },
}

/// Which of the [`Limits`] complete a batch.
///
/// `bytes_max` is in force with each of them, as it is what a receiver accepts at all.
///
/// | | count | bytes | age |
/// | --- | --- | --- | --- |
/// | `TimeFirst` | | yes | yes |
/// | `SizeFirst` | yes | yes | |
/// | `Hybrid` | yes | yes | yes |
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// A steady rhythm: a batch leaves when its oldest span is `age_max` old, however many there
    /// are; earlier only if the request would grow over `bytes_max`. `spans_max` is not looked at.
    TimeFirst,
    /// Full requests: a batch leaves when it holds `spans_max` spans or `bytes_max` bytes, and
    /// waits for them as long as it takes. What is left goes out with
    /// [`Batcher::flush`](crate::Batcher::flush) only.
    SizeFirst,
    /// Whichever limit is reached first.
    #[default]
    Hybrid,
}

impl Strategy {
    /// Whether `age_max` completes a batch.
    pub(crate) fn ages(self) -> bool {
        match self {
            Self::TimeFirst | Self::Hybrid => true,
            Self::SizeFirst => false,
        }
    }

    /// The spans that complete a batch under `limits`.
    pub(crate) fn spans_max(self, limits: &Limits) -> usize {
        match self {
            Self::TimeFirst => usize::MAX,
            Self::SizeFirst | Self::Hybrid => limits.spans_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn limits_that_no_span_could_pass_are_refused() {
        assert_eq!(Limits::new(0, 1, SECOND), Err(InvalidLimits::NoSpans));
        assert_eq!(Limits::new(1, 0, SECOND), Err(InvalidLimits::NoBytes));
        let limits = Limits::new(1, 1, SECOND).expect("one span of one byte can pass");
        assert_eq!(limits.with_spans_max(0), Err(InvalidLimits::NoSpans));
        assert_eq!(
            limits.with_overhead(1).map_err(|error| error.to_string()),
            Err("an overhead of 1 bytes leaves nothing of a 1-byte request".to_owned())
        );
    }

    #[test]
    fn overhead_is_taken_from_the_request_and_not_added_to_it() {
        let limits = Limits::new(512, 4096, SECOND).expect("both limits are above zero");
        let limits = limits.with_overhead(96).expect("96 bytes leave room for items");
        assert_eq!(limits.bytes_max(), 4096);
        assert_eq!(limits.items_bytes_max(), 4000);
    }
}
