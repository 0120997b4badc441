//! `<route>/api/v1/images/`: shows, lists and deletes images.

use std::{mem, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ContentType, HeaderName, HeaderValue},
    web,
};
use policies::{ImageId, UploadRequest, WorkspaceId, excerpt};
use serde_json::Value;
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::{
    context::{LogOnDisconnect, enter, worker},
    error::{ApiError, Body as Error, NO_ROUTE, PublicErrors, fail, refuse},
    token_request::{Declared, trace_context, upload_request},
};
use crate::{
    gate::{
        images::{ImageList, ImageRequest},
        issue::run_to_completion,
        observer::Observer,
        outcome::{Details, Failure},
        route_paths::Target,
        rules::{Action, Route, UploadRoute},
    },
    identities::AppliedLimits,
    imgwire::Image,
    outbound::in_flight::with_place,
    stores::Page,
    telemetry::{LogFields, RootSpan},
};

const X_TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
const X_PAGE: HeaderName = HeaderName::from_static("x-page");
const X_LIMIT: HeaderName = HeaderName::from_static("x-limit");
const X_PREV_PAGE: HeaderName = HeaderName::from_static("x-prev-page");
const X_NEXT_PAGE: HeaderName = HeaderName::from_static("x-next-page");

/// The most images on a page, and as many as there are by default.
const MAX_LIMIT: u32 = 20;

/// The most that a client of Imgwire's API may ask for. It gets `MAX_LIMIT`.
const MAX_ASKED: u64 = 100;

/// An image, with the fields that Imgwire's API has. `exif_data` is empty, and `custom_metadata` has only the keys of the
/// route.
#[derive(ToSchema)]
#[schema(as = Image)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct ImageBody {
    id: String,
    original_filename: String,
    /// `PENDING`, `PROCESSING`, `READY` or `QUARANTINE`.
    status: String,
    cdn_url: String,
    mime_type: String,
    size_bytes: u64,
    custom_metadata: std::collections::BTreeMap<String, Value>,
}

/// What a request wants of the images.
enum Wanted {
    Image(ImageId),
    List(Page),
    Deletion(ImageId),
}

enum Found {
    Image(Box<Image>),
    List(ImageList, Page),
    Deleted,
}

/// Shows an image of the user or of the workspace.
#[utoipa::path(
    get,
    path = "/imgwire/{workspace}/api/v1/images/{id}",
    tag = "public",
    operation_id = "show_image",
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "The image", body = ImageBody),
        (status = 429, description = "A limit is reached", body = Error, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn show(
    request: HttpRequest,
    route: Arc<Route>,
    id: ImageId,
    workspace: Option<WorkspaceId>,
) -> HttpResponse {
    serve(&request, route, Wanted::Image(id), workspace).await
}

/// Lists the images of the user or of the workspace, the newest first.
#[utoipa::path(
    get,
    path = "/imgwire/{workspace}/api/v1/images/",
    tag = "public",
    operation_id = "list_images",
    params(
        ("page" = Option<u64>, Query, minimum = 1, description = "The number of the page"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "How many images a page has: 20 at most")
    ),
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 200, description = "The images on the page", body = [ImageBody],
            headers(("X-Total-Count" = u64), ("X-Page" = u64), ("X-Limit" = u64), ("X-Prev-Page" = u64), ("X-Next-Page" = u64))),
        (status = 429, description = "A limit is reached", body = Error, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn list(
    request: HttpRequest,
    route: Arc<Route>,
    workspace: Option<WorkspaceId>,
) -> HttpResponse {
    let page = match page(&request) {
        Ok(page) => page,
        Err(error) => return refuse(&request, &error),
    };
    serve(&request, route, Wanted::List(page), workspace).await
}

/// Deletes an image of the user, or of the workspace if the user has a role that may.
#[utoipa::path(
    delete,
    path = "/imgwire/{workspace}/api/v1/images/{id}",
    tag = "public",
    operation_id = "delete_image",
    security(("bearer" = []), ("session" = []), ()),
    responses(
        (status = 204, description = "The image is deleted"),
        (status = 429, description = "A limit is reached", body = Error, headers(("Retry-After" = u64))),
        PublicErrors
    )
)]
pub(crate) async fn delete(
    request: HttpRequest,
    route: Arc<Route>,
    id: ImageId,
    workspace: Option<WorkspaceId>,
) -> HttpResponse {
    serve(&request, route, Wanted::Deletion(id), workspace).await
}

/// The page that the query names. Other parameters are ignored.
fn page(request: &HttpRequest) -> Result<Page, ApiError> {
    let bad = |message: String| ApiError::BadRequest(message.into());
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let web::Query(query) = query.map_err(|_| bad("the query is malformed".to_owned()))?;
    let number = |wanted: &str, default: u64, most: u64| {
        let mut values = query.iter().filter(|(name, _)| name == wanted);
        let Some((_, text)) = values.next() else {
            return Ok(default);
        };
        if values.next().is_some() {
            return Err(bad(format!("the parameter `{wanted}` is there twice")));
        }
        let number = text
            .parse()
            .ok()
            .filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| {
            let at_most = if most == u64::MAX { String::new() } else { format!(" and at most {most}") };
            let found = excerpt(text);
            bad(format!(
                "the parameter `{wanted}` must be a whole number of at least 1{at_most}, but it is \"{found}\""
            ))
        })
    };
    let limit = number("limit", MAX_LIMIT.into(), MAX_ASKED)?;
    Ok(Page {
        number: number("page", 1, u64::MAX)?,
        size: u32::try_from(limit).unwrap_or(MAX_LIMIT).min(MAX_LIMIT),
    })
}

async fn serve(
    request: &HttpRequest,
    route: Arc<Route>,
    wanted: Wanted,
    workspace: Option<WorkspaceId>,
) -> HttpResponse {
    let declared = Declared {
        workspace,
        ..Declared::default()
    };
    let limits = AppliedLimits::FailuresAndReads;
    let asked = match upload_request(request, &route, declared, limits) {
        Ok(asked) => asked,
        Err(error) => return refuse(request, &error),
    };
    let (target, image) = match &wanted {
        Wanted::Image(id) | Wanted::Deletion(id) => (Target::Image(id.clone()), Some(id.clone())),
        Wanted::List(_) => (Target::Images, None),
    };
    let method = request.method().as_str();
    RootSpan::record_route(method, route.paths.name(&target).as_str());
    let named = asked.workspace.clone();
    let Some(running) = enter(&worker(request).gate) else {
        return refuse(request, &ApiError::Overloaded);
    };
    let in_flight = running.in_flight();
    let must_finish = matches!(wanted, Wanted::Deletion(_));
    let finding = find(request, route.clone(), asked, wanted);
    let work = async move {
        let found = finding.await;
        drop(running);
        found
    };
    // Boxed, so that requests for tokens do not carry its state.
    let work = Box::pin(with_place(in_flight, work.in_current_span()));
    let log_on_disconnect = LogOnDisconnect(request);
    let result = if must_finish {
        // If the client disconnects, the record of an image that was deleted must still say so.
        run_to_completion(work).await
    } else {
        Ok(work.await)
    };
    mem::forget(log_on_disconnect);
    let Ok(found) = result else {
        return fail(request, &"the handler panicked");
    };
    let (Some((result, details)), Action::Upload(uploads)) = (found, &route.action) else {
        return refuse(request, &ApiError::NotFound(NO_ROUTE));
    };
    let mut response = match &result {
        Ok(found) => answer(found, uploads),
        Err(failure) => refuse(request, &ApiError::from(failure)),
    };
    log(&mut response, &result, &details, named, image);
    response
}

/// `None` if the route has no images.
fn find(
    request: &HttpRequest,
    route: Arc<Route>,
    asked: UploadRequest,
    wanted: Wanted,
) -> impl Future<Output = Option<(Result<Found, Failure>, Details)>> + 'static {
    let (worker, context) = (worker(request).clone(), trace_context(request));
    async move {
        let Action::Upload(uploads) = &route.action else {
            return None;
        };
        let observer = Observer {
            records: uploads.records.clone(),
            client: worker.client.clone(),
            clock: worker.gate.clock.clone(),
            rules: worker.gate.rules.load_full(),
        };
        let images = ImageRequest {
            uploads,
            observer: &observer,
            context: &context,
            request: &asked,
        };
        let mut details = Details::default();
        let result = match wanted {
            Wanted::Image(id) => {
                let image = images.show(&id, &mut details).await;
                image.map(|image| Found::Image(Box::new(image)))
            }
            Wanted::List(page) => {
                let list = images.list(page, &mut details).await;
                list.map(|list| Found::List(list, page))
            }
            Wanted::Deletion(id) => {
                let deleted = images.delete(&id, &mut details).await;
                deleted.map(|()| Found::Deleted)
            }
        };
        Some((result, details))
    }
}

/// A response with JSON that is already written.
pub(super) fn json_text(json: String) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.content_type(ContentType::json()).body(json)
}

fn answer(found: &Found, uploads: &UploadRoute) -> HttpResponse {
    let shown = |image: &Image| image.for_client(|key| uploads.shows(key));
    match found {
        Found::Image(image) => json_text(shown(image)),
        Found::Deleted => HttpResponse::NoContent().finish(),
        Found::List(list, page) => {
            let images: Vec<_> = list.images.iter().map(shown).collect();
            let mut response = json_text(format!("[{}]", images.join(",")));
            let size = u64::from(page.size);
            let has_next = page.number.saturating_mul(size) < list.total;
            for (name, value) in [
                (X_TOTAL_COUNT, Some(list.total)),
                (X_PAGE, Some(page.number)),
                (X_LIMIT, Some(size)),
                (
                    X_PREV_PAGE,
                    page.number.checked_sub(1).filter(|page| *page > 0),
                ),
                (X_NEXT_PAGE, has_next.then(|| page.number.saturating_add(1))),
            ] {
                if let Some(value) = value {
                    response
                        .headers_mut()
                        .insert(name, HeaderValue::from(value));
                }
            }
            response
        }
    }
}

fn log(
    response: &mut HttpResponse,
    result: &Result<Found, Failure>,
    details: &Details,
    named: Option<WorkspaceId>,
    image: Option<ImageId>,
) {
    if let Some(subject) = &details.facts.subject {
        LogFields::set_subject(response, subject);
    }
    let membership = details.facts.membership.as_ref();
    let workspace = membership.map(|membership| membership.workspace.clone());
    let failure = result.as_ref().err();
    let reason = failure.and_then(Failure::reason);
    LogFields::update(response, |fields| {
        fields.workspace = workspace.or(named);
        fields.image = image;
        fields.policy = failure.and_then(Failure::policy).cloned();
        fields.upstream = details.upstream;
        if let Some(reason) = reason {
            fields.reason = Some(reason.to_string());
        }
    });
}
