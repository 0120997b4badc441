//! The config file: which faults and warnings it has, and their texts.

use std::{collections::HashMap, fs, path::Path};

use serde_json::json;

use crate::helpers::{
    EVENTS_SECRET, Entry, Gate, published_jwt, rate_limit, settings, workspace_member,
};

fn environment(name: &str) -> Option<String> {
    match name {
        "EMPTY" => Some(String::new()),
        "QUOTED" => Some("\"a s3cret that is long enough for HS256\"".to_owned()),
        "BLANK" => Some("a s3cret that is long enough for HS256 ".to_owned()),
        "REFERENCE" => Some("${THE_VARIABLE_THAT_HOLDS_THE_SECRET}".to_owned()),
        "EXAMPLE" => Some("changeme-changeme-changeme-changeme".to_owned()),
        "SHORT" => Some("s3cret".to_owned()),
        "DATABASE_URL" => Some("postgres://gate:s3cret@db/app".to_owned()),
        "NOT_ENCODED" => Some("postgres://gate:a?s3cret@db/app".to_owned()),
        "CLIENT_KEY" => Some("ck_0123456789".to_owned()),
        "PRIVATE_KEY" => Some(include_str!("../keys/rsa_private.pem").to_owned()),
        "EC_KEY" => Some(include_str!("../keys/ec_public.pem").to_owned()),
        "EC_KEYS" => Some(include_str!("../keys/ec_public.pem").repeat(2)),
        "SPLIT" => Some("a s3cret that is long enough\nfor HS256, in two lines".to_owned()),
        "BROKEN" => Some("a s3cret that is long enough\nfor HS256, in two lines\n".to_owned()),
        "EVENTS" | "SANDBOX_EVENTS_SECRET" => Some(EVENTS_SECRET.to_owned()),
        "EVENTS_IN_TEXT" => Some("whsec_s3cret-that-is-no-base64".to_owned()),
        "EVENTS_SHORT" => Some("whsec_czNjcmV0LW9mLTIzLWJ5dGVzLi4uLi4=".to_owned()),
        "EVENTS_LONG" => Some(format!("whsec_{}", "czNjcmV0".repeat(11))),
        "MISSING" => None,
        _ => Some(
            "a-secret-that-is-long-enough-for-whatever-it-may-be-needed:sixty-four-bytes"
                .to_owned(),
        ),
    }
}

fn faults(config: &str) -> String {
    match settings::load("gate.toml", config, &environment) {
        Ok(_) => "no faults".to_owned(),
        Err(faults) => faults.to_string(),
    }
}

#[test]
fn every_fault_is_named_with_its_line_and_key() {
    insta::glob!("faults/*.toml", |path| {
        let config = fs::read_to_string(path).unwrap();
        let faults = faults(&config);
        assert!(
            !faults.contains("s3cret") && !faults.contains("sk_live"),
            "{faults}"
        );
        insta::assert_snapshot!(faults);
    });
}

#[test]
fn the_configs_of_the_repository_are_valid_without_warnings() {
    let public_key = include_str!("../keys/rsa_public.pem");
    let folder = tempfile::tempdir().unwrap();
    let secrets = HashMap::from([
        ("imgwire_api_key", "sk_0123456789"),
        (
            "imgwire_gate_session_key",
            "0123456789012345678901234567890123456789012345678901234567890123",
        ),
        ("idp_public_key.pem", public_key),
        ("management_token", "0123456789abcdef"),
        ("imgwire_gate_events_secret", EVENTS_SECRET),
    ]);
    for (name, secret) in secrets {
        fs::write(folder.path().join(name), secret).unwrap();
    }
    for name in [
        "default.toml",
        "sandbox.toml",
        "production.example.toml",
        "moderation.example.toml",
    ] {
        let path = format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"));
        let config = fs::read_to_string(path).unwrap();
        let config = config.replace("/run/secrets", folder.path().to_str().unwrap());
        let settings = settings::load(name, &config, &environment);
        let settings = settings.unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(settings.warnings.to_string(), "");
    }
}

/// The warnings of `check` about a config with this membership, which these policies follow.
fn warnings(member: Entry, chain: &str) -> Vec<String> {
    let gate = Gate::accepting(["app"])
        .policy("member", member)
        .policy(
            "per-workspace",
            rate_limit().per(["user", "workspace"]).limit(1),
        )
        .policy("per-user", rate_limit().per(["user"]).limit(1))
        .chain(["signed-in", "member", chain]);
    let config = gate.config("https://api.imgwire.dev", Path::new("data"));
    let settings = settings::load("gate.toml", &config, &environment);
    let settings = settings.unwrap_or_else(|faults| panic!("{faults}"));
    let warnings = settings.warnings.lines().iter();
    // One of the policies is not in the chain.
    let warnings = warnings.filter(|warning| !warning.contains("nothing uses it"));
    warnings.cloned().collect()
}

#[test]
fn check_warns_of_a_membership_query_that_selects_one_column() {
    let of = |query: &str| {
        let member = workspace_member().store("main").query(query);
        warnings(member, "per-user")
    };
    let rest = "from members where user_id = $1 and workspace_id = $2";
    for query in [
        format!("select role {rest}"),
        format!("SELECT\n  role -- , the role\n{rest}"),
        format!("select coalesce(role, 'a, b') /* , */ {rest}"),
        format!("select case when admin then 'owner' else role end as \"a, b\" {rest}"),
        format!("select distinct role {rest}"),
        format!("select role is distinct from 'viewer' {rest}"),
        format!("with m as (select role, workspace_id from all_members) select role {rest}"),
        format!("select (array[role, 'viewer'])[1] {rest}"),
        "select 'owner' where $1 = $2".to_owned(),
        "select 'owner, ' || $1 || $2".to_owned(),
    ] {
        let found = of(&query);
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        assert!(
            found[0].contains(": policies.member.query: the query selects one column"),
            "{found:?}"
        );
    }
    // Queries with two columns, and queries whose columns cannot be counted.
    for query in [
        format!("select role, workspace_id {rest}"),
        format!("select role\n, workspace_id {rest}"),
        format!("select case when admin then 'owner' else role end, workspace_id {rest}"),
        format!("with m as (select role from all_members) select role, workspace_id {rest}"),
        format!("select * {rest}"),
        format!("select members.* {rest}"),
        "values ($1, $2)".to_owned(),
        format!("(select role {rest})"),
    ] {
        let found = of(&query);
        assert!(found.is_empty(), "{query}: {found:?}");
    }
}

#[test]
fn check_warns_of_a_membership_url_before_limits_per_workspace() {
    let by_url = || workspace_member().url("http://127.0.0.1:3000/{workspace}/{user}");
    let found = warnings(by_url(), "per-workspace");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(": policies.member.url: "), "{found:?}");
    assert!(warnings(by_url(), "per-user").is_empty());
    // The gate compares these ids byte by byte.
    let members = json!({ "ws_1": { "user_1": "owner" } });
    for exact in [
        workspace_member().claim("workspaces"),
        workspace_member().members(members),
    ] {
        let found = warnings(exact, "per-workspace");
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn the_debug_output_of_settings_shows_no_secret() {
    let config = fs::read_to_string(format!(
        "{}/config/default.toml",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap();
    let settings = settings::load("default.toml", &config, &environment).unwrap();
    assert!(!format!("{settings:?}").contains("long-enough"));
}

#[test]
fn check_warns_of_several_issuers_that_share_one_discovery_document() {
    let warnings = |issuers: &[&str]| {
        let identity = published_jwt(["RS256"], "https://a.example/keys")
            .set("issuer", issuers)
            .set("subject_prefix", "{iss}:")
            .set("allowed_claims", json!({ "tid": "t1" }));
        let gate = Gate::accepting(["idp"])
            .identity("idp", identity)
            .without("identities.idp.jwks_url")
            .set("identities.idp.discovery", "https://a.example/openid");
        let config = gate.config("https://api.imgwire.dev", Path::new("data"));
        let settings = settings::load("gate.toml", &config, &environment);
        settings.unwrap().warnings.to_string()
    };
    let found = warnings(&["https://a.example", "https://b.example"]);
    assert!(
        found.contains("identities.idp.issuer: ") && found.contains("one identity per issuer"),
        "{found}"
    );
    for issuers in [
        &["https://a.example"][..],
        &["accounts.google.com", "https://accounts.google.com"],
        &["https://login.example/{tid}/v2.0"],
    ] {
        assert_eq!(warnings(issuers), "", "{issuers:?}");
    }
}
