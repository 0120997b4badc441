//! Values of the wrong type, for every key of the config: what the message says, and that its suggestion loads.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml::{Table, Value};

use crate::{helpers::settings, process::run};

/// Words of the program, which mean nothing in a config file.
const WORDS: [&str; 14] = [
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
    "i64",
    "sequence",
    " map",
    "untagged",
    "variant",
    "invalid type",
    "struct",
    "newtype",
    "nonzero",
];

pub(crate) fn assert_plain(message: &str) {
    for word in WORDS {
        assert!(!message.contains(word), "{word}: {message}");
    }
}

const SECRET: &str = "a-secret-that-is-long-enough-for-whatever-it-may-be-needed:sixty-four-bytes";

fn faults(config: &Table) -> Vec<String> {
    let text = toml::to_string(config).unwrap();
    let loaded = settings::load("gate.toml", &text, &|_| Some(SECRET.to_owned()));
    match loaded {
        Ok(_) => Vec::new(),
        Err(faults) => faults.lines().to_vec(),
    }
}

/// The faults of one key.
fn faults_at(config: &Table, path: &str) -> Vec<String> {
    let faults = faults(config);
    let of_key = |fault: &String| {
        let key = fault.splitn(4, ':').nth(3).unwrap_or_default();
        key.trim_start().starts_with(&format!("{path}: "))
    };
    faults.into_iter().filter(of_key).collect()
}

/// A config that has the tables of all sections and kinds.
const BASE: &str = r#"
[imgwire]
api_key = { env = "KEY" }
[session]
key = { env = "KEY" }
[stores.main]
url = "sqlite:data/gate.db"
[identities.app]
kind = "jwt"
algorithms = ["HS256"]
secret = { env = "KEY" }
[policies.signed-in]
kind = "signed_in"
accept = ["app"]
[[routes]]
policies = ["signed-in"]
"#;

/// Tables of the kinds, with their required keys.
const KINDS: [&str; 11] = [
    "identities.x = { kind = 'jwt', algorithms = ['HS256'], secret = { env = 'KEY' } }",
    "identities.x = { kind = 'introspection', url = 'https://id.example.com', client_id = 'gate', client_secret = { env = 'KEY' } }",
    "identities.x = { kind = 'session', exchange = ['app'] }",
    "identities.x = { kind = 'forwarded', subject = 'X-User' }",
    "identities.x = { kind = 'remote', url = 'https://app.example.com', forward = ['cookie:sid'], subject = '/id' }",
    "policies.x = { kind = 'signed_in', accept = ['app'] }",
    "policies.x = { kind = 'workspace_member', claim = 'workspaces' }",
    "policies.x = { kind = 'rate_limit', per = [], limit = 1, period = '1m' }",
    "policies.x = { kind = 'quota', per = [], limit = 1, window = 'day', store = 'main' }",
    "policies.x = { kind = 'upload_intent', purposes = ['avatar'] }",
    "policies.x = { kind = 'remote', url = 'https://app.example.com' }",
];

/// The tables with each key of the schema: the config, the path of the table, and its keys.
fn tables() -> Vec<(Table, String, Vec<String>)> {
    let schema = settings::schema(&settings::Kinds::default()).to_value();
    let definition = |schema: &Json| -> Json {
        let all = schema["anyOf"].as_array().and_then(|forms| forms.first());
        let name = schema["$ref"]
            .as_str()
            .or_else(|| all.and_then(|form| form["$ref"].as_str()));
        name.map_or_else(|| schema.clone(), self::definition)
    };
    let keys = |schema: &Json| {
        let properties = schema["properties"].as_object().unwrap();
        properties
            .keys()
            .filter(|key| *key != "kind")
            .cloned()
            .collect::<Vec<_>>()
    };
    let base: Table = BASE.parse().unwrap();
    let mut tables = Vec::new();
    for section in [
        "server",
        "management",
        "telemetry",
        "imgwire",
        "outbound",
        "session",
    ] {
        let schema = definition(&schema["properties"][section]);
        tables.push((base.clone(), section.to_owned(), keys(&schema)));
    }
    for (section, key) in [
        ("server", "failures"),
        ("server", "reads"),
        ("session", "cookie"),
        ("imgwire", "breaker"),
        ("imgwire", "pool"),
        ("stores.main", "tls"),
    ] {
        let owner = match section {
            "stores.main" => self::definition("StoreSettings"),
            _ => definition(&schema["properties"][section]),
        };
        let schema = definition(&owner["properties"][key]);
        let mut base = base.clone();
        let inner = match key {
            "failures" | "reads" => "x = { limit = 1, period = '1m' }",
            "pool" => "x = { size = 1, max_age = '1m' }",
            _ => "x = {}",
        };
        let inner: Table = inner.parse().unwrap();
        set(&mut base, &format!("{section}.{key}"), inner["x"].clone());
        tables.push((base, format!("{section}.{key}"), keys(&schema)));
    }
    tables.push((
        base.clone(),
        "stores.main".to_owned(),
        keys(&self::definition("StoreSettings")),
    ));
    tables.push((
        base.clone(),
        "routes[0]".to_owned(),
        keys(&self::definition("RouteSettings")),
    ));
    for kind in KINDS
        .into_iter()
        .chain(["policies.x = { kind = 'expression', allow = 'true' }"])
    {
        let kind: Table = kind.parse().unwrap();
        let (section, named) = kind.iter().next().unwrap();
        let table = named["x"].as_table().unwrap();
        let definition = match section.as_str() {
            "identities" => self::definition("IdentitySettings"),
            _ => self::definition("PolicySettings"),
        };
        let kinds = definition["oneOf"].as_array().unwrap();
        let schema = kinds
            .iter()
            .find(|of| of["properties"]["kind"]["const"] == *table["kind"].as_str().unwrap());
        let mut config = base.clone();
        set(&mut config, &format!("{section}.x"), named["x"].clone());
        tables.push((config, format!("{section}.x"), keys(schema.unwrap())));
    }
    tables
}

fn definition(name: &str) -> Json {
    let schema = settings::schema(&settings::Kinds::default()).to_value();
    schema["$defs"][name.rsplit('/').next().unwrap()].clone()
}

fn set(config: &mut Table, path: &str, value: Value) {
    let mut table = config;
    let (within, key) = path.rsplit_once('.').unwrap();
    for part in within.split('.') {
        table = match part.strip_suffix("[0]") {
            Some(list) => table[list].as_array_mut().unwrap()[0]
                .as_table_mut()
                .unwrap(),
            None => table
                .entry(part)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .unwrap(),
        };
    }
    table.insert(key.to_owned(), value);
}

#[test]
fn a_value_of_the_wrong_type_is_one_fault_with_a_suggestion_that_loads() {
    let values: Table = "x = ['text', 7, -1, 1.5, true, 1979-05-27, [], [[1]], { a = { b = 1 } }]"
        .parse()
        .unwrap();
    let mut tried = BTreeSet::new();
    let mut problems = Vec::new();
    for (config, table, keys) in tables() {
        for key in keys {
            let path = format!("{table}.{key}");
            for value in values["x"].as_array().unwrap() {
                let mut wrong = config.clone();
                set(&mut wrong, &path, value.clone());
                for fault in faults(&wrong) {
                    assert_plain(&fault);
                }
                let found = faults_at(&wrong, &path);
                let Some(fault) = found.iter().find(|fault| fault.contains("expected ")) else {
                    continue;
                };
                tried.insert(path.clone());
                if found.len() != 1 {
                    problems.push(found.join("\n"));
                }
                if fault.contains("\"...\"") {
                    problems.push(format!("nothing to write: {fault}"));
                }
                let Some((_, suggestion)) = fault.rsplit_once("; write ") else {
                    problems.push(format!("no suggestion: {fault}"));
                    continue;
                };
                let suggestion = suggestion.trim_start_matches("for example ");
                // What is suggested for an element of a list has no key.
                let assignment = format!("{key} = [{suggestion}]");
                let suggested = suggestion.parse::<Table>().or_else(|_| assignment.parse());
                let Ok(suggested) = suggested else {
                    problems.push(format!("cannot be parsed: {fault}"));
                    continue;
                };
                let Some(suggested) = suggested.get(&key) else {
                    problems.push(format!("another key: {fault}"));
                    continue;
                };
                let mut right = config.clone();
                set(&mut right, &path, suggested.clone());
                for still in faults_at(&right, &path) {
                    // The text of the operator, put into a list, may be no origin; and a valid key may not fit others.
                    let is_own = suggestion.contains("text") || suggestion.contains("1979");
                    let is_wrong = still.contains(": expected ") || still.contains(" is not ");
                    if is_wrong && !is_own {
                        problems.push(format!("{fault}\n  -> {still}"));
                    }
                }
            }
            if !tried.contains(&path) {
                problems.push(format!("no value of {path} is of the wrong type"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(tried.len() > 100, "{tried:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_line_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("latin1.toml"), b"[server]\n# caf\xe9\n").unwrap();
    std::fs::write(path("large.toml"), vec![b'#'; 5 << 20]).unwrap();
    for (name, expected) in [
        ("absent.toml", "the file does not exist; check the path"),
        ("", "is a folder; write the path of a file"),
        (
            "latin1.toml",
            "line 2, column 6: the byte 0xE9 is not UTF-8; save the file as UTF-8",
        ),
        ("large.toml", "is larger than 4 MiB"),
    ] {
        let output = run(&["check", &path(name)]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.contains(expected) && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn described_requests_have_errors_with_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = path("gate.toml", BASE);
    let check = |arguments: &[&str], expected: &[&str]| {
        let output = run(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert_plain(&error);
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{error}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line}");
        }
    };
    let cases = "[[cases]]\nname = \"a\"\nexpects = \"allow\"\n[[cases]]\nname = \"b\"\nexpect = \"not_signed\"\nsubject = \"user_1\"\n";
    let cases = path("cases.toml", cases);
    check(
        &["test", "--config", &config, &cases],
        &[
            "cases.toml:3:1: cases[0].expects: unknown key `expects`; did you mean `expect`?",
            "cases.toml:6:10: cases[1].expect: expected ",
            "cases.toml:7:11: cases[1].subject: expected a table, found a string; write subject = { id = \"user_1\" }",
        ],
    );
    let request = path(
        "request.json",
        "{\n  \"subject\": \"user_1\",\n  \"file\": { \"size\": \"12\" }\n}\n",
    );
    check(
        &["explain", "--config", &config, "--request", &request],
        &[
            "request.json:2:14: subject: expected a table, found a string; write \"subject\": {\"id\":\"user_1\"}",
            "request.json:3:21: file.size: expected a whole number of at least 0, found \"12\"; write \"size\": 12",
        ],
    );
    let request = path("odd.json", "subject = 1");
    check(
        &["explain", "--config", &config, "--request", &request],
        &["odd.json:1:1: is not JSON"],
    );
}
