//! A SQLite file of memberships that is replaced, deleted or overwritten while a gate has it open.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::{
    helpers::eventually,
    members::{MEMBERS, QUERY, ask_for, asking, calls, sqlite},
    watched::Watched,
};

/// A gate that asks a database of the app, with answers cached for `cache`.
async fn members(cache: Option<&str>) -> (Watched, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path(), MEMBERS);
    let mut builder = asking(&url, QUERY);
    if let Some(cache) = cache {
        builder = builder.set("policies.member.cache", cache);
    }
    let gate = Watched::start(&builder).await;
    assert_eq!(gate.ask().await, 200);
    (gate, folder)
}

/// A database of the same size and age in which nobody is a member.
fn without_members(folder: &Path) -> PathBuf {
    let folder = folder.join("other");
    fs::create_dir(&folder).unwrap();
    sqlite(&folder, &MEMBERS.replace("'user_1'", "'user_9'"));
    folder.join("app.db")
}

/// Waits until the gate answers with `status`, for little more than a second.
async fn soon_answers(gate: &Watched, status: u16) {
    let began = Instant::now();
    eventually("the new contents", async || gate.ask().await == status).await;
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[actix_web::test]
async fn a_removed_member_gets_no_token_after_the_database_was_replaced() {
    for cache in [None, Some("1h")] {
        let (gate, folder) = members(cache).await;
        let other = without_members(folder.path());
        fs::rename(&other, folder.path().join("app.db")).unwrap();
        soon_answers(&gate, 403).await;
        assert!(gate.is_ready().await);
        gate.was_never_down();
        // Another thread writes the log.
        eventually("the line", async || {
            gate.lines("the database is another file now, and is opened again")
                .len()
                == 1
        })
        .await;
    }
}

#[actix_web::test]
async fn a_compacted_copy_of_the_database_is_used() {
    let (gate, folder) = members(Some("1h")).await;
    let path = folder.path().join("app.db");
    let (copy, database) = (
        folder.path().join("copy.db"),
        Connection::open(&path).unwrap(),
    );
    database
        .execute_batch(&format!("VACUUM INTO '{}'", copy.display()))
        .unwrap();
    let removed = Connection::open(&copy).unwrap();
    removed.execute_batch("DELETE FROM members").unwrap();
    drop(removed);
    fs::rename(&copy, &path).unwrap();
    soon_answers(&gate, 403).await;
}

#[actix_web::test]
async fn a_database_that_is_overwritten_in_place_is_read_again() {
    let (gate, folder) = members(None).await;
    let other = without_members(folder.path());
    let path = folder.path().join("app.db");
    // Both have as many transactions, so SQLite itself sees no difference.
    let status = std::process::Command::new("cp")
        .arg(&other)
        .arg(&path)
        .status();
    assert!(status.unwrap().success());
    soon_answers(&gate, 403).await;
}

#[actix_web::test]
async fn a_deleted_database_of_memberships_is_a_fault_until_it_is_back() {
    let (gate, folder) = members(Some("1h")).await;
    let (path, moved) = (folder.path().join("app.db"), folder.path().join("moved.db"));
    fs::rename(&path, &moved).unwrap();
    eventually("the fault", async || gate.ask().await == 500).await;
    gate.stays_down("app.db does not exist").await;
    fs::rename(&moved, &path).unwrap();
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_write_of_the_app_leaves_cached_answers() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path(), MEMBERS);
    let gate = asking(&url, QUERY).set("policies.member.cache", "1h");
    let gate = gate.start().await;
    let ask = async |user| ask_for(&gate, user, "ws_1").await.status.as_u16();
    assert_eq!(ask("user_1").await, 200);
    let app = Connection::open(folder.path().join("app.db")).unwrap();
    app.execute_batch(
        "DELETE FROM members; INSERT INTO members VALUES ('user_2', 'ws_1', 'owner')",
    )
    .unwrap();
    assert_eq!(ask("user_2").await, 200);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ask("user_1").await, 200);
    assert_eq!(calls(&gate, "ok").await, 2.0);
}
