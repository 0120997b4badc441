//! `[[routes]]`: the paths, with the policies of each.

use std::{borrow::Cow, collections::BTreeMap};

use policies::{Expression, Interval, PolicyName, Purpose, RoutePath, StoreName, excerpt};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::de::{DeTable, DeValue};

use crate::{
    config::document::{Reader, join},
    gate::{
        route_paths::{self, RouteAction, WORKSPACE, is_under, overlap},
        rules::OnMismatch,
    },
    http::SESSION_PATH,
};

/// `[[routes]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// Its position in the file.
    #[serde(skip)]
    index: usize,
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
    /// The metadata of each image, as CEL expressions by key. A client cannot set these keys. Imgwire shows metadata to
    /// everyone who knows the id of an image. Requires `action = "upload"`. Default: none.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "workspace": "workspace.id" }]))]
    pub metadata: Option<BTreeMap<String, MetadataExpression>>,
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
    /// When the gate deletes an upload whose file has not arrived. Requires `action = "upload"`. Default: `"1h"`.
    #[serde(default)]
    pub abandon_after: Option<Interval>,
    /// What happens if the real type or size of an image differs from what the client declared: `"report"` writes a line to
    /// the log and sends an event, `"delete"` also deletes the image. Requires `action = "upload"`. Default: `"report"`.
    #[serde(default)]
    pub on_mismatch: Option<OnMismatch>,
}

fn place(index: usize) -> String {
    format!("routes[{index}]")
}

impl RouteSettings {
    /// The path of its table in the file.
    pub(super) fn place(&self) -> String {
        place(self.index)
    }

    /// The expressions of the metadata.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let metadata = self.metadata.iter().flat_map(BTreeMap::values);
        metadata.map(|MetadataExpression(expression)| expression)
    }
}

/// A CEL expression whose value becomes metadata of an image.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(with = "String")]
#[schemars(extend("title" = "a CEL expression", "examples" = ["workspace.id"]))]
pub struct MetadataExpression(pub Expression);

impl<'de> Deserialize<'de> for MetadataExpression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let is_plain = |char: char| char.is_alphanumeric() || " -_".contains(char);
        let parsed = Expression::parse(&text).map_err(|fault| {
            // A constant is easily taken for an expression.
            match !text.is_empty() && text.chars().all(is_plain) {
                true => format!("{fault}; for this text as it is, write \"'{text}'\""),
                false => fault,
            }
        });
        parsed.map(Self).map_err(D::Error::custom)
    }
}

fn default_path() -> RoutePath {
    RoutePath::parse("/api/imgwire/upload-token").expect("the text is a valid path")
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RoutePath, D::Error> {
    let path = RoutePath::deserialize(deserializer)?;
    match path_fault(path.as_str()) {
        Some(fault) => Err(D::Error::custom(fault)),
        None => Ok(path),
    }
}

/// What is wrong with the path of a route.
fn path_fault(path: &str) -> Option<Cow<'static, str>> {
    let segments = || path.split('/').skip(1);
    let fault = if path.starts_with("http://") || path.starts_with("https://") {
        "is a URL; write only its path, without scheme, host and port"
    } else if !path.starts_with('/') {
        "must start with `/`; add it"
    } else if path.ends_with('/') {
        "must not end with `/`; remove it"
    } else if path.contains("//") {
        "must not contain an empty segment"
    } else if segments().any(|segment| segment == "." || segment == "..") {
        "must not contain the segment `.` or `..`"
    } else if let Some(segment) =
        segments().find(|segment| *segment != WORKSPACE && segment.contains(['{', '}']))
    {
        let segment = excerpt(segment);
        return Some(
            format!(
                "must not contain `{segment}`; the only placeholder is the segment `{WORKSPACE}`"
            )
            .into(),
        );
    } else if segments().filter(|segment| *segment == WORKSPACE).count() > 1 {
        "must contain `{workspace}` only once"
    } else if !segments()
        .filter(|segment| *segment != WORKSPACE)
        .all(is_plain)
    {
        "must contain only letters, digits and any of -._~/"
    } else {
        return None;
    };
    Some(fault.into())
}

fn is_plain(segment: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    segment.bytes().all(allowed)
}

/// No path may be served by two routes, or by a route and the session.
pub(super) fn check_paths(reader: &mut Reader, routes: &[RouteSettings]) {
    let mut taken: Vec<(String, Option<&RoutePath>)> = vec![(SESSION_PATH.to_owned(), None)];
    for route in routes {
        let key = join(&route.place(), "path");
        // An upload route has no default path.
        let has_path = route.action == RouteAction::Token || reader.has(&key);
        if reader.has_fault(&key) || !has_path {
            continue;
        }
        let path = &route.path;
        let own = route_paths::templates(path, route.action);
        let also = |template: &String| taken.iter().find(|(other, _)| overlap(template, other));
        let shared = own
            .iter()
            .find_map(|template| Some((template, also(template)?)));
        if route.action == RouteAction::Upload && is_under(path.as_str(), SESSION_PATH) {
            let message = format!(
                "must not be under `{SESSION_PATH}`, the path of sessions; choose another path"
            );
            reader.fault(&key, message);
        } else if let Some((template, (other, of))) = shared {
            let message = match of {
                Some(of) if template != other => format!(
                    "`{template}` can be the same path as `{other}` of the route `{of}`; choose another path"
                ),
                Some(of) if template != path.as_str() => {
                    format!("`{template}` is also a path of the route `{of}`; choose another path")
                }
                _ => format!("`{path}` is already in use"),
            };
            reader.fault(&key, message);
        }
        taken.extend(own.into_iter().map(|template| (template, Some(path))));
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
        .filter_map(|(index, value)| {
            let route: RouteSettings = reader.table(&place(index), value)?;
            Some(RouteSettings { index, ..route })
        })
        .collect()
}
