//! Values that are valid each for itself, and cannot work together; and parts of a config that nothing uses.

use std::path::Path;

use serde_json::json;

use crate::helpers::{
    Gate, Token, env, eventually, expression, quota, settings, upload_intent, workspace_member,
};
use crate::process::GateProcess;

/// The warnings of a config, or its faults.
pub(crate) fn load(gate: &Gate) -> Result<Vec<String>, String> {
    let secret = |name: &str| Some(format!("{name} {}", "s".repeat(64)).replace(' ', "-"));
    let config = gate.config("https://api.imgwire.dev", "data".as_ref());
    let loaded = settings::load("gate.toml", &config, &secret);
    let settings = loaded.map_err(|faults| faults.to_string())?;
    Ok(settings.warnings.lines().to_vec())
}

fn faults(gate: &Gate) -> String {
    load(gate).err().unwrap_or_default()
}

fn gate() -> Gate {
    Gate::accepting(["app", "browser"])
}

#[test]
fn two_listeners_cannot_have_one_address() {
    for (public, management, is_same) in [
        ("127.0.0.1:8080", "127.0.0.1:8080", true),
        ("0.0.0.0:8080", "127.0.0.1:8080", true),
        ("127.0.0.1:8080", "0.0.0.0:8080", true),
        ("[::]:8080", "0.0.0.0:8080", true),
        ("[::]:8080", "127.0.0.1:8080", true),
        ("[::]:8080", "[::1]:8080", true),
        ("[::ffff:127.0.0.1]:8080", "127.0.0.1:8080", true),
        ("unix:/run/gate.sock", "unix:/run/gate.sock", true),
        ("unix:gate.sock", "unix:./gate.sock", true),
        ("0.0.0.0:8080", "[::1]:8080", false),
        ("127.0.0.1:8080", "127.0.0.2:8080", false),
        ("127.0.0.1:8080", "127.0.0.1:8081", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
        ("unix:/run/gate.sock", "unix:/run/admin.sock", false),
    ] {
        let gate = gate().server("bind", public).management("bind", management);
        let faults = faults(&gate);
        let found = faults.contains("management.bind: takes the same address as `server.bind`");
        assert_eq!(found, is_same, "{public} and {management}: {faults}");
    }
    // The other address is the default one.
    let default = faults(
        &gate()
            .server("bind", "0.0.0.0:9090")
            .without("management.bind"),
    );
    assert!(
        default.contains(
            "server.bind: takes the same address as `management.bind`, which is `127.0.0.1:9090`"
        ),
        "{default}"
    );
}

#[test]
fn a_deadline_is_at_least_one_attempt_long() {
    for (timeout, deadline, fault) in [
        (
            Some("5s"),
            Some("1s"),
            "imgwire.deadline: is less than `timeout` (5s)",
        ),
        (
            None,
            Some("1s"),
            "imgwire.deadline: is less than `timeout` (5s)",
        ),
        (
            Some("20s"),
            None,
            "imgwire.timeout: is more than `deadline` (10s)",
        ),
        (Some("5s"), Some("5s"), ""),
    ] {
        let mut gate = gate();
        if let Some(timeout) = timeout {
            gate = gate.imgwire("timeout", timeout);
        }
        if let Some(deadline) = deadline {
            gate = gate.imgwire("deadline", deadline);
        }
        let faults = faults(&gate);
        assert!(faults.contains(fault), "{faults}");
        assert_eq!(faults.is_empty(), fault.is_empty(), "{faults}");
    }
}

#[test]
fn a_base_url_has_no_path() {
    for (url, fault) in [
        ("https://api.imgwire.dev/", ""),
        ("https://api.imgwire.dev/api/v1", "must not contain a path"),
        ("https://api.imgwire.dev/?a=b", "must not contain a query"),
        (
            "https://api.imgwire.dev/#a",
            "must not contain a query or a fragment",
        ),
        ("https://me@api.imgwire.dev", "must not contain a user name"),
    ] {
        let faults = faults(&gate().imgwire("base_url", url));
        assert!(faults.contains(fault), "{url}: {faults}");
        assert_eq!(faults.is_empty(), fault.is_empty(), "{url}: {faults}");
    }
}

#[test]
fn a_socket_path_fits_into_an_address() {
    let of = |length: usize| {
        let path = format!("/{}", "s".repeat(length - 1));
        faults(&gate().server("bind", format!("unix:{path}")))
    };
    assert_eq!(of(107), "");
    assert!(of(108).contains("server.bind: the path of the socket has 108 bytes"));
}

#[test]
fn settings_without_effect_are_warnings() {
    for (gate, warning) in [
        (
            gate().session("ttl", "1h").session("idle_ttl", "2h"),
            "session.idle_ttl: has no effect",
        ),
        (
            gate().server("shutdown_delay", "1m"),
            "server.shutdown_delay: has no full effect",
        ),
        (
            gate().server(
                "allowed_origins",
                ["https://a.example.com", "https://a.example.com"],
            ),
            "server.allowed_origins: is listed twice",
        ),
        (
            gate()
                .policy("none", quota().per(["user"]).limit(0))
                .chain(["signed-in", "none"]),
            "policies.none.limit: 0 denies every request",
        ),
        (
            gate().server("body_limit", "100B"),
            "server.body_limit: ordinary requests are larger",
        ),
        (
            gate().set("telemetry.otlp", "http://collector:4317"),
            "telemetry.otlp: port 4317 is that of OTLP over gRPC",
        ),
    ] {
        let [found] = &load(&gate).unwrap()[..] else {
            panic!("not one warning instead of {warning}")
        };
        assert!(found.contains(warning), "{found}");
    }
    assert_eq!(load(&gate()).unwrap(), [""; 0]);
}

#[test]
fn a_route_whose_purposes_exclude_each_other_is_a_fault() {
    let avatars = || upload_intent().set("purposes", ["avatar"]);
    let gallery = || upload_intent().set("purposes", ["gallery", "cover"]);
    let route = |purpose: &str, policies: &[&str]| {
        let route = json!({ "path": "/images", "purpose": purpose, "policies": policies });
        let gate = gate()
            .policy("avatars", avatars())
            .policy("gallery", gallery());
        faults(
            &gate
                .route_with(route)
                .route("/used", ["signed-in", "avatars"]),
        )
    };
    let of_route = route("cover", &["signed-in", "avatars"]);
    assert!(
        of_route.contains("routes[1].policies: `avatars` allows none of the purposes"),
        "{of_route}"
    );
    assert_eq!(route("avatar", &["signed-in", "avatars"]), "");
    assert_eq!(route("cover", &["signed-in", "gallery"]), "");
    let chain = |first, second| {
        let gate = gate().policy("first", first).policy("second", second);
        faults(&gate.chain(["signed-in", "first", "second"]))
    };
    let of_chain = chain(gallery(), avatars());
    assert!(
        of_chain.contains("routes[0].policies: `second` allows none of the purposes"),
        "{of_chain}"
    );
    // These deny no request, or not every one.
    assert_eq!(chain(gallery(), avatars().observe()), "");
    assert_eq!(
        chain(
            gallery(),
            avatars().set("when", "request.purpose != 'cover'")
        ),
        ""
    );
}

#[test]
fn a_condition_that_reads_nothing_is_a_warning() {
    for (when, warning) in [
        ("false", Some("is false for every request")),
        ("1 > 2 || !true", Some("is false for every request")),
        ("true", Some("is true for every request")),
        ("has(request.file)", None),
        ("false && request.purpose == 'a'", None),
    ] {
        let images = upload_intent().set("max_size", "1MB").set("when", when);
        let gate = gate()
            .policy("images", images)
            .chain(["signed-in", "images"]);
        let warnings = load(&gate).unwrap();
        assert_eq!(
            warnings.len(),
            usize::from(warning.is_some()),
            "{when}: {warnings:?}"
        );
        let expected = warning.map(|text| format!("policies.images.when: {text}"));
        assert!(
            expected.is_none_or(|expected| warnings[0].contains(&expected)),
            "{warnings:?}"
        );
    }
}

#[test]
fn roles_that_no_member_has_are_a_fault_and_some_of_them_a_warning() {
    let with = |roles: &[&str]| {
        let members = json!({ "ws_1": { "user_1": "owner" }, "ws_2": { "user_1": "editor" } });
        let member = workspace_member().members(members).roles(roles);
        load(
            &gate()
                .policy("member", member)
                .chain(["signed-in", "member"]),
        )
    };
    let fault = with(&["admin"]).unwrap_err();
    assert!(
        fault.contains("policies.member.roles: no entry of `members` has the role `admin`"),
        "{fault}"
    );
    let [warning] = &with(&["editor", "Owner"]).unwrap()[..] else {
        panic!("not one warning")
    };
    assert!(warning.contains("has the role `Owner`"), "{warning}");
    assert_eq!(with(&["editor", "owner"]).unwrap(), [""; 0]);
}

fn with_unused(folder: &Path) -> Gate {
    let file = |name: &str| json!({ "url": format!("sqlite:{}", folder.join(name).display()) });
    gate()
        .identity("partner", json!({
            "kind": "jwt", "algorithms": ["HS256"], "secret": env("TEST_SECRET"), "audience": ["x"],
        }))
        .store("spare", file("spare.db"))
        .store("counters", file("counters.db"))
        .policy("never", expression("false"))
        // Its store is used by nothing either.
        .policy("daily", quota().per(["user"]).limit(7).store("counters"))
}

#[test]
fn policies_identities_and_stores_that_nothing_uses_are_warnings() {
    let warnings = load(&with_unused("data".as_ref())).unwrap();
    let mut keys: Vec<_> = warnings
        .iter()
        .map(|warning| {
            let (key, rest) = warning.split_once(' ').unwrap().1.split_once(": ").unwrap();
            assert!(rest.starts_with("nothing uses it; "), "{warning}");
            key.to_owned()
        })
        .collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "identities.partner",
            "policies.daily",
            "policies.never",
            "stores.counters",
            "stores.spare"
        ]
    );
    // What a session is exchanged for is used, and so is the store of sessions.
    let used = gate()
        .store("sessions", json!({ "url": "redis://127.0.0.1:9" }))
        .session("store", "sessions");
    assert_eq!(load(&used).unwrap(), [""; 0]);
}

#[actix_web::test]
async fn each_unused_part_is_one_warning_in_the_log_at_start() {
    let imgwire = crate::helpers::Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = with_unused(folder.path()).write(imgwire.url(), folder.path());
    let gate = GateProcess::start(&config, &[], "info").await;
    eventually("an answer", async || {
        gate.ask(&Token::of("user_1").sign()).await == Some(200)
    })
    .await;
    let lines = gate.lines();
    let warnings = lines.iter().filter(|line| {
        let warning = line["warning"].as_str().unwrap_or_default();
        line["level"] == "WARN" && warning.contains("nothing uses it")
    });
    assert_eq!(warnings.count(), 5, "{}", gate.log());
}
