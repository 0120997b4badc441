//! The guides to apps with sessions of their own in `docs/providers`, with the answers that the apps document.

use serde_json::{Value, json};
use toml::Table;

use crate::{
    guides::{Guide, check_and_explain, section},
    helpers::{Gate, TestApp},
    real_parts::blocks,
    service::{Reply, Service},
};

/// The heading of each guide, and its identity.
const APPS: [(&str, &str); 4] = [
    ("Auth.js", "site"),
    ("NextAuth v4", "nextauth"),
    ("better-auth", "better-auth"),
    ("Rails, Django, Laravel", "rails"),
];

/// The names of the cookies that the guide's config forwards.
fn cookies(config: &str, identity: &str) -> Vec<String> {
    let table: Table = config.parse().unwrap();
    let forward = table["identities"][identity]["forward"].as_array().unwrap();
    let names = forward.iter().map(|source| {
        let name = source.as_str().unwrap().strip_prefix("cookie:");
        name.unwrap().to_owned()
    });
    names.collect()
}

#[actix_web::test]
async fn each_guide_accepts_the_sessions_of_its_app() {
    for (heading, identity) in APPS {
        let guide = section(heading);
        let app = Service::start();
        let config = guide.config.replace("http://app:3000", &app.url);
        let table: Table = config.parse().unwrap();
        let site = table["identities"][identity].as_table().unwrap();
        let url = site["url"].as_str().unwrap();
        let path = url.strip_prefix(&app.url).unwrap();
        let gate = Gate::accepting([identity])
            .include(&config)
            .chain(["signed-in", "member"])
            .start()
            .await;
        let session: Value = serde_json::from_str(&guide.payload).unwrap();
        let ask = async |gate: &TestApp, cookies: &str, body: Value| {
            let request = gate.ask().header("cookie", cookies);
            let answer = request.json(&body).await;
            (answer.status.as_u16(), answer.code().to_owned())
        };
        for (number, name) in cookies(&config, identity).iter().enumerate() {
            let sent = match name.strip_suffix('*') {
                Some(name) => format!("{name}.0=a{number}%3D; {name}.1=\"b\""),
                None => format!("{name}=\"a{number}\"%3D"),
            };
            app.answer(path, Reply::json(&session));
            let found = ask(&gate, &format!("theme=dark; {sent}; x=1"), json!({})).await;
            assert_eq!(found, (200, String::new()), "{heading}: {sent}");
            let seen = app.seen(path).pop().unwrap();
            assert_eq!(seen.headers["cookie"], sent);
            let scheme = seen.headers.get("x-forwarded-proto").map(String::as_str);
            let expected = site.get("headers").map(|_| "https");
            assert_eq!(scheme, expected, "{heading}");
            let found = ask(&gate, &sent, json!({ "workspace": "ws_9" })).await;
            assert_eq!(found, (403, "workspace_forbidden".to_owned()), "{heading}");
        }
        // Another session each time, because the answers are cached.
        let name = cookies(&config, identity).remove(0).replace('*', "");
        let mut no_workspaces = session.clone();
        no_workspaces["user"]["workspaces"] = json!([]);
        for (case, reply, status, code) in [
            ("null", Reply::text("null"), 401, "not_signed_in"),
            ("empty", Reply::text(""), 401, "not_signed_in"),
            ("object", Reply::text("{}"), 401, "not_signed_in"),
            ("status", Reply::status(401), 401, "not_signed_in"),
            (
                "stranger",
                Reply::json(&no_workspaces),
                403,
                "workspace_required",
            ),
            ("busy", Reply::status(429), 500, "internal"),
        ] {
            app.answer(path, reply);
            let found = ask(&gate, &format!("{name}={case}"), json!({})).await;
            assert_eq!(found, (status, code.to_owned()), "{heading}: {case}");
        }
        let calls = app.all_seen().len();
        let found = ask(&gate, &format!("{name}2=a; x{name}=b"), json!({})).await;
        assert_eq!(found, (401, "not_signed_in".to_owned()), "{heading}");
        assert_eq!(app.all_seen().len(), calls);
    }
}

#[test]
fn check_and_explain_accept_the_guide_to_each_app() {
    for (heading, _) in APPS {
        let guide = section(heading);
        check_and_explain(&guide, "ws_1", &json!({ "workspaces": ["ws_1"] }), &[]);
    }
}

#[test]
fn check_and_explain_accept_the_guide_to_oauth2_proxy() {
    let guide = Guide {
        config: blocks("docs/proxies.md", "toml").remove(1),
        payload: String::new(),
    };
    check_and_explain(&guide, "ws_1", &json!({ "groups": ["ws_1", "staff"] }), &[]);
}
