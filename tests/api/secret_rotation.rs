//! Secrets that change while the gate runs: after a reload, the new value is in force and the old one is not.

use std::{fs, path::Path};

use actix_web::http::Method;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::{
    helpers::{
        Answer, Emulator, Gate, SERVER_API_KEY, SESSION, SESSION_KEY, ServerKey, TestApp, Token,
        env, eventually, introspection, rate_limit, remote_decision, workspace_member,
    },
    redis_server::Redis,
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const NEW_KEY: &str = "sk_rotated";

/// Writes a secret into a file, and returns its source.
fn file(folder: &Path, name: &str, secret: &str) -> Value {
    let path = folder.join(name);
    fs::write(&path, secret).unwrap();
    json!({ "file": path })
}

/// A gate that reads its Server API Key from a file, and does not retry.
fn with_api_key(source: &Value) -> Gate {
    Gate::accepting(["app"])
        .imgwire("retries", 0)
        .imgwire("api_key", source)
}

/// Imgwire takes only the new key from now on.
fn rotate(imgwire: &Emulator) {
    imgwire.change(|scenario| {
        scenario.server_keys[0].revoked = true;
        scenario.server_keys.push(ServerKey::new(NEW_KEY));
    });
}

async fn ask(app: &TestApp) -> Answer {
    app.ask_as(&Token::of("user_1")).await
}

#[actix_web::test]
async fn a_new_api_key_is_sent_by_every_worker_from_the_next_request_on() {
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), "key", SERVER_API_KEY);
    let app = with_api_key(&source).start().await;
    let ask_often = async || join_all((0..16).map(|_| ask(&app))).await;
    ask_often().await.iter().for_each(Answer::assert_token);

    rotate(&app.imgwire);
    file(folder.path(), "key", NEW_KEY);
    // Before the reload, the gate sends the key that it has read.
    ask(&app).await.assert_error(500, "imgwire_failed");
    app.reload(&with_api_key(&source)).unwrap();
    let ready = app.manage("/readyz").await;
    assert_eq!(ready.json["degraded"], json!([]), "{ready:?}");
    ask_often().await.iter().for_each(Answer::assert_token);
    let headers = app.imgwire.last_headers();
    let sent = headers.iter().find(|(name, _)| name == "authorization");
    assert_eq!(sent.unwrap().1, format!("Bearer {NEW_KEY}"));
}

#[actix_web::test]
async fn pooled_tokens_of_the_old_api_key_are_not_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), "key", SERVER_API_KEY);
    let pooled = || with_api_key(&source).imgwire("pool", json!({ "size": 4, "max_age": "1h" }));
    let app = pooled().start().await;
    let pool = async || app.metric("imgwire_gate_pool_tokens").await;
    eventually("a full pool", async || {
        ask(&app).await.assert_token();
        pool().await > 2.0
    })
    .await;
    // The same key keeps them.
    app.reload(&pooled()).unwrap();
    assert!(pool().await > 2.0);

    rotate(&app.imgwire);
    file(folder.path(), "key", NEW_KEY);
    app.reload(&pooled()).unwrap();
    assert!(pool().await < 1.0);
    let discarded = app.metric("imgwire_gate_pool_events_total{event=\"discarded\"}");
    assert!(discarded.await > 2.0);
    ask(&app).await.assert_token();
}

#[actix_web::test]
async fn the_management_token_and_its_hosts_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = ("the-old-management-token", "the-new-management-token");
    let source = file(folder.path(), "token", old);
    let app = Gate::standard().management("token", &source).start().await;
    let status = async |token: &str, host: &str| {
        let request = app.request_management(Method::GET, "/log");
        let request = request.instead("host", host).bearer(token);
        request.send().await.status.as_u16()
    };
    assert_eq!(status(old, "localhost").await, 200);
    assert_eq!(status(old, "gate.internal").await, 403);

    file(folder.path(), "token", new);
    let hosts = Gate::standard()
        .management("token", &source)
        .management("hosts", ["gate.internal"]);
    app.reload(&hosts).unwrap();
    assert_eq!(status(old, "localhost").await, 401);
    assert_eq!(status(new, "gate.internal").await, 200);
    // Without a token, this machine needs none.
    app.reload(&Gate::standard()).unwrap();
    let shown = app.request_management(Method::GET, "/log").send().await;
    assert_eq!(shown.status, 200);
}

async fn sign_in(app: &TestApp) -> String {
    let request = app.request(Method::POST, SESSION);
    let answer = request.bearer(&Token::of("user_1").sign()).send().await;
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.cookie().to_owned()
}

async fn ask_by(app: &TestApp, cookie: &str) -> Answer {
    app.ask().header("cookie", cookie).send().await
}

#[actix_web::test]
async fn a_session_key_is_rotated_without_signing_anyone_out() {
    let next = "the-next-key.".repeat(8);
    let with = |current: &str, previous: &[&str]| {
        let previous: Vec<_> = previous.iter().map(|name| env(name)).collect();
        Gate::standard()
            .session("key", env(current))
            .session("previous_keys", previous)
            .secret("NEXT", &next)
            .secret("OTHER", &"another-key.".repeat(8))
    };
    let app = with("TEST_SESSION_KEY", &[]).start().await;
    let of_first = sign_in(&app).await;

    app.reload(&with("NEXT", &["OTHER", "TEST_SESSION_KEY"]))
        .unwrap();
    ask_by(&app, &of_first).await.assert_token();
    let of_next = sign_in(&app).await;
    ask_by(&app, &of_next).await.assert_token();
    // Another gate that has only the new key accepts it, so the new key encrypted it.
    let other = with("NEXT", &[]).start().await;
    ask_by(&other, &of_next).await.assert_token();
    let refused = ask_by(&other, &of_first).await;
    refused.assert_error(401, "not_signed_in");

    app.reload(&with("NEXT", &[])).unwrap();
    ask_by(&app, &of_next).await.assert_token();
    let refused = ask_by(&app, &of_first).await;
    refused.assert_error(401, "not_signed_in");
    let end = app.request(Method::DELETE, SESSION);
    let ended = end.header("cookie", &of_next).send().await;
    assert_eq!(ended.status, 204);
    assert!(
        ended.header("set-cookie").contains("Max-Age=0"),
        "{ended:?}"
    );

    // Back to the first key.
    app.reload(&with("TEST_SESSION_KEY", &["NEXT"])).unwrap();
    for cookie in [of_first, of_next] {
        ask_by(&app, &cookie).await.assert_token();
    }
    assert_ne!(next, SESSION_KEY);
}

#[actix_web::test]
async fn a_new_jwt_secret_is_in_force_and_cached_tokens_of_the_old_one_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = ("o".repeat(32), "n".repeat(32));
    let source = file(folder.path(), "secret", &old);
    let gate = |sources: &Value| Gate::accepting(["app"]).set("identities.app.secret", sources);
    let by = |secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        Token::of("user_1").sign_with(&key)
    };
    let app = gate(&source).start().await;
    let ask = async |secret: &str| app.ask().bearer(&by(secret)).send().await;
    ask(&old).await.assert_token();
    ask(&old).await.assert_token();
    ask(&new).await.assert_error(401, "invalid_credentials");

    // Both are valid for a while.
    let both = json!([source, file(folder.path(), "next", &new)]);
    app.reload(&gate(&both)).unwrap();
    ask(&old).await.assert_token();
    ask(&new).await.assert_token();

    file(folder.path(), "secret", &new);
    app.reload(&gate(&source)).unwrap();
    ask(&new).await.assert_token();
    ask(&old).await.assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn key_files_of_issuers_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|kid| SigningKey::new(kid, Algorithm::ES256));
    let write = |key: &SigningKey| file(folder.path(), "jwks.json", &set(&[key]).to_string());
    let source = write(&old);
    let gate = || {
        let idp = json!({
            "kind": "jwt",
            "algorithms": ["ES256"],
            "jwks": source,
            "audience": ["imgwire-gate"],
        });
        Gate::accepting(["idp"]).identity("idp", idp)
    };
    let app = gate().start().await;
    let ask = async |key: &SigningKey| {
        let token = key.sign(&Token::of("user_1"));
        app.ask().bearer(&token).send().await
    };
    ask(&old).await.assert_token();
    write(&new);
    app.reload(&gate()).unwrap();
    ask(&new).await.assert_token();
    ask(&old).await.assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn tokens_for_other_services_are_read_again() {
    const MEMBER: &str = "/members/ws_1/user_1";
    let service = Service::start();
    let active = json!({ "active": true, "sub": "user_1" });
    service.answer("/introspect", Reply::json(&active));
    service.answer(MEMBER, Reply::json(&json!({ "role": "owner" })));
    service.answer("/allow", Reply::status(200));
    let folder = tempfile::tempdir().unwrap();
    let write = |version: &str| {
        ["client", "members", "decision"]
            .map(|name| file(folder.path(), name, &format!("{name}-{version}")))
    };
    let [client, members, decision] = write("old");
    let at = |path: &str| format!("{}{path}", service.url);
    let gate = || {
        let member = workspace_member()
            .url(at("/members/{workspace}/{user}"))
            .token(&members);
        Gate::accepting(["opaque"])
            .identity("opaque", introspection(&at("/introspect")))
            .set("identities.opaque.client_secret", &client)
            .policy("member", member)
            .policy("decision", remote_decision(&at("/allow")).token(&decision))
            .chain(["signed-in", "member", "decision"])
    };
    let app = gate().start().await;
    let ask = async |token: &str| {
        let request = app.ask().bearer(token);
        request.json(&json!({ "workspace": "ws_1" })).await
    };
    let sent = |path: &str| {
        let seen = service.seen(path).pop().unwrap();
        seen.headers["authorization"].clone()
    };
    let check = |version: &str| {
        let basic = STANDARD.encode(format!("gate:client-{version}"));
        assert_eq!(sent("/introspect"), format!("Basic {basic}"));
        assert_eq!(sent(MEMBER), format!("Bearer members-{version}"));
        assert_eq!(sent("/allow"), format!("Bearer decision-{version}"));
    };
    ask("one").await.assert_token();
    check("old");
    write("new");
    app.reload(&gate()).unwrap();
    ask("two").await.assert_token();
    check("new");
}

#[actix_web::test]
async fn a_new_password_of_a_store_is_used_for_counters_and_sessions() {
    let Some(redis) = Redis::here() else { return };
    let set_password = |password: &str| {
        redis.run(&[
            "ACL",
            "SETUSER",
            "gate",
            "on",
            "resetpass",
            &format!(">{password}"),
            "~*",
            "&*",
            "+@all",
        ]);
    };
    // The password is a secret of its own, or a part of the URL.
    for is_in_url in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let write = |password: &str| {
            set_password(password);
            match is_in_url {
                false => file(folder.path(), "password", password),
                true => {
                    let url = format!("redis://gate:{password}@{}", redis.address());
                    file(folder.path(), "url", &url)
                }
            }
        };
        let source = write("old-password");
        let gate = || {
            let url = format!("redis://gate@{}", redis.address());
            let store = match is_in_url {
                false => json!({ "url": url, "password": source }),
                true => json!({ "url": source }),
            };
            Gate::accepting(["app", "browser"])
                .store("shared", store)
                .session("store", "shared")
                .policy(
                    "burst",
                    rate_limit().per(["user"]).limit(100).store("shared"),
                )
                .chain(["signed-in", "burst"])
        };
        let app = gate().start().await;
        eventually("the store", async || ask(&app).await.status == 200).await;
        let cookie = sign_in(&app).await;

        write("new-password");
        app.reload(&gate()).unwrap();
        // A server may let authenticated connections live; here it does not.
        redis.number(&["CLIENT", "KILL", "USER", "gate"]);
        eventually("the new password", async || ask(&app).await.status == 200).await;
        ask_by(&app, &cookie).await.assert_token();
        sign_in(&app).await;
    }
}
