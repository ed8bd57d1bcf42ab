//! A load through a collector: the generator sends as fast as it can to a `spanwire-collector`, which
//! batches and forwards to the generator's sink. Three processes, and the sink is a fourth.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::collector::Collector;
use crate::shell::failed;

/// One way for spans through the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relay {
    /// What it is called in figures.
    pub(crate) name: &'static str,
    /// What its files are called.
    pub(crate) file: &'static str,
    spans_per_request: &'static str,
    protocol: &'static str,
    /// On both sides.
    compression: &'static str,
}

impl Relay {
    pub(crate) const GRPC_100: Self = Self {
        name: "gRPC, 100 spans a request",
        file: "collector-grpc-100",
        spans_per_request: "100",
        protocol: "grpc",
        compression: "none",
    };

    pub(crate) const GRPC_1000: Self = Self {
        name: "gRPC, 1,000 spans a request",
        file: "collector-grpc-1000",
        spans_per_request: "1000",
        ..Self::GRPC_100
    };

    pub(crate) const GRPC_10: Self = Self {
        name: "gRPC, 10 spans a request",
        file: "collector-grpc-10",
        spans_per_request: "10",
        ..Self::GRPC_100
    };

    pub(crate) const HTTP_100: Self = Self {
        name: "HTTP/1.1 in, gRPC out, 100 spans a request",
        file: "collector-http-100",
        protocol: "http/protobuf",
        ..Self::GRPC_100
    };

    pub(crate) const GZIP_1000: Self = Self {
        name: "gRPC and gzip on both sides, 1,000 spans a request",
        file: "collector-gzip-1000",
        compression: "gzip",
        ..Self::GRPC_1000
    };

    pub(crate) const ALL: [Self; 5] =
        [Self::GRPC_100, Self::GRPC_1000, Self::GRPC_10, Self::HTTP_100, Self::GZIP_1000];

    /// Starts a collector, and says how the generator is called to load it.
    pub(crate) fn start(&self, binary: &Path, log: &Path) -> Result<Loaded, String> {
        let sink = free_port()?;
        let collector = Collector::start(binary, &self.config(&sink), log)?;
        let receiver = match self.protocol {
            "grpc" => collector.grpc(),
            _ => collector.http(),
        };
        let (endpoint, pid) = (format!("http://{receiver}"), collector.pid().to_string());
        let to = ["--endpoint", &endpoint, "--sink", &sink, "--pid", &pid].map(str::to_owned);
        Ok(Loaded { collector, to })
    }

    /// What the generator is asked for, beside where it goes.
    pub(crate) fn arguments(&self, warm_up: Duration, duration: Duration) -> Vec<String> {
        let [warm_up, duration] = [warm_up, duration].map(|time| time.as_secs_f64().to_string());
        let Self { spans_per_request, protocol, compression, .. } = self;
        let mut arguments = vec!["--rate", "max", "--warm-up", &warm_up, "--duration", &duration];
        arguments.extend(["--spans-per-request", spans_per_request, "--protocol", protocol]);
        arguments.extend(["--compression", compression, "--json"]);
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// What people would write, but that it serves no metrics: their port may be taken.
    fn config(&self, sink: &str) -> String {
        format!(
            "{}processors: {{ batch: {{ send_batch_size: 8192, timeout: 200ms }} }}\n\
             exporters: {{ otlp: {{ endpoint: \"{sink}\", tls: {{ insecure: true }}, \
             compression: {} }} }}\n\
             service:\n  \
               telemetry: {{ metrics: {{ level: none }} }}\n  \
               pipelines: {{ traces: {{ \
             receivers: [otlp], processors: [batch], exporters: [otlp] }} }}\n",
            Collector::RECEIVERS,
            self.compression
        )
    }
}

/// A collector that is there to be loaded.
pub(crate) struct Loaded {
    collector: Collector,
    /// Its address, its process and where it forwards to, as arguments of the generator.
    pub(crate) to: [String; 6],
}

impl Loaded {
    /// Ends the collector, which has nothing left to do.
    pub(crate) fn stop(self) -> Result<(), String> {
        self.collector.stop()
    }
}

/// The collector has to be told where the sink will be, which comes with the generator.
fn free_port() -> Result<String, String> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address
        .map(|address| address.to_string())
        .map_err(|error| failed(Path::new("127.0.0.1:0"), &error))
}

#[cfg(test)]
mod tests {
    use spanwire_config::{Compat, Config, Source};

    use super::*;

    #[test]
    fn each_configuration_is_one_that_the_collector_takes() {
        for relay in Relay::ALL {
            let sources = [Source::Yaml(relay.config("127.0.0.1:4317"))];
            match Config::load(&sources, &[], &|_| None, Compat::Strict) {
                Ok(loaded) => assert!(loaded.warnings.is_empty(), "{}", relay.name),
                Err(report) => panic!("{}: {report}", relay.name),
            }
        }
    }

    #[test]
    fn the_generator_is_told_what_the_name_says() {
        let arguments = |relay: Relay| {
            relay.arguments(Duration::from_secs(1), Duration::from_millis(2_500)).join(" ")
        };
        assert_eq!(
            arguments(Relay::GZIP_1000),
            "--rate max --warm-up 1 --duration 2.5 --spans-per-request 1000 --protocol grpc \
             --compression gzip --json"
        );
        let http = arguments(Relay::HTTP_100);
        assert!(http.contains("--spans-per-request 100 --protocol http/protobuf"), "{http}");
    }
}
