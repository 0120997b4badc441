//! Tells the program which commit it is built from: as `IMGWIRE_GATE_COMMIT` says, or else git. And has its
//! relocations packed, where the loader can read them so.

use std::{env, path::Path, process::Command};

/// The first glibc whose loader reads packed relocations (`DT_RELR`).
const READS_PACKED: (u32, u32) = (2, 36);

fn main() {
    name_commit();
    pack_relocations();
}

fn name_commit() {
    println!("cargo::rerun-if-env-changed=IMGWIRE_GATE_COMMIT");
    // Without the file, as in an image, cargo would build anew each time.
    let head = ".git/logs/HEAD";
    if Path::new(head).exists() {
        println!("cargo::rerun-if-changed={head}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let given = env::var("IMGWIRE_GATE_COMMIT").ok();
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

/// Plain ones take 1.6 MB of the memory of every process, to be read once.
fn pack_relocations() {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|it| it == value);
    let runs_here = env::var("HOST").is_ok_and(|host| is("TARGET", &host));
    if runs_here
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && glibc().is_some_and(|version| version >= READS_PACKED)
    {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's glibc.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
