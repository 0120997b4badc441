//! The config file: what is refused, and in which words.

use std::{collections::HashMap, fs};

use imgwire_gate::settings;

fn environment(name: &str) -> Option<String> {
    match name {
        "EMPTY" => Some(String::new()),
        "SHORT" => Some("s3cret".to_owned()),
        "CLIENT_KEY" => Some("ck_0123456789".to_owned()),
        "PRIVATE_KEY" => Some(include_str!("../keys/rsa_private.pem").to_owned()),
        "EC_KEY" => Some(include_str!("../keys/ec_public.pem").to_owned()),
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
fn the_configs_of_the_repository_are_valid() {
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

#[test]
fn the_settings_show_no_secret_when_they_are_debugged() {
    let config = fs::read_to_string(format!(
        "{}/config/default.toml",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap();
    let settings = settings::load("default.toml", &config, &environment).unwrap();
    assert!(!format!("{settings:?}").contains("long-enough"));
}
