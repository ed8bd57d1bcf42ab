//! Processors of the configuration, made ready.

use spanwire_config::{
    self as config, ActionKind, ComponentId, ConvertedType, Processor, Setting, Value,
};
use spanwire_processors::{
    Action, Actions, From, InvalidAction, InvalidSampler, Sampler, Settings,
};

use crate::pipeline::Step;
use crate::start_error::StartError;

/// `None` for what is not done on the way: destinations batch, and receivers limit memory.
pub(crate) fn step(id: &ComponentId, processor: &Processor) -> Result<Option<Step>, StartError> {
    let own = Setting::component("processors", id);
    Ok(Some(match processor {
        Processor::Batch(_) | Processor::MemoryLimiter(_) => return Ok(None),
        Processor::Attributes(settings) => {
            Step::Attributes(actions(&own.key("actions"), settings)?)
        }
        Processor::Resource(settings) => Step::Resource(actions(&own.key("attributes"), settings)?),
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
            let wrong = |error: InvalidSampler| StartError::Value {
                setting: own.key("sampling_percentage"),
                rule: error.to_string(),
            };
            Step::Sample(Sampler::new(settings).map_err(wrong)?)
        }
    }))
}

/// All that is wrong with a processor.
pub(crate) fn check(id: &ComponentId, processor: &Processor) -> Vec<StartError> {
    let own = Setting::component("processors", id);
    let (list, settings) = match processor {
        Processor::Attributes(settings) => (own.key("actions"), settings),
        Processor::Resource(settings) => (own.key("attributes"), settings),
        _ => return step(id, processor).err().into_iter().collect(),
    };
    // Each by itself, as the first that is wrong would hide the others.
    let alone = |(index, settings)| {
        let only = vec![action(&list, index, settings)?];
        Actions::new(only).map_err(|error| wrong(&list, index, &error))
    };
    settings.iter().enumerate().filter_map(|one| alone(one).err()).collect()
}

/// The actions that stand in a list.
fn actions(list: &Setting, settings: &[config::Action]) -> Result<Actions, StartError> {
    let actions = settings.iter().enumerate();
    let actions = actions.map(|(index, settings)| action(list, index, settings));
    let actions = actions.collect::<Result<_, _>>()?;
    Actions::new(actions).map_err(|error| wrong(list, 0, &error))
}

fn action(list: &Setting, index: usize, settings: &config::Action) -> Result<Action, StartError> {
    let missing = |what: &str| StartError::Value {
        setting: list.item(index),
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
        ActionKind::Extract => {
            Action::Extract { key: key()?, pattern: pattern.ok_or_else(|| missing("a pattern"))? }
        }
        ActionKind::Convert => Action::Convert {
            key: key()?,
            to: match settings.converted_type.ok_or_else(|| missing("converted_type"))? {
                ConvertedType::Str => spanwire_processors::Type::String,
                ConvertedType::Int => spanwire_processors::Type::Int,
                ConvertedType::Double => spanwire_processors::Type::Double,
            },
        },
    })
}

/// What is wrong with the actions of a list from `first` on: with a pattern mostly. Of that nothing
/// is quoted, as it may come from the environment.
fn wrong(list: &Setting, first: usize, error: &InvalidAction) -> StartError {
    let at = |index: usize| list.item(first + index);
    let (setting, rule) = match error {
        InvalidAction::Pattern { index, source } => {
            // It shows the pattern over several lines, and says what is wrong in the last.
            let text = source.to_string();
            let last = text.lines().last().unwrap_or_default();
            let reason = last.strip_prefix("error: ").unwrap_or(last);
            let rule = format!("this is no regular expression that can be used: {reason}");
            (at(*index).key("pattern"), rule)
        }
        InvalidAction::NoGroup { index } => {
            (at(*index).key("pattern"), "it has no group to extract, such as (?P<name>.*)".into())
        }
        InvalidAction::UnnamedGroup { index } => {
            let rule = "each group needs the name of an attribute: (?P<name>.*)";
            (at(*index).key("pattern"), rule.into())
        }
        InvalidAction::NoKey { index } => (at(*index), "it has no key".into()),
        _ => (list.clone(), error.to_string()),
    };
    StartError::Value { setting, rule }
}

fn of(value: &Value) -> spanwire_processors::Value {
    match value {
        Value::Str(text) => spanwire_processors::Value::Str(text.clone()),
        Value::Int(number) => spanwire_processors::Value::Int(*number),
        Value::Double(number) => spanwire_processors::Value::Double(*number),
        Value::Bool(truth) => spanwire_processors::Value::Bool(*truth),
    }
}
