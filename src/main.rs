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
    /// Print what each policy says to a described request; nothing is consumed
    Explain {
        /// The request as JSON: route, subject {id, claims} or token, workspace, purpose, file, ip
        #[arg(long, value_name = "FILE.json")]
        request: PathBuf,
    },
    /// Run a table of described requests and expected outcomes; nothing is consumed
    Test {
        /// The table as TOML: [[cases]] with name, expect ("allow" or a code), and a request as in `explain`
        #[arg(value_name = "CASES.toml")]
        cases: PathBuf,
    },
}

fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    let done = match command.unwrap_or(Command::Serve) {
        Command::Serve => commands::serve(config),
        Command::Check => commands::check(config),
        Command::Sandbox => commands::sandbox(),
        Command::Health => commands::health(config),
        Command::Schema => commands::schema(),
        Command::Explain { request } => commands::explain(config, &request),
        Command::Test { cases } => commands::test(config, &cases),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
