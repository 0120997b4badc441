//! A real PgBouncer before a real PostgreSQL.

use std::{
    fmt::Write as _,
    fs::{self, File},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    helpers::eventually,
    postgres::{Postgres, folder_of_the_server, run_as_server_in},
    real_parts::{are_here, free_port},
};

pub(crate) struct PgBouncer {
    child: Option<Child>,
    folder: TempDir,
    port: u16,
}

impl PgBouncer {
    /// A pooler that shares `size` server connections; `None` where it is not installed and tests may be skipped.
    #[track_caller]
    pub(crate) fn before(server: &Postgres, mode: &str, size: usize) -> Option<Self> {
        if !are_here(&["pgbouncer"]) {
            return None;
        }
        let folder = folder_of_the_server();
        let port = free_port();
        let mut config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n",
            server.port()
        );
        let _ = write!(
            config,
            "pool_mode = {mode}\ndefault_pool_size = {size}\nmax_client_conn = 500\nauth_type = trust\n\
             auth_file = users\nunix_socket_dir =\nserver_login_retry = 1\n"
        );
        fs::write(folder.path().join("config"), config).unwrap();
        fs::write(
            folder.path().join("users"),
            "\"postgres\" \"\"\n\"gate\" \"\"\n",
        )
        .unwrap();
        let mut pooler = Self {
            child: None,
            folder,
            port,
        };
        pooler.come_up();
        Some(pooler)
    }

    pub(crate) fn come_up(&mut self) {
        let log = File::create(self.folder.path().join("log")).unwrap();
        let mut command: Command =
            run_as_server_in(self.folder.path(), "/usr/sbin/pgbouncer".as_ref());
        let child = command
            .arg("config")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Ends it immediately, like a crash.
    pub(crate) fn go_down(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// A client of the app.
    pub(crate) async fn connect(&self) -> tokio_postgres::Client {
        let mut connected = None;
        eventually("PgBouncer", async || {
            let opened = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await;
            connected = opened.ok();
            connected.is_some()
        })
        .await;
        let (client, connection) = connected.unwrap();
        actix_web::rt::spawn(connection);
        client
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.go_down();
        }
    }
}
