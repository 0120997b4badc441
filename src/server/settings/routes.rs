//! `[[routes]]`: the paths, with the policies of each.

use std::collections::{BTreeMap, HashSet};

use policies::{Expression, PolicyName, Purpose, RoutePath, StoreName};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::de::{DeTable, DeValue};

use crate::{
    config::document::Reader,
    gate::route_paths::{ALLOWANCE, WORKSPACE},
    http::SESSION_PATH,
};

/// `[[routes]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// What clients get: `"token"` is an upload token, `"upload"` lets the gate itself create uploads at Imgwire, so that
    /// clients cannot change what the policies allowed. Default: `"token"`.
    #[serde(default)]
    pub action: RouteAction,
    /// The path where clients request upload tokens, or under which they upload files. With `action = "upload"` it is
    /// required, and one of its segments may be `{workspace}`, which names the workspace of a request. Default:
    /// `"/api/imgwire/upload-token"`.
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
    /// The store that records which image, or which token, went to whom: a name in `[stores]`. All routes that have one
    /// must name the same. With `action = "upload"` it is required. Default: none; tokens are not recorded.
    #[serde(default)]
    pub store: Option<StoreName>,
    /// The metadata of each image, as CEL expressions by key. A client cannot set these keys. Requires
    /// `action = "upload"`. Default: none.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "workspace": "workspace.id" }]))]
    pub metadata: Option<BTreeMap<String, Expression>>,
    /// The keys of the metadata that a client may set. The gate drops all others. Requires `action = "upload"`. Default:
    /// none.
    #[serde(default)]
    #[schemars(extend("examples" = [["alt"]]))]
    pub client_metadata: Option<Vec<String>>,
    /// The roles in the workspace that may delete images of other users. Requires `action = "upload"`. Default: none;
    /// users may delete only their own images.
    #[serde(default)]
    #[schemars(extend("examples" = [["owner"]]))]
    pub delete_roles: Option<Vec<String>>,
}

/// What a route does for a request that its policies allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteAction {
    /// The client gets an upload token.
    #[default]
    Token,
    /// The gate creates the upload, and shows and deletes images.
    Upload,
}

impl RouteSettings {
    /// The expressions of the metadata.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.metadata.iter().flat_map(BTreeMap::values)
    }
}

fn default_path() -> RoutePath {
    RoutePath::parse("/api/imgwire/upload-token").expect("the text is a valid path")
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RoutePath, D::Error> {
    let path = RoutePath::deserialize(deserializer)?;
    let placeholders = path.as_str().matches(WORKSPACE).count();
    let text = &path.as_str().replacen(WORKSPACE, "workspace", 1);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let fault = if !text.starts_with('/') {
        Some("must start with `/`")
    } else if text.ends_with('/') {
        Some("must not end with `/`")
    } else if text.contains("//") {
        Some("must not contain an empty segment")
    } else if text
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        Some("must not contain the segment `.` or `..`")
    } else if placeholders > 1 {
        Some("must contain `{workspace}` only once")
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
