//! `imgwire-gate check`

use crate::settings::Settings;
use policies::settings::Mode;

use super::{Config, Failure, print};

/// Checks the config file and prints each route's chain.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    print(describe(&config.load()?).trim_end())
}

fn describe(settings: &Settings) -> String {
    let mut text = String::new();
    for route in &settings.routes {
        let purpose = route.purpose.as_ref();
        let purpose = purpose.map_or_else(String::new, |purpose| format!(" (purpose: {purpose})"));
        text.push_str(&format!("POST {}{purpose}\n", route.path));
        for (index, name) in route.policies.iter().enumerate() {
            let policy = settings.policies.iter().find(|(other, ..)| other == name);
            let Some((_, common, kind)) = policy else {
                continue;
            };
            let observed = match common.mode {
                Mode::Enforce => "",
                Mode::Observe => ", observed only",
            };
            let when = match &common.when {
                None => String::new(),
                Some(when) => format!(", when {when}"),
            };
            text.push_str(&format!(
                "  {}. {name} ({}{observed}{when})\n",
                index + 1,
                kind.name()
            ));
        }
    }
    text
}
