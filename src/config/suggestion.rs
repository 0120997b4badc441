//! Error messages about unknown names.

/// Says that `name` is unknown, and suggests the most similar of the `known` names, or lists all of them. `what` is the
/// kind of name, for example `policy kind`.
pub(crate) fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    let known: Vec<_> = known.into_iter().collect();
    let distances = known
        .iter()
        .map(|other| (strsim::damerau_levenshtein(name, other), other));
    let closest = distances.min_by_key(|(distance, _)| *distance);
    if let Some((distance, other)) = closest
        && distance <= (name.chars().count() / 3).max(1)
    {
        return format!("unknown {what} `{name}`; did you mean `{other}`?");
    }
    if known.is_empty() {
        return format!("unknown {what} `{name}`");
    }
    let plural = match what.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{what}s"),
    };
    format!(
        "unknown {what} `{name}`; known {plural}: `{}`",
        known.join("`, `")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similar_name_is_suggested_and_otherwise_all_are_listed() {
        let kinds = ["signed_in", "rate_limit", "quota"];
        for (name, expected) in [
            (
                "ratelimit",
                "unknown policy kind `ratelimit`; did you mean `rate_limit`?",
            ),
            (
                "qouta",
                "unknown policy kind `qouta`; did you mean `quota`?",
            ),
            (
                "cel",
                "unknown policy kind `cel`; known policy kinds: `signed_in`, `rate_limit`, `quota`",
            ),
        ] {
            assert_eq!(unknown("policy kind", name, kinds), expected);
        }
        let known = unknown("identity", "nobody", ["app"]);
        assert_eq!(known, "unknown identity `nobody`; known identities: `app`");
        assert_eq!(unknown("store", "main", []), "unknown store `main`");
    }
}
