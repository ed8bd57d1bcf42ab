//! Headers that an exporter sends.

use std::collections::BTreeMap;

use crate::report::Findings;
use crate::secret::Secret;
use crate::section::Section;
use crate::tree::{Kind, Node, Place, Value};

/// Reads headers as a map, or as a list of `name` and `value`. What is wrong is told without the
/// line it stands in, since that may show a secret.
pub(crate) fn read(section: &Section<'_>, node: &Node) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    let path = section.path_of("headers");
    let findings = section.findings;
    match &node.value {
        Value::Map(map) => {
            for (name, entry) in map {
                let value = read_one(findings, &path, name, entry.key_place, &entry.node);
                headers.extend(value.map(|value| (name.clone(), value)));
            }
        }
        Value::List(list) => {
            for node in list {
                let Some((name, value)) = name_and_value(node) else {
                    let message = format!("{path} lists headers, each with a name and a value");
                    findings.error_in_secret(node.place, message);
                    continue;
                };
                let value = read_one(findings, &path, name, node.place, value);
                headers.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        Value::Scalar(_) => {
            findings.error_in_secret(node.place, format!("{path} is a map, but here is a text"));
        }
        Value::Broken => {}
    }
    headers
}

fn name_and_value(node: &Node) -> Option<(&str, &Node)> {
    let Value::Map(map) = &node.value else { return None };
    let (name, value) = (&map.get("name")?.node, &map.get("value")?.node);
    let Value::Scalar(name) = &name.value else { return None };
    (map.len() == 2).then_some((&name.text, value))
}

/// The value of one header (RFC 9110 sections 5.1 and 5.5).
fn read_one(
    findings: &Findings,
    path: &str,
    name: &str,
    place: Place,
    node: &Node,
) -> Option<Secret> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let control = |byte: u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
    let problem = match &node.value {
        _ if name.is_empty() || !name.bytes().all(token) => "has a name that HTTP does not allow",
        Value::Broken => return None,
        Value::Scalar(scalar) if scalar.kind() == Kind::Null => return Some(Secret::default()),
        Value::Scalar(scalar) if scalar.kind() == Kind::Text || scalar.written.is_some() => {
            if !scalar.text.bytes().any(control) {
                return Some(Secret::from(scalar.text.as_str()));
            }
            "has a line break or another control character"
        }
        Value::Scalar(_) => "is text, but here is a number or a boolean; put it in quotes",
        Value::List(_) => "is text, but here is a list",
        Value::Map(_) => "is text, but here is a map",
    };
    findings.error_in_secret(place, format!("{path}::{name} {problem}"));
    None
}
