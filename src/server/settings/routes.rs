//! `[[routes]]`: which path has which chain.

use std::collections::HashSet;

use policies::{PolicyName, Purpose, RoutePath};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::de::{DeTable, DeValue};

use crate::{
    config::document::Reader,
    http::{ALLOWANCE, SESSION_PATH},
};

/// `[[routes]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// Where tokens are asked for; left out: `/api/imgwire/upload-token`.
    #[serde(default = "default_path", deserialize_with = "path")]
    #[schemars(with = "Option<String>")]
    pub path: RoutePath,
    /// What uploads there are for: a body that says another purpose is refused.
    #[serde(default)]
    pub purpose: Option<Purpose>,
    /// Names of policies, in the order in which they are asked.
    #[schemars(length(min = 1))]
    pub policies: Vec<PolicyName>,
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

pub(super) fn check_paths(reader: &mut Reader, routes: &[RouteSettings]) {
    let mut taken = HashSet::from([SESSION_PATH.to_owned()]);
    for (index, route) in routes.iter().enumerate() {
        let path = route.path.as_str();
        let allowance = format!("{path}{ALLOWANCE}");
        if reader.has_fault(&format!("routes[{index}].path")) {
            continue;
        }
        if taken.contains(path) || taken.contains(&allowance) {
            let key = format!("routes[{index}].path");
            reader.fault(key, format!("`{path}` is taken already"));
        }
        taken.insert(path.to_owned());
        taken.insert(allowance);
    }
}

pub(super) fn read(reader: &mut Reader, document: &mut DeTable<'_>) -> Vec<RouteSettings> {
    let Some(value) = document.remove("routes") else {
        reader.fault("routes", "at least one [[routes]] is required");
        return Vec::new();
    };
    let DeValue::Array(entries) = value.into_inner() else {
        reader.fault("routes", "must be written as [[routes]]");
        return Vec::new();
    };
    entries
        .into_iter()
        .enumerate()
        .filter_map(|(index, value)| reader.table(&format!("routes[{index}]"), value))
        .collect()
}
