//! Upload tokens: each can be used once, until it expires.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::ids::id;

/// The oldest tokens beyond it are forgotten.
const MAX_TOKENS: usize = 10_000;

#[derive(Default)]
pub(super) struct Tokens {
    /// In the order of their creation.
    tokens: VecDeque<Token>,
    pub(super) created: usize,
}

struct Token {
    id: String,
    text: String,
    environment: String,
    expires_at: Timestamp,
    used: bool,
}

impl Tokens {
    pub(super) fn create(
        &mut self,
        environment: &str,
        now: Timestamp,
        lifetime_seconds: u32,
    ) -> Value {
        let lifetime = SignedDuration::from_secs(lifetime_seconds.into());
        self.created += 1;
        let token = Token {
            id: id(1, self.created),
            text: format!("ut_{}_{:08x}", self.created, fastrand::u32(..)),
            environment: environment.to_owned(),
            expires_at: now.saturating_add(lifetime).unwrap_or(Timestamp::MAX),
            used: false,
        };
        let response = json!({
            "id": token.id,
            "environment_id": token.environment,
            "used_at": null,
            "expires_at": token.expires_at,
            "created_at": now,
            "updated_at": now,
            "token": token.text,
        });
        if self.tokens.len() == MAX_TOKENS {
            self.tokens.pop_front();
        }
        self.tokens.push_back(token);
        response
    }

    /// Consumes a token, and returns its id. The error says why the token is rejected.
    pub(super) fn consume(
        &mut self,
        environment: &str,
        text: &str,
        now: Timestamp,
    ) -> Result<String, &'static str> {
        let mut tokens = self.tokens.iter_mut();
        let token = tokens
            .find(|token| token.text == text && token.environment == environment)
            .ok_or("Unknown upload token")?;
        if token.used {
            return Err("Upload token was already used");
        }
        if token.expires_at <= now {
            return Err("Upload token has expired");
        }
        token.used = true;
        Ok(token.id.clone())
    }

    pub(super) fn expire_all(&mut self) {
        for token in &mut self.tokens {
            token.expires_at = Timestamp::UNIX_EPOCH;
        }
    }
}
