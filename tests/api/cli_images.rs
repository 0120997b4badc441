//! `imgwire-gate images` asks the running gate for records, exports them, and erases a user's.

use std::{path::Path, process::Output};

use serde_json::Value;

use crate::{
    helpers::{Emulator, Endpoint, Misbehaviour, Token, eventually},
    process::{GateProcess, program, text, write_config},
    upload_records::{image_ids, lines, png, recording, upload},
};

fn images(config: &Path, arguments: &[&str]) -> Output {
    program(&[])
        .arg("images")
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    text(&output.stdout)
}

#[track_caller]
fn assert_fails(output: &Output, message: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = text(&output.stderr);
    assert!(error.contains(message), "{error}");
}

#[actix_web::test]
async fn records_are_printed_one_on_a_line() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&recording(), imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let answer = upload(&gate.url(), "/imgwire/ws_1", "user_1", &png()).await;
    let image = answer.json["image"]["id"].as_str().unwrap().to_owned();
    assert_eq!(gate.ask(&Token::of("auth0|user 2").sign()).await, Some(200));
    let by_image = printed(&images(&config, &["--image", &image]));
    let rows: Vec<_> = by_image.lines().collect();
    assert_eq!(rows.len(), 2, "{by_image}");
    assert!(rows[0].starts_with("CREATED"), "{by_image}");
    for (column, value) in [
        ("STATE", "open"),
        ("IMAGE", &image),
        ("TOKEN", "-"),
        ("SUBJECT", "user_1"),
        ("WORKSPACE", "ws_1"),
        ("PURPOSE", "-"),
        ("ROUTE", "/imgwire/{workspace}"),
        ("DECLARED", "image/png, 67 bytes"),
        ("REAL", "-"),
    ] {
        let at = rows[0].find(column).unwrap();
        assert!(rows[1][at..].starts_with(value), "{column}: {by_image}");
    }
    assert_eq!(
        printed(&images(&config, &["--subject", "user_1"])),
        by_image
    );
    assert_eq!(
        printed(&images(&config, &["--workspace", "ws_1", "--page", "1"])),
        by_image
    );
    let issued = printed(&images(&config, &["--subject", "auth0|user 2"]));
    assert!(issued.contains("issued"), "{issued}");
    assert_fails(
        &images(&config, &["--subject", "user_3"]),
        "no record on this page matches",
    );
    assert_fails(
        &images(&config, &["--image", "a/b"]),
        "image is not an id of Imgwire",
    );
    let output = images(&config, &[]);
    assert_fails(&output, "nothing to find");
    assert!(text(&output.stderr).contains("add --image, --token, --subject or --workspace"));
    assert_fails(
        &images(&config, &["--image", "a", "export"]),
        "have no subcommand",
    );

    let export = printed(&images(&config, &["export"]));
    let records = lines(&export);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["image"], Value::from(image));
    assert_eq!(records[1]["subject"], "auth0|user 2");
}

#[actix_web::test]
async fn an_erasure_is_started_and_waited_for() {
    let imgwire = Emulator::start().unwrap();
    let gate = recording().imgwire("retries", 0);
    let (_folder, config) = write_config(&gate, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let user = "auth0|a/b";
    for _ in 0..2 {
        assert_eq!(upload(&gate.url(), "/mine", user, &png()).await.status, 200);
    }
    let waited = config.clone();
    // The program blocks, and the emulator runs on this thread.
    let output =
        actix_web::web::block(move || images(&waited, &["erase", "--subject", user, "--wait"]));
    let printed_lines = printed(&output.await.unwrap());
    let (job, progress) = printed_lines.split_once('\n').unwrap();
    assert!(job.starts_with("job "), "{job}");
    assert_eq!(progress, "done     yes\ndeleted  2\nfailed   0\n");
    assert!(image_ids(&imgwire).is_empty());
    assert_eq!(printed(&images(&config, &["job", &job[4..]])), progress);
    assert_fails(
        &images(&config, &["job", "unknown"]),
        "there is no such job",
    );

    imgwire.misbehave_at(Endpoint::Delete, Some(Misbehaviour::Status(503, None)));
    assert_eq!(upload(&gate.url(), "/mine", user, &png()).await.status, 200);
    let started = printed(&images(&config, &["erase", "--subject", user]));
    let id = started.trim().strip_prefix("job ").unwrap().to_owned();
    eventually("the first failure", async || {
        printed(&images(&config, &["job", &id])) == "done     no\ndeleted  0\nfailed   1\n"
    })
    .await;
}
