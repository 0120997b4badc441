//! What is compared.

use std::{
    env,
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    engines::Engine,
    measure::Running,
    servers::UPLOAD_PATH,
    tokens::{self, SECRET, Tokens},
};

/// Something that stands between the load and the upstream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// actix-web and awc without any policy.
    Bare,
    /// HAProxy that verifies the token and counts in a stick table.
    Haproxy,
    /// The gate with the chain of an app that keeps no quota.
    Gate,
    /// The gate with the full chain.
    GateWithQuota,
    /// The gate with ten policies, three of which are expressions.
    GateWithTenPolicies,
    /// The gate with the chain that keeps no quota, and tokens that an issuer's published keys verify.
    GateWithPublishedKeys,
    /// The gate with the full chain, whose limit and quota are in one Redis.
    GateOnRedis,
    /// The gate with the full chain, whose quota is in PostgreSQL.
    GateOnPostgres,
    /// The gate with the chain that keeps no quota, and tokens made ahead.
    GateWithPool,
    /// The gate with the chain that keeps no quota, and a trace of every request.
    GateWithTraces,
    /// actix-web and awc that create uploads without any policy.
    BareUpload,
    /// The gate with an upload route: the full chain, and records of who uploaded what. It hardly follows uploads.
    GateUpload,
    /// The same, and it follows its uploads.
    GateFollowing,
}

impl Contender {
    pub(crate) const ALL: [Self; 10] = [
        Self::Bare,
        Self::Haproxy,
        Self::Gate,
        Self::GateWithQuota,
        Self::GateWithTenPolicies,
        Self::GateWithPublishedKeys,
        Self::GateOnRedis,
        Self::GateOnPostgres,
        Self::GateWithPool,
        Self::GateWithTraces,
    ];

    /// An upload route, what it is compared with, and the chain of a token route with the same policies.
    pub(crate) const UPLOADS: [Self; 3] = [Self::BareUpload, Self::GateUpload, Self::GateWithQuota];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare actix-web + awc",
            Self::Haproxy => "HAProxy, jwt_verify + stick table",
            Self::Gate => "gate: signed_in, workspace_member, rate_limit",
            Self::GateWithQuota => "gate: the same + durable quota",
            Self::GateWithTenPolicies => "gate: ten policies, three of them expressions",
            Self::GateWithPublishedKeys => "gate: the same without quota, ES256 by JWKS",
            Self::GateOnRedis => "gate: limit and quota in Redis",
            Self::GateOnPostgres => "gate: limit in memory, quota in PostgreSQL",
            Self::GateWithPool => "gate: without quota, a pool of 512 tokens",
            Self::GateWithTraces => "gate: without quota, a trace of every request",
            Self::BareUpload => "bare actix-web + awc, creates uploads",
            Self::GateUpload => "gate: upload route, the full chain + records",
            Self::GateFollowing => "gate: the same, and uploads are followed",
        }
    }

    /// Starts it before an upstream of its own.
    pub(crate) fn start(self, folder: &Path, delay_ms: u64) -> Running {
        let upstream_port = free_port();
        let port = free_port();
        let own = |role: &str, number: u64| {
            let mut command = Command::new(env::current_exe().expect("the bench has a path"));
            let listen = if role == "upstream" {
                upstream_port
            } else {
                port
            };
            command.args([role, &listen.to_string(), &number.to_string()]);
            command
        };
        let upstream = spawn(
            own("upstream", delay_ms),
            &folder.join(format!("{upstream_port}.log")),
        );
        let engine = match self {
            Self::GateOnRedis => Some(Engine::redis(folder)),
            Self::GateOnPostgres => Some(Engine::postgres(folder)),
            _ => None,
        };
        let mut recipe = Recipe::of(port, upstream_port, folder);
        let contender = match self {
            Self::Bare | Self::BareUpload => own("bare", upstream_port.into()),
            Self::Haproxy => haproxy(folder, port, upstream_port),
            Self::Gate => recipe.gate(folder),
            Self::GateWithPublishedKeys => {
                recipe.keys = format!(
                    "algorithms = [\"ES256\"]\njwks_url = \"http://127.0.0.1:{upstream_port}/jwks\""
                );
                recipe.gate(folder)
            }
            Self::GateWithTenPolicies => {
                recipe.chain = "\"by-address\", \"signed-in\", \"not-suspended\", \"member\", \
                                \"paying\", \"pictures\", \"by-workspace\", \"burst\", \
                                \"not-a-bot\", \"daily\"";
                recipe.more = SIX_MORE;
                recipe.gate(folder)
            }
            Self::GateWithQuota => {
                recipe.chain = FULL_CHAIN;
                recipe.gate(folder)
            }
            Self::GateUpload | Self::GateFollowing => {
                recipe.chain = FULL_CHAIN;
                recipe.route = UPLOAD_ROUTE;
                recipe.more = match self {
                    Self::GateFollowing => FOLLOW_ALL,
                    _ => FOLLOW_NONE,
                };
                recipe.gate(folder)
            }
            Self::GateOnRedis | Self::GateOnPostgres => {
                recipe.chain = FULL_CHAIN;
                if self == Self::GateOnRedis {
                    recipe.limit_store = "store = \"main\"";
                }
                if let Some(engine) = &engine {
                    recipe.store.clone_from(&engine.url);
                }
                recipe.gate(folder)
            }
            Self::GateWithPool => {
                recipe.imgwire = "pool = { size = 512, max_age = \"2m\" }";
                recipe.gate(folder)
            }
            Self::GateWithTraces => {
                recipe.collector =
                    format!("[telemetry]\notlp = \"http://127.0.0.1:{upstream_port}\"");
                recipe.gate(folder)
            }
        };
        let log = folder.join(format!("{port}.log"));
        let contender = spawn(contender, &log);
        for port in [upstream_port, port] {
            let is_up = (0..250).any(|_| {
                thread::sleep(Duration::from_millis(20));
                TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            let log = fs::read_to_string(&log).unwrap_or_default();
            assert!(is_up, "{} does not start: {log}", self.name());
        }
        Running {
            contender,
            upstream,
            engine,
            url: match self {
                Self::BareUpload | Self::GateUpload | Self::GateFollowing => {
                    format!("http://127.0.0.1:{port}/imgwire{UPLOAD_PATH}")
                }
                _ => format!("http://127.0.0.1:{port}/api/imgwire/upload-token"),
            },
            upstream_url: format!("http://127.0.0.1:{upstream_port}"),
            script: match self {
                Self::GateWithPublishedKeys => Tokens::Published.script(folder),
                Self::BareUpload | Self::GateUpload | Self::GateFollowing => {
                    Tokens::Shared.upload_script(folder)
                }
                _ => Tokens::Shared.script(folder),
            },
        }
    }
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::create(log).expect("the log can be written");
    command
        .env("BENCH_JWT_SECRET", SECRET)
        .env("BENCH_API_KEY", "sk_bench")
        .env("BENCH_JWKS", tokens::published_keys())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the contender starts")
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// How the gate verifies tokens of a shared secret.
const SHARED_SECRET: &str = "algorithms = [\"HS256\"]\nsecret = { env = \"BENCH_JWT_SECRET\" }";

/// What the route of uploads has besides its policies.
const UPLOAD_ROUTE: &str = r#"
action = "upload"
path = "/imgwire"
store = "main"
metadata = { workspace = "workspace.id" }
"#;

/// More reads than the uploads of the load need.
const FOLLOW_ALL: &str = "[uploads]\nreads = { limit = 3000, period = \"1s\" }";

/// One read in an hour.
const FOLLOW_NONE: &str = "[uploads]\nreads = { limit = 1, period = \"1h\" }";

/// The chain of an app that keeps a quota.
const FULL_CHAIN: &str = "\"signed-in\", \"member\", \"burst\", \"daily\"";

/// What the chain of ten has besides the four.
const SIX_MORE: &str = r#"
[policies.not-suspended]
kind = "expression"
allow = "!has(subject.claims.suspended) || subject.claims.suspended == false"
[policies.paying]
kind = "expression"
allow = "subject.claims.plan in ['pro', 'team']"
[policies.not-a-bot]
kind = "expression"
allow = "!subject.id.startsWith('bot_') && request.route != ''"
[policies.by-address]
kind = "rate_limit"
per = ["ip"]
limit = 1000000
period = "1s"
[policies.pictures]
kind = "upload_intent"
mime_types = ["image/png"]
when = "has(request.file)"
[policies.by-workspace]
kind = "rate_limit"
per = ["workspace"]
limit = 1000000
period = "1s"
"#;

/// What a gate is made of.
struct Recipe {
    port: u16,
    upstream: u16,
    keys: String,
    chain: &'static str,
    imgwire: &'static str,
    /// Where the quota is counted.
    store: String,
    /// Where the limit is counted, if not in memory.
    limit_store: &'static str,
    more: &'static str,
    /// `[telemetry]`, if traces are exported.
    collector: String,
    /// What the route has besides its policies.
    route: &'static str,
}

impl Recipe {
    fn of(port: u16, upstream: u16, folder: &Path) -> Self {
        let database = folder.join(format!("{port}.db"));
        Self {
            port,
            upstream,
            keys: SHARED_SECRET.to_owned(),
            chain: "\"signed-in\", \"member\", \"burst\"",
            imgwire: "",
            store: format!("sqlite:{}", database.display()),
            limit_store: "",
            more: "",
            collector: String::new(),
            route: "",
        }
    }

    fn gate(&self, folder: &Path) -> Command {
        let Self {
            port,
            upstream,
            keys,
            chain,
            imgwire,
            store,
            limit_store,
            more,
            collector,
            route,
        } = self;
        let config = format!(
            r#"
            [server]
            bind = "127.0.0.1:{port}"
            workers = 2
            [management]
            bind = "127.0.0.1:0"
            [imgwire]
            base_url = "http://127.0.0.1:{upstream}"
            api_key = {{ env = "BENCH_API_KEY" }}
            {imgwire}
            [stores.main]
            url = "{store}"
            [identities.app]
            kind = "jwt"
            {keys}
            audience = ["imgwire-gate"]
            [policies.signed-in]
            kind = "signed_in"
            accept = ["app"]
            [policies.member]
            kind = "workspace_member"
            claim = "workspaces"
            [policies.burst]
            kind = "rate_limit"
            per = ["user"]
            limit = 1000000
            period = "1s"
            {limit_store}
            [policies.daily]
            kind = "quota"
            per = ["workspace"]
            limit = 1000000000
            window = "day"
            store = "main"
            {more}
            {collector}
            [[routes]]
            policies = [{chain}]
            {route}
            "#
        );
        let path = folder.join(format!("{port}.toml"));
        fs::write(&path, config).expect("the config can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgwire-gate"));
        command.arg("--config").arg(path);
        command
    }
}

fn haproxy(folder: &Path, port: u16, upstream: u16) -> Command {
    let config = format!(
        r#"
global
    nbthread 2
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    http-reuse always
frontend gate
    bind 127.0.0.1:{port}
    http-request set-var(txn.token) http_auth_bearer
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_header_query('$.alg') -m str HS256 }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify("HS256","{SECRET}") -m int 1 }}
    http-request set-var(txn.sub) var(txn.token),jwt_payload_query('$.sub')
    http-request track-sc0 var(txn.sub) table users
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000000 }}
    http-request set-header authorization "Bearer sk_bench"
    http-request set-path /api/v1/images/token
    default_backend imgwire
backend users
    stick-table type string len 64 size 100k expire 1m store http_req_rate(10s)
backend imgwire
    server imgwire 127.0.0.1:{upstream}
"#
    );
    let path = folder.join(format!("{port}.cfg"));
    fs::write(&path, config).expect("the config can be written");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(path);
    command
}
