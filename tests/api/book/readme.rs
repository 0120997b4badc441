//! The README: its config, what `check` prints about it, the call from the front end, and the table of errors.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use actix_web::web;
use serde_json::Value;

use super::{markdown_files, root};
use crate::{
    helpers::{ROUTE, SECRET, TestApp, Token},
    process::{run, text},
    real_parts::{are_here, blocks},
};

#[test]
fn check_prints_what_the_readme_shows_about_its_config() {
    let folder = tempfile::tempdir().unwrap();
    let [config] = &blocks("README.md", "toml")[..] else {
        panic!("one config")
    };
    fs::write(folder.path().join("gate.toml"), config).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_imgwire-gate"))
        .args(["check", "gate.toml"])
        .current_dir(folder.path())
        .env("IMGWIRE_API_KEY", "sk_a_key")
        .env("APP_JWT_SECRET", SECRET)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let shown = blocks("README.md", "text").remove(1);
    assert_eq!(text(&checked.stdout), shown);
}

#[actix_web::test]
async fn the_call_of_the_readme_returns_a_token() {
    if !are_here(&["node"]) {
        return;
    }
    let gate = TestApp::start().await;
    let call = blocks("README.md", "js").remove(0);
    let call = call.replace(
        "\"/api/imgwire/upload-token\"",
        &format!("\"{}{ROUTE}\"", gate.url),
    );
    let token = Token::of("user_1").sign();
    let main = format!("const token = \"{token}\";\n{call}\nconsole.log(uploadToken);");
    let running = move || {
        Command::new("node")
            .args(["--input-type=module", "--eval", &main])
            .output()
            .unwrap()
    };
    let output = web::block(running).await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("ut_"));
}

#[test]
fn the_error_table_of_the_readme_has_every_code() {
    let document: Value = serde_json::from_slice(&run(&["openapi"]).stdout).unwrap();
    let codes = document["components"]["schemas"]["ErrorCode"]["enum"]
        .as_array()
        .unwrap();
    let codes: BTreeSet<_> = codes
        .iter()
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();
    for page in ["README.md", "docs/frontend.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let (_, table) = text.split_once("| status | `code` |").unwrap();
        let rows = table
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(2));
        let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let listed: BTreeSet<_> = words.map(str::to_owned).collect();
        assert_eq!(listed, codes, "{page}");
    }
}

#[actix_web::test]
async fn the_answer_that_the_readme_shows_has_the_fields_of_a_real_one() {
    let gate = TestApp::start().await;
    let answer = gate.ask_as(&Token::of("user_1")).await;
    let shown: Value = serde_json::from_str(&blocks("README.md", "json")[0]).unwrap();
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&answer.json), keys(&shown));
}

#[test]
fn the_shell_commands_of_the_readme_fit_the_repository() {
    let [first, deploy] = &blocks("README.md", "sh")[..] else {
        panic!("two blocks")
    };
    assert!(first.starts_with("cargo run --release -- sandbox"));
    assert!(first.contains("\ntests/run ") && root().join("tests/run").exists());
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let variables = deploy.split(" -e ").skip(1);
    let config = read("config/default.toml");
    for variable in variables.filter_map(|rest| rest.split_whitespace().next()) {
        assert!(
            config.contains(&format!("env = \"{variable}\"")),
            "{variable}"
        );
    }
    let volume = deploy
        .split("gate-data:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    assert!(read("Dockerfile").contains(&format!("VOLUME {}", volume.unwrap())));
}

#[test]
fn the_readme_has_the_number_of_guides_and_their_page_lists_them_all() {
    let guides = markdown_files(Path::new("docs/providers"));
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let count = format!("[{} guides](docs/providers.md)", guides.len());
    assert!(read("README.md").contains(&count), "{count}");
    let list = read("docs/providers.md");
    for guide in guides {
        let link = format!("({})", guide.strip_prefix("docs").unwrap().display());
        assert!(list.contains(&link), "{link}");
    }
}
