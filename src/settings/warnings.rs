//! What is odd about a config file that is valid.

use policies::{Dimension, PolicyName, settings::Kind};

use super::{Settings, document::Reader};

const NO_SECOND_COLUMN: &str = "the query selects one column, so the database cannot say which workspace it means: \
    if it accepts several spellings of an id, each has limits of its own; \
    select the workspace's id as the second column";

const UNSEEN_ANSWERS: &str = "limits per workspace follow, and only the answers show whether they name the workspace: \
    without `workspace` in them, each spelling of an id that the app accepts has limits of its own";

/// Warns of what is odd about the memberships of `settings`.
pub(super) fn of_memberships(reader: &mut Reader, settings: &Settings) {
    for (name, _, kind) in &settings.policies {
        let Kind::WorkspaceMember(member) = kind else {
            continue;
        };
        if member.query.as_deref().is_some_and(selects_one_column) {
            reader.warning(format!("policies.{name}.query"), NO_SECOND_COLUMN);
        }
        if member.url.is_some() && settings.is_counted_after(name) {
            reader.warning(format!("policies.{name}.url"), UNSEEN_ANSWERS);
        }
    }
}

impl Settings {
    /// Whether some route counts per workspace, by what the membership `name` finds.
    fn is_counted_after(&self, name: &PolicyName) -> bool {
        self.routes.iter().any(|route| {
            let mut policies = route.policies.iter();
            let is_there = policies.any(|policy| policy == name);
            is_there
                && policies.any(|policy| {
                    let per = self.policy(policy).and_then(Kind::per);
                    per.is_some_and(|per| per.contains(Dimension::Workspace))
                })
        })
    }
}

/// Whether a query certainly finds one column, by its text: no database is asked here.
///
/// It reads the list of the outermost `select`. `*` may be any number of columns, and in a text without such a `select`
/// (`values`, `table`, a query in parentheses) nothing is certain, so there is no warning. The log has one when such a
/// query finds a member and names no workspace.
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

/// The words and signs of a query that stand in no parentheses, no quotes and no comment. What stands in them is one
/// sign.
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
