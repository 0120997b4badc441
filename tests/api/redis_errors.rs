//! Each error by which a Redis refuses to work is named in words, fails requests as a fault, and ends when the server works.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    helpers::{Gate, SECRET, eventually},
    redis_server::Redis,
    scaling::{patient, quota},
    store_probes::with_password,
    watched::Watched,
};

/// A proxy before a Redis that answers each command with an error, if it has one.
struct Refusing {
    port: u16,
    error: Arc<Mutex<Option<&'static str>>>,
}

impl Refusing {
    fn before(port: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let refusing = Self {
            port: listener.local_addr().unwrap().port(),
            error: Arc::default(),
        };
        let error = refusing.error.clone();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((client, _)) = listener.accept().await {
                    actix_web::rt::spawn(carry(client, port, error.clone()));
                }
            });
        });
        refusing
    }

    fn answer(&self, error: Option<&'static str>) {
        *self.error.lock().unwrap() = error;
    }
}

async fn carry(mut client: TcpStream, port: u16, error: Arc<Mutex<Option<&'static str>>>) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let sent = &up[..length];
                let error = *error.lock().unwrap();
                let Some(error) = error else {
                    server.write_all(sent).await.unwrap();
                    continue;
                };
                // A command begins with the number of its words.
                let commands = String::from_utf8_lossy(sent).matches("\n*").count() + 1;
                let answers = format!("-{error}\r\n").repeat(commands);
                client.write_all(answers.as_bytes()).await.unwrap();
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                client.write_all(&down[..length]).await.unwrap();
            }
        }
    }
}

/// The gate says once that the store is down, and why.
async fn says(gate: &Watched, words: &str) {
    eventually("the reason", async || {
        // A request that waits for the probe is a fault, too.
        assert_ne!(gate.ask().await, 429);
        !gate.lines("the store is down").is_empty()
    })
    .await;
    assert_eq!(gate.ask().await, 500);
    assert!(!gate.is_ready().await);
    let lines = gate.lines("the store is down");
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains(words), "{reason}");
    assert!(!reason.contains(SECRET), "{reason}");
    for code in [
        "ResponseError",
        "BusyLoading",
        "AuthenticationFailed",
        "NoPerm",
        "ReadOnly",
    ] {
        assert!(!reason.contains(code), "no name of the library: {reason}");
    }
}

fn counting(url: &str) -> Gate {
    patient(quota(url, 1000, "day"))
}

#[actix_web::test]
async fn each_refusal_is_named_in_words_until_it_ends() {
    let Some(server) = Redis::here() else { return };
    let refusing = Refusing::before(server.port());
    let url = format!("redis://127.0.0.1:{}", refusing.port);
    for (error, words) in [
        (
            "LOADING Redis is loading the dataset in memory",
            "still loading its data from the disk",
        ),
        (
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "cannot save its data to the disk",
        ),
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            "memory is full (maxmemory)",
        ),
        (
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "a script of another client blocks the server",
        ),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "has lost its primary",
        ),
        (
            "NOREPLICAS Not enough good replicas to write.",
            "fewer replicas than min-replicas-to-write",
        ),
        ("NOAUTH Authentication required.", "requires a password"),
        (
            "DENIED Redis is running in protected mode because protected mode is enabled",
            "protected mode",
        ),
        (
            "CLUSTERDOWN The cluster is down",
            "the cluster does not serve",
        ),
        (
            "ERR max number of clients reached",
            "as many clients as maxclients allows",
        ),
    ] {
        let gate = Watched::start(&counting(&url)).await;
        gate.ready().await;
        refusing.answer(Some(error));
        says(&gate, words).await;
        refusing.answer(None);
        gate.comes_back().await;
    }
}

#[actix_web::test]
async fn a_server_that_becomes_a_replica_is_named_until_it_is_the_primary() {
    let (Some(server), Some(primary)) = (Redis::here(), Redis::here()) else {
        return;
    };
    let gate = Watched::start(&counting(&server.url())).await;
    gate.ready().await;
    server.run(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    says(&gate, "the server is a replica").await;
    server.run(&["REPLICAOF", "NO", "ONE"]);
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_script_that_blocks_the_server_is_named_until_it_ends() {
    let Some(server) = Redis::here_with(&["--lua-time-limit", "50"]) else {
        return;
    };
    let gate = Watched::start(&counting(&server.url())).await;
    gate.ready().await;
    let url = server.url();
    let endless = std::thread::spawn(move || {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_connection().unwrap();
        let endless = redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .exec(&mut connection);
        assert!(endless.is_err());
    });
    says(&gate, "a script of another client blocks the server").await;
    server.run(&["SCRIPT", "KILL"]);
    endless.join().unwrap();
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_server_with_too_many_clients_is_named_until_it_has_room() {
    let Some(server) = Redis::here() else { return };
    let gate = Watched::start(&counting(&server.url())).await;
    gate.ready().await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut run = |words: &[&str]| {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.exec(&mut connection).unwrap();
    };
    run(&["CONFIG", "SET", "maxclients", "1"]);
    run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    says(&gate, "as many clients as maxclients allows").await;
    run(&["CONFIG", "SET", "maxclients", "1000"]);
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_password_that_was_changed_is_named_until_it_is_right() {
    let Some(server) = Redis::here() else { return };
    let user = |password: &str| {
        let password = format!(">{password}");
        let words = [
            "ACL", "SETUSER", "gate", "reset", "on", &password, "~*", "+@all",
        ];
        server.run(&words);
    };
    user(SECRET);
    let url = format!("redis://gate@127.0.0.1:{}", server.port());
    let gate = Watched::start(&with_password(counting(&url))).await;
    gate.ready().await;
    user("another");
    server.run(&["CLIENT", "KILL", "USER", "gate"]);
    says(&gate, "the server refuses the user or the password").await;
    user(SECRET);
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_password_that_the_server_does_not_have_is_named() {
    let Some(server) = Redis::here() else { return };
    let gate = Watched::start(&with_password(counting(&server.url()))).await;
    says(&gate, "the config has a password, but the server has none").await;
}

#[actix_web::test]
async fn a_database_that_the_server_does_not_have_is_named() {
    let Some(server) = Redis::here() else { return };
    let url = format!("{}/99", server.url());
    let gate = Watched::start(&counting(&url)).await;
    says(&gate, "the server does not have this database").await;
}
