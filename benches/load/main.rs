//! The gate under load, beside what one would build without it, in one run on one machine:
//! `benches/run` (or `cargo bench --bench load`, with wrk and HAProxy installed).
//!
//! Each contender stands before the same upstream and is driven by the same load. Compare within a run.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod contenders;
mod measure;
mod servers;

use std::{env, time::Duration};

use contenders::Contender;
use measure::{Load, Measurement};

/// How long each contender is measured, and how long it is warmed up before.
const SECONDS: u64 = 6;
const WARM_UP_SECONDS: u64 = 2;

/// Longer than the upstream keeps an idle connection.
const PAUSE: Duration = Duration::from_secs(7);

fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        // The bench runs itself as the upstream and as the bare proxy.
        Some("upstream") => servers::upstream(&mut arguments),
        Some("bare") => servers::bare(&mut arguments),
        only => compare(only),
    }
}

fn compare(only: Option<&str>) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for load in [
        Load {
            delay_ms: 0,
            connections: 64,
        },
        Load {
            delay_ms: 20,
            connections: 512,
        },
    ] {
        let Load {
            delay_ms,
            connections,
        } = load;
        println!(
            "\n## upstream after {delay_ms} ms, {connections} connections, {SECONDS} s each\n"
        );
        println!(
            "| | requests/s | of bare | p50 ms | p99 ms | CPU us/request | of bare | peak MB | failed | failed after a pause |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        let mut bare: Option<Measurement> = None;
        for contender in Contender::ALL {
            if only.is_some_and(|only| {
                contender != Contender::Bare && !contender.name().contains(only)
            }) {
                continue;
            }
            let running = contender.start(folder.path(), delay_ms);
            running.drive(&load, WARM_UP_SECONDS);
            let measured = running.drive(&load, SECONDS);
            std::thread::sleep(PAUSE);
            let after_pause = running.drive(&load, 1);
            let base = bare.get_or_insert_with(|| measured.clone());
            println!(
                "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} | {:.0} | {} | {} |",
                contender.name(),
                measured.per_second,
                measured.per_second / base.per_second,
                measured.p50_ms,
                measured.p99_ms,
                measured.cpu_us,
                measured.cpu_us / base.cpu_us,
                running.peak_mb(),
                measured.failed,
                after_pause.failed,
            );
        }
    }
}
