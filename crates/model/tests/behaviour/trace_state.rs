use proptest::prelude::*;
use spanwire_model::{InvalidTraceState, TraceState};

fn parsed(text: &str) -> Result<String, InvalidTraceState> {
    TraceState::parse(text).map(|state| state.as_str().to_owned())
}

fn entries(count: usize) -> String {
    (0..count).map(|at| format!("k{at}=v")).collect::<Vec<_>>().join(",")
}

#[test]
fn valid_lists_are_kept_as_they_came() {
    for text in [
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        "fw529a3039@dt=FfAAAA",
        "0start=digit",
        "a_-*/@=!\"#$%&'()*+-./:;<>?@[\\]^_`{|}~",
        "k= leading and inner blanks",
        "same=1,same=2",
    ] {
        assert_eq!(parsed(text).as_deref(), Ok(text));
    }
    let widest = format!("{}={}", "k".repeat(256), "v".repeat(256));
    assert_eq!(parsed(&widest), Ok(widest));
}

#[test]
fn blanks_around_entries_and_empty_entries_are_dropped() {
    assert_eq!(parsed(" a=1\t,,\tb=2 , ,"), Ok("a=1,b=2".to_owned()));
    for empty in ["", " ", ",", " ,\t, "] {
        assert_eq!(TraceState::parse(empty), Ok(TraceState::EMPTY));
    }
}

#[test]
fn one_malformed_entry_discards_the_whole_list() {
    let too_wide = [format!("{}=v", "k".repeat(257)), format!("k={}", "v".repeat(257))];
    let malformed = [
        "key", "=v", "k=", "K=v", "kK=v", "_k=v", "k k=v", "k =v", "k=a=b", "k=\u{e9}", "k=a\tb",
        "k=\0", "k=\u{7f}",
    ];
    for entry in malformed.into_iter().chain(too_wide.iter().map(String::as_str)) {
        let list = format!("good=1,{entry},fine=2");
        assert_eq!(parsed(&list), Err(InvalidTraceState::Entry), "{entry:?}");
    }
}

#[test]
fn at_most_32_entries_of_4096_bytes_in_all_are_taken() {
    assert!(parsed(&entries(32)).is_ok());
    assert_eq!(parsed(&entries(33)), Err(InvalidTraceState::TooManyEntries));
    assert_eq!(parsed(&",".repeat(4096)), Ok(String::new()));
    for hostile in [",".repeat(4097), "a=b,".repeat(1 << 20), "x".repeat(1 << 22)] {
        let bytes = hostile.len();
        assert_eq!(parsed(&hostile), Err(InvalidTraceState::TooLong { bytes }));
    }
}

#[test]
fn a_set_entry_moves_to_the_front_and_the_last_gives_way() {
    let state = TraceState::parse(&entries(32)).expect("valid");
    let moved = state.with("k31", "new").expect("valid");
    assert_eq!(moved.get("k31"), Some("new"));
    assert!(moved.as_str().starts_with("k31=new,k0=v,") && moved.as_str().ends_with(",k30=v"));
    let added = state.with("ot", "th:c").expect("valid");
    assert!(added.as_str().starts_with("ot=th:c,k0=v,") && added.get("k31").is_none());
    assert_eq!(added.as_str().split(',').count(), 32);
    assert_eq!(state.as_str(), entries(32), "the state itself stays");
}

#[test]
fn an_entry_that_would_make_the_list_invalid_is_refused() {
    let state = TraceState::parse("a=1").expect("valid");
    for (key, value) in [("A", "1"), ("a", ""), ("a", "1,b=2"), ("a", "blank "), ("a=b", "1")] {
        assert_eq!(state.with(key, value), Err(InvalidTraceState::Entry));
    }
    let mut state = TraceState::EMPTY;
    let long = "v".repeat(256);
    let refused = (0..32).find_map(|at| match state.with(&format!("k{at}"), &long) {
        Ok(next) => {
            state = next;
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(refused, Some(InvalidTraceState::TooLong { bytes }) if bytes > 4096));
}

#[test]
fn a_removed_key_is_gone_with_all_its_entries() {
    let state = TraceState::parse("a=1,b=2,a=3").expect("valid");
    assert_eq!(state.without("a").as_str(), "b=2");
    assert!(state.without("a").without("b").is_empty());
    assert!(TraceState::EMPTY.without("a").is_empty());
}

proptest! {
    #[test]
    fn any_text_is_refused_or_kept_in_a_form_that_parses_to_itself(text in "[a-c=, \\t@A]{0,40}|.{0,60}") {
        if let Ok(state) = TraceState::parse(&text) {
            prop_assert!(state.as_str().len() <= text.len());
            prop_assert_eq!(TraceState::parse(state.as_str()), Ok(state));
        }
    }
}
