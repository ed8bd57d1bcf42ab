//! Where a collector listens that was told nothing about it.

use spanwire_config::{Compat, Config, Extension, Listen, Receiver, Source};

/// Faults 176.
#[test]
fn nothing_listens_beyond_this_machine_unless_an_address_says_so() {
    let yaml = "
receivers: {otlp: {protocols: {grpc: , http: }}}
exporters: {nop: }
extensions: {health_check: , zpages: }
service:
  extensions: [health_check, zpages]
  pipelines: {traces: {receivers: [otlp], exporters: [nop]}}
";
    let sources = [Source::Yaml(yaml.to_owned())];
    let written = Config::load(&sources, &[], &|_| None, Compat::Strict).expect("it is valid");
    for config in [written.config, Config::default_pipeline()] {
        let mut addresses: Vec<_> = config.service.telemetry.metrics.address.iter().collect();
        for extension in config.extensions.values() {
            match extension {
                Extension::HealthCheck(check) => addresses.push(&check.endpoint),
                Extension::Zpages(zpages) => addresses.push(&zpages.endpoint),
                Extension::MemoryLimiter(_) => {}
            }
        }
        for Receiver::Otlp(otlp) in config.receivers.values() {
            let grpc = otlp.grpc.iter().map(|server| &server.endpoint);
            let http = otlp.http.iter().map(|server| &server.endpoint);
            addresses.extend(grpc.chain(http).map(|endpoint| match endpoint {
                Listen::Tcp(address) => address,
                other => panic!("{other:?}"),
            }));
        }
        assert!(addresses.len() >= 4, "{addresses:?}");
        assert!(addresses.iter().all(|address| address.starts_with("localhost:")), "{addresses:?}");
    }
}
