//! The keys that policies of all kinds have.

use std::collections::BTreeMap;

use policies::{Expression, Mode, OnFailure, excerpt};
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
    type Error = String;

    fn try_from(texts: BTreeMap<String, String>) -> Result<Self, String> {
        let is_tag = |tag: &String| {
            !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if texts.is_empty() {
            return Err(
                "must have a text for at least one language; write for example { en = \"...\" }"
                    .to_owned(),
            );
        }
        match texts.keys().find(|tag| !is_tag(tag)) {
            Some(tag) => Err(format!(
                "`{}` is not a language tag; write for example `en` or `pt-BR`",
                excerpt(tag)
            )),
            None => Ok(Self(texts)),
        }
    }
}
