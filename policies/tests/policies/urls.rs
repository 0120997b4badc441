//! URL templates: what is filled in is one segment, also after a proxy has decoded and normalised the path.

use percent_encoding::percent_decode_str;
use policies::{PathSegment, UrlTemplate};
use proptest::prelude::*;

fn template() -> UrlTemplate {
    UrlTemplate::try_from("http://app/api/{workspace}/members/{user}".to_owned()).unwrap()
}

fn fill(workspace: &str, user: &str) -> Option<String> {
    let segments = PathSegment::parse(workspace).zip(PathSegment::parse(user));
    segments.map(|(workspace, user)| template().fill(workspace, user))
}

/// A path as a careless proxy or server reads it: decoded so many times, without parameters, `\\` as `/`, and
/// dot segments removed.
fn normalised(url: &str, decoded: usize) -> Vec<String> {
    let mut path = url.strip_prefix("http://app").unwrap().to_owned();
    for _ in 0..decoded {
        path = percent_decode_str(&path).decode_utf8_lossy().into_owned();
    }
    let path = path.replace('\\', "/");
    let path = path.split(['?', '#']).next().unwrap();
    let mut segments: Vec<String> = Vec::new();
    for segment in path.split('/').skip(1) {
        let segment = segment.split(';').next().unwrap();
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment.to_owned()),
        }
    }
    segments
}

#[test]
fn ids_as_they_really_are_fill_a_template() {
    for (id, filled) in [
        (
            "6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab",
            "6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab",
        ),
        ("org_123", "org_123"),
        ("42", "42"),
        ("auth0|abc", "auth0%7Cabc"),
        ("ada+test@example.com", "ada%2Btest%40example.com"),
        ("urn:uuid:7", "urn%3Auuid%3A7"),
        ("R2F0ZQ==", "R2F0ZQ%3D%3D"),
        ("v1.2~beta", "v1.2~beta"),
        ("..a", "..a"),
    ] {
        let expected = format!("http://app/api/{filled}/members/{filled}");
        assert_eq!(fill(id, id), Some(expected), "{id}");
    }
}

#[test]
fn what_could_lead_elsewhere_fills_no_template() {
    for id in [
        "",
        ".",
        "..",
        "...",
        "../public/x",
        "a/b",
        "/",
        "a\\b",
        "..;",
        "a;b",
        "a?b",
        "a#b",
        "%",
        "%2e%2e",
        "%252e",
        "..%2f",
        "a b",
        "a&b",
        "{user}",
        "ä",
        "．．",
        "／",
        "‥",
        "a\u{200b}b",
        "a\nb",
    ] {
        assert_eq!(fill(id, "user_1"), None, "{id:?} as a workspace");
        assert_eq!(fill("ws_1", id), None, "{id:?} as a user");
    }
}

#[test]
fn a_template_has_its_places_behind_its_host() {
    for (template, is_good) in [
        ("http://app/{workspace}/{user}", true),
        ("https://app:8443/members?w={workspace}&u={user}", true),
        ("https://app.example.com/{workspace}.json/{user}", true),
        ("https://{workspace}.example.com/{user}", false),
        ("https://app.example.com{workspace}/{user}", false),
        ("http:\\\\{workspace}/{user}", false),
        ("http://{user}@app/{workspace}", false),
        ("http://app/{workspace}", false),
        ("http://app/{workspace}#{user}", false),
        ("{workspace}/{user}", false),
    ] {
        let read = UrlTemplate::try_from(template.to_owned());
        assert_eq!(read.is_ok(), is_good, "{template}: {read:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_is_filled_in_stays_in_its_place(
        workspace in "[.%/\\\\;?#2eEfF5cC|@a]{1,6}|\\PC{1,4}",
        user in "[.%/\\\\;?#2eEfF5cC|@a]{1,6}|\\PC{1,4}",
        decoded in 0..4_usize,
    ) {
        if let Some(url) = fill(&workspace, &user) {
            let segments = normalised(&url, decoded);
            prop_assert_eq!(segments.len(), 4, "{}", url);
            prop_assert_eq!((segments[0].as_str(), segments[2].as_str()), ("api", "members"));
            if decoded > 0 {
                prop_assert_eq!((&segments[1], &segments[3]), (&workspace, &user));
            }
        }
    }

    #[test]
    fn two_pairs_have_two_urls(
        one in ("[a-c|@.]{1,3}", "[a-c|@.]{1,3}"),
        other in ("[a-c|@.]{1,3}", "[a-c|@.]{1,3}"),
    ) {
        let (first, second) = (fill(&one.0, &one.1), fill(&other.0, &other.1));
        prop_assert!(first.is_none() || (first == second) == (one == other));
    }
}
