//! The API's description: OpenAPI 3.1, generated from the code's types, and checked by a fuzzer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use actix_web::web;
use serde_json::Value;

use crate::{
    helpers::{Gate, TestApp, Token},
    process::{run, text},
    real_parts::are_here,
};

fn docs(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(file)
}

#[test]
fn the_committed_descriptions_are_current() {
    for (command, file) in [
        ("openapi", "openapi.json"),
        ("schema", "config.schema.json"),
    ] {
        let committed = fs::read_to_string(docs(file)).unwrap();
        assert!(
            committed == text(&run(&[command]).stdout),
            "docs/{file} is not current: imgwire-gate {command} > docs/{file}"
        );
    }
}

#[test]
fn every_code_of_an_error_is_in_the_description_once() {
    let document: Value = serde_json::from_slice(&run(&["openapi"]).stdout).unwrap();
    let schemas = &document["components"]["schemas"];
    let code = &schemas["Error"]["properties"]["code"];
    assert_eq!(code["$ref"], "#/components/schemas/ErrorCode");
    let mut codes: Vec<_> = schemas["ErrorCode"]["enum"].as_array().unwrap().clone();
    codes.sort_by_key(ToString::to_string);
    let expected = [
        "bad_request",
        "body_too_large",
        "credentials_expired",
        "cross_site",
        "file_required",
        "file_too_large",
        "file_type_forbidden",
        "imgwire_failed",
        "internal",
        "invalid_credentials",
        "method_not_allowed",
        "not_found",
        "not_signed_in",
        "overloaded",
        "purpose_forbidden",
        "quota_exhausted",
        "rate_limited",
        "rule_forbidden",
        "storage_full",
        "unsupported_media_type",
        "workspace_forbidden",
        "workspace_required",
    ];
    assert_eq!(codes, expected);
}

#[actix_web::test]
async fn a_gate_describes_its_own_routes() {
    let gate = Gate::standard()
        .route("/avatar", ["signed-in"])
        .start()
        .await;
    let document = gate.manage("/openapi.json").await;
    assert_eq!(document.status, 200);
    assert!(
        document.json["openapi"]
            .as_str()
            .unwrap()
            .starts_with("3.1")
    );
    let paths = document.json["paths"].as_object().unwrap();
    for path in [
        "/api/imgwire/upload-token",
        "/api/imgwire/upload-token/allowance",
        "/avatar",
        "/avatar/allowance",
        "/api/imgwire/session",
        "/readyz",
        "/quota/{policy}",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    let answers = paths["/avatar"]["post"]["responses"].as_object().unwrap();
    for status in [
        "200", "400", "401", "403", "404", "405", "413", "415", "429", "500",
    ] {
        assert!(answers.contains_key(status), "{status}");
    }
    // The names of operations are unique.
    let operations = paths
        .values()
        .flat_map(|path| path.as_object().unwrap().values());
    let mut names: Vec<_> = operations
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_openapi_document_is_valid_and_every_setting_has_a_description() {
    if are_here(&["openapi-spec-validator"]) {
        let valid = Command::new("openapi-spec-validator")
            .arg(docs("openapi.json"))
            .output()
            .unwrap();
        assert!(valid.status.success(), "{valid:?}");
    }
    // Editors use the schema for completion, so every setting needs a description.
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(docs("config.schema.json")).unwrap()).unwrap();
    let mut undescribed = Vec::new();
    find_undescribed(&schema, "", &mut undescribed);
    assert!(undescribed.is_empty(), "{undescribed:#?}");
}

/// Properties without a description, of their own or of what they refer to.
fn find_undescribed(schema: &Value, at: &str, found: &mut Vec<String>) {
    // The one property of a variant is described with it.
    let is_variant = |properties: &serde_json::Map<_, _>| {
        properties.len() == 1 && schema["description"].is_string()
    };
    let properties = schema["properties"].as_object();
    if let Some(properties) = properties.filter(|properties| !is_variant(properties)) {
        for (name, property) in properties {
            let is_described = ["description", "$ref", "const"]
                .iter()
                .any(|key| property.get(key).is_some());
            if !is_described {
                found.push(format!("{at}/{name}"));
            }
        }
    }
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                find_undescribed(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(array) => {
            for value in array {
                find_undescribed(value, at, found);
            }
        }
        _ => {}
    }
}

/// Runs a schema-driven fuzzer on the operations with this tag.
async fn fuzz(gate: &TestApp, url: &str, tag: &'static str, checks: &'static str) {
    let document = format!("{}/openapi.json", gate.management);
    let url = url.to_owned();
    let token = format!("Authorization: Bearer {}", Token::of("user_1").sign());
    let folder = gate.folder.path().to_owned();
    let fuzzing = move || {
        Command::new("schemathesis")
            .current_dir(folder)
            .args([
                "run",
                &document,
                "--url",
                &url,
                "--include-tag",
                tag,
                "-H",
                &token,
            ])
            .args([
                "--checks",
                checks,
                "--max-examples",
                "60",
                "--seed",
                "1",
                "--no-color",
            ])
            .output()
            .unwrap()
    };
    let output = web::block(fuzzing).await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("generated"));
}

#[actix_web::test]
async fn a_fuzzer_finds_no_answer_outside_the_description() {
    const ANSWERS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                           response_headers_conformance,response_schema_conformance,unsupported_method";

    if !are_here(&["schemathesis"]) {
        return;
    }
    let gate = TestApp::start().await;
    fuzz(&gate, &gate.url, "public", ANSWERS).await;
    fuzz(&gate, &gate.management, "management", ANSWERS).await;
}
