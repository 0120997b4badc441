//! `/images`, `/subjects/<id>/images` and `/jobs/<id>`: who uploaded what, and the erasure of a person's images.

use std::{num::NonZeroU64, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, error::ErrorInternalServerError, http::header, web};
use bytes::Bytes;
use futures_util::{Stream, stream};
use policies::{Fault, ImageId, InvalidId, SubjectId, TokenId, WorkspaceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Management;
use crate::{
    gate::{
        erasure, find_records,
        observer::{ObserveError, Observer},
        reconciliation,
        record_view::ImageRecord,
    },
    http::error::{ApiError, ManagementErrors, fail, refuse},
    stores::{Page, Progress, Reconciled, Record, RecordId, RecordQuery, RecordStore},
    telemetry::{LogFields, RequestId},
};

const PAGE_SIZE: u32 = 100;

/// So many records are in memory at once.
const EXPORTED_AT_ONCE: u32 = 500;

const NO_RECORDS: &str = "no route of this gate has a `store`, so no uploads are recorded";
const NO_JOB: &str = "there is no such job";

/// The message for a query that cannot be read.
pub(super) const QUERY: &str =
    "the query can have image, token, subject, workspace, and page, a number of at least 1";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    image: Option<String>,
    token: Option<String>,
    subject: Option<String>,
    workspace: Option<String>,
    page: Option<NonZeroU64>,
}

impl Filter {
    fn query(&self) -> Result<RecordQuery, ApiError> {
        let invalid = |name: &str, reason: &dyn std::fmt::Display| {
            ApiError::BadRequest(format!("{name} {reason}").into())
        };
        let of_imgwire = "is not an id of Imgwire: 1 to 64 letters, digits, `-` and `_`";
        let query = RecordQuery {
            image: parsed(self.image.as_deref(), ImageId::parse)
                .ok_or_else(|| invalid("image", &of_imgwire))?,
            token: parsed(self.token.as_deref(), TokenId::parse)
                .ok_or_else(|| invalid("token", &of_imgwire))?,
            subject: (self.subject.as_deref().map(SubjectId::parse).transpose())
                .map_err(|error| invalid("subject", &error))?,
            workspace: (self
                .workspace
                .as_deref()
                .map(WorkspaceId::parse)
                .transpose())
            .map_err(|error| invalid("workspace", &error))?,
        };
        if query == RecordQuery::default() {
            let message = "name what to find: ?image=, ?token=, ?subject= or ?workspace=";
            return Err(ApiError::BadRequest(message.into()));
        }
        Ok(query)
    }
}

/// `None` if there is a text that cannot be parsed.
fn parsed<T>(text: Option<&str>, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        None => Some(None),
        Some(text) => parse(text).map(Some),
    }
}

/// A page of records.
#[derive(Serialize, ToSchema)]
pub(crate) struct ImageRecords {
    /// The newest first, at most 100.
    images: Vec<ImageRecord>,
}

/// Finds out who uploaded an image, or what a user or a workspace has uploaded.
///
/// An image that came through an upload token is found by its id, too: Imgwire says which token created it.
#[utoipa::path(
    get,
    path = "/images",
    tag = "management",
    operation_id = "find_images",
    params(("image" = Option<String>, Query, description = "The image's id at Imgwire"),
        ("token" = Option<String>, Query, description = "The id of an upload token"),
        ("subject" = Option<String>, Query, description = "The user"),
        ("workspace" = Option<String>, Query, description = "The workspace"),
        ("page" = Option<u64>, Query, description = "The page, from 1")),
    security(("bearer" = []), ()),
    responses((status = 200, description = "The records that match everything in the query, which must name something to find", body = ImageRecords),
        ManagementErrors)
)]
pub(crate) async fn find(
    request: HttpRequest,
    filter: web::Query<Filter>,
    management: web::Data<Management>,
) -> HttpResponse {
    let (records, query) = match (records(&management), filter.query()) {
        (Ok(records), Ok(query)) => (records, query),
        (Err(error), _) | (_, Err(error)) => return refuse(&request, &error),
    };
    let page = Page {
        number: filter.page.map_or(1, NonZeroU64::get),
        size: PAGE_SIZE,
    };
    let Management { gate, client } = &**management;
    let observer = Observer {
        records,
        client: client.clone(),
        clock: gate.clock.clone(),
        rules: gate.rules.load_full(),
    };
    match find_records::find(&observer, query, page).await {
        Ok(found) => HttpResponse::Ok().json(ImageRecords {
            images: found.into_iter().map(ImageRecord::from).collect(),
        }),
        Err(ObserveError::Store(fault)) => fail(&request, &fault),
        Err(ObserveError::Imgwire(error)) => {
            let mut response = refuse(&request, &ApiError::ImgwireFailed);
            LogFields::update(&mut response, |fields| {
                fields.reason = Some(error.to_string());
            });
            response
        }
    }
}

/// Returns all records, the oldest first, one JSON object on each line.
#[utoipa::path(
    get,
    path = "/images/export",
    tag = "management",
    operation_id = "export_images",
    security(("bearer" = []), ()),
    responses((status = 200, description = "The records. If the end of the body is missing, the store failed", body = ImageRecord, content_type = "application/jsonl"),
        ManagementErrors)
)]
pub(crate) async fn export(
    request: HttpRequest,
    management: web::Data<Management>,
) -> HttpResponse {
    let records = match records(&management) {
        Ok(records) => records,
        Err(error) => return refuse(&request, &error),
    };
    match records.export(None, EXPORTED_AT_ONCE).await {
        Ok(first) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "application/jsonl"))
            .streaming(lines(records, first, RequestId::of(&request))),
        Err(fault) => fail(&request, &fault),
    }
}

/// What an export reads next.
enum Next {
    Read(Vec<Record>),
    After(RecordId),
    End,
}

fn lines(
    records: Arc<dyn RecordStore>,
    first: Vec<Record>,
    request_id: RequestId,
) -> impl Stream<Item = Result<Bytes, actix_web::Error>> {
    stream::try_unfold(Next::Read(first), move |next| {
        let (records, request_id) = (records.clone(), request_id.clone());
        async move {
            let page = match next {
                Next::Read(page) => page,
                Next::After(id) => match records.export(Some(id), EXPORTED_AT_ONCE).await {
                    Ok(page) => page,
                    Err(fault) => {
                        let request_id = request_id.as_str();
                        tracing::warn!(request_id, %fault, "export of records ended early");
                        return Err(ErrorInternalServerError("the store failed"));
                    }
                },
                Next::End => return Ok(None),
            };
            let next = match page.last() {
                None => return Ok(None),
                Some(last) if page.len() >= EXPORTED_AT_ONCE as usize => Next::After(last.id),
                Some(_) => Next::End,
            };
            let mut text = Vec::new();
            for record in page {
                serde_json::to_writer(&mut text, &ImageRecord::from(record))?;
                text.push(b'\n');
            }
            Ok(Some((Bytes::from(text), next)))
        }
    })
}

/// The job that erases.
#[derive(Serialize, ToSchema)]
pub(crate) struct Started {
    /// Its id, for `/jobs/{id}`.
    #[schema(value_type = String)]
    job: Uuid,
}

/// Erases the images of a user, and all records of that user. A job does it in the background.
///
/// An image that came through an upload token is erased only if it was asked for by its id before.
#[utoipa::path(
    delete,
    path = "/subjects/{id}/images",
    tag = "management",
    operation_id = "erase_images",
    params(("id" = String, Path, description = "The user")),
    security(("bearer" = []), ()),
    responses((status = 202, description = "The job", body = Started),
        ManagementErrors)
)]
pub(crate) async fn erase(
    request: HttpRequest,
    subject: web::Path<String>,
    management: web::Data<Management>,
) -> HttpResponse {
    let invalid = |error: InvalidId| ApiError::BadRequest(format!("the subject {error}").into());
    let subject = SubjectId::parse(&subject).map_err(invalid);
    let (records, subject) = match (records(&management), subject) {
        (Ok(records), Ok(subject)) => (records, subject),
        (Err(error), _) | (_, Err(error)) => return refuse(&request, &error),
    };
    let clock = &*management.gate.clock;
    match erasure::start(&*records, clock, subject.clone()).await {
        Ok(job) => {
            let (id, subject) = (RequestId::of(&request), subject.as_str());
            tracing::info!(request_id = id.as_str(), %job, subject, "erasure requested by operator");
            HttpResponse::Accepted().json(Started { job })
        }
        Err(fault) => fail(&request, &fault),
    }
}

/// Compares every record with its image at Imgwire, and corrects what differs. A job does it in the background.
///
/// If one runs already, the answer names that.
#[utoipa::path(
    post,
    path = "/images/reconcile",
    tag = "management",
    operation_id = "reconcile_images",
    security(("bearer" = []), ()),
    responses((status = 202, description = "The job", body = Started),
        ManagementErrors)
)]
pub(crate) async fn reconcile(
    request: HttpRequest,
    management: web::Data<Management>,
) -> HttpResponse {
    let records = match records(&management) {
        Ok(records) => records,
        Err(error) => return refuse(&request, &error),
    };
    match reconciliation::start(&*records, &*management.gate.clock).await {
        Ok(job) => {
            let id = RequestId::of(&request);
            tracing::info!(request_id = id.as_str(), %job, "reconciliation requested by operator");
            HttpResponse::Accepted().json(Started { job })
        }
        Err(fault) => fail(&request, &fault),
    }
}

/// The progress of a job.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobProgress {
    /// Whether the job has ended.
    done: bool,
    /// The number of images that a reconciliation has compared with their records.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<u64>,
    /// The number of deleted images. A reconciliation counts the ones that it found to be deleted at Imgwire.
    deleted: u64,
    /// The number of records that a reconciliation has corrected otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    corrected: Option<u64>,
    /// The number of images that Imgwire did not delete, or that a reconciliation could not read. The job tries them again;
    /// then it ends, and their records stay as they are.
    failed: u64,
}

impl From<Progress> for JobProgress {
    fn from(progress: Progress) -> Self {
        let Progress {
            done,
            deleted,
            failed,
        } = progress;
        Self {
            done,
            checked: None,
            deleted,
            corrected: None,
            failed,
        }
    }
}

impl From<Reconciled> for JobProgress {
    fn from(progress: Reconciled) -> Self {
        let Reconciled {
            done,
            checked,
            deleted,
            corrected,
            failed,
        } = progress;
        Self {
            done,
            checked: Some(checked),
            deleted,
            corrected: Some(corrected),
            failed,
        }
    }
}

/// Returns the progress of a job. It is kept for 30 days after the job has ended.
#[utoipa::path(
    get,
    path = "/jobs/{id}",
    tag = "management",
    operation_id = "show_job",
    params(("id" = String, Path, description = "The job's id")),
    security(("bearer" = []), ()),
    responses((status = 200, description = "The progress", body = JobProgress),
        ManagementErrors)
)]
pub(crate) async fn job(
    request: HttpRequest,
    id: web::Path<String>,
    management: web::Data<Management>,
) -> HttpResponse {
    let found = match (records(&management), Uuid::try_parse(&id)) {
        (Ok(records), Ok(id)) => progress(&*records, id).await,
        _ => Ok(None),
    };
    match found {
        Ok(Some(progress)) => HttpResponse::Ok().json(progress),
        Ok(None) => refuse(&request, &ApiError::NotFound(NO_JOB)),
        Err(fault) => fail(&request, &fault),
    }
}

async fn progress(records: &dyn RecordStore, id: Uuid) -> Result<Option<JobProgress>, Fault> {
    if let Some(erased) = records.erasure(id).await? {
        return Ok(Some(erased.into()));
    }
    Ok(records.reconciled(id).await?.map(JobProgress::from))
}

fn records(management: &Management) -> Result<Arc<dyn RecordStore>, ApiError> {
    let rules = management.gate.rules.load();
    rules.records.clone().ok_or(ApiError::NotFound(NO_RECORDS))
}
