//! Upload tokens.

use std::time::Duration;

use jiff::Timestamp;

use super::error::ImgwireError;

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

pub struct TokenOutcome {
    pub result: Result<UploadToken, ImgwireError>,
    /// 0 for a token from the pool.
    pub attempts: u32,
    /// The time of all attempts.
    pub took: Duration,
}
