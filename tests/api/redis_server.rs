//! A real Redis, on a free port and in a temporary folder.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::real_parts::{are_here, free_port};

/// A server that keeps its data when it is killed.
pub(crate) struct Redis {
    server: Option<Child>,
    folder: TempDir,
    port: u16,
    options: Vec<String>,
}

impl Redis {
    /// A server that runs; `None` where Redis is not installed and tests may be skipped.
    #[track_caller]
    pub(crate) fn here() -> Option<Self> {
        Self::here_with(&[])
    }

    /// The same with more options.
    #[track_caller]
    pub(crate) fn here_with(options: &[&str]) -> Option<Self> {
        are_here(&["redis-server"]).then(|| Self::start(free_port(), options))
    }

    pub(crate) fn start(port: u16, options: &[&str]) -> Self {
        let mut server = Self {
            server: None,
            folder: tempfile::tempdir().unwrap(),
            port,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        server.come_up();
        server
    }

    /// A cluster of three nodes, each with a third of the slots.
    #[track_caller]
    pub(crate) fn cluster_here() -> Option<Vec<Self>> {
        are_here(&["redis-server", "redis-cli"]).then(Self::cluster)
    }

    /// A node for a cluster.
    pub(crate) fn node() -> Self {
        let bus = free_port().to_string();
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-require-full-coverage",
            "no",
        ];
        Self::start(free_port(), &options)
    }

    fn cluster() -> Vec<Self> {
        let nodes = vec![Self::node(), Self::node(), Self::node()];
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(nodes.iter().map(Self::address))
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        // Every node must learn about the cluster.
        for _ in 0..1000 {
            let knows = |node: &Self| node.run(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
            if nodes.iter().all(knows) {
                return nodes;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the nodes do not make a cluster");
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the server on its port with the data on its disk.
    pub(crate) fn come_up(&mut self) {
        let log = File::create(self.folder.path().join("log")).unwrap();
        let server = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--dir",
            ])
            .arg(self.folder.path())
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        for _ in 0..1000 {
            if self.ask(&["PING"]).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("Redis does not start");
    }

    /// Ends the server immediately, like a crash.
    pub(crate) fn go_down(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Sends the server a signal: `-STOP` makes it hang, `-CONT` ends that.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.server.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn ask(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut connection)
    }

    /// Runs a command; returns its answer as text.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let value = self.ask(words).unwrap();
        redis::from_redis_value(value).unwrap()
    }

    /// Runs a command that reads on this server, even if it is a replica of a cluster.
    pub(crate) fn run_here(&self, words: &[&str]) -> String {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        // Fails outside a cluster, where it is not needed.
        let _ = redis::cmd("READONLY").exec(&mut connection);
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut connection).unwrap()
    }

    /// Runs a command whose answer is a number.
    pub(crate) fn number(&self, words: &[&str]) -> i64 {
        redis::from_redis_value(self.ask(words).unwrap()).unwrap()
    }

    /// How often the server refused to run a command.
    pub(crate) fn refused(&self, command: &str) -> u64 {
        let stats = self.run(&["INFO", "commandstats"]);
        let line = format!("cmdstat_{command}:");
        let mut lines = stats.lines().filter(|found| found.starts_with(&line));
        let count = lines
            .next()
            .and_then(|line| line.split_once("rejected_calls="));
        count.map_or(0, |(_, rest)| {
            rest.split(',').next().unwrap().parse().unwrap()
        })
    }

    /// The names of all keys of a database.
    pub(crate) fn keys_of(&self, database: &str) -> Vec<String> {
        let client = redis::Client::open(format!("{}/{database}", self.url())).unwrap();
        let mut connection = client.get_connection().unwrap();
        redis::cmd("KEYS").arg("*").query(&mut connection).unwrap()
    }

    /// The names of all keys.
    pub(crate) fn keys(&self) -> Vec<String> {
        redis::from_redis_value(self.ask(&["KEYS", "*"]).unwrap()).unwrap()
    }

    /// How often a command was run.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.run(&["INFO", "commandstats"]);
        let line = format!("cmdstat_{command}:calls=");
        let found = stats.lines().find_map(|found| found.strip_prefix(&line));
        found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.go_down();
        }
    }
}
