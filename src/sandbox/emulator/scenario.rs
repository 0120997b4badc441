//! What the emulator can be switched to: the account, and every behaviour that Imgwire does not document.

use serde::{Deserialize, Serialize};

pub const SERVER_API_KEY: &str = "sk_emulator";

pub const CLIENT_KEY: &str = "ck_emulator";

/// The environment of the default keys.
pub const ENVIRONMENT: &str = "00000000-0000-4000-8000-000000000001";

/// The default has one environment with one Server API Key and one Client Key, and no CORS origins.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub environments: Vec<String>,
    pub server_keys: Vec<ServerKey>,
    pub client_keys: Vec<ClientKey>,
    pub cors_origins: Vec<CorsOrigin>,
    pub billing: Billing,
    pub token_lifetime_seconds: u32,
    /// How long an uploaded image is PROCESSING.
    pub processing_milliseconds: u32,
    /// Whether an upload ends in QUARANTINE instead of READY.
    pub quarantine: bool,
    /// How far the `Date` header is ahead of the clock.
    pub date_skew_seconds: i32,
    pub undocumented: Undocumented,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            environments: vec![ENVIRONMENT.to_owned()],
            server_keys: vec![ServerKey::new(SERVER_API_KEY)],
            client_keys: vec![ClientKey::new(CLIENT_KEY)],
            cors_origins: Vec::new(),
            billing: Billing::Active,
            token_lifetime_seconds: 15 * 60,
            processing_milliseconds: 500,
            quarantine: false,
            date_skew_seconds: 0,
            undocumented: Undocumented::default(),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerKey {
    pub key: String,
    /// `None`: each request must name an environment in `X-Environment-Id`.
    pub environment: Option<String>,
    #[serde(default)]
    pub revoked: bool,
}

impl ServerKey {
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            environment: Some(ENVIRONMENT.to_owned()),
            revoked: false,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientKey {
    pub key: String,
    pub environment: String,
    #[serde(default)]
    pub revoked: bool,
    #[serde(default)]
    pub allow_unsigned_upload: bool,
    #[serde(default)]
    pub maximum_upload_bytes: Option<u64>,
    #[serde(default)]
    pub allowed_mime_types: Option<Vec<String>>,
    #[serde(default)]
    pub maximum_pending_uploads: Option<usize>,
}

impl ClientKey {
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            environment: ENVIRONMENT.to_owned(),
            revoked: false,
            allow_unsigned_upload: false,
            maximum_upload_bytes: None,
            allowed_mime_types: None,
            maximum_pending_uploads: None,
        }
    }
}

/// A host pattern, such as `app.example.com`, `*.example.com` or `localhost:3000`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CorsOrigin {
    pub environment: String,
    pub pattern: String,
}

impl CorsOrigin {
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self {
            environment: ENVIRONMENT.to_owned(),
            pattern: pattern.to_owned(),
        }
    }
}

/// The state of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Billing {
    Active,
    Unpaid,
    StorageUsedUp,
    UploadsUsedUp,
}

/// The `error_type` of a domain error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum ErrorType {
    /// The key or the token is invalid.
    #[serde(rename = "InvalidTokenError")]
    InvalidToken,
    /// The key has no access to this resource.
    #[serde(rename = "ResourceNotAuthorizedError")]
    ResourceNotAuthorized,
    /// The key may not do this.
    #[serde(rename = "OperationNotAllowedError")]
    OperationNotAllowed,
    /// The plan does not allow this.
    #[serde(rename = "PaymentRequiredError")]
    PaymentRequired,
    #[serde(rename = "ResourceNotFoundError")]
    ResourceNotFound,
}

/// What Imgwire's documentation leaves open.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Undocumented {
    pub payment_required_status: u16,
    pub not_authorized_status: u16,
    /// Whether a key that is scoped to one environment refuses another one in `X-Environment-Id`, instead of ignoring
    /// the header.
    pub scoped_keys_check_environment: bool,
    /// The error of an upload without a token with a Client Key that requires one.
    pub missing_token_error: ErrorType,
    /// The error of an upload that the limits or the CORS origins of a Client Key do not allow.
    pub limit_error: ErrorType,
    /// Whether used-up storage or uploads already refuse a token, and not only the upload.
    pub tokens_check_capacity: bool,
    /// Whether the limits of a Client Key refuse an upload that declares no length or no type.
    pub limits_require_declaration: bool,
    /// Whether CORS origins refuse an upload without an `Origin` header.
    pub origin_required: bool,
    pub idempotency_scope: IdempotencyScope,
    pub upload_url_lifetime_seconds: u32,
    /// Whether the PUT of the bytes refuses another length than the declared one.
    pub put_enforces_length: bool,
    /// Whether the PUT of the bytes refuses another type than the declared one.
    pub put_enforces_type: bool,
    /// Whether a second PUT replaces the file, instead of being refused.
    pub put_replaces_file: bool,
    /// Whether browsers can PUT only to images that a Client Key created.
    pub put_cors_requires_client_key: bool,
    /// Whether the list shows deleted images, with `deleted_at`.
    pub list_shows_deleted: bool,
    /// Whether a read of a deleted image shows it, with `deleted_at`.
    pub read_shows_deleted: bool,
    pub list_order: ListOrder,
}

impl Default for Undocumented {
    fn default() -> Self {
        Self {
            payment_required_status: 402,
            not_authorized_status: 403,
            scoped_keys_check_environment: false,
            missing_token_error: ErrorType::OperationNotAllowed,
            limit_error: ErrorType::OperationNotAllowed,
            tokens_check_capacity: true,
            limits_require_declaration: false,
            origin_required: false,
            idempotency_scope: IdempotencyScope::Environment,
            upload_url_lifetime_seconds: 15 * 60,
            put_enforces_length: false,
            put_enforces_type: false,
            put_replaces_file: false,
            put_cors_requires_client_key: false,
            list_shows_deleted: false,
            read_shows_deleted: false,
            list_order: ListOrder::NewestFirst,
        }
    }
}

/// Among which uploads an `idempotency_key` is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdempotencyScope {
    Environment,
    ApiKey,
    /// The key has no effect.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListOrder {
    NewestFirst,
    OldestFirst,
}
