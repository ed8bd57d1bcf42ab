//! Configurations from text and from files, and what is in them.
#![allow(dead_code, reason = "each test binary uses its part")]

use spanwire_config::{
    Compat, ComponentId, Config, Exporter, Loaded, OtlpExporter, OtlpReceiver, Receiver, Report,
    Source,
};

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "TOKEN" => "abc$$def$ghi",
        "CLIENT_KEY" => "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----",
        "METRICS_PORT" => "9999",
        "MY_POD_IP" => "10.0.0.7",
        "BACKEND" => "tempo",
        "WHICH" => "BACKEND",
        "STRUCTURE" => "{exporters: [debug]}",
        "RECURSIVE" => "${env:TOKEN}",
        "NUMBER" => "0123",
        "LIST" => "otlp, otlp/2",
        "EMPTY" => "",
        "WHOLE" => "receivers: {otlp: {protocols: {http: }}}",
        _ => return None,
    };
    Some(value.to_owned())
}

pub(crate) fn yaml(text: &str) -> Source {
    Source::Yaml(text.to_owned())
}

pub(crate) fn load_all(
    sources: &[Source],
    sets: &[&str],
    compat: Compat,
) -> Result<Loaded, Report> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Config::load(sources, &sets, &environment, compat)
}

pub(crate) fn load(sources: &[Source]) -> Loaded {
    load_all(sources, &[], Compat::Strict).unwrap_or_else(|report| panic!("{report}"))
}

/// A configuration that loads, with `text` over it.
pub(crate) fn with(text: &str) -> Result<Loaded, Report> {
    load_all(&[yaml(BASE), yaml(text)], &[], Compat::Strict)
}

pub(crate) const BASE: &str = "
receivers: {otlp: {protocols: {grpc: }}}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";

pub(crate) fn id(text: &str) -> ComponentId {
    text.parse().expect("an id")
}

pub(crate) fn ids(texts: &[&str]) -> Vec<ComponentId> {
    texts.iter().map(|text| id(text)).collect()
}

pub(crate) fn grpc(config: &Config, name: &str) -> OtlpExporter {
    match &config.exporters[&id(name)] {
        Exporter::OtlpGrpc(exporter) => exporter.clone(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn http(config: &Config, name: &str) -> OtlpExporter {
    match &config.exporters[&id(name)] {
        Exporter::OtlpHttp(exporter) => exporter.clone(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn otlp(config: &Config, name: &str) -> OtlpReceiver {
    let Receiver::Otlp(receiver) = &config.receivers[&id(name)];
    receiver.clone()
}

pub(crate) fn messages(loaded: &Loaded) -> Vec<&str> {
    loaded.warnings.iter().map(|warning| warning.message()).collect()
}
