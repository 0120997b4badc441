//! Mistakes that people make who write their first config, or who know another format better.

use crate::helpers::settings;

const SECRET: &str = "a-secret-that-is-long-enough-for-whatever-it-may-be-needed:sixty-four-bytes";

/// The lines before the route of a valid config. A mistake follows them, in line 12.
const BASE: &str = r#"[imgwire]
api_key = { env = "KEY" }
[stores.main]
url = "sqlite:data/gate.db"
[identities.app]
kind = "jwt"
algorithms = ["HS256"]
secret = { env = "KEY" }
[policies.signed-in]
kind = "signed_in"
accept = ["app"]
"#;

const ROUTE: &str = "[[routes]]\npolicies = [\"signed-in\"]\n";

fn faults(text: &str) -> Vec<String> {
    let environment = |name: &str| match name {
        "KEY" => Some(SECRET.to_owned()),
        "SIZE" => Some("5".to_owned()),
        _ => None,
    };
    match settings::load("gate.toml", text, &environment) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.lines().to_vec(),
    }
}

#[test]
fn each_habit_of_another_format_is_one_fault_with_a_remedy() {
    let mut problems = Vec::new();
    for (mistake, expected) in [
        (
            "// a comment",
            "12:1: a comment begins with `#`; write it in place of `//`",
        ),
        (
            "[server]\nworkers = 2 // two",
            "13:11: a comment begins with `#`",
        ),
        (
            "mode = \"observe\" // now",
            "12:18: a comment begins with `#`",
        ),
        (
            "; a comment",
            "12:1: a comment begins with `#`; write it in place of `;`",
        ),
        (
            "mode = \"observe\",",
            "12:17: the line ends with `,`; remove it",
        ),
        (
            "mode = \"observe\";",
            "12:17: the line ends with `;`; remove it",
        ),
        (
            "mode = observe",
            "12:8: a string needs quotes; write mode = \"value\"",
        ),
        (
            "mode: observe",
            "12:5: TOML has `=` between key and value; write mode = value",
        ),
        (
            "[server]\n\tworkers:\t2",
            "13:9: TOML has `=` between key and value; write workers = value",
        ),
        (
            "mode = \u{201c}observe\u{201d}",
            "12:8: curly quotes are not quotes in TOML",
        ),
        (
            "[server]\ntrusted_proxies:\n",
            "TOML has `=` between key and value; write trusted_proxies = value",
        ),
        ("[server]\n- workers", "TOML has no lists in lines with `-`"),
        (
            "[server]\nworkers = null",
            "13:11: TOML has no `null`; remove the key",
        ),
        (
            "[server]\nworkers =",
            "nothing follows `=`; write workers = value",
        ),
        ("[server]\nworkers = (2)", "13:11: TOML has no `(`"),
        (
            "[server]\nbind = 127.0.0.1:8080",
            "13:13: a string needs quotes; write bind = \"value\"",
        ),
        ("[server]\nbind = \"C:\\x\"", "write `\\\\` for a backslash"),
        (
            "[management]\ntoken = env.TOKEN",
            "write token = { env = \"NAME\" }",
        ),
        (
            "[management]\ntoken = { env: \"KEY\" }",
            "13:14: TOML has `=` between key and value",
        ),
        ("[server", "12:8: `]` is missing at the end; write [server]"),
        (
            "[server] workers = 2",
            "more follows after the name of the table; write only [server]",
        ),
        (
            "[server]]",
            "more follows after the name of the table; write only [server]",
        ),
        (
            "[policies.my policy]",
            "the name of a table may contain only ASCII letters",
        ),
        (
            "[imgwire]",
            "12:2: the table `imgwire` is there twice, first in line 1",
        ),
        (
            "[imgwire.api_key]",
            "`imgwire.api_key` is there already, in line 2; remove one of them",
        ),
        (
            "[[policies]]",
            "`policies` is a table with names before this line; write [policies.NAME]",
        ),
        (
            "kind = \"signed_in\"",
            "the key `kind` is there twice, first in line 10; remove one of them",
        ),
        (
            "[policy.x]\nkind = \"signed_in\"",
            "unknown section `policy`; did you mean `policies`?",
        ),
        (
            "[Server]\nworkers = 1",
            "unknown section `Server`; did you mean `server`?",
        ),
        (
            "[policies]\nkind = \"signed_in\"",
            "write it below a header with a name, such as [policies.NAME]",
        ),
        (
            "[[policies.z]]\nkind = \"signed_in\"",
            "policies.z: expected a table; write [policies.z]",
        ),
        (
            "[[server]]\nworkers = 1",
            "server: expected a table, found a list; write [server]",
        ),
        (
            "[server]\nlog = \"json\"",
            "server.log: unknown key `log`; it is a key of [telemetry]",
        ),
        (
            "[server]\nport = 8080",
            "server.port: unknown key `port`; did you mean `bind`?",
        ),
        (
            "[server]\nWorkers = 8",
            "server.Workers: unknown key `Workers`; did you mean `workers`?",
        ),
        (
            "[server]\nworkers = \"${SIZE}\"",
            "and a variable makes a string; write for example workers = 1",
        ),
        (
            "[server]\nrequest_timeout = 5",
            "found 5; write request_timeout = \"5s\"",
        ),
        (
            "[server]\nbody_limit = \"5 megabytes\"",
            "is not a size; did you mean \"5MB\"?",
        ),
        (
            "[policies.x]\nkind = \"rate_limit\"\nPer = [\"user\"]\nlimit = 1\nperiod = \"1m\"",
            "14:1: policies.x.Per: unknown key `Per`; did you mean `per`?",
        ),
        (
            "[policies.x]\ntype = \"signed_in\"\naccept = [\"app\"]",
            "policies.x.type: unknown key `type`; did you mean `kind`?",
        ),
        (
            "[identities.x]\nkind = \"jwt\"\nalgorithms = [\"RS256\"]\njwks = \"https://id.example.com/jwks\"",
            "identities.x.jwks: is the place of the key set; write it as `jwks_url`",
        ),
    ] {
        for line_end in ["\n", "\r\n"] {
            let text = format!("{BASE}{mistake}\n{ROUTE}").replace('\n', line_end);
            let found = faults(&text);
            if found.len() != 1 || !found[0].contains(expected) {
                problems.push(format!("{mistake}: {found:#?}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_byte_order_mark_tabs_and_line_ends_of_windows_are_accepted() {
    let text = format!("\u{feff}{BASE}\tmode\t=\t\"observe\"\n{ROUTE}").replace('\n', "\r\n");
    assert_eq!(faults(&text), Vec::<String>::new());
}

#[test]
fn a_key_above_the_first_section_is_a_key_of_that_section() {
    let found = faults(&format!("workers = 2\n{BASE}{ROUTE}"));
    let expected = "gate.toml:1:11: workers: is a key of [server]; write it below that header";
    assert_eq!(found, [expected]);
}

#[test]
fn a_config_without_keys_is_one_fault_that_says_what_it_needs() {
    for text in ["", "\n\n", "\r\n\t\r\n", "# [server]\n", "\u{feff}"] {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        for part in ["[imgwire]", "[policies.NAME]", "[[routes]]"] {
            assert!(found[0].contains(part), "{found:#?}");
        }
    }
}

#[test]
fn a_secret_in_the_place_of_its_name_or_without_quotes_is_not_shown() {
    const KEY: &str = "sk_live_0123456789abcdef";
    for key in [
        format!("{{ env = \"{KEY}\" }}"),
        format!("{{ value = \"{KEY}\" }}"),
        format!("\"{KEY}\""),
        KEY.to_owned(),
        format!("= \"{KEY}\""),
        format!("\"{KEY}"),
        format!("{{ env = {KEY} }}"),
        format!("{{ env: \"{KEY}\" }}"),
        format!("\"{KEY}\","),
        format!("[{KEY}]"),
    ] {
        let text = format!("{BASE}{ROUTE}").replacen("{ env = \"KEY\" }", &key, 1);
        let found = faults(&text);
        assert!(!found.is_empty(), "{key}");
        assert!(!found.concat().contains("sk_live"), "{found:#?}");
    }
}

#[test]
fn mistakes_in_several_statements_are_all_found_and_valid_ones_are_not() {
    let text = format!(
        "{BASE}when = \"true\nmode = observe\n[policies.x]\nkind = \"quota\"\nper = [\n  \"user\"\n  \"ip\",\n]\nlimit = {{ claim = \"plan\", \
         values = {{ free = 1 }}\nwindow = \"day\"\n{ROUTE}"
    );
    let found = faults(&text);
    let expected = [
        "gate.toml:12:13: a quote is open; end the string with `\"` in the same line",
        "gate.toml:13:8: a string needs quotes; write mode = \"value\"",
        "gate.toml:18:3: `,` is missing between two entries; write it",
        "gate.toml:20:9: a table is open; end it with `}`",
    ];
    assert_eq!(found, expected);
}
