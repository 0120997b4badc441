//! The gate under load, beside what one would build without it, in one run on one machine:
//! `benches/run` (or `cargo bench --bench load`, with wrk and HAProxy installed).
//!
//! Each contender stands before an upstream of its own and is driven by the same load, all in turn, several
//! rounds. What is printed are medians over the rounds; a ratio is taken within a round, whose contenders met
//! the machine in the same mood. Compare within a run.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod contenders;
mod engines;
mod measure;
mod servers;
mod tokens;

use std::{env, path::Path, thread, time::Duration};

use contenders::Contender;
use measure::{Flood, Load, Measurement, Running};
use tokens::Tokens;

/// How often each contender is measured, and for how long.
const ROUNDS: usize = 5;
const SECONDS: u64 = 3;

/// Longer than the upstream keeps an idle connection.
const PAUSE: Duration = Duration::from_secs(7);

fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        // The bench runs itself as the upstream and as the bare proxy.
        Some("upstream") => servers::upstream(&mut arguments),
        Some("bare") => servers::bare(&mut arguments),
        first => {
            let only: Vec<String> = first
                .map(str::to_owned)
                .into_iter()
                .chain(arguments)
                .collect();
            let is_wanted = |contender: &Contender| {
                let mut only = only.iter();
                only.len() == 0 || only.any(|only| contender.name().contains(only.as_str()))
            };
            let contenders: Vec<Contender> = Contender::ALL
                .into_iter()
                .filter(|contender| *contender == Contender::Bare || is_wanted(contender))
                .collect();
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            for load in Load::ALL {
                compare(&contenders, &load, folder.path());
            }
            if is_wanted(&Contender::GateUpload) {
                for load in Load::ALL {
                    compare(&Contender::UPLOADS, &load, folder.path());
                }
                follow(folder.path());
            }
            if contenders.contains(&Contender::GateWithPool) {
                compare(
                    &[Contender::Gate, Contender::GateWithPool],
                    &Load::FAR,
                    folder.path(),
                );
            }
            if contenders.contains(&Contender::GateOnRedis) {
                ask_redis(folder.path());
            }
            if contenders.contains(&Contender::GateWithPublishedKeys) {
                flood(folder.path());
            }
        }
    }
}

/// Measures `contenders`, of which the first is what the others are compared with.
fn compare(contenders: &[Contender], load: &Load, folder: &Path) {
    println!(
        "\n## upstream after {} ms, {} connections, {ROUNDS} rounds of {SECONDS} s\n",
        load.delay_ms, load.connections
    );
    let running: Vec<Running> = contenders
        .iter()
        .map(|contender| contender.start(folder, load.delay_ms))
        .collect();
    for contender in &running {
        contender.drive(load, SECONDS);
    }
    let rounds: Vec<Vec<Measurement>> = (0..ROUNDS)
        .map(|_| {
            running
                .iter()
                .map(|contender| contender.drive(load, SECONDS))
                .collect()
        })
        .collect();
    thread::sleep(PAUSE);
    println!(
        "| | requests/s | of bare | p50 ms | p99 ms | CPU us/request | of bare | peak MB | failed | failed after a pause |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (index, (contender, running)) in contenders.iter().zip(&running).enumerate() {
        let median = |value: fn(&Measurement) -> f64| {
            measure::median(rounds.iter().map(|round| value(&round[index])))
        };
        let of_bare = |value: fn(&Measurement) -> f64| {
            measure::median(
                rounds
                    .iter()
                    .map(|round| value(&round[index]) / value(&round[0])),
            )
        };
        let failed: u64 = rounds.iter().map(|round| round[index].failed).sum();
        println!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} | {:.0} | {failed} | {} |",
            contender.name(),
            median(|round| round.per_second),
            of_bare(|round| round.per_second),
            median(|round| round.p50_ms),
            median(|round| round.p99_ms),
            median(|round| round.cpu_us),
            of_bare(|round| round.cpu_us),
            running.peak_mb(),
            running.drive(load, 1).failed,
        );
    }
    print_what_ten_keep(contenders, &rounds);
    print_what_stores_keep(contenders, &rounds);
    print_what_records_cost(contenders, &rounds);
}

/// How much CPU time an upload with its record takes, compared with a token of the same chain.
fn print_what_records_cost(contenders: &[Contender], rounds: &[Vec<Measurement>]) {
    let place = |wanted| contenders.iter().position(|contender| *contender == wanted);
    let (upload, token) = (
        place(Contender::GateUpload),
        place(Contender::GateWithQuota),
    );
    if let (Some(upload), Some(token)) = (upload, token) {
        let cost = |round: &Vec<Measurement>| round[upload].cpu_us / round[token].cpu_us;
        let cost = measure::median(rounds.iter().map(cost));
        println!(
            "\nan upload with its record takes {cost:.2} of the CPU time of a token with a quota"
        );
    }
}

/// How much of the throughput with four policies is left with ten: the median of the rounds.
fn print_what_ten_keep(contenders: &[Contender], rounds: &[Vec<Measurement>]) {
    let place = |wanted| contenders.iter().position(|contender| *contender == wanted);
    let (four, ten) = (
        place(Contender::GateWithQuota),
        place(Contender::GateWithTenPolicies),
    );
    if let (Some(four), Some(ten)) = (four, ten) {
        let kept = |round: &Vec<Measurement>| round[ten].per_second / round[four].per_second;
        let kept = measure::median(rounds.iter().map(kept));
        println!("\nten policies keep {kept:.2} of the throughput of four");
    }
}

/// How much of the throughput with memory and SQLite is left with stores that gates share.
fn print_what_stores_keep(contenders: &[Contender], rounds: &[Vec<Measurement>]) {
    let place = |wanted| contenders.iter().position(|contender| *contender == wanted);
    let Some(alone) = place(Contender::GateWithQuota) else {
        return;
    };
    for shared in [Contender::GateOnRedis, Contender::GateOnPostgres] {
        if let Some(index) = place(shared) {
            let kept = |round: &Vec<Measurement>| round[index].per_second / round[alone].per_second;
            let kept = measure::median(rounds.iter().map(kept));
            println!(
                "\n`{}` keeps {kept:.2} of the throughput of memory and SQLite",
                shared.name()
            );
        }
    }
}

/// Measures how many requests one Redis carries: what it does itself for a request, with the load that a gate brings.
fn ask_redis(folder: &Path) {
    let load = Load {
        delay_ms: 0,
        connections: 64,
    };
    let running = Contender::GateOnRedis.start(folder, load.delay_ms);
    running.drive(&load, SECONDS);
    let Some(engine) = &running.engine else {
        return;
    };
    let before = engine.cpu_us();
    let rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| running.drive(&load, SECONDS).per_second * SECONDS as f64)
        .collect();
    let requests: f64 = rounds.iter().sum();
    let cpu = (engine.cpu_us() - before) / requests;
    println!(
        "\none Redis takes {cpu:.1} us of CPU a request (a limit and a quota, two commands, one round trip): \
         {:.0} requests/s on a core of its own",
        1e6 / cpu
    );
}

/// Longer than the gate waits before it reads an upload for the first time.
const FOLLOWED_AFTER: u64 = 6;

/// Measures what following some 1,000 uploads per second adds to the latency of the requests that create them.
fn follow(folder: &Path) {
    // So many connections, each of which waits for the upstream, make about 1,000 requests per second.
    let load = Load {
        delay_ms: 20,
        connections: 22,
    };
    println!("\n## uploads that are followed, {ROUNDS} rounds of {SECONDS} s\n");
    println!("| | uploads/s | p50 ms | p99 ms |");
    println!("|---|---|---|---|");
    let contenders = [Contender::GateUpload, Contender::GateFollowing];
    let mut rounds = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            let running = contender.start(folder, load.delay_ms);
            running.drive(&load, FOLLOWED_AFTER);
            rounds.push(running.drive(&load, SECONDS));
        }
    }
    for (contender, rounds) in contenders.iter().zip(&rounds) {
        let median = |value: fn(&Measurement) -> f64| measure::median(rounds.iter().map(value));
        println!(
            "| {} | {:.0} | {:.2} | {:.2} |",
            contender.name(),
            median(|round| round.per_second),
            median(|round| round.p50_ms),
            median(|round| round.p99_ms),
        );
    }
    let [without, with] = &rounds;
    let added = without.iter().zip(with);
    let added = added.map(|(without, with)| with.p99_ms - without.p99_ms);
    println!(
        "\nfollowing adds {:.2} ms to the p99 of requests",
        measure::median(added)
    );
}

/// Measures what a flood of tokens with unknown keys does to everyone else: beside what the same flood does
/// when its tokens name the known key and are badly signed, which leads to no fetch.
fn flood(folder: &Path) {
    let load = Load {
        delay_ms: 0,
        connections: 64,
    };
    let running = Contender::GateWithPublishedKeys.start(folder, load.delay_ms);
    running.drive(&load, SECONDS);
    println!(
        "\n## {ROUNDS} rounds of {SECONDS} s beside a flood of 10,000 tokens over 4 connections\n"
    );
    println!("| the flood's tokens | requests/s | p50 ms | p99 ms | fetches of the keys |");
    println!("|---|---|---|---|---|");
    for (name, tokens) in [
        ("badly signed, of the known key", Tokens::Forged),
        ("of ten thousand unknown keys", Tokens::UnknownKeys),
    ] {
        let _flood = Flood::start(&tokens.script(folder), &running.url);
        let rounds: Vec<Measurement> = (0..ROUNDS).map(|_| running.drive(&load, SECONDS)).collect();
        let median = |value: fn(&Measurement) -> f64| measure::median(rounds.iter().map(value));
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} | {} |",
            median(|round| round.per_second),
            median(|round| round.p50_ms),
            median(|round| round.p99_ms),
            running.fetches(),
        );
    }
}
