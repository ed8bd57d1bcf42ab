//! `${env:NAME}` and `${file:PATH}` within values.
//!
//! What comes from the environment is a scalar and is taken literally: it is neither read as YAML
//! structure nor expanded again, so no variable can change more than the value it stands in. The
//! Go Collector does both; a configuration that relies on it gets an error about the type. What
//! comes from a file is configuration and is expanded in its turn.

use std::path::Path;

use crate::load::Environment;
use crate::redact;
use crate::report::Findings;
use crate::source;
use crate::tree::{Node, Place, Scalar, Value};
use crate::yaml::{self, Budget};

/// Files within files, so that one that names itself comes to an end, and references within
/// references.
const DEPTH_MAX: usize = 8;

pub(crate) struct Expander<'a> {
    environment: Environment<'a>,
    findings: &'a Findings,
    budget: &'a mut Budget,
    /// Whether what is being expanded stands below a key that hides it.
    is_secret: bool,
}

impl<'a> Expander<'a> {
    pub(crate) fn new(
        environment: Environment<'a>,
        findings: &'a Findings,
        budget: &'a mut Budget,
    ) -> Self {
        Self { environment, findings, budget, is_secret: false }
    }

    pub(crate) fn expand(&mut self, node: &mut Node) {
        self.expand_at(node, 0);
    }

    fn expand_at(&mut self, node: &mut Node, depth: usize) {
        match &mut node.value {
            Value::List(list) => list.iter_mut().for_each(|node| self.expand_at(node, depth)),
            Value::Map(map) => {
                for (key, entry) in map {
                    let is_secret = self.is_secret;
                    self.is_secret |= redact::is_secret(key);
                    self.expand_at(&mut entry.node, depth);
                    self.is_secret = is_secret;
                }
            }
            Value::Scalar(scalar) if scalar.text.contains('$') => {
                let (text, plain) = (std::mem::take(&mut scalar.text), scalar.plain);
                match self.scalar(&text, plain, node.place, depth) {
                    Ok(value) => node.value = value,
                    Err(Wrong { message, help }) => {
                        self.findings.error_with_help(node.place, message, help);
                        node.value = Value::Broken;
                    }
                }
            }
            Value::Scalar(_) | Value::Broken => {}
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        plain: bool,
        place: Place,
        depth: usize,
    ) -> Result<Value, Wrong> {
        let whole = text.strip_prefix("${").and_then(|rest| {
            rest.get(..closing(rest)?).filter(|inner| inner.len() + 1 == rest.len())
        });
        if let Some(inner) = whole {
            return Ok(match self.reference(inner, place, depth, 1)? {
                // Quotes do not matter: with or without them the value decides its type.
                Found::Text(found, not_yaml) => {
                    let written = Some(text.to_owned());
                    Value::Scalar(Scalar { text: found, plain: true, written, not_yaml })
                }
                Found::Node(node) => node.value,
            });
        }
        let written = text.contains("${").then(|| text.to_owned());
        let text = self.text(text, place, depth, 0)?;
        Ok(Value::Scalar(Scalar { text, plain, written, not_yaml: None }))
    }

    /// Replaces each reference within `text` by its value.
    fn text(
        &mut self,
        text: &str,
        place: Place,
        depth: usize,
        nesting: usize,
    ) -> Result<String, Wrong> {
        if nesting > DEPTH_MAX {
            return Err(Wrong::new(
                format!("references are nested more than {DEPTH_MAX} deep"),
                "write $$ for a dollar sign",
            ));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            out.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            match rest.chars().next() {
                Some('$') => {
                    out.push('$');
                    rest = &rest[1..];
                }
                Some('{') => {
                    let Some(end) = closing(&rest[1..]) else {
                        return Err(Wrong::new(
                            "a ${ has no closing brace",
                            "write $$ for a dollar sign",
                        ));
                    };
                    let reference = &rest[1..][..end];
                    match self.reference(reference, place, depth, nesting + 1)? {
                        Found::Text(found, _) => out.push_str(&found),
                        Found::Node(node) => {
                            return Err(Wrong::new(
                                format!(
                                    "${{{reference}}} is {} and cannot be part of a text",
                                    node.describe()
                                ),
                                "name a file that holds a text",
                            ));
                        }
                    }
                    rest = &rest[end + 2..];
                }
                Some(char) if char.is_ascii_alphabetic() || char == '_' => {
                    // What follows is not told: it may be the rest of a password.
                    return Err(Wrong::new(
                        "a name after $ is not expanded without braces",
                        "write ${env:NAME}, or $$ for the dollar sign itself",
                    ));
                }
                _ => out.push('$'),
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What `${written}` stands for. Messages quote from it as written: what it names may itself
    /// come from the environment.
    fn reference(
        &mut self,
        written: &str,
        place: Place,
        depth: usize,
        nesting: usize,
    ) -> Result<Found, Wrong> {
        let uri = self.text(written, place, depth, nesting)?;
        match uri.split_once(':') {
            None => self.variable(&uri, None, written, place),
            Some(("env", rest)) => {
                let (name, default) = match rest.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (rest, None),
                };
                self.variable(name, default, written, place)
            }
            Some(("file", path)) => self.file(path, written, depth),
            Some((_, rest)) => {
                // What follows may be the default of a shell, or a URL with a password.
                let scheme = written.split_once(':').map_or(written, |(scheme, _)| scheme);
                let scheme = redact::reference(scheme);
                Err(match rest.starts_with('-') {
                    true => Wrong::new(
                        format!("${{{scheme}:-…}} has a default but no scheme"),
                        format!("write ${{env:{scheme}:-…}}"),
                    ),
                    false => Wrong::new(
                        format!("${{{scheme}:…}} is not supported"),
                        "supported are ${env:NAME}, ${env:NAME:-default} and ${file:PATH}",
                    ),
                })
            }
        }
    }

    fn variable(
        &mut self,
        name: &str,
        default: Option<&str>,
        written: &str,
        place: Place,
    ) -> Result<Found, Wrong> {
        if name.is_empty()
            || name.starts_with(|char: char| char.is_ascii_digit())
            || !name.chars().all(is_name_char)
        {
            return Err(Wrong::new(
                format!(
                    "${{{}}} does not name an environment variable",
                    redact::reference(written)
                ),
                "a name has letters, digits and underscores, and does not start with a digit",
            ));
        }
        let value = (self.environment)(name).or_else(|| default.map(str::to_owned));
        if value.is_none() {
            self.findings.warning(
                place,
                format!("${{{}}} is not set, so this is empty", redact::reference(written)),
                "set the environment variable, or give a default: ${env:NAME:-default}",
            );
        }
        let value = value.unwrap_or_default();
        self.take_bytes(value.len())?;
        Ok(Found::Text(value, None))
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), Wrong> {
        if self.budget.take_bytes(bytes) {
            return Ok(());
        }
        Err(Wrong::new(
            "what variables and files stand for is more than 16 MiB in all",
            "name large files less often",
        ))
    }

    /// A map or a list if the file holds one, and else its text without the line break at its end,
    /// be it YAML or not: a token, a certificate.
    fn file(&mut self, path: &str, written: &str, depth: usize) -> Result<Found, Wrong> {
        if depth >= DEPTH_MAX {
            return Err(Wrong::new(
                format!("files name each other more than {DEPTH_MAX} deep"),
                "does a file name itself?",
            ));
        }
        let text = source::read(Path::new(path)).map_err(|unreadable| {
            Wrong::new(
                format!("${{{written}}}: {}", unreadable.message),
                "a path is relative to the working directory",
            )
        })?;
        self.take_bytes(text.len())?;
        let name = written.strip_prefix("file:").unwrap_or(written);
        // Its lines do not tell below which key they stand.
        let shown = if self.is_secret { String::new() } else { text.clone() };
        let id = self.findings.keep_text(name.to_owned(), shown);
        let not_yaml = match yaml::parse(id, &text, self.budget, self.findings) {
            Ok(node) if matches!(node.value, Value::Scalar(_)) => None,
            Ok(mut node) => {
                self.expand_at(&mut node, depth + 1);
                return Ok(Found::Node(node));
            }
            Err(failure) if failure.too_much => {
                failure.report(self.findings);
                return Err(Wrong::new(
                    format!("${{{written}}} cannot be used here"),
                    "what is wrong with the file is in this report too",
                ));
            }
            Err(failure) => Some(failure.brief()),
        };
        Ok(Found::Text(text.trim_end_matches(['\r', '\n']).to_owned(), not_yaml))
    }
}

enum Found {
    /// With the reason why it is text, as [`Scalar::not_yaml`] has it.
    Text(String, Option<String>),
    Node(Node),
}

struct Wrong {
    message: String,
    help: String,
}

impl Wrong {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

pub(crate) fn is_name_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

/// Where the brace is that closes a reference whose `${` came just before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}
