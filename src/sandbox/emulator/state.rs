//! The state of the emulator, and what each request does with it.

use std::sync::Arc;

use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use policies::Clock;
use serde_json::{Value, json};

use super::{
    errors::ApiError,
    faults::Faults,
    images::{Image, Images},
    keys::Caller,
    reads::Reads,
    scenario::{ErrorType, ListOrder, Scenario},
    tokens::Tokens,
    upload_request::UploadRequest,
};

pub(super) struct State {
    pub(super) clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
pub(super) struct Memory {
    pub(super) url: String,
    pub(super) scenario: Scenario,
    pub(super) tokens: Tokens,
    pub(super) images: Images,
    pub(super) faults: Faults,
    pub(super) reads: Reads,
    pub(super) connections: usize,
    /// Those of the last request for a token, with lower-case names.
    pub(super) last_headers: Vec<(String, String)>,
}

impl State {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            memory: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    pub(super) fn create_token(&self, headers: &HeaderMap) -> Result<Value, ApiError> {
        let Memory {
            scenario, tokens, ..
        } = &mut *self.lock();
        let caller = scenario.server_caller(headers)?;
        scenario.check_plan_for_token()?;
        let lifetime = scenario.token_lifetime_seconds;
        Ok(tokens.create(&caller.environment, self.clock.now(), lifetime))
    }

    /// Creates an image without bytes. A token is consumed only if nothing else refuses the upload.
    pub(super) fn create_upload(
        &self,
        headers: &HeaderMap,
        token: Option<&str>,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let Memory {
            url,
            scenario,
            tokens,
            images,
            ..
        } = &mut *self.lock();
        let now = self.clock.now();
        let caller = scenario.caller(headers)?;
        scenario.check_origin(&caller, headers)?;
        let request = UploadRequest::parse(body)?;
        let scope = scenario.undocumented.idempotency_scope;
        if let Some(image) = images.repeated(&caller, &request, scope) {
            return Ok(upload_response(image, url, scenario, now));
        }
        scenario.check_plan_for_upload()?;
        if let Some(key) = &caller.client {
            scenario.check_limits(key, &request, images.pending(&key.key))?;
        }
        let needs_token = caller.client.as_ref();
        let needs_token = needs_token.is_some_and(|key| !key.allow_unsigned_upload);
        let token_id = match token {
            None if needs_token => {
                let kind = scenario.undocumented.missing_token_error;
                return Err(scenario.error(kind, "The key requires an upload token"));
            }
            None => None,
            Some(token) => {
                let consumed = tokens.consume(&caller.environment, token, now);
                Some(consumed.map_err(|why| scenario.error(ErrorType::InvalidToken, why))?)
            }
        };
        let image = images.create(&caller, request, body.len(), token_id, now);
        Ok(upload_response(image, url, scenario, now))
    }

    /// Stores the bytes of an image. The error is the status of the storage service.
    pub(super) fn put(
        &self,
        id: &str,
        expires: Option<i64>,
        mime_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<(), u16> {
        let Memory {
            scenario, images, ..
        } = &mut *self.lock();
        let now = self.clock.now();
        let image = images.find_mut(id);
        let image = image.filter(|image| image.accepts_file(scenario));
        let image = image.ok_or(404_u16)?;
        let (length, declared_type) = image.declared();
        let rules = &scenario.undocumented;
        let is_other_length = length.is_some_and(|length| length != bytes.len() as u64);
        let is_other_type = declared_type.is_some() && declared_type != mime_type;
        if expires.is_none_or(|expires| expires <= now.as_second())
            || rules.put_enforces_length && is_other_length
            || rules.put_enforces_type && is_other_type
        {
            return Err(403);
        }
        let size = bytes.len();
        image.upload(bytes, scenario.quarantine, now);
        images.shrink(size);
        Ok(())
    }

    pub(super) fn image(&self, headers: &HeaderMap, id: &str) -> Result<Value, ApiError> {
        let memory = self.lock();
        let caller = memory.scenario.caller(headers)?;
        let image = memory.image(&caller, id, memory.scenario.undocumented.read_shows_deleted)?;
        Ok(memory.describe(image, self.clock.now()))
    }

    /// The images of the caller's environment.
    pub(super) fn images(&self, headers: &HeaderMap) -> Result<Vec<Value>, ApiError> {
        let memory = self.lock();
        let caller = memory.scenario.server_caller(headers)?;
        let rules = &memory.scenario.undocumented;
        let images = memory
            .images
            .of(&caller.environment, rules.list_shows_deleted);
        let now = self.clock.now();
        let images = images.map(|image| memory.describe(image, now));
        Ok(match rules.list_order {
            ListOrder::OldestFirst => images.collect(),
            ListOrder::NewestFirst => images.rev().collect(),
        })
    }

    pub(super) fn delete(&self, headers: &HeaderMap, id: &str) -> Result<(), ApiError> {
        let mut memory = self.lock();
        let caller = memory.scenario.server_caller(headers)?;
        memory.delete(&caller, id, self.clock.now())
    }

    /// Deletes each of `ids`, and returns for each `null` or the reason why it was not deleted.
    pub(super) fn bulk_delete(
        &self,
        headers: &HeaderMap,
        ids: impl FnOnce() -> Result<Vec<String>, ApiError>,
    ) -> Result<Value, ApiError> {
        let mut memory = self.lock();
        let caller = memory.scenario.server_caller(headers)?;
        let now = self.clock.now();
        let results = ids()?.into_iter().map(|id| {
            let deleted = memory.delete(&caller, &id, now);
            let result = deleted.map_or_else(|error| json!(error.detail()), |()| Value::Null);
            (id, result)
        });
        Ok(Value::Object(results.collect()))
    }

    pub(super) fn cors_origins(&self, headers: &HeaderMap) -> Result<Vec<Value>, ApiError> {
        let memory = self.lock();
        let caller = memory.scenario.server_caller(headers)?;
        let environment = &caller.environment;
        Ok(memory
            .scenario
            .origin_entries(environment, self.clock.now()))
    }

    /// Whether pages may read the response of a PUT to an image.
    pub(super) fn is_open_to_pages(&self, id: &str) -> bool {
        let memory = self.lock();
        let image = memory.images.find(id);
        !memory.scenario.undocumented.put_cors_requires_client_key
            || image.is_some_and(Image::is_of_client_key)
    }

    pub(super) fn delivered(&self, id: &str) -> Option<(String, Bytes)> {
        let memory = self.lock();
        let image = memory.images.find(id)?;
        image.delivered(&memory.scenario, self.clock.now())
    }
}

impl Memory {
    pub(super) fn describe(&self, image: &Image, now: Timestamp) -> Value {
        image.describe(&self.url, &self.scenario, now)
    }

    fn image(&self, caller: &Caller, id: &str, with_deleted: bool) -> Result<&Image, ApiError> {
        let image = self.images.find(id);
        match image.filter(|image| with_deleted || !image.is_deleted()) {
            None => Err(self
                .scenario
                .error(ErrorType::ResourceNotFound, "Image not found")),
            Some(image) if image.environment == caller.environment => Ok(image),
            Some(_) => {
                let detail = "The key has no access to this image";
                Err(self
                    .scenario
                    .error(ErrorType::ResourceNotAuthorized, detail))
            }
        }
    }

    fn delete(&mut self, caller: &Caller, id: &str, now: Timestamp) -> Result<(), ApiError> {
        self.image(caller, id, false)?;
        if let Some(image) = self.images.find_mut(id) {
            image.delete(now);
        }
        Ok(())
    }
}

/// The answer to the creation of an upload, with a fresh URL for the bytes.
fn upload_response(image: &Image, url: &str, scenario: &Scenario, now: Timestamp) -> Value {
    let lifetime = scenario.undocumented.upload_url_lifetime_seconds;
    let expires = now.as_second() + i64::from(lifetime);
    let signature = fastrand::u64(..);
    json!({
        "image": image.describe(url, scenario, now),
        "upload_url": format!("{url}/upload/{}?expires={expires}&signature={signature:016x}", image.id),
    })
}
