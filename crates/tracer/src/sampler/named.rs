use super::Sampler;

/// Why a name, or the argument with it, means no [`Sampler`].
///
/// Whoever reads configuration reports it and goes on with [`fallback`](Self::fallback).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSampler {
    /// The specification knows it, and there is none here.
    #[error("sampler `{name}` is not supported; use parentbased_traceidratio or another of those")]
    Unsupported {
        /// The name.
        name: String,
    },
    /// Nobody knows it.
    #[error(
        "no sampler `{name}`; there are always_on, always_off, traceidratio and parentbased_ with \
         each of those"
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// The ratio is no number from 0 to 1.
    #[error("sampler `{name}` takes a ratio from 0 to 1, not `{argument}`")]
    Argument {
        /// The sampler's name.
        name: String,
        /// What was given.
        argument: String,
    },
}

/// Samplers that the specification knows and that are not here.
const UNSUPPORTED: [&str; 3] = ["jaeger_remote", "parentbased_jaeger_remote", "xray"];

impl InvalidSampler {
    /// The sampler to go on with: with a bad argument the same as without one, else the default.
    #[must_use]
    pub fn fallback(&self) -> Sampler {
        match self {
            Self::Argument { name, .. } => Sampler::named(name, None).unwrap_or_default(),
            Self::Unsupported { .. } | Self::Unknown { .. } => Sampler::default(),
        }
    }
}

impl Sampler {
    /// The sampler of this name, as `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` have them.
    ///
    /// Case does not matter, an empty text counts as absent, an absent name gives the default, and an
    /// absent ratio is 1. Samplers without argument ignore one.
    ///
    /// ```
    /// use spanwire_tracer::Sampler;
    ///
    /// let sampler = Sampler::named("traceidratio", Some("0.25"))?;
    /// assert_eq!(sampler.description(), "TraceIdRatioBased{0.250000}");
    ///
    /// let error = Sampler::named("traceidratio", Some("a quarter")).unwrap_err();
    /// assert_eq!(error.fallback().description(), "TraceIdRatioBased{1.000000}");
    /// # Ok::<(), spanwire_tracer::sampler::InvalidSampler>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidSampler`], which says what to go on with.
    ///
    /// Source: "General SDK Configuration" in `configuration/sdk-environment-variables.md`,
    /// opentelemetry-specification v1.60.
    pub fn named(name: &str, argument: Option<&str>) -> Result<Self, InvalidSampler> {
        let name = name.trim().to_ascii_lowercase();
        let (root_name, is_parent_based) = match name.strip_prefix("parentbased_") {
            Some(root_name) => (root_name, true),
            None => (&*name, false),
        };
        let root = match root_name {
            "" if !is_parent_based => return Ok(Self::default()),
            "always_on" => Self::AlwaysOn,
            "always_off" => Self::AlwaysOff,
            "traceidratio" => match ratio(argument) {
                Ok(ratio) => Self::ratio(ratio),
                Err(argument) => return Err(InvalidSampler::Argument { name, argument }),
            },
            _ if UNSUPPORTED.contains(&&*name) => return Err(InvalidSampler::Unsupported { name }),
            _ => return Err(InvalidSampler::Unknown { name }),
        };
        Ok(if is_parent_based { Self::parent_based(root) } else { root })
    }
}

fn ratio(argument: Option<&str>) -> Result<f64, String> {
    let argument = argument.unwrap_or_default().trim();
    if argument.is_empty() {
        return Ok(1.0);
    }
    let ratio = argument.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| argument.to_owned())
}
