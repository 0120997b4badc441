//! Real programs around the gate: identity providers and proxies, each a process on free ports.

use std::{
    env,
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

/// Whether all of these programs are installed. In `tests/run`, a missing program fails the test; elsewhere the test is
/// skipped with a note.
#[track_caller]
pub(crate) fn are_here(programs: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .collect();
    let is_here = |program: &str| match program.strip_prefix("npm:") {
        Some(package) => [providers(), browser(), workflows()]
            .into_iter()
            .chain(["nextjs", "vite", "express"].map(|example| examples().join(example)))
            .any(|folder| folder.join("node_modules").join(package).exists()),
        None => folders.iter().any(|folder| folder.join(program).exists()),
    };
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| !is_here(program))
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(
        env::var_os("IMGWIRE_GATE_TESTS_SKIP_NOTHING").is_none(),
        "{missing:?} are missing"
    );
    let at = std::panic::Location::caller();
    // Written directly, because the test runner hides the output of a passing test.
    let _ = writeln!(
        io::stderr(),
        "skipped: the tests of {} need {missing:?}, which tests/run installs",
        at.file()
    );
    false
}

/// Where the browser's tests are.
pub(crate) fn browser() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

fn providers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/providers")
}

/// Where the examples are.
pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Where the linter of the workflows is.
pub(crate) fn workflows() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workflows")
}

/// A process that ends with its test.
pub(crate) struct Running(Child);

impl Running {
    /// Starts a program whose output goes to a file beside `config`.
    pub(crate) fn start(program: &str, arguments: &[&str], config: &Path) -> Self {
        let log = File::create(config.with_extension("log")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }

    /// Starts one of the programs of `tests/providers`; returns the URL that it prints.
    pub(crate) fn provider(script: &str, arguments: &[&str]) -> (Self, String) {
        let mut child = Command::new("node")
            .current_dir(providers())
            .arg(script)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .find_map(|line| line.ok().filter(|line| line.starts_with("http://")))
            .expect("the provider starts");
        // A thread reads the rest, so that the process can write it.
        std::thread::spawn(move || lines.count());
        (Self(child), url)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A free port below 32768, so that no outgoing connection uses it.
pub(crate) fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(10_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// The code blocks of a language in a file of `docs`, in order.
pub(crate) fn blocks(file: &str, language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// A raw connection of a client with its own address.
pub(crate) struct RawClient(tokio::net::TcpStream);

impl RawClient {
    pub(crate) async fn connect(from: IpAddr, port: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let address = ([127, 0, 0, 1], port).into();
        Self(socket.connect(address).await.unwrap())
    }

    /// Sends a request without a body; returns the answer.
    pub(crate) async fn send(&mut self, method: &str, path: &str, headers: &str) -> RawAnswer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: app.example.com\r\n{headers}\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let mut is_over = false;
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && (is_over || is_whole(head, body))
            {
                return RawAnswer {
                    status: head.split(' ').nth(1).unwrap().parse().unwrap(),
                    head: head.to_owned(),
                    body: body.to_owned(),
                };
            }
            let mut chunk = [0; 4096];
            let read =
                tokio::time::timeout(std::time::Duration::from_secs(20), self.0.read(&mut chunk))
                    .await
                    .expect("an answer comes in time")
                    .unwrap_or(0);
            assert!(read > 0 || !is_over, "the connection ends in: {text}");
            is_over = read == 0;
            bytes.extend_from_slice(&chunk[..read]);
        }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl RawAnswer {
    /// The value of a header, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }
}

fn is_whole(head: &str, body: &str) -> bool {
    let head = head.to_ascii_lowercase();
    if head.starts_with("http/1.1 204") {
        return true;
    }
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() >= length.trim().parse::<usize>().unwrap())
}
