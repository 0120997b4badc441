//! The gate with its built-in policies.

use std::process::ExitCode;

use imgwire_gate::{cli, server::Application};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(Application::builder())
}
