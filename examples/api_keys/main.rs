//! A gate with an identity kind of its own: the whole command line of `imgwire-gate`, and `kind = "api_keys"` in its
//! config.
//!
//! `cargo run --example api_keys -- check --config examples/api_keys/gate.toml`

mod identity;

use std::process::ExitCode;

use identity::ApiKeys;
use imgwire_gate::{cli, server::Application};

fn main() -> ExitCode {
    cli::run(Application::builder().identity_kind::<ApiKeys>())
}
