//! The examples of apps: each with its own config, its own server and a real browser.

use std::{fs, process::Command};

use actix_web::web;

use crate::{
    helpers::{CLIENT_KEY, CorsOrigin, EVENTS_SECRET, Emulator, SECRET, eventually},
    process::{GateProcess, text},
    real_parts::{Running, are_here, blocks, browser, examples, free_port},
};

/// An example under test: its gate, and the ports of both.
struct Example {
    name: &'static str,
    gate: GateProcess,
    port: u16,
    folder: tempfile::TempDir,
    imgwire: Emulator,
}

impl Example {
    /// Starts the gate of an example with the emulated Imgwire in place of the real one.
    async fn start(name: &'static str, page_port: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, gate_port) = (free_port(), free_port());
        let imgwire = Emulator::start().unwrap();
        imgwire.change(|scenario| {
            scenario.cors_origins = vec![CorsOrigin::new(&format!("localhost:{port}"))];
        });
        let config = fs::read_to_string(examples().join(name).join("gate.toml")).unwrap();
        let config = config
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{gate_port}"))
            .replace(page_port, &format!("localhost:{port}"))
            .replace(
                "sqlite:gate.db",
                &format!("sqlite:{}/gate.db", folder.path().display()),
            )
            .replace("IMGWIRE_API_KEY", "TEST_API_KEY")
            .replace("APP_JWT_SECRET", "TEST_SECRET")
            .replace("APP_EVENTS_SECRET", "TEST_EVENTS_SECRET")
            .replace(
                "[imgwire]\n",
                &format!("[imgwire]\nbase_url = \"{}\"\n", imgwire.url()),
            );
        let config = format!("{config}\n[management]\nbind = \"127.0.0.1:0\"\n");
        let path = folder.path().join("gate.toml");
        fs::write(&path, config).unwrap();
        let gate = GateProcess::start_with(&path, &[], "info", &[]).await;
        Self {
            name,
            gate,
            port,
            folder,
            imgwire,
        }
    }

    /// Starts the example's own server.
    fn serve(&self, program: &[&str]) -> Running {
        let mut environment = vec![
            format!("GATE_URL={}", self.gate.url()),
            format!("IMGWIRE_URL={}", self.imgwire.url()),
            format!("IMGWIRE_CLIENT_KEY={CLIENT_KEY}"),
            format!("APP_JWT_SECRET={SECRET}"),
            format!("APP_EVENTS_SECRET={EVENTS_SECRET}"),
            format!("AUTH_SECRET={SECRET}"),
            format!("PORT={}", self.port),
            "NEXT_TELEMETRY_DISABLED=1".to_owned(),
        ];
        environment.extend(program.iter().map(|word| (*word).to_owned()));
        let folder = format!("--chdir={}", examples().join(self.name).display());
        let mut arguments = vec![folder.as_str()];
        arguments.extend(environment.iter().map(String::as_str));
        Running::start("env", &arguments, &self.folder.path().join("server"))
    }

    /// Uses the page in a browser; returns what it says.
    async fn use_page(&self) -> String {
        self.browse("examples.mjs").await
    }

    /// Runs a script of the browser; returns what it prints.
    async fn browse(&self, script: &'static str) -> String {
        let url = format!("http://localhost:{}/", self.port);
        let address = format!("localhost:{}", self.port);
        eventually("the example's server", async || {
            tokio::net::TcpStream::connect(&address).await.is_ok()
        })
        .await;
        let browse = move || {
            Command::new("node")
                .current_dir(browser())
                .args([script, &url])
                .output()
        };
        let output = web::block(browse).await.unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    }
}

const AS_DESCRIBED: &str = "before: 401 not_signed_in\nafter: READY\n";

const ALBUM: &str = "\
text: Only PNG and JPEG pictures can be uploaded.
images: 1
events: upload.ready
events: upload.ready,image.deleted
forged: 401
";

#[actix_web::test]
async fn a_nextjs_app_with_authjs_uploads_in_both_flows_through_its_rewrite() {
    if !are_here(&[
        "node",
        "chromium",
        "npm:playwright-core",
        "npm:next",
        "npm:standardwebhooks",
    ]) {
        return;
    }
    let example = Example::start("nextjs", "localhost:3000").await;
    // The build keeps the rewrites, so the gate's URL must be known here.
    let gate = example.gate.url();
    let build = move || {
        Command::new("node_modules/.bin/next")
            .arg("build")
            .env("NEXT_TELEMETRY_DISABLED", "1")
            .env("AUTH_SECRET", SECRET)
            .env("GATE_URL", gate)
            .current_dir(examples().join("nextjs"))
            .output()
    };
    let built = web::block(build).await.unwrap().unwrap();
    assert!(built.status.success(), "{built:?}");
    let _server = example.serve(&["node_modules/.bin/next", "start"]);
    assert_eq!(example.use_page().await, AS_DESCRIBED);
    // Another thread writes the log.
    eventually("the decisions", async || example.gate.decisions().len() > 1).await;
    let issued = &example.gate.decisions()[1];
    assert_eq!(issued["subject"], "user_ada");
    assert_eq!(issued["workspace"], "ws_1");
    assert_eq!(example.browse("album.mjs").await, ALBUM);
}

#[actix_web::test]
async fn a_vite_page_uploads_with_a_bearer_token() {
    if !are_here(&["node", "chromium", "npm:playwright-core", "npm:vite"]) {
        return;
    }
    let example = Example::start("vite", "localhost:5173").await;
    let port = example.port.to_string();
    let vite = ["node_modules/.bin/vite", "--strictPort", "--port", &port];
    let _server = example.serve(&vite);
    assert_eq!(example.use_page().await, AS_DESCRIBED);
}

#[actix_web::test]
async fn an_express_app_uploads_with_its_own_cookie() {
    if !are_here(&[
        "node",
        "chromium",
        "npm:playwright-core",
        "npm:http-proxy-middleware",
    ]) {
        return;
    }
    let example = Example::start("express", "localhost:3000").await;
    let _server = example.serve(&["node", "server.js"]);
    assert_eq!(example.use_page().await, AS_DESCRIBED);
}

#[test]
fn the_function_of_the_front_end_is_the_same_in_every_example_and_in_the_guide() {
    let guide = &blocks("docs/frontend.md", "js")[0];
    let mut uploads = Vec::new();
    for folder in ["nextjs/lib", "vite", "express/public"] {
        let read = |file: &str| fs::read_to_string(examples().join(folder).join(file)).unwrap();
        assert_eq!(&read("get-upload-token.js"), guide, "{folder}");
        uploads.push(read("upload.js"));
    }
    uploads.dedup();
    assert_eq!(uploads.len(), 1);
}
