//! `required_claims`, `allowed_claims` and `required_scopes`: what an identity expects of a token's claims.

use std::collections::BTreeMap;

use policies::{ClaimPath, Claims, excerpt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// The expected values of each claim. A claim that is a list must contain one of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("examples" = [{ "token_use": "access" }]))]
pub(super) struct ClaimValues(BTreeMap<ClaimPath, ExpectedValues>);

impl ClaimValues {
    /// Whether a claim of this name must have one of some values.
    pub(super) fn restrict(&self, name: &str) -> bool {
        self.0.keys().any(|claim| claim.is_claim(name))
    }

    /// Checks that every claim has an expected value.
    pub(super) fn check_required(&self, claims: &Claims) -> Result<(), String> {
        let mut expected = self.0.iter();
        expected.try_for_each(|(claim, values)| values.check(claim, claim.get(claims)))
    }

    /// Checks every claim that the token has. `null` means that it has none.
    pub(super) fn check_allowed(&self, claims: &Claims) -> Result<(), String> {
        let expected = self.0.iter();
        let mut found = expected.filter_map(|(claim, values)| {
            let found = claim.get(claims).filter(|found| !found.is_null());
            Some((claim, values, found?))
        });
        found.try_for_each(|(claim, values, found)| values.check(claim, Some(found)))
    }
}

/// One value, or a list of values: strings, integers and booleans.
#[derive(Clone, Debug)]
struct ExpectedValues(Vec<Value>);

impl ExpectedValues {
    fn check(&self, claim: &ClaimPath, found: Option<&Value>) -> Result<(), String> {
        if found.is_some_and(|found| has_one(found, |value| self.0.contains(value))) {
            return Ok(());
        }
        let expected: Vec<_> = self.0.iter().map(in_words).collect();
        let expected = expected.join(" or ");
        Err(match found {
            None => format!("{}, expected {expected}", claim.missing()),
            Some(found) => format!(
                "the token's `{claim}` is {}, expected {expected}",
                in_words(found)
            ),
        })
    }
}

impl<'de> Deserialize<'de> for ExpectedValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "must be a string, an integer, a boolean or a list of these";
        let values = match toml::Value::deserialize(deserializer)? {
            toml::Value::Array(values) if values.is_empty() => {
                return Err(D::Error::custom("must name at least one value"));
            }
            toml::Value::Array(values) => values,
            value => vec![value],
        };
        let values = values.into_iter().map(|value| match value {
            toml::Value::String(text) => Ok(text.into()),
            toml::Value::Integer(number) => Ok(number.into()),
            toml::Value::Boolean(flag) => Ok(flag.into()),
            _ => Err(D::Error::custom(EXPECTED)),
        });
        values.collect::<Result<_, _>>().map(Self)
    }
}

impl JsonSchema for ExpectedValues {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ExpectedValues".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let value = json_schema!({ "type": ["string", "integer", "boolean"] });
        json_schema!({
            "description": "One value, or a list of values",
            "examples": ["access"],
            "anyOf": [value, { "type": "array", "items": value, "minItems": 1 }],
        })
    }
}

/// The scopes (RFC 6749, 3.3) that a token must have, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
#[schemars(extend("examples" = [["upload:write"]]))]
pub(super) struct RequiredScopes(#[schemars(length(min = 1))] Vec<String>);

impl RequiredScopes {
    /// Issuers write scopes in `scope` or in `scp`, as one string with spaces or as a list of such strings.
    pub(super) fn check(&self, claims: &Claims) -> Result<(), String> {
        let Some(missing) = self.0.iter().find(|scope| !has_scope(claims, scope)) else {
            return Ok(());
        };
        let found = SCOPE_CLAIMS
            .iter()
            .find_map(|name| Some((name, claims.get(*name)?)));
        Err(match found {
            None => {
                format!("the token has no `scope` and no `scp`, expected the scope `{missing}`")
            }
            Some((name, value)) => {
                format!(
                    "the token's `{name}` is {}, expected the scope `{missing}`",
                    in_words(value)
                )
            }
        })
    }
}

const SCOPE_CLAIMS: [&str; 2] = ["scope", "scp"];

fn has_scope(claims: &Claims, scope: &str) -> bool {
    let mut claims = SCOPE_CLAIMS.iter().filter_map(|name| claims.get(*name));
    let in_text = |claim: &Value| {
        let text = claim.as_str();
        text.is_some_and(|scopes| scopes.split(' ').any(|found| found == scope))
    };
    claims.any(|claim| has_one(claim, in_text))
}

impl<'de> Deserialize<'de> for RequiredScopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scopes = Vec::<String>::deserialize(deserializer)?;
        if scopes.is_empty() {
            return Err(D::Error::custom("must name at least one scope"));
        }
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
        for scope in &scopes {
            if scope.contains(' ') {
                return Err(D::Error::custom(format!(
                    "`{scope}` has a space; write each scope as a string of its own"
                )));
            } else if scope.is_empty() || !scope.bytes().all(is_allowed) {
                return Err(D::Error::custom(format!(
                    "`{}` is not a scope",
                    excerpt(scope)
                )));
            }
        }
        Ok(Self(scopes))
    }
}

/// Whether a claim is an expected value, or is a list that contains one.
pub(super) fn has_one(found: &Value, is_expected: impl Fn(&Value) -> bool) -> bool {
    match found {
        Value::Array(values) => values.iter().any(is_expected),
        value => is_expected(value),
    }
}

/// Describes a claim that should be a text, for the log.
pub(super) fn mismatch<'a>(
    name: &str,
    found: Option<&Value>,
    expected: impl Iterator<Item = &'a str>,
) -> String {
    let found = match found {
        None => format!("the token has no `{name}`"),
        Some(value) => format!("the token's `{name}` is {}", in_words(value)),
    };
    let expected: Vec<_> = expected.map(|text| format!("`{text}`")).collect();
    format!("{found}, expected {}", expected.join(" or "))
}

/// The start of a value. Texts are written without quotation marks, so other values name their type.
fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{}`", excerpt(text)),
        Value::Bool(flag) => format!("the boolean `{flag}`"),
        Value::Number(number) => format!("the number `{number}`"),
        value => format!("`{}`", excerpt(&value.to_string())),
    }
}
