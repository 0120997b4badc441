//! What makes a running gate reload its config, and what a reload says.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    certificates::Authority,
    helpers::{Emulator, Gate, SERVER_API_KEY, Token, eventually},
    process::GateProcess,
};

const RELOADED: &str = "config reloaded";
const FAILED: &str = "config reload failed, keeping the current config";
const RETRIES: &str = "the reload is tried again until the files of the config are there";
const WAITING: &str = "changed settings take effect after a restart";

struct Setup {
    imgwire: Emulator,
    folder: TempDir,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let imgwire = Emulator::start().unwrap();
        Self { imgwire, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A gate that verifies tokens with the secret in a file.
    fn gate(&self, secret: &Path) -> Gate {
        Gate::accepting(["app"]).set("identities.app.secret", json!({ "file": secret }))
    }

    async fn start(&self, gate: &Gate, options: &[&str]) -> GateProcess {
        let config = gate.write(self.imgwire.url(), self.folder.path());
        GateProcess::start_with(&config, &[], "info", options).await
    }
}

fn lines(gate: &GateProcess, message: &str) -> Vec<Value> {
    let lines = gate.lines().into_iter();
    lines.filter(|line| line["message"] == message).collect()
}

async fn reaches(gate: &GateProcess, message: &str, count: usize) {
    eventually(message, async || lines(gate, message).len() >= count).await;
}

fn secret(version: u32) -> String {
    format!("the secret of version {version}, long enough for HS256")
}

/// Whether the gate accepts a token that is signed with the secret of this version.
async fn accepts(gate: &GateProcess, version: u32) -> bool {
    let key = EncodingKey::from_secret(secret(version).as_bytes());
    let token = Token::of("user_1").sign_with(&key);
    gate.ask(&token).await == Some(200)
}

#[actix_web::test]
async fn a_watching_gate_notices_every_way_to_replace_a_secret() {
    let setup = Setup::new();
    // As Kubernetes mounts a secret: `secret` leads to `..data/secret`, and `..data` to a folder with a time in its name.
    let volume = setup.path("volume");
    fs::create_dir(&volume).unwrap();
    let generation = |version: u32| {
        let name = format!("..{version}");
        fs::create_dir(volume.join(&name)).unwrap();
        fs::write(volume.join(&name).join("secret"), secret(version)).unwrap();
        symlink(&name, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    generation(1);
    let path = volume.join("secret");
    symlink("..data/secret", &path).unwrap();
    let gate = setup.start(&setup.gate(&path), &["--watch"]).await;
    assert!(accepts(&gate, 1).await);

    generation(2);
    eventually("the swapped link", async || accepts(&gate, 2).await).await;
    let in_place = |version: u32| fs::write(&path, secret(version)).unwrap();
    in_place(3);
    eventually("the write in place", async || accepts(&gate, 3).await).await;
    let renamed = |version: u32| {
        fs::write(volume.join("next"), secret(version)).unwrap();
        fs::rename(volume.join("next"), &path).unwrap();
    };
    renamed(4);
    eventually("the renamed file", async || accepts(&gate, 4).await).await;
    // Some editors remove the file first.
    fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(accepts(&gate, 4).await);
    in_place(5);
    eventually("the new file", async || accepts(&gate, 5).await).await;
    assert!(!accepts(&gate, 4).await);

    let changed = lines(&gate, "files of the config changed");
    let path = path.display().to_string();
    assert!(changed.len() >= 4, "{changed:?}");
    assert!(
        changed.iter().all(|line| line["files"] == path),
        "{changed:?}"
    );
    let log = gate.log();
    assert!(
        (1..=5).all(|version| !log.contains(&secret(version))),
        "{log}"
    );
}

#[actix_web::test]
async fn a_watching_gate_reloads_nothing_while_nothing_changes() {
    let setup = Setup::new();
    let path = setup.path("secret");
    fs::write(&path, secret(1)).unwrap();
    let gate = setup.start(&setup.gate(&path), &["--watch"]).await;
    // The same content again.
    fs::write(&path, secret(1)).unwrap();
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(lines(&gate, RELOADED).len(), 0);
    fs::write(&path, secret(2)).unwrap();
    reaches(&gate, RELOADED, 1).await;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(lines(&gate, RELOADED).len(), 1);
}

#[actix_web::test]
async fn a_reload_whose_file_is_not_there_yet_is_tried_again_and_said_once() {
    let setup = Setup::new();
    let path = setup.path("secret");
    fs::write(&path, secret(1)).unwrap();
    let gate = setup.start(&setup.gate(&path), &[]).await;
    for (absent, version) in [(false, 2), (true, 3)] {
        let failures = lines(&gate, FAILED).len();
        let reloads = lines(&gate, RELOADED).len();
        if absent {
            fs::remove_file(&path).unwrap();
        } else {
            fs::write(&path, "").unwrap();
        }
        gate.signal("-HUP");
        reaches(&gate, FAILED, failures + 1).await;
        // Time for several tries.
        tokio::time::sleep(Duration::from_millis(2200)).await;
        assert!(accepts(&gate, version - 1).await);
        fs::write(&path, secret(version)).unwrap();
        reaches(&gate, RELOADED, reloads + 1).await;
        assert!(accepts(&gate, version).await);
        assert_eq!(lines(&gate, FAILED).len(), failures + 1);
        assert_eq!(lines(&gate, RETRIES).len(), failures + 1);
    }
    // Without --watch, a later change waits for a signal.
    fs::write(&path, secret(4)).unwrap();
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(accepts(&gate, 3).await);
}

#[actix_web::test]
async fn certificates_of_stores_are_watched_and_waited_for() {
    let setup = Setup::new();
    let (earlier, later) = (Authority::new(), Authority::new());
    let (named, in_url) = (setup.path("named.pem"), setup.path("url.pem"));
    for file in [&named, &in_url] {
        fs::copy(earlier.certificate(), file).unwrap();
    }
    let url = format!(
        "postgres://gate@127.0.0.1:9/app?sslmode=verify-full&sslrootcert={}",
        in_url.display()
    );
    let gate = Gate::accepting(["app"])
        .store(
            "cache",
            json!({ "url": "rediss://127.0.0.1:9", "tls": { "ca": named } }),
        )
        .store("main", json!({ "url": url }));
    let gate = setup.start(&gate, &["--watch"]).await;
    for (count, file) in [&named, &in_url].into_iter().enumerate() {
        fs::copy(later.certificate(), file).unwrap();
        reaches(&gate, RELOADED, 2 * count + 1).await;
        let changed = lines(&gate, "files of the config changed");
        let name = file.display().to_string();
        assert_eq!(changed.last().unwrap()["files"], json!(name));
        fs::remove_file(file).unwrap();
        reaches(&gate, RETRIES, count + 1).await;
        fs::copy(earlier.certificate(), file).unwrap();
        reaches(&gate, RELOADED, 2 * count + 2).await;
    }
}

#[actix_web::test]
async fn a_faulty_config_is_not_tried_again() {
    let setup = Setup::new();
    let path = setup.path("secret");
    fs::write(&path, secret(1)).unwrap();
    for options in [&[][..], &["--watch"]] {
        let gate = setup.start(&setup.gate(&path), options).await;
        // A faulty key, besides the file that is not there.
        let faulty = setup.gate(&setup.path("missing")).server("workers", 0);
        faulty.write(setup.imgwire.url(), setup.folder.path());
        gate.signal("-HUP");
        reaches(&gate, FAILED, 1).await;
        tokio::time::sleep(Duration::from_millis(2200)).await;
        assert_eq!(lines(&gate, FAILED).len(), 1);
        assert_eq!(lines(&gate, RETRIES).len(), 0);
        assert!(accepts(&gate, 1).await);
    }
}

#[actix_web::test]
async fn settings_that_wait_for_a_restart_are_named_in_one_line_without_their_values() {
    let setup = Setup::new();
    let path = setup.path("secret");
    fs::write(&path, secret(1)).unwrap();
    let gate = setup.start(&setup.gate(&path), &[]).await;
    let waiting = async || {
        let url = format!("{}/metrics", gate.management());
        let mut answer = awc::Client::default().get(url).send().await.unwrap();
        let text = String::from_utf8(answer.body().await.unwrap().to_vec()).unwrap();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("imgwire_gate_config_waiting "));
        value.unwrap().to_owned()
    };
    let changed = setup
        .gate(&path)
        .server("workers", 3)
        .server("failures", json!({ "limit": 77, "period": "1m" }))
        .management("bind", "127.0.0.1:7777")
        .imgwire("timeout", "777ms")
        .imgwire("api_key", json!({ "file": setup.path("key") }))
        .session("ttl", "7h")
        .set("stores.main.timeout", "777ms")
        .policy("daily", crate::helpers::quota().per(["user"]).limit(7))
        .chain(["signed-in", "daily"]);
    fs::write(setup.path("key"), SERVER_API_KEY).unwrap();
    changed.write(setup.imgwire.url(), setup.folder.path());
    gate.signal("-HUP");
    reaches(&gate, WAITING, 1).await;
    let [line] = &lines(&gate, WAITING)[..] else {
        panic!("{}", gate.log())
    };
    assert_eq!(line["level"], "WARN");
    assert_eq!(
        line["keys"],
        "imgwire.timeout, management.bind, server.failures.limit, server.failures.period, server.workers, session.ttl"
    );
    assert!(!gate.log().contains("777"), "{}", gate.log());
    assert_eq!(waiting().await, "6");
    // The settings of the start wait for nothing.
    setup
        .gate(&path)
        .write(setup.imgwire.url(), setup.folder.path());
    gate.signal("-HUP");
    reaches(&gate, RELOADED, 2).await;
    assert_eq!(waiting().await, "0");
    assert_eq!(lines(&gate, WAITING).len(), 1);
}
