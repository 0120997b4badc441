//! Tries a published key set, for `doctor`.

use jiff::{SignedDuration, Timestamp};

use super::{
    jwk::KeyTypes,
    key_set::{KeySet, SkippedKeys},
    location::{ACCEPT_KEYS, ACCEPT_METADATA, Discovered, Location, discovery_url},
    published::PublishedKeys,
};
use crate::{config::ServiceUrl, outbound::clock_skew, telemetry::Point};

/// How many keys that the gate does not use are named.
const MAX_NAMED: usize = 5;

/// A key set as it was fetched.
struct Fetched {
    set: KeySet,
    /// How far the issuer's clock is ahead.
    skew: Option<SignedDuration>,
}

impl PublishedKeys {
    /// Fetches the set once, without using its keys. `issuer` is the one in the config. The parts of the points are below
    /// the identity's section.
    pub(in crate::identities) async fn try_out(&self, issuer: Option<&str>) -> Vec<Point> {
        let url = match self.source.locate().await {
            Ok(url) => url,
            Err(error) => return vec![Point::failed("", error, self.remedy())],
        };
        let Fetched { set, skew } = match self.fetch(&url, None).await {
            Ok(fetched) => fetched,
            Err(error) => return vec![Point::failed("", error, self.remedy())],
        };
        let keys = if let Some(other) = self.other_issuer(&url, &set, issuer).await {
            other
        } else if set.is_empty() {
            let message = format!(
                "no usable key at {url}{}",
                name_skipped(set.skipped()),
                url = url.as_str()
            );
            let remedy = "add the algorithms of the issuer's keys to `algorithms`, or correct the URL of the keys";
            Point::failed("", message, remedy)
        } else {
            let count = match set.len() {
                1 => "one usable key".to_owned(),
                keys => format!("{keys} usable keys"),
            };
            Point::ok("", count + &name_skipped(set.skipped()))
        };
        vec![keys, issuer_clock(skew)]
    }

    fn remedy(&self) -> &'static str {
        match self.source.location() {
            Location::Jwks(_) => {
                "correct `jwks_url`; if it is right, check the network to it and `[outbound] ca`"
            }
            Location::Discovery { .. } => {
                "write `issuer` exactly as the discovery document has it, or correct `discovery`; if it is right, check the network to \
                 it and `[outbound] ca`"
            }
        }
    }

    /// Fetches a set. Its keys that are also in `before` stay the same.
    async fn fetch(&self, url: &ServiceUrl, before: Option<&KeySet>) -> Result<Fetched, String> {
        let sent: Timestamp = self.clock.now();
        let (text, headers) = self.source.get(url.as_str(), ACCEPT_KEYS).await?;
        let skew = clock_skew(&headers, sent, self.clock.now());
        let parsed = KeySet::parse(&text, &self.algorithms, KeyTypes::Public, before);
        let set = parsed.map_err(|reason| format!("{}: the response {reason}", url.as_str()))?;
        Ok(Fetched { set, skew })
    }

    /// Finds out whether the set at `jwks_url` belongs to another issuer: the configured issuer has a discovery document
    /// of its own, and the set in it shares no key with this one. If the issuer has no such document, nothing is known.
    async fn other_issuer(
        &self,
        url: &ServiceUrl,
        set: &KeySet,
        issuer: Option<&str>,
    ) -> Option<Point> {
        let Location::Jwks(_) = self.source.location() else {
            return None;
        };
        let issuer = issuer?;
        let is_private = |url: &ServiceUrl| url.is_private();
        ServiceUrl::try_from(issuer.to_owned())
            .ok()
            .filter(is_private)?;
        let (text, _) = self
            .source
            .get(&discovery_url(issuer), ACCEPT_METADATA)
            .await
            .ok()?;
        let Discovered {
            issuer: named,
            jwks_uri,
        } = Discovered::parse(&text).ok()?;
        if named != issuer || !jwks_uri.is_private() || jwks_uri == *url {
            return None;
        }
        let theirs = self.fetch(&jwks_uri, Some(set)).await.ok()?.set;
        if theirs.is_empty() || theirs.shares_a_key_with(set) {
            return None;
        }
        let (url, jwks_uri) = (url.as_str(), jwks_uri.as_str());
        Some(Point::failed(
            "",
            format!(
                "the keys at {url} belong to another issuer: `{issuer}` publishes its keys at {jwks_uri}"
            ),
            format!(
                "write jwks_url = \"{jwks_uri}\" or discovery = true; or correct `issuer`, if `jwks_url` is right"
            ),
        ))
    }
}

fn name_skipped(skipped: &SkippedKeys) -> String {
    if skipped.count == 0 {
        return String::new();
    }
    let named = skipped.reported.iter().take(MAX_NAMED).map(|key| {
        let kid = key.kid.as_deref().unwrap_or("without `kid`");
        format!("{kid} ({})", key.reason)
    });
    let named: Vec<_> = named.collect();
    let more = if skipped.count > MAX_NAMED {
        ", ..."
    } else {
        ""
    };
    format!("; unusable: {}{more}", named.join(", "))
}

/// The point of an issuer's clock.
pub(in crate::identities) fn issuer_clock(skew: Option<SignedDuration>) -> Point {
    match skew {
        Some(skew) => Point::clock("clock", skew),
        None => Point::unknown(
            "clock",
            "the issuer's response has no `Date`",
            "compare the issuer's clock with this machine's, which must agree within seconds",
        ),
    }
}
