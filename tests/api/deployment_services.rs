//! What `deploy` starts, as far as its programs are here: a gate with Redis, PostgreSQL and HAProxy.

use std::{
    fs,
    net::{IpAddr, TcpStream},
    path::Path,
    time::Duration,
};

use serde_json::json;

use crate::{
    deployment::deploy,
    deployment_files::compose,
    helpers::{Emulator, ROUTE, SECRET, Token, eventually},
    postgres::Postgres,
    process::GateProcess,
    real_parts::{RawClient, Running, are_here, free_port},
};

const PASSWORD: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

/// Runs the command that `deploy/compose.yaml` has for Redis, with the secrets and the data in `folder`.
fn start_redis(folder: &Path, port: u16) -> Running {
    let compose = compose();
    let command = &compose["services"]["redis"]["command"];
    assert_eq!([&command[0], &command[1]], ["sh", "-c"]);
    let folder_name = folder.to_str().unwrap();
    let script = command[2]
        .as_str()
        .unwrap()
        // As Compose reads it.
        .replace("$$", "$")
        .replace("/run/secrets", folder_name)
        .replace("dir /data", &format!("dir {folder_name}\nport {port}"));
    Running::start("sh", &["-c", &script], &folder.join("redis"))
}

/// Asks Redis for the value of a setting; `None` while it refuses the password or is not up.
async fn setting(port: u16, password: &str, name: &str) -> Option<String> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let mut connection = client
        .get_connection_with_timeout(Duration::from_secs(1))
        .ok()?;
    let signed_in: redis::RedisResult<()> = redis::cmd("AUTH").arg(password).query(&mut connection);
    signed_in.ok()?;
    let asked = redis::cmd("CONFIG")
        .arg("GET")
        .arg(name)
        .query(&mut connection);
    let (_, value): (String, String) = asked.ok()?;
    Some(value)
}

#[actix_web::test]
async fn the_gate_of_the_deployment_issues_tokens_with_its_stores_behind_haproxy() {
    if !are_here(&["redis-server", "haproxy", "docker-compose"]) {
        return;
    }
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, value: &str| fs::write(folder.path().join(name), value).unwrap();
    for name in ["session_key", "management_token"] {
        secret(name, &"s".repeat(64));
    }
    secret("app_jwt_secret", SECRET);
    secret("imgwire_api_key", crate::helpers::SERVER_API_KEY);
    secret("redis_password", PASSWORD);
    secret("database_password", "a password");
    let authority = postgres.secure("a password").await;
    postgres
        .run("create schema imgwire_gate authorization gate")
        .await;

    let redis_port = free_port();
    let _redis = start_redis(folder.path(), redis_port);
    eventually("Redis", async || {
        setting(redis_port, PASSWORD, "maxmemory-policy")
            .await
            .is_some()
    })
    .await;
    let policy = setting(redis_port, PASSWORD, "maxmemory-policy").await;
    assert_eq!(policy.as_deref(), Some("noeviction"));
    assert_eq!(
        setting(redis_port, "another", "maxmemory-policy").await,
        None
    );

    let imgwire = Emulator::start().unwrap();
    let (port, management) = (free_port(), free_port());
    let text = fs::read_to_string(deploy("gate.toml")).unwrap();
    let text = text
        .replace("0.0.0.0:8080", &format!("127.0.0.1:{port}"))
        .replace("0.0.0.0:9090", &format!("127.0.0.1:{management}"))
        .replace("redis:6379", &format!("127.0.0.1:{redis_port}"))
        .replace(
            "gate@postgres/gate",
            &format!(
                "gate@127.0.0.1:{}/postgres?sslmode=require",
                postgres.port()
            ),
        )
        .replace("/run/secrets", folder.path().to_str().unwrap())
        .replace("${TRUSTED_PROXIES}", "127.0.0.1")
        .replace(
            "[imgwire]\n",
            &format!("[imgwire]\nbase_url = \"{}\"\n", imgwire.url()),
        );
    let text = format!("{text}\n[outbound]\nca = \"{}\"\n", authority.display());
    let config = folder.path().join("gate.toml");
    fs::write(&config, text).unwrap();
    let gate = GateProcess::start(&config, &[], "info").await;

    let proxy_port = free_port();
    let proxy = fs::read_to_string(deploy("haproxy.cfg")).unwrap();
    let proxy = proxy
        .replace("bind :80\n", &format!("bind 127.0.0.1:{proxy_port}\n"))
        .replace("port 9090", &format!("port {management}"));
    let proxy: String = proxy
        .lines()
        .filter(|line| !line.contains("gate-2") && !line.contains("gate-3"))
        .map(|line| line.replace("gate-1:8080", &format!("127.0.0.1:{port}")) + "\n")
        .collect();
    let path = folder.path().join("haproxy.cfg");
    fs::write(&path, proxy).unwrap();
    let _haproxy = Running::start("haproxy", &["-db", "-f", path.to_str().unwrap()], &path);
    // HAProxy tells the gate who asks, whatever the client claims.
    let headers = format!(
        "Content-Length: 0\r\nX-Forwarded-For: 203.0.113.9\r\nAuthorization: Bearer {}\r\n",
        deployed_token()
    );
    let proxy = format!("127.0.0.1:{proxy_port}");
    eventually("HAProxy", async || TcpStream::connect(&proxy).is_ok()).await;
    eventually("a token", async || {
        let mut client = RawClient::connect(IpAddr::from([127, 0, 0, 7]), proxy_port).await;
        client.send("POST", ROUTE, &headers).await.status == 200
    })
    .await;
    eventually("the decision", async || {
        let decisions = gate.decisions();
        decisions.iter().any(|line| line["client"] == "127.0.0.7")
    })
    .await;
}

/// A token of the app of `deploy/gate.toml`.
fn deployed_token() -> String {
    let token = Token::of("user_1").with("iss", json!("https://app.example.com"));
    token.sign()
}
