//! Sessions of actix-session: what they hold is here, and the cookie has only their key.

use std::{collections::HashMap, future::Future};

use actix_session::storage::{
    LoadError, SaveError, SessionKey, SessionStore, UpdateError, generate_session_key,
};
use actix_web::cookie::time::Duration;

use super::{Asked, PREFIX, RedisStore, hashed};
use crate::telemetry::Operation;

type State = HashMap<String, String>;

impl RedisStore {
    /// Writes a session; only one that is there already, if `anew` is not said.
    async fn write(
        &self,
        session: &SessionKey,
        state: &State,
        ttl: &Duration,
        anew: bool,
    ) -> Result<(), anyhow::Error> {
        let state = serde_json::to_string(state)?;
        let key = name(session);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(state).arg("PX").arg(millis(ttl));
        if !anew {
            set.arg("XX");
        }
        let write = async |lane: &mut _| set.exec_async(lane).await;
        let asked = Asked::changes(Operation::Session, &key);
        Ok(self.ask(asked, write).await?)
    }
}

impl SessionStore for RedisStore {
    async fn load(&self, session: &SessionKey) -> Result<Option<State>, LoadError> {
        let key = name(session);
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let load = async |lane: &mut _| get.query_async::<Option<String>>(lane).await;
        let asked = Asked::reads(Operation::Session, &key);
        let state = self.ask(asked, load).await;
        let state = state.map_err(|fault| LoadError::Other(fault.into()))?;
        state
            .map(|state| serde_json::from_str(&state))
            .transpose()
            .map_err(|error| LoadError::Deserialization(error.into()))
    }

    async fn save(&self, state: State, ttl: &Duration) -> Result<SessionKey, SaveError> {
        let session = generate_session_key();
        let saved = self.write(&session, &state, ttl, true).await;
        saved.map_err(SaveError::Other)?;
        Ok(session)
    }

    /// A session that was ended meanwhile stays ended.
    async fn update(
        &self,
        session: SessionKey,
        state: State,
        ttl: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        let updated = self.write(&session, &state, ttl, false).await;
        updated.map_err(UpdateError::Other)?;
        Ok(session)
    }

    async fn update_ttl(&self, session: &SessionKey, ttl: &Duration) -> Result<(), anyhow::Error> {
        let key = name(session);
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(&key).arg(millis(ttl));
        let update = async |lane: &mut _| expire.exec_async(lane).await;
        let asked = Asked::changes(Operation::Session, &key);
        Ok(self.ask(asked, update).await?)
    }

    fn delete(&self, session: &SessionKey) -> impl Future<Output = Result<(), anyhow::Error>> {
        let key = name(session);
        async move {
            let mut del = redis::cmd("DEL");
            del.arg(&key);
            let delete = async |lane: &mut _| del.exec_async(lane).await;
            let asked = Asked::changes(Operation::Session, &key);
            Ok(self.ask(asked, delete).await?)
        }
    }
}

/// The name of a session: whoever reads the names cannot come in with them.
fn name(session: &SessionKey) -> String {
    format!("{PREFIX}:session:{}", hashed(session.as_ref().as_bytes()))
}

fn millis(ttl: &Duration) -> u64 {
    u64::try_from(ttl.whole_milliseconds()).unwrap_or(1).max(1)
}
