//! Sessions on a server: one suite, with one line for each store.

use std::{sync::Arc, time::Duration};

use policies::StoreUse;

use crate::{
    backends::{Backend, main_store, open, suite, system_clock},
    helpers::{SessionAction, SessionBackend, eventually},
    redis_server::Redis,
};

suite! {
    [
        every_gate_reads_the_state_that_another_gate_saved,
        an_ended_session_stays_ended_and_no_other_session_ends,
        a_session_ends_after_its_time_unless_it_is_extended,
    ]:
    in_redis: Redis,
}

const HOUR: Duration = Duration::from_secs(60 * 60);

fn open_sessions(backend: &impl Backend) -> Arc<dyn SessionBackend> {
    let stores = open(&backend.url(), &[StoreUse::Sessions], system_clock());
    stores.sessions(&main_store()).unwrap()
}

async fn load(store: &dyn SessionBackend, key: &str) -> Option<String> {
    store.act(key, SessionAction::Load).await.unwrap()
}

/// Changes a session.
async fn act(store: &dyn SessionBackend, key: &str, action: SessionAction) {
    assert_eq!(store.act(key, action).await, Ok(None));
}

fn save(is_new: bool, state: &str, ttl: Duration) -> SessionAction {
    SessionAction::Save {
        is_new,
        state: state.to_owned(),
        ttl,
    }
}

async fn every_gate_reads_the_state_that_another_gate_saved(backend: impl Backend) {
    let (one, other) = (open_sessions(&backend), open_sessions(&backend));
    assert_eq!(load(&*other, "a").await, None);
    act(&*one, "a", save(true, "first", HOUR)).await;
    act(&*one, "b", save(true, "another", HOUR)).await;
    assert_eq!(load(&*other, "a").await.as_deref(), Some("first"));
    act(&*one, "a", save(false, "second", HOUR)).await;
    assert_eq!(load(&*other, "a").await.as_deref(), Some("second"));
}

async fn an_ended_session_stays_ended_and_no_other_session_ends(backend: impl Backend) {
    let (one, other) = (open_sessions(&backend), open_sessions(&backend));
    act(&*one, "a", save(true, "first", HOUR)).await;
    act(&*one, "b", save(true, "another", HOUR)).await;
    act(&*one, "a", SessionAction::Delete).await;
    act(&*one, "a", save(false, "third", HOUR)).await;
    act(&*one, "a", SessionAction::Extend(HOUR)).await;
    assert_eq!(load(&*other, "a").await, None);
    assert_eq!(load(&*other, "b").await.as_deref(), Some("another"));
}

async fn a_session_ends_after_its_time_unless_it_is_extended(backend: impl Backend) {
    let (one, other) = (open_sessions(&backend), open_sessions(&backend));
    for key in ["c", "d"] {
        act(&*one, key, save(true, "short", Duration::from_millis(300))).await;
    }
    act(&*one, "d", SessionAction::Extend(HOUR)).await;
    eventually("its end", async || load(&*other, "c").await.is_none()).await;
    assert_eq!(load(&*other, "d").await.as_deref(), Some("short"));
}
