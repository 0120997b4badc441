//! Memberships that a database knows: one suite, with one line for each database.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    backends::{Database, Sqlite, suite},
    helpers::{Answer, Gate, TestApp, Token, env, eventually, workspace_member},
    postgres::Postgres,
};

suite! {
    [
        members_of_a_workspace_are_accepted_by_role,
        an_invalid_query_is_a_fault_and_changes_nothing,
        an_answer_is_cached_and_asked_for_once,
        a_database_that_is_down_is_a_fault_until_it_returns,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

pub(crate) const QUERY: &str = "select role from members where workspace_id = $2 and user_id = $1";

pub(crate) const MEMBERS: &str = "
    create table members (user_id text, workspace_id text, role text);
    insert into members values
        ('user_1', 'ws_1', 'owner'), ('user_1', 'ws_2', 'viewer'), ('user_1', 'ws_3', null),
        ('user_1', 'ws_4', 'viewer'), ('user_1', 'ws_4', 'editor');
";

/// A gate that asks the database at `url`.
pub(crate) fn asking(url: &str, query: &str) -> Gate {
    Gate::accepting(["app"])
        .store("app", json!({ "url": url, "timeout": "500ms" }))
        .policy("member", workspace_member().store("app").query(query))
        .chain(["signed-in", "member"])
}

pub(crate) async fn ask_for(gate: &TestApp, user: &str, workspace: &str) -> Answer {
    let request = gate.ask().bearer(&Token::of(user).sign());
    request.json(&json!({ "workspace": workspace })).await
}

pub(crate) async fn calls(gate: &TestApp, result: &str) -> f64 {
    let line = format!("imgwire_gate_policy_calls_total{{policy=\"member\",result=\"{result}\"}}");
    gate.metric(&line).await
}

async fn members_of_a_workspace_are_accepted_by_role(database: impl Database) {
    database.run_sql(MEMBERS).await;
    let url = &database.url();
    let gate = asking(url, QUERY).start().await;
    for (user, workspace, status) in [
        ("user_1", "ws_1", 200),
        ("user_1", "ws_3", 200),
        ("user_1", "ws_5", 403),
        ("user_2", "ws_1", 403),
        ("ws_1", "user_1", 403),
        ("user_1' or '1'='1", "ws_9", 403),
    ] {
        let answer = ask_for(&gate, user, workspace).await;
        assert_eq!(answer.status, status, "{user} in {workspace}: {answer:?}");
    }
    let gate = asking(url, QUERY).set("policies.member.roles", ["owner", "editor"]);
    let gate = gate.start().await;
    for (workspace, status) in [("ws_1", 200), ("ws_2", 403), ("ws_3", 403), ("ws_4", 200)] {
        let answer = ask_for(&gate, "user_1", workspace).await;
        assert_eq!(answer.status, status, "{workspace}: {answer:?}");
    }
    assert_eq!(calls(&gate, "ok").await, 4.0);
}

/// A query that is wrong or would write is a fault and changes nothing.
async fn an_invalid_query_is_a_fault_and_changes_nothing(database: impl Database) {
    database.run_sql(MEMBERS).await;
    let url = &database.url();
    for query in [
        "select role from nobody where $1 = $2",
        "select 1 from members where user_id = $1 and workspace_id = $2",
        "select count(*) from members where user_id = $1 and workspace_id = $2",
        "insert into members values ($1, $2, 'owner') returning role",
        "delete from members where user_id = $1 and workspace_id = $2 returning role",
        "select role from members where user_id = $1 and workspace_id = $2; drop table members",
    ] {
        let gate = asking(url, query).start().await;
        let answer = ask_for(&gate, "user_1", "ws_1").await;
        answer.assert_error(500, "internal");
        assert_eq!(calls(&gate, "fault").await, 1.0, "{query}");
        // The query is wrong; the database is up.
        assert_eq!(gate.manage("/readyz").await.status, 200, "{query}");
    }
    let gate = asking(url, QUERY).start().await;
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    assert_eq!(database.count("members").await, 5);
}

/// Answers are cached, negative ones for one second, and concurrent requests share one query.
async fn an_answer_is_cached_and_asked_for_once(database: impl Database) {
    database.run_sql(MEMBERS).await;
    let gate = asking(&database.url(), QUERY).set("policies.member.cache", "30s");
    let gate = gate.start().await;
    let answers = join_all((0..20).map(|_| ask_for(&gate, "user_1", "ws_1"))).await;
    answers.iter().for_each(Answer::assert_token);
    assert_eq!(calls(&gate, "ok").await, 1.0);
    gate.clock.advance(Duration::from_secs(29));
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    assert_eq!(calls(&gate, "ok").await, 1.0);
    gate.clock.advance(Duration::from_secs(2));
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    assert_eq!(calls(&gate, "ok").await, 2.0);
    for expected in [3.0, 3.0, 4.0] {
        assert_eq!(ask_for(&gate, "user_2", "ws_1").await.status, 403);
        assert_eq!(calls(&gate, "ok").await, expected);
        if expected == 3.0 {
            gate.clock.advance(Duration::from_millis(600));
        }
    }
}

/// A database that is known to be down is reported, and requests do not wait for it.
async fn is_down_without_a_wait(gate: &TestApp) {
    let began = Instant::now();
    for _ in 0..20 {
        let answer = ask_for(gate, "user_1", "ws_1").await;
        answer.assert_error(500, "internal");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let readiness = gate.manage("/readyz").await;
    assert_eq!(readiness.status, 503);
    assert_eq!(readiness.json["failing"], json!(["stores.app"]));
}

async fn a_database_that_is_down_is_a_fault_until_it_returns(mut database: impl Database) {
    database.run_sql(MEMBERS).await;
    let gate = asking(&database.url(), QUERY).start().await;
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    database.go_down();
    let answer = ask_for(&gate, "user_1", "ws_1").await;
    answer.assert_error(500, "internal");
    is_down_without_a_wait(&gate).await;
    database.come_up().await;
    eventually("its return", async || {
        ask_for(&gate, "user_1", "ws_1").await.status == 200
    })
    .await;
    assert_eq!(gate.manage("/readyz").await.status, 200);
}

pub(crate) fn sqlite(folder: &Path, sql: &str) -> String {
    let path = folder.join("app.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch(sql).unwrap();
    format!("sqlite:{}", path.display())
}

#[actix_web::test]
async fn a_sqlite_file_of_memberships_is_only_read() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path(), MEMBERS);
    let gate = asking(&url, QUERY).start().await;
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    // The gate leaves nothing in the app's file or beside it.
    let database = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
    let tables: i64 = database
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[actix_web::test]
async fn sqlite_compares_a_numeric_column_as_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let members = "
        create table members (user_id integer, workspace_id text, role text);
        insert into members values (17, 'ws_1', 'owner');
    ";
    let url = sqlite(folder.path(), members);
    let gate = asking(&url, QUERY).start().await;
    ask_for(&gate, "17", "ws_1").await.assert_token();
    assert_eq!(ask_for(&gate, "seventeen", "ws_1").await.status, 403);
}

#[actix_web::test]
async fn a_missing_sqlite_file_is_a_fault_and_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("sqlite:{}", folder.path().join("nowhere.db").display());
    let gate = asking(&nowhere, QUERY).set("policies.member.on_failure", "allow");
    ask_for(&gate.start().await, "user_1", "ws_1")
        .await
        .assert_token();
    let gate = asking(&nowhere, QUERY).start().await;
    let answer = ask_for(&gate, "user_1", "ws_1").await;
    answer.assert_error(500, "internal");
    assert!(!folder.path().join("nowhere.db").exists());
}

#[actix_web::test]
async fn an_endless_sqlite_query_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path(), MEMBERS);
    let endless = format!(
        "with recursive n(i) as (select 1 union all select i + 1 from n)
         {QUERY} and (select count(*) from n) > 0"
    );
    let mut gate = asking(&url, &endless).start().await;
    let began = Instant::now();
    let answer = ask_for(&gate, "user_1", "ws_1").await;
    answer.assert_error(500, "internal");
    assert!(began.elapsed() < Duration::from_secs(10));
    // A worker ends when none of its queries runs any more.
    gate.begin_stop();
    let stopped = tokio::time::timeout(Duration::from_secs(20), gate.stopped());
    stopped.await.expect("the gate ends");
}

#[actix_web::test]
async fn postgresql_compares_ids_of_any_type_and_cancels_slow_queries() {
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    let url = postgres.url();
    postgres.run(MEMBERS).await;

    // Identifiers and roles of the types that apps have.
    postgres
        .run(
            "create type role as enum ('owner', 'viewer');
             create table typed (user_id uuid, workspace_id bigint, role role, since varchar(10));
             insert into typed values ('6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab', 7, 'owner', 'today');",
        )
        .await;
    let user = "6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab";
    for column in ["role", "since"] {
        let query = format!("select {column} from typed where user_id = $1 and workspace_id = $2");
        let gate = asking(&url, &query).start().await;
        for (user, workspace, status) in [
            (user, "7", 200),
            (user, "8", 403),
            // An id that the column cannot hold matches no row.
            ("user_1", "7", 403),
            (user, "ws_7", 403),
            (user, "99999999999999999999", 403),
        ] {
            let answer = ask_for(&gate, user, workspace).await;
            assert_eq!(answer.status, status, "{user} in {workspace}: {answer:?}");
        }
    }

    // A query that takes too long is a fault after the timeout, and is cancelled.
    let slow = format!("{QUERY} and pg_sleep(30) is not null");
    let gate = asking(&url, &slow).start().await;
    let began = Instant::now();
    ask_for(&gate, "user_1", "ws_1")
        .await
        .assert_error(500, "internal");
    assert!(began.elapsed() < Duration::from_secs(10));
    eventually("the query's end", async || {
        let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(30)%' and state = 'active' and pid <> pg_backend_pid()";
        postgres.number(running).await == 0
    })
    .await;
}

#[actix_web::test]
async fn postgresql_is_reached_by_tls_and_with_a_password() {
    const PASSWORD: &str = "the password of the gate at the database";
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    postgres.run(MEMBERS).await;
    let certificate = postgres.secure(PASSWORD).await;
    postgres.run("grant select on members to gate").await;
    let builder = |password: &str| {
        asking(&postgres.url_of("gate"), QUERY)
            .set("stores.app.timeout", "10s")
            .set("stores.app.password", env("TEST_PASSWORD"))
            .secret("TEST_PASSWORD", password)
    };
    let trusting = |password: &str| builder(password).set("outbound.ca", &certificate);
    let gate = trusting(PASSWORD).start().await;
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    // A wrong password, and a certificate that the gate does not trust.
    for gate in [trusting("another password"), builder(PASSWORD)] {
        let gate = gate.start().await;
        let answer = ask_for(&gate, "user_1", "ws_1").await;
        answer.assert_error(500, "internal");
    }
}

#[actix_web::test]
async fn a_sqlite_query_can_neither_attach_nor_write_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path(), MEMBERS);
    let other = tempfile::tempdir().unwrap();
    let copy = other.path().join("copy.db");
    for query in [
        format!("attach database '{}' as other -- $1 $2", copy.display()),
        format!("vacuum into '{}' -- $1 $2", copy.display()),
    ] {
        let gate = asking(&url, &query).start().await;
        let answer = ask_for(&gate, "user_1", "ws_1").await;
        answer.assert_error(500, "internal");
        assert!(!copy.exists(), "{query}");
    }
}
