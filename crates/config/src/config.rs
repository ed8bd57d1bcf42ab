use std::collections::BTreeMap;

use crate::exporter::{Debug, Exporter, Verbosity};
use crate::extension::{Extension, HealthCheck};
use crate::id::ComponentId;
use crate::load::{self, Compat, Environment, Loaded};
use crate::processor::{Batch, Processor};
use crate::receiver::{OtlpReceiver, Receiver};
use crate::report::Report;
use crate::service::{Pipeline, Service};
use crate::source::Source;

/// Everything that a collector is told by its configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What spans may come in by.
    pub receivers: BTreeMap<ComponentId, Receiver>,
    /// What may happen to them.
    pub processors: BTreeMap<ComponentId, Processor>,
    /// Where they may go.
    pub exporters: BTreeMap<ComponentId, Exporter>,
    /// What may run beside the pipelines.
    pub extensions: BTreeMap<ComponentId, Extension>,
    /// What of it all is run.
    pub service: Service,
    /// Settings that were written and change nothing here, one a line with the reason. They are
    /// harmless, unlike what is in [`Loaded::warnings`].
    pub notes: Vec<String>,
}

impl Config {
    /// Reads a configuration of the Go Collector, v0.159.
    ///
    /// Later `sources` are merged over earlier ones, map by map, while lists and values are
    /// replaced; then each of `sets`, as `processors.batch.timeout=2s`, comes over that. What
    /// `${env:NAME}` stands for is asked of `environment`.
    ///
    /// Costs memory and time in proportion to the texts, which are bounded: 4 MiB a file, 100,000
    /// values and 64 levels in all.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each with its place. The [`Report`] renders itself.
    ///
    /// ```
    /// use spanwire_config::{Compat, Config, Source};
    ///
    /// let source = Source::Yaml("recievers: {}".into());
    /// let report = Config::load(&[source], &[], &|_| None, Compat::Strict).unwrap_err();
    /// assert!(report.to_string().contains(r#"did you mean "receivers"?"#));
    /// ```
    pub fn load(
        sources: &[Source],
        sets: &[String],
        environment: Environment<'_>,
        compat: Compat,
    ) -> Result<Loaded, Report> {
        load::load(sources, sets, environment, compat)
    }

    /// What to run without a configuration: OTLP on `localhost:4317` and `localhost:4318` through
    /// `batch` to `debug`, which shows each span, with metrics on `localhost:8888` and health on `localhost:13133`.
    ///
    /// ```
    /// let config = spanwire_config::Config::default_pipeline();
    /// assert_eq!(config.service.pipelines.len(), 1);
    /// ```
    #[must_use]
    pub fn default_pipeline() -> Self {
        let [otlp, batch, debug, health] =
            ["otlp", "batch", "debug", "health_check"].map(ComponentId::of);
        let shows_spans = Debug { verbosity: Verbosity::Normal };
        let pipeline = Pipeline {
            receivers: vec![otlp.clone()],
            processors: vec![batch.clone()],
            exporters: vec![debug.clone()],
        };
        Self {
            receivers: BTreeMap::from([(otlp, Receiver::Otlp(OtlpReceiver::default()))]),
            processors: BTreeMap::from([(batch, Processor::Batch(Batch::default()))]),
            exporters: BTreeMap::from([(debug, Exporter::Debug(shows_spans))]),
            extensions: BTreeMap::from([(
                health.clone(),
                Extension::HealthCheck(HealthCheck::default()),
            )]),
            service: Service {
                extensions: vec![health],
                pipelines: BTreeMap::from([(ComponentId::of("traces"), pipeline)]),
                telemetry: Default::default(),
            },
            notes: Vec::new(),
        }
    }
}
