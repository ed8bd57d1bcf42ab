use std::collections::{BTreeMap, BTreeSet};

use crate::components::{self, Read};
use crate::config::Config;
use crate::expand::Expander;
use crate::id::ComponentId;
use crate::merge::{merge, set, split_set, unflatten};
use crate::places::Places;
use crate::redact;
use crate::report::{Diagnostic, Findings, Report};
use crate::section::{Section, listed, nearest};
use crate::service::{Defined, Service, Used};
use crate::source::{Source, Unreadable};
use crate::tree::{Map, Node, Place, Value};
use crate::yaml::{self, Budget};

/// Where the values of environment variables come from. This crate never reads them by itself.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What becomes of keys and components of the Go Collector that are not supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compat {
    /// They are errors.
    #[default]
    Strict,
    /// They are warnings, and are left out: components wherever they are referred to, and pipelines
    /// that have nothing left to receive or to export. What else is wrong is still an error; so are
    /// keys that the Go Collector does not have either, and names that look misspelt.
    Warn,
}

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What its author should know nevertheless.
    pub warnings: Vec<Diagnostic>,
    /// Where its settings stand.
    pub places: Places,
}

pub(crate) fn load(
    sources: &[Source],
    sets: &[String],
    environment: Environment<'_>,
    compat: Compat,
) -> Result<Loaded, Report> {
    let findings = Findings::new(compat);
    let root = gather(sources, sets, environment, &findings);
    let mut config = root.as_ref().map(|root| read(root, &findings)).unwrap_or_default();
    let (warnings, notes, texts) = findings.finish()?;
    config.notes = notes;
    Ok(Loaded { config, warnings, places: Places::new(root, texts) })
}

/// Reads and merges all sources. `None` if one cannot be used at all: what the others say would
/// only look wrong without it.
fn gather(
    sources: &[Source],
    sets: &[String],
    environment: Environment<'_>,
    findings: &Findings,
) -> Option<Node> {
    let mut budget = Budget::new();
    let mut map = Map::new();
    let mut place = None;
    let mut whole = true;
    if sources.is_empty() {
        findings.error(None, "no configuration is given");
        return None;
    }
    for source in sources {
        let text = match source.text(environment) {
            Ok(text) => text,
            Err(Unreadable { message, until }) => {
                let end = until.map(|until| end_of(findings, source, until));
                findings.error(end, format!("{source} {message}"));
                whole = false;
                continue;
            }
        };
        let id = findings.keep_text(source.to_string(), text.clone());
        place = place.or(Some(Place { text: id, line: 1, column: 1, width: 1 }));
        match yaml::parse(id, &text, &mut budget, findings) {
            Ok(Node { value: Value::Map(over), .. }) => {
                let flat = matches!(source, Source::Yaml(_));
                merge(&mut map, if flat { unflatten(over, 0, findings) } else { over });
            }
            Ok(node) if node.is_null() => {}
            Ok(node) => {
                let message = format!("a configuration is a map, but here is {}", node.describe());
                findings.error(node.place, message);
                whole = false;
            }
            Err(failure) => {
                failure.report(findings);
                whole = false;
            }
        }
    }
    for option in sets {
        let Some((keys, value)) = split_set(option, findings) else {
            whole = false;
            continue;
        };
        let name = format!("--set {}", keys.join("."));
        // As in a file, where the key stands in the line.
        let written = format!("{}: {value}", keys.join("."));
        let shown = if redact::line(&written) == written { value } else { "" };
        let id = findings.keep_text(name, shown.to_owned());
        match yaml::parse(id, value, &mut budget, findings) {
            Ok(value) => merge(&mut map, set(keys, value)),
            Err(failure) => {
                failure.report(findings);
                whole = false;
            }
        }
    }
    let mut root = Node { place: place?, value: Value::Map(map) };
    Expander::new(environment, findings, &mut budget).expand(&mut root);
    whole.then_some(root)
}

/// The place where a text ends that breaks off in the middle.
fn end_of(findings: &Findings, source: &Source, text: String) -> Place {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place { text: findings.keep_text(source.to_string(), text), line, column, width: 1 }
}

fn read(root: &Node, findings: &Findings) -> Config {
    let Some(section) = Section::of(findings, String::new(), root.place, root) else {
        return Config::default();
    };
    let (receivers, dropped_receivers) =
        read_components(&section, "receivers", components::receiver);
    let (processors, dropped_processors) =
        read_components(&section, "processors", components::processor);
    let (exporters, dropped_exporters) =
        read_components(&section, "exporters", components::exporter);
    let (extensions, dropped_extensions) =
        read_components(&section, "extensions", components::extension);
    // A connector is a receiver and an exporter to pipelines.
    let (_, connectors) = read_components::<()>(&section, "connectors", |_, _| None);
    let dropped_receivers = &dropped_receivers | &connectors;
    let dropped_exporters = &dropped_exporters | &connectors;

    let defined = [
        Defined::new("receivers", places(&receivers), &dropped_receivers),
        Defined::new("processors", places(&processors), &dropped_processors),
        Defined::new("exporters", places(&exporters), &dropped_exporters),
    ];
    let defined_extensions = Defined::new("extensions", places(&extensions), &dropped_extensions);
    let mut used = Used::new();
    let service = match section.section("service") {
        Some(service) => Service::read(service, &defined, &defined_extensions, &mut used),
        None => {
            if !section.has("service") {
                findings.error_with_help(
                    Place { width: 0, ..root.place },
                    "the configuration has no service, so there is nothing to run",
                    "define service: with pipelines: in it",
                );
            }
            Service::default()
        }
    };
    // An error may be why nothing refers to it.
    let unused = defined.iter().chain([&defined_extensions]).filter(|_| !findings.failed());
    for Defined { section, ids, .. } in unused {
        for (id, place) in ids {
            if !used.contains(&(*section, id.clone())) {
                let whose = if *section == "extensions" { "service" } else { "pipeline" };
                findings.warning(
                    *place,
                    format!("{section}::{id} is not used"),
                    format!("no {whose} names it among its {section}"),
                );
            }
        }
    }
    section.finish();
    Config {
        receivers: settings(receivers),
        processors: settings(processors),
        exporters: settings(exporters),
        extensions: settings(extensions),
        service,
        notes: Vec::new(),
    }
}

type Found<T> = BTreeMap<ComponentId, (Place, T)>;

fn settings<T>(found: Found<T>) -> BTreeMap<ComponentId, T> {
    found.into_iter().map(|(id, (_, settings))| (id, settings)).collect()
}

fn places<T>(found: &Found<T>) -> BTreeMap<ComponentId, Place> {
    found.iter().map(|(id, (place, _))| (id.clone(), *place)).collect()
}

/// Reads one section of components. Beside them, the ids that are defined but cannot be used.
fn read_components<T>(
    root: &Section<'_>,
    name: &'static str,
    read: Read<T>,
) -> (Found<T>, BTreeSet<ComponentId>) {
    let (mut found, mut dropped) = (Found::new(), BTreeSet::new());
    for (text, entry) in root.map(name).into_iter().flatten() {
        let id: ComponentId = match text.parse() {
            Ok(id) => id,
            Err(why) => {
                let message = format!("{text:?} is not the name of a component");
                root.findings.error_with_help(entry.key_place, message, format!("{why}"));
                continue;
            }
        };
        let supported = supported(name);
        if !supported.contains(&id.kind.as_str()) {
            unsupported(root.findings, name, &id, entry.key_place, &supported);
            dropped.insert(id);
            continue;
        }
        let section = Section::new(root.findings, format!("{name}::{id}"), entry);
        match section.and_then(|section| read(&id.kind, section)) {
            Some(settings) => {
                if found.insert(id.clone(), (entry.key_place, settings)).is_some() {
                    let message = format!("{name}::{id} is defined twice");
                    root.findings.error(entry.key_place, message);
                }
            }
            None => {
                dropped.insert(id);
            }
        }
    }
    (found, dropped)
}

fn supported(section: &str) -> Vec<&'static str> {
    let components = components::components().iter().filter(|kind| kind.section == section);
    components.flat_map(|kind| [Some(kind.kind), kind.alias]).flatten().collect()
}

fn unsupported(
    findings: &Findings,
    section: &str,
    id: &ComponentId,
    place: Place,
    supported: &[&str],
) {
    let message = format!("{section}::{id} is not supported");
    let help = match (section, id.kind.as_str()) {
        ("exporters", "logging") => "it was renamed to debug".into(),
        ("extensions", "pprof") => "it profiles Go programs; remove it".into(),
        (_, kind) => match nearest(kind, supported) {
            // Run without what was meant, it would be another configuration.
            Some(name) if !components::is_of_go(section, kind) => {
                let help = format!("did you mean {name:?}?");
                findings.error_with_help(place, message, help);
                return;
            }
            _ => listed(
                supported,
                &format!("supported {section} are"),
                &format!("no {section} are supported"),
            ),
        },
    };
    findings.unsupported(place, message, Some(help));
}
