//! Tells the program which commit it is built from: as `IMGWIRE_GATE_COMMIT` says, or else git.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=IMGWIRE_GATE_COMMIT");
    // Without the file, as in an image, cargo would build anew each time.
    let head = ".git/logs/HEAD";
    if Path::new(head).exists() {
        println!("cargo::rerun-if-changed={head}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("IMGWIRE_GATE_COMMIT").ok();
    let given = given.filter(|commit| !commit.is_empty());
    let commit = given
        .or_else(ask_git)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=IMGWIRE_GATE_COMMIT={commit}");
}

fn ask_git() -> Option<String> {
    let git = Command::new("git")
        .args(["rev-parse", "--short=9", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let commit = String::from_utf8(git.stdout).ok()?.trim().to_owned();
    (!commit.is_empty()).then_some(commit)
}
