//! The state of the emulator.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The number of images whose bytes are kept.
const KEPT_IMAGES: usize = 20;

const LIFETIME: SignedDuration = SignedDuration::from_mins(15);

const ENVIRONMENT: &str = "00000000-0000-4000-8000-000000000001";

#[derive(Clone, Debug)]
pub enum Misbehaviour {
    /// Waits this long before it responds.
    Slow(Duration),
    /// Never responds.
    Hang,
    /// Resets the connection.
    Reset,
    /// Closes the connection without a response.
    Close,
    /// Creates the token, then aborts in the middle of the response.
    BreakOff,
    /// Sends the response byte by byte, with this pause between bytes.
    Trickle(Duration),
    /// Responds with this status, and with this `Retry-After` if it is set.
    Status(u16, Option<String>),
    /// Responds 200 with this body.
    Body(String),
}

#[derive(Default)]
pub(super) struct State(Mutex<Memory>);

#[derive(Default)]
pub(super) struct Memory {
    pub(super) url: String,
    pub(super) tokens: HashMap<String, Token>,
    images: Vec<Image>,
    pub(super) asked: usize,
    pub(super) created: usize,
    pub(super) connections: usize,
    pub(super) last_headers: Vec<(String, String)>,
    pub(super) misbehaviour: Option<Misbehaviour>,
    pub(super) next: VecDeque<Misbehaviour>,
}

pub(super) struct Token {
    id: String,
    pub(super) expires_at: Timestamp,
    used: bool,
}

struct Image {
    id: String,
    facts: Value,
    /// `None` before the upload, and for old images.
    bytes: Option<Bytes>,
    is_uploaded: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the emulator is another service, with its own clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

fn id(kind: u8, number: usize) -> String {
    format!("00000000-0000-4000-8{kind:03}-{number:012}")
}

impl State {
    pub(super) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request for a token, and returns how to misbehave on it.
    pub(super) fn ask(&self, headers: &HeaderMap) -> Option<Misbehaviour> {
        let mut memory = self.lock();
        memory.asked += 1;
        memory.last_headers = headers
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.as_str().to_owned(), value)
            })
            .collect();
        let next = memory.next.pop_front();
        next.or_else(|| memory.misbehaviour.clone())
    }

    pub(super) fn create_token(&self) -> Value {
        let mut memory = self.lock();
        let now = now();
        memory.tokens.retain(|_, token| token.expires_at > now);
        memory.created += 1;
        let number = memory.created;
        let expires_at = now.saturating_add(LIFETIME).unwrap_or(Timestamp::MAX);
        let text = format!("ut_{number}_{:08x}", fastrand::u32(..));
        let id = id(1, number);
        let token = Token {
            id: id.clone(),
            expires_at,
            used: false,
        };
        memory.tokens.insert(text.clone(), token);
        json!({
            "id": id,
            "environment_id": ENVIRONMENT,
            "used_at": null,
            "expires_at": expires_at,
            "created_at": now,
            "updated_at": now,
            "token": text,
        })
    }

    /// Consumes a token, and creates an image without bytes. The error says why the token is rejected.
    pub(super) fn start_upload(&self, token: &str, request: &Value) -> Result<Value, &'static str> {
        let mut memory = self.lock();
        let now = now();
        let token = memory.tokens.get_mut(token).ok_or("Unknown upload token")?;
        if token.used {
            return Err("Upload token was already used");
        }
        if token.expires_at <= now {
            return Err("Upload token has expired");
        }
        token.used = true;
        let token_id = token.id.clone();
        let image_id = id(2, memory.images.len() + 1);
        let facts = json!({
            "id": image_id,
            "environment_id": ENVIRONMENT,
            "upload_token_id": token_id,
            "original_filename": request["file_name"],
            "hash_sha256": request["hash_sha256"],
            "status": "PENDING",
            "cdn_url": format!("{}/cdn/{image_id}", memory.url),
            "mime_type": request.get("mime_type").unwrap_or(&json!("image/png")),
            "can_upload": true,
            "is_directly_deliverable": false,
            "idempotency_key": request["idempotency_key"],
            "purpose": request["purpose"],
            "extension": "png",
            "width": 0,
            "height": 0,
            "size_bytes": request["content_length"].as_u64().unwrap_or(0),
            "custom_metadata": request.get("custom_metadata").unwrap_or(&json!({})),
            "exif_data": {},
            "created_at": now,
            "updated_at": now,
            "deleted_at": null,
            "processed_metadata_at": null,
        });
        let upload_url = format!("{}/upload/{image_id}", memory.url);
        memory.images.push(Image {
            id: image_id,
            facts: facts.clone(),
            bytes: None,
            is_uploaded: false,
        });
        Ok(json!({ "image": facts, "upload_url": upload_url }))
    }

    /// Stores the bytes of an image. Returns `false` if there is no such image, or if it already has bytes.
    pub(super) fn put(&self, id: &str, bytes: Bytes) -> bool {
        let mut memory = self.lock();
        let image = memory.images.iter_mut().find(|image| image.id == id);
        let Some(image) = image.filter(|image| !image.is_uploaded) else {
            return false;
        };
        image.facts["status"] = json!("READY");
        image.facts["size_bytes"] = json!(bytes.len());
        image.facts["can_upload"] = json!(false);
        image.is_uploaded = true;
        image.bytes = Some(bytes);
        let kept = memory.images.iter_mut().rev();
        let mut kept = kept.filter(|image| image.bytes.is_some()).skip(KEPT_IMAGES);
        if let Some(oldest) = kept.next() {
            oldest.bytes = None;
        }
        true
    }

    pub(super) fn image_bytes(&self, id: &str) -> Option<(String, Bytes)> {
        let memory = self.lock();
        let image = memory.images.iter().find(|image| image.id == id)?;
        let kind = image.facts["mime_type"].as_str().unwrap_or("image/png");
        Some((kind.to_owned(), image.bytes.clone()?))
    }

    pub(super) fn image(&self, id: &str) -> Option<Value> {
        let memory = self.lock();
        let image = memory.images.iter().find(|image| image.id == id)?;
        Some(image.facts.clone())
    }

    pub(super) fn images(&self, page: usize, limit: usize) -> Vec<Value> {
        let memory = self.lock();
        let images = memory.images.iter().rev();
        images
            .skip(page.saturating_sub(1).saturating_mul(limit))
            .take(limit)
            .map(|image| image.facts.clone())
            .collect()
    }
}
