//! Slow membership lookups: a fault for their user, and no delay for others.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde_json::json;

use crate::{
    helpers::{Answer, Gate, eventually, workspace_member},
    members::{MEMBERS, ask_for, asking, sqlite},
    postgres::Postgres,
    scaling::ready,
    service::{Reply, Service},
    store_failures::is_up,
    watched::Watched,
};

/// The timeout of the tests' stores.
const TIMEOUT: Duration = Duration::from_millis(500);

const SLOW_ROLE: &str = "
    create function slow_role(user_id text) returns text language plpgsql as $$
    begin
        if user_id = 'slow' then perform pg_sleep(30); end if;
        return 'owner';
    end $$;
";

/// Every user is an owner; the lookup of the user `slow` takes long.
const SLOW_QUERY: &str = "select slow_role($1) where $2 <> ''";

/// A slow lookup of one user does not affect fifty others, and the store never counts as down.
async fn affects_no_other(url: &str, query: &str) {
    let gate = Watched::start(&asking(url, query)).await;
    gate.ready().await;
    for _ in 0..2 {
        let slow = async {
            let began = Instant::now();
            assert_eq!(gate.ask_as("slow").await, 500);
            assert!(began.elapsed() < TIMEOUT * 2, "{:?}", began.elapsed());
        };
        let others = async {
            for user in 0..50 {
                let user = format!("user_{user}");
                assert_eq!(gate.ask_as(&user).await, 200, "{user}");
                assert!(gate.is_ready().await);
            }
        };
        join(slow, others).await;
    }
    gate.was_never_down();
}

#[actix_web::test]
async fn a_slow_query_of_one_user_does_not_take_postgresql_down() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    server.run(SLOW_ROLE).await;
    let query = "select slow_role($1) where coalesce(nullif($2, ''), 'ws_1') = 'ws_1'";
    affects_no_other(&server.url(), query).await;
}

#[actix_web::test]
async fn a_slow_query_of_one_user_does_not_take_sqlite_down() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path(), MEMBERS);
    let query = "with recursive n(i) as (select 1 union all select i + 1 from n where $1 = 'slow')
        select 'owner' where $2 = 'ws_1' and (select count(*) from n) > 0";
    affects_no_other(&url, query).await;
}

#[actix_web::test]
async fn many_slow_lookups_of_one_user_do_not_delay_another() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    server.run(SLOW_ROLE).await;
    let slow_query = asking(&server.url(), SLOW_QUERY).set("policies.member.timeout", "3s");
    let gate = slow_query.set("stores.app.timeout", "10s").start().await;
    ready(&gate).await;
    let slow = join_all((0..16).map(async |workspace| {
        let began = Instant::now();
        let answer = ask_for(&gate, "slow", &format!("ws_{workspace}")).await;
        assert_eq!(answer.status, 500);
        assert!(began.elapsed() < Duration::from_secs(5));
    }));
    let others = async {
        let running = "select count(*) from pg_stat_activity where query like '%slow_role(%' and state = 'active' and pid <> pg_backend_pid()";
        eventually("slow queries", async || server.number(running).await == 2).await;
        for user in 0..20 {
            let began = Instant::now();
            let answer = ask_for(&gate, &format!("user_{user}"), "ws_1").await;
            answer.assert_token();
            assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
        }
        assert_eq!(server.number(running).await, 2);
    };
    join(slow, others).await;
    assert!(is_up(&gate, "app").await);
    // Abandoned queries are cancelled, though the store's own timeout is longer; and no connection is lost.
    let running = "select count(*) from pg_stat_activity where query like '%slow_role(%' and state = 'active' and pid <> pg_backend_pid()";
    eventually("the end of the queries", async || {
        server.number(running).await == 0
    })
    .await;
    let users = (0..20).map(async |user| ask_for(&gate, &format!("user_{user}"), "ws_1").await);
    join_all(users).await.iter().for_each(Answer::assert_token);
}

#[actix_web::test]
async fn one_user_has_at_most_two_lookups_in_flight() {
    let app = Service::start();
    for workspace in 0..6 {
        let path = format!("/workspaces/ws_{workspace}/members/user_1");
        let slow = Reply::json(&json!({ "role": "owner" })).after(Duration::from_millis(600));
        app.answer(&path, slow);
    }
    app.answer(
        "/workspaces/ws_1/members/user_2",
        Reply::json(&json!({ "role": "owner" })),
    );
    let url = format!("{}/workspaces/{{workspace}}/members/{{user}}", app.url);
    let gate = Gate::accepting(["app"])
        .policy("member", workspace_member().url(url).timeout("1500ms"))
        .chain(["signed-in", "member"])
        .start()
        .await;
    let asked = join_all((0..6).map(async |workspace| {
        ask_for(&gate, "user_1", &format!("ws_{workspace}"))
            .await
            .status
            .as_u16()
    }));
    let other = async {
        let began = Instant::now();
        ask_for(&gate, "user_2", "ws_1").await.assert_token();
        assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
    };
    let (mut statuses, ()) = join(asked, other).await;
    // Two lookups at a time take 600 ms each: the third pair exceeds its timeout of 1500 ms.
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 500, 500]);
}
