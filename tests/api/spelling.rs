//! Sources that accept several spellings of a workspace: each request counts for the canonical workspace.

use serde_json::json;

use crate::{
    helpers::{Gate, TestApp, expression, quota},
    members::{MEMBERS, ask_for, asking, calls, sqlite},
    postgres::Postgres,
    remote_members::{MEMBER, member},
    service::{Reply, Service},
};

/// The same gate with a quota of two per workspace, after the membership policy `member`.
fn with_limit(gate: Gate, member: &str) -> Gate {
    gate.policy("limit", quota().per(["workspace"]).limit(2))
        .chain(["signed-in", member, "limit"])
}

async fn used(gate: &TestApp, workspace: &str) -> u64 {
    let answer = gate.manage(&format!("/quota/limit?key={workspace}")).await;
    answer.json["used"].as_u64().unwrap()
}

/// Every spelling that the database accepts counts as the canonical workspace.
async fn counts_as_one(url: &str, query: &str, canonical: &str, spellings: &[&str]) {
    for is_cached in [false, true] {
        let gate = with_limit(asking(url, query), "member");
        let gate = if is_cached {
            gate.set("policies.member.cache", "30s")
        } else {
            gate
        };
        let gate = gate.start().await;
        let mut issued = 0;
        for spelling in spellings.iter().chain(spellings) {
            let answer = ask_for(&gate, "17", spelling).await;
            match answer.status.as_u16() {
                200 => issued += 1,
                _ => assert_eq!(answer.code(), "quota_exhausted", "{spelling}: {answer:?}"),
            }
            for other in spellings.iter().filter(|other| **other != canonical) {
                let key = other.replace(['%', '/', '{', '}', '+', ' '], "");
                assert_eq!(
                    used(&gate, &key).await,
                    if key == canonical { issued } else { 0 },
                    "{other}"
                );
            }
        }
        assert_eq!((issued, used(&gate, canonical).await), (2, 2), "{query}");
    }
}

/// A second column that is not an id, and rows that disagree, are faults.
async fn names_one_workspace(url: &str, columns: &[&str]) {
    for column in columns {
        let query =
            format!("select role, {column} from members where workspace_id = $2 and user_id = $1");
        let gate = asking(url, &query).start().await;
        let answer = ask_for(&gate, "user_1", "ws_1").await;
        answer.assert_error(500, "internal");
        assert_eq!(calls(&gate, "fault").await, 1.0, "{column}");
    }
    let query = "select role, workspace_id from members where user_id = $1 and $2 <> ''";
    let gate = asking(url, query).start().await;
    let answer = ask_for(&gate, "user_1", "ws_1").await;
    answer.assert_error(500, "internal");
}

#[actix_web::test]
async fn spellings_in_sqlite_count_as_the_workspace_of_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(
        folder.path(),
        &format!(
            "{MEMBERS}
             create table loose (user_id integer, workspace_id text collate nocase, role text);
             insert into loose values (17, 'Acme', 'owner'), (17, 'Acme', 'viewer');
             create table numbers (user_id integer, workspace_id integer, role text);
             insert into numbers values (17, 7, 'owner');"
        ),
    );
    let query = |table: &str| {
        format!("select role, workspace_id from {table} where user_id = $1 and workspace_id = $2")
    };
    let spellings = ["Acme", "acme", "ACME", "aCmE"];
    counts_as_one(&url, &query("loose"), "Acme", &spellings).await;
    let spellings = ["7", "07", "007", "7.0", "+7", " 7", "7e0"];
    counts_as_one(&url, &query("numbers"), "7", &spellings).await;
    names_one_workspace(&url, &["null", "7.5", "x'00ff'", "''", "char(10)"]).await;
    // The other policies of the chain see the workspace of the row.
    let rule = "workspace.id == 'Acme' && workspace.role == 'owner'";
    let gate = asking(&url, &query("loose"))
        .policy("rule", expression(rule))
        .chain(["signed-in", "member", "rule"])
        .start()
        .await;
    ask_for(&gate, "17", "aCMe").await.assert_token();
}

#[actix_web::test]
async fn spellings_in_postgresql_count_as_the_workspace_of_the_row() {
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    let url = postgres.url();
    let id = "6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab";
    postgres.run(MEMBERS).await;
    postgres
        .run(&format!(
            "create domain place as bigint;
             create table workspaces (user_id int, by_uuid uuid, by_int bigint, by_place place, by_small smallint,
                 by_text varchar(40), role text);
             insert into workspaces values (17, '{id}', 7, 7, 7, 'Acme', 'owner');"
        ))
        .await;
    let upper = id.to_uppercase();
    let bare = id.replace('-', "");
    let braced = format!("{{{id}}}");
    let odd = format!("{}-{}", &bare[..4], &bare[4..]);
    let uuids = [id, &upper, &bare, &braced, &odd];
    let numbers = ["7", "07", "0000007", "+7", " 7 "];
    for (column, canonical, spellings) in [
        ("by_uuid", id, &uuids[..]),
        ("by_int", "7", &numbers),
        ("by_place", "7", &numbers),
        ("by_small", "7", &numbers),
    ] {
        let query =
            format!("select role, {column} from workspaces where user_id = $1 and {column} = $2");
        counts_as_one(&url, &query, canonical, spellings).await;
    }
    let query =
        "select role, by_text from workspaces where user_id = $1 and lower(by_text) = lower($2)";
    counts_as_one(&url, query, "Acme", &["Acme", "acme", "ACME"]).await;
    let columns = [
        "null",
        "null::text",
        "7.5",
        "now()",
        "true",
        "array['ws_1']",
        "''",
        "E'a\\nb'",
    ];
    names_one_workspace(&url, &columns).await;
}

#[actix_web::test]
async fn spellings_count_as_the_workspace_that_the_app_names() {
    let app = Service::start();
    let spellings = ["acme", "ACME", "AcMe", "acme.", "7", "07"];
    for (canonical, name) in [("acme", json!("acme")), ("7", json!(7))] {
        for is_cached in [false, true] {
            let gate = with_limit(member(&app), "asked");
            let gate = if is_cached {
                gate.set("policies.asked.cache", "30s")
            } else {
                gate
            };
            let gate = gate.start().await;
            let mut issued = 0;
            for spelling in spellings.iter().chain(&spellings) {
                let path = format!("/api/workspaces/{spelling}/members/user_1");
                app.answer(
                    &path,
                    Reply::json(&json!({ "role": "owner", "workspace": name })),
                );
                let answer = ask_for(&gate, "user_1", spelling).await;
                match answer.status.as_u16() {
                    200 => issued += 1,
                    _ => assert_eq!(answer.code(), "quota_exhausted", "{answer:?}"),
                }
            }
            assert_eq!(issued, 2);
            for spelling in spellings {
                let used = gate.manage(&format!("/quota/limit?key={spelling}")).await;
                let expected = if spelling == canonical { 2 } else { 0 };
                assert_eq!(used.json["used"], expected, "{spelling}");
            }
        }
    }
}

#[actix_web::test]
async fn an_answer_with_an_invalid_workspace_is_a_fault() {
    let app = Service::start();
    let gate = member(&app).start().await;
    for workspace in [
        json!(null),
        json!(""),
        json!(7.5),
        json!(true),
        json!(["ws_1"]),
        json!({ "id": "ws_1" }),
        json!("a\nb"),
    ] {
        app.answer(
            MEMBER,
            Reply::json(&json!({ "role": "owner", "workspace": workspace })),
        );
        let answer = ask_for(&gate, "user_1", "ws_1").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (500, "internal"),
            "{workspace}"
        );
    }
}
