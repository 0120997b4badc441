//! The keys that policies of all kinds have.

use std::collections::BTreeMap;

use policies::{Expression, Mode, OnFailure};
use schemars::JsonSchema;
use serde::Deserialize;

/// The keys that policies of all kinds have.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommonSettings {
    /// `"enforce"`, or `"observe"` to only log and count denials. Default: `"enforce"`.
    #[serde(default)]
    pub mode: Mode,
    /// The message for the user if the policy denies, by language, for example `{ en = "...", de = "..." }`. Default:
    /// none.
    #[serde(default)]
    pub message: Option<Messages>,
    /// A CEL expression. If it is `false`, the policy is skipped. Default: none; the policy runs for every request.
    #[serde(default)]
    pub when: Option<Expression>,
    /// What happens if the policy cannot decide because something that it depends on is down: `"deny"` fails the
    /// request with 500, `"allow"` skips the policy. Default: `"deny"`.
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

/// A message in one or more languages. The keys are language tags (RFC 5646), for example `en` or `pt-BR`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>")]
#[schemars(with = "BTreeMap<String, String>", extend("examples" = [{ "en": "Upgrade to upload." }]))]
pub struct Messages(BTreeMap<String, String>);

impl Messages {
    /// At least one text, each with its language.
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
            Err("must have language tags as keys, for example `en` or `pt-BR`")
        }
    }
}
