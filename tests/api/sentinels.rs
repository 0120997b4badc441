//! Real Sentinels, which watch a real Redis.

use tempfile::TempDir;

use crate::{
    helpers::eventually,
    real_parts::{Running, free_port},
    redis_server::Redis,
};

/// Sentinels that call the primary `counters`.
pub(crate) struct Sentinels {
    ports: Vec<u16>,
    folder: TempDir,
    _processes: Vec<Running>,
}

impl Sentinels {
    pub(crate) fn of(primary: &Redis) -> Self {
        Self::with(primary, "")
    }

    /// With more lines in their configs.
    pub(crate) fn with(primary: &Redis, lines: &str) -> Self {
        Self::start(3, primary.port(), lines)
    }

    /// One Sentinel of a primary at this port, which it never replaces.
    pub(crate) fn one(port: u16) -> Self {
        Self::one_with(port, "")
    }

    /// The same with more lines in its config.
    pub(crate) fn one_with(port: u16, lines: &str) -> Self {
        Self::start(1, port, lines)
    }

    fn start(count: usize, port_of_primary: u16, lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<_> = (0..count).map(|_| free_port()).collect();
        let processes = ports.iter().map(|port| {
            let config = folder.path().join(format!("sentinel-{port}.conf"));
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor counters 127.0.0.1 {port_of_primary} 2\n\
                 sentinel down-after-milliseconds counters 500\nsentinel failover-timeout counters 3000\n{lines}",
                folder.path().display(),
            );
            std::fs::write(&config, text).unwrap();
            let arguments = [config.to_str().unwrap(), "--sentinel"];
            Running::start("redis-server", &arguments, &config)
        });
        Self {
            _processes: processes.collect(),
            ports,
            folder,
        }
    }

    /// `127.0.0.1:1,127.0.0.1:2,127.0.0.1:3`
    pub(crate) fn addresses(&self) -> String {
        let addresses = self.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Waits until they know the replica and each other, so that they can promote it.
    pub(crate) async fn know_a_replica(&self) {
        eventually("the Sentinels", async || {
            self.ports.iter().all(|port| {
                let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
                let Ok(mut sentinel) = client.get_connection() else {
                    return false;
                };
                let info: String = redis::cmd("INFO").query(&mut sentinel).unwrap();
                info.contains("slaves=1,sentinels=3")
            })
        })
        .await;
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
