//! API keys: who calls, in which environment, and what a Client Key may upload.

use actix_web::http::header::{self, HeaderMap};
use uuid::Uuid;

use super::{
    errors::{ApiError, Problem},
    scenario::{ClientKey, ErrorType, Scenario},
    upload_request::UploadRequest,
};

const ENVIRONMENT_HEADER: &str = "x-environment-id";

/// The key of a request, and the environment that the request is about.
pub(super) struct Caller {
    pub(super) key: String,
    pub(super) environment: String,
    /// `None` for a Server API Key.
    pub(super) client: Option<ClientKey>,
}

impl Scenario {
    /// Accepts both kinds of key.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let bearer = headers.get(header::AUTHORIZATION);
        let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let Some(bearer) = bearer else {
            return Err(self.error(ErrorType::InvalidToken, "Missing bearer token"));
        };
        let server = self.server_keys.iter();
        let mut server = server.filter(|key| key.key == bearer && !key.revoked);
        let client = self.client_keys.iter();
        let mut client = client.filter(|key| key.key == bearer && !key.revoked);
        let (scope, client) = match (server.next(), client.next()) {
            (Some(server), _) => (server.environment.clone(), None),
            (None, Some(client)) => (Some(client.environment.clone()), Some(client.clone())),
            (None, None) => return Err(self.error(ErrorType::InvalidToken, "Invalid API key")),
        };
        Ok(Caller {
            key: bearer.to_owned(),
            environment: self.environment(scope, headers)?,
            client,
        })
    }

    pub(super) fn server_caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let caller = self.caller(headers)?;
        match caller.client {
            None => Ok(caller),
            Some(_) => Err(self.error(
                ErrorType::OperationNotAllowed,
                "A Client Key cannot perform this operation",
            )),
        }
    }

    fn environment(&self, scope: Option<String>, headers: &HeaderMap) -> Result<String, ApiError> {
        let environment = match scope {
            Some(scope) if !self.undocumented.scoped_keys_check_environment => Some(scope),
            Some(scope) => {
                let named = named_environment(headers)?;
                (named.is_none() || named.as_ref() == Some(&scope)).then_some(scope)
            }
            None => match named_environment(headers)? {
                Some(named) => self.environments.contains(&named).then_some(named),
                None => {
                    let missing = ("Field required", "missing");
                    return Err(invalid_environment(missing));
                }
            },
        };
        environment.ok_or_else(|| {
            let detail = "The key has no access to this environment";
            self.error(ErrorType::ResourceNotAuthorized, detail)
        })
    }

    /// Compares what the upload declares with the limits of the key.
    pub(super) fn check_limits(
        &self,
        key: &ClientKey,
        upload: &UploadRequest,
        pending: usize,
    ) -> Result<(), ApiError> {
        let undeclared = self.undocumented.limits_require_declaration;
        let is_too_large = key.maximum_upload_bytes.is_some_and(|maximum| {
            let declared = upload.content_length;
            declared.map_or(undeclared, |declared| declared > maximum)
        });
        let is_other_type = key.allowed_mime_types.as_ref().is_some_and(|allowed| {
            let declared = upload.mime_type.as_ref();
            declared.map_or(undeclared, |declared| !allowed.contains(declared))
        });
        let is_too_many = key
            .maximum_pending_uploads
            .is_some_and(|maximum| pending >= maximum);
        let detail = match (is_too_large, is_other_type, is_too_many) {
            (true, ..) => "The upload exceeds maximum_upload_bytes of the key",
            (_, true, _) => "The MIME type is not in allowed_mime_types of the key",
            (.., true) => "The key has maximum_pending_uploads pending uploads",
            (false, false, false) => return Ok(()),
        };
        Err(self.error(self.undocumented.limit_error, detail))
    }
}

fn named_environment(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(ENVIRONMENT_HEADER) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if Uuid::parse_str(text).is_ok() => Ok(Some(text.to_owned())),
        _ => Err(invalid_environment((
            "Input should be a valid UUID",
            "uuid_parsing",
        ))),
    }
}

fn invalid_environment((message, kind): (&'static str, &'static str)) -> ApiError {
    ApiError::invalid(&[Problem::new("header", ENVIRONMENT_HEADER, message, kind)])
}
