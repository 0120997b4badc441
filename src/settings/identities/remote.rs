//! `kind = "remote"`: the app's own session lookup.

use std::collections::BTreeMap;

use policies::{Interval, ServiceUrl};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{TokenSource, default_ambient, default_timeout, issuer::SubjectPrefix, no_prefix};

/// `kind = "remote"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteSettings {
    /// What is asked, by GET.
    pub url: ServiceUrl,
    /// Lets the cookies and headers travel over plain http to other machines.
    #[serde(default)]
    pub insecure_http: bool,
    /// What of the request is passed on, `"cookie:NAME"` or `"header:NAME"`; nothing else is. A request with
    /// none of them is not signed in.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub forward: Vec<TokenSource>,
    /// Whether a browser may send its headers by itself, or a proxy may derive them from what a browser sends: then
    /// they are accepted from the gate's own pages and the allowed origins only. `Authorization` is never checked for
    /// this, and cookies always are.
    #[serde(default = "default_ambient")]
    pub ambient: bool,
    /// Where the answer has the subject's id (RFC 6901); absent or null: not signed in.
    pub subject: Pointer,
    /// What the subject's id begins with, so that it differs from equal ids of another identity.
    #[serde(default = "no_prefix")]
    pub subject_prefix: SubjectPrefix,
    /// Where it has claims, by the claim's name.
    #[serde(default)]
    pub claims: BTreeMap<String, Pointer>,
    /// How long an answer is remembered; left out: not at all.
    #[serde(default)]
    pub cache: Option<Interval>,
    /// How long the app may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
}

/// A JSON Pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Pointer(String);

impl Pointer {
    /// The value that it points at.
    #[must_use]
    pub fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        value.pointer(&self.0)
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let escapes_are_whole = text
            .split('~')
            .skip(1)
            .all(|rest| rest.starts_with(['0', '1']));
        if (text.is_empty() || text.starts_with('/')) && escapes_are_whole {
            Ok(Self(text))
        } else {
            Err(format!(
                "`{text}` is no JSON Pointer; write for example \"/user/id\""
            ))
        }
    }
}
