//! Where sessions are kept: a backend of actix-session, whose trait is not dyn-compatible.

use std::{collections::HashMap, sync::Arc};

use actix_session::storage::{LoadError, SaveError, SessionKey, SessionStore, UpdateError};
use actix_web::cookie::time::Duration;

use crate::{
    identities::{SIGNED_IN, UNAVAILABLE},
    stores::RedisStore,
};

type State = HashMap<String, String>;

/// The backend of sessions.
#[derive(Clone, Default)]
pub enum Sessions {
    /// The cookie itself, which has nothing but who is signed in.
    #[default]
    Cookie,
    /// A Redis; the cookie has the session's key.
    Redis(Arc<RedisStore>),
}

impl SessionStore for Sessions {
    /// A failure becomes the session's state, so that only requests that are judged by the session fail: the others may
    /// bring another credential.
    async fn load(&self, session: &SessionKey) -> Result<Option<State>, LoadError> {
        let state = match self {
            Self::Cookie => {
                let signed_in = session.as_ref().to_owned();
                return Ok(Some(State::from([(SIGNED_IN.to_owned(), signed_in)])));
            }
            Self::Redis(redis) => redis.load(session).await,
        };
        match state {
            Err(LoadError::Other(error)) => {
                let reason = serde_json::Value::from(error.to_string()).to_string();
                Ok(Some(State::from([(UNAVAILABLE.to_owned(), reason)])))
            }
            state => state,
        }
    }

    async fn save(&self, state: State, ttl: &Duration) -> Result<SessionKey, SaveError> {
        match self {
            Self::Cookie => in_cookie(state).map_err(SaveError::Other),
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
            Self::Cookie => in_cookie(state).map_err(UpdateError::Other),
            Self::Redis(redis) => redis.update(session, state, ttl).await,
        }
    }

    async fn update_ttl(&self, session: &SessionKey, ttl: &Duration) -> Result<(), anyhow::Error> {
        match self {
            Self::Cookie => Ok(()),
            Self::Redis(redis) => redis.update_ttl(session, ttl).await,
        }
    }

    async fn delete(&self, session: &SessionKey) -> Result<(), anyhow::Error> {
        match self {
            Self::Cookie => Ok(()),
            Self::Redis(redis) => redis.delete(session).await,
        }
    }
}

/// What the cookie holds, as it is.
fn in_cookie(mut state: State) -> Result<SessionKey, anyhow::Error> {
    let signed_in = state.remove(SIGNED_IN).unwrap_or_default();
    Ok(signed_in.try_into()?)
}
