//! The book under `docs`: its links, its configs and its commands work.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use actix_web::web;

use crate::{
    helpers::{ClientKey, CorsOrigin, Emulator, Gate, SECRET, ServerKey, settings},
    process::{GateProcess, run, text},
    real_parts::{are_here, blocks, free_port},
};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn pages() -> Vec<PathBuf> {
    let files = fs::read_dir(docs())
        .unwrap()
        .map(|file| file.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    let mut pages: Vec<_> = pages.collect();
    pages.sort();
    pages
}

/// The targets of the links of a text, without code blocks.
fn links(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2).collect::<String>();
    let after = prose.split("](").skip(1);
    after
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.contains("://"))
        .collect()
}

/// The anchors of a page's headings, as mdBook and GitHub make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = text.split("```").step_by(2).collect::<String>();
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter_map(|char| match char {
                ' ' => Some('-'),
                char if char.is_alphanumeric() || "-_".contains(char) => Some(char),
                _ => None,
            });
            kept.collect()
        })
        .collect()
}

#[test]
fn every_page_is_in_the_book_and_every_link_leads_somewhere() {
    let summary = fs::read_to_string(docs().join("SUMMARY.md")).unwrap();
    let linked: BTreeSet<_> = links(&summary).into_iter().collect();
    for page in pages() {
        let name = page.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name == "SUMMARY.md" || linked.contains(&name), "{name}");
    }
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    for page in pages().into_iter().chain([readme]) {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&target).unwrap());
                assert!(anchors.contains(anchor), "{}: {link}", page.display());
            }
        }
    }
}

#[test]
fn the_book_builds_without_warnings() {
    if !are_here(&["mdbook"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let built = Command::new("mdbook")
        .arg("build")
        .arg("--dest-dir")
        .arg(folder.path())
        .arg(docs())
        .output()
        .unwrap();
    let said = text(&built.stderr);
    assert!(built.status.success(), "{said}");
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    for page in ["start.html", "security.html", "concepts.svg"] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
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
        let block = block.replace(":8080/", &format!(":{port}/"));
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
    let config = format!(
        "[server]\nbind = \"127.0.0.1:{port}\"\n[management]\nbind = \"127.0.0.1:0\"\n{}",
        blocks("docs/start.md", "toml")[0].replacen("[imgwire]\n", &base_url, 1)
    );
    let said = run_commands("docs/start.md", folder.path(), &config, port).await;
    assert!(said[0].contains("2. daily (quota)"), "{}", said[0]);
    assert!(said[0].contains("allow"), "{}", said[0]);
    assert!(said[1].starts_with("401"), "{}", said[1]);
    assert!(said[1].contains("not_signed_in"), "{}", said[1]);
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
    assert!(said[0].contains('3'), "{}", said[0]);
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
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for rest in text.split("`imgwire-gate ").skip(1) {
            let word = rest.split([' ', '`', '\n']).next().unwrap();
            let is_known = word.starts_with('-') || help.contains(&format!("\n  {word} "));
            assert!(is_known, "{}: {word}", page.display());
        }
    }
}
