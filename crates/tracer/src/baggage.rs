//! Baggage: key-value pairs of the application's that travel with a request.
//!
//! # Guarantees
//!
//! - A peer's header costs bounded time and memory: [`Baggage::BYTES_MAX`] bytes and
//!   [`Baggage::ENTRIES_MAX`] members of it are read, no member is kept in part, and what is left
//!   out is counted.
//! - The text of a [`Baggage`] is always a valid header; no key, value or metadata can break out.
//! - Passing baggage on changes nothing in the entries kept, not even how they are encoded.
//!
//! # Example
//!
//! ```
//! use spanwire_tracer::baggage::Baggage;
//!
//! let received = Baggage::parse("tenant=acme%2C%20inc, broken, tier=gold;until=friday");
//! assert_eq!(received.dropped, 1);
//! assert_eq!(received.baggage.get("tenant").as_deref(), Some("acme, inc"));
//!
//! let sent = received.baggage.with("region", "eu west")?;
//! assert_eq!(sent.as_str(), "tenant=acme%2C%20inc,tier=gold;until=friday,region=eu%20west");
//! # Ok::<(), spanwire_tracer::baggage::InvalidBaggage>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Key-value pairs that travel with a request, such as a tenant or a test run.
///
/// A value, kept as the text of its header: a clone shares the text, passing it on to the next
/// process costs nothing, and empty baggage holds nothing. Keys are unique, the last one wins, and
/// the order is the one in which the entries came.
///
/// Baggage is sent to everything the process calls with it, other companies' services included; it
/// is no place for secrets.
///
/// ```
/// use spanwire_tracer::baggage::Baggage;
///
/// let baggage = Baggage::new().with("tenant", "acme, inc")?.with("tier", "gold")?;
/// assert_eq!(baggage.as_str(), "tenant=acme%2C%20inc,tier=gold");
/// assert_eq!(baggage.get("tenant").as_deref(), Some("acme, inc"));
/// # Ok::<(), spanwire_tracer::baggage::InvalidBaggage>(())
/// ```
///
/// Source: W3C Baggage; `baggage/api.md`, opentelemetry-specification v1.60.
// Invariant: at most ENTRIES_MAX members `key=value` or `key=value;metadata` with unique keys,
// joined by commas, without blanks around any part, at most BYTES_MAX bytes; never "".
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Baggage(Option<Arc<str>>);

/// One entry of [`Baggage`].
#[derive(Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key; case matters.
    pub key: &'a str,
    /// The value, percent-decoded. Bytes that are not UTF-8 appear as U+FFFD.
    pub value: Cow<'a, str>,
    /// The properties that follow the value, without the first semicolon, otherwise as they came;
    /// empty without any.
    pub metadata: &'a str,
}

/// What a `baggage` header held: see [`Baggage::parse`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Parsed {
    /// The entries kept.
    pub baggage: Baggage,
    /// Members left out of the part that was read: malformed, beyond [`Baggage::ENTRIES_MAX`], or
    /// followed by another with the same key.
    pub dropped: usize,
    /// Bytes at the end of the header that were not read, because whole members no longer fit into
    /// [`Baggage::BYTES_MAX`].
    pub unread_bytes: usize,
}

/// Why an entry cannot be added to [`Baggage`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBaggage {
    /// The key is not a token (RFC 9110 section 5.6.2).
    #[error("a baggage key must be a token")]
    Key,
    /// The metadata has a byte that is neither a blank, a tab, a semicolon nor a `baggage-octet`.
    #[error("malformed baggage metadata")]
    Metadata,
    /// There are [`Baggage::ENTRIES_MAX`] entries already.
    #[error("more than 64 baggage entries")]
    TooManyEntries,
    /// The header would be longer than [`Baggage::BYTES_MAX`].
    #[error("{bytes} bytes of baggage exceed the limit")]
    TooLong {
        /// Length the header would have, or that of the entry alone where that is too long already.
        bytes: usize,
    },
}

impl Baggage {
    /// Most entries kept: as many as W3C Baggage, "Limits", demands of every platform.
    pub const ENTRIES_MAX: usize = 64;

    /// Longest header kept, in bytes: as long as W3C Baggage, "Limits", demands of every platform.
    pub const BYTES_MAX: usize = 8192;

    /// No entries.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Reads a `baggage` header. Several header lines are joined with commas first, so that the
    /// limits apply to them together.
    ///
    /// Malformed members are left out and counted; so is what exceeds a limit, from the end. No
    /// member is kept in part. Empty members are ignored. Values are kept as they are encoded, so
    /// what is passed on is what came.
    ///
    /// ```
    /// use spanwire_tracer::baggage::Baggage;
    ///
    /// let parsed = Baggage::parse("tier=gold;until=friday, no key, tier = silver");
    /// assert_eq!(parsed.baggage.as_str(), "tier=silver");
    /// assert_eq!(parsed.dropped, 2); // the malformed one, and the one that was replaced
    /// ```
    ///
    /// Cost: reads at most [`BYTES_MAX`](Self::BYTES_MAX) bytes, looks into at most
    /// [`ENTRIES_MAX`](Self::ENTRIES_MAX) members, and allocates the text.
    pub fn parse(header: &str) -> Parsed {
        let read = whole_members(header);
        let mut kept = Members::new();
        let mut dropped = 0;
        let mut members = read.split(',').map(trim).filter(|member| !member.is_empty());
        // The limit counts members as they come, duplicates included, so that a header full of
        // duplicates costs no more than one full of entries.
        for text in members.by_ref().take(Self::ENTRIES_MAX) {
            let Some(member) = Member::parse(text) else {
                dropped += 1;
                continue;
            };
            if let Some(at) = kept.iter().position(|earlier| earlier.key == member.key) {
                kept.remove(at);
                dropped += 1;
            }
            kept.push(member);
        }
        dropped += members.count();
        // As long as what was read means: nothing was trimmed and nothing left out.
        let is_as_read = !kept.is_empty() && joined_len(&kept) == read.len();
        let baggage = if is_as_read { Self(Some(read.into())) } else { Self::join(&kept) };
        Parsed { baggage, dropped, unread_bytes: header.len() - read.len() }
    }

    /// The header's text; empty without entries.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }

    /// This baggage with one entry set, as the last one. The value may be any text.
    ///
    /// # Errors
    ///
    /// [`InvalidBaggage`] when the key is not a token, or when a limit would be exceeded.
    ///
    /// Cost: copies the text.
    pub fn with(&self, key: &str, value: &str) -> Result<Self, InvalidBaggage> {
        self.with_metadata(key, value, "")
    }

    /// Like [`with`](Self::with), with properties after the value: `key=value` pairs or keys alone,
    /// parted by semicolons.
    ///
    /// ```
    /// use spanwire_tracer::baggage::Baggage;
    ///
    /// let baggage = Baggage::new().with_metadata("tier", "gold", "until=friday;renews")?;
    /// assert_eq!(baggage.as_str(), "tier=gold;until=friday;renews");
    /// # Ok::<(), spanwire_tracer::baggage::InvalidBaggage>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`with`](Self::with), and when the metadata has bytes W3C forbids.
    pub fn with_metadata(
        &self,
        key: &str,
        value: &str,
        metadata: &str,
    ) -> Result<Self, InvalidBaggage> {
        if !is_token(key) {
            return Err(InvalidBaggage::Key);
        }
        // Checked before encoding, so that a huge text is not made three times as long first.
        let bytes = key.len() + value.len() + metadata.len();
        if bytes > Self::BYTES_MAX {
            return Err(InvalidBaggage::TooLong { bytes });
        }
        if !is_metadata(metadata) {
            return Err(InvalidBaggage::Metadata);
        }
        let value: Cow<'_, str> = utf8_percent_encode(value, ESCAPED).into();
        let mut members: Members<'_> = self.members().filter(|other| other.key != key).collect();
        let added = Member { key, value: &value, metadata: trim(metadata) };
        if members.try_push(added).is_err() {
            return Err(InvalidBaggage::TooManyEntries);
        }
        let bytes = joined_len(&members);
        if bytes > Self::BYTES_MAX {
            return Err(InvalidBaggage::TooLong { bytes });
        }
        Ok(Self::join(&members))
    }

    /// This baggage without the entry of one key.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        let others: Members<'_> = self.members().filter(|member| member.key != key).collect();
        Self::join(&others)
    }

    /// The value of a key, percent-decoded; borrowed where nothing had to be decoded. Bytes that are
    /// not UTF-8 appear as U+FFFD.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        self.members().find(|member| member.key == key).map(|member| decode(member.value))
    }

    /// The entries, in order.
    ///
    /// ```
    /// use spanwire_tracer::baggage::Baggage;
    ///
    /// let baggage = Baggage::parse("tier=gold;until=friday").baggage;
    /// let tier = baggage.iter().find(|entry| entry.key == "tier");
    /// assert!(tier.is_some_and(|entry| entry.value == "gold" && entry.metadata == "until=friday"));
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.members().map(|Member { key, value, metadata }| Entry {
            key,
            value: decode(value),
            metadata,
        })
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members().count()
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.as_str().split(',').filter_map(Member::split)
    }

    fn join(members: &[Member<'_>]) -> Self {
        if members.is_empty() {
            return Self(None);
        }
        let mut text = String::with_capacity(joined_len(members));
        for member in members {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(member.key);
            text.push('=');
            text.push_str(member.value);
            if !member.metadata.is_empty() {
                text.push(';');
                text.push_str(member.metadata);
            }
        }
        Self(Some(text.into()))
    }
}

impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Baggage({} entries, {} bytes)", self.len(), self.as_str().len())
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({}, {} bytes)", self.key, self.value.len())
    }
}

/// The members of one list.
type Members<'a> = ArrayVec<Member<'a>, { Baggage::ENTRIES_MAX }>;

/// A member of the list, the value still encoded.
#[derive(Clone, Copy)]
struct Member<'a> {
    key: &'a str,
    value: &'a str,
    metadata: &'a str,
}

impl<'a> Member<'a> {
    /// `list-member = key OWS "=" OWS value *( OWS ";" OWS property )`; `None` where that is not so.
    ///
    /// The properties are checked for their bytes only: their meaning is nobody's business here, and
    /// what W3C forbids in them could break out of the header.
    fn parse(text: &'a str) -> Option<Self> {
        let member = Self::split(text)?;
        let is_valid = is_token(member.key)
            && member.value.bytes().all(is_baggage_octet)
            && is_metadata(member.metadata);
        is_valid.then_some(member)
    }

    fn split(text: &'a str) -> Option<Self> {
        let (member, metadata) = text.split_once(';').unwrap_or((text, ""));
        let (key, value) = member.split_once('=')?;
        Some(Self { key: trim(key), value: trim(value), metadata: trim(metadata) })
    }

    fn len(&self) -> usize {
        let metadata = if self.metadata.is_empty() { 0 } else { 1 + self.metadata.len() };
        self.key.len() + 1 + self.value.len() + metadata
    }
}

/// Length of the members joined by commas.
fn joined_len(members: &[Member<'_>]) -> usize {
    members.iter().map(Member::len).sum::<usize>() + members.len().saturating_sub(1)
}

/// The longest start of a header that ends with a whole member and is within the limit.
fn whole_members(header: &str) -> &str {
    let Some(window) = header.as_bytes().get(..=Baggage::BYTES_MAX) else {
        return header;
    };
    let end = window.iter().rposition(|byte| *byte == b',').unwrap_or(0);
    header.get(..end).unwrap_or("")
}

fn decode(value: &str) -> Cow<'_, str> {
    percent_decode_str(value).decode_utf8_lossy()
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// `token = 1*tchar`, RFC 9110 section 5.6.2.
fn is_token(key: &str) -> bool {
    let is_tchar = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
    };
    !key.is_empty() && key.bytes().all(is_tchar)
}

/// `baggage-octet`, "Definition" in W3C Baggage: visible ASCII except `"`, `,`, `;` and `\`.
const fn is_baggage_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

fn is_metadata(metadata: &str) -> bool {
    metadata.bytes().all(|byte| is_baggage_octet(byte) || matches!(byte, b';' | b' ' | b'\t'))
}

/// What a value must not hold as it is: all but `baggage-octet`, and the percent sign. Bytes beyond
/// ASCII are always encoded.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');
