//! Whether what was received is what was sent.

use std::collections::HashMap;

use serde_json::Value as Json;

/// What was sent beside what was received.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Spans sent.
    pub(super) sent: usize,
    /// Spans received, each counted once.
    pub(super) received: usize,
    /// Times that a span came again.
    pub(super) repeated: usize,
    /// Spans sent that the sender took for accepted.
    pub(super) acknowledged: usize,
    /// Spans sent that did not arrive.
    pub(super) missing: usize,
    /// Spans that did not arrive although the sender took them for accepted, spans that nobody
    /// sent, and fields that are not what was sent, the first of each span.
    pub(super) wrong: Vec<String>,
}

impl Comparison {
    /// Compares every field of every span. A document sent may say whether it was acknowledged; one
    /// that does not say was.
    pub(super) fn of(sent: Vec<Json>, received: &[Json]) -> Self {
        let sent: Vec<(Json, bool)> = sent.into_iter().map(take_acknowledged).collect();
        let mut comparison = Self { sent: sent.len(), ..Self::default() };
        let mut by_id: HashMap<[&str; 2], Vec<&Json>> = HashMap::new();
        for document in received {
            by_id.entry(id(document)).or_default().push(document);
        }
        comparison.received = by_id.len();
        comparison.repeated = received.len() - by_id.len();
        for (document, acknowledged) in &sent {
            comparison.acknowledged += usize::from(*acknowledged);
            match by_id.remove(&id(document)) {
                Some(copies) => {
                    let different = copies.iter().filter_map(|copy| difference(document, copy));
                    comparison.wrong.extend(different);
                }
                None => {
                    comparison.missing += 1;
                    if *acknowledged {
                        comparison.wrong.push(format!("{}: acknowledged and lost", name(document)));
                    }
                }
            }
        }
        let unsent = by_id.values().flatten().map(|document| name(document));
        comparison.wrong.extend(unsent.map(|name| format!("{name}: received, but never sent")));
        comparison
    }

    /// Whether every span arrived once, as it was, and the sender knows.
    pub(super) fn is_exact(&self) -> bool {
        self.wrong.is_empty()
            && self.missing + self.repeated == 0
            && self.acknowledged == self.sent
            && self.sent > 0
    }

    /// Whether some spans were accepted, and none of those is missing or another than it was.
    pub(super) fn is_accounted_for(&self) -> bool {
        self.wrong.is_empty() && self.acknowledged > 0
    }
}

/// A document sent, without the field that says whether its sender took it for accepted, and that.
fn take_acknowledged(mut document: Json) -> (Json, bool) {
    let said = document.as_object_mut().and_then(|fields| fields.remove("acknowledged"));
    (document, said.is_none_or(|said| said == Json::Bool(true)))
}

fn id(document: &Json) -> [&str; 2] {
    ["trace_id", "span_id"].map(|field| document[field].as_str().unwrap_or_default())
}

fn name(document: &Json) -> &str {
    document["name"].as_str().unwrap_or("a span without a name")
}

/// The first place at which two documents differ.
fn difference(sent: &Json, received: &Json) -> Option<String> {
    if sent == received {
        return None;
    }
    let (mut place, mut sent_part, mut received_part) = (String::new(), sent, received);
    while let Some((inner, sent_inner, received_inner)) = descend(sent_part, received_part) {
        place.push_str(&inner);
        (sent_part, received_part) = (sent_inner, received_inner);
    }
    let name = name(sent);
    Some(format!(
        "{name}: {}: sent {sent_part}, received {received_part}",
        place.trim_start_matches('.')
    ))
}

/// Where two values of the same shape first differ, and what is there.
fn descend<'a>(sent: &'a Json, received: &'a Json) -> Option<(String, &'a Json, &'a Json)> {
    match (sent, received) {
        (Json::Object(sent), Json::Object(received)) => {
            let field = sent.keys().chain(received.keys());
            let field = field.into_iter().find(|&field| sent.get(field) != received.get(field))?;
            let [sent, received] = [sent, received].map(|of| of.get(field).unwrap_or(&Json::Null));
            Some((format!(".{field}"), sent, received))
        }
        (Json::Array(sent), Json::Array(received)) if sent.len() == received.len() => {
            let at = sent.iter().zip(received).position(|(sent, received)| sent != received)?;
            Some((format!("[{at}]"), &sent[at], &received[at]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn span(id: &str) -> Json {
        json!({"trace_id": "01", "span_id": id, "name": id, "kind": 1})
    }

    #[test]
    fn equal_spans_in_any_order_are_exact() {
        let comparison = Comparison::of(vec![span("a"), span("b")], &[span("b"), span("a")]);
        assert!(comparison.is_exact(), "{comparison:?}");
        assert_eq!((comparison.sent, comparison.received), (2, 2));
    }

    #[test]
    fn nothing_sent_is_not_exact() {
        assert!(!Comparison::of(Vec::new(), &[]).is_exact());
    }

    #[test]
    fn nothing_acknowledged_is_not_accounted_for() {
        let [mut taken, mut not_taken] = ["a", "b"].map(span);
        taken["acknowledged"] = true.into();
        not_taken["acknowledged"] = false.into();
        assert!(!Comparison::of(vec![not_taken.clone()], &[]).is_accounted_for());
        let comparison = Comparison::of(vec![taken, not_taken], &[span("a")]);
        assert!(comparison.is_accounted_for(), "{comparison:?}");
    }

    #[test]
    fn a_field_that_differs_is_named_with_both_values() {
        let mut other = span("a");
        other["kind"] = 2.into();
        let comparison = Comparison::of(vec![span("a")], &[other]);
        assert_eq!(comparison.wrong, ["a: kind: sent 1, received 2"]);
        assert!(!comparison.is_exact());
    }

    #[test]
    fn a_difference_deep_within_is_shown_with_its_place_alone() {
        let [mut sent, mut received] = [span("a"), span("a")];
        sent["links"] = json!([{"flags": 1, "attributes": [["k", ["int", "1"]]]}]);
        received["links"] = json!([{"flags": 1, "attributes": [["k", ["int", "2"]]]}]);
        let wrong = Comparison::of(vec![sent.clone()], &[received]).wrong;
        assert_eq!(wrong, [r#"a: links[0].attributes[0][1][1]: sent "1", received "2""#]);
        let wrong = Comparison::of(vec![span("a")], &[sent]).wrong;
        assert!(wrong[0].starts_with("a: links: sent null, received [{"), "{wrong:?}");
    }

    #[test]
    fn a_span_that_is_missing_repeated_or_unknown_is_not_exact() {
        let missing = Comparison::of(vec![span("a"), span("b")], &[span("a")]);
        assert_eq!((missing.missing, missing.is_exact()), (1, false));
        assert_eq!(missing.wrong, ["b: acknowledged and lost"]);
        let repeated = Comparison::of(vec![span("a")], &[span("a"), span("a")]);
        assert_eq!((repeated.repeated, repeated.wrong.len(), repeated.is_exact()), (1, 0, false));
        let unknown = Comparison::of(vec![span("a")], &[span("a"), span("b")]);
        assert_eq!(unknown.wrong, ["b: received, but never sent"]);
    }

    #[test]
    fn a_span_that_was_never_acknowledged_may_be_missing() {
        let mut sent = span("a");
        sent["acknowledged"] = false.into();
        let comparison = Comparison::of(vec![sent, span("b")], &[span("b")]);
        assert_eq!((comparison.wrong.len(), comparison.acknowledged), (0, 1));
        assert!(!comparison.is_exact());
    }
}
