//! Links between the Markdown files of the repository, and within the built book. Links to other hosts are not fetched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use super::{markdown_files, root};
use crate::{process::text, real_parts::are_here};

/// Text outside of code blocks.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The targets of the links and pictures of a text that lead to this repository.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let inline = prose.split("](").skip(1);
    let inline = inline.filter_map(|rest| rest.split(')').next());
    let html = prose
        .split("src=\"")
        .skip(1)
        .chain(prose.split("srcset=\"").skip(1));
    let html = html.filter_map(|rest| rest.split('"').next());
    let all = inline.chain(html).map(str::to_owned);
    all.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut count = BTreeMap::new();
    for heading in prose(text).lines().filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter_map(|char| match char {
            ' ' => Some('-'),
            char if char.is_alphanumeric() || "-_".contains(char) => Some(char),
            _ => None,
        });
        let anchor: String = kept.collect();
        let before = count.entry(anchor.clone()).or_insert(0);
        found.insert(match *before {
            0 => anchor,
            number => format!("{anchor}-{number}"),
        });
        *before += 1;
    }
    found
}

/// A path without `..` and `.`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => assert!(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
        path
    })
}

/// The target of a link from a page, and its anchor.
fn target(page: &Path, link: &str) -> (PathBuf, String) {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = match file {
        "" => page.to_owned(),
        file => normal(&page.parent().unwrap().join(file)),
    };
    (path, anchor.to_owned())
}

/// The Markdown files outside of `docs`.
fn files_of_the_root() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let name = PathBuf::from(entry.unwrap().file_name());
        if name.extension().is_some_and(|kind| kind == "md") {
            files.push(name);
        }
    }
    for folder in ["examples", "policies", "deploy", "benches", "tests/api"] {
        files.extend(markdown_files(Path::new(folder)));
    }
    files
}

#[test]
fn every_link_between_files_leads_to_a_file_and_a_heading() {
    let pages = markdown_files(Path::new("docs"));
    let files = pages.into_iter().chain(files_of_the_root());
    for page in files {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        for link in links(&text) {
            let (path, anchor) = target(&page, &link);
            assert!(root().join(&path).exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(root().join(&path)).unwrap();
                assert!(
                    anchors(&text).contains(&anchor),
                    "{}: {link}",
                    page.display()
                );
            }
        }
    }
}

#[test]
fn every_page_of_docs_is_in_the_summary() {
    let summary = Path::new("docs/SUMMARY.md");
    let text = fs::read_to_string(root().join(summary)).unwrap();
    let linked: BTreeSet<_> = links(&text)
        .iter()
        .map(|link| target(summary, link).0)
        .collect();
    for page in markdown_files(Path::new("docs")) {
        assert!(
            page == summary || linked.contains(&page),
            "{}",
            page.display()
        );
    }
}

/// The values of an attribute in a page.
fn attributes(html: &str, name: &str) -> Vec<String> {
    let start = format!(" {name}=\"");
    let values = html.split(&start).skip(1);
    values
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_built_book_has_search_two_themes_and_no_dead_link() {
    if !are_here(&["mdbook"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let built = Command::new("mdbook")
        .arg("build")
        .arg("--dest-dir")
        .arg(folder.path())
        .arg(root().join("docs"))
        .output()
        .unwrap();
    let said = text(&built.stderr);
    assert!(built.status.success(), "{said}");
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");

    let mut pages = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(within) = folders.pop() {
        for entry in fs::read_dir(folder.path().join(&within)).unwrap() {
            let path = within.join(entry.unwrap().file_name());
            if folder.path().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "html") {
                let html = fs::read_to_string(folder.path().join(&path)).unwrap();
                pages.insert(path, html);
            }
        }
    }
    let start = &pages[Path::new("start.html")];
    assert!(start.contains("id=\"mdbook-searchbar\""));
    for theme in ["light", "navy"] {
        assert!(
            start.contains(&format!("id=\"mdbook-theme-{theme}\"")),
            "{theme}"
        );
    }
    let mut checked = 0;
    for (page, html) in &pages {
        // These name files from the root of a host.
        if ["404.html", "print.html", "toc.html"]
            .iter()
            .any(|name| page == Path::new(name))
        {
            continue;
        }
        for link in [attributes(html, "href"), attributes(html, "src")].concat() {
            if link.contains("://") || link.starts_with("data:") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target(page, &link);
            assert!(
                folder.path().join(&path).exists(),
                "{}: {link}",
                page.display()
            );
            let has = |html: &String| attributes(html, "id").contains(&anchor);
            assert!(
                anchor.is_empty() || has(&pages[&path]),
                "{}: {link}",
                page.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 500, "{checked}");
}
