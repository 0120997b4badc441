//! Real backends of stores, and suites that run on several of them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use policies::{Clock, StoreName, StoreUse, SystemClock};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    helpers::{
        Access, ExtraAuthorities, Metrics, Store, StoreContext, StoreSettings, Stores, UrlSource,
        UsedStore, tls_config,
    },
    postgres::Postgres,
    redis_server::Redis,
    tcp_proxy::{Network, TcpProxy},
};

/// Runs every test of a suite on each backend: a test is an `async fn name(backend: impl Backend)`, and a backend is
/// one line.
macro_rules! suite {
    ($tests:tt: $($module:ident: $backend:ty,)+) => {
        $($crate::backends::suite!(@ $module, $backend, $tests);)+
    };
    (@ $module:ident, $backend:ty, [$($test:ident,)+]) => {
        mod $module {
            use super::*;

            $(
                #[actix_web::test]
                async fn $test() {
                    if let Some(backend) = <$backend as $crate::backends::Backend>::found().await {
                        super::$test(backend).await;
                    }
                }
            )+
        }
    };
}
pub(crate) use suite;

/// A backend of a store, which is empty.
pub(crate) trait Backend: Sized {
    /// `None` if it is not installed and tests may be skipped.
    async fn found() -> Option<Self>;

    fn url(&self) -> String;

    /// Deletes all counters.
    async fn empty(&self);

    /// Fails like a crashed server until [`come_up`](Self::come_up).
    fn go_down(&mut self);

    async fn come_up(&mut self);
}

/// A backend that is a server.
pub(crate) trait Server: Backend {
    /// Its URL on another port.
    fn url_at(&self, port: u16) -> String;

    fn port(&self) -> u16;

    /// A URL of the server, and a function that makes it hang or work.
    fn hanging(&self) -> (String, impl Fn(bool));
}

/// A backend that understands SQL.
pub(crate) trait Database: Backend {
    /// The table of the gate's quota counters.
    const COUNTERS: &str;

    async fn run_sql(&self, sql: &str);

    async fn count(&self, table: &str) -> i64;
}

/// A SQLite file.
pub(crate) struct Sqlite {
    folder: TempDir,
    locker: Option<rusqlite::Connection>,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            locker: None,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("gate.db")
    }

    pub(crate) fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

impl Backend for Sqlite {
    async fn found() -> Option<Self> {
        Some(Self::new())
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    async fn empty(&self) {
        if self.path().exists() {
            let tables = [
                "quota_counters",
                "upload_intents",
                "upload_records",
                "upload_keys",
                "upload_unkeyed",
                "upload_storage",
                "upload_events",
                "upload_reconciliations",
            ];
            let empty = tables.map(|table| format!("DROP TABLE IF EXISTS {table};"));
            self.connect().execute_batch(&empty.concat()).unwrap();
        }
    }

    fn go_down(&mut self) {
        let locker = self.connect();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        self.locker = Some(locker);
    }

    async fn come_up(&mut self) {
        self.locker = None;
    }
}

impl Database for Sqlite {
    const COUNTERS: &str = "quota_counters";

    async fn run_sql(&self, sql: &str) {
        self.connect().execute_batch(sql).unwrap();
    }

    async fn count(&self, table: &str) -> i64 {
        let count = format!("select count(*) from {table}");
        let count = self.connect().query_row(&count, [], |row| row.get(0));
        count.unwrap()
    }
}

impl Backend for Redis {
    async fn found() -> Option<Self> {
        Self::here()
    }

    fn url(&self) -> String {
        self.url()
    }

    async fn empty(&self) {
        self.run(&["FLUSHALL"]);
    }

    fn go_down(&mut self) {
        self.go_down();
    }

    async fn come_up(&mut self) {
        self.come_up();
    }
}

impl Server for Redis {
    fn url_at(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}")
    }

    fn port(&self) -> u16 {
        self.port()
    }

    fn hanging(&self) -> (String, impl Fn(bool)) {
        let hang = |hangs| self.signal(if hangs { "-STOP" } else { "-CONT" });
        (self.url(), hang)
    }
}

impl Backend for Postgres {
    async fn found() -> Option<Self> {
        Some(Self::here()?.await)
    }

    fn url(&self) -> String {
        self.url()
    }

    async fn empty(&self) {
        self.run("drop schema if exists imgwire_gate cascade").await;
    }

    fn go_down(&mut self) {
        self.go_down();
    }

    async fn come_up(&mut self) {
        self.come_up().await;
    }
}

impl Server for Postgres {
    fn url_at(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }

    fn port(&self) -> u16 {
        self.port()
    }

    fn hanging(&self) -> (String, impl Fn(bool)) {
        let proxy = TcpProxy::before(self.port());
        let url = self.url_at(proxy.port());
        let hang = move |hangs| {
            let network = if hangs {
                Network::Drops
            } else {
                Network::Works
            };
            proxy.set(network);
        };
        (url, hang)
    }
}

impl Database for Postgres {
    const COUNTERS: &str = "imgwire_gate.quota";

    async fn run_sql(&self, sql: &str) {
        self.run(sql).await;
    }

    async fn count(&self, table: &str) -> i64 {
        self.number(&format!("select count(*) from {table}")).await
    }
}

pub(crate) fn main_store() -> StoreName {
    StoreName::parse("main").unwrap()
}

/// Opens the store `main` for some uses.
pub(crate) fn open(url: &str, uses: &[StoreUse], clock: Arc<dyn Clock>) -> Stores {
    open_as(url, uses, clock, Access::ReadWrite(None))
}

pub(crate) fn open_as(
    url: &str,
    uses: &[StoreUse],
    clock: Arc<dyn Clock>,
    access: Access<'_>,
) -> Stores {
    let settings = json!({ "url": url, "timeout": "5s" });
    let settings: StoreSettings = serde_json::from_value(settings).unwrap();
    let UrlSource::Text(url) = settings.url.clone() else {
        panic!("a secret")
    };
    let configured = Store { url, settings };
    let surroundings = StoreContext {
        tls: tls_config(&ExtraAuthorities::default()),
        clock,
        metrics: Arc::<Metrics>::default(),
    };
    let name = main_store();
    // The last thread of a store that was closed may still hold the file.
    for _ in 0..500 {
        let store = UsedStore(&name, &configured, uses.to_vec());
        if let Ok(open) = Stores::open([store], &surroundings, access) {
            return open;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the store cannot be opened")
}

pub(crate) fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}
