//! Counts the columns of an SQL query by its text.

/// Whether a query certainly returns one column, judged by its text: no database is queried here.
///
/// It reads the list of the outermost `select`. `*` may be any number of columns, and a text without such a `select`
/// (`values`, `table`, a query in parentheses) is uncertain, so there is no warning. If such a query finds a member and
/// does not name a workspace, the gate logs a warning.
pub(crate) fn selects_one_column(query: &str) -> bool {
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
