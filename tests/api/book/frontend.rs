//! The code of `docs/frontend.md`: the functions, with doubles of the published SDKs, the types and the proxies.

use std::{collections::BTreeSet, fs, process::Command};

use actix_web::{http::Method, web};
use serde_json::{Value, json};

use crate::{
    helpers::{Gate, ROUTE, TestApp, Token, keys, rate_limit},
    process::{run, text},
    real_parts::{are_here, blocks},
};

const GUIDE: &str = "docs/frontend.md";

/// The part of the SDKs that the guide uses.
const SDK: &str = r#"
    const upload = async (options, file, own = {}) => ({ token: await (own.getUploadToken ?? options.getUploadToken)(), file });
    export class ImgwireClient {
      constructor(options) {
        this.images = { upload: (file, own) => upload(options, file, own) };
      }
    }
    export const useUpload = () => [(file, own) => upload({}, file, own), { percent: 100 }];
"#;

/// The guide's block of JavaScript that has this text.
fn block(with: &str) -> String {
    let blocks = blocks(GUIDE, "js");
    let found: Vec<_> = blocks.iter().filter(|block| block.contains(with)).collect();
    assert_eq!(found.len(), 1, "{with}");
    found[0].clone()
}

/// Runs a module beside the guide's function and the SDKs; returns the JSON that it prints.
async fn run_js(main: String) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("get-upload-token.js", &blocks(GUIDE, "js")[0]);
    write("package.json", r#"{"type":"module"}"#);
    for package in ["js", "react"] {
        let folder = format!("node_modules/@imgwire/{package}");
        write(
            &format!("{folder}/package.json"),
            r#"{"type":"module","exports":"./index.js"}"#,
        );
        write(&format!("{folder}/index.js"), SDK);
    }
    write("main.js", &main);
    let running = move || {
        Command::new("node")
            .current_dir(folder.path())
            .arg("main.js")
            .output()
            .unwrap()
    };
    let output = web::block(running).await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Has a relative `fetch` reach the gate, with this token if it has none, and record what it sent.
fn fetch_of(gate: &TestApp, token: &str) -> String {
    format!(
        r#"
        const plain = fetch;
        let sent;
        globalThis.fetch = (url, options) => {{
          sent = options.body && JSON.parse(options.body);
          options.headers.Authorization ??= "Bearer {token}";
          return plain("{}" + url, options);
        }};
        const file = {{ name: "me.png", type: "image/png", size: 7 }};
        "#,
        gate.url
    )
}

#[actix_web::test]
async fn the_functions_of_the_guide_return_a_token_or_a_reason() {
    if !are_here(&["node"]) {
        return;
    }
    let gate = TestApp::start().await;
    let patient = block("patientUploadToken");
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
async fn the_uploads_of_the_guide_declare_their_file() {
    if !are_here(&["node"]) {
        return;
    }
    let gate = TestApp::start().await;
    let fetch = fetch_of(&gate, &Token::of("user_1").sign());
    let avatar = block("uploadAvatar(imgwire");
    let react = block("useAvatarUpload");
    for (code, call) in [
        (
            avatar,
            r#"uploadAvatar(new (await import("@imgwire/js")).ImgwireClient({}), file, "ws_1")"#,
        ),
        (react, r#"useAvatarUpload("ws_1")[0](file)"#),
    ] {
        let main = format!(
            "{code}\n{fetch}\nconst {{ token }} = await {call};\nconsole.log(JSON.stringify({{ token, sent }}));"
        );
        let said = run_js(main).await;
        assert!(said["token"].as_str().unwrap().starts_with("ut_"));
        assert_eq!(
            said["sent"],
            json!({
                "workspace": "ws_1",
                "purpose": "avatar",
                "file": { "name": "me.png", "mimeType": "image/png", "size": 7 },
            })
        );
    }
}

#[actix_web::test]
async fn the_client_of_the_guide_reads_the_jwt_before_each_upload() {
    if !are_here(&["node"]) {
        return;
    }
    let gate = TestApp::start().await;
    let client = block("createClient");
    let fetch = fetch_of(&gate, "none");
    let (expired, valid) = (
        Token::of("user_1").with("exp", json!(1_700_000_000)).sign(),
        Token::of("user_1").sign(),
    );
    let main = format!(
        r#"{client}
        {fetch}
        let jwt = "{expired}";
        const imgwire = createClient({{ accessToken: async () => jwt }}, () => "ws_1");
        const code = await imgwire.images.upload(file).catch((refused) => refused.code);
        jwt = "{valid}";
        const {{ token }} = await imgwire.images.upload(file);
        console.log(JSON.stringify({{ code, token }}));
        "#
    );
    let said = run_js(main).await;
    assert_eq!(said["code"], "credentials_expired");
    assert!(said["token"].as_str().unwrap().starts_with("ut_"));
}

/// A gate, and the token of a member of the workspaces `ws_1` and `ws_2`.
async fn member_of_two() -> (TestApp, Token) {
    let gate = Gate::standard().chain(["signed-in", "member"]);
    let token = Token::of("user_1").with("workspaces", json!(["ws_1", "ws_2"]));
    (gate.start().await, token)
}

#[actix_web::test]
async fn the_header_of_the_guide_chooses_the_workspace() {
    if !are_here(&["node"]) {
        return;
    }
    let (gate, token) = member_of_two().await;
    gate.ask_as(&token)
        .await
        .assert_error(403, "workspace_required");
    let code = block("tokenFor");
    let fetch = fetch_of(&gate, &token.sign());
    let main = format!("{code}\n{fetch}\nconsole.log(JSON.stringify(await tokenFor(\"ws_2\")));");
    assert!(run_js(main).await.as_str().unwrap().starts_with("ut_"));
}

#[actix_web::test]
async fn the_snippet_of_the_migration_guide_works_with_two_workspaces() {
    if !are_here(&["node"]) {
        return;
    }
    let (gate, token) = member_of_two().await;
    let fetch = fetch_of(&gate, &token.sign());
    let [snippet] = &blocks("docs/migrating.md", "js")[..] else {
        panic!("one snippet")
    };
    let main = format!(
        "const workspace = \"ws_2\";\n{fetch}\n{snippet}\n\
         const {{ uploadToken }} = await response.json();\nconsole.log(JSON.stringify(uploadToken));"
    );
    assert!(run_js(main).await.as_str().unwrap().starts_with("ut_"));
}

#[actix_web::test]
async fn the_allowance_has_the_fields_that_the_guide_shows() {
    let gate = Gate::standard()
        .policy("burst", rate_limit().per(["user"]).limit(30))
        .chain(["signed-in", "burst"])
        .start()
        .await;
    let request = gate.request(Method::GET, &format!("{ROUTE}/allowance"));
    let answer = request.bearer(&Token::of("user_1").sign()).send().await;
    let shown: Value = serde_json::from_str(&blocks(GUIDE, "json")[0]).unwrap();
    assert_eq!(keys(&answer.json), keys(&shown));
    assert_eq!(keys(&answer.json["limits"][0]), keys(&shown["limits"][0]));
}

#[test]
fn the_types_of_the_guide_have_every_code_of_the_api() {
    let types = blocks(GUIDE, "ts").remove(0);
    let (codes, _) = types.split_once(';').unwrap();
    let listed: BTreeSet<_> = codes
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    let document: Value = serde_json::from_slice(&run(&["openapi"]).stdout).unwrap();
    let schemas = &document["components"]["schemas"];
    let codes = schemas["ErrorCode"]["enum"].as_array().unwrap();
    let codes: BTreeSet<_> = codes
        .iter()
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, codes);
}

#[actix_web::test]
async fn the_development_servers_of_the_guide_lead_to_the_gate() {
    if !are_here(&["node"]) {
        return;
    }
    let [next, vite] =
        ["rewrites", "server:"].map(|with| block(with).replace("export default", "const config ="));
    let next = run_js(format!(
        "{next}\nconsole.log(JSON.stringify((await config.rewrites())[0]));"
    ));
    let path = "/api/imgwire/:path*";
    let rewrite = json!({ "source": path, "destination": format!("http://127.0.0.1:8080{path}") });
    assert_eq!(next.await, rewrite);
    let vite = run_js(format!(
        "{vite}\nconsole.log(JSON.stringify(config.server.proxy));"
    ))
    .await;
    assert_eq!(vite, json!({ "/api/imgwire": "http://127.0.0.1:8080" }));
}

#[test]
fn all_code_of_the_guide_is_valid() {
    if !are_here(&["node"]) {
        return;
    }
    for block in blocks(GUIDE, "js") {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("block.mjs");
        fs::write(&file, block).unwrap();
        let checked = Command::new("node").arg("--check").arg(&file).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
}
