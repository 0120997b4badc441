//! `[[routes]]`: the paths, with the policies of each.

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
    /// The path where clients request upload tokens. Default: `"/api/imgwire/upload-token"`.
    #[serde(default = "default_path", deserialize_with = "path")]
    #[schemars(with = "Option<String>")]
    pub path: RoutePath,
    /// The purpose of uploads on this route, for example `"avatar"`. A request that names another purpose is denied.
    /// Default: none; clients may name any purpose.
    #[serde(default)]
    pub purpose: Option<Purpose>,
    /// The names of the policies that must allow a request, in the order in which the gate evaluates them.
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
    if text.starts_with("http://") || text.starts_with("https://") {
        let fault = "is a URL; write only its path, without scheme, host and port";
        return Err(D::Error::custom(fault));
    }
    let fault = if !text.starts_with('/') {
        Some("must start with `/`; add it")
    } else if text.ends_with('/') {
        Some("must not end with `/`; remove it")
    } else if text.contains("//") {
        Some("must not contain an empty segment")
    } else if text
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        Some("must not contain the segment `.` or `..`")
    } else if !text.bytes().all(allowed) {
        Some("must contain only letters, digits and any of -._~/")
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
            reader.fault(key, format!("`{path}` is already in use"));
        }
        taken.insert(path.to_owned());
        taken.insert(allowance);
    }
}

pub(super) fn read(reader: &mut Reader, document: &mut DeTable<'_>) -> Vec<RouteSettings> {
    let Some(value) = document.remove("routes") else {
        reader.fault("routes", "at least one route is required; write [[routes]]");
        return Vec::new();
    };
    let DeValue::Array(entries) = value.into_inner() else {
        reader.fault("routes", "must be an array of tables; write [[routes]]");
        return Vec::new();
    };
    entries
        .into_iter()
        .enumerate()
        .filter_map(|(index, value)| reader.table(&format!("routes[{index}]"), value))
        .collect()
}
