//! The sandbox's page in a real browser.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{Gate, ROUTE, Request, TestApp, Token, signed_in},
    process::{run, text},
    real_parts::{are_here, blocks, browser},
    sandbox::Sandbox,
    sandbox_config::OwnSandbox,
};

/// Names the folder for the screenshots. `docs/images/playground.png` and `playground-dark.png` come from there.
const SCREENSHOTS: &str = "IMGWIRE_GATE_SCREENSHOTS";

#[test]
fn the_playground_works_in_a_real_browser() {
    if !are_here(&["chromium", "node", "npm:playwright-core", "npm:axe-core"]) {
        return;
    }
    let sandbox = Sandbox::start();
    let own = OwnSandbox::start(&Gate::standard());
    let uploads = OwnSandbox::start(
        &Gate::bare()
            .policy("signed-in", signed_in(["app"]))
            .upload_route("/imgwire/{workspace}")
            .events("http://127.0.0.1:9/events"),
    );
    let long = Token::of(&"u".repeat(200)).with("note", json!("long ".repeat(1500)));
    let temporary = tempfile::tempdir().unwrap();
    let screenshots = std::env::var_os(SCREENSHOTS).map(PathBuf::from);
    let screenshots = screenshots.unwrap_or_else(|| temporary.path().to_owned());
    let output = Command::new("node")
        .current_dir(browser())
        .args(["playground.mjs", &sandbox.url, own.page()])
        .arg(own.file())
        .arg(Token::of("user_1").sign())
        .arg(long.sign())
        .arg(uploads.page())
        .arg(&screenshots)
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert_eq!(said.matches("ok: ").count(), 26, "{said}");
    for state in [
        "first", "allowed", "401", "403", "429", "500", "uploads", "full", "fault", "many",
    ] {
        for width in [1280, 390] {
            for colors in ["light", "dark"] {
                let name = format!("{state}-{width}-{colors}.png");
                assert!(screenshots.join(&name).exists(), "{name}");
            }
        }
    }
    for name in ["playground.png", "playground-dark.png"] {
        let size = fs::metadata(screenshots.join(name)).unwrap().len();
        assert!(size < 150_000, "{name}: {size} bytes");
    }
}

#[actix_web::test]
async fn a_page_reads_the_log_lines_of_its_request() {
    let sandbox = Sandbox::start();
    let state = sandbox.state().await;
    let token = state["users"][0]["token"].as_str().unwrap();
    let answer = sandbox.request(Method::POST, ROUTE).bearer(token).send();
    let answer = answer.await;
    answer.assert_token();
    let id = answer.header("x-request-id");
    let path = format!("/playground/log?request={id}");
    let log = sandbox.request(Method::GET, &path).send().await;
    let lines = log.json["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = lines[0].as_str().unwrap();
    assert!(
        line.contains("decision") && line.contains("user_1") && line.contains(id),
        "{line}"
    );
    let unknown = sandbox.request(Method::GET, "/playground/log?request=unknown");
    assert_eq!(unknown.send().await.json["lines"], json!([]));
}

#[actix_web::test]
async fn only_the_quota_of_the_user_is_given_back() {
    let sandbox = Sandbox::start();
    let state = sandbox.state().await;
    let token = |user: usize| state["users"][user]["token"].as_str().unwrap();
    let ask = async |user: usize, workspace: &str| {
        let request = sandbox.request(Method::POST, ROUTE).bearer(token(user));
        request.json(&json!({ "workspace": workspace })).await
    };
    let left = async |user: usize, workspace: &str| {
        let path = format!("{ROUTE}/allowance");
        let request = sandbox.request(Method::GET, &path).bearer(token(user));
        let answer = request.header("x-workspace-id", workspace).send().await;
        answer.json["limits"][1]["remaining"].as_u64().unwrap()
    };
    ask(0, "ws_1").await.assert_token();
    ask(1, "ws_2").await.assert_token();
    assert_eq!((left(0, "ws_1").await, left(1, "ws_2").await), (19, 999));
    let give_back = async |body: Value| {
        let request = sandbox.request(Method::POST, "/playground/quota");
        request.json(&body).await
    };
    // A visitor gets nothing back, and a user who is not a member gets nothing back for the workspace.
    for body in [json!({}), json!({ "token": "x" })] {
        assert_eq!(give_back(body).await.json["policies"], json!([]));
    }
    give_back(json!({ "token": token(3), "workspace": "ws_1" })).await;
    assert_eq!(left(0, "ws_1").await, 19);
    let answer = give_back(json!({ "token": token(0) })).await;
    assert_eq!(answer.json["policies"], json!(["daily"]));
    assert_eq!((left(0, "ws_1").await, left(1, "ws_2").await), (20, 999));
    give_back(json!({ "route": "/none" }))
        .await
        .assert_error(404, "not_found");
}

#[test]
fn the_page_has_a_sentence_for_each_error_code() {
    let document: Value = serde_json::from_slice(&run(&["openapi"]).stdout).unwrap();
    let codes = &document["components"]["schemas"]["ErrorCode"]["enum"];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sandbox/playground/page/text.js");
    let script = fs::read_to_string(path).unwrap();
    let (_, rest) = script.split_once("const CODES = {\n").unwrap();
    let (sentences, _) = rest.split_once("\n};").unwrap();
    let named = sentences
        .lines()
        .filter_map(|line| line.trim().split_once(": "));
    let named: BTreeSet<_> = named.map(|(code, _)| code).collect();
    let codes = codes.as_array().unwrap().iter();
    let codes: BTreeSet<_> = codes.map(|code| code.as_str().unwrap()).collect();
    assert_eq!(named, codes);
}

#[actix_web::test]
async fn a_config_of_ones_own_is_not_changed_by_its_page() {
    let sandbox = OwnSandbox::start(&Gate::standard());
    let (base, key) = sandbox.page().split_once("/?key=").unwrap();
    let call = async |path: &str, body: Value| {
        let url = format!("{base}/playground/{path}");
        let request = Request(awc::Client::default().post(url));
        request.header("x-playground-key", key).json(&body).await
    };
    // The text of the page is ignored, because the file is not confined as the demo's config is.
    let body = json!({ "text": "[server]\n", "apply": true });
    let answer = call("config", body).await;
    assert_eq!(answer.json["applied"], true);
    let file = fs::read_to_string(sandbox.file()).unwrap();
    assert_eq!(answer.json["text"], file);
    call("quota", json!({ "token": Token::of("user_1").sign() }))
        .await
        .assert_error(404, "not_found");
}

#[actix_web::test]
async fn the_playground_loads_nothing_from_other_hosts_and_only_the_sandbox_serves_it() {
    let sandbox = Sandbox::start();
    let get = async |path: &str| {
        let client = awc::Client::builder().disable_redirects().finish();
        let url = format!("{}{path}", sandbox.parts().0);
        let mut answer = client.get(url).send().await.unwrap();
        let body = answer.body().await.unwrap();
        (answer, String::from_utf8(body.to_vec()).unwrap())
    };
    let (page, html) = get(&format!("/?key={}", sandbox.parts().1)).await;
    assert_eq!(page.status(), 200);
    assert_eq!(
        page.headers().get("referrer-policy").unwrap(),
        "no-referrer"
    );
    let policy = page.headers().get("content-security-policy").unwrap();
    let policy = policy.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    assert!(!policy.contains("unsafe"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sandbox/playground/page");
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: Vec<_> = names.filter(|name| name != "index.html").collect();
    assert!(files.len() > 10);
    let mut bytes = html.len();
    for file in files {
        let (answer, text) = get(&format!("/playground/page/{file}")).await;
        assert_eq!(answer.status(), 200, "{file}");
        let kind = answer.headers().get("content-type").unwrap();
        let expected = if file.ends_with(".css") {
            "text/css"
        } else {
            "text/javascript"
        };
        assert!(kind.to_str().unwrap().starts_with(expected), "{file}");
        assert!(
            !text.contains("https://") && !text.contains("//cdn"),
            "{file}"
        );
        // Untrusted texts are never parsed.
        for name in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!text.contains(name), "{file}: {name}");
        }
        bytes += text.len();
    }
    let (answer, _) = get("/playground/page/none.js").await;
    assert_eq!(answer.status(), 404);
    assert!(!html.contains("https://") && !html.contains(" style=") && !html.contains("onclick"));
    // The page runs the code of the guide.
    let (_, function) = get("/playground/page/get-upload-token.js").await;
    assert_eq!(function, blocks("docs/frontend.md", "js")[0]);
    bytes += function.len();
    assert!(bytes < 100_000, "{bytes}");

    // Only JSON requests change anything.
    for path in [
        "/playground/config",
        "/playground/imgwire",
        "/playground/explain",
        "/playground/quota",
    ] {
        let form = sandbox.request(Method::POST, path);
        let answer = form.send_body("mood=down").await;
        assert_eq!(answer.status, 415, "{path}");
    }

    let gate = TestApp::start().await;
    for path in [
        "/",
        "/playground/page/main.js",
        "/playground/state",
        "/playground/page/get-upload-token.js",
    ] {
        let answer = gate
            .request(actix_web::http::Method::GET, path)
            .send()
            .await;
        answer.assert_error(404, "not_found");
    }
}
