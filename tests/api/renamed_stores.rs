//! Stores that a reload renames or removes, and two names of one file.

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::json;

use crate::{
    helpers::{Gate, TestApp, Token, eventually, published_jwt, quota, workspace_member},
    process::{run, text, write_config},
};

fn counting(name: &str, url: &str) -> Gate {
    let daily = quota().per(["user"]).limit(3).window("month");
    Gate::accepting(["app"])
        .store(name, json!({ "url": url }))
        .policy("daily", daily.store(name))
        .chain(["signed-in", "daily"])
}

async fn status(gate: &TestApp) -> u16 {
    gate.ask_as(&Token::of("user_1")).await.status.as_u16()
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

#[actix_web::test]
async fn a_renamed_store_keeps_its_counts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts.db");
    let gate = counting("before", &url(&file)).start().await;
    assert_eq!(status(&gate).await, 200);
    gate.reload(&counting("after", &url(&file))).unwrap();
    assert_eq!(status(&gate).await, 200);
    // Other ways to write the path.
    symlink(&file, folder.path().join("link.db")).unwrap();
    for path in ["./counts.db", "../", "link.db"] {
        let path = match path {
            "../" => folder
                .path()
                .join("..")
                .join(folder.path().file_name().unwrap())
                .join("counts.db"),
            path => folder.path().join(path),
        };
        gate.reload(&counting("again", &url(&path))).unwrap();
        assert_eq!(gate.manage("/readyz").await.status, 200);
    }
    assert_eq!(status(&gate).await, 200);
    assert_eq!(status(&gate).await, 429);
    let metrics = gate.manage("/metrics").await.text;
    assert!(metrics.contains("imgwire_gate_store_up{store=\"again\"} 1"));
    assert!(
        !metrics.contains("store=\"before\"") && !metrics.contains("store=\"after\""),
        "{metrics}"
    );
}

#[actix_web::test]
async fn a_fault_of_a_renamed_store_has_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts.db");
    let gate = counting("before", &url(&file)).start().await;
    assert_eq!(status(&gate).await, 200);
    gate.reload(&counting("after", &url(&file))).unwrap();
    // Another process locks the file.
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    eventually("the fault", async || {
        status(&gate).await;
        gate.manage("/readyz").await.json["failing"] == json!(["stores.after"])
    })
    .await;
}

/// Two stores at these paths of `folder`, each with a quota.
fn two(first: &str, second: &str) -> Gate {
    let daily = || quota().per(["user"]).limit(3).window("month");
    Gate::accepting(["app"])
        .store("first", json!({ "url": first }))
        .store("second", json!({ "url": second }))
        .policy("one", daily().store("first"))
        .policy("two", daily().store("second"))
        .chain(["signed-in", "one", "two"])
}

#[test]
fn two_stores_that_count_in_one_file_are_refused_alike_by_check_and_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/gate.db");
    let name = |path: &str| url(&folder.path().join(path));
    symlink("data", folder.path().join("link")).unwrap();
    for exists in [false, true] {
        if exists {
            fs::create_dir(folder.path().join("data")).unwrap();
            fs::write(&file, "").unwrap();
            fs::hard_link(&file, folder.path().join("hard.db")).unwrap();
        }
        for other in [
            "data/gate.db",
            "data/../data/gate.db",
            "link/gate.db",
            "hard.db",
        ] {
            if other == "hard.db" && !exists {
                continue;
            }
            let builder = two(&name("data/gate.db"), &name(other));
            let (_config, config) = write_config(&builder, "https://api.imgwire.dev");
            for command in ["check", "serve"] {
                let output = run(&[command, "--config", config.to_str().unwrap()]);
                assert_eq!(output.status.code(), Some(2), "{command} {other}");
                let fault = text(&output.stderr);
                assert!(
                    fault.contains("stores.second.url: is the same file as `stores.first`"),
                    "{fault}"
                );
            }
        }
    }
    let builder = two(&name("data/gate.db"), &name("data/other.db"));
    let (_config, config) = write_config(&builder, "https://api.imgwire.dev");
    let output = run(&["check", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[actix_web::test]
async fn a_file_may_have_counters_and_memberships_under_two_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gate.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch("CREATE TABLE members (user_id, workspace_id, role); INSERT INTO members VALUES ('user_1', 'ws_1', 'owner')")
        .unwrap();
    drop(connection);
    let query = "select role, workspace_id from members where user_id = $1 and workspace_id = $2";
    let member = workspace_member().set("store", "team").set("query", query);
    let gate = counting("counts", &url(&file))
        .store("team", json!({ "url": url(&file) }))
        .policy("member", member)
        .chain(["signed-in", "member", "daily"])
        .start()
        .await;
    let token = Token::of("user_1").sign();
    let answer = gate
        .ask()
        .bearer(&token)
        .json(&json!({ "workspace": "ws_1" }))
        .await;
    assert_eq!(answer.status, 200);
}

#[actix_web::test]
async fn gauges_and_states_of_removed_parts_go_away() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = "http://127.0.0.1:1/keys";
    let both = || {
        counting("counts", &url(&folder.path().join("counts.db")))
            .identity("idp", published_jwt(["RS256"], nowhere))
            .set("policies.signed-in.accept", ["app", "idp"])
    };
    let gate = both().start().await;
    eventually("the failed fetch", async || {
        gate.manage("/metrics")
            .await
            .text
            .contains("imgwire_gate_identity_keys_stale{identity=\"idp\"} 1")
    })
    .await;
    assert_eq!(
        gate.manage("/readyz").await.json["degraded"],
        json!(["identities.idp"])
    );
    assert!(
        gate.manage("/metrics")
            .await
            .text
            .contains("store_up{store=\"counts\"} 1")
    );
    gate.reload(&Gate::accepting(["app"])).unwrap();
    let gauges = gate.manage("/metrics").await.text;
    for name in [
        "store_up{store=\"counts\"",
        "identity_keys{",
        "identity_keys_stale{",
    ] {
        assert!(!gauges.contains(name), "{name}: {gauges}");
    }
    assert_eq!(gate.manage("/readyz").await.json["degraded"], json!([]));
    // What was removed can come back.
    gate.reload(&both()).unwrap();
    assert!(
        gate.manage("/metrics")
            .await
            .text
            .contains("store_up{store=\"counts\"} 1")
    );
    assert_eq!(status(&gate).await, 200);
}
