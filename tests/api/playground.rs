//! The sandbox's page in a real browser, and the front end's functions that it runs.

use std::{fs, process::Command};

use actix_web::{http::Method, web};
use serde_json::Value;

use crate::{
    helpers::{ROUTE, TestApp, Token},
    process::text,
    real_parts::{are_here, blocks, browser},
    sandbox::Sandbox,
};

#[test]
fn the_playground_works_in_a_real_browser() {
    if !are_here(&["chromium", "node", "npm:playwright-core", "npm:axe-core"]) {
        return;
    }
    let sandbox = Sandbox::start();
    let screenshots = tempfile::tempdir().unwrap();
    let output = Command::new("node")
        .current_dir(browser())
        .args(["playground.mjs", &sandbox.url])
        .arg(screenshots.path())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert_eq!(said.matches("ok: ").count(), 6, "{said}");
    for name in ["light.png", "dark.png", "narrow.png"] {
        assert!(screenshots.path().join(name).exists());
    }
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
    for file in ["/playground.css", "/playground.js", "/get-upload-token.js"] {
        let (answer, text) = get(file).await;
        assert_eq!(answer.status(), 200, "{file}");
        assert!(
            !text.contains("https://") && !text.contains("//cdn"),
            "{file}"
        );
    }
    assert!(!html.contains("https://") && !html.contains(" style=") && !html.contains("onclick"));
    // The page runs the code of the guide.
    let (_, function) = get("/get-upload-token.js").await;
    assert_eq!(function, blocks("docs/frontend.md", "js")[0]);

    // Only JSON requests change anything.
    for path in [
        "/playground/config",
        "/playground/imgwire",
        "/playground/explain",
    ] {
        let form = sandbox.request(Method::POST, path);
        let answer = form.send_body("how=broken").await;
        assert_eq!(answer.status, 415, "{path}");
    }

    let gate = TestApp::start().await;
    for path in [
        "/",
        "/playground.js",
        "/playground/state",
        "/get-upload-token.js",
    ] {
        let answer = gate
            .request(actix_web::http::Method::GET, path)
            .send()
            .await;
        answer.assert_error(404, "not_found");
    }
}

/// Runs a module beside the guide's functions; returns the JSON that it prints.
async fn run_js(main: String) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks("docs/frontend.md", "js");
    fs::write(folder.path().join("get-upload-token.js"), &blocks[0]).unwrap();
    fs::write(folder.path().join("package.json"), r#"{"type":"module"}"#).unwrap();
    fs::write(folder.path().join("main.js"), main).unwrap();
    let run = move || {
        Command::new("node")
            .current_dir(folder.path())
            .arg("main.js")
            .output()
            .unwrap()
    };
    let output = web::block(run).await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[actix_web::test]
async fn the_functions_of_the_guide_return_a_token_or_a_reason() {
    if !are_here(&["node"]) {
        return;
    }
    let gate = TestApp::start().await;
    let blocks = blocks("docs/frontend.md", "js");
    let patient = &blocks[2];
    let token = Token::of("user_1").sign();
    let main = format!(
        r#"{patient}
        const url = "{}{ROUTE}";
        const file = {{ name: "me.png", type: "image/png", size: 7 }};
        const said = {{ token: await getUploadToken({{ url, token: "{token}", file, purpose: "avatar" }}) }};
        try {{ await getUploadToken({{ url }}); }} catch (refused) {{
          said.refused = {{ status: refused.status, code: refused.code, id: refused.requestId, is: refused instanceof UploadRefused }};
        }}
        said.again = await patientUploadToken({{ url }}, {{ signIn: async () => "{token}" }});
        console.log(JSON.stringify(said));
        "#,
        gate.url
    );
    let said = run_js(main).await;
    assert!(said["token"].as_str().unwrap().starts_with("ut_"));
    assert!(said["again"].as_str().unwrap().starts_with("ut_"));
    assert_eq!(said["refused"]["status"], 401);
    assert_eq!(said["refused"]["code"], "not_signed_in");
    assert_eq!(said["refused"]["is"], true);
    assert!(!said["refused"]["id"].as_str().unwrap().is_empty());
}

#[actix_web::test]
async fn the_upload_of_the_guide_declares_its_file() {
    if !are_here(&["node"]) {
        return;
    }
    let gate = TestApp::start().await;
    let upload = &blocks("docs/frontend.md", "js")[1];
    let token = Token::of("user_1").sign();
    // The part of the SDK that the guide needs, and a `fetch` that finds the gate.
    let main = format!(
        r#"{upload}
        const plain = fetch;
        let sent;
        globalThis.fetch = (url, options) => {{
          sent = JSON.parse(options.body);
          options.headers.Authorization = "Bearer {token}";
          return plain("{}" + url, options);
        }};
        const imgwire = {{ images: {{ upload: async (file, {{ getUploadToken }}) => ({{ token: await getUploadToken() }}) }} }};
        const file = {{ name: "me.png", type: "image/png", size: 7 }};
        const {{ token }} = await uploadAvatar(imgwire, file, "ws_1");
        console.log(JSON.stringify({{ token, sent }}));
        "#,
        gate.url
    );
    let said = run_js(main).await;
    assert!(said["token"].as_str().unwrap().starts_with("ut_"));
    assert_eq!(
        said["sent"],
        serde_json::json!({
            "workspace": "ws_1",
            "purpose": "avatar",
            "file": { "name": "me.png", "mimeType": "image/png", "size": 7 },
        })
    );
}

#[test]
fn the_hooks_for_react_and_vue_are_valid_modules() {
    if !are_here(&["node"]) {
        return;
    }
    let blocks = blocks("docs/frontend.md", "js");
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("block.mjs");
        fs::write(&file, block).unwrap();
        let checked = Command::new("node").arg("--check").arg(&file).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
}
