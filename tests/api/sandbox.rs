//! The sandbox: access to its page, and what a config that the page applies may contain.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{Answer, ROUTE, Request},
    service::Service,
};

/// A sandbox that runs; it ends when it is dropped.
pub(crate) struct Sandbox {
    process: Child,
    /// The page's address, with its key.
    pub(crate) url: String,
}

impl Sandbox {
    pub(crate) fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_imgwire-gate"))
            .arg("sandbox")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| {
            let line = line.ok()?;
            line.strip_prefix("playground ").map(str::to_owned)
        });
        // A thread reads the rest, so that the process can write it.
        std::thread::spawn(move || lines.count());
        Self {
            process,
            url: url.expect("the sandbox says where its page is"),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sandbox {
    /// The URL of the sandbox, and the key of its page.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.url.split_once("/?key=").unwrap()
    }

    /// A request as the page sends it.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        let (base, key) = self.parts();
        self.request_with(method, &format!("{base}{path}"))
            .header("x-playground-key", key)
    }

    fn request_with(&self, method: Method, url: &str) -> Request {
        let client = awc::Client::builder().disable_redirects().finish();
        Request(client.request(method, url))
    }

    /// The state of the sandbox, as the page reads it.
    pub(crate) async fn state(&self) -> Value {
        let answer = self.request(Method::GET, "/playground/state");
        answer.send().await.json
    }

    /// The faults of a config that the page applies; empty if it was applied.
    async fn apply(&self, text: &str) -> Vec<String> {
        let request = self.request(Method::POST, "/playground/config");
        let answer = request.json(&json!({ "text": text, "apply": true })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let faults = answer.json["faults"].as_array().unwrap().iter();
        let faults: Vec<_> = faults
            .map(|fault| {
                let text = fault["text"].as_str().unwrap();
                format!("config/sandbox.toml:{}: {text}", fault["line"])
            })
            .collect();
        assert_eq!(answer.json["applied"], faults.is_empty());
        faults
    }
}

/// The endpoints of the playground, and whether they require the key.
const PLAYGROUND: [(bool, Method, &str); 10] = [
    (false, Method::GET, "/playground/page/style.css"),
    (false, Method::GET, "/playground/page/main.js"),
    (false, Method::GET, "/playground/page/get-upload-token.js"),
    (true, Method::GET, "/playground/state"),
    (true, Method::GET, "/playground/log?request=x"),
    (true, Method::GET, "/playground/events"),
    (true, Method::POST, "/playground/explain"),
    (true, Method::POST, "/playground/quota"),
    (true, Method::POST, "/playground/imgwire"),
    (true, Method::POST, "/playground/config"),
];

#[actix_web::test]
async fn a_page_of_another_name_or_origin_cannot_use_the_playground() {
    let sandbox = Sandbox::start();
    let port = sandbox.parts().0.rsplit(':').next().unwrap();
    let evil = format!("evil.example:{port}");
    let own = format!("127.0.0.1:{port}");
    let cross_site = |answer: Answer| {
        assert_eq!((answer.status.as_u16(), answer.code()), (403, "cross_site"));
        assert!(answer.json["message"].as_str().unwrap().contains("address"));
        assert!(!answer.text.contains("eyJ"), "no demo person's token");
    };
    for (_, method, path) in PLAYGROUND {
        let request = |host: &str| {
            let request = sandbox.request(method.clone(), path);
            request.header("host", host)
        };
        // The other name alone, and with the other signs of such a page.
        cross_site(request(&evil).send().await);
        cross_site(request("localhost.evil.example").send().await);
        let page = request(&evil).header("origin", &format!("http://{evil}"));
        cross_site(page.json(&json!({})).await);
        // A page of another origin on this machine.
        for origin in ["null", "http://127.0.0.1:1", &format!("https://{own}"), ""] {
            let page = request(&own).header("origin", origin);
            cross_site(page.json(&json!({})).await);
        }
    }
    cross_site(
        sandbox
            .request_with(Method::GET, &sandbox.url)
            .header("host", &evil)
            .send()
            .await,
    );
    // The page works under its own names.
    for host in [own, format!("localhost:{port}")] {
        let state = sandbox.request(Method::GET, "/playground/state");
        let origin = format!("http://{host}");
        let answer = state
            .header("host", &host)
            .header("origin", &origin)
            .send()
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[actix_web::test]
async fn the_playground_requires_the_key_of_its_page() {
    let sandbox = Sandbox::start();
    let (base, key) = sandbox.parts();
    assert!(key.len() >= 32, "{key}");
    let (_, other_key) = {
        let other = Sandbox::start();
        let (base, key) = other.parts();
        (base.to_owned(), key.to_owned())
    };
    assert_ne!(key, other_key);
    for (needs_key, method, path) in PLAYGROUND {
        for key in [None, Some(""), Some(&key[1..]), Some(other_key.as_str())] {
            let request = sandbox.request_with(method.clone(), &format!("{base}{path}"));
            let request = match key {
                None => request,
                Some(key) => request.header("x-playground-key", key),
            };
            let answer = request.send().await;
            if needs_key {
                assert_eq!((answer.status.as_u16(), answer.code()), (403, "cross_site"));
            } else {
                assert_eq!(answer.status, 200, "{path}");
            }
        }
    }
    for query in [
        "",
        "?",
        "?key=",
        "?key",
        "?key=x",
        &format!("?key={other_key}"),
    ] {
        let page = sandbox.request_with(Method::GET, &format!("{base}/{query}"));
        assert_eq!(page.send().await.status, 403, "{query}");
    }
    // The gate of the sandbox is open to every client.
    let token = sandbox.request_with(Method::POST, &format!("{base}{ROUTE}"));
    token.send().await.assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn an_applied_config_can_read_neither_files_nor_the_environment() {
    let sandbox = Sandbox::start();
    let state = sandbox.state().await;
    let config = state["config"]["text"].as_str().unwrap();
    let imgwire = state["imgwire"]["url"].as_str().unwrap();
    assert_eq!(sandbox.apply(config).await, [""; 0]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(
        &file,
        "a private key of this machine, 64 bytes long or longer: ----------",
    )
    .unwrap();
    let file = file.display();
    let more = |text: &str| format!("{config}\n{text}\n");
    let jwt = |key: &str| more(&format!("[identities.x]\nkind = \"jwt\"\n{key}"));
    let introspection = |secret: &str| {
        more(&format!(
            "[identities.x]\nkind = \"introspection\"\nurl = \"{imgwire}/x\"\nclient_id = \"gate\"\n{secret}"
        ))
    };
    for text in [
        introspection(&format!("client_secret = {{ file = \"{file}\" }}")),
        introspection(&format!("client_secret.file = \"{file}\"")),
        introspection(&format!("\"client_secret\".\"f\\u0069le\" = \"{file}\"")),
        introspection(&format!("client_secret = [{{ file = \"{file}\" }}]")),
        introspection("client_secret = { file = \"/nowhere\" }"),
        jwt(&format!(
            "algorithms = [\"HS256\"]\nsecret = {{ file = \"{file}\" }}"
        )),
        jwt(&format!(
            "algorithms = [\"RS256\"]\npublic_key = {{ file = \"{file}\" }}"
        )),
        jwt(&format!(
            "algorithms = [\"RS256\"]\njwks = {{ file = \"{file}\" }}"
        )),
        config.replace(
            "{ env = \"SANDBOX_SESSION_KEY\" }",
            &format!("{{ file = \"{file}\" }}"),
        ),
    ] {
        let faults = sandbox.apply(&text).await;
        assert!(
            faults
                .iter()
                .any(|fault| fault.ends_with("the sandbox reads no files")),
            "{faults:?}"
        );
        assert!(faults[0].starts_with("config/sandbox.toml:"), "{faults:?}");
        assert!(!faults[0].contains("null"), "it has a line: {faults:?}");
        // The fault does not reveal whether the file exists or what it contains.
        let text = faults.concat();
        assert!(
            !text.contains("read:") && !text.contains("private"),
            "{text}"
        );
    }
    let faults = sandbox
        .apply(&more(&format!("[outbound]\nca = \"{file}\"")))
        .await;
    assert!(faults[0].contains("outbound: the sandbox"), "{faults:?}");
    for text in [
        introspection("client_secret = { env = \"PATH\" }"),
        introspection("client_secret = { env = \"IMGWIRE_API_KEY\" }"),
        config.replace("SANDBOX_JWT_SECRET", "HOME"),
        config.replace("\"imgwire-gate\"", "\"${HOME}\""),
        config.replace("\"imgwire-gate\"", "\"${NOWHERE:-x}\""),
    ] {
        let faults = sandbox.apply(&text).await;
        assert!(faults[0].contains("environment"), "{faults:?}");
        assert!(!faults.concat().contains(&std::env::var("PATH").unwrap()));
    }
    // A config that is only checked is confined as well.
    let request = sandbox.request(Method::POST, "/playground/config");
    let text = introspection(&format!("client_secret = {{ file = \"{file}\" }}"));
    let answer = request.json(&json!({ "text": text, "apply": false })).await;
    assert!(
        answer.text.contains("the sandbox reads no files"),
        "{answer:?}"
    );
}

#[actix_web::test]
async fn an_applied_config_can_name_only_the_emulator_and_the_store_of_the_sandbox() {
    let sandbox = Sandbox::start();
    let state = sandbox.state().await;
    let config = state["config"]["text"].as_str().unwrap();
    let imgwire = state["imgwire"]["url"].as_str().unwrap();
    let port = imgwire.rsplit(':').next().unwrap();
    let listener = Service::start();
    let secret = "client_id = \"gate\"\nclient_secret = { env = \"SANDBOX_JWT_SECRET\" }";
    let introspection = |url: &str| format!("kind = \"introspection\"\nurl = \"{url}\"\n{secret}");
    let identity = |text: &str| format!("{config}\n[identities.x]\n{text}\n");
    let policy = |text: &str| format!("{config}\n[policies.x]\n{text}\n");
    for text in [
        identity(&introspection(&listener.url)),
        identity(&introspection("https://192.0.2.7/x")),
        identity(&introspection("http:evil.example/x")),
        identity(&introspection("http:/\\\\evil.example/x")),
        identity(&introspection(" ht\\ttp://evil.example/x")),
        identity(&introspection(&format!(
            "http://127.0.0.1:{port}@evil.example/"
        ))),
        identity(&introspection(&format!("http://localhost:{port}/"))),
        identity(&introspection(&format!("https://127.0.0.1:{port}/"))),
        identity(
            "kind = \"jwt\"\nalgorithms = [\"RS256\"]\njwks_url = \"https://evil.example/jwks\"",
        ),
        identity(
            "kind = \"jwt\"\nalgorithms = [\"RS256\"]\nissuer = \"https://evil.example\"\ndiscovery = true",
        ),
        identity(
            "kind = \"remote\"\nurl = \"https://evil.example/me\"\nforward = [\"cookie:a\"]\nsubject = \"/id\"",
        ),
        policy("kind = \"remote\"\nurl = \"https://evil.example/allow\""),
        policy("kind = \"workspace_member\"\nurl = \"https://evil.example/{workspace}/{user}\""),
        policy("kind = \"workspace_member\"\nurl = \"https://{workspace}.evil.example/{user}\""),
        config.replace(
            "[telemetry]",
            "[telemetry]\notlp = \"http://evil.example:4318\"",
        ),
        config.replace("http://127.0.0.1:8081", "https://api.imgwire.dev"),
    ] {
        let faults = sandbox.apply(&text).await;
        let expected = format!("the sandbox connects only to its emulator: {imgwire}");
        assert!(
            faults.iter().any(|fault| fault.contains(&expected)),
            "{faults:?}\n{text}"
        );
    }
    for text in [
        config.replace("sqlite:data/sandbox.db", "sqlite:/etc/passwd"),
        config.replace("sqlite:data/sandbox.db", "redis://127.0.0.1"),
        config.replace("sqlite:data/sandbox.db", "postgres://gate@db/app"),
        format!("{config}\n[stores.other]\nurl = \"sqlite:data/sandbox.db\"\n"),
        format!("{config}\n[stores.other]\nurl = {{ env = \"SANDBOX_JWT_SECRET\" }}\n"),
    ] {
        let faults = sandbox.apply(&text).await;
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains(": the sandbox has ")),
            "{faults:?}"
        );
    }
    assert!(listener.seen("/").is_empty());
    // URLs that the gate does not connect to, and the emulator, are allowed.
    let plain = config.replace(
        "audience = [\"imgwire-gate\"]",
        "audience = [\"imgwire-gate\", \"https://api.example.com\"]\nissuer = \"https://id.example.com\"",
    );
    for text in [
        plain,
        identity(&introspection(&format!("{imgwire}/x"))),
        identity(
            "kind = \"jwt\"\nalgorithms = [\"HS256\"]\nsecret = { env = \"SANDBOX_JWT_SECRET\" }\nrequired_claims = { env = \"prod\", file = \"https://x.example\" }",
        ),
        policy(
            "kind = \"rate_limit\"\nper = []\nlimit = 1\nperiod = \"1m\"\nmessage = { en = \"https://help.example.com\" }",
        ),
        config.to_owned(),
    ] {
        assert_eq!(sandbox.apply(&text).await, [""; 0], "{text}");
    }
}
