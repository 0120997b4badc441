//! `sqlite:` and the path of a file.

use std::path::{Path, PathBuf};

const EXAMPLE: &str = "needs the path of a file; write for example \"sqlite:data/gate.db\"";

/// `None` if the URL is of another kind of store.
pub(super) fn parse(url: &str) -> Option<Result<PathBuf, &'static str>> {
    let Some(path) = url.strip_prefix("sqlite:") else {
        return looks_like_sqlite(url).then_some(Err(
            "SQLite is written `sqlite:` and the path of a file, for example \"sqlite:data/gate.db\"",
        ));
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    Some(match fault(path) {
        Some(fault) => Err(fault),
        None => Ok(Path::new(path).to_owned()),
    })
}

/// Whether it is how other programs write a SQLite database.
fn looks_like_sqlite(url: &str) -> bool {
    let url = url.to_ascii_lowercase();
    let prefixes = ["sqlite", "file:", "jdbc:sqlite:", "libsql:", "./", "/"];
    let is_file = prefixes.iter().any(|prefix| url.starts_with(prefix));
    let has_ending = || {
        [".db", ".sqlite", ".sqlite3"]
            .iter()
            .any(|end| url.ends_with(end))
    };
    is_file || url == ":memory:" || (!url.contains(':') && has_ending())
}

fn fault(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some(EXAMPLE);
    }
    if path.starts_with(":memory:") || path.contains("mode=memory") {
        return Some(
            "counters in memory would be lost at a restart; write the path of a file, for example \
             \"sqlite:data/gate.db\"",
        );
    }
    if path.starts_with("file:") {
        return Some("takes a path without `file:`; write for example \"sqlite:data/gate.db\"");
    }
    if path.contains(['?', '#']) {
        return Some(
            "takes no parameters; remove everything from the `?` or `#` on (the gate creates a file of counters, and \
             only reads one of memberships)",
        );
    }
    if path.starts_with('~') {
        return Some(
            "`~` is not replaced; write the whole path, for example \"sqlite:/home/app/gate.db\"",
        );
    }
    if has_variable(path) {
        return Some(
            "a variable such as `$HOME` is not replaced; write the whole path, or the variable with braces: \
             \"sqlite:${HOME}/gate.db\"",
        );
    }
    if is_encoded(path) {
        return Some(
            "the path is taken as it is written; write the character in place of `%` and two digits, for example a \
             space for `%20`",
        );
    }
    if path.trim() != path || path.contains(char::is_control) {
        return Some("the path begins or ends with a space, or has a control character; remove it");
    }
    if path.ends_with(['/', '\\']) || [".", ".."].contains(&path.rsplit('/').next()?) {
        return Some("names a folder; add the name of a file, for example \"sqlite:data/gate.db\"");
    }
    None
}

/// Whether it has a variable as a shell writes it.
fn has_variable(path: &str) -> bool {
    let mut rest = path.split('$').skip(1);
    rest.any(|rest| rest.starts_with(|char: char| char.is_ascii_uppercase()))
}

/// Whether it has a percent-encoded character.
fn is_encoded(path: &str) -> bool {
    let mut rest = path.split('%').skip(1);
    rest.any(|rest| {
        let digits = rest.chars().take(2).filter(char::is_ascii_hexdigit);
        digits.count() == 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_follow_two_slashes() {
        for (url, path) in [
            ("sqlite:data/gate.db", "data/gate.db"),
            ("sqlite://data/gate.db", "data/gate.db"),
            ("sqlite:/srv/gate.db", "/srv/gate.db"),
            ("sqlite:///srv/gate.db", "/srv/gate.db"),
            ("sqlite:my data/100%.db", "my data/100%.db"),
            ("sqlite:us$/$1.db", "us$/$1.db"),
        ] {
            assert_eq!(parse(url), Some(Ok(path.into())), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_a_file_is_refused() {
        for (url, message) in [
            ("sqlite:", "needs the path of a file"),
            ("sqlite://", "needs the path of a file"),
            ("sqlite::memory:", "in memory"),
            ("sqlite:file::memory:?cache=shared", "without `file:`"),
            ("sqlite:gate.db?mode=rwc&cache=shared", "no parameters"),
            ("sqlite:~/gate.db", "`~` is not replaced"),
            ("sqlite://~/gate.db", "`~` is not replaced"),
            ("sqlite:$HOME/gate.db", "`$HOME` is not replaced"),
            ("sqlite:data/$NAME.db", "`$HOME` is not replaced"),
            ("sqlite:my%20data/gate.db", "`%20`"),
            ("sqlite: gate.db", "a space"),
            ("sqlite:gate.db\n", "a space"),
            ("sqlite:data/", "names a folder"),
            ("sqlite:///", "names a folder"),
            ("sqlite:data/..", "names a folder"),
            ("sqlite3:gate.db", "is written `sqlite:`"),
            ("SQLite:gate.db", "is written `sqlite:`"),
            ("sqlite+aiosqlite:///gate.db", "is written `sqlite:`"),
            ("file:gate.db?mode=ro", "is written `sqlite:`"),
            ("jdbc:sqlite:gate.db", "is written `sqlite:`"),
            (":memory:", "is written `sqlite:`"),
            ("data/gate.db", "is written `sqlite:`"),
            ("/srv/gate", "is written `sqlite:`"),
        ] {
            let parsed = parse(url);
            let Some(Err(found)) = &parsed else {
                unreachable!("{url}: {parsed:?}")
            };
            assert!(found.contains(message), "{url}: {found}");
        }
    }

    #[test]
    fn urls_of_other_stores_are_left_to_them() {
        for url in [
            "postgres://gate@db/app",
            "redis://cache",
            "mysql://db/app",
            "localhost",
        ] {
            assert_eq!(parse(url), None, "{url}");
        }
    }
}
