//! Baggage and its header, checked against the rules of W3C Baggage.

use proptest::prelude::*;
use spanwire_tracer::baggage::{Baggage, InvalidBaggage, Parsed};
use spanwire_tracer::propagation::{BAGGAGE, extract_baggage, inject_baggage};

/// Key, value and metadata of each entry.
fn entries(baggage: &Baggage) -> Vec<(String, String, String)> {
    let owned = baggage.iter().map(|e| (e.key.into(), e.value.into_owned(), e.metadata.into()));
    owned.collect()
}

fn entry(key: &str, value: &str, metadata: &str) -> (String, String, String) {
    (key.into(), value.into(), metadata.into())
}

fn numbered(entries: std::ops::Range<usize>) -> String {
    entries.map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",")
}

#[test]
fn header_is_read_in_order_with_blanks_trimmed() {
    let header = "userId =   alice ,\tserverNode = DF%2028 ; red ; zone=1 , isProduction=false";
    let parsed = Baggage::parse(header);
    assert_eq!(
        entries(&parsed.baggage),
        [
            entry("userId", "alice", ""),
            entry("serverNode", "DF 28", "red ; zone=1"),
            entry("isProduction", "false", ""),
        ]
    );
    let text = "userId=alice,serverNode=DF%2028;red ; zone=1,isProduction=false";
    assert_eq!(parsed.baggage.as_str(), text);
    assert_eq!((parsed.dropped, parsed.unread_bytes), (0, 0));
}

#[test]
fn value_may_be_empty_or_hold_equals_signs() {
    let baggage = Baggage::parse("empty=,token=YWJj==").baggage;
    assert_eq!(baggage.get("empty").as_deref(), Some(""));
    assert_eq!(baggage.get("token").as_deref(), Some("YWJj=="));
    assert_eq!(baggage.get("absent"), None);
}

#[test]
fn keys_differ_by_case() {
    let baggage = Baggage::parse("Key=1,key=2").baggage;
    assert_eq!(baggage.get("Key").as_deref(), Some("1"));
    assert_eq!(baggage.get("key").as_deref(), Some("2"));
}

#[test]
fn last_of_several_members_with_one_key_wins_and_the_others_are_counted() {
    let Parsed { baggage, dropped, .. } = Baggage::parse("a=1;m,b=2,c=3,a=4,a=5");
    assert_eq!((baggage.as_str(), dropped), ("b=2,c=3,a=5", 2));
}

#[test]
fn malformed_members_are_left_out_and_counted_and_empty_ones_are_neither() {
    let malformed = [
        "novalue",
        "=value",
        "k y=1",
        "k\u{e9}y=1",
        "k=\"quoted\"",
        "k=back\\slash",
        "k=in ner",
        "k=\u{e9}",
        "k=v;\"m\"",
        "k=v;\u{e9}",
        "k=v\u{7f}",
        "k=v\n",
        "k=v;m\r",
        "k@=1",
        ";m",
    ];
    for member in malformed {
        let header = format!("before=1,, \t ,{member},after=2,");
        let Parsed { baggage, dropped, .. } = Baggage::parse(&header);
        assert_eq!((baggage.as_str(), dropped), ("before=1,after=2", 1), "{header:?}");
    }
}

#[test]
fn header_without_a_valid_member_is_empty_baggage() {
    for header in ["", " ", ",", " , ", "novalue", ";"] {
        let baggage = Baggage::parse(header).baggage;
        assert_eq!(baggage, Baggage::new(), "{header:?}");
        assert!(baggage.is_empty(), "{header:?}");
        assert_eq!((baggage.len(), baggage.iter().count()), (0, 0), "{header:?}");
    }
}

#[test]
fn encoded_bytes_that_are_not_utf8_become_replacement_characters() {
    let baggage = Baggage::parse("k=a%FFb%E2%82z%zz%4").baggage;
    assert_eq!(baggage.get("k").as_deref(), Some("a\u{fffd}b\u{fffd}z%zz%4"));
}

#[test]
fn values_are_passed_on_as_they_were_encoded() {
    let header = "k=%41%ff%zz;p=%20";
    assert_eq!(Baggage::parse(header).baggage.as_str(), header);
}

#[test]
fn value_of_any_text_is_encoded_to_what_the_header_allows() {
    let baggage = Baggage::new().with("k", "a b\"c,d;e\\f%g\r\n\té=~").expect("any value");
    assert_eq!(baggage.as_str(), "k=a%20b%22c%2Cd%3Be%5Cf%25g%0D%0A%09%C3%A9=~");
}

#[test]
fn setting_a_key_again_replaces_its_entry_and_leaves_the_original_as_it_was() {
    let first = Baggage::parse("a=1;old,b=2").baggage;
    let second = first.with("a", "3").expect("valid");
    assert_eq!(second.as_str(), "b=2,a=3");
    assert_eq!(first.as_str(), "a=1;old,b=2");
    assert_eq!(second.without("b").as_str(), "a=3");
    assert_eq!(second.without("absent"), second);
    assert_eq!(second.without("b").without("a"), Baggage::new());
}

#[test]
fn key_and_metadata_cannot_break_out_of_the_header() {
    let empty = Baggage::new();
    for key in ["", "a b", "a=b", "a,b", "a;b", "é", "a\r\nb", "\"a\""] {
        assert_eq!(empty.with(key, "v"), Err(InvalidBaggage::Key), "{key:?}");
    }
    for metadata in ["a,b=c", "a\r\nb", "\"a\"", "é", "\\"] {
        let refused = Err(InvalidBaggage::Metadata);
        assert_eq!(empty.with_metadata("k", "v", metadata), refused, "{metadata:?}");
    }
    assert!(empty.with("!#$%&'*+-.^_`|~09azAZ", "v").is_ok());
}

#[test]
fn entry_beyond_the_limit_is_refused_unless_it_replaces_one() {
    let full = Baggage::parse(&numbered(0..Baggage::ENTRIES_MAX)).baggage;
    assert_eq!(full.len(), Baggage::ENTRIES_MAX);
    assert_eq!(full.with("another", "v"), Err(InvalidBaggage::TooManyEntries));
    let replaced = full.with("k7", "w").expect("replaces");
    assert_eq!((replaced.len(), replaced.get("k7").as_deref()), (Baggage::ENTRIES_MAX, Some("w")));
}

#[test]
fn members_beyond_the_limit_are_dropped_from_the_end_and_counted() {
    let Parsed { baggage, dropped, .. } = Baggage::parse(&numbered(0..100));
    assert_eq!(baggage.as_str(), numbered(0..64));
    assert_eq!(dropped, 36);
}

#[test]
fn header_up_to_the_limit_is_kept_and_the_member_that_exceeds_it_dropped_whole() {
    let fits = format!("a=1,k={}", "v".repeat(Baggage::BYTES_MAX - 6));
    for rest in ["", ",", ",b=2", ",b=2,c=3"] {
        let parsed = Baggage::parse(&format!("{fits}{rest}"));
        assert_eq!((parsed.baggage.as_str(), parsed.unread_bytes), (fits.as_str(), rest.len()));
    }
    let parsed = Baggage::parse(&format!("{fits}v"));
    assert_eq!((parsed.baggage.as_str(), parsed.unread_bytes), ("a=1", fits.len() + 1 - 3));
}

#[test]
fn entry_that_makes_the_header_too_long_is_refused() {
    let value = "v".repeat(Baggage::BYTES_MAX - 6);
    let baggage = Baggage::new().with("a", "1").expect("valid");
    assert!(baggage.with("k", &value).is_ok());
    let refused = Err(InvalidBaggage::TooLong { bytes: Baggage::BYTES_MAX + 1 });
    assert_eq!(baggage.with("kk", &value), refused);
    // Three times as long once encoded.
    let value = ",".repeat(Baggage::BYTES_MAX / 2);
    let bytes = "k=".len() + 3 * Baggage::BYTES_MAX / 2;
    assert_eq!(Baggage::new().with("k", &value), Err(InvalidBaggage::TooLong { bytes }));
}

#[test]
fn header_of_ten_megabytes_is_read_no_further_than_the_limit() {
    for pattern in ["a=1,", "é", ",", ";", " ", "=", "a=%ff;b;c=d,", "\0", "\u{10ffff},"] {
        let hostile = pattern.repeat((10 << 20) / pattern.len());
        let parsed = Baggage::parse(&hostile);
        let read = hostile.len() - parsed.unread_bytes;
        assert!(read <= Baggage::BYTES_MAX, "{pattern:?}: {read} bytes read");
        // What was left unread plays no part in what was found.
        let alone = Parsed { unread_bytes: 0, ..Baggage::parse(&hostile[..read]) };
        assert_eq!(alone, Parsed { unread_bytes: 0, ..parsed }, "{pattern:?}");
    }
}

#[test]
fn baggage_is_injected_and_extracted_under_its_name_and_empty_baggage_is_not_sent() {
    let mut sent = Vec::new();
    inject_baggage(&Baggage::new(), |name, value| sent.push((name, value.to_owned())));
    assert_eq!(sent, []);
    let baggage = Baggage::parse("a=1;m,b=2").baggage;
    inject_baggage(&baggage, |name, value| sent.push((name, value.to_owned())));
    assert_eq!(sent, [(BAGGAGE, "a=1;m,b=2".to_owned())]);
    assert_eq!(extract_baggage(|name| (name == "baggage").then_some("a=1;m,b=2")), baggage);
    assert_eq!(extract_baggage(|_| None), Baggage::new());
}

#[test]
fn debug_output_shows_no_values() {
    let baggage = Baggage::new().with("tenant", "secret").expect("valid");
    assert_eq!(format!("{baggage:?}"), "Baggage(1 entries, 13 bytes)");
    assert!(!format!("{:?}", baggage.iter().next()).contains("secret"));
}

proptest! {
    #[test]
    fn any_values_come_back_as_they_were(
        added in proptest::collection::vec(("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,5}", ".{0,20}", "[a-z]{0,5}"), 0..64)
    ) {
        let mut baggage = Baggage::new();
        let mut expected: Vec<(String, String, String)> = Vec::new();
        for (key, value, metadata) in added {
            baggage = baggage.with_metadata(&key, &value, &metadata).expect("within limits");
            expected.retain(|(k, ..)| *k != key);
            expected.push((key, value, metadata));
        }
        prop_assert_eq!(entries(&baggage), expected);
        prop_assert_eq!(baggage.len(), baggage.iter().count());
        let parsed = Baggage::parse(baggage.as_str());
        prop_assert_eq!(parsed, Parsed { baggage, dropped: 0, unread_bytes: 0 });
    }

    #[test]
    fn what_is_kept_of_any_header_is_valid_and_stays_the_same(
        header in prop_oneof![".*", "([ \t]?[abc%é]{0,2}[ =]=?[a%1\"]{0,3}(; ?[m=]{0,2})?,){0,80}"]
    ) {
        let baggage = Baggage::parse(&header).baggage;
        let is_safe = |byte: u8| matches!(byte, b' ' | b'\t' | 0x21..=0x7e);
        prop_assert!(baggage.as_str().bytes().all(is_safe));
        prop_assert!(baggage.len() <= Baggage::ENTRIES_MAX);
        prop_assert_eq!(baggage.is_empty(), baggage.iter().next().is_none());
        let again = Baggage::parse(baggage.as_str());
        prop_assert_eq!(again, Parsed { baggage, dropped: 0, unread_bytes: 0 });
    }
}
