//! The keys of every kind of policy.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Expression;

/// Whether a policy's denials count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A denial refuses the request.
    #[default]
    Enforce,
    /// Decided, logged and counted; never denies.
    Observe,
}

/// What happens when a policy cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The request fails with 500.
    #[default]
    Deny,
    /// The request goes on.
    Allow,
}

/// What every kind of policy takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// Whether its denials count.
    #[serde(default)]
    pub mode: Mode,
    /// What a user may be told when it denies, by language: `{ en = "...", de = "..." }`.
    #[serde(default)]
    pub message: Option<Messages>,
    /// A CEL expression: the policy is skipped if it is `false`, and runs otherwise.
    #[serde(default)]
    pub when: Option<Expression>,
    /// What happens if the policy cannot decide, because something that it depends on is down.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Common {
    /// Whether every request needs a decision of the policy that counts.
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
    /// The text in the first available of the wanted languages, each also tried without its region (RFC 4647, 3.4).
    /// Otherwise in English, or else in any language.
    pub fn choose<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> &str {
        let find = |tag: &str| {
            let mut texts = self.0.iter();
            texts
                .find(|(language, _)| language.eq_ignore_ascii_case(tag))
                .map(|(_, text)| text.as_str())
        };
        wanted
            .into_iter()
            .find_map(|tag| find(tag).or_else(|| find(tag.split('-').next()?)))
            .or_else(|| find("en"))
            .or_else(|| self.0.values().next().map(String::as_str))
            .unwrap_or_default()
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
