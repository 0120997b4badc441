//! `[[routes]]`: which path has which chain.

use policies::{PolicyName, Purpose, RoutePath};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

/// `[[routes]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteSettings {
    /// Where tokens are asked for; left out: `/api/imgwire/upload-token`.
    #[serde(default = "default_path", deserialize_with = "path")]
    #[schemars(with = "Option<String>")]
    pub(super) path: RoutePath,
    /// What uploads there are for: a body that says another purpose is refused.
    #[serde(default)]
    pub(super) purpose: Option<Purpose>,
    /// Names of policies, in the order in which they are asked.
    #[schemars(length(min = 1))]
    pub(super) policies: Vec<PolicyName>,
}

fn default_path() -> RoutePath {
    RoutePath::parse("/api/imgwire/upload-token").expect("the text is a valid path")
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RoutePath, D::Error> {
    let path = RoutePath::deserialize(deserializer)?;
    let text = path.as_str();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let fault = if !text.starts_with('/') {
        Some("must start with `/`")
    } else if text.ends_with('/') {
        Some("must not end with `/`")
    } else if text.contains("//") {
        Some("must not have an empty segment")
    } else if text
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        Some("must not have `.` or `..` as a segment")
    } else if !text.bytes().all(allowed) {
        Some("must consist of letters, digits and any of -._~/")
    } else {
        None
    };
    match fault {
        Some(fault) => Err(D::Error::custom(fault)),
        None => Ok(path),
    }
}
