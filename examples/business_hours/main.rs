//! A gate with a policy of one's own: the whole command line of `imgwire-gate`, and `kind = "business_hours"` in
//! its config.
//!
//! `cargo run --example business_hours -- check --config examples/business_hours/gate.toml`

mod policy;

use std::process::ExitCode;

use imgwire_gate::{cli, server::Application};
use policy::BusinessHours;

fn main() -> ExitCode {
    cli::run(Application::builder().policy_kind::<BusinessHours>())
}
