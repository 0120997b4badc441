//! A limit that denied a request, for the log.

use std::{net::IpAddr, time::Duration};

use crate::{Dimension, Facts, Per, UploadRequest, WindowUnit, engine::counter::network};

/// A limit that is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachedLimit {
    /// The number of units per window.
    pub limit: u64,
    /// The number of units that may come at once, if it is another number than `limit`.
    pub burst: Option<u64>,
    /// The window, as the config writes it: `1m` or `day`.
    pub window: String,
    /// The counter that is used up, by what it counts, for example `user=user_1,workspace=ws_1`. `all` if it counts all
    /// requests together.
    pub key: String,
}

impl ReachedLimit {
    /// A rate limit.
    #[must_use]
    pub fn rate(limit: u32, burst: u32, period: Duration, key: String) -> Box<Self> {
        Box::new(Self {
            limit: limit.into(),
            burst: (burst != limit).then(|| burst.into()),
            window: period_text(period),
            key,
        })
    }

    /// A quota.
    #[must_use]
    pub fn quota(limit: u64, window: WindowUnit, key: String) -> Box<Self> {
        Box::new(Self {
            limit,
            burst: None,
            window: window.name().to_owned(),
            key,
        })
    }
}

/// The largest unit of which the period is a whole number.
fn period_text(period: Duration) -> String {
    let seconds = period.as_secs();
    if period.subsec_nanos() > 0 || seconds == 0 {
        return format!("{}ms", period.as_millis());
    }
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(length, _)| seconds % length == 0);
    let (length, name) = unit.unwrap_or((1, 's'));
    format!("{}{name}", seconds / length)
}

impl Per {
    /// Names the counter of a request by its dimensions, for the log. The values are those of [`Per::key`].
    pub(crate) fn describe_key(&self, request: &UploadRequest, facts: &Facts) -> String {
        let subject = facts.subject.as_ref().map(|subject| subject.id.as_str());
        let user = |id: Option<&str>| named("user", id.unwrap_or_default());
        let parts = self.dimensions().iter().map(|dimension| match dimension {
            Dimension::User => user(subject),
            Dimension::Workspace => match (&facts.membership, subject) {
                (Some(membership), _) => named("workspace", membership.workspace.as_str()),
                (None, Some(subject)) => user(Some(subject)),
                (None, None) => address_key(request.ip),
            },
            Dimension::Ip => address_key(request.ip),
            Dimension::Purpose => {
                let purpose = request.purpose.as_ref().map(|purpose| purpose.as_str());
                named("purpose", purpose.unwrap_or_default())
            }
            Dimension::Route => named("route", request.route.as_str()),
        });
        let parts: Vec<_> = parts.collect();
        match parts.is_empty() {
            true => "all".to_owned(),
            false => parts.join(","),
        }
    }
}

/// Ids have at most 255 bytes, and no control characters.
fn named(dimension: &str, value: &str) -> String {
    format!("{dimension}={}", value.replace(',', "%2C"))
}

fn address_key(ip: IpAddr) -> String {
    match network(ip) {
        IpAddr::V6(network) => format!("ip={network}/64"),
        ip => format!("ip={ip}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_written_as_in_the_config() {
        for (millis, text) in [
            (1, "1ms"),
            (1500, "1500ms"),
            (1000, "1s"),
            (90_000, "90s"),
            (60_000, "1m"),
            (7_200_000, "2h"),
            (86_400_000, "1d"),
        ] {
            assert_eq!(period_text(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn an_address_is_named_as_limits_count_it() {
        let key = |ip: &str| address_key(ip.parse().expect("the text is an address"));
        assert_eq!(key("192.0.2.1"), "ip=192.0.2.1");
        assert_eq!(key("2001:db8::1:2"), "ip=2001:db8::/64");
    }
}
