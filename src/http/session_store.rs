//! The session storage of actix-session: an enum, because the trait is not dyn-compatible.

use std::{collections::HashMap, sync::Arc};

use actix_session::storage::{
    LoadError, SaveError, SessionKey, SessionStore, UpdateError, generate_session_key,
};
use actix_web::cookie::time::Duration;
use arc_swap::ArcSwap;

use policies::{Fault, StoreName};

use crate::{
    identities::{SIGNED_IN, UNAVAILABLE},
    stores::{SessionAction, SessionBackend, StoreFault, Stores},
};

type State = HashMap<String, String>;

#[derive(Clone)]
pub enum Sessions {
    /// The cookie itself, which holds the signed-in user.
    Cookie,
    /// A store. The cookie holds the session's key.
    Store(Arc<SessionStoreHandle>),
}

/// The open store of the sessions. A reload may open it again, for example with another password.
pub struct SessionStoreHandle {
    name: StoreName,
    backend: ArcSwap<Arc<dyn SessionBackend>>,
}

impl Sessions {
    /// Sessions in `store`, or in the cookie if there is none.
    pub fn new(store: Option<&StoreName>, stores: &Stores) -> Result<Self, Fault> {
        match store {
            Some(name) => Ok(Self::Store(Arc::new(SessionStoreHandle {
                name: name.clone(),
                backend: ArcSwap::from_pointee(stores.sessions(name)?),
            }))),
            None => Ok(Self::Cookie),
        }
    }

    /// Uses the store as it is open now. If it is not, sessions keep the one that they have until a restart.
    pub fn reopen(&self, stores: &Stores) {
        if let Self::Store(handle) = self
            && let Ok(backend) = stores.sessions(&handle.name)
        {
            handle.backend.store(Arc::new(backend));
        }
    }
}

impl SessionStore for Sessions {
    /// Returns a failure as the state of the session, so that only requests that need the session fail. Others may have
    /// another credential.
    async fn load(&self, session: &SessionKey) -> Result<Option<State>, LoadError> {
        let store = match self {
            Self::Cookie => {
                let signed_in = session.as_ref().to_owned();
                return Ok(Some(State::from([(SIGNED_IN.to_owned(), signed_in)])));
            }
            Self::Store(handle) => handle.backend.load_full(),
        };
        match store.act(session.as_ref(), SessionAction::Load).await {
            Ok(state) => state
                .map(|state| serde_json::from_str(&state))
                .transpose()
                .map_err(|error| LoadError::Deserialization(error.into())),
            Err(fault) => {
                let reason = serde_json::Value::from(fault.to_string()).to_string();
                Ok(Some(State::from([(UNAVAILABLE.to_owned(), reason)])))
            }
        }
    }

    async fn save(&self, state: State, ttl: &Duration) -> Result<SessionKey, SaveError> {
        let saved = self.write(None, state, ttl).await;
        saved.map_err(SaveError::Other)
    }

    async fn update(
        &self,
        session: SessionKey,
        state: State,
        ttl: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        let updated = self.write(Some(session), state, ttl).await;
        updated.map_err(UpdateError::Other)
    }

    async fn update_ttl(&self, session: &SessionKey, ttl: &Duration) -> Result<(), anyhow::Error> {
        Ok(self
            .act(session, SessionAction::Extend(std_duration(ttl)))
            .await?)
    }

    async fn delete(&self, session: &SessionKey) -> Result<(), anyhow::Error> {
        Ok(self.act(session, SessionAction::Delete).await?)
    }
}

impl Sessions {
    async fn write(
        &self,
        existing: Option<SessionKey>,
        mut state: State,
        ttl: &Duration,
    ) -> Result<SessionKey, anyhow::Error> {
        if let Self::Cookie = self {
            // The key that actix-session puts into the cookie is the session itself.
            return Ok(state.remove(SIGNED_IN).unwrap_or_default().try_into()?);
        }
        let save = SessionAction::Save {
            is_new: existing.is_none(),
            state: serde_json::to_string(&state)?,
            ttl: std_duration(ttl),
        };
        let session = existing.unwrap_or_else(generate_session_key);
        self.act(&session, save).await?;
        Ok(session)
    }

    async fn act(&self, session: &SessionKey, action: SessionAction) -> Result<(), StoreFault> {
        match self {
            Self::Cookie => Ok(()),
            Self::Store(handle) => {
                let store = handle.backend.load_full();
                store.act(session.as_ref(), action).await.map(drop)
            }
        }
    }
}

/// Zero for an expired session.
fn std_duration(ttl: &Duration) -> std::time::Duration {
    (*ttl).try_into().unwrap_or_default()
}
