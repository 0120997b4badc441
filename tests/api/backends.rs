//! The backends of stores, each real, for suites that are the same for several of them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use imgwire_gate::{
    config::outbound::ExtraAuthorities,
    outbound::tls_config,
    stores::{Access, StoreContext, StoreSettings, Stores, UsedStore},
    telemetry::Metrics,
};
use policies::{Clock, StoreName, StoreUse};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    postgres::Postgres,
    redis_server::Redis,
    tcp_proxy::{Network, TcpProxy},
};

/// Runs every promise of a suite on each backend: a promise is an `async fn name<B: Backend>(backend: B)`, and a
/// backend is one line.
macro_rules! suite {
    ($promises:tt: $($module:ident: $backend:ty,)+) => {
        $($crate::backends::suite!(@ $module, $backend, $promises);)+
    };
    (@ $module:ident, $backend:ty, [$($promise:ident,)+]) => {
        mod $module {
            use super::*;

            $(
                #[actix_web::test]
                async fn $promise() {
                    if let Some(backend) = <$backend as $crate::backends::Backend>::found().await {
                        super::$promise(backend).await;
                    }
                }
            )+
        }
    };
}
pub(crate) use suite;

/// A backend of a store, which is empty.
pub(crate) trait Backend: Sized {
    /// `None` where it is not installed and tests may be skipped.
    async fn found() -> Option<Self>;

    fn url(&self) -> String;

    /// Forgets everything that is counted.
    async fn empty(&self);

    /// Becomes of no use until [`come_up`](Self::come_up), as by a crash.
    fn go_down(&mut self);

    async fn come_up(&mut self);
}

/// A backend that is a server.
pub(crate) trait Server: Backend {
    /// Its URL on another port.
    fn url_at(&self, port: u16) -> String;

    fn port(&self) -> u16;

    /// A URL of a server that hangs whenever it is told to.
    fn hanging(&self) -> (String, impl Fn(bool));
}

/// A backend that understands SQL.
pub(crate) trait Database: Backend {
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
            let empty = "DROP TABLE IF EXISTS quota_counters";
            self.connect().execute_batch(empty).unwrap();
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
    let settings = json!({ "url": url, "timeout": "5s" });
    let settings: StoreSettings = serde_json::from_value(settings).unwrap();
    let surroundings = StoreContext {
        tls: tls_config(&ExtraAuthorities::default()),
        clock,
        metrics: Arc::<Metrics>::default(),
    };
    let name = main_store();
    // A file that was open until now has a last thread that still ends.
    for _ in 0..500 {
        let store = UsedStore(&name, &settings, uses.to_vec());
        if let Ok(open) = Stores::open([store], &surroundings, Access::ReadWrite(None)) {
            return open;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the store cannot be opened")
}
