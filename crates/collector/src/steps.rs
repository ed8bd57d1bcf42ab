//! Processors of the configuration, made ready.

use spanwire_config::{self as config, ActionKind, ComponentId, ConvertedType, Processor, Value};
use spanwire_processors::{Action, Actions, From, Sampler, Settings};

use crate::build::StartError;
use crate::pipeline::Step;

/// `None` for what is not done on the way: destinations batch, and receivers limit memory.
pub(crate) fn step(id: &ComponentId, processor: &Processor) -> Result<Option<Step>, StartError> {
    Ok(Some(match processor {
        Processor::Batch(_) | Processor::MemoryLimiter(_) => return Ok(None),
        Processor::Attributes(settings) => Step::Attributes(actions(id, settings)?),
        Processor::Resource(settings) => Step::Resource(actions(id, settings)?),
        Processor::ProbabilisticSampler(settings) => {
            let settings = Settings {
                mode: match settings.mode {
                    config::Mode::HashSeed => spanwire_processors::Mode::HashSeed,
                    config::Mode::Proportional => spanwire_processors::Mode::Proportional,
                    config::Mode::Equalizing => spanwire_processors::Mode::Equalizing,
                },
                percentage: settings.sampling_percentage,
                hash_seed: settings.hash_seed,
                fail_closed: settings.fail_closed,
                precision: settings.sampling_precision,
            };
            let sampler = Sampler::new(settings)
                .map_err(|source| StartError::Sampler { id: id.clone(), source })?;
            Step::Sample(sampler)
        }
    }))
}

fn actions(id: &ComponentId, settings: &[config::Action]) -> Result<Actions, StartError> {
    let actions = settings.iter().map(|settings| {
        let missing = |what: &str| StartError::Setting {
            id: id.clone(),
            rule: format!("an action of this kind needs {what}"),
        };
        let key = || settings.key.clone().ok_or_else(|| missing("a key"));
        let (one, pattern) = (settings.key.clone(), settings.pattern.clone());
        let from = || match (&settings.value, &settings.from_attribute) {
            (Some(value), None) => Ok(From::Value(of(value))),
            (None, Some(key)) => Ok(From::Attribute(key.clone())),
            (Some(value), Some(key)) => Ok(From::AttributeOr(key.clone(), of(value))),
            (None, None) => Err(missing("a value or from_attribute")),
        };
        Ok(match settings.kind {
            ActionKind::Insert => Action::Insert { key: key()?, from: from()? },
            ActionKind::Update => Action::Update { key: key()?, from: from()? },
            ActionKind::Upsert => Action::Upsert { key: key()?, from: from()? },
            ActionKind::Delete => Action::Delete { key: one, pattern },
            ActionKind::Hash => Action::Hash { key: one, pattern },
            ActionKind::Extract => Action::Extract {
                key: key()?,
                pattern: pattern.ok_or_else(|| missing("a pattern"))?,
            },
            ActionKind::Convert => Action::Convert {
                key: key()?,
                to: match settings.converted_type.ok_or_else(|| missing("converted_type"))? {
                    ConvertedType::Str => spanwire_processors::Type::String,
                    ConvertedType::Int => spanwire_processors::Type::Int,
                    ConvertedType::Double => spanwire_processors::Type::Double,
                },
            },
        })
    });
    let actions = actions.collect::<Result<Vec<_>, _>>()?;
    Actions::new(actions).map_err(|source| StartError::Action { id: id.clone(), source })
}

fn of(value: &Value) -> spanwire_processors::Value {
    match value {
        Value::Str(text) => spanwire_processors::Value::Str(text.clone()),
        Value::Int(number) => spanwire_processors::Value::Int(*number),
        Value::Double(number) => spanwire_processors::Value::Double(*number),
        Value::Bool(truth) => spanwire_processors::Value::Bool(*truth),
    }
}
