//! Limits of the config: a fixed one, or one that depends on a claim.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, json};

use crate::{ByteAmount, ClaimPath, Facts, Reads, id_text};

/// A value that a limit can have: a number, or a number of bytes.
pub trait LimitValue: Copy + Eq + fmt::Display + DeserializeOwned {
    /// What the config writes.
    const EXPECTED: &'static str;

    /// Returns an example for the JSON Schema.
    fn example() -> Value;

    /// Reads a number of the config.
    fn from_number(number: u64) -> Self;

    /// Reads a text of the config. `None` if the value is never a text.
    fn from_text(text: &str) -> Option<Result<Self, String>>;

    /// Returns the limit as a number.
    fn get(self) -> u64;
}

impl LimitValue for u64 {
    const EXPECTED: &'static str = "a number";

    fn example() -> Value {
        json!(500)
    }

    fn from_number(number: u64) -> Self {
        number
    }

    fn from_text(_: &str) -> Option<Result<Self, String>> {
        None
    }

    fn get(self) -> u64 {
        self
    }
}

impl LimitValue for ByteAmount {
    const EXPECTED: &'static str = "a size";

    fn example() -> Value {
        json!("5GB")
    }

    fn from_number(number: u64) -> Self {
        Self::new(number)
    }

    fn from_text(text: &str) -> Option<Result<Self, String>> {
        Some(Self::parse(text))
    }

    fn get(self) -> u64 {
        self.bytes()
    }
}

/// A limit: a fixed one, or one that depends on a claim.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged, rename = "LimitSetting_{T}")]
#[schemars(extend("examples" = [T::example()]))]
pub enum LimitSetting<T: LimitValue> {
    /// The same limit for all counters.
    Fixed(T),
    /// A limit for each value of a claim.
    ByClaim(LimitByClaim<T>),
}

/// A limit that depends on a claim of the user, for example its plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound(deserialize = "T: LimitValue"))]
#[schemars(rename = "LimitByClaim_{T}")]
pub struct LimitByClaim<T> {
    /// The claim whose value selects the limit.
    pub claim: ClaimPath,
    /// The limit for each value of the claim: a text, an integer or a boolean.
    pub values: BTreeMap<String, T>,
    /// The limit for any other value, and for users without the claim.
    pub default: T,
}

impl<T: LimitValue> LimitByClaim<T> {
    fn value<'a>(&self, facts: &'a Facts) -> Option<&'a Value> {
        self.claim.get(&facts.subject.as_ref()?.claims)
    }

    /// The limit for the value of the claim, if `values` has one.
    fn selected(&self, facts: &Facts) -> Option<T> {
        let limit = match self.value(facts)? {
            Value::Bool(flag) => self.values.get(if *flag { "true" } else { "false" }),
            value => self.values.get(&*id_text(value)?),
        };
        limit.copied()
    }

    fn why_default(&self, facts: &Facts) -> String {
        let reason = match self.value(facts) {
            None => self.claim.missing(),
            Some(_) => format!("`values` has no limit for the token's `{}`", self.claim),
        };
        format!("{reason}, so the default limit applies")
    }
}

impl<T: LimitValue> LimitSetting<T> {
    pub(crate) fn of(&self, facts: &Facts) -> u64 {
        let limit = match self {
            Self::Fixed(limit) => *limit,
            Self::ByClaim(by) => by.selected(facts).unwrap_or(by.default),
        };
        limit.get()
    }

    /// Says why the default limit applies, if it does.
    pub(crate) fn why_default(&self, facts: &Facts) -> Option<String> {
        match self {
            Self::ByClaim(by) if by.selected(facts).is_none() => Some(by.why_default(facts)),
            Self::Fixed(_) | Self::ByClaim(_) => None,
        }
    }

    /// The claim that the limit depends on, if any.
    pub(crate) fn claim(&self) -> Option<&ClaimPath> {
        match self {
            Self::Fixed(_) => None,
            Self::ByClaim(by) => Some(&by.claim),
        }
    }

    pub(crate) fn claims(&self) -> Reads {
        self.claim().map(Reads::claim).unwrap_or_default()
    }

    pub(crate) fn is_zero(&self) -> bool {
        matches!(self, Self::Fixed(limit) if limit.get() == 0)
    }
}

/// In the words of `check`: `500`, or `the number for the claim plan`.
impl<T: LimitValue> fmt::Display for LimitSetting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(limit) => write!(f, "{limit}"),
            Self::ByClaim(by) => {
                let what = T::EXPECTED.trim_start_matches("a ");
                write!(f, "the {what} for the claim {}", by.claim)
            }
        }
    }
}

impl<'de, T: LimitValue> Deserialize<'de> for LimitSetting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LimitVisitor<T>(PhantomData<T>);

        impl<'de, T: LimitValue> Visitor<'de> for LimitVisitor<T> {
            type Value = LimitSetting<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let expected = T::EXPECTED;
                write!(
                    f,
                    "{expected}, or {{ claim = \"...\", values = {{ ... }}, default = ... }}"
                )
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                let number = u64::try_from(number);
                let number = number.map_err(|_| E::custom("the limit must not be negative"))?;
                self.visit_u64(number)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(LimitSetting::Fixed(T::from_number(number)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                match T::from_text(text) {
                    Some(limit) => limit.map(LimitSetting::Fixed).map_err(E::custom),
                    None => Err(E::invalid_type(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                LimitByClaim::deserialize(MapAccessDeserializer::new(map))
                    .map(LimitSetting::ByClaim)
            }
        }

        deserializer.deserialize_any(LimitVisitor(PhantomData))
    }
}
