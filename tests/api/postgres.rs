//! A real PostgreSQL, on a free port and in a temporary folder.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    helpers::eventually,
    real_parts::{are_here, free_port},
};

/// A server whose only user is `postgres`, without a password.
pub(crate) struct Postgres {
    server: Option<Child>,
    folder: TempDir,
    port: u16,
}

impl Postgres {
    /// A server that runs; `None` where PostgreSQL is not installed and tests may be skipped.
    #[track_caller]
    pub(crate) fn here() -> Option<impl Future<Output = Self>> {
        // Debian keeps the server's programs out of the path.
        programs().or_else(|| {
            are_here(&["postgres"]);
            None
        })?;
        Some(Self::start())
    }

    async fn start() -> Self {
        let mut server = Self {
            server: None,
            port: free_port(),
            folder: folder_of_the_server(),
        };
        let made = server
            .program("initdb")
            .args([
                "--auth=trust",
                "--username=postgres",
                "--no-sync",
                "--encoding=UTF8",
                "-D",
            ])
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        server.come_up().await;
        server
    }

    /// A replica of this server.
    pub(crate) async fn replica(&self) -> Self {
        let mut replica = Self {
            server: None,
            port: free_port(),
            folder: folder_of_the_server(),
        };
        let copied = replica
            .program("pg_basebackup")
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-R",
                "-c",
                "fast",
                "-X",
                "stream",
            ])
            .args(["-p", &self.port.to_string(), "-D"])
            .arg(replica.data())
            .output()
            .unwrap();
        assert!(copied.status.success(), "{copied:?}");
        replica.come_up().await;
        replica
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Requires TLS and a password for the user `gate`; returns the file of the server's certificate.
    pub(crate) async fn secure(&self, password: &str) -> PathBuf {
        let made = self
            .run_as_server("openssl".as_ref())
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args(["-keyout", "data/server.key", "-out", "data/server.crt"])
            .args(["-subj", "/CN=database"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let rules = self.data().join("pg_hba.conf");
        let others = fs::read_to_string(&rules).unwrap();
        let gate = "hostssl all gate 127.0.0.1/32 scram-sha-256\nhost all gate all reject";
        fs::write(&rules, format!("{gate}\n{others}")).unwrap();
        self.run(&format!("create role gate login password '{password}'"))
            .await;
        self.run("alter system set ssl = on").await;
        self.run("select pg_reload_conf()").await;
        eventually("TLS", async || self.text("show ssl").await == "on").await;
        self.data().join("server.crt")
    }

    /// Creates a user who must have this password.
    pub(crate) async fn require_password(&self, user: &str, password: &str) {
        let rules = self.data().join("pg_hba.conf");
        let others = fs::read_to_string(&rules).unwrap();
        let rule = format!("host all {user} all scram-sha-256");
        fs::write(&rules, format!("{rule}\n{others}")).unwrap();
        self.run(&format!("create role {user} login password '{password}'"))
            .await;
        self.run("select pg_reload_conf()").await;
    }

    /// Serves this certificate, and asks clients for one of `authority`. `rule` says how the user `gate` signs in.
    pub(crate) async fn serve_tls(
        &self,
        certificate: &Path,
        key: &Path,
        authority: &Path,
        rule: &str,
    ) {
        for (from, to) in [
            (certificate, "server.crt"),
            (key, "server.key"),
            (authority, "root.crt"),
        ] {
            let to = self.data().join(to);
            let is_key = to.ends_with("server.key");
            fs::copy(from, &to).unwrap();
            let owner = fs::metadata(self.data()).unwrap();
            chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
            let mode = if is_key { 0o600 } else { 0o644 };
            fs::set_permissions(&to, Permissions::from_mode(mode)).unwrap();
        }
        let rules = self.data().join("pg_hba.conf");
        let others = fs::read_to_string(&rules).unwrap();
        fs::write(
            &rules,
            format!("{rule}\nhost all gate all reject\n{others}"),
        )
        .unwrap();
        for setting in [
            "alter system set ssl_ca_file = 'root.crt'",
            "alter system set ssl = on",
            "select pg_reload_conf()",
        ] {
            self.run(setting).await;
        }
        eventually("TLS", async || self.text("show ssl").await == "on").await;
    }

    fn program(&self, name: &str) -> Command {
        self.run_as_server(&programs().unwrap().join(name))
    }

    fn run_as_server(&self, path: &Path) -> Command {
        run_as_server_in(self.folder.path(), path)
    }

    /// Starts the server on its port.
    pub(crate) async fn come_up(&mut self) {
        let log = File::create(self.folder.path().join("log")).unwrap();
        let server = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .arg("-k")
            .arg(self.folder.path())
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=200",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        eventually("PostgreSQL", async || self.connect().await.is_ok()).await;
    }

    /// Ends the server immediately, like a crash.
    pub(crate) fn go_down(&mut self) {
        let mut server = self.server.take().unwrap();
        // SIGQUIT also ends the processes of the server.
        let quit = Command::new("kill")
            .args(["-QUIT", &server.id().to_string()])
            .status();
        assert!(quit.unwrap().success());
        server.wait().unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// The same server by its Unix socket.
    pub(crate) fn url_of_socket(&self) -> String {
        let folder = self.folder.path().display().to_string();
        let folder = folder.replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/postgres", self.port)
    }

    async fn connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await?;
        actix_web::rt::spawn(connection);
        Ok(client)
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        let client = self.connect().await.unwrap();
        client.batch_execute(sql).await.unwrap();
    }

    /// Runs a statement in a transaction that lasts as long as the client does.
    pub(crate) async fn hold(&self, sql: &str) -> tokio_postgres::Client {
        let client = self.connect().await.unwrap();
        client
            .batch_execute(&format!("begin; {sql}"))
            .await
            .unwrap();
        client
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        let client = self.connect().await.unwrap();
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// The first column of the first row.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let client = self.connect().await.unwrap();
        client.query_one(sql, &[]).await.unwrap().get(0)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.go_down();
        }
    }
}

/// The folder with the programs of the newest installed version.
fn programs() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = debian.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<_> = std::env::split_paths(&folders)
        .chain(debian)
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    found.sort_by_key(|folder: &PathBuf| version(folder));
    found.pop()
}

fn version(folder: &Path) -> Option<u32> {
    folder.parent()?.file_name()?.to_str()?.parse().ok()
}

/// A folder that the server's user owns, because the server does not run as root.
pub(crate) fn folder_of_the_server() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if fs::metadata(folder.path()).unwrap().uid() == 0 {
        let id = |flag: &str| {
            let output = Command::new("id")
                .args([flag, "postgres"])
                .output()
                .unwrap();
            String::from_utf8(output.stdout)
                .unwrap()
                .trim()
                .parse()
                .unwrap()
        };
        chown(folder.path(), Some(id("-u")), Some(id("-g"))).unwrap();
    }
    folder
}

/// A program as the server's user, in a folder.
pub(crate) fn run_as_server_in(folder: &Path, path: &Path) -> Command {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir(folder);
    command
}
