//! Issuers: lists, templates with a tenant id, secret rotation, and equal user ids of two issuers.

use actix_web::http::Method;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::{
    helpers::{
        Answer, Entry, Gate, TestApp, Token, env, forwarded, introspection, jwt, rate_limit,
        remote_session, signed_in, workspace_member,
    },
    jwks,
    keys::ask,
    process::{run, text, write_config},
    service::{Reply, Service},
    signing::SigningKey,
};

const SECRETS: [&str; 3] = [
    "the secret that is on its way out, long enough",
    "the secret that is in use, which is long enough",
    "the secret of another app, which is just as long",
];

fn app() -> Gate {
    Gate::accepting(["idp"]).identity("idp", jwt())
}

fn of(issuer: &str) -> Token {
    Token::of("user_1").with("iss", json!(issuer))
}

async fn statuses(app: &TestApp, tokens: &[Token]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for token in tokens {
        statuses.push(app.ask_as(token).await.status.as_u16());
    }
    statuses
}

#[actix_web::test]
async fn each_listed_issuer_is_accepted_and_no_other() {
    let listed = ["https://a.example", "https://b.example/"];
    let gate = app().set("identities.idp.issuer", listed).start().await;
    let tokens = [
        of("https://a.example"),
        of("https://b.example/"),
        of("https://a.example/"),
        of("https://b.example"),
        of("https://c.example"),
        of(""),
        Token::of("user_1"),
        Token::of("user_1").with("iss", json!(["https://a.example"])),
    ];
    assert_eq!(
        statuses(&gate, &tokens).await,
        [200, 200, 401, 401, 401, 401, 401, 401]
    );
}

#[actix_web::test]
async fn an_issuer_with_tid_accepts_only_the_listed_tenants() {
    let tenant = |iss: &str, tid: &str| {
        let issuer = format!("https://login.example/{iss}/v2.0");
        of(&issuer).with("tid", json!(tid))
    };
    let tokens = [
        tenant("t1", "t1"),
        tenant("t2", "t2"),
        tenant("t3", "t3"),
        tenant("t1", "t2"),
        tenant("t2", "t1"),
        tenant("{tid}", "t1"),
        tenant("{tid}", "{tid}"),
        tenant("t1/x", "t1"),
        tenant("", ""),
        of("https://login.example/t1/v2.0"),
        of("https://login.example/t1/v2.0").with("tid", json!(["t1"])),
        of("https://login.example/t1/v2.0").with("tid", json!(null)),
        of("https://other.example").with("tid", json!("t1")),
    ];
    let mut expected = [401; 13];
    expected[..2].fill(200);
    for claims in ["required_claims", "allowed_claims"] {
        let gate = app()
            .set("identities.idp.issuer", "https://login.example/{tid}/v2.0")
            .set(
                &format!("identities.idp.{claims}"),
                json!({ "tid": ["t1", "t2"] }),
            );
        let gate = gate.start().await;
        assert_eq!(statuses(&gate, &tokens).await, expected, "{claims}");
    }
}

#[actix_web::test]
async fn an_allowed_claim_is_checked_only_if_the_token_has_it() {
    let allowed = json!({ "azp": ["spa", "cli"] });
    let gate = app().set("identities.idp.allowed_claims", allowed);
    let gate = gate.start().await;
    let with = |azp: serde_json::Value| Token::of("user_1").with("azp", azp);
    let tokens = [
        Token::of("user_1"),
        with(json!("spa")),
        with(json!("cli")),
        with(json!("evil")),
        with(json!(null)),
        with(json!(true)),
        with(json!([])),
    ];
    assert_eq!(
        statuses(&gate, &tokens).await,
        [200, 200, 200, 401, 200, 401, 401]
    );
}

#[actix_web::test]
async fn every_listed_secret_is_valid_until_a_reload_removes_it() {
    let with = |secrets: &[&str]| {
        let secrets: Vec<_> = secrets.iter().map(|name| env(name)).collect();
        app()
            .set("identities.idp.secret", secrets)
            .secret("TEST_OLD", SECRETS[0])
            .secret("TEST_NEW", SECRETS[1])
    };
    let gate = with(&["TEST_NEW", "TEST_OLD"]).start().await;
    let signed = |index: usize| {
        let key = EncodingKey::from_secret(SECRETS[index].as_bytes());
        Token::of("user_1").sign_with(&key)
    };
    let ask = async |index: usize| gate.ask().bearer(&signed(index)).send().await;
    for _ in 0..2 {
        ask(0).await.assert_token();
        ask(1).await.assert_token();
        ask(2).await.assert_error(401, "invalid_credentials");
    }
    // A token of the removed secret is not accepted from the cache.
    gate.reload(&with(&["TEST_NEW"])).unwrap();
    ask(0).await.assert_error(401, "invalid_credentials");
    ask(1).await.assert_token();
}

/// Two issuers, `a` and `b`, in one chain that lets each user ask once per hour.
fn two_issuers(prefixes: [Option<&str>; 2]) -> Gate {
    let identity = |issuer: &str, prefix: Option<&str>| {
        let identity = jwt().issuer(issuer);
        match prefix {
            Some(prefix) => identity.subject_prefix(prefix),
            None => identity,
        }
    };
    let gate = Gate::accepting(["a", "b"])
        .identity("a", identity("https://a.example", prefixes[0]))
        .identity("b", identity("https://b.example", prefixes[1]));
    once_per_user(gate)
}

fn once_per_user(gate: Gate) -> Gate {
    gate.policy("once", rate_limit().per(["user"]).limit(1))
        .chain(["signed-in", "once"])
}

/// Prefixes that keep the users of two issuers apart.
const DIFFERENT: [[Option<&str>; 2]; 3] = [
    [Some("a:"), Some("b:")],
    [None, Some("b:")],
    [Some("{iss}:"), Some("{iss}:")],
];

#[actix_web::test]
async fn a_subject_prefix_keeps_equal_ids_of_two_issuers_apart() {
    let tokens = [of("https://a.example"), of("https://b.example")];
    let together = two_issuers([None, None]).start().await;
    assert_eq!(statuses(&together, &tokens).await, [200, 429]);
    for prefixes in DIFFERENT {
        let apart = two_issuers(prefixes).start().await;
        assert_eq!(statuses(&apart, &tokens).await, [200, 200], "{prefixes:?}");
        assert_eq!(statuses(&apart, &tokens).await, [429, 429], "{prefixes:?}");
    }
    // One identity with both issuers.
    let both = || {
        app().set(
            "identities.idp.issuer",
            ["https://a.example", "https://b.example"],
        )
    };
    let gate = once_per_user(both()).start().await;
    assert_eq!(statuses(&gate, &tokens).await, [200, 429]);
    let apart = both().set("identities.idp.subject_prefix", "{iss}:");
    let gate = once_per_user(apart).start().await;
    assert_eq!(statuses(&gate, &tokens).await, [200, 200]);
}

#[actix_web::test]
async fn every_kind_of_identity_supports_a_subject_prefix() {
    let service = Service::start();
    let active = json!({ "active": true, "sub": "user_1" });
    service.answer("/introspect", Reply::json(&active));
    service.answer("/session", Reply::json(&json!({ "id": "user_1" })));
    let at = |path: &str| format!("{}{path}", service.url);
    let identities = [
        ("tokens", jwt()),
        (
            "opaque",
            introspection(&at("/introspect")).from(["header:x-opaque"]),
        ),
        (
            "site",
            remote_session(&at("/session"), ["header:x-site"], "/id"),
        ),
        ("edge", forwarded("X-User")),
    ];
    let gate = async |has_prefix: bool| {
        let gate = Gate::accepting(identities.each_ref().map(|(name, _)| name))
            .server("trusted_proxies", ["127.0.0.1"]);
        let gate = identities.iter().fold(gate, |gate, (name, identity)| {
            let identity = identity.clone();
            let prefixed = identity.clone().subject_prefix(format!("{name}:"));
            gate.identity(name, if has_prefix { prefixed } else { identity })
        });
        once_per_user(gate).start().await
    };
    let bearer = format!("Bearer {}", Token::of("user_1").sign());
    let credentials = [
        ("authorization", bearer.as_str()),
        ("x-opaque", "opaque"),
        ("x-site", "session"),
        ("x-user", "user_1"),
    ];
    let ask = async |gate: &TestApp| {
        let mut statuses = Vec::new();
        for (name, value) in credentials {
            let answer: Answer = gate.ask().header(name, value).send().await;
            statuses.push(answer.status.as_u16());
        }
        statuses
    };
    let together = gate(false).await;
    assert_eq!(ask(&together).await, [200, 429, 429, 429]);
    let apart = gate(true).await;
    assert_eq!(ask(&apart).await, [200, 200, 200, 200]);
    assert_eq!(ask(&apart).await, [429, 429, 429, 429]);
}

#[actix_web::test]
async fn an_id_that_is_empty_or_too_long_with_its_prefix_is_refused() {
    let gate = app()
        .set("identities.idp.subject_prefix", "idp:")
        .start()
        .await;
    let of = |subject: &str| Token::of(subject);
    let tokens = [of(&"x".repeat(251)), of(&"x".repeat(252)), of("")];
    assert_eq!(statuses(&gate, &tokens).await, [200, 401, 401]);
}

/// The output of `check` for a config.
fn check(gate: &Gate) -> String {
    let (_folder, path) = write_config(gate, "https://api.imgwire.dev");
    let output = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout)
}

#[test]
fn check_warns_of_subject_prefixes_that_a_membership_url_cannot_contain() {
    let warnings = |prefix: &str, member: Entry| {
        let gate = app()
            .set("identities.idp.issuer", "https://a.example")
            .set("identities.idp.subject_prefix", prefix)
            .policy("member", member)
            .chain(["signed-in", "member"]);
        let output = check(&gate);
        let key = "identities.idp.subject_prefix: a membership `url`";
        output.lines().filter(|line| line.contains(key)).count()
    };
    for (prefix, expected) in [("a:", 0), ("a/", 1), ("a b", 1), ("{iss}:", 1)] {
        let by_url = workspace_member().url("http://localhost:1/{workspace}/{user}");
        assert_eq!(warnings(prefix, by_url), expected, "{prefix}");
        let by_claim = workspace_member().claim("workspaces");
        assert_eq!(warnings(prefix, by_claim), 0, "{prefix}");
    }
}

#[test]
fn check_warns_of_different_issuers_whose_users_share_ids() {
    let warning = |gate: &Gate| {
        let output = check(gate);
        // A policy of the gate is in no chain.
        let mut warnings = output
            .lines()
            .filter(|line| line.starts_with("warning: ") && !line.contains("nothing uses it"))
            // Of another subject: `first` has a `when`.
            .filter(|line| !line.contains("requests without sign-in may get tokens"));
        let warning = warnings.next().map(str::to_owned);
        assert_eq!(warnings.next(), None, "{output}");
        warning.unwrap_or_default()
    };
    let same = two_issuers([None, None]);
    let confused = warning(&same);
    assert!(
        confused.contains("gate.toml:")
            && confused.contains("policies.signed-in.accept: `a` and `b` have different"),
        "{confused}"
    );
    for prefixes in DIFFERENT {
        assert_eq!(warning(&two_issuers(prefixes)), "", "{prefixes:?}");
    }
    assert_ne!(warning(&two_issuers([Some("x:"); 2])), "");
    let with = |issuer: &[&str]| app().set("identities.idp.issuer", issuer);
    let tenants = app()
        .set("identities.idp.issuer", "https://a.example/{tid}")
        .set("identities.idp.allowed_claims", json!({ "tid": "t" }));
    let both = || with(&["https://a.example", "https://b.example"]);
    for (gate, expected) in [
        (app(), false),
        (
            app().set("identities.idp.issuer", "https://a.example"),
            false,
        ),
        (with(&["https://a.example"]), false),
        (both(), true),
        (both().set("identities.idp.subject_prefix", "{iss}:"), false),
        (tenants, true),
    ] {
        let config = gate.config("", std::path::Path::new(""));
        assert_eq!(!warning(&gate).is_empty(), expected, "{config}");
    }
    // Two policies in one chain share users; in two chains they do not.
    let chained = || {
        two_issuers([None, None])
            .without("policies.signed-in")
            .policy("first", signed_in(["a"]).when("request.purpose == 'x'"))
            .policy("second", signed_in(["b"]))
    };
    let together = chained()
        .chain(["first", "second"])
        .route("/other", ["first", "second"]);
    assert!(warning(&together).contains("policies.second.accept"));
    let apart = chained().chain(["first"]).route("/other", ["second"]);
    assert_eq!(warning(&apart), "");
}

#[actix_web::test]
async fn a_key_with_an_issuer_verifies_only_the_tokens_of_that_issuer() {
    let issuer = |tenant: &str| json!(format!("https://login.microsoftonline.com/{tenant}/v2.0"));
    let make = |kid: &str| SigningKey::new(kid, Algorithm::ES256);
    let (every, one, any) = (make("every"), make("one"), make("any"));
    let mut any_jwk = any.jwk();
    any_jwk["issuer"] = Value::Null;
    any_jwk["d"] = Value::Null;
    let published = [
        jwks::with(&every, &json!({ "issuer": issuer("{tenantid}") })),
        jwks::with(&one, &json!({ "issuer": issuer("t1") })),
        any_jwk,
    ];
    let (app, _issuer) = jwks::gate(&["ES256"], &published).await;
    for (iss, tid, statuses) in [
        (issuer("t1"), "t1", [200, 200, 200]),
        (issuer("t2"), "t2", [200, 401, 200]),
        (issuer("t1"), "t2", [401, 200, 200]),
        (json!("https://sts.windows.net/t1/"), "t1", [200, 200, 200]),
        (json!("https://sts.windows.net/t2/"), "t2", [200, 401, 200]),
        (json!("https://login.example.com/t1"), "t1", [401, 401, 200]),
        (json!(7), "t1", [401, 401, 200]),
    ] {
        let token = Token::of("user_1").with("iss", iss.clone());
        let token = token.with("tid", json!(tid));
        for (key, status) in [&every, &one, &any].into_iter().zip(statuses) {
            let answer = ask(&app, &key.sign(&token)).await;
            assert_eq!(answer.status, status, "{iss} {tid} {}", key.kid);
        }
    }
    let token = one.sign(&Token::of("user_1").with("iss", issuer("t2")));
    let explain = app.request_management(Method::POST, "/explain");
    let explained = explain.json(&json!({ "token": token })).await;
    let expected = "the key of the token belongs to another issuer than its `iss` `https://login.microsoftonline.com/t2/v2.0`";
    assert!(explained.text.contains(expected), "{explained:?}");
}
