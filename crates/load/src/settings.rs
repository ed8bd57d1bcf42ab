//! What a run is to be like.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use spanwire_transport::{Compression, Protocol};

use crate::schedule::Rate;

/// The load of a run. On a command line, the options of the same names.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Spans a second, or `max`: as many as the target takes, in a closed loop.
    #[arg(long, value_name = "SPANS", default_value = "10000")]
    pub rate: Rate,
    /// How long to measure, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = more_than_nothing)]
    pub duration: Duration,
    /// How long to send before that, in seconds. Only lost and duplicated spans are counted.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub warm_up: Duration,
    /// How long to wait, once all is sent, until everything has arrived, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub settle: Duration,
    /// Connections. HTTP/1.1 takes a TCP connection for each request in flight: up to so many times
    /// --in-flight-max.
    #[arg(long, value_name = "N", default_value = "2", value_parser = count::<CONNECTIONS_MAX>)]
    pub connections: NonZeroU32,
    /// The most requests without an answer on each connection; a further one waits, and its latency
    /// counts from when it was due all the same.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count::<IN_FLIGHT_MAX>)]
    pub in_flight_max: NonZeroU32,
    /// Spans in each request.
    #[arg(long, value_name = "N", default_value = "100", value_parser = count::<SPANS_MAX>)]
    pub spans_per_request: NonZeroU32,
    /// Attributes of each span, which decide its size: 8 make some 417 bytes.
    #[arg(long, value_name = "N", default_value = "8", value_parser = attributes())]
    pub attributes: u32,
    /// How spans are sent.
    #[arg(long, default_value = "grpc", value_parser = protocols())]
    pub protocol: Protocol,
    /// What requests are compressed with, whatever their size.
    #[arg(long, default_value = "none", value_parser = compressions())]
    pub compression: Compression,
}

impl Settings {
    /// Whether a run can be like this; what came from a command line can.
    pub(crate) fn check(&self) -> Result<(), InvalidSettings> {
        let counts = [
            ("connections", self.connections.get(), CONNECTIONS_MAX),
            ("in_flight_max", self.in_flight_max.get(), IN_FLIGHT_MAX),
            ("spans_per_request", self.spans_per_request.get(), SPANS_MAX),
            ("attributes", self.attributes, ATTRIBUTES_MAX),
        ];
        if let Some((setting, _, max)) = counts.into_iter().find(|&(_, count, max)| count > max) {
            return Err(InvalidSettings::TooMany { setting, max });
        }
        let times =
            [("duration", self.duration), ("warm_up", self.warm_up), ("settle", self.settle)];
        match times.into_iter().find(|(_, time)| *time > TIME_MAX) {
            Some((setting, _)) => Err(InvalidSettings::TooLong { setting }),
            None => Ok(()),
        }
    }

    /// All connections' requests in flight, at most.
    #[must_use]
    pub fn in_flight_max_in_all(&self) -> u64 {
        u64::from(self.connections.get()) * u64::from(self.in_flight_max.get())
    }

    /// The protocol's name, as on the command line.
    #[must_use]
    pub fn protocol_name(&self) -> &'static str {
        name_of(PROTOCOLS, self.protocol)
    }

    /// The compression's name, as on the command line.
    #[must_use]
    pub fn compression_name(&self) -> &'static str {
        name_of(COMPRESSIONS, self.compression)
    }
}

/// Why no run can be like the settings.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// More than anybody needs, and than memory and descriptors bear.
    #[error("{setting} must be at most {max}")]
    TooMany {
        /// The field's name.
        setting: &'static str,
        /// The most there may be.
        max: u32,
    },
    /// Longer than a run may take.
    #[error("{setting} must be at most a week")]
    TooLong {
        /// The field's name.
        setting: &'static str,
    },
}

/// A descriptor each, and buffers.
const CONNECTIONS_MAX: u32 = 4_096;

/// Of each connection: a copy of the request each.
const IN_FLIGHT_MAX: u32 = 16_384;

/// In a request, at eight attributes some 26 MiB of the 64 MiB that a request may have.
const SPANS_MAX: u32 = 65_536;

/// As many as OpenTelemetry's SDKs keep of a span by default.
const ATTRIBUTES_MAX: u32 = 128;

const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

const PROTOCOLS: [(&str, Protocol); 3] = [
    ("grpc", Protocol::Grpc),
    ("http/protobuf", Protocol::HttpProtobuf),
    ("http/json", Protocol::HttpJson),
];

const COMPRESSIONS: [(&str, Compression); 3] =
    [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)];

fn protocols() -> impl clap::builder::TypedValueParser<Value = Protocol> {
    let named = |name: String| value_of(PROTOCOLS, &name);
    PossibleValuesParser::new(PROTOCOLS.map(|(name, _)| name)).try_map(named)
}

fn compressions() -> impl clap::builder::TypedValueParser<Value = Compression> {
    let named = |name: String| value_of(COMPRESSIONS, &name);
    PossibleValuesParser::new(COMPRESSIONS.map(|(name, _)| name)).try_map(named)
}

fn value_of<T: Copy>(all: [(&str, T); 3], name: &str) -> Result<T, String> {
    let value = all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    value.ok_or_else(|| format!("{name} is not known"))
}

fn name_of<T: PartialEq>(all: [(&'static str, T); 3], value: T) -> &'static str {
    all.iter().find(|(_, known)| *known == value).map_or("other", |(name, _)| name)
}

fn count<const MAX: u32>(text: &str) -> Result<NonZeroU32, String> {
    let count = text.parse().ok().filter(|count: &NonZeroU32| count.get() <= MAX);
    count.ok_or_else(|| format!("not a whole number from 1 to {MAX}"))
}

fn attributes() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(..=i64::from(ATTRIBUTES_MAX))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let seconds = seconds.filter(|seconds| *seconds <= TIME_MAX);
    seconds.ok_or_else(|| "not a number of seconds from 0 to a week".to_owned())
}

fn more_than_nothing(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|seconds| match seconds.is_zero() {
        true => Err("a run takes some time".to_owned()),
        false => Ok(seconds),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(line: &str) -> Result<Settings, clap::Error> {
        Line::try_parse_from(line.split_whitespace()).map(|line| line.settings)
    }

    #[test]
    fn each_option_is_heard() {
        let settings = parse(
            "load --rate max --duration 0.5 --warm-up 0 --settle 3 --connections 4 \
             --in-flight-max 8 --spans-per-request 1_000 --attributes 0 --protocol http/json \
             --compression zstd",
        );
        assert!(settings.is_err(), "counts are plain numbers");
        let settings = parse(
            "load --rate max --duration 0.5 --warm-up 0 --settle 3 --connections 4 \
             --in-flight-max 8 --spans-per-request 1000 --attributes 0 --protocol http/json \
             --compression zstd",
        )
        .expect("valid");
        assert_eq!(settings.rate, Rate::Max);
        assert_eq!(settings.duration, Duration::from_millis(500));
        assert_eq!((settings.warm_up, settings.settle), (Duration::ZERO, Duration::from_secs(3)));
        assert_eq!(settings.in_flight_max_in_all(), 32);
        assert_eq!((settings.spans_per_request.get(), settings.attributes), (1000, 0));
        assert_eq!((settings.protocol_name(), settings.compression_name()), ("http/json", "zstd"));
    }

    #[test]
    fn what_no_command_line_could_ask_for_is_refused_of_a_library_too() {
        let valid = parse("load").expect("the defaults");
        assert_eq!(valid.check(), Ok(()));
        let many = NonZeroU32::MAX;
        for invalid in [
            Settings { connections: many, ..valid.clone() },
            Settings { in_flight_max: many, ..valid.clone() },
            Settings { spans_per_request: many, ..valid.clone() },
            Settings { attributes: u32::MAX, ..valid.clone() },
            Settings { duration: Duration::MAX, ..valid.clone() },
            Settings { warm_up: Duration::MAX, ..valid.clone() },
            Settings { settle: Duration::MAX, ..valid.clone() },
        ] {
            assert!(invalid.check().is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--rate 0",
            "--duration 0",
            "--duration -1",
            "--duration NaN",
            "--duration 1e9",
            "--connections 0",
            "--connections 4097",
            "--in-flight-max 0",
            "--in-flight-max 16385",
            "--spans-per-request 0",
            "--spans-per-request 65537",
            "--attributes 129",
            "--attributes -1",
            "--protocol thrift",
            "--compression brotli",
        ] {
            assert!(parse(&format!("load {line}")).is_err(), "{line}");
        }
    }
}
