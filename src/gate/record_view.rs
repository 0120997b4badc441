//! The JSON of a record, for operators and for events.

use jiff::Timestamp;
use policies::{ImageId, SubjectId, TokenId, WorkspaceId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::stores::{FileFacts, Record};

/// Who uploaded an image, or got a token for one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    /// The image's id at Imgwire, if it is known.
    #[schema(value_type = Option<String>)]
    image: Option<ImageId>,
    /// The id of the upload token, if a token route issued one.
    #[schema(value_type = Option<String>)]
    token: Option<TokenId>,
    /// The user.
    #[schema(value_type = String)]
    subject: SubjectId,
    /// The workspace, if the route has workspaces.
    #[schema(value_type = Option<String>)]
    workspace: Option<WorkspaceId>,
    /// The path of the route, as in the config.
    route: String,
    /// The purpose that the client declared, or that of the route.
    purpose: Option<String>,
    /// The file as the client declared it.
    declared: RecordedFile,
    /// The file as Imgwire measured it.
    real: RecordedFile,
    /// `issued`: a token was issued, and its image is not known. `requested`: Imgwire was asked for the image, and it is
    /// not known whether it created it. `open`: the image exists, and its file may not have arrived. `ready`,
    /// `quarantined`, `abandoned`, `deleted`.
    state: &'static str,
    /// When the client asked for it.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// The type and the size of a file.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedFile {
    /// The MIME type.
    mime_type: Option<String>,
    /// The number of bytes.
    size: Option<u64>,
}

impl From<FileFacts> for RecordedFile {
    fn from(FileFacts { mime_type, size }: FileFacts) -> Self {
        Self { mime_type, size }
    }
}

impl From<Record> for ImageRecord {
    fn from(record: Record) -> Self {
        let origin = record.origin;
        Self {
            image: record.image,
            token: record.token,
            subject: origin.subject,
            workspace: origin.workspace,
            route: origin.route.to_string(),
            purpose: origin.purpose.map(|purpose| purpose.to_string()),
            declared: origin.declared.into(),
            real: record.real.into(),
            state: record.state.into(),
            created_at: origin.created_at,
        }
    }
}
