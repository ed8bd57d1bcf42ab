//! What the actions do to bytes is what they do to decoded attributes.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use spanwire_processors::{self as processors, Action, Actions, From, Type};

use crate::decoded;
use crate::generate::{self, Encoding, UNKNOWN};
use crate::plain::Plain;

fn from() -> impl Strategy<Value = From> {
    let value = prop_oneof![
        "[ab]{0,3}".prop_map(processors::Value::Str),
        (0..3_i64).prop_map(processors::Value::Int),
        (-1.0..1.0).prop_map(processors::Value::Double),
        any::<bool>().prop_map(processors::Value::Bool),
    ];
    prop_oneof![
        value.clone().prop_map(From::Value),
        generate::key().prop_map(From::Attribute),
        (generate::key(), value).prop_map(|(key, value)| From::AttributeOr(key, value)),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let key =
        || generate::key().prop_map(|key| if key.is_empty() { "new".to_owned() } else { key });
    let pattern =
        || prop_oneof![Just("^a"), Just("b$"), Just("a|priority")].prop_map(str::to_owned);
    let keys = || {
        prop_oneof![
            key().prop_map(|key| (Some(key), None)),
            (option::of(key()), pattern()).prop_map(|(key, pattern)| (key, Some(pattern))),
        ]
    };
    let extraction = prop_oneof![
        Just("(?P<a>[0-9]+)(?:\\.(?P<ab>[0-9]+))?"),
        Just("^(?P<new>[a-c]*)(?P<b>[0-9]*)"),
    ];
    let to = prop_oneof![Just(Type::Int), Just(Type::Double)];
    prop_oneof![
        (key(), from()).prop_map(|(key, from)| Action::Insert { key, from }),
        (key(), from()).prop_map(|(key, from)| Action::Update { key, from }),
        (key(), from()).prop_map(|(key, from)| Action::Upsert { key, from }),
        keys().prop_map(|(key, pattern)| Action::Delete { key, pattern }),
        keys().prop_map(|(key, pattern)| Action::Hash { key, pattern }),
        (key(), extraction)
            .prop_map(|(key, pattern)| Action::Extract { key, pattern: pattern.to_owned() }),
        (key(), to).prop_map(|(key, to)| Action::Convert { key, to }),
    ]
}

fn unknown_fields(bytes: &[u8]) -> usize {
    bytes.windows(UNKNOWN.len()).filter(|window| *window == UNKNOWN).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Faults 9, 18, 26.
    #[test]
    fn actions_on_bytes_are_actions_on_decoded_spans(
        request in generate::request(),
        list in vec(action(), 1..4),
        encoding in generate::encoding(),
    ) {
        let plain = Plain::new(&list);
        let is_one = list.len() == 1;
        let actions = Actions::new(list).expect("they are valid");
        let bytes = encoding.encode(&request);
        let edited = actions.spans(bytes.clone()).expect("a request");
        let mut expected = request.clone();
        for resource in &mut expected.resource_spans {
            for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
                plain.apply(&mut span.attributes);
            }
        }
        if is_one && expected == request && encoding != Encoding::Newer {
            prop_assert_eq!(edited.pieces[0].as_ptr(), bytes.as_ptr());
        }
        prop_assert_eq!(decoded(edited), expected);
    }

    /// Faults 9, 18, 26.
    #[test]
    fn actions_on_a_resource_are_actions_on_its_decoded_attributes(
        request in generate::request(),
        list in vec(action(), 1..4),
        encoding in generate::encoding(),
    ) {
        let plain = Plain::new(&list);
        let is_one = list.len() == 1;
        let actions = Actions::new(list).expect("they are valid");
        let bytes = encoding.encode(&request);
        let edited = actions.resources(bytes.clone()).expect("a request");
        let mut expected: ExportTraceServiceRequest = request.clone();
        for resource_spans in &mut expected.resource_spans {
            let came = resource_spans.resource.is_some();
            let mut attributes = resource_spans.resource.take().unwrap_or_default().attributes;
            plain.apply(&mut attributes);
            if came || !attributes.is_empty() {
                resource_spans.resource = Some(Resource { attributes, ..Resource::default() });
            }
        }
        if is_one && expected == request && encoding != Encoding::Newer {
            prop_assert_eq!(edited.pieces[0].as_ptr(), bytes.as_ptr());
        }
        prop_assert_eq!(decoded(edited), expected);
    }

    /// Faults 9.
    #[test]
    fn a_newer_peers_fields_outlive_each_action_on_another_attribute(
        request in generate::request(),
    ) {
        let bytes = Encoding::Newer.encode(&request);
        let from = From::Value(processors::Value::Str("x".into()));
        let actions = Actions::new(vec![
            Action::Upsert { key: "a".into(), from },
            Action::Hash { key: None, pattern: Some("b".into()) },
            Action::Extract { key: "a".into(), pattern: "(?P<new>.)".into() },
        ]);
        let actions = actions.expect("they are valid");
        // Duplicates of the key that is set go with what is in them; each other one stays.
        let gone = |attributes: &[KeyValue]| {
            attributes.iter().filter(|attribute| attribute.key == "a").count().saturating_sub(1)
        };
        let of_spans: usize = crate::spans(&request).map(|span| gone(&span.attributes)).sum();
        let edited = actions.spans(bytes.clone()).expect("a request").joined();
        prop_assert_eq!(unknown_fields(&edited) + of_spans, unknown_fields(&bytes));
        let resources = request.resource_spans.iter().filter_map(|spans| spans.resource.as_ref());
        let of_resources: usize = resources.map(|resource| gone(&resource.attributes)).sum();
        let edited = actions.resources(bytes.clone()).expect("a request").joined();
        prop_assert_eq!(unknown_fields(&edited) + of_resources, unknown_fields(&bytes));
    }
}
