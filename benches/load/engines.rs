//! The stores that gates share: real ones, with the settings that a quota needs to survive a power cut.

use std::{
    fs::{self, File},
    net::TcpStream,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{contenders::free_port, measure};

/// A server that ends when it is dropped.
pub(crate) struct Engine {
    server: Child,
    pub(crate) url: String,
}

impl Engine {
    pub(crate) fn redis(folder: &Path) -> Self {
        let port = free_port();
        let folder = make_folder(folder, port);
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(&folder)
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ]);
        Self::start(command, &folder, port, format!("redis://127.0.0.1:{port}"))
    }

    pub(crate) fn postgres(folder: &Path) -> Self {
        let port = free_port();
        let folder = make_folder(folder, port);
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let programs = programs();
        let program = |name: &str| {
            let path = programs.join(name);
            let mut command = if is_root {
                // The server refuses to run as root.
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
                command.arg(path);
                command
            } else {
                Command::new(path)
            };
            command.current_dir(&folder);
            command
        };
        if is_root {
            let id = |flag: &str| {
                let output = Command::new("id").args([flag, "postgres"]).output();
                let output = output.expect("id is installed").stdout;
                String::from_utf8_lossy(&output).trim().parse().ok()
            };
            chown(&folder, id("-u"), id("-g")).expect("root may give it away");
        }
        let data = folder.join("data");
        let made = program("initdb")
            .args(["--auth=trust", "--username=postgres", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "initdb works");
        let mut command = program("postgres");
        command
            .arg("-D")
            .arg(&data)
            .args([
                "-p",
                &port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-k",
            ])
            .arg(&folder);
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Self::start(command, &folder, port, url)
    }

    fn start(mut command: Command, folder: &Path, port: u16, url: String) -> Self {
        let log = File::create(folder.with_extension("log")).expect("the log can be written");
        let server = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("the engine is installed: apt-get install redis-server postgresql");
        let is_up = (0..500).any(|_| {
            thread::sleep(Duration::from_millis(20));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(is_up, "{url} does not start");
        // A PostgreSQL listens before it answers.
        thread::sleep(Duration::from_millis(500));
        Self { server, url }
    }
}

impl Engine {
    /// User and system time so far.
    pub(crate) fn cpu_us(&self) -> f64 {
        measure::cpu_us(&self.server)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SIGQUIT: PostgreSQL takes its own processes with it.
        let id = self.server.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &id]).status();
        thread::sleep(Duration::from_millis(200));
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn make_folder(folder: &Path, port: u16) -> PathBuf {
    let folder = folder.join(format!("engine-{port}"));
    fs::create_dir(&folder).expect("a folder can be made");
    // The server of PostgreSQL's must come by.
    for parent in folder.ancestors().skip(1).take(1) {
        let _ = Command::new("chmod").arg("a+x").arg(parent).status();
    }
    folder
}

/// Where PostgreSQL's programs are; Debian keeps them out of the path.
fn programs() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = debian.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).chain(debian);
    let found = found.find(|folder| folder.join("initdb").exists());
    found.expect("PostgreSQL is installed: apt-get install postgresql")
}
