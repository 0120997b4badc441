//! PostgreSQL behind a pooler that shares server connections between the gate and the app.

use futures_util::future::join;
use tokio_postgres::Client;

use crate::{
    doctor_setup::{Report, Setup},
    helpers::{Gate, eventually},
    members::{MEMBERS, QUERY, ask_for, asking},
    pgbouncer::PgBouncer,
    postgres::Postgres,
    scaling::{patient, quota, ready},
};

/// A server with the app's table, and a pooler in transaction mode.
pub(crate) async fn pooled(size: usize) -> Option<(Postgres, PgBouncer)> {
    let server = Postgres::here()?.await;
    server.run(MEMBERS).await;
    server.run("create table notes (text text)").await;
    let pooler = PgBouncer::before(&server, "transaction", size)?;
    Some((server, pooler))
}

/// Counts and looks up members in one database.
pub(crate) fn both(url: &str, limit: usize) -> Gate {
    let counting = patient(quota(url, limit, "month"));
    let member = crate::helpers::workspace_member()
        .store("shared")
        .query(QUERY);
    counting
        .policy("member", member)
        .chain(["signed-in", "member", "shared-quota"])
}

async fn examine(gate: &Gate) -> Report {
    let setup = Setup::new();
    setup.run(gate, setup.imgwire.url(), &["--json"], &[]).await
}

async fn setting(app: &Client, name: &str) -> String {
    let row = app.simple_query(&format!("show {name}")).await.unwrap();
    row.iter()
        .find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .unwrap()
}

/// With one server connection for all, whatever the gate left would be in the app's way.
#[actix_web::test]
async fn the_app_on_the_same_server_connection_notices_nothing_of_the_gate() {
    const SETTINGS: [&str; 8] = [
        "default_transaction_read_only",
        "transaction_read_only",
        "statement_timeout",
        "lock_timeout",
        "search_path",
        "synchronous_commit",
        "role",
        "idle_in_transaction_session_timeout",
    ];
    let Some((server, pooler)) = pooled(1).await else {
        return;
    };
    let app = pooler.connect().await;
    let mut before = Vec::new();
    for name in SETTINGS {
        before.push(setting(&app, name).await);
    }
    let gate = both(&pooler.url(), 100).start().await;
    ready(&gate).await;
    for turn in 0..20 {
        let asked = ask_for(&gate, "user_1", "ws_1");
        let wrote = app.batch_execute("insert into notes values ('of the app')");
        let (asked, wrote) = join(asked, wrote).await;
        asked.assert_token();
        wrote.unwrap_or_else(|error| panic!("{turn}: {error:?}"));
        assert_eq!(ask_for(&gate, "user_2", "ws_1").await.status, 403);
        for (name, before) in SETTINGS.iter().zip(&before) {
            assert_eq!(setting(&app, name).await, *before, "{name}");
        }
    }
    assert_eq!(server.number("select count(*) from notes").await, 20);
    // Neither a statement nor a lock nor a table stays.
    for left in [
        "select count(*) from pg_prepared_statements",
        "select count(*) from pg_locks where locktype = 'advisory'",
        "select count(*) from pg_class where relpersistence = 't'",
        "select count(*) from pg_listening_channels()",
    ] {
        let row = app.query_typed_one(left, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{left}");
    }
    let used = gate.manage("/quota/shared-quota?key=").await;
    assert_eq!(used.json["used"], 20);
}

/// A statement that the app has prepared for its session has the name that the gate's driver would use, too.
#[actix_web::test]
async fn a_prepared_statement_of_the_app_survives() {
    let Some((_server, pooler)) = pooled(1).await else {
        return;
    };
    let app = pooler.connect().await;
    for name in ["s0", "s1", "s2", "s3"] {
        let prepare = format!("prepare {name} as select 'of the app'::text");
        app.batch_execute(&prepare).await.unwrap();
    }
    let gate = both(&pooler.url(), 3).start().await;
    ready(&gate).await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(ask_for(&gate, "user_1", "ws_1").await.status, expected);
        app.batch_execute("execute s0; execute s3").await.unwrap();
    }
}

/// The app leaves settings in the shared session that would break the gate, which depends on none of them.
#[actix_web::test]
async fn the_gate_does_not_depend_on_what_the_app_left_in_the_session() {
    let Some((server, pooler)) = pooled(1).await else {
        return;
    };
    server
        .run(
            "create role weak; create schema trap; create table trap.members (user_id text, workspace_id text, role text); \
             create schema imgwire_trap; \
             create function trap.clock_timestamp() returns timestamptz language sql as 'select now() - interval ''1 year'''",
        )
        .await;
    let gate = both(&pooler.url(), 1000).start().await;
    ready(&gate).await;
    let app = pooler.connect().await;
    let mut issued = 0;
    for left in [
        "set default_transaction_read_only to on",
        "set default_transaction_isolation to serializable",
        "set search_path to trap, pg_catalog",
        "set search_path to ''",
        "set synchronous_commit to off",
        "set role to weak",
        "set session authorization weak",
        "set statement_timeout to 1",
        "set lock_timeout to 1",
        "set idle_in_transaction_session_timeout to 1",
        "set timezone to 'Pacific/Kiritimati'",
        "set datestyle to 'German'",
        "set intervalstyle to 'sql_standard'",
        "set bytea_output to 'escape'",
        "set standard_conforming_strings to off",
        "set client_encoding to 'LATIN1'",
        "set row_security to off",
        "set extra_float_digits to 0",
        "set array_nulls to off",
        "set default_transaction_deferrable to on",
        "set plan_cache_mode to force_generic_plan",
        "set session_replication_role to replica",
        "set transaction_isolation to 'read committed'",
    ] {
        // It also holds for a gate that connects now.
        let new = both(&pooler.url(), 1000).start().await;
        app.batch_execute(left).await.unwrap();
        ready(&new).await;
        for gate in [&gate, &new] {
            ask_for(gate, "user_1", "ws_1").await.assert_token();
            assert_eq!(ask_for(gate, "user_2", "ws_1").await.status, 403, "{left}");
            issued += 1;
        }
        app.batch_execute("reset session authorization; reset all")
            .await
            .unwrap();
    }
    let used = gate.manage("/quota/shared-quota?key=").await;
    assert_eq!(used.json["used"], issued);
}

#[actix_web::test]
async fn membership_queries_of_all_types_work_through_a_pooler() {
    let Some((server, pooler)) = pooled(1).await else {
        return;
    };
    server
        .run(
            "create type role as enum ('owner', 'viewer');
             create domain workspace as bigint check (value > 0);
             create table typed (user_id uuid, workspace_id workspace, role role, since varchar(10), flag boolean);
             insert into typed values ('6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab', 7, 'owner', 'today', true);",
        )
        .await;
    let user = "6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab";
    let filter = "from typed where user_id = $1 and workspace_id = $2";
    for (query, expected) in [
        (format!("select role {filter}"), 200),
        (format!("select role, workspace_id {filter}"), 200),
        (format!("select since, workspace_id, flag {filter};"), 200),
        (
            format!("select role, workspace_id, role {filter} -- a comment"),
            200,
        ),
        (
            format!("with found as (select * {filter}) select role, user_id from found"),
            200,
        ),
        (
            format!("select null::role {filter} order by since limit 1"),
            200,
        ),
        (format!("select flag {filter}"), 500),
        (format!("select role, flag {filter}"), 500),
        (format!("select role, null::bigint {filter}"), 500),
        ("select role from nobody where $1 = $2".to_owned(), 500),
        (format!("select {filter}"), 500),
        (
            "insert into typed (user_id, workspace_id) values ($1, $2) returning role".to_owned(),
            500,
        ),
        (format!("select role {filter}; drop table typed"), 500),
        (
            "select setting from pg_settings where name = 'transaction_read_only' and $1 <> $2"
                .to_owned(),
            200,
        ),
    ] {
        let gate = asking(&pooler.url(), &query)
            .set("stores.app.timeout", "10s")
            .start()
            .await;
        let answer = ask_for(&gate, user, "7").await;
        assert_eq!(answer.status, expected, "{query}: {answer:?}");
        if expected == 200 && query.contains("typed") {
            // An id that the column cannot hold matches no row.
            for (user, workspace) in [(user, "8"), ("user_1", "7"), (user, "ws_7")] {
                let answer = ask_for(&gate, user, workspace).await;
                assert_eq!(answer.status, 403, "{query}: {answer:?}");
            }
        }
        assert_eq!(gate.manage("/readyz").await.status, 200, "{query}");
    }
    assert_eq!(server.number("select count(*) from typed").await, 1);
    let app = pooler.connect().await;
    let left = "select count(*) from pg_prepared_statements";
    let left: i64 = app.query_typed_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
}

/// A slow lookup ends at the server, and the app's query on the same connection is not cancelled.
#[actix_web::test]
async fn a_slow_lookup_ends_at_the_server_and_cancels_nothing_of_the_app() {
    let Some((server, pooler)) = pooled(2).await else {
        return;
    };
    let slow = format!("{QUERY} and ($1 <> 'slow' or pg_sleep(30) is not null)");
    server
        .run("insert into members values ('slow', 'ws_1', 'owner')")
        .await;
    let gate = asking(&pooler.url(), &slow)
        .set("stores.app.timeout", "10s")
        .set("policies.member.timeout", "1s")
        .start()
        .await;
    ready(&gate).await;
    let app = pooler.connect().await;
    let asked = async {
        for _ in 0..3 {
            assert_eq!(ask_for(&gate, "slow", "ws_1").await.status, 500);
            ask_for(&gate, "user_1", "ws_1").await.assert_token();
        }
    };
    let worked = async {
        for _ in 0..40 {
            app.batch_execute("select pg_sleep(0.1)").await.unwrap();
        }
    };
    join(asked, worked).await;
    eventually("the end of the queries", async || {
        let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(30)%' and state = 'active' and pid <> pg_backend_pid()";
        server.number(running).await == 0
    })
    .await;
}

#[actix_web::test]
async fn doctor_reports_a_pooler() {
    let Some((server, pooler)) = pooled(1).await else {
        return;
    };
    pooler.connect().await;
    let report = examine(&both(&pooler.url(), 5)).await;
    assert_eq!(report.state("stores.shared"), "ok");
    for (part, expected) in [
        ("stores.shared.pooler", "pool_mode = transaction"),
        ("policies.member", "role (text)"),
    ] {
        let point = report.point(part);
        assert_eq!(point["state"], "ok", "{point}");
        assert!(
            point["message"].as_str().unwrap().contains(expected),
            "{point}"
        );
    }
    let report = examine(&both(&server.url(), 5)).await;
    assert_eq!(report.state("stores.shared"), "ok");
    assert!(
        !report
            .points
            .iter()
            .any(|point| point["part"] == "stores.shared.pooler")
    );
}

#[actix_web::test]
async fn session_pooling_works_and_statement_pooling_is_refused_in_words() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    server.run(MEMBERS).await;
    let Some(pooler) = PgBouncer::before(&server, "session", 8) else {
        return;
    };
    let gate = both(&pooler.url(), 3).start().await;
    ready(&gate).await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(ask_for(&gate, "user_1", "ws_1").await.status, expected);
    }
    let Some(pooler) = PgBouncer::before(&server, "statement", 1) else {
        return;
    };
    pooler.connect().await;
    let report = examine(&both(&pooler.url(), 3)).await;
    assert_eq!(report.state("stores.shared"), "failed");
    let message = report.point("stores.shared")["message"].as_str().unwrap();
    assert!(message.contains("pool_mode = transaction"), "{message}");
}

#[actix_web::test]
async fn a_startup_parameter_that_the_pooler_refuses_is_named() {
    let Some((_server, pooler)) = pooled(1).await else {
        return;
    };
    pooler.connect().await;
    let url = format!("{}?options=-c%20search_path%3Dapp", pooler.url());
    let report = examine(&both(&url, 3)).await;
    let message = report.point("stores.shared")["message"].as_str().unwrap();
    assert!(message.contains("ignore_startup_parameters"), "{message}");
}
