//! A gate that stops finishes what runs, and ends long before its grace.

use std::{
    io::{self, Read as _, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    helpers::{Emulator, Gate, Misbehaviour, ROUTE, Token, eventually},
    process::{GateProcess, write_config},
};

const DELAY: Duration = Duration::from_millis(700);

/// A listener of the gate, as its clients know it.
#[derive(Clone)]
enum Target {
    Tcp(String),
    Unix(PathBuf),
}

trait Stream: io::Read + Write + Send {}

impl<T: io::Read + Write + Send> Stream for T {}

impl Target {
    fn of(url: &str) -> Self {
        Self::Tcp(url.trim_start_matches("http://").to_owned())
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        const TIMEOUT: Option<Duration> = Some(Duration::from_secs(20));
        Ok(match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(TIMEOUT)?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(TIMEOUT)?;
                Box::new(stream)
            }
        })
    }
}

struct Response {
    status: u16,
    closes: bool,
}

/// Sends a request and reads the whole response. Fails if the connection ends before.
fn exchange(stream: &mut dyn Stream, request: &str) -> io::Result<Response> {
    stream.write_all(request.as_bytes())?;
    receive(stream)
}

fn receive(stream: &mut dyn Stream) -> io::Result<Response> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let length = lines.find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok(Response {
                    status: head.split(' ').nth(1).unwrap().parse().unwrap(),
                    closes: head.contains("connection: close"),
                });
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

/// A request for a token.
fn post(body: &str) -> String {
    let token = Token::of("user_1").sign();
    let length = body.len();
    format!(
        "POST {ROUTE} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// What a client saw until the gate refused it.
#[derive(Debug, Default)]
struct Seen {
    served: usize,
    /// Requests that were sent and not answered.
    cut: Vec<String>,
    /// Responses after the signal that left their connection open.
    open_after_the_signal: usize,
}

/// Keeps asking on kept connections, whatever happens, until the gate refuses a connection.
fn keep_asking(target: &Target, request: &str, is_stopping: &Arc<AtomicBool>) -> JoinHandle<Seen> {
    let (target, request, is_stopping) = (target.clone(), request.to_owned(), is_stopping.clone());
    thread::spawn(move || {
        let mut seen = Seen::default();
        while let Ok(mut stream) = target.connect() {
            loop {
                let was_stopping = is_stopping.load(Ordering::Acquire);
                match exchange(&mut *stream, &request) {
                    Ok(response) => {
                        assert!([200, 503].contains(&response.status), "{}", response.status);
                        seen.served += 1;
                        if response.closes {
                            break;
                        }
                        seen.open_after_the_signal += usize::from(was_stopping);
                    }
                    Err(error) => {
                        seen.cut.push(error.to_string());
                        break;
                    }
                }
            }
        }
        seen
    })
}

struct Setup {
    imgwire: Emulator,
    _folders: [TempDir; 2],
    gate: GateProcess,
    public: Target,
    management: Target,
}

impl Setup {
    /// A gate with a short delay and a long grace, and with Imgwire as slow as that.
    async fn start(by_socket: bool, slow: Option<Duration>) -> Self {
        let imgwire = Emulator::start().unwrap();
        imgwire.misbehave(slow.map(Misbehaviour::Slow));
        let sockets = tempfile::tempdir().unwrap();
        let at = |name: &str| sockets.path().join(name);
        let builder = Gate::accepting(["app"])
            .server("shutdown_delay", format!("{}ms", DELAY.as_millis()))
            .server("shutdown_grace", "30s");
        let builder = if by_socket {
            let bind = |name| format!("unix:{}", at(name).display());
            builder
                .server("bind", bind("gate.sock"))
                .management("bind", bind("management.sock"))
        } else {
            builder
        };
        let (folder, config) = write_config(&builder, imgwire.url());
        let gate = GateProcess::start(&config, &[], "info").await;
        let (public, management) = if by_socket {
            (
                Target::Unix(at("gate.sock")),
                Target::Unix(at("management.sock")),
            )
        } else {
            (Target::of(&gate.url()), Target::of(gate.management()))
        };
        Self {
            imgwire,
            _folders: [sockets, folder],
            gate,
            public,
            management,
        }
    }

    /// Sends SIGTERM while clients keep asking both listeners. Returns what those of the public one saw.
    async fn stop_under_load(mut self) -> Vec<Seen> {
        let is_stopping = Arc::<AtomicBool>::default();
        let clients: Vec<_> = (0..8)
            .map(|_| keep_asking(&self.public, &post("{}"), &is_stopping))
            .collect();
        let probes = [
            keep_asking(&self.management, &get("/readyz"), &is_stopping),
            keep_asking(&self.management, &get("/metrics"), &is_stopping),
        ];
        eventually("some requests", async || self.imgwire.created() > 8).await;
        let began = Instant::now();
        self.gate.signal("-TERM");
        // The gate may not have seen it yet.
        tokio::time::sleep(DELAY / 2).await;
        is_stopping.store(true, Ordering::Release);
        assert_eq!(self.gate.end().await.code(), Some(0));
        let took = began.elapsed();
        assert!(took >= DELAY, "{took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        for probe in probes {
            let seen = probe.join().unwrap();
            assert!(seen.cut.is_empty() && seen.served > 8, "{seen:?}");
            assert_eq!(seen.open_after_the_signal, 0);
        }
        let seen = clients.into_iter().map(|client| client.join().unwrap());
        let seen: Vec<_> = seen.collect();
        assert!(!self.gate.log().contains("grace period exceeded"));
        seen
    }
}

async fn no_request_is_cut(by_socket: bool, slow: Option<Duration>) {
    let setup = Setup::start(by_socket, slow).await;
    let seen = setup.stop_under_load().await;
    assert!(seen.iter().all(|seen| seen.cut.is_empty()), "{seen:?}");
    let open: usize = seen.iter().map(|seen| seen.open_after_the_signal).sum();
    assert_eq!(open, 0, "{seen:?}");
}

#[actix_web::test]
async fn no_request_of_eight_looping_clients_is_cut_while_imgwire_is_slow() {
    no_request_is_cut(false, Some(Duration::from_millis(400))).await;
}

#[actix_web::test]
async fn no_request_of_eight_looping_clients_is_cut_while_imgwire_is_fast() {
    no_request_is_cut(false, None).await;
}

#[actix_web::test]
async fn no_request_is_cut_on_unix_sockets() {
    no_request_is_cut(true, Some(Duration::from_millis(100))).await;
}

#[actix_web::test]
async fn a_request_that_outlasts_the_delay_gets_its_token_and_idle_connections_end() {
    let slow = DELAY + Duration::from_secs(3);
    let mut setup = Setup::start(false, Some(slow)).await;
    let mut idle = setup.public.connect().unwrap();
    let missing = exchange(&mut *idle, &get("/nowhere")).unwrap();
    assert!(missing.status == 404 && !missing.closes);
    let mut silent = setup.public.connect().unwrap();
    let mut probe = setup.management.connect().unwrap();
    assert_eq!(exchange(&mut *probe, &get("/livez")).unwrap().status, 200);
    // One whole request, and one whose body is still coming.
    let mut running = setup.public.connect().unwrap();
    running.write_all(post("{}").as_bytes()).unwrap();
    let mut coming = setup.public.connect().unwrap();
    let request = post("{} ");
    let (start, end) = request.split_at(request.len() - 1);
    coming.write_all(start.as_bytes()).unwrap();
    eventually("the request", async || setup.imgwire.asked() == 1).await;

    let began = Instant::now();
    setup.gate.signal("-TERM");
    for stream in [&mut idle, &mut silent] {
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
        assert!(began.elapsed() >= DELAY && began.elapsed() < slow);
    }
    assert!(setup.public.connect().is_err());
    coming.write_all(end.as_bytes()).unwrap();
    let ready = exchange(&mut *probe, &get("/readyz")).unwrap();
    assert!(ready.status == 503 && ready.closes);
    for stream in [&mut running, &mut coming] {
        let response = receive(&mut **stream).unwrap();
        assert!(response.status == 200 && response.closes);
    }
    assert_eq!(setup.gate.end().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[actix_web::test]
async fn a_second_signal_ends_the_gate_at_once() {
    for (first, second) in [
        ("-TERM", "-TERM"),
        ("-TERM", "-INT"),
        ("-INT", "-INT"),
        ("-INT", "-TERM"),
    ] {
        let mut setup = Setup::start(false, Some(Duration::from_secs(20))).await;
        let mut running = setup.public.connect().unwrap();
        running.write_all(post("{}").as_bytes()).unwrap();
        eventually("the request", async || setup.imgwire.asked() == 1).await;
        setup.gate.signal(first);
        eventually("draining", async || setup.gate.log().contains("draining")).await;
        let began = Instant::now();
        setup.gate.signal(second);
        assert_eq!(setup.gate.end().await.code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(2), "{first} {second}");
        let lines = setup.gate.lines();
        let is_said = |line: &serde_json::Value| line["message"] == "stopped by a second signal";
        assert!(lines.iter().any(is_said), "{lines:?}");
    }
}

#[actix_web::test]
async fn a_request_that_never_ends_is_cut_after_the_grace() {
    let imgwire = Emulator::start().unwrap();
    imgwire.misbehave(Some(Misbehaviour::Slow(Duration::from_secs(20))));
    let builder = Gate::accepting(["app"])
        .server("shutdown_grace", "1s")
        .set("imgwire.timeout", "20s")
        .set("imgwire.deadline", "20s");
    let (_folder, config) = write_config(&builder, imgwire.url());
    let mut gate = GateProcess::start(&config, &[], "info").await;
    let mut running = Target::of(&gate.url()).connect().unwrap();
    running.write_all(post("{}").as_bytes()).unwrap();
    eventually("the request", async || imgwire.asked() == 1).await;
    let began = Instant::now();
    gate.signal("-TERM");
    assert_eq!(gate.end().await.code(), Some(0));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5));
    let exceeded = gate
        .lines()
        .into_iter()
        .find(|line| line["in_flight"] == json!(1));
    assert!(exceeded.is_some(), "{}", gate.log());
}
