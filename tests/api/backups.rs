//! The commands of the backup guide, on real stores.

use std::{path::Path, process::Command};

use actix_web::web;

use crate::{
    helpers::{Gate, TestApp, Token, quota},
    postgres::Postgres,
    real_parts::{are_here, blocks},
    scaling::ready,
};

/// A gate that counts in the store at `url`, three a day.
fn counting(url: &str) -> Gate {
    Gate::accepting(["app"])
        .set("stores.main.url", url)
        .policy("daily", quota().per(["user"]).limit(3).window("day"))
        .chain(["signed-in", "daily"])
}

async fn ask(gate: &TestApp) -> u16 {
    gate.ask_as(&Token::of("user_1")).await.status.as_u16()
}

/// Runs a command of the guide in `folder`, against the database at `url`.
async fn run(command: &str, folder: &Path, url: &str) {
    let (command, folder, url) = (command.to_owned(), folder.to_owned(), url.to_owned());
    let running = move || {
        Command::new("bash")
            .args(["-ec", &command])
            .current_dir(folder)
            .env("DATABASE", url)
            .output()
    };
    let output = web::block(running).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[actix_web::test]
async fn a_sqlite_file_is_backed_up_while_the_gate_runs_and_restored() {
    if !are_here(&["sqlite3"]) {
        return;
    }
    let commands = blocks("docs/backup.md", "sh");
    let (back_up, restore) = (&commands[0], &commands[2]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("data")).unwrap();
    let url = format!("sqlite:{}", folder.join("data/gate.db").display());

    let mut gate = counting(&url).start().await;
    assert_eq!([ask(&gate).await, ask(&gate).await], [200, 200]);
    run(back_up, folder, "").await;
    assert_eq!([ask(&gate).await, ask(&gate).await], [200, 429]);
    gate.begin_stop();
    gate.stopped().await;

    run(restore, folder, "").await;
    let gate = counting(&url).start().await;
    assert_eq!([ask(&gate).await, ask(&gate).await], [200, 429]);
}

#[actix_web::test]
async fn the_counters_in_postgresql_are_backed_up_and_restored() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let commands = blocks("docs/backup.md", "sh");
    let (back_up, restore) = (&commands[1], &commands[3]);
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();

    let mut gate = counting(&url).start().await;
    ready(&gate).await;
    assert_eq!([ask(&gate).await, ask(&gate).await], [200, 200]);
    run(back_up, folder.path(), &url).await;
    assert_eq!([ask(&gate).await, ask(&gate).await], [200, 429]);
    gate.begin_stop();
    gate.stopped().await;

    run(restore, folder.path(), &url).await;
    let gate = counting(&url).start().await;
    ready(&gate).await;
    assert_eq!([ask(&gate).await, ask(&gate).await], [200, 429]);
}
