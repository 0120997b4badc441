//! `${NAME}` and `${NAME:-default}` in the strings of a config.

use imgwire_gate::server::settings::Settings;

use crate::helpers::{Gate, env, expression, settings};

fn environment(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("9123".to_owned()),
        "ORIGIN" => Some("app.example.com".to_owned()),
        "HOST" => Some("a-secret-by-mistake".to_owned()),
        "EMPTY" => Some(String::new()),
        "API_KEY" => Some("sk_0123456789".to_owned()),
        "SECRET" => Some("a secret that is long enough for HS256".to_owned()),
        _ => None,
    }
}

const REST: &str = r#"
[imgwire]
api_key = { env = "${KEY_NAME:-API_KEY}" }
[identities.app]
kind = "jwt"
algorithms = ["HS256"]
secret = { env = "SECRET" }
audience = ["${AUDIENCE:-imgwire-gate}"]
[policies.signed-in]
kind = "signed_in"
accept = ["app"]
message = { en = "Write to help@${ORIGIN}", de = "Kostet 5 $${} oder ${X:-nichts}" }
[[routes]]
path = "/${PREFIX:-uploads}"
policies = ["signed-in"]
"#;

fn load(start: &str) -> Result<Settings, String> {
    let config = format!("{start}\n{REST}");
    let loaded = settings::load("gate.toml", &config, &environment);
    loaded.map_err(|faults| faults.to_string())
}

fn faults(start: &str) -> String {
    match load(start) {
        Ok(_) => panic!("no faults in {start}"),
        Err(faults) => faults,
    }
}

#[test]
fn strings_in_tables_arrays_and_inline_tables_are_replaced() {
    let settings = load(
        r#"
        [server]
        bind = "0.0.0.0:${PORT:-8080}"
        allowed_origins = ["https://${ORIGIN}", "https://other.example.com"]
        [management]
        bind = "127.0.0.1:${EMPTY:-9999}"
        "#,
    )
    .unwrap();
    assert_eq!(settings.server.bind.to_string(), "0.0.0.0:9123");
    assert_eq!(settings.management.bind.to_string(), "127.0.0.1:9999");
    assert_eq!(settings.server.allowed_origins.len(), 2);
    assert_eq!(settings.routes[0].path.as_str(), "/uploads");
    let messages = settings.policies[0].1.common.message.clone().unwrap();
    let texts: Vec<_> = messages.texts().map(|(_, text)| text.to_owned()).collect();
    assert_eq!(
        texts,
        ["Kostet 5 ${} oder nichts", "Write to help@app.example.com"]
    );
}

#[test]
fn a_reference_that_cannot_be_replaced_is_a_fault_with_its_place() {
    for (start, expected) in [
        (
            "[server]\nbind = \"0.0.0.0:${MISSING}\"",
            "gate.toml:2:8: server.bind: the environment variable `MISSING` is not set; set it, or write ${MISSING:-default}",
        ),
        (
            "[server]\nallowed_origins = [\"https://a.example.com\", \"${PORT\"]",
            "gate.toml:2:45: server.allowed_origins: `${PORT` has no closing `}`; write ${NAME} or ${NAME:-default}, or $${ for the characters ${",
        ),
        (
            "[server]\nbind = \"${A:-${PORT}}\"",
            "gate.toml:2:8: server.bind: `${A:-${PORT}` has a reference inside a reference, which is not possible; a default is plain text",
        ),
        (
            "stores = { main = { url = \"sqlite:${DATA DIR}\" } }",
            "gate.toml:1:27: stores.main.url: `${DATA DIR}` does not name an environment variable; write ${NAME} or ${NAME:-default}, or $${ for the characters ${",
        ),
    ] {
        // One fault for the key, although the text without the value has others.
        assert_eq!(faults(start), expected, "{start}");
    }
    let both = faults("[server]\nbind = \"${MISSING}\"\nworkers = 0");
    assert!(
        both.contains("server.bind") && both.contains("server.workers"),
        "{both}"
    );
}

#[test]
fn messages_quote_the_text_before_the_replacement() {
    let shown = faults("[server]\nbind = \"${HOST}:${PORT}\"\nallowed_origins = [\"${HOST}\"]");
    assert!(
        shown.contains("`${HOST}:${PORT}` is not an address"),
        "{shown}"
    );
    assert!(!shown.contains("a-secret-by-mistake"), "{shown}");
    // A name that the config refers to, and a warning.
    let shown = faults("[session]\nkey = { env = \"SECRET\" }\nstore = \"${HOST}\"");
    assert!(shown.contains("unknown store `${HOST}`"), "{shown}");
    assert!(!shown.contains("a-secret-by-mistake"), "{shown}");
    let settings = load("[server]\ntrusted_proxies = [\"0.0.0.0/${BITS:-0}\"]").unwrap();
    let warnings = settings.warnings.to_string();
    assert!(
        warnings.contains("`0.0.0.0/${BITS:-0}` covers"),
        "{warnings}"
    );
}

#[test]
fn a_replaced_text_stays_a_string_and_is_not_replaced_again() {
    let shown = faults("[server]\nworkers = \"${PORT}\"");
    assert!(shown.contains("server.workers"), "{shown}");
    let gate = Gate::with_policies([("literal", expression("'$${PORT}' == '$' + '{PORT}'"))])
        .imgwire("api_key", env("API_KEY"));
    let config = gate.config("https://api.imgwire.dev", "data".as_ref());
    let secret = |name: &str| match name {
        "TEST_SESSION_KEY" => Some("k".repeat(64)),
        _ => environment(name).or_else(|| environment("SECRET")),
    };
    settings::load("gate.toml", &config, &secret).unwrap();
}
