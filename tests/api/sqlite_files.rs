//! A SQLite file of counters that is replaced, deleted or damaged while a gate has it open.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::{
    helpers::{Emulator, Gate, Token, eventually, quota},
    process::GateProcess,
    watched::Watched,
};

const LIMIT: u64 = 9;

/// A gate with one quota, whose counters are in the folder `data`.
struct Counting {
    gate: GateProcess,
    folder: tempfile::TempDir,
    config: PathBuf,
    _imgwire: Emulator,
}

impl Counting {
    async fn start() -> Self {
        let imgwire = Emulator::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let monthly = quota().per(["user"]).limit(LIMIT).window("month");
        let url = format!("sqlite:{}", folder.path().join("data/gate.db").display());
        let gate = Gate::accepting(["app"])
            .policy("quota", monthly)
            .chain(["signed-in", "quota"])
            .set("stores.main.url", url);
        let config = gate.write(imgwire.url(), folder.path());
        Self {
            gate: GateProcess::start(&config, &[], "info").await,
            folder,
            config,
            _imgwire: imgwire,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn db(&self) -> PathBuf {
        self.path("data/gate.db")
    }

    async fn ask(&self) -> u16 {
        let token = Token::of("user_1").sign();
        self.gate.ask(&token).await.unwrap()
    }

    async fn issue(&self, count: u64) {
        for _ in 0..count {
            assert_eq!(self.ask().await, 200);
        }
    }

    async fn remaining(&self) -> u64 {
        self.gate.remaining(&Token::of("user_1").sign()).await
    }

    async fn is_ready(&self) -> bool {
        let url = format!("{}/readyz", self.gate.management());
        let answer = awc::Client::default().get(url).send().await;
        answer.unwrap().status() == 200
    }

    /// Asserts that the gate notices it within a second or so, reports it once, and issues nothing.
    async fn fails(&self, reason: &str) {
        let began = Instant::now();
        eventually("the fault", async || !self.is_ready().await).await;
        assert!(began.elapsed() < Duration::from_secs(3));
        assert_eq!(self.ask().await, 500);
        // Another thread writes the log.
        eventually("the line", async || !self.down().is_empty()).await;
        let lines = self.down();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(reason), "{lines:?}");
    }

    /// The reasons for which the store was down.
    fn down(&self) -> Vec<String> {
        let lines = self.gate.lines().into_iter();
        let down = lines.filter(|line| line["message"] == "the store is down");
        let reasons = down.map(|line| {
            assert_eq!(line["level"], "ERROR");
            line["reason"].as_str().unwrap().to_owned()
        });
        reasons.collect()
    }

    async fn comes_back(&self) {
        eventually("its return", async || self.is_ready().await).await;
    }

    /// Kills the gate, and starts it again.
    async fn restart(&mut self, signal: &str) {
        self.gate.signal(signal);
        self.gate.end().await;
        self.gate = GateProcess::start(&self.config, &[], "info").await;
    }

    /// Writes a copy of the database, as a backup does.
    fn back_up(&self) -> PathBuf {
        let backup = self.path("backup.db");
        let into = format!("VACUUM INTO '{}'", backup.display());
        let database = Connection::open(self.db()).unwrap();
        database.execute_batch(&into).unwrap();
        backup
    }
}

fn rows(path: &Path) -> i64 {
    let database = Connection::open(path).unwrap();
    let count = "SELECT count(*) FROM quota_counters";
    database.query_row(count, [], |row| row.get(0)).unwrap()
}

fn empty_database(path: &Path) {
    let database = Connection::open(path).unwrap();
    let table = "CREATE TABLE quota_counters (policy TEXT NOT NULL, key TEXT NOT NULL, window_start INTEGER NOT NULL,
        window_end INTEGER NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (policy, key)) STRICT, WITHOUT ROWID";
    database.execute_batch(table).unwrap();
}

#[actix_web::test]
async fn no_token_is_issued_after_the_counters_were_replaced_until_the_same_file_is_back() {
    let gate = Counting::start().await;
    gate.issue(3).await;
    let other = gate.path("other.db");
    empty_database(&other);
    fs::rename(gate.db(), gate.path("moved.db")).unwrap();
    fs::rename(&other, gate.db()).unwrap();
    // At once, not only when the gate looks at the file.
    assert_eq!(gate.ask().await, 500);
    gate.fails("is another file now; put the earlier file back")
        .await;
    assert_eq!(rows(&gate.db()), 0, "it counts nothing in the other file");
    fs::rename(gate.path("moved.db"), gate.db()).unwrap();
    gate.comes_back().await;
    assert_eq!(gate.remaining().await, LIMIT - 3);
    gate.issue(LIMIT - 3).await;
    assert_eq!(gate.ask().await, 429);
}

#[actix_web::test]
async fn a_reload_counts_on_in_a_restored_backup() {
    let gate = Counting::start().await;
    gate.issue(2).await;
    let backup = gate.back_up();
    gate.issue(4).await;
    fs::rename(&backup, gate.db()).unwrap();
    gate.fails("is another file now").await;
    gate.gate.signal("-HUP");
    gate.comes_back().await;
    assert_eq!(gate.remaining().await, LIMIT - 2);
    gate.issue(LIMIT - 2).await;
    assert_eq!(gate.ask().await, 429);
    assert_eq!(gate.down().len(), 1);
}

/// The log of the earlier file must not become a part of the other one.
#[actix_web::test]
async fn a_reload_before_the_gate_notices_a_restored_backup_counts_on_in_it() {
    let gate = Counting::start().await;
    gate.issue(2).await;
    let backup = gate.back_up();
    gate.issue(4).await;
    fs::rename(&backup, gate.db()).unwrap();
    gate.gate.signal("-HUP");
    eventually("the reload", async || {
        gate.gate.log().contains("config reloaded")
    })
    .await;
    gate.comes_back().await;
    assert_eq!(gate.remaining().await, LIMIT - 2);
    gate.issue(LIMIT - 2).await;
    assert_eq!(gate.ask().await, 429);
}

#[actix_web::test]
async fn a_changed_timeout_holds_for_a_database_that_a_reload_opens_again() {
    const WAITING: &str = "changed settings take effect after a restart";
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("gate.db");
    let builder = |timeout: &str| {
        let monthly = quota().per(["user"]).limit(LIMIT).window("month");
        Gate::accepting(["app"])
            .policy("quota", monthly)
            .chain(["signed-in", "quota"])
            .set("stores.main.url", format!("sqlite:{}", db.display()))
            .set("stores.main.timeout", timeout)
    };
    let gate = Watched::start(&builder("2s")).await;
    gate.reload(&builder("3s"));
    eventually("the first reload", async || gate.lines(WAITING).len() == 1).await;
    assert_eq!(gate.lines(WAITING)[0]["keys"], "stores.main.timeout");
    let other = folder.path().join("other.db");
    empty_database(&other);
    fs::rename(&other, &db).unwrap();
    gate.reload(&builder("4s"));
    eventually("the second reload", async || {
        gate.lines("config reloaded").len() == 2
    })
    .await;
    assert_eq!(gate.lines(WAITING).len(), 1);
    eventually("a token", async || gate.ask().await == 200).await;
}

/// For example by an operator with `sqlite3`.
#[actix_web::test]
async fn a_deleted_table_is_created_again_and_loses_no_count_of_the_open_gate() {
    let gate = Counting::start().await;
    gate.issue(3).await;
    let database = Connection::open(gate.db()).unwrap();
    database.execute_batch("DROP TABLE quota_counters").unwrap();
    eventually("a token", async || gate.ask().await == 200).await;
    assert_eq!(gate.remaining().await, LIMIT - 4);
    assert_eq!(rows(&gate.db()), 1);
    assert!(gate.down().len() <= 1, "{:?}", gate.down());
}

#[actix_web::test]
async fn a_restart_counts_on_in_a_restored_backup() {
    let mut gate = Counting::start().await;
    gate.issue(2).await;
    let backup = gate.back_up();
    gate.issue(4).await;
    fs::rename(&backup, gate.db()).unwrap();
    gate.fails("is another file now").await;
    gate.restart("-TERM").await;
    assert_eq!(gate.remaining().await, LIMIT - 2);
    gate.issue(LIMIT - 2).await;
    assert_eq!(gate.ask().await, 429);
}

#[actix_web::test]
async fn a_deleted_database_is_not_counted_in_and_a_reload_creates_no_empty_one() {
    let mut gate = Counting::start().await;
    gate.issue(3).await;
    fs::remove_file(gate.db()).unwrap();
    assert_eq!(gate.ask().await, 500);
    gate.fails("was deleted or moved").await;
    gate.gate.signal("-HUP");
    eventually("the reload", async || {
        gate.gate.log().contains("config reloaded")
    })
    .await;
    assert_eq!(gate.ask().await, 500);
    assert!(!gate.db().exists());
    // The operator decides to begin again.
    gate.restart("-TERM").await;
    assert_eq!(gate.remaining().await, LIMIT);
}

#[actix_web::test]
async fn a_database_whose_folder_is_gone_is_used_again_when_the_folder_is_back() {
    let gate = Counting::start().await;
    gate.issue(3).await;
    // As if the file system was unmounted.
    fs::rename(gate.path("data"), gate.path("unmounted")).unwrap();
    gate.fails("its folder or file system is gone").await;
    fs::create_dir(gate.path("data")).unwrap();
    assert_eq!(gate.ask().await, 500);
    fs::remove_dir(gate.path("data")).unwrap();
    fs::rename(gate.path("unmounted"), gate.path("data")).unwrap();
    gate.comes_back().await;
    gate.issue(LIMIT - 3).await;
    assert_eq!(gate.ask().await, 429);
}

#[actix_web::test]
async fn a_deleted_log_is_written_again_and_loses_no_count() {
    for beside in ["data/gate.db-wal", "data/gate.db-shm"] {
        let mut gate = Counting::start().await;
        gate.issue(3).await;
        fs::remove_file(gate.path(beside)).unwrap();
        eventually("the fault", async || !gate.down().is_empty()).await;
        let name = beside.rsplit('/').next().unwrap();
        assert!(gate.down()[0].contains(name), "{:?}", gate.down());
        gate.comes_back().await;
        gate.issue(2).await;
        gate.restart("-KILL").await;
        assert_eq!(gate.remaining().await, LIMIT - 5, "{beside}");
    }
}

#[actix_web::test]
async fn a_truncated_database_issues_nothing_whatever_is_left_of_it() {
    for size in [0, 100, 4096] {
        let gate = Counting::start().await;
        gate.issue(3).await;
        let file = File::options().write(true).open(gate.db()).unwrap();
        // It is longer than what is left.
        let database = Connection::open(gate.db()).unwrap();
        database
            .execute_batch("CREATE TABLE other (x); PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        drop(database);
        tokio::time::sleep(Duration::from_secs(1)).await;
        file.set_len(size).unwrap();
        gate.fails("was truncated or overwritten").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(gate.ask().await, 500, "{size}");
        assert!(!gate.is_ready().await);
    }
}

#[actix_web::test]
async fn a_backup_that_is_copied_over_the_open_database_is_a_fault() {
    let mut gate = Counting::start().await;
    gate.issue(3).await;
    let backup = gate.back_up();
    let copied = std::process::Command::new("cp")
        .args([&backup, &gate.db()])
        .status();
    assert!(copied.unwrap().success());
    assert_eq!(gate.ask().await, 500);
    gate.fails("was truncated or overwritten").await;
    // Restored as the documentation says, without a restart.
    fs::rename(&backup, gate.db()).unwrap();
    gate.gate.signal("-HUP");
    gate.comes_back().await;
    assert_eq!(gate.remaining().await, LIMIT - 3);
    gate.restart("-KILL").await;
    assert_eq!(gate.remaining().await, LIMIT - 3);
}

#[actix_web::test]
async fn vacuum_by_an_operator_is_no_damage() {
    let gate = Counting::start().await;
    gate.issue(3).await;
    let database = Connection::open(gate.db()).unwrap();
    let fill = "CREATE TABLE big AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000)
        SELECT x, hex(randomblob(50)) FROM n; PRAGMA wal_checkpoint(TRUNCATE)";
    database.execute_batch(fill).unwrap();
    gate.issue(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let shrink = "DROP TABLE big; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)";
    database.execute_batch(shrink).unwrap();
    gate.issue(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.issue(1).await;
    assert!(gate.down().is_empty(), "{:?}", gate.down());
}

#[actix_web::test]
async fn a_link_that_leads_to_another_database_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let (link, first, second) = (
        folder.path().join("link.db"),
        folder.path().join("first.db"),
        folder.path().join("second.db"),
    );
    empty_database(&first);
    empty_database(&second);
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let monthly = quota().per(["user"]).limit(9).window("month");
    let builder = Gate::accepting(["app"])
        .policy("quota", monthly)
        .chain(["signed-in", "quota"])
        .set("stores.main.url", format!("sqlite:{}", link.display()));
    let gate = Watched::start(&builder).await;
    assert_eq!(gate.ask().await, 200);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&second, &link).unwrap();
    gate.stays_down("is another file now").await;
    assert_eq!(rows(&second), 0);
}
