//! Requests to a gate, and the answers to them.

use actix_web::http::{
    StatusCode,
    header::{HeaderMap, HeaderValue},
};
use serde_json::Value;

/// A request under construction.
pub(crate) struct Request(pub(crate) awc::ClientRequest);

impl Request {
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.append_header((name, value)))
    }

    /// A header that replaces the one that the client sends by itself.
    pub(crate) fn instead(self, name: &str, value: &str) -> Self {
        Self(self.0.insert_header((name, value)))
    }

    /// A header of bytes that need not be text.
    pub(crate) fn bytes(self, name: &str, value: &[u8]) -> Self {
        self.header_value(name, HeaderValue::from_bytes(value).unwrap())
    }

    /// The same with a value that may be any bytes.
    pub(crate) fn header_value(self, name: &str, value: HeaderValue) -> Self {
        Self(self.0.append_header((name, value)))
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) async fn send(self) -> Answer {
        self.send_body("").await
    }

    pub(crate) async fn json(self, body: &Value) -> Answer {
        self.header("content-type", "application/json")
            .send_body(body.to_string())
            .await
    }

    pub(crate) async fn send_body(self, body: impl Into<bytes::Bytes>) -> Answer {
        let body = body.into();
        let sent = if body.is_empty() {
            self.0.send().await
        } else {
            self.0.send_body(body).await
        };
        let mut response = sent.expect("the gate answers");
        let body = response.body().await.expect("the answer is whole");
        let text = String::from_utf8(body.to_vec()).unwrap();
        Answer {
            status: response.status(),
            headers: response.headers().clone(),
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// `name=value` of the cookie that the answer sets.
    pub(crate) fn cookie(&self) -> &str {
        self.header("set-cookie").split(';').next().unwrap()
    }

    /// Checks status and code of an error, and what every error has.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, code),
            "{self:?}"
        );
        assert_eq!(self.json["error"], self.status.canonical_reason().unwrap());
        assert_eq!(self.json["requestId"], self.header("x-request-id"));
        // A malformed request is told what is wrong with it.
        let is_malformed = [400, 404, 405, 413, 415].contains(&status);
        let message = self.json["message"].as_str();
        assert_eq!(message.is_some(), is_malformed, "{self:?}");
        let members = 3 + usize::from(is_malformed);
        assert_eq!(self.json.as_object().unwrap().len(), members, "{self:?}");
        self.assert_envelope();
    }

    /// Checks that the answer holds a token, and what every answer has.
    #[track_caller]
    pub(crate) fn assert_token(&self) {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(
            self.json["uploadToken"]
                .as_str()
                .unwrap()
                .starts_with("ut_"),
            "{self:?}"
        );
        self.assert_envelope();
    }

    #[track_caller]
    pub(crate) fn assert_envelope(&self) {
        assert_eq!(self.header("cache-control"), "no-store");
        assert!(!self.header("x-request-id").is_empty());
        assert_eq!(self.header("content-type"), "application/json");
    }
}

/// The keys of an object in JSON, in their order.
pub(crate) fn keys(value: &Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}
