//! The paths that a route serves: its own path as a template, with what may follow it.

use percent_encoding::percent_decode_str;
use policies::{ImageId, RoutePath, WorkspaceId};
use schemars::JsonSchema;
use serde::Deserialize;

/// Stands for a workspace in the path of a route.
pub const WORKSPACE: &str = "{workspace}";

/// Appended to a route's path.
pub const ALLOWANCE: &str = "/allowance";

/// Appended to the path of an upload route, as the SDKs of Imgwire do it.
pub const CREATE_UPLOAD: &str = "/api/v1/images/standard_upload";
pub const IMAGES: &str = "/api/v1/images/";
const IMAGES_WITHOUT_SLASH: &str = "/api/v1/images";
pub const IMAGE: &str = "/api/v1/images/{id}";

/// What a request wants of its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Token,
    Allowance,
    CreateUpload,
    Images,
    Image(ImageId),
}

/// The paths that a route serves.
#[derive(Debug)]
pub struct RoutePaths {
    /// The path up to the workspace, or the whole path.
    before: Box<str>,
    /// The path after the workspace, if it has one.
    after: Option<Box<str>>,
    action: RouteAction,
    /// The names of the paths, which are templates. Names are interned, so they are built once.
    names: Names,
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

#[derive(Debug)]
struct Names {
    path: RoutePath,
    allowance: RoutePath,
    create_upload: RoutePath,
    images: RoutePath,
    image: RoutePath,
}

impl RoutePaths {
    #[must_use]
    pub fn new(path: &RoutePath, action: RouteAction) -> Self {
        // A path that would be too long for a name keeps the one of its route.
        let name = |suffix: &str| {
            RoutePath::parse(&format!("{path}{suffix}")).unwrap_or_else(|_| path.clone())
        };
        let of_upload = |suffix: &str| match action {
            RouteAction::Token => path.clone(),
            RouteAction::Upload => name(suffix),
        };
        let (before, after) = match path.as_str().split_once(WORKSPACE) {
            Some((before, after)) => (before, Some(after.into())),
            None => (path.as_str(), None),
        };
        Self {
            before: before.into(),
            after,
            action,
            names: Names {
                path: path.clone(),
                allowance: name(ALLOWANCE),
                create_upload: of_upload(CREATE_UPLOAD),
                images: of_upload(IMAGES),
                image: of_upload(IMAGE),
            },
        }
    }

    /// The target of a request for tokens, if the path is exactly this route's.
    #[must_use]
    pub(super) fn is_of_token(&self, path: &str) -> bool {
        self.names.path.as_str() == path && self.action == RouteAction::Token
    }

    /// The target of a request, and the workspace in its path. `None` if the route does not serve the path.
    #[must_use]
    pub(super) fn find(&self, path: &str) -> Option<(Target, Option<WorkspaceId>)> {
        let rest = path.strip_prefix(&*self.before)?;
        let (workspace, rest) = match &self.after {
            None => (None, rest),
            Some(after) => {
                let (workspace, rest) = rest.split_at(rest.find('/')?);
                (Some(workspace), rest.strip_prefix(&**after)?)
            }
        };
        let target = self.target(rest)?;
        let workspace = match workspace {
            None => None,
            Some(text) => Some(decode(text)?),
        };
        Some((target, workspace))
    }

    fn target(&self, rest: &str) -> Option<Target> {
        match (self.action, rest) {
            (_, ALLOWANCE) => Some(Target::Allowance),
            (RouteAction::Token, "") => Some(Target::Token),
            (RouteAction::Token, _) => None,
            (RouteAction::Upload, CREATE_UPLOAD) => Some(Target::CreateUpload),
            (RouteAction::Upload, IMAGES | IMAGES_WITHOUT_SLASH) => Some(Target::Images),
            (RouteAction::Upload, rest) => {
                let id = rest.strip_prefix(IMAGES)?;
                ImageId::parse(id).map(Target::Image)
            }
        }
    }

    #[must_use]
    pub fn action(&self) -> RouteAction {
        self.action
    }

    /// The template that the path of a request for `target` matches.
    #[must_use]
    pub fn name(&self, target: &Target) -> &RoutePath {
        match target {
            Target::Token => &self.names.path,
            Target::Allowance => &self.names.allowance,
            Target::CreateUpload => &self.names.create_upload,
            Target::Images => &self.names.images,
            Target::Image(_) => &self.names.image,
        }
    }
}

/// The templates of all paths that a route with this path serves.
#[must_use]
pub fn templates(path: &RoutePath, action: RouteAction) -> Vec<String> {
    let suffixes: &[&str] = match action {
        RouteAction::Token => &["", ALLOWANCE],
        RouteAction::Upload => &[
            ALLOWANCE,
            CREATE_UPLOAD,
            IMAGES,
            IMAGES_WITHOUT_SLASH,
            IMAGE,
        ],
    };
    let suffixes = suffixes.iter();
    suffixes.map(|suffix| format!("{path}{suffix}")).collect()
}

/// Whether a path can match both templates.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let segments = |path: &str| path.split('/').count();
    segments(one) == segments(other) && is_under(one, other)
}

/// Whether a path that matches `one` can begin with the segments of a path that matches `other`.
#[must_use]
pub fn is_under(one: &str, other: &str) -> bool {
    let is_open = |segment: &str| segment.starts_with('{');
    let mut segments = one.split('/');
    other.split('/').all(|other| {
        segments.next().is_some_and(|one| {
            let either = one == other || is_open(one) || is_open(other);
            either && one.is_empty() == other.is_empty()
        })
    })
}

/// The workspace that a segment of a path names. `None` if it cannot be one.
fn decode(segment: &str) -> Option<WorkspaceId> {
    let mut escapes = segment.split('%').skip(1);
    let is_escape = |text: &str| {
        let digits = text.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !escapes.all(is_escape) {
        return None;
    }
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    WorkspaceId::parse(&text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template() -> impl Strategy<Value = (RoutePath, RouteAction)> {
        let segment = prop_oneof!["[ab]", Just("api".to_owned()), Just("v1".to_owned())];
        let segments = prop::collection::vec(segment, 1..6);
        let place = prop::option::of(any::<prop::sample::Index>());
        (segments, place, any::<bool>()).prop_map(|(mut segments, place, is_upload)| {
            if let Some(place) = place.filter(|_| is_upload) {
                let index = place.index(segments.len());
                segments[index] = WORKSPACE.to_owned();
            }
            let path = RoutePath::parse(&format!("/{}", segments.join("/")));
            let action = match is_upload {
                true => RouteAction::Upload,
                false => RouteAction::Token,
            };
            (path.expect("the path is short"), action)
        })
    }

    /// A path that matches a template.
    fn fill(template: &str, texts: &[String]) -> String {
        let mut texts = texts.iter();
        let segments = template.split('/').map(|segment| match segment {
            WORKSPACE | "{id}" => texts.next().map_or("x", String::as_str),
            segment => segment,
        });
        segments.collect::<Vec<_>>().join("/")
    }

    proptest! {
        #[test]
        fn routes_that_serve_one_path_overlap(
            (one, one_action) in template(),
            (other, other_action) in template(),
            texts in prop::collection::vec("[ab]|api|v1|images|allowance", 2),
        ) {
            let (own, others) = (templates(&one, one_action), templates(&other, other_action));
            let known = own.iter().any(|own| others.iter().any(|other| overlap(own, other)));
            let (one, other) = (RoutePaths::new(&one, one_action), RoutePaths::new(&other, other_action));
            let mut shared = false;
            for template in own.iter().chain(&others) {
                let path = fill(template, &texts);
                prop_assert!(one.find(&path).or(other.find(&path)).is_some(), "{}", path);
                shared |= one.find(&path).is_some() && other.find(&path).is_some();
            }
            prop_assert!(known || !shared);
        }

        #[test]
        fn any_workspace_is_found_by_its_escapes(id in "\\PC{1,40}") {
            let path = RoutePath::parse("/a/{workspace}/b").expect("the path is valid");
            let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let paths = RoutePaths::new(&path, RouteAction::Upload);
            let found = paths.find(&format!("/a/{escaped}/b/allowance"));
            let expected = WorkspaceId::parse(&id).ok();
            prop_assert_eq!(found, expected.map(|id| (Target::Allowance, Some(id))));
        }
    }
}
