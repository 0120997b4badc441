//! The OpenAPI 3.1 document of the API, generated from handlers and types.

use std::collections::BTreeMap;

use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, PathItem, RefOr, Required,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{allowance, error, management, session, token_request, upload_token};
use crate::gate::explain;

/// The route in the handlers' descriptions, and in the document without a config.
const DEFAULT_ROUTE: &str = "/api/imgwire/upload-token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "imgwire-gate",
        description = "Issues Imgwire upload tokens to the users that your policies allow. \
                       Paths with the tag `management` are available only on the management listener."
    ),
    paths(
        upload_token::post,
        allowance::get,
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

/// The document of a gate with these routes.
#[must_use]
pub fn document<'a>(routes: impl Iterator<Item = &'a str>) -> openapi::OpenApi {
    let mut api = Api::openapi();
    let paths = &mut api.paths.paths;
    let take =
        |path: &str, paths: &mut BTreeMap<String, PathItem>| paths.remove(path).unwrap_or_default();
    let mut token = take(DEFAULT_ROUTE, paths);
    // The body is optional.
    let post = token.post.as_mut();
    if let Some(RefOr::T(body)) = post.and_then(|post| post.request_body.as_mut()) {
        body.required = Some(Required::False);
    }
    let allowance = take(&format!("{DEFAULT_ROUTE}/allowance"), paths);
    for route in routes {
        paths.insert(route.to_owned(), token.clone());
        paths.insert(format!("{route}/allowance"), allowance.clone());
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

#[must_use]
pub fn default_document() -> openapi::OpenApi {
    document(std::iter::once(DEFAULT_ROUTE))
}
