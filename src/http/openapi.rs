//! The OpenAPI 3.1 document of the API, generated from handlers and types.

use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, Object, RefOr, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{allowance, error, images, management, session, token_request, upload_token, uploads};
use crate::gate::{
    explain,
    route_paths::{ALLOWANCE, CREATE_UPLOAD, IMAGE, IMAGES, RouteAction, WORKSPACE},
};

/// The route in the handlers' descriptions, and in the document without a config.
const DEFAULT_ROUTE: &str = "/api/imgwire/upload-token";

/// The route of uploads in the handlers' descriptions.
const UPLOAD_ROUTE: &str = "/imgwire/{workspace}";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "imgwire-gate",
        description = "Issues Imgwire upload tokens, and creates uploads, for the users that your policies allow. \
                       Paths with the tag `management` are available only on the management listener."
    ),
    paths(
        upload_token::post,
        allowance::get,
        uploads::create,
        images::list,
        images::show,
        images::delete,
        session::create,
        session::show,
        session::end,
        management::state::live,
        management::state::ready,
        management::state::metrics,
        management::log::show,
        management::log::set,
        management::explain::explain,
        management::quota::show,
        management::quota::give_back,
        management::images::find,
        management::images::export,
        management::images::erase,
        management::images::reconcile,
        management::images::job
    ),
    components(schemas(error::Body, error::ErrorCode, token_request::TokenRequest, explain::DescribedRequest, management::explain::Explanation)),
    modifiers(&Security),
    tags(
        (name = "public", description = "For web pages, on the public listener"),
        (name = "management", description = "For operators, on the management listener")
    )
)]
struct Api;

/// Adds the ways to authenticate.
struct Security;

impl Modify for Security {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = Http::builder().scheme(HttpAuthScheme::Bearer).build();
        let cookie = ApiKey::Cookie(ApiKeyValue::new("__Host-imgwire_gate"));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// The document of a gate with routes at these paths.
#[must_use]
pub fn document<'a>(routes: impl Iterator<Item = (&'a str, RouteAction)>) -> openapi::OpenApi {
    let mut api = Api::openapi();
    let paths = &mut api.paths.paths;
    let mut take = |route: &str, suffix: &str| {
        let path = format!("{route}{suffix}");
        paths.remove(&path).unwrap_or_default()
    };
    let mut token = take(DEFAULT_ROUTE, "");
    // The body is optional.
    let post = token.post.as_mut();
    if let Some(RefOr::T(body)) = post.and_then(|post| post.request_body.as_mut()) {
        body.required = Some(Required::False);
    }
    let allowance = take(DEFAULT_ROUTE, ALLOWANCE);
    let uploads = [CREATE_UPLOAD, IMAGES, IMAGE].map(|suffix| (suffix, take(UPLOAD_ROUTE, suffix)));
    for (route, action) in routes {
        let mut served = vec![(ALLOWANCE, allowance.clone())];
        match action {
            RouteAction::Token => served.push(("", token.clone())),
            RouteAction::Upload => served.extend(uploads.clone()),
        }
        for (suffix, mut item) in served {
            let path = format!("{route}{suffix}");
            let placeholders = PLACEHOLDERS.iter();
            for (name, what) in placeholders.filter(|(name, _)| path.contains(name)) {
                let parameters = item.parameters.get_or_insert_default();
                parameters.push(RefOr::T(parameter(name, what)));
            }
            paths.insert(path, item);
        }
    }
    // Operation ids must be unique.
    for (path, item) in &mut api.paths.paths {
        for operation in [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.delete,
        ]
        .into_iter()
        .flatten()
        {
            let id = operation.operation_id.take().unwrap_or_default();
            operation.operation_id = Some(format!("{id}{}", path.replace(['/', '{', '}'], "_")));
        }
    }
    api
}

/// What the paths of routes have in braces.
const PLACEHOLDERS: [(&str, &str); 2] = [
    (WORKSPACE, "The id of the workspace"),
    ("{id}", "The id of the image"),
];

fn parameter(placeholder: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(placeholder.trim_matches(['{', '}']))
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(Object::with_type(Type::String)))
        .build()
}

#[must_use]
pub fn default_document() -> openapi::OpenApi {
    let routes = [
        (DEFAULT_ROUTE, RouteAction::Token),
        (UPLOAD_ROUTE, RouteAction::Upload),
    ];
    document(routes.into_iter())
}
