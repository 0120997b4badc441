//! Where sessions are kept: one of the backends of actix-session, whose trait is not dyn-compatible.

use std::{collections::HashMap, sync::Arc};

use actix_session::storage::{
    CookieSessionStore, LoadError, SaveError, SessionKey, SessionStore, UpdateError,
};
use actix_web::cookie::time::Duration;

use crate::stores::RedisStore;

type State = HashMap<String, String>;

/// The backend of sessions.
#[derive(Clone)]
pub enum Sessions {
    /// The cookie itself.
    Cookie(Arc<CookieSessionStore>),
    /// A Redis; the cookie has the session's key.
    Redis(RedisStore),
}

impl Default for Sessions {
    fn default() -> Self {
        Self::Cookie(Arc::default())
    }
}

impl SessionStore for Sessions {
    async fn load(&self, session: &SessionKey) -> Result<Option<State>, LoadError> {
        match self {
            Self::Cookie(cookie) => cookie.load(session).await,
            Self::Redis(redis) => redis.load(session).await,
        }
    }

    async fn save(&self, state: State, ttl: &Duration) -> Result<SessionKey, SaveError> {
        match self {
            Self::Cookie(cookie) => cookie.save(state, ttl).await,
            Self::Redis(redis) => redis.save(state, ttl).await,
        }
    }

    async fn update(
        &self,
        session: SessionKey,
        state: State,
        ttl: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        match self {
            Self::Cookie(cookie) => cookie.update(session, state, ttl).await,
            Self::Redis(redis) => redis.update(session, state, ttl).await,
        }
    }

    async fn update_ttl(&self, session: &SessionKey, ttl: &Duration) -> Result<(), anyhow::Error> {
        match self {
            Self::Cookie(cookie) => cookie.update_ttl(session, ttl).await,
            Self::Redis(redis) => redis.update_ttl(session, ttl).await,
        }
    }

    async fn delete(&self, session: &SessionKey) -> Result<(), anyhow::Error> {
        match self {
            Self::Cookie(cookie) => cookie.delete(session).await,
            Self::Redis(redis) => redis.delete(session).await,
        }
    }
}
