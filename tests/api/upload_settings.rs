//! The settings of upload routes: what they do, and how the commands of the operator show them.

use std::{fs, path::Path};

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Gate, Token, eventually, settings, signed_in, upload_intent, upload_route, workspace_member,
    },
    process::{run, text, write_config},
};

const UPLOADS: &str = "/imgwire/{workspace}";

fn gate() -> Gate {
    let avatars = upload_route(UPLOADS, ["signed-in", "member"])
        .purpose("avatar")
        .metadata(json!({ "plan": "subject.claims.plan", "workspace": "workspace.id" }))
        .client_metadata(["alt"])
        .delete_roles(["owner"]);
    Gate::accepting(["app", "browser"])
        .policy("member", workspace_member().claim("workspaces"))
        .route_with(avatars)
}

fn warnings(gate: &Gate) -> Vec<String> {
    let config = gate.config("https://api.imgwire.dev", Path::new("data"));
    let secret = |_: &str| {
        Some("a-secret-that-is-long-enough-for-everything:sixty-four-bytes-long".to_owned())
    };
    let loaded = settings::load("gate.toml", &config, &secret);
    let loaded = loaded.unwrap_or_else(|faults| panic!("{faults}"));
    let lines = loaded.warnings.lines().iter();
    let messages = lines.map(|line| line.splitn(4, ':').nth(3).unwrap().trim().to_owned());
    messages.collect()
}

#[test]
fn settings_of_uploads_that_nothing_uses_are_warnings() {
    let pool = json!({ "size": 1, "max_age": "1m" });
    let tokens = || Gate::accepting(["app", "browser"]).set("uploads.keep_records", "30d");
    let unused = "uploads: nothing uses it, because no route has a `store`; write store = \"NAME\" on a route, or remove it";
    assert_eq!(warnings(&tokens()), [unused]);
    let recorded = tokens().route_with(json!({
        "path": "/recorded", "policies": ["signed-in"], "store": "main",
    }));
    assert!(warnings(&recorded.imgwire("pool", &pool)).is_empty());
    let only_uploads = Gate::bare()
        .policy("signed-in", signed_in(["app", "browser"]))
        .upload_route("/mine")
        .imgwire("pool", &pool);
    let expected =
        ["imgwire.pool: nothing uses its tokens, because no route issues any; remove it"];
    assert_eq!(warnings(&only_uploads), expected);
}

#[test]
fn a_role_that_only_members_with_several_roles_can_use_is_a_warning() {
    let member = |roles: &[&str]| workspace_member().claim("workspaces").roles(roles);
    let found = warnings(&gate().policy("member", member(&["editor"])));
    let expected = "routes[1].delete_roles: `owner` is not in `roles` of `member`, so only members that also have one of \
                    those roles can use it";
    assert_eq!(found, [expected]);
    assert!(warnings(&gate().policy("member", member(&["owner", "editor"]))).is_empty());
    assert!(warnings(&gate()).is_empty());
}

#[test]
fn check_prints_what_an_upload_route_does() {
    let gate = gate().route_with(upload_route("/mine", ["signed-in"]));
    let recorded = json!({ "path": "/recorded", "policies": ["signed-in"], "store": "main" });
    let (_folder, path) = write_config(&gate.route_with(recorded), "https://api.imgwire.dev");
    let output = run(&["check", path.to_str().unwrap()]);
    let signed_in =
        "  │ 1. signed-in (signed_in): the user is signed in by app, browser; else 401\n";
    let member = "  │ 2. member (workspace_member): a member of the workspace, by the claim workspaces; else 403\n";
    let expected = format!(
        "POST /api/imgwire/upload-token\n{signed_in}  ╰ 200 with an upload token\n\
         POST /imgwire/{{workspace}}/api/v1/images/standard_upload (purpose: avatar)\n{signed_in}{member}  \
         ╰ 200 with an upload (action: upload); recorded in main; with the metadata plan, workspace; clients may set \
         alt; images of others may be deleted as owner\n\
         POST /mine/api/v1/images/standard_upload\n{signed_in}  \
         ╰ 200 with an upload (action: upload); recorded in main\n\
         POST /recorded\n{signed_in}  ╰ 200 with an upload token; recorded in main\n"
    );
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}

#[actix_web::test]
async fn explain_names_an_upload_route_by_its_template() {
    let app = gate().start().await;
    let explain = async |file: Value, workspace: &str| {
        let described = json!({
            "route": UPLOADS,
            "subject": { "id": "user_1", "claims": { "workspaces": ["ws_1"] } },
            "workspace": workspace,
            "file": file,
        });
        let request = app.request_management(Method::POST, "/explain");
        request.json(&described).await.json
    };
    let allowed = explain(json!({ "mimeType": "image/png", "size": 5 }), "ws_1").await;
    assert_eq!(
        (&allowed["outcome"], &allowed["route"]),
        (&json!("allow"), &json!(UPLOADS))
    );
    let names = |explained: &Value| {
        let policies = explained["policies"].as_array().unwrap().iter();
        let names = policies.map(|policy| policy["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(
        names(&allowed),
        ["signed-in", "purpose", "imgwire", "member"]
    );
    let denied = explain(json!({ "size": 104_857_601 }), "ws_1").await;
    assert_eq!(denied["code"], "file_too_large", "{denied}");
    assert_eq!(names(&denied), ["signed-in", "purpose", "imgwire"]);
    let foreign = explain(json!({}), "ws_2").await;
    assert_eq!(foreign["code"], "workspace_forbidden", "{foreign}");
}

#[test]
fn described_requests_and_their_tests_know_upload_routes() {
    let (folder, path) = write_config(&gate(), "https://api.imgwire.dev");
    let cases = folder.path().join("cases.toml");
    let text_of_cases = r#"
        [[cases]]
        name = "a member may upload"
        expect = "allow"
        route = "/imgwire/{workspace}"
        subject = { id = "user_1", claims = { workspaces = ["ws_1"] } }
        workspace = "ws_1"
        file = { mimeType = "image/png", size = 5 }
        [[cases]]
        name = "no page"
        expect = "file_type_forbidden"
        route = "/imgwire/{workspace}"
        subject = { id = "user_1", claims = { workspaces = ["ws_1"] } }
        file = { mimeType = "text/html" }
    "#;
    fs::write(&cases, text_of_cases).unwrap();
    let config = path.to_str().unwrap();
    let output = run(&["test", "--config", config, cases.to_str().unwrap()]);
    assert!(
        text(&output.stdout).contains("2 passed, 0 failed"),
        "{output:?}"
    );
    let request = folder.path().join("request.json");
    fs::write(&request, json!({ "route": "/imgwire/ws_1" }).to_string()).unwrap();
    let output = run(&[
        "explain",
        "--config",
        config,
        "--request",
        request.to_str().unwrap(),
    ]);
    assert!(
        text(&output.stderr).contains("unknown route `/imgwire/ws_1`"),
        "{output:?}"
    );
    fs::write(&request, json!({ "route": UPLOADS }).to_string()).unwrap();
    let output = run(&[
        "explain",
        "--config",
        config,
        "--request",
        request.to_str().unwrap(),
    ]);
    let explained = text(&output.stdout);
    assert!(
        explained.starts_with("POST /imgwire/{workspace}: "),
        "{explained}"
    );
    // Nothing was recorded.
    assert!(!folder.path().join("gate.db").exists());
}

#[actix_web::test]
async fn the_openapi_document_has_the_paths_of_upload_routes() {
    let app = gate()
        .route_with(upload_route("/mine", ["signed-in"]))
        .start()
        .await;
    let document = app.manage("/openapi.json").await.json;
    let paths = document["paths"].as_object().unwrap();
    let mut found: Vec<_> = paths
        .keys()
        .filter(|path| path.starts_with(UPLOADS) || path.starts_with("/mine"))
        .collect();
    found.sort();
    let expected = [UPLOADS, "/mine"].map(|route| {
        let suffixes = [
            "allowance",
            "api/v1/images/",
            "api/v1/images/standard_upload",
            "api/v1/images/{id}",
        ];
        suffixes.map(|suffix| format!("{route}/{suffix}"))
    });
    let mut expected = expected.concat();
    expected.sort();
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    let parameters = |path: &str| {
        let parameters = paths[path]["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let names = parameters
            .iter()
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(
        parameters("/imgwire/{workspace}/api/v1/images/{id}"),
        ["workspace", "id"]
    );
    assert_eq!(parameters("/imgwire/{workspace}/allowance"), ["workspace"]);
    assert_eq!(parameters("/mine/api/v1/images/{id}"), ["id"]);
    assert!(parameters("/mine/api/v1/images/").is_empty());
    for (path, method) in [
        ("/mine/api/v1/images/standard_upload", "post"),
        ("/mine/api/v1/images/", "get"),
        ("/mine/api/v1/images/{id}", "get"),
        ("/mine/api/v1/images/{id}", "delete"),
    ] {
        assert!(
            paths[path][method]["responses"].is_object(),
            "{method} {path}"
        );
    }
}

#[actix_web::test]
async fn a_session_keeps_the_claims_that_metadata_reads() {
    let app = gate().start().await;
    let token = Token::of("user_1").with("plan", json!("pro")).sign();
    let exchange = app.request(Method::POST, "/api/imgwire/session");
    let session = exchange.bearer(&token).send().await;
    assert_eq!(session.status, 204);
    let created = app
        .request(Method::POST, "/imgwire/ws_1/api/v1/images/standard_upload")
        .header("cookie", session.cookie())
        .header("sec-fetch-site", "same-origin")
        .json(&json!({ "file_name": "me.png" }))
        .await;
    assert_eq!(created.status, 200, "{created:?}");
    let metadata = &created.json["image"]["custom_metadata"];
    assert_eq!(*metadata, json!({ "plan": "pro", "workspace": "ws_1" }));
}

#[actix_web::test]
async fn each_of_several_roles_may_delete() {
    let member = workspace_member().claim("workspaces").roles(["editor"]);
    let app = gate().policy("member", member).start().await;
    let member = |user: &str, roles: Value| {
        let workspaces = json!([{ "id": "ws_1", "role": roles }]);
        Token::of(user).with("workspaces", workspaces).sign()
    };
    let created = app
        .request(Method::POST, "/imgwire/ws_1/api/v1/images/standard_upload")
        .bearer(&member("user_1", json!("editor")))
        .json(&json!({ "file_name": "me.png" }))
        .await;
    let id = created.json["image"]["id"].as_str().unwrap();
    let delete = async |roles: Value| {
        let path = format!("/imgwire/ws_1/api/v1/images/{id}");
        let request = app.request(Method::DELETE, &path);
        request.bearer(&member("user_2", roles)).send().await
    };
    delete(json!("editor")).await.assert_error(404, "not_found");
    delete(json!(["editor", "guest"]))
        .await
        .assert_error(404, "not_found");
    assert_eq!(delete(json!(["owner", "editor"])).await.status, 204);
}

#[actix_web::test]
async fn a_gate_whose_records_are_down_is_not_ready() {
    let down = json!({ "url": "postgres://gate@127.0.0.1:1/gate", "timeout": "100ms" });
    let recorded = json!({ "path": "/recorded", "policies": ["signed-in"], "store": "main" });
    for gate in [
        Gate::accepting(["app"]).upload_route("/mine"),
        Gate::accepting(["app"]).route_with(recorded),
    ] {
        let app = gate.store("main", down.clone()).start().await;
        eventually("the state of the store", async || {
            app.manage("/readyz").await.status == 503
        })
        .await;
        let ready = app.manage("/readyz").await;
        assert_eq!(ready.json["failing"], json!(["stores.main"]), "{ready:?}");
    }
}

#[actix_web::test]
async fn the_limits_of_imgwire_apply_to_uploads_and_not_to_tokens() {
    let app = Gate::accepting(["app"])
        .upload_route("/mine")
        .policy("any-size", upload_intent().purposes(["avatar", "banner"]))
        .chain(["signed-in", "any-size"])
        .start()
        .await;
    let token = Token::of("user_1").sign();
    let read = async |path: &str| app.request(Method::GET, path).bearer(&token).send().await;
    for (query, code) in [
        ("?mimeType=image/png&size=104857600", None),
        ("?size=104857601", Some("file_too_large")),
        ("?mimeType=image/svg%2Bxml", Some("file_type_forbidden")),
        ("?mimeType=IMAGE/PNG", None),
        ("", None),
    ] {
        let answer = read(&format!("/mine/allowance{query}")).await;
        assert_eq!(answer.json["code"].as_str(), code, "{query}");
    }
    let path =
        "/api/imgwire/upload-token/allowance?purpose=avatar&mimeType=text/html&size=999999999";
    let answer = read(path).await;
    assert_eq!(answer.json["allowed"], true, "{answer:?}");
}
