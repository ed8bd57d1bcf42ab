use std::fmt;

/// Which settings are in effect, and where each comes from.
///
/// Values of headers, credentials of proxies and queries of URLs are hidden. Key files are named,
/// never opened. `Display` writes a table, with the warnings below it:
///
/// ```
/// use spanwire::{Client, Source};
///
/// let variables = |name: &str| match name {
///     "OTEL_EXPORTER_OTLP_PROTOCOL" => Some("grpc".into()),
///     "OTEL_EXPORTER_OTLP_HEADERS" => Some("authorization=opensesame".into()),
///     "OTEL_BSP_SCHEDULE_DELAY" => Some("often".into()),
///     _ => None,
/// };
/// let builder = Client::builder().service_name("shop").environment_from(variables);
/// let (config, explanation) = builder.resolve();
///
/// let protocol = explanation.get("otlp.protocol").expect("a setting");
/// assert_eq!(protocol.value, "grpc");
/// assert_eq!(protocol.source, Source::Variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
/// assert_eq!(explanation.get("service_name").expect("a setting").source, Source::Code);
/// assert!(!explanation.to_string().contains("opensesame"));
///
/// let warning = explanation.warnings()[0].to_string();
/// assert!(warning.starts_with("OTEL_BSP_SCHEDULE_DELAY: "), "{warning}");
/// # let _ = config;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    pub(crate) settings: Vec<Setting>,
    pub(crate) warnings: Vec<Warning>,
}

impl Explanation {
    /// Each setting, in a fixed order.
    pub fn settings(&self) -> impl ExactSizeIterator<Item = &Setting> {
        self.settings.iter()
    }

    /// The setting of this name, such as `otlp.protocol`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// What was ignored, and what is probably not meant.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: &str| text.chars().count();
        let columns = self.settings.iter().fold((0, 0), |(name, value), setting| {
            let shown = width(&setting.value).min(VALUE_WIDTH_MAX);
            (name.max(width(setting.name)), value.max(shown))
        });
        for (number, Setting { name, value, source }) in self.settings.iter().enumerate() {
            let end = if number > 0 { "\n" } else { "" };
            write!(f, "{end}{name:<0$}  {value:<1$}  {source}", columns.0, columns.1)?;
        }
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

/// A longer value moves its row's last column rather than that of every row.
const VALUE_WIDTH_MAX: usize = 40;

/// One setting in effect.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The path of the field in [`Config`](crate::Config); what begins with `otlp.` is in the first
    /// [`Otlp`](crate::Otlp) among its destinations.
    pub name: &'static str,
    /// Its value, for people; without secrets.
    pub value: String,
    /// What set it.
    pub source: Source,
}

/// What set a setting.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing: it has its default.
    Default,
    /// The program.
    Code,
    /// This environment variable.
    Variable(&'static str),
    /// The program, and this environment variable where the program says nothing.
    CodeAnd(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Code => f.write_str("code"),
            Self::Variable(name) => f.write_str(name),
            Self::CodeAnd(name) => write!(f, "code and {name}"),
        }
    }
}

/// What is odd about a setting. Nothing fails by it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The variable or the setting.
    pub about: &'static str,
    /// What is wrong with it and what is done instead; holds no secret.
    pub problem: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { about, problem } = self;
        write!(f, "{about}: {problem}")
    }
}

/// The start of a text that may come from anywhere, fit to be shown on one line.
pub(crate) fn shown(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for (number, char) in text.chars().enumerate() {
        if number == chars_max {
            shown.push('…');
            break;
        }
        match char.is_control() {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_a_long_value_moves_only_its_own_row() {
        let setting = |name, value: &str, source| Setting { name, value: value.into(), source };
        let long = "x".repeat(50);
        let explanation = Explanation {
            settings: vec![
                setting("a", "größe", Source::Code),
                setting("long.name", &long, Source::Default),
                setting("b", "1", Source::CodeAnd("OTEL_B")),
            ],
            warnings: vec![Warning { about: "OTEL_C", problem: "not a number".into() }],
        };
        let gap = " ".repeat(40);
        let expected = format!(
            "a          größe{}code\nlong.name  {long}  default\nb          1{}code and OTEL_B\n\
             warning: OTEL_C: not a number",
            &gap[..37],
            &format!("{gap} ")[..41],
        );
        assert_eq!(explanation.to_string(), expected);
    }

    #[test]
    fn shown_text_is_one_line_of_bounded_length() {
        assert_eq!(shown("a\nb\u{1b}[31m", 100), "a\\nb\\u{1b}[31m");
        assert_eq!(shown("ééé", 2), "éé…");
        assert_eq!(shown("éé", 2), "éé");
    }
}
