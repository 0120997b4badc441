//! URLs of SQLite that cannot work, and files that may not be used: found by `check`, by `doctor` and at the start.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    helpers::{Emulator, Gate, workspace_member},
    members::{MEMBERS, QUERY, sqlite},
    process::{GateProcess, gate_with_quota, program, text},
};

#[actix_web::test]
async fn check_refuses_a_url_that_names_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for (url, message) in [
        ("sqlite:", "needs the path of a file"),
        ("sqlite://", "needs the path of a file"),
        ("sqlite::memory:", "would be lost at a restart"),
        (
            "sqlite:data/gate.db?mode=rwc&cache=shared",
            "takes no parameters",
        ),
        ("sqlite:file:data/gate.db", "without `file:`"),
        ("file:data/gate.db", "is written `sqlite:`"),
        ("data/gate.db", "is written `sqlite:`"),
        ("sqlite:~/gate.db", "write the whole path"),
        ("sqlite:$HOME/gate.db", "`$HOME` is not replaced"),
        ("sqlite:my%20data/gate.db", "a space for `%20`"),
        ("sqlite:data/", "names a folder"),
    ] {
        let gate = gate_with_quota(1).set("stores.main.url", url);
        let config = gate.write("http://127.0.0.1:1", folder.path());
        let output = program(&[]).arg("check").arg(config).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{url}: {stderr}");
        assert!(
            stderr.contains("stores.main.url") && stderr.contains(message),
            "{url}: {stderr}"
        );
    }
}

/// A user without rights, by a program that becomes this user.
struct Nobody {
    folder: TempDir,
    imgwire: Emulator,
    wrapper: Vec<&'static str>,
    user: u32,
}

impl Nobody {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let owner = fs::metadata(folder.path()).unwrap().uid();
        let (wrapper, user) = if owner == 0 {
            let become_nobody = [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
            ];
            (become_nobody.to_vec(), 65534)
        } else {
            (Vec::new(), owner)
        };
        Self {
            folder,
            imgwire: Emulator::start().unwrap(),
            wrapper,
            user,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder with this mode, which belongs to the user of the test.
    fn folder(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn write(&self, gate: &Gate) -> PathBuf {
        let path = gate.write(self.imgwire.url(), self.folder.path());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// What `doctor` says about the store `main`.
    fn doctor(&self, gate: &Gate) -> Value {
        let output = program(&self.wrapper)
            .args(["doctor", "--json"])
            .arg(self.write(gate))
            .current_dir("/")
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        let mut points = report["points"].as_array().unwrap().iter();
        let point = points.find(|point| point["part"] == "stores.main");
        point.unwrap().clone()
    }

    /// The exit code of a start that fails, and what it says.
    fn start(&self, gate: &Gate) -> (Option<i32>, String) {
        let mut wrapper = vec!["timeout", "10"];
        wrapper.extend(&self.wrapper);
        let output = program(&wrapper)
            .arg("--config")
            .arg(self.write(gate))
            .current_dir("/")
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    }

    /// Both must name the problem and the remedy.
    fn is_refused(&self, file: &Path, problem: &str, remedy: &str) {
        let gate = counting(file);
        let point = self.doctor(&gate);
        assert_eq!(point["state"], "failed", "{file:?}: {point}");
        let (message, advice) = (point["message"].to_string(), point["remedy"].to_string());
        assert!(message.contains(problem), "{message} lacks {problem}");
        assert!(advice.contains(remedy), "{advice} lacks {remedy}");
        let (code, stderr) = self.start(&gate);
        assert_eq!(code, Some(1), "{file:?}: {stderr}");
        assert!(
            stderr.contains(problem) && stderr.contains(remedy),
            "{stderr}"
        );
    }
}

fn counting(file: &Path) -> Gate {
    gate_with_quota(5).set("stores.main.url", format!("sqlite:{}", file.display()))
}

fn mode_of(path: &Path) -> String {
    format!("mode {:04o}", fs::metadata(path).unwrap().mode() & 0o7777)
}

#[actix_web::test]
async fn a_folder_that_may_only_be_read_is_named_with_its_owner_and_mode() {
    let nobody = Nobody::new();
    let folder = nobody.folder("data", 0o555);
    let problem = format!(
        "the gate runs as user {} (group {0}), which cannot create files in {} (owner {}, group {}, {})",
        nobody.user,
        folder.display(),
        fs::metadata(&folder).unwrap().uid(),
        fs::metadata(&folder).unwrap().gid(),
        mode_of(&folder)
    );
    let remedy = format!("chown {} {}", nobody.user, folder.display());
    nobody.is_refused(&folder.join("gate.db"), &problem, &remedy);
    // A database that may be written does not help, because SQLite creates files beside it.
    let nobody = Nobody::new();
    let folder = nobody.folder("data", 0o755);
    let file = folder.join("gate.db");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    nobody.is_refused(&file, "cannot create files in", "chown");
}

#[actix_web::test]
async fn a_folder_that_cannot_be_created_or_entered_is_named() {
    let nobody = Nobody::new();
    let folder = nobody.folder("closed", 0o500);
    let missing = folder.join("a/b/gate.db");
    if nobody.user == 65534 {
        let problem = format!("cannot enter {} (owner 0", folder.display());
        nobody.is_refused(&folder.join("gate.db"), &problem, "chown 65534");
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    let remedy = format!(
        "install -d -o {} {}",
        nobody.user,
        folder.join("a/b").display()
    );
    nobody.is_refused(&missing, "cannot create files in", &remedy);
    fs::write(nobody.path("file"), "").unwrap();
    let below = nobody.path("file/gate.db");
    nobody.is_refused(&below, "file is not a folder", "correct the path");
}

#[actix_web::test]
async fn a_file_of_another_user_is_named_with_its_owner_and_mode() {
    let nobody = Nobody::new();
    let folder = nobody.folder("data", 0o777);
    let file = folder.join("gate.db");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    let problem = format!("cannot read and write {}", file.display());
    nobody.is_refused(&file, &problem, &format!("chown {}", nobody.user));
    let point = nobody.doctor(&counting(&file));
    assert!(
        point["message"].as_str().unwrap().contains("mode 0444"),
        "{point}"
    );
}

/// For example, those that `sqlite3` created for an operator who ran it as root.
#[actix_web::test]
async fn files_of_another_user_beside_the_database_are_named() {
    for name in ["gate.db-wal", "gate.db-shm"] {
        let nobody = Nobody::new();
        let folder = nobody.folder("data", 0o777);
        let (file, beside) = (folder.join("gate.db"), folder.join(name));
        for (path, mode) in [(&file, 0o666), (&beside, 0o444)] {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let problem = format!("cannot read and write {}", beside.display());
        let remedy = format!("chown {} {}", nobody.user, beside.display());
        nobody.is_refused(&file, &problem, &remedy);
    }
}

#[actix_web::test]
async fn a_file_system_that_is_mounted_read_only_is_named() {
    let can_mount = Command::new("unshare").args(["-m", "true"]).status();
    if !can_mount.is_ok_and(|status| status.success()) {
        // It needs a privilege.
        return;
    }
    let mut nobody = Nobody::new();
    let folder = nobody.folder("data", 0o777);
    let mount = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let path = folder.display().to_string().leak();
    nobody.wrapper = vec!["unshare", "-m", "sh", "-c", mount, path];
    for name in ["gate.db", "a/b/gate.db"] {
        nobody.is_refused(
            &folder.join(name),
            "is on a file system that is mounted read-only",
            "mount it read-write",
        );
    }
}

#[actix_web::test]
async fn what_is_no_database_is_named() {
    let nobody = Nobody::new();
    let folder = nobody.folder("data", 0o777);
    let example = format!("sqlite:{}", folder.join("gate.db").display());
    nobody.is_refused(&folder, "is a folder", &example);
    let file = folder.join("text.db");
    fs::write(
        &file,
        "some text that is long enough to be a header, or more\n".repeat(20),
    )
    .unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    nobody.is_refused(&file, "is not a SQLite database", "name another file");
    nobody.is_refused(
        Path::new("/dev/null"),
        "is not a regular file",
        "name a file",
    );
}

#[actix_web::test]
async fn missing_folders_that_can_be_created_are_created_at_the_start_only() {
    let nobody = Nobody::new();
    let folder = nobody.folder("data", 0o777);
    let file = folder.join("a/b/gate.db");
    let point = nobody.doctor(&counting(&file));
    assert_eq!(point["state"], "ok", "{point}");
    assert!(!folder.join("a").exists());
    let config = nobody.write(&counting(&file));
    let _gate = GateProcess::start(&config, &nobody.wrapper, "info").await;
    assert!(file.exists());
}

#[actix_web::test]
async fn a_change_of_owner_or_mode_stops_no_running_gate() {
    let nobody = Nobody::new();
    let folder = nobody.folder("data", 0o777);
    let file = folder.join("gate.db");
    let config = nobody.write(&counting(&file));
    let gate = GateProcess::start(&config, &nobody.wrapper, "info").await;
    let token = crate::helpers::Token::of("user_1").sign();
    assert_eq!(gate.ask(&token).await, Some(200));
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(gate.ask(&token).await, Some(200));
    // It is found before the next start.
    let point = nobody.doctor(&counting(&file));
    assert_eq!(point["state"], "failed", "{point}");
    assert_eq!(gate.remaining(&token).await, 3);
}

#[actix_web::test]
async fn a_database_of_memberships_that_cannot_be_read_is_named() {
    let nobody = Nobody::new();
    let folder = nobody.folder("data", 0o755);
    let url = sqlite(&folder, MEMBERS);
    let file = folder.join("app.db");
    let asking = |url: &str| {
        Gate::accepting(["app"])
            .set("stores.main.url", url)
            .policy("member", workspace_member().store("main").query(QUERY))
            .chain(["signed-in", "member"])
    };
    let point = nobody.doctor(&asking(&url));
    assert_eq!(point["state"], "ok", "{point}");
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    // Without the files of a write-ahead log, which the gate cannot create.
    let log = folder.join("log.db");
    let database = rusqlite::Connection::open(&log).unwrap();
    let log_mode = format!("PRAGMA journal_mode = wal; {MEMBERS}");
    database.execute_batch(&log_mode).unwrap();
    drop(database);
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    let log = format!("sqlite:{}", log.display());
    let missing = format!("sqlite:{}", folder.join("nowhere.db").display());
    for (url, problem, remedy) in [
        (&url, "cannot read", "chown"),
        (
            &log,
            "cannot create files in",
            "in WAL mode needs files beside it",
        ),
        (
            &missing,
            "nowhere.db does not exist",
            "the working directory, /",
        ),
    ] {
        let point = nobody.doctor(&asking(url));
        assert_eq!(point["state"], "failed", "{point}");
        assert!(
            point["message"].as_str().unwrap().contains(problem),
            "{point}"
        );
        assert!(
            point["remedy"].as_str().unwrap().contains(remedy),
            "{point}"
        );
    }
    // A running gate says the same in its log.
    let config = nobody.write(&asking(&missing));
    let gate = GateProcess::start(&config, &nobody.wrapper, "info").await;
    crate::helpers::eventually("the news", async || {
        gate.log().contains("nowhere.db does not exist")
    })
    .await;
}
