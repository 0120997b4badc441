//! The gate with the policies that it has itself.

use std::process::ExitCode;

use imgwire_gate::{commands, startup::Application};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    commands::run(Application::builder())
}
