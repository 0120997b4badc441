//! Floods of every kind, while the gate keeps serving a well-behaved user.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use jsonwebtoken::Algorithm;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, Gate, ROUTE, SESSION, Token, expression, published_jwt},
    process::{GateProcess, write_config},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

/// The number of requests of the well-behaved user per measurement.
const REQUESTS: usize = 200;

/// Additional latency that a busy machine may cause.
const NOISE: Duration = Duration::from_millis(150);

/// One attack of a flood, given the gate's address and the attack's number.
type Attack = Arc<dyn Fn(&str, u64) + Send + Sync>;

/// Repeats an attack on some threads until it is dropped.
struct Flood {
    is_over: Arc<AtomicBool>,
    attackers: Vec<thread::JoinHandle<()>>,
    attacks: Arc<AtomicU64>,
}

impl Flood {
    fn start(address: &str, attackers: usize, attack: &Attack) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let attacks = Arc::new(AtomicU64::new(0));
        let attackers = (0..attackers).map(|_| {
            let (is_over, attacks) = (is_over.clone(), attacks.clone());
            let (address, attack) = (address.to_owned(), attack.clone());
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let number = attacks.fetch_add(1, Ordering::Relaxed);
                    attack(&address, number);
                }
            })
        });
        Self {
            attackers: attackers.collect(),
            is_over,
            attacks,
        }
    }

    /// Ends the flood; returns the number of attacks.
    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        for attacker in self.attackers {
            attacker.join().unwrap();
        }
        self.attacks.load(Ordering::Relaxed)
    }
}

/// The 99th percentile of the latency of the well-behaved user, all of whose requests succeed.
async fn p99(gate: &GateProcess, token: &str) -> Duration {
    let client = awc::Client::builder()
        .timeout(Duration::from_secs(20))
        .finish();
    let mut waits = Vec::new();
    for _ in 0..REQUESTS {
        let began = Instant::now();
        let request = client.post(format!("{}{ROUTE}", gate.url()));
        let mut answer = request.bearer_auth(token).send().await.unwrap();
        answer.body().await.unwrap();
        assert_eq!(answer.status(), 200);
        waits.push(began.elapsed());
    }
    waits.sort();
    waits[REQUESTS * 99 / 100]
}

/// A gate with a rule for claims, and sessions; the app's tokens are HS256, the issuer's ES256.
async fn gate(issuer: &Service) -> (GateProcess, Emulator, tempfile::TempDir) {
    let imgwire = Emulator::start().unwrap();
    let rule = "!has(subject.claims.groups) || !('banned' in subject.claims.groups)";
    let builder = Gate::accepting(["app", "idp", "browser"])
        .server("request_timeout", "1s")
        .server("max_connections", 12_000)
        .identity(
            "idp",
            published_jwt(["ES256"], &format!("{}/jwks", issuer.url)),
        )
        .policy("rule", expression(rule))
        .chain(["signed-in", "rule"]);
    let (folder, config) = write_config(&builder, imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info,decision=warn", &[]).await;
    (gate, imgwire, folder)
}

/// Sends bytes and reads the answer for a moment.
fn exchange(address: &str, bytes: &[u8]) {
    use std::io::Read as _;

    let Ok(mut stream) = TcpStream::connect(address) else {
        return;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    if stream.write_all(bytes).is_ok() {
        let _ = stream.read(&mut [0; 1024]);
    }
}

fn request(method: &str, path: &str, token: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Raises this process's limit on open files to the maximum.
fn raise_limit_on_open_files() {
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = limits.maximum;
    setrlimit(Resource::Nofile, limits).unwrap();
}

/// Many deeply nested claims.
fn giant(number: u64) -> Value {
    let nested = (0..12).fold(json!([number]), |inner, _| json!([inner, [], [[]]]));
    json!((0..40).map(|_| nested.clone()).collect::<Vec<_>>())
}

#[actix_web::test]
async fn floods_of_every_kind_leave_a_well_behaved_user_served() {
    let issuer = Service::start();
    let key = SigningKey::new("known", Algorithm::ES256);
    issuer.answer("/jwks", Reply::json(&set(&[&key])));
    let (gate, _imgwire, _folder) = gate(&issuer).await;
    let url = gate.url();
    let address = url.strip_prefix("http://").unwrap();
    let good = Token::of("user_1").sign();
    let calm = p99(&gate, &good).await;

    let unknown: Vec<_> = (0..200)
        .map(|number| {
            let mut stranger = SigningKey::new("unknown", Algorithm::ES256);
            stranger.kid = format!("unknown-{number}");
            stranger.sign(&Token::of("user_2"))
        })
        .collect();
    let tokens: Vec<_> = (0..200)
        .map(|number| Token::of(&format!("user_{number}")).sign())
        .collect();
    let claims: Vec<_> = (0..200)
        .map(|number| Token::of("user_3").with("groups", giant(number)).sign())
        .collect();
    let of = |list: Vec<String>| {
        move |number: u64| list[usize::try_from(number).unwrap() % list.len()].clone()
    };
    let (unknown, sessions, allowances, claims) =
        (of(unknown), of(tokens.clone()), of(tokens), of(claims));
    let head = format!("POST {ROUTE} HTTP/1.1\r\nhost: gate\r\n");
    let (slow_head, slow_body, half_body) = (head.clone(), head.clone(), head);
    let attacks: Vec<(&str, Attack)> = vec![
        (
            "bad tokens",
            Arc::new(|address, number| {
                let forged = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.{number}");
                exchange(address, &request("POST", ROUTE, &forged));
            }),
        ),
        (
            "unknown keys",
            Arc::new(move |address, number| {
                exchange(address, &request("POST", ROUTE, &unknown(number)));
            }),
        ),
        (
            "slow heads",
            Arc::new(move |address, _| exchange(address, slow_head.as_bytes())),
        ),
        (
            "slow bodies",
            Arc::new(move |address, _| {
                let bytes = format!("{slow_body}transfer-encoding: chunked\r\n\r\n1\r\nx");
                exchange(address, bytes.as_bytes());
            }),
        ),
        (
            "half bodies",
            Arc::new(move |address, _| {
                let bytes = format!("{half_body}content-length: 100\r\n\r\n{{");
                exchange(address, bytes.as_bytes());
            }),
        ),
        (
            "giant claims",
            Arc::new(move |address, number| {
                exchange(address, &request("POST", ROUTE, &claims(number)));
            }),
        ),
        (
            "session exchanges",
            Arc::new(move |address, number| {
                exchange(address, &request("POST", SESSION, &sessions(number)));
            }),
        ),
        (
            "allowance",
            Arc::new(move |address, number| {
                let path = format!("{ROUTE}/allowance");
                exchange(address, &request("GET", &path, &allowances(number)));
            }),
        ),
    ];
    for (name, attack) in attacks {
        // Attacks that only hold connections are cheap.
        let attackers = if name.contains("slow") || name.contains("half") {
            100
        } else {
            4
        };
        let flood = Flood::start(address, attackers, &attack);
        let flooded = p99(&gate, &good).await;
        let attacks = flood.end();
        assert!(attacks > 10, "{name}: {attacks}");
        assert!(
            flooded <= calm * 2 + NOISE,
            "{name}: {calm:?} calm, {flooded:?} beside {attacks} attacks"
        );
    }
}

#[actix_web::test]
async fn ten_thousand_idle_connections_leave_a_well_behaved_user_served() {
    raise_limit_on_open_files();
    let issuer = Service::start();
    let key = SigningKey::new("known", Algorithm::ES256);
    issuer.answer("/jwks", Reply::json(&set(&[&key])));
    let (gate, _imgwire, _folder) = gate(&issuer).await;
    let url = gate.url();
    let address = url.strip_prefix("http://").unwrap();
    let good = Token::of("user_1").sign();
    let calm = p99(&gate, &good).await;
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /nowhere HTTP/1.1\r\nhost: gate\r\n\r\n")
            .unwrap();
        idle.push(stream);
    }
    let flooded = p99(&gate, &good).await;
    assert!(flooded <= calm * 2 + NOISE, "{calm:?}, then {flooded:?}");
    drop(idle);
}
