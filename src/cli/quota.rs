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
    /// Print how many units are used, or how much storage is held, under a key
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
#[serde(untagged)]
enum Usage {
    #[serde(rename_all = "camelCase")]
    Quota {
        used: u64,
        window_start: String,
        resets_at: String,
    },
    Storage {
        bytes: u64,
        images: u64,
        open: u64,
    },
}

impl Usage {
    fn rows(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Quota {
                used,
                window_start,
                resets_at,
            } => vec![
                ("used", used.to_string()),
                ("window start", plain(&window_start)),
                ("resets at", plain(&resets_at)),
            ],
            Self::Storage {
                bytes,
                images,
                open,
            } => vec![
                ("bytes", bytes.to_string()),
                ("images", images.to_string()),
                ("open", open.to_string()),
            ],
        }
    }
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
            let counter = [("policy", &counter.policy), ("key", &counter.key)];
            let counter = counter.map(|(name, value)| (name, plain(value)));
            let rows = counter.into_iter().chain(usage.rows());
            let rows: Vec<_> = rows.map(|(name, value)| [name.to_owned(), value]).collect();
            print(&aligned(&rows))
        }
        Quota::GiveBack(Counter { policy, key }) => {
            client.request(Method::DELETE, &path).await?;
            print(&format!("{policy}: the usage under {key} is zero"))
        }
    })
}
