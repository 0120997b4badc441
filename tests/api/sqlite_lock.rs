//! Only one process counts in a SQLite file, whatever its path is and whatever is deleted beside it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::{
    helpers::{Emulator, Gate, Token, eventually},
    process::{GateProcess, gate_with_quota, program, text},
};

/// A gate that counts in `gate.db`, and its folder.
struct First {
    gate: GateProcess,
    folder: tempfile::TempDir,
    imgwire: Emulator,
}

impl First {
    async fn start() -> Self {
        let imgwire = Emulator::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = gate_with_quota(100).write(imgwire.url(), folder.path());
        Self {
            gate: GateProcess::start(&config, &[], "info").await,
            folder,
            imgwire,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, url: &str) -> PathBuf {
        let other = self.folder.path().join("other");
        fs::create_dir_all(&other).unwrap();
        let gate: Gate = gate_with_quota(100).set("stores.main.url", url);
        gate.write(self.imgwire.url(), &other)
    }

    /// Starts a second gate in the folder, which must end by itself.
    fn second(&self, url: &str) -> Output {
        program(&["timeout", "10"])
            .arg("--config")
            .arg(self.config(url))
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn refuses(&self, path: &Path) {
        let output = self.second(&format!("sqlite:{}", path.display()));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{path:?}: {stderr}");
        assert!(stderr.contains("in use by another process"), "{stderr}");
    }

    async fn works(&self) {
        let token = Token::of("user_1").sign();
        assert_eq!(self.gate.ask(&token).await, Some(200));
    }
}

#[actix_web::test]
async fn a_second_process_is_refused_by_every_path_to_the_file() {
    let first = First::start().await;
    first.works().await;
    let (db, link) = (first.path("gate.db"), first.path("link.db"));
    symlink(&db, &link).unwrap();
    let linked_folder = first.path("linked");
    symlink(first.folder.path(), &linked_folder).unwrap();
    let hard = first.path("hard.db");
    fs::hard_link(&db, &hard).unwrap();
    fs::create_dir(first.path("sub")).unwrap();
    for path in [
        db.clone(),
        link,
        linked_folder.join("gate.db"),
        hard,
        "gate.db".into(),
        "./sub/../gate.db".into(),
    ] {
        first.refuses(&path);
        first.works().await;
    }
}

#[actix_web::test]
async fn a_second_process_is_refused_by_another_mount_of_the_folder() {
    let first = First::start().await;
    let mounted = first.path("mounted");
    fs::create_dir(&mounted).unwrap();
    let mount = Command::new("mount")
        .arg("--bind")
        .args([first.folder.path(), &mounted])
        .output()
        .unwrap();
    if !mount.status.success() {
        // It needs a privilege.
        return;
    }
    first.refuses(&mounted.join("gate.db"));
    let unmounted = Command::new("umount").arg(&mounted).status();
    assert!(unmounted.unwrap().success());
}

#[actix_web::test]
async fn a_second_process_is_refused_after_everything_beside_the_file_was_deleted() {
    let first = First::start().await;
    first.works().await;
    let db = first.path("gate.db");
    first.refuses(&db);
    for entry in fs::read_dir(first.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("gate.db") && name != "gate.db" {
            fs::remove_file(&path).unwrap();
        }
    }
    // An old lock file, or one that someone creates, means nothing.
    fs::write(first.path("gate.db.lock"), "").unwrap();
    fs::remove_file(first.path("gate.db.lock")).unwrap();
    first.refuses(&db);
}

#[actix_web::test]
async fn the_file_is_free_after_a_kill() {
    let mut first = First::start().await;
    first.works().await;
    for _ in 0..3 {
        first.gate.signal("-KILL");
        first.gate.end().await;
        let config = first.config(&format!("sqlite:{}", first.path("gate.db").display()));
        first.gate = GateProcess::start(&config, &[], "info").await;
        first.works().await;
    }
}

#[actix_web::test]
async fn a_gate_whose_file_was_moved_never_counts_in_the_one_of_another_gate() {
    let first = First::start().await;
    first.works().await;
    let db = first.path("gate.db");
    let token = Token::of("user_1").sign();
    fs::rename(&db, first.path("moved.db")).unwrap();
    assert_eq!(first.gate.ask(&token).await, Some(500));
    let config = first.config(&format!("sqlite:{}", db.display()));
    let second = GateProcess::start(&config, &[], "info").await;
    for _ in 0..3 {
        assert_eq!(second.ask(&token).await, Some(200));
        assert_eq!(first.gate.ask(&token).await, Some(500));
    }
    // A reload of the first does not take it from the second.
    first.gate.signal("-HUP");
    crate::helpers::eventually("the refusal", async || {
        first.gate.log().contains("config reload failed")
    })
    .await;
    assert_eq!(first.gate.ask(&token).await, Some(500));
    assert_eq!(second.remaining(&token).await, 97);
}

/// How many locks the process of a gate has on the file by `fcntl`, as SQLite does. Only Linux lists them.
fn locks_of_sqlite(gate: &GateProcess, db: &Path) -> Option<usize> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let inode = format!(":{}", fs::metadata(db).unwrap().ino());
    let process = gate.id().to_string();
    let of_gate = locks.lines().filter(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words[1] == "POSIX" && words[4] == process && words[5].ends_with(&inode)
    });
    Some(of_gate.count())
}

/// A process that closes any descriptor of a file loses all its `fcntl` locks on that file.
#[actix_web::test]
async fn the_gate_looks_at_its_file_without_losing_the_locks_of_sqlite() {
    let first = First::start().await;
    first.works().await;
    let db = first.path("gate.db");
    let Some(locks) = locks_of_sqlite(&first.gate, &db) else {
        return;
    };
    assert_eq!(locks, 1);
    first.gate.signal("-HUP");
    eventually("the reload", async || {
        first.gate.log().contains("config reloaded")
    })
    .await;
    // The gate looks at the file several times.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        first.works().await;
        assert_eq!(locks_of_sqlite(&first.gate, &db), Some(1));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
