//! A gate without listeners that only explains decisions.

use std::{pin::pin, sync::Arc};

use futures_util::future::{Either, select};
use policies::{BuildError, Clock};

use super::{build::Foundation, settings::Settings};
use crate::{
    gate::{
        explain::{DescribedRequest, UnknownRoute, explain},
        rules::Rules,
    },
    http::explanation::Explanation,
    outbound::tls_config,
};

/// Opens stores read-only, so that a gate that runs with the same config is not disturbed.
pub struct Inspector {
    rules: Rules,
    clock: Arc<dyn Clock>,
}

impl Inspector {
    /// With `counted`, quotas show what their stores hold; otherwise all counters are empty.
    pub fn new(
        settings: &Settings,
        counted: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let tls = tls_config(&settings.authorities);
        let rules = Foundation::new(settings, &tls, &clock).look(settings, counted)?;
        Ok(Self { rules, clock })
    }

    /// Fetches keys of issuers if needed.
    pub async fn explain(&self, described: DescribedRequest) -> Result<Explanation, UnknownRoute> {
        let explaining = pin!(explain(&self.rules, &*self.clock, described));
        let keeping_keys = pin!(self.rules.identities.refresh_keys());
        let explained = match select(explaining, keeping_keys).await {
            Either::Left((explained, _)) => explained,
            // No issuer publishes keys.
            Either::Right(((), explaining)) => explaining.await,
        };
        explained.map(Explanation::from)
    }
}
