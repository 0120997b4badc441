//! The sandbox's page in a real browser.

use std::process::Command;

use actix_web::http::Method;

use crate::{
    helpers::TestApp,
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
