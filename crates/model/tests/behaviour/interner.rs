use proptest::prelude::*;
use spanwire_model::{Interner, Text};

fn shares(a: &Text, b: &Text) -> bool {
    a.as_str().as_ptr() == b.as_str().as_ptr()
}

#[test]
fn ten_thousand_spans_with_a_hundred_names_keep_a_hundred_texts() {
    let mut interner = Interner::new(1_000, 1 << 20);
    let name = |n: usize| format!("GET /a/route/of/fifty/bytes/in/all/of/them/{:07}", n % 100);
    let texts: Vec<Text> = (0..10_000).map(|n| interner.intern(&name(n))).collect();
    assert_eq!((interner.len(), interner.bytes()), (100, 5_000));
    assert_eq!(interner.unshared(), 0);
    for (n, text) in texts.iter().enumerate() {
        assert_eq!(text.as_str(), name(n));
        assert!(shares(text, &texts[n % 100]));
    }
}

#[test]
fn past_the_bound_of_texts_known_ones_are_shared_and_new_ones_counted() {
    let mut interner = Interner::new(2, usize::MAX);
    let known = ["a", "b"].map(|text| interner.intern(text));
    let over = interner.intern("c");
    assert_eq!(over.as_str(), "c");
    assert!(!shares(&over, &interner.intern("c")));
    assert!(shares(&known[1], &interner.intern("b")));
    assert_eq!((interner.len(), interner.bytes(), interner.unshared()), (2, 2, 2));
}

#[test]
fn the_bound_of_bytes_holds_exactly_and_shorter_texts_still_fit() {
    let mut interner = Interner::new(usize::MAX, 10);
    interner.intern("seven77");
    interner.intern("four");
    assert_eq!((interner.len(), interner.bytes(), interner.unshared()), (1, 7, 1));
    interner.intern("333");
    assert_eq!((interner.len(), interner.bytes(), interner.unshared()), (2, 10, 1));
}

#[test]
fn the_empty_text_takes_no_room() {
    let mut interner = Interner::new(0, 0);
    assert_eq!(interner.intern(""), Text::default());
    assert!(interner.is_empty());
    assert_eq!(interner.unshared(), 0);
}

#[test]
fn texts_outlive_the_interner() {
    let mut interner = Interner::new(1, 10);
    let text = interner.intern("name");
    drop(interner);
    assert_eq!(text.as_str(), "name");
}

proptest! {
    #[test]
    fn every_text_comes_back_as_it_went_in_and_no_bound_is_passed(
        texts in proptest::collection::vec("[ab€]{0,3}", 0..60),
        texts_max in 0_usize..10,
        bytes_max in 0_usize..30,
    ) {
        let mut interner = Interner::new(texts_max, bytes_max);
        for text in &texts {
            let interned = interner.intern(text);
            prop_assert_eq!(interned.as_str(), text);
            prop_assert!(interner.len() <= texts_max && interner.bytes() <= bytes_max);
        }
    }
}
