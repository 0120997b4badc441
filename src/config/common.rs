//! The keys of every policy, whatever its kind.

use std::collections::BTreeMap;

use policies::{Expression, Mode, OnFailure};
use schemars::JsonSchema;
use serde::Deserialize;

/// The keys that every kind of policy takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommonSettings {
    /// Whether its denials are enforced.
    #[serde(default)]
    pub mode: Mode,
    /// The text for the user when it denies, by language: `{ en = "...", de = "..." }`.
    #[serde(default)]
    pub message: Option<Messages>,
    /// A CEL expression: the policy is skipped if it is `false`, and runs otherwise.
    #[serde(default)]
    pub when: Option<Expression>,
    /// What happens if the policy cannot decide, because something that it depends on is down.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl CommonSettings {
    /// Whether the policy runs for every request and its denials are enforced.
    #[must_use]
    pub fn always_enforces(&self) -> bool {
        self.mode == Mode::Enforce && self.when.is_none()
    }
}

/// A text in several languages, by their tags (RFC 5646), for example `en` or `pt-BR`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>")]
#[schemars(with = "BTreeMap<String, String>")]
pub struct Messages(BTreeMap<String, String>);

impl Messages {
    /// The texts by their languages. There is at least one.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.0.iter();
        texts.map(|(language, text)| (language.as_str(), text.as_str()))
    }
}

impl TryFrom<BTreeMap<String, String>> for Messages {
    type Error = &'static str;

    fn try_from(texts: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let is_tag = |tag: &String| {
            !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if texts.is_empty() {
            Err("must have a text for at least one language")
        } else if texts.keys().all(is_tag) {
            Ok(Self(texts))
        } else {
            Err("must name languages by their tags, for example `en` or `pt-BR`")
        }
    }
}
