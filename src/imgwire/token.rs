//! Upload tokens.

use jiff::Timestamp;
use secrecy::SecretString;

use super::{error::ImgwireError, log_text::log_text};
use crate::outbound::JsonObject;

/// Imgwire's ids are UUIDs.
const MAX_ID_BYTES: usize = 64;

pub struct UploadToken {
    /// Names the token in the log and at Imgwire, where the image that it creates names it as `upload_token_id`.
    pub id: Option<String>,
    pub token: String,
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for UploadToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UploadToken")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl UploadToken {
    /// Only the token is required.
    pub(super) fn parse(
        mut response: JsonObject,
        key: &SecretString,
    ) -> Result<Self, ImgwireError> {
        let token = response.take_string("token")?;
        if token.is_empty() {
            return Err(ImgwireError::InvalidResponse(
                "its `token` is empty".to_owned(),
            ));
        }
        let id = response.take_string("id").ok();
        // A token in place of its id must not get into the log.
        let id = id.filter(|id| !id.contains(&token));
        let expires_at = response.take_string("expires_at").ok();
        Ok(Self {
            id: id.and_then(|id| log_text(id, key, MAX_ID_BYTES)),
            token,
            expires_at: expires_at.and_then(|text| text.parse::<Timestamp>().ok()),
        })
    }
}
