//! Bytes that are no request, or hardly one.

use std::sync::LazyLock;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use spanwire_codec::view::{Request, reject_malformed};
use spanwire_processors::{
    Action, Actions, Edited, From, Malformed, Mode, Sampler, Settings, Type, Value,
};

use crate::generate;

static ACTIONS: LazyLock<Actions> = LazyLock::new(|| {
    let value = From::Value(Value::Int(1));
    let list = vec![
        Action::Insert { key: "new".into(), from: value.clone() },
        Action::Upsert { key: "a".into(), from: value },
        Action::Update { key: "b".into(), from: From::Attribute("a".into()) },
        Action::Hash { key: Some("ab".into()), pattern: Some("^b".into()) },
        Action::Extract { key: "ba".into(), pattern: "(?P<aa>.*)".into() },
        Action::Convert { key: "bb".into(), to: Type::String },
        Action::Delete { key: None, pattern: Some("priority".into()) },
    ];
    Actions::new(list).expect("they are valid")
});

fn samplers() -> impl Iterator<Item = Sampler> {
    [Mode::HashSeed, Mode::Proportional, Mode::Equalizing].into_iter().flat_map(|mode| {
        [true, false].map(|fail_closed| {
            let settings = Settings { mode, percentage: 50.0, fail_closed, ..Settings::default() };
            Sampler::new(settings).expect("it is valid")
        })
    })
}

/// What all processors make of some bytes.
fn all(bytes: &Bytes) -> Vec<Result<Edited, Malformed>> {
    let sampled = samplers().map(|sampler| Ok(sampler.sample(bytes.clone())?.kept));
    [ACTIONS.spans(bytes.clone()), ACTIONS.resources(bytes.clone())]
        .into_iter()
        .chain(sampled)
        .collect()
}

proptest! {
    /// Faults 4.
    #[test]
    fn no_bytes_make_a_processor_panic(bytes in vec(any::<u8>(), 0..300)) {
        all(&bytes.into());
    }

    /// What has been checked comes out well-formed, whatever was wrong with it before that.
    ///
    /// Faults 4.
    #[test]
    fn what_was_checked_comes_out_well_formed(
        request in generate::request(),
        encoding in generate::encoding(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = encoding.encode(&request).to_vec();
        for (index, byte) in changes {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
        }
        let bytes = Bytes::from(bytes);
        all(&bytes);
        if let Ok(checked) = reject_malformed(bytes) {
            for edited in all(&checked.request) {
                let edited = edited.expect("it was checked");
                let spans = edited.spans;
                let checked = reject_malformed(edited.joined()).expect("it is a request");
                prop_assert_eq!((checked.spans, checked.rejected), (spans, 0));
            }
        }
    }

    /// Faults 3.
    #[test]
    fn a_request_that_is_cut_off_is_an_error_or_ends_between_fields(
        request in generate::request(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = Bytes::from(request.encode_to_vec());
        let bytes = bytes.slice(..cut.index(bytes.len() + 1));
        let is_whole = Request::parse(&bytes).is_ok();
        for edited in all(&bytes) {
            prop_assert_eq!(edited.is_ok(), is_whole);
        }
    }
}

#[test]
fn what_is_not_utf_8_is_read_and_kept_as_it_is() {
    let attribute = b"\x4A\x0A\x0A\x02\xFFb\x12\x04\x0A\x02\xFE\xFE";
    let bytes = Bytes::from([b"\x0A\x10\x12\x0E\x12\x0C", &attribute[..]].concat());
    let copy = Action::Upsert { key: "k".into(), from: From::Value(Value::Bool(true)) };
    let pattern = Action::Delete { key: None, pattern: Some("^b".into()) };
    let actions = Actions::new(vec![copy, pattern]).expect("they are valid");
    let edited = actions.spans(bytes).expect("a request").joined();
    assert_eq!(edited[6..18], attribute[..]);
    let delete = Action::Delete { key: None, pattern: Some("b$".into()) };
    let actions = Actions::new(vec![delete]).expect("they are valid");
    let deleted = actions.spans(edited).expect("a request");
    assert_eq!(deleted.bytes, 6 + 9);
}

#[test]
fn of_very_many_attributes_with_one_key_setting_leaves_one() {
    let count = 100_000;
    let attributes = b"\x4A\x09\x0A\x01a\x12\x04\x0A\x02ab".repeat(count);
    let framed = |tag: u8, body: Vec<u8>| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(body.len() as u64, &mut out);
        [out, body].concat()
    };
    let bytes = Bytes::from(framed(0x0A, framed(0x12, framed(0x12, attributes))));
    let edited = ACTIONS.spans(bytes).expect("a request");
    let decoded = ExportTraceServiceRequest::decode(edited.joined()).expect("a request");
    assert_eq!(crate::spans(&decoded).next().map(|span| span.attributes.len()), Some(2));
}
