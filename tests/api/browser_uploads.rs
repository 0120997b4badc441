//! A page in a real browser that uploads through the gate, with the calls of the published SDK.

use std::{net::TcpListener, process::Command};

use actix_web::web;
use serde_json::json;

use crate::{
    helpers::{ENVIRONMENT, Gate, Token, quota, upload_intent, workspace_member},
    real_parts::{are_here, browser},
};

/// Members of `ws_1` upload avatars.
fn gate(origin: &str) -> Gate {
    let avatars = upload_intent()
        .set("purposes", ["avatar"])
        .set("mime_types", ["image/png"])
        .set("max_size", "10MB");
    Gate::accepting(["app"])
        .server("allowed_origins", [origin])
        .policy("member", workspace_member().claim("workspaces"))
        .policy("avatars", avatars)
        .policy("daily", quota().per(["workspace"]).limit(100))
        .route_with(json!({
            "action": "upload",
            "path": "/imgwire/{workspace}",
            "policies": ["signed-in", "member", "avatars", "daily"],
            "store": "main",
            "metadata": { "workspace": "workspace.id" },
            "client_metadata": ["alt"],
        }))
}

#[actix_web::test]
async fn a_page_on_another_port_uploads_reads_lists_and_deletes() {
    if !are_here(&["chromium", "node", "npm:playwright-core"]) {
        return;
    }
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let app = gate(&format!("http://127.0.0.1:{port}")).start().await;
    let stranger = Token::of("user_9").with("workspaces", json!(["ws_2"]));
    let arguments = [
        "uploads.mjs".to_owned(),
        port.to_string(),
        format!("{}/imgwire/ws_1", app.url),
        Token::of("user_1").sign(),
        stranger.sign(),
    ];
    let run = move || {
        let mut node = Command::new("node");
        node.current_dir(browser()).args(arguments).output()
    };
    let output = web::block(run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{failed}");
    assert_eq!(said.matches("ok: ").count(), 5, "{said}");
    // Two of the requests were for the same image, and one image was deleted.
    let used = app.manage("/quota/daily?key=ws_1").await;
    assert_eq!(used.json["used"], 24, "{used:?}");
    let images = app.imgwire.images(ENVIRONMENT);
    assert_eq!(images.len(), 23);
}
