//! The command line.

mod commands;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Issues Imgwire upload tokens to those whom your policies let upload.
#[derive(Parser)]
#[command(name = "imgwire-gate", version)]
struct Arguments {
    /// The config file; default: config/default.toml, then /etc/imgwire-gate/config.toml
    #[arg(long, global = true, env = "IMGWIRE_GATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gate (this is what happens without a command)
    Serve,
    /// Check the config file: print each route's chain, or every fault
    Check,
    /// Run the gate with an emulated Imgwire and a demo user: no account, no network
    Sandbox,
    /// Ask the running gate whether it is ready
    Health,
    /// Print the JSON Schema of the config file
    Schema,
}

fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    let done = match command.unwrap_or(Command::Serve) {
        Command::Serve => commands::serve(config),
        Command::Check => commands::check(config),
        Command::Sandbox => commands::sandbox(),
        Command::Health => commands::health(config),
        Command::Schema => commands::schema(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
