//! The book under `docs`: its configs and its commands work.

mod frontend;
mod links;
mod readme;
mod reference;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use actix_web::web;

use crate::{
    helpers::{ClientKey, CorsOrigin, Emulator, Gate, SECRET, ServerKey, settings},
    process::{GateProcess, run, text},
    real_parts::{blocks, free_port},
};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files of a folder of the repository and of the folders within it, from the root, in order.
pub(crate) fn markdown_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if path.ends_with("node_modules") {
            continue;
        }
        if root().join(&path).is_dir() {
            files.extend(markdown_files(&path));
        } else if path.extension().is_some_and(|kind| kind == "md") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A secret that is valid for every setting.
fn any_secret(name: &str) -> Option<String> {
    let is_key = name == "IMGWIRE_API_KEY";
    Some(if is_key { "sk_a_key" } else { SECRET }.to_owned())
}

#[test]
fn the_complete_configs_of_the_book_are_valid() {
    let load = |file: &str, config: &str| {
        let loaded = settings::load(file, config, &any_secret);
        loaded.unwrap_or_else(|faults| panic!("{faults}"));
    };
    load("start.md", &blocks("docs/start.md", "toml")[0]);
    load("migrating.md", &blocks("docs/migrating.md", "toml")[0]);
    let [start, identity] = &blocks("docs/start.md", "toml")[..] else {
        panic!("a config, and an identity for it")
    };
    let (before, rest) = start.split_once("[identities.app]").unwrap();
    let (_, after) = rest.split_once("[policies.signed-in]").unwrap();
    load(
        "start.md",
        &format!("{before}{identity}\n[policies.signed-in]{after}"),
    );
}

/// Runs the commands of a page, each block in one shell, beside its config and its cases.
async fn run_commands(page: &str, folder: &Path, config: &str, port: u16) -> Vec<String> {
    let mut said = Vec::new();
    fs::write(folder.join("gate.toml"), config).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_imgwire-gate"))
        .parent()
        .unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut exports = String::new();
    for block in blocks(page, "sh") {
        let block = block
            .replace(":8080/", &format!(":{port}/"))
            .replace("--port 8080", &format!("--port {port}"));
        let script = format!("set -e\n{exports}\n{block}");
        let exported = block.lines().filter(|line| line.starts_with("export "));
        exports.push_str(&exported.map(|line| format!("{line}\n")).collect::<String>());
        let (path, folder) = (path.clone(), folder.to_owned());
        let running = move || {
            Command::new("bash")
                .args(["-c", &script])
                .current_dir(folder)
                .env("PATH", path)
                .output()
                .unwrap()
        };
        let output = web::block(running).await.unwrap();
        assert!(
            output.status.success(),
            "{page}: {block}\n{}",
            text(&output.stderr)
        );
        said.push(text(&output.stdout));
    }
    said
}

#[actix_web::test]
async fn the_commands_of_the_first_steps_work_as_described() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let imgwire = Emulator::start().unwrap();
    imgwire.change(|scenario| {
        scenario.server_keys = vec![ServerKey::new("sk_your_key")];
        scenario.client_keys = vec![ClientKey::new("ck_your_key")];
        scenario.cors_origins = vec![CorsOrigin::new("app.example.com")];
    });
    let base_url = format!("[imgwire]\nbase_url = \"{}\"\n", imgwire.url());
    let config = blocks("docs/start.md", "toml")[0].replacen("[imgwire]\n", &base_url, 1);
    let said = run_commands("docs/start.md", folder.path(), &config, port).await;
    assert!(said[0].contains("2. daily (quota)"), "{}", said[0]);
    assert!(said[0].contains("allow"), "{}", said[0]);
    assert!(said[1].contains("{\"uploadToken\":\"ut_"), "{}", said[1]);
    assert!(said[1].ends_with("}\n200\n"), "{}", said[1]);
    assert!(
        said[2].contains("an upload without a token is refused"),
        "{}",
        said[2]
    );
}

#[actix_web::test]
async fn the_commands_of_the_migration_guide_work_as_described() {
    let folder = tempfile::tempdir().unwrap();
    let [config, cases] = &blocks("docs/migrating.md", "toml")[..] else {
        panic!("a config and its cases")
    };
    fs::write(folder.path().join("cases.toml"), cases).unwrap();
    let said = run_commands("docs/migrating.md", folder.path(), config, 0).await;
    assert!(said[0].contains("4. daily (quota)"), "{}", said[0]);
    assert!(said[0].contains("5 passed, 0 failed"), "{}", said[0]);
}

#[actix_web::test]
async fn the_commands_of_operations_set_the_log_filter() {
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Gate::accepting(["app"]).write(imgwire.url(), folder.path());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let [log] = &blocks("docs/operations.md", "sh")[..] else {
        panic!("one block")
    };
    let script = log.replace("http://127.0.0.1:9090", gate.management());
    let bash = move || Command::new("bash").args(["-ec", &script]).output();
    let output = web::block(bash).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("imgwire_gate=debug"));
}

#[test]
fn every_command_that_the_book_names_exists() {
    let help = text(&run(&["--help"]).stdout);
    for page in markdown_files(Path::new("docs"))
        .into_iter()
        .chain(["README.md".into()])
    {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        for rest in text.split("`imgwire-gate ").skip(1) {
            let word = rest.split([' ', '`', '\n']).next().unwrap();
            let is_known = word.starts_with('-') || help.contains(&format!("\n  {word} "));
            assert!(is_known, "{}: {word}", page.display());
        }
    }
}
