//! Names that were probably meant by a misspelt one.

/// A longer name is not compared, because that takes time in proportion to both lengths.
const MAX_COMPARED: usize = 64;

/// Returns the most similar of the `known` names, if one is similar enough for a suggestion. Case does not matter.
#[must_use]
pub fn similar<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.len() > MAX_COMPARED {
        return None;
    }
    let name = name.to_lowercase();
    let distances = known.iter().map(|other| {
        (
            strsim::damerau_levenshtein(&name, &other.to_lowercase()),
            other,
        )
    });
    let (distance, closest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(*closest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_few_mistakes_is_recognised() {
        let kinds = ["signed_in", "rate_limit", "quota"];
        for (name, expected) in [
            ("ratelimit", Some("rate_limit")),
            ("qouta", Some("quota")),
            ("Quota", Some("quota")),
            ("cel", None),
        ] {
            assert_eq!(similar(name, &kinds), expected, "{name}");
        }
    }

    #[test]
    fn a_very_long_name_is_not_compared() {
        let (longest, longer) = ("m".repeat(MAX_COMPARED), "m".repeat(MAX_COMPARED + 1));
        assert_eq!(similar(&longest, &[&*longer]), Some(&*longer));
        assert_eq!(similar(&longer, &[&*longest]), None);
    }
}
