//! Issuers: lists of them, one that takes a tenant's id, secrets that rotate, and users of two issuers with one id.

use jsonwebtoken::EncodingKey;
use serde_json::json;

use crate::{
    helpers::{Answer, Recipe, TestApp, Token},
    process::{run, text, write_config},
    service::{Reply, Service},
};

const SECRETS: [&str; 3] = [
    "the secret that is on its way out, long enough",
    "the secret that is in use, which is long enough",
    "the secret of somebody else, just as long as it",
];

fn app(more: &str) -> Recipe {
    let identities = format!(
        "[identities.idp]\nkind = \"jwt\"\nalgorithms = [\"HS256\"]\nsecret = {{ env = \"TEST_SECRET\" }}\n{more}"
    );
    Recipe::accepting(r#"["idp"]"#, &identities)
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
async fn each_issuer_of_a_list_is_taken_and_no_other() {
    let gate = app(r#"issuer = ["https://a.example", "https://b.example/"]"#);
    let gate = gate.start().await;
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
async fn an_issuer_with_tid_takes_the_tenants_that_another_key_names() {
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
        let gate = app(&format!(
            "issuer = \"https://login.example/{{tid}}/v2.0\"\n{claims} = {{ tid = [\"t1\", \"t2\"] }}"
        ));
        let gate = gate.start().await;
        assert_eq!(statuses(&gate, &tokens).await, expected, "{claims}");
    }
}

#[actix_web::test]
async fn an_allowed_claim_is_checked_only_if_the_token_has_it() {
    let gate = app(r#"allowed_claims = { azp = ["spa", "cli"] }"#)
        .start()
        .await;
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
        [200, 200, 200, 401, 401, 401, 401]
    );
}

#[actix_web::test]
async fn every_secret_of_a_list_is_valid_until_it_leaves_the_list() {
    let with = |secrets: &str| {
        let mut recipe = app("").with_secret("TEST_OLD", SECRETS[0]);
        recipe.more = recipe.more.replace("{ env = \"TEST_SECRET\" }", secrets);
        recipe.with_secret("TEST_NEW", SECRETS[1])
    };
    let both = with(r#"[{ env = "TEST_NEW" }, { env = "TEST_OLD" }]"#);
    let gate = both.start().await;
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
    // The old one leaves: what it signed is not remembered.
    gate.reload(&with(r#"[{ env = "TEST_NEW" }]"#)).unwrap();
    ask(0).await.assert_error(401, "invalid_credentials");
    ask(1).await.assert_token();
}

/// Two issuers, `a` and `b`, in one chain that lets each user ask once.
fn two_issuers(prefixes: [&str; 2]) -> Recipe {
    let identity = |name: &str, prefix: &str| {
        format!(
            "[identities.{name}]\nkind = \"jwt\"\nalgorithms = [\"HS256\"]\nsecret = {{ env = \"TEST_SECRET\" \
             }}\nissuer = \"https://{name}.example\"\n{prefix}\n"
        )
    };
    let identities = identity("a", prefixes[0]) + &identity("b", prefixes[1]);
    let recipe = Recipe::accepting(r#"["a", "b"]"#, &identities);
    once_per_user(recipe)
}

fn once_per_user(recipe: Recipe) -> Recipe {
    let limit =
        "[policies.once]\nkind = \"rate_limit\"\nper = [\"user\"]\nlimit = 1\nperiod = \"1h\"";
    Recipe {
        policies: format!("{}\n{limit}", recipe.policies),
        chain: r#"["signed-in", "once"]"#.into(),
        ..recipe
    }
}

#[actix_web::test]
async fn a_subject_prefix_keeps_equal_ids_of_two_issuers_apart() {
    let tokens = [of("https://a.example"), of("https://b.example")];
    let together = two_issuers(["", ""]).start().await;
    assert_eq!(statuses(&together, &tokens).await, [200, 429]);
    for prefixes in [
        [r#"subject_prefix = "a:""#, r#"subject_prefix = "b:""#],
        ["", r#"subject_prefix = "b:""#],
        [
            r#"subject_prefix = "{iss}:""#,
            r#"subject_prefix = "{iss}:""#,
        ],
    ] {
        let apart = two_issuers(prefixes).start().await;
        assert_eq!(statuses(&apart, &tokens).await, [200, 200], "{prefixes:?}");
        assert_eq!(statuses(&apart, &tokens).await, [429, 429], "{prefixes:?}");
    }
    // One identity with both issuers.
    let list = r#"issuer = ["https://a.example", "https://b.example"]"#;
    let gate = once_per_user(app(list)).start().await;
    assert_eq!(statuses(&gate, &tokens).await, [200, 429]);
    let apart = format!("{list}\nsubject_prefix = \"{{iss}}:\"");
    let gate = once_per_user(app(&apart)).start().await;
    assert_eq!(statuses(&gate, &tokens).await, [200, 200]);
}

#[actix_web::test]
async fn every_kind_of_identity_takes_a_subject_prefix() {
    let service = Service::start();
    let active = json!({ "active": true, "sub": "user_1" });
    service.answer("/introspect", Reply::json(&active));
    service.answer("/session", Reply::json(&json!({ "id": "user_1" })));
    let identities = |prefix: &dyn Fn(&str) -> String| {
        format!(
            r#"
            [identities.tokens]
            kind = "jwt"
            algorithms = ["HS256"]
            secret = {{ env = "TEST_SECRET" }}
            {}
            [identities.opaque]
            kind = "introspection"
            url = "{url}/introspect"
            client_id = "gate"
            client_secret = {{ env = "TEST_SECRET" }}
            from = ["header:x-opaque"]
            {}
            [identities.site]
            kind = "remote"
            url = "{url}/session"
            forward = ["header:x-site"]
            subject = "/id"
            {}
            [identities.edge]
            kind = "forwarded"
            subject = "X-User"
            {}
            "#,
            prefix("tokens"),
            prefix("opaque"),
            prefix("site"),
            prefix("edge"),
            url = service.url,
        )
    };
    let gate = async |identities: String| {
        let accept = r#"["tokens", "opaque", "site", "edge"]"#;
        let recipe = Recipe {
            server: r#"trusted_proxies = ["127.0.0.1"]"#.into(),
            ..Recipe::accepting(accept, &identities)
        };
        once_per_user(recipe).start().await
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
    let together = gate(identities(&|_| String::new())).await;
    assert_eq!(ask(&together).await, [200, 429, 429, 429]);
    let apart = gate(identities(&|name| format!("subject_prefix = \"{name}:\""))).await;
    assert_eq!(ask(&apart).await, [200, 200, 200, 200]);
    assert_eq!(ask(&apart).await, [429, 429, 429, 429]);
}

#[actix_web::test]
async fn an_id_that_the_prefix_makes_too_long_or_that_is_empty_is_refused() {
    let gate = app(r#"subject_prefix = "idp:""#).start().await;
    let of = |subject: &str| Token::of(subject);
    let tokens = [of(&"x".repeat(251)), of(&"x".repeat(252)), of("")];
    assert_eq!(statuses(&gate, &tokens).await, [200, 401, 401]);
}

/// What `check` prints of a config.
fn check(recipe: &Recipe) -> String {
    let (_folder, path) = write_config(recipe, "https://api.imgwire.dev");
    let output = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout)
}

#[test]
fn check_warns_of_users_whose_membership_cannot_be_asked_by_url() {
    let warnings = |prefix: &str, source: &str| {
        let mut recipe = app(&format!(
            "issuer = \"https://a.example\"\nsubject_prefix = \"{prefix}\""
        ));
        recipe.policies += &format!("\n[policies.member]\nkind = \"workspace_member\"\n{source}");
        recipe.chain = r#"["signed-in", "member"]"#.to_owned();
        let output = check(&recipe);
        let key = "identities.idp.subject_prefix: a membership `url`";
        output.lines().filter(|line| line.contains(key)).count()
    };
    let url = "url = \"http://localhost:1/{workspace}/{user}\"";
    for (prefix, expected) in [("a:", 0), ("a/", 1), ("a b", 1), ("{iss}:", 1)] {
        assert_eq!(warnings(prefix, url), expected, "{prefix}");
        assert_eq!(warnings(prefix, "claim = \"workspaces\""), 0, "{prefix}");
    }
}

#[test]
fn check_warns_of_users_of_different_issuers_that_are_one_user() {
    let warning = |recipe: &Recipe| {
        let output = check(recipe);
        let mut warnings = output.lines().filter(|line| line.starts_with("warning: "));
        let warning = warnings.next().map(str::to_owned);
        assert_eq!(warnings.next(), None, "{output}");
        warning.unwrap_or_default()
    };
    let same = two_issuers(["", ""]);
    let confused = warning(&same);
    assert!(
        confused.contains("gate.toml:")
            && confused.contains("policies.signed-in.accept: `a` and `b` are of different"),
        "{confused}"
    );
    for prefixes in [
        [r#"subject_prefix = "a:""#, r#"subject_prefix = "b:""#],
        ["", r#"subject_prefix = "b:""#],
        [
            r#"subject_prefix = "{iss}:""#,
            r#"subject_prefix = "{iss}:""#,
        ],
    ] {
        assert_eq!(warning(&two_issuers(prefixes)), "", "{prefixes:?}");
    }
    let equal = [r#"subject_prefix = "x:""#; 2];
    assert_ne!(warning(&two_issuers(equal)), "");
    for (more, expected) in [
        ("", false),
        (r#"issuer = "https://a.example""#, false),
        (r#"issuer = ["https://a.example"]"#, false),
        (
            r#"issuer = ["https://a.example", "https://b.example"]"#,
            true,
        ),
        (
            "issuer = [\"https://a.example\", \"https://b.example\"]\nsubject_prefix = \"{iss}:\"",
            false,
        ),
        (
            "issuer = \"https://a.example/{tid}\"\nallowed_claims = { tid = \"t\" }",
            true,
        ),
    ] {
        assert_eq!(!warning(&app(more)).is_empty(), expected, "{more}");
    }
    // Two policies of one chain, and the same in two chains.
    let mut chained = two_issuers(["", ""]);
    chained.policies = r#"
        [policies.first]
        kind = "signed_in"
        accept = ["a"]
        when = "request.purpose == 'x'"
        [policies.second]
        kind = "signed_in"
        accept = ["b"]
    "#
    .into();
    chained.chain = r#"["first", "second"]"#.into();
    chained.routes = "[[routes]]\npath = \"/other\"\npolicies = [\"first\", \"second\"]".into();
    assert!(warning(&chained).contains("policies.second.accept"));
    // Alone in its chain, an identity confuses nobody.
    chained.chain = r#"["first"]"#.into();
    chained.routes = "[[routes]]\npath = \"/other\"\npolicies = [\"second\"]".into();
    assert_eq!(warning(&chained), "");
}
