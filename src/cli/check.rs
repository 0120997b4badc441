//! `imgwire-gate check`

use policies::Mode;

use crate::{
    http::error::status_of,
    server::settings::{PolicySettings, Settings},
};

use super::{Config, Failure, print};

/// Prints the chain of each route, and warnings.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    let settings = config.load()?;
    print(describe_chains(&settings).trim_end())?;
    for warning in settings.warnings.lines() {
        print(&format!("warning: {warning}"))?;
    }
    Ok(())
}

/// Draws the chain of each route: its policies in order, what each requires, and the status with which it denies.
#[must_use]
pub fn describe_chains(settings: &Settings) -> String {
    let mut text = String::new();
    for route in &settings.routes {
        let purpose = route.purpose.as_ref();
        let purpose = purpose.map_or_else(String::new, |purpose| format!(" (purpose: {purpose})"));
        text.push_str(&format!("POST {}{purpose}\n", route.path));
        for (index, name) in route.policies.iter().enumerate() {
            let Some(PolicySettings {
                common,
                kind,
                requirements,
                ..
            }) = settings.policy(name)
            else {
                continue;
            };
            let when = match &common.when {
                None => String::new(),
                Some(when) => format!(", when {when}"),
            };
            let (observed, refuses) = match common.mode {
                Mode::Enforce => {
                    let status = status_of(requirements.denies_with).as_u16();
                    ("", format!("; else {status}"))
                }
                Mode::Observe => (", observe only", String::new()),
            };
            text.push_str(&format!(
                "  │ {}. {name} ({}{observed}{when}): {}{refuses}\n",
                index + 1,
                kind.kind(),
                kind.describe(),
            ));
        }
        text.push_str("  ╰ 200 with an upload token\n");
    }
    text
}
