//! Checks the settings of a `workspace_member` policy: a membership comes from one place, and each key belongs to the
//! place that reads it.

use crate::{Findings, WorkspaceMemberSettings};

const NO_SECOND_COLUMN: &str = "the query selects one column, so the database cannot say which workspace it means: \
    if it accepts several spellings of an id, each has limits of its own; \
    select the workspace's id as the second column";

pub(crate) fn check(settings: &WorkspaceMemberSettings, findings: &mut Findings) {
    let places = [
        settings.claim.is_some(),
        settings.members.is_some(),
        settings.url.is_some(),
        settings.query.is_some(),
    ];
    if places.into_iter().filter(|found| *found).count() != 1 {
        findings.fault("", "needs one of `claim`, `members`, `url` and `query`");
        return;
    }
    let is_asked_for = settings.url.is_some() || settings.query.is_some();
    if settings.cache.is_some() && !is_asked_for {
        findings.fault("", "`cache` goes with `url` and `query` only");
    }
    if settings.token.is_some() && settings.url.is_none() {
        findings.fault("", "`token` goes with `url` only");
    }
    if settings.store.is_some() != settings.query.is_some() {
        findings.fault("", "`store` and `query` go together");
    }
    if settings.roles.as_ref().is_some_and(Vec::is_empty) {
        let message = "`roles` must name at least one role; leave it out to let in any member";
        findings.fault("", message);
    }
    claimed(settings, findings);
    if let Some(query) = &settings.query {
        if ["$1", "$2"]
            .iter()
            .any(|parameter| !query.contains(parameter))
        {
            let message = "must use `$1`, the user's id, and `$2`, the workspace's";
            findings.fault("query", message);
        }
        if selects_one_column(query) {
            findings.warning("query", NO_SECOND_COLUMN);
        }
    }
}

/// Keys for a claim require a claim, and each role comes from one place.
fn claimed(settings: &WorkspaceMemberSettings, findings: &mut Findings) {
    let WorkspaceMemberSettings {
        claim,
        id_key,
        role_key,
        role_claim,
        ..
    } = settings;
    let mut fault = |message: &str| findings.fault("", message);
    if claim.is_none() {
        let keys = [
            (id_key.is_some(), "`id_key` goes with `claim` only"),
            (role_key.is_some(), "`role_key` goes with `claim` only"),
            (role_claim.is_some(), "`role_claim` goes with `claim` only"),
        ];
        for (_, message) in keys.into_iter().filter(|(is_set, _)| *is_set) {
            fault(message);
        }
        return;
    }
    if settings.id_key().is_empty() || settings.role_key().is_empty() {
        fault("`id_key` and `role_key` must not be empty");
    } else if role_claim.is_none() && settings.id_key() == settings.role_key() {
        fault("`id_key` and `role_key` must differ: one member is not both the id and the role");
    }
    if role_key.is_some() && role_claim.is_some() {
        fault("`role_key` and `role_claim` exclude each other: a role comes from one place");
    }
    if role_claim.is_some() && role_claim == claim {
        fault("`role_claim` must be another claim than `claim`");
    }
}

/// Whether a query certainly returns one column, judged by its text: no database is queried here.
///
/// It reads the list of the outermost `select`. `*` may be any number of columns, and a text without such a `select`
/// (`values`, `table`, a query in parentheses) is uncertain, so there is no warning. If such a query finds a member and
/// does not name a workspace, the gate logs a warning.
fn selects_one_column(query: &str) -> bool {
    let mut words = outermost(query).into_iter();
    if !words.any(|word| word.eq_ignore_ascii_case("select")) {
        return false;
    }
    let mut before = String::new();
    for word in words {
        let is_distinct = before.eq_ignore_ascii_case("distinct");
        match word.to_ascii_lowercase().as_str() {
            "," | "*" => return false,
            "from" if !is_distinct => return true,
            "union" | "intersect" | "except" | "where" | ";" => return true,
            _ => before = word,
        }
    }
    true
}

/// The words and signs of a query outside of parentheses, quotes and comments. Each of those becomes one sign.
fn outermost(query: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut depth = 0_usize;
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '-' if rest.starts_with("--") => Some(rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => {
                Some(rest.find("*/").map_or(rest.len(), |end| end + 2))
            }
            '\'' | '"' | '`' => {
                let end = rest[1..].find(first);
                Some(end.map_or(rest.len(), |end| end + 2))
            }
            _ => None,
        };
        if let Some(skipped) = skipped {
            rest = &rest[skipped..];
            continue;
        }
        let is_word = |character: char| character.is_alphanumeric() || "_$".contains(character);
        let end = match rest.find(|character| !is_word(character)) {
            Some(0) => first.len_utf8(),
            Some(end) => end,
            None => rest.len(),
        };
        let word = &rest[..end];
        match first {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 && !first.is_whitespace() => words.push(word.to_owned()),
            _ => {}
        }
        rest = &rest[end..];
    }
    words
}
