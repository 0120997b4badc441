//! Explains decisions without a running gate.

use std::{pin::pin, sync::Arc};

use futures_util::future::{Either, select};
use policies::{BuildError, Clock};

use super::{build::RulesBuilder, settings::Settings};
use crate::{
    gate::{
        explain::{DescribedRequest, UnknownRoute, explain},
        rules::Rules,
    },
    http::management::explain::Explanation,
    outbound::tls_config,
};

/// A gate without listeners. It opens stores read-only, so that a running gate with the same config is not affected.
pub struct Inspector {
    rules: Rules,
    clock: Arc<dyn Clock>,
}

impl Inspector {
    /// With `with_counters`, quotas see the counters of their stores; otherwise all counters are empty.
    pub fn new(
        settings: &Settings,
        with_counters: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let tls = tls_config(&settings.authorities);
        let rules =
            RulesBuilder::new(settings, &tls, &clock).build_read_only(settings, with_counters)?;
        Ok(Self { rules, clock })
    }

    /// Explains a request. Fetches the keys of issuers if needed.
    pub async fn explain(&self, described: DescribedRequest) -> Result<Explanation, UnknownRoute> {
        let explanation = pin!(explain(&self.rules, &*self.clock, described));
        let key_refresh = pin!(self.rules.identities.refresh_keys());
        let explained = match select(explanation, key_refresh).await {
            Either::Left((explained, _)) => explained,
            // No issuer publishes keys.
            Either::Right(((), explanation)) => explanation.await,
        };
        explained.map(Explanation::from)
    }
}
