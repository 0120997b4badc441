//! Images, and the states that they go through.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    ids::{id, number},
    image_type,
    keys::Caller,
    scenario::{IdempotencyScope, Scenario},
    upload_request::UploadRequest,
};

/// The oldest images beyond it are forgotten.
const MAX_IMAGES: usize = 100_000;

/// The oldest images are forgotten if the requests for their uploads are larger together.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// The bytes of the oldest images beyond it are forgotten. One image always fits.
const MAX_BYTES: usize = 64 << 20;

#[derive(Default)]
pub(super) struct Images {
    /// In the order of their creation.
    images: VecDeque<Image>,
    created: usize,
    request_bytes: usize,
    /// At least as many as are kept.
    file_bytes: usize,
    /// The numbers of the images with an idempotency key, the oldest first.
    repeatable: HashMap<String, VecDeque<usize>>,
}

pub(super) struct Image {
    pub(super) id: String,
    pub(super) environment: String,
    /// The API key that created it.
    key: String,
    is_of_client_key: bool,
    token_id: Option<String>,
    request: UploadRequest,
    request_bytes: usize,
    created_at: Timestamp,
    uploaded: Option<Uploaded>,
    deleted_at: Option<Timestamp>,
}

struct Uploaded {
    at: Timestamp,
    size: usize,
    mime_type: String,
    dimensions: (u32, u32),
    is_quarantined: bool,
    /// `None` for old images.
    bytes: Option<Bytes>,
}

impl Uploaded {
    fn processed_at(&self, scenario: &Scenario) -> Timestamp {
        let duration = SignedDuration::from_millis(scenario.processing_milliseconds.into());
        self.at.saturating_add(duration).unwrap_or(Timestamp::MAX)
    }
}

impl Images {
    /// Creates an image without a file. `request_bytes` is the size of the request.
    pub(super) fn create(
        &mut self,
        caller: &Caller,
        request: UploadRequest,
        request_bytes: usize,
        token_id: Option<String>,
        now: Timestamp,
    ) -> &Image {
        self.request_bytes += request_bytes;
        while self.images.len() >= MAX_IMAGES || self.request_bytes > MAX_REQUEST_BYTES {
            if !self.forget_oldest() {
                break;
            }
        }
        self.created += 1;
        if let Some(key) = request.idempotency_key.clone() {
            let same_key = self.repeatable.entry(key).or_default();
            same_key.push_back(self.created);
        }
        self.images.push_back_mut(Image {
            id: id(2, self.created),
            environment: caller.environment.clone(),
            key: caller.key.clone(),
            is_of_client_key: caller.client.is_some(),
            token_id,
            request,
            request_bytes,
            created_at: now,
            uploaded: None,
            deleted_at: None,
        })
    }

    /// Returns whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.images.pop_front() else {
            return false;
        };
        self.request_bytes -= oldest.request_bytes;
        if let Some(key) = &oldest.request.idempotency_key
            && let Some(same_key) = self.repeatable.get_mut(key)
        {
            same_key.pop_front();
            if same_key.is_empty() {
                self.repeatable.remove(key);
            }
        }
        true
    }

    /// Ids count, so the position of an image follows from its id.
    fn position(&self, number: usize) -> Option<usize> {
        let forgotten = self.created - self.images.len();
        number.checked_sub(forgotten + 1)
    }

    pub(super) fn find(&self, id: &str) -> Option<&Image> {
        let image = self.images.get(self.position(number(id)?)?)?;
        (image.id == id).then_some(image)
    }

    pub(super) fn find_mut(&mut self, id: &str) -> Option<&mut Image> {
        let position = self.position(number(id)?)?;
        let image = self.images.get_mut(position)?;
        (image.id == id).then_some(image)
    }

    /// The image that an earlier request with the same idempotency key created.
    pub(super) fn repeated(
        &self,
        caller: &Caller,
        request: &UploadRequest,
        scope: IdempotencyScope,
    ) -> Option<&Image> {
        let key = request.idempotency_key.as_ref()?;
        let same_key = self.repeatable.get(key)?.iter();
        let mut images = same_key.filter_map(|number| self.images.get(self.position(*number)?));
        images.find(|image| {
            let is_in_scope = match scope {
                IdempotencyScope::Environment => image.environment == caller.environment,
                IdempotencyScope::ApiKey => image.key == caller.key,
                IdempotencyScope::Nothing => false,
            };
            is_in_scope && image.deleted_at.is_none()
        })
    }

    /// How many images of an API key have no bytes yet.
    pub(super) fn pending(&self, key: &str) -> usize {
        let images = self.images.iter();
        let pending = images.filter(|image| {
            image.key == key && image.uploaded.is_none() && image.deleted_at.is_none()
        });
        pending.count()
    }

    /// The images of an environment, the oldest first.
    pub(super) fn of<'a>(
        &'a self,
        environment: &'a str,
        with_deleted: bool,
    ) -> impl DoubleEndedIterator<Item = &'a Image> {
        self.images.iter().filter(move |image| {
            image.environment == environment && (with_deleted || !image.is_deleted())
        })
    }

    /// Forgets the bytes of the oldest images if there are too many, now that so many were added.
    pub(super) fn shrink(&mut self, added: usize) {
        self.file_bytes += added;
        if self.file_bytes <= MAX_BYTES {
            return;
        }
        let mut kept = 0;
        let images = self.images.iter_mut().rev();
        for uploaded in images.filter_map(|image| image.uploaded.as_mut()) {
            if let Some(bytes) = &uploaded.bytes {
                let is_first = kept == 0;
                kept += bytes.len();
                if kept > MAX_BYTES && !is_first {
                    uploaded.bytes = None;
                }
            }
        }
        self.file_bytes = kept.min(MAX_BYTES);
    }
}

impl Image {
    pub(super) const fn is_of_client_key(&self) -> bool {
        self.is_of_client_key
    }

    pub(super) const fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    const fn can_upload(&self) -> bool {
        self.uploaded.is_none() && self.deleted_at.is_none()
    }

    /// Whether a PUT of the file is accepted.
    pub(super) const fn accepts_file(&self, scenario: &Scenario) -> bool {
        let replaces = scenario.undocumented.put_replaces_file;
        (self.uploaded.is_none() || replaces) && self.deleted_at.is_none()
    }

    pub(super) fn declared(&self) -> (Option<u64>, Option<&str>) {
        (
            self.request.content_length,
            self.request.mime_type.as_deref(),
        )
    }

    /// Bytes that are not an image always end in QUARANTINE.
    pub(super) fn upload(&mut self, bytes: Bytes, is_quarantined: bool, now: Timestamp) {
        let recognized = image_type::recognize(&bytes).map(str::to_owned);
        let is_quarantined = is_quarantined || recognized.is_none();
        let mime_type = recognized.unwrap_or_else(|| self.declared_type().to_owned());
        self.uploaded = Some(Uploaded {
            at: now,
            size: bytes.len(),
            mime_type,
            dimensions: image_type::dimensions(&bytes),
            is_quarantined,
            bytes: Some(bytes),
        });
    }

    pub(super) fn delete(&mut self, now: Timestamp) {
        self.deleted_at = Some(now);
        if let Some(uploaded) = &mut self.uploaded {
            uploaded.bytes = None;
        }
    }

    fn declared_type(&self) -> &str {
        self.request.mime_type.as_deref().unwrap_or("image/png")
    }

    /// The upload, if it is processed.
    fn processed(&self, scenario: &Scenario, now: Timestamp) -> Option<&Uploaded> {
        let uploaded = self.uploaded.as_ref();
        uploaded.filter(|uploaded| uploaded.processed_at(scenario) <= now)
    }

    /// The MIME type and the bytes of an image that is READY.
    pub(super) fn delivered(&self, scenario: &Scenario, now: Timestamp) -> Option<(String, Bytes)> {
        let uploaded = self.processed(scenario, now)?;
        let bytes = uploaded.bytes.clone()?;
        (!uploaded.is_quarantined).then(|| (uploaded.mime_type.clone(), bytes))
    }

    /// The image as the API shows it. Until it is processed, type and size are the declared ones.
    pub(super) fn describe(&self, url: &str, scenario: &Scenario, now: Timestamp) -> Value {
        let processed = self.processed(scenario, now);
        let status = match (&self.uploaded, processed) {
            (None, _) => "PENDING",
            (Some(_), None) => "PROCESSING",
            (_, Some(uploaded)) if uploaded.is_quarantined => "QUARANTINE",
            (_, Some(_)) => "READY",
        };
        let mime_type = processed.map_or(self.declared_type(), |image| &image.mime_type);
        let declared_size = self.request.content_length.unwrap_or(0);
        let (width, height) = processed.map(|image| image.dimensions).unwrap_or_default();
        let changed_at = self.uploaded.as_ref().map(|uploaded| uploaded.at);
        json!({
            "id": self.id,
            "environment_id": self.environment,
            "upload_token_id": self.token_id,
            "original_filename": self.request.file_name,
            "hash_sha256": self.request.hash_sha256,
            "status": status,
            "cdn_url": format!("{url}/cdn/{}", self.id),
            "mime_type": mime_type,
            "can_upload": self.can_upload(),
            "is_directly_deliverable": false,
            "idempotency_key": self.request.idempotency_key,
            "purpose": self.request.purpose,
            "extension": image_type::extension(mime_type),
            "width": width,
            "height": height,
            "size_bytes": processed.map_or(declared_size, |image| image.size as u64),
            "custom_metadata": self.request.custom_metadata,
            "exif_data": {},
            "created_at": self.created_at,
            "updated_at": self.deleted_at.or(changed_at).unwrap_or(self.created_at),
            "deleted_at": self.deleted_at,
            "processed_metadata_at": processed.map(|image| image.processed_at(scenario)),
        })
    }
}
