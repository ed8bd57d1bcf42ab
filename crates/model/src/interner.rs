use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;

use string_interner::backend::StringBackend;
use string_interner::symbol::SymbolU32;
use string_interner::{StringInterner, Symbol};

use crate::Text;

/// Shares one copy of each distinct text, within a bound.
///
/// For names and keys that arrive as data and repeat: a reader of ten thousand spans with a
/// hundred names keeps a hundred texts. Names written in source are static already and need none
/// of this.
///
/// A text costs twice its length and some 80 bytes, once: the lookup table keeps a copy of its own.
/// Texts live as long as the interner or the last span that shares them. The table is keyed with
/// random numbers, so a peer can't choose texts that collide.
///
/// ```
/// use spanwire_model::Interner;
///
/// let mut interner = Interner::new(1_000, 64 * 1024);
/// let name = interner.intern(&String::from("GET /users/{id}"));
/// assert_eq!(interner.intern("GET /users/{id}"), name); // the same copy
/// assert_eq!((interner.len(), interner.bytes()), (1, 15));
/// ```
pub struct Interner {
    symbols: StringInterner<StringBackend<SymbolU32>, RandomState>,
    /// By symbol: the backend numbers its texts in the order they come.
    texts: Vec<Text>,
    texts_max: usize,
    bytes: usize,
    bytes_max: usize,
    unshared: u64,
}

impl Interner {
    /// An interner that keeps at most `texts_max` texts of `bytes_max` bytes in all.
    #[must_use]
    pub fn new(texts_max: usize, bytes_max: usize) -> Self {
        Self {
            symbols: StringInterner::with_hasher(RandomState::new()),
            texts: Vec::new(),
            texts_max: texts_max.min(SYMBOLS_MAX),
            bytes: 0,
            bytes_max,
            unshared: 0,
        }
    }

    /// The shared copy of a text. Past a bound it is a copy of its own, counted by
    /// [`unshared`](Self::unshared); texts already kept stay shared.
    ///
    /// Cost: one hash of the text when it is known, two and three allocations when it is new.
    pub fn intern(&mut self, text: &str) -> Text {
        if text.is_empty() {
            return Text::default();
        }
        let known = self.symbols.get(text).and_then(|symbol| self.texts.get(symbol.to_usize()));
        if let Some(known) = known {
            return known.clone();
        }
        let shared = Text::from(Arc::<str>::from(text));
        if self.texts.len() < self.texts_max && text.len() <= self.bytes_max - self.bytes {
            self.symbols.get_or_intern(text);
            self.texts.push(shared.clone());
            self.bytes += text.len();
        } else {
            self.unshared = self.unshared.saturating_add(1);
        }
        shared
    }

    /// How many distinct texts are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether no text is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Bytes of the texts kept, each counted once.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often a text was handed out unshared because of a bound. A number that grows tells that
    /// the texts are not names but data, or that the bound is too low.
    #[must_use]
    pub fn unshared(&self) -> u64 {
        self.unshared
    }
}

impl fmt::Debug for Interner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interner({} texts, {} bytes)", self.len(), self.bytes)
    }
}

/// Most symbols of 32 bits; the backend panics past them.
const SYMBOLS_MAX: usize = u32::MAX as usize - 1;
