//! JSON Web Tokens of the tests' app.

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use super::SECRET;

/// A token of the app, under construction.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) header: Header,
    pub(crate) claims: Map<String, Value>,
}

impl Token {
    /// A token of `user`, a member of the workspace `ws_1` only.
    pub(crate) fn of(user: &str) -> Self {
        let claims = json!({
            "sub": user,
            "aud": "imgwire-gate",
            "exp": Timestamp::now().as_second() + 3600,
            "workspaces": ["ws_1"],
        });
        let Value::Object(claims) = claims else {
            unreachable!()
        };
        Self {
            header: Header::new(Algorithm::HS256),
            claims,
        }
    }

    pub(crate) fn with(mut self, claim: &str, value: Value) -> Self {
        self.claims.insert(claim.to_owned(), value);
        self
    }

    pub(crate) fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }

    pub(crate) fn sign(&self) -> String {
        self.sign_with(&EncodingKey::from_secret(SECRET.as_bytes()))
    }

    pub(crate) fn sign_with(&self, key: &EncodingKey) -> String {
        jsonwebtoken::encode(&self.header, &self.claims, key).unwrap()
    }
}
