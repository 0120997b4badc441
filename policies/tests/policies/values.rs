//! Values of the config: durations, sizes, identifiers, claims and secrets.

use std::{path::Path, time::Duration};

use policies::{
    ByteCount, ClaimPath, Clock as _, Expression, ExpressionSettings, IdentityName, Interval,
    InvalidId, KeyedLimitSettings, MAX_ID_BYTES, Per, PolicyKind as _, PolicyName,
    RateLimitSettings, SecretSource, StoreName, SystemClock, WorkspaceId,
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn a_duration_is_more_than_zero_and_at_most_ten_years() {
    for (text, seconds) in [
        ("1s", 1),
        ("2m", 120),
        ("1h 30m", 5400),
        ("400d", 400 * 86_400),
        ("3660d", 3660 * 86_400),
    ] {
        let interval: Interval = read(json!(text)).unwrap();
        assert_eq!(interval.get(), Duration::from_secs(seconds), "{text}");
    }
    for text in ["0s", "0ms", "3660days 1ns", "3661d", "five", "", "10"] {
        assert!(read::<Interval>(json!(text)).is_err(), "{text}");
    }
    assert_eq!(Interval::from_millis(250), read(json!("250ms")).unwrap());
    assert_eq!(Interval::from_secs(5), read(json!("5s")).unwrap());
}

#[test]
fn a_size_is_at_least_one_byte() {
    for (text, bytes) in [("1", 1), ("2KiB", 2048), ("5MB", 5_000_000)] {
        let size: ByteCount = read(json!(text)).unwrap();
        assert_eq!(size, ByteCount::new(bytes));
        assert_eq!(size.bytes(), bytes, "{text}");
    }
    for text in ["0", "0KiB", "five", "-1"] {
        assert!(read::<ByteCount>(json!(text)).is_err(), "{text}");
    }
}

#[test]
fn an_identifier_has_1_to_255_bytes_and_no_control_characters() {
    let longest = "ä".repeat(MAX_ID_BYTES / 2) + "x";
    for (text, expected) in [
        ("user_1", None),
        (" ", None),
        (&longest, None),
        ("", Some(InvalidId::Empty)),
        (&(longest.clone() + "x"), Some(InvalidId::TooLong)),
        ("a\nb", Some(InvalidId::ControlCharacter)),
        ("a\u{7f}", Some(InvalidId::ControlCharacter)),
    ] {
        assert_eq!(IdentityName::parse(text).err(), expected, "{text}");
        assert_eq!(
            read::<IdentityName>(json!(text)).is_ok(),
            expected.is_none()
        );
        let name = PolicyName::parse(text).ok();
        assert_eq!(
            name.as_ref().map(PolicyName::as_str),
            expected.is_none().then_some(text)
        );
        assert!(name.is_none_or(|name| name.to_string() == text));
    }
}

#[test]
fn a_name_shows_its_text_and_equals_the_same_text() {
    let (one, same) = (
        PolicyName::parse("one").unwrap(),
        PolicyName::parse("one").unwrap(),
    );
    assert_eq!(one, same);
    assert_ne!(one, PolicyName::parse("two").unwrap());
    assert!(format!("{one:?}").contains("\"one\""));
    assert!(format!("{:?}", StoreName::parse("db").unwrap()).contains("\"db\""));
}

#[test]
fn a_workspace_id_may_be_an_integer() {
    for (id, text) in [
        (json!("ws_1"), "ws_1"),
        (json!(7), "7"),
        (json!(-7), "-7"),
        (json!(u64::MAX), "18446744073709551615"),
    ] {
        assert_eq!(read::<WorkspaceId>(id).unwrap().as_str(), text);
    }
    let error = read::<WorkspaceId>(json!(true)).unwrap_err();
    assert!(error.contains("a string or an integer"), "{error}");
    assert!(read::<WorkspaceId>(json!("")).is_err());
    assert!(read::<WorkspaceId>(json!(1.5)).is_err());
}

#[test]
fn a_claim_is_a_name_or_a_pointer() {
    let claims = json!({
        "plan": "pro", "a/b": 1, "m~n": 2, "o": { "id": 3, "x/y": 4, "x~y": [5] },
        "https://app.example.com/role": "x",
    });
    for (path, value) in [
        ("plan", Some(json!("pro"))),
        ("a/b", Some(json!(1))),
        ("/a~1b", Some(json!(1))),
        ("/m~0n", Some(json!(2))),
        ("/o/id", Some(json!(3))),
        ("/o/x~1y", Some(json!(4))),
        ("/o/x~0y/0", Some(json!(5))),
        ("/o/absent", None),
        ("o/id", None),
        ("https://app.example.com/role", Some(json!("x"))),
    ] {
        let claim: ClaimPath = read(json!(path)).unwrap();
        assert_eq!(
            claim.get(claims.as_object().unwrap()),
            value.as_ref(),
            "{path}"
        );
        assert_eq!(claim.to_string(), path);
        assert!(format!("{claim:?}").contains(path));
    }
    for path in ["", "/", "//id", "/a~", "/a~2b", "/o/x~y", "/a~0~"] {
        assert!(ClaimPath::parse(path).is_err(), "{path}");
    }
    // Only in a pointer is `~` special.
    assert!(ClaimPath::parse("a~b").is_ok());
}

#[test]
fn a_secret_is_in_an_environment_variable_or_a_file() {
    let env = read(json!({ "env": "TOKEN" })).unwrap();
    assert!(matches!(env, SecretSource::Env(name) if name == "TOKEN"));
    let file = read(json!({ "file": "/run/secrets/token" })).unwrap();
    assert!(matches!(file, SecretSource::File(path) if path == Path::new("/run/secrets/token")));
    for wrong in [
        json!({}),
        json!({ "env": "A", "file": "b" }),
        json!({ "other": "x" }),
        json!(7),
    ] {
        let error = read::<SecretSource>(wrong.clone()).unwrap_err();
        assert!(
            wrong["other"].is_string() || error.contains("env = \"NAME\""),
            "{error}"
        );
    }
}

#[test]
fn a_secret_in_the_config_itself_is_refused_and_not_shown() {
    let error = read::<SecretSource>(json!("hunter2")).unwrap_err();
    assert!(
        error.contains("env = \"NAME\"") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn a_keyed_limit_has_a_limit_and_a_period() {
    let limit: KeyedLimitSettings = read(json!({ "limit": 120, "period": "1m" })).unwrap();
    assert_eq!(limit.limit().get(), 120);
    assert_eq!(limit, KeyedLimitSettings::per_minute(limit.limit()));
    let slow = json!({ "limit": 4_000_000_000_u32, "period": "366d" });
    assert!(read::<KeyedLimitSettings>(slow).is_ok());
    assert!(read::<KeyedLimitSettings>(json!({ "limit": 0, "period": "1m" })).is_err());
}

fn schema<T: JsonSchema>() -> Value {
    json!(schemars::schema_for!(T))
}

#[test]
fn values_that_are_written_as_text_are_text_in_the_json_schema() {
    // Error messages say what is expected by the title.
    for (title, schema) in [
        ("a duration", schema::<Interval>()),
        ("a size", schema::<ByteCount>()),
        ("a claim", schema::<ClaimPath>()),
        ("a CEL expression", schema::<Expression>()),
    ] {
        assert_eq!(schema["type"], "string", "{title}");
        assert_eq!(schema["title"], title);
    }
    assert_eq!(schema::<PolicyName>()["type"], "string");
    // An id may be a whole number, too.
    assert_eq!(
        schema::<WorkspaceId>()["type"],
        json!(["string", "integer"])
    );
    assert_eq!(schema::<Vec<PolicyName>>()["items"]["type"], "string");
    assert_eq!(schema::<Per>()["type"], "array");
}

#[test]
fn the_json_schema_of_a_rate_limit_describes_its_keys() {
    let schema = schema::<RateLimitSettings>();
    assert_eq!(schema["title"], "RateLimitSettings");
    for key in [
        "per",
        "limit",
        "period",
        "burst",
        "max_keys",
        "store",
        "on_failure",
    ] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    assert_eq!(
        schema["properties"]["max_keys"]["default"],
        json!(1_000_000)
    );
}

#[test]
fn the_json_schema_of_an_expression_lists_the_facts() {
    let schema = schema::<Expression>();
    let description = schema["description"].as_str().unwrap();
    for fact in [
        "request.file.size",
        "subject.claims.*",
        "workspace.role",
        "subject.session",
    ] {
        assert!(description.contains(&format!("`{fact}`")), "{description}");
    }
}

#[test]
fn an_expression_shows_its_text() {
    let expression = Expression::parse("subject.claims.plan == 'pro'").unwrap();
    assert_eq!(expression.to_string(), "subject.claims.plan == 'pro'");
    assert!(format!("{expression:?}").contains("subject.claims.plan == 'pro'"));
    let settings = json!({ "allow": "subject.claims.plan == 'pro'" });
    let settings: ExpressionSettings = read(settings).unwrap();
    assert_eq!(settings.describe(), expression.to_string());
    assert_eq!(settings.requirements().claims, expression.claims());
}

#[test]
fn the_system_clock_runs_and_shows_the_time_of_day() {
    let clock = SystemClock::new();
    assert!((0..10_000_000).any(|_| clock.elapsed() > Duration::ZERO));
    assert!(clock.now().as_second() > 1_700_000_000);
}
