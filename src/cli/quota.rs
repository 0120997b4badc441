//! `imgwire-gate quota`

use actix_web::http::Method;
use clap::Subcommand;
use serde::Deserialize;

use super::{
    Config, Failure,
    management::{self, aligned, encoded, plain},
    print,
};

#[derive(Subcommand)]
pub(super) enum Quota {
    /// Print how many units are used under a key
    Show(Counter),
    /// Reset the usage under a key to zero
    GiveBack(Counter),
}

#[derive(clap::Args)]
pub(super) struct Counter {
    /// The name of the policy, as in [policies.NAME]
    policy: String,

    /// The values of `per`, joined by `/`, for example ws_1/user_1
    #[arg(long)]
    key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    policy: String,
    key: String,
    used: u64,
    window_start: String,
    resets_at: String,
}

pub(super) fn quota(config: &Config, command: &Quota) -> Result<(), Failure> {
    let (Quota::Show(counter) | Quota::GiveBack(counter)) = command;
    let path = format!(
        "/quota/{}?key={}",
        encoded(&counter.policy),
        encoded(&counter.key)
    );
    management::run(config, async |client| match command {
        Quota::Show(_) => {
            let usage: Usage = client.json(Method::GET, &path).await?;
            let rows = [
                ("policy", plain(&usage.policy)),
                ("key", plain(&usage.key)),
                ("used", usage.used.to_string()),
                ("window start", plain(&usage.window_start)),
                ("resets at", plain(&usage.resets_at)),
            ];
            print(&aligned(
                &rows.map(|(name, value)| [name.to_owned(), value]),
            ))
        }
        Quota::GiveBack(Counter { policy, key }) => {
            client.request(Method::DELETE, &path).await?;
            print(&format!("{policy}: the usage under {key} is zero"))
        }
    })
}
