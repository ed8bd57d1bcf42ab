//! Several sources made one: maps are merged, everything else is replaced.

use crate::report::Findings;
use crate::tree::{Entry, Map, Node, Value};
use crate::yaml::DEPTH_MAX;

/// Lays `over` upon `base`, as the Go Collector's `confmap` does: maps key by key, while lists and
/// scalars are replaced. Null replaces too, so that `batch:` in a later file is `batch` by default.
pub(crate) fn merge(base: &mut Map, over: Map) {
    for (key, entry) in over {
        match base.get_mut(&key) {
            Some(Entry { node: Node { value: Value::Map(base), .. }, .. })
                if matches!(entry.node.value, Value::Map(_)) =>
            {
                if let Value::Map(over) = entry.node.value {
                    merge(base, over);
                }
            }
            _ => {
                base.insert(key, entry);
            }
        }
    }
}

/// Makes nested maps of keys such as `processors::batch::timeout`, at every level of `map`, which
/// is itself `depth` levels down.
pub(crate) fn unflatten(map: Map, depth: usize, findings: &Findings) -> Map {
    let mut out = Map::new();
    for (key, Entry { key_place, node }) in map {
        let mut keys = key.split("::").map(str::to_owned);
        let Some(first) = keys.next() else { continue };
        let rest: Vec<String> = keys.collect();
        let depth = depth + 1 + rest.len();
        if depth > DEPTH_MAX {
            findings.error(key_place, format!("values are nested more than {DEPTH_MAX} deep"));
            continue;
        }
        let value = match node.value {
            Value::Map(map) => Value::Map(unflatten(map, depth, findings)),
            value => value,
        };
        let node = Node { place: node.place, value };
        merge(&mut out, Map::from([(first, Entry { key_place, node: nest(rest, node) })]));
    }
    out
}

/// Wraps `node` in a map for each of `keys`, the first outermost.
fn nest(keys: Vec<String>, node: Node) -> Node {
    keys.into_iter().rev().fold(node, |node, key| {
        let place = node.place;
        Node { place, value: Value::Map(Map::from([(key, Entry { key_place: place, node })])) }
    })
}

/// Splits `a.b=value` or `a::b=value` of a `--set` option. `None` if it is neither; the reason is
/// among the findings.
pub(crate) fn split_set<'a>(set: &'a str, findings: &Findings) -> Option<(Vec<String>, &'a str)> {
    let help = "write a path and a value, such as processors.batch.timeout=2s";
    let Some((path, value)) = set.split_once('=') else {
        // What comes later may be a value.
        let begin: String = set.chars().take_while(|char| !char.is_whitespace()).take(60).collect();
        findings.error_with_help(None, format!("--set {begin:?} has no equals sign"), help);
        return None;
    };
    let separator = if path.contains("::") { "::" } else { "." };
    let keys: Vec<String> = path.split(separator).map(|key| key.trim().to_owned()).collect();
    // Each key is a level of a tree that is walked by recursion.
    if keys.len() > DEPTH_MAX || keys.iter().any(String::is_empty) {
        findings.error_with_help(None, format!("--set {path:?} is not a path to a setting"), help);
        return None;
    }
    Some((keys, value))
}

/// What a `--set` option amounts to.
pub(crate) fn set(keys: Vec<String>, value: Node) -> Map {
    match nest(keys, value).value {
        Value::Map(map) => map,
        _ => Map::new(),
    }
}
