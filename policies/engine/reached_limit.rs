//! A limit that denied a request, for the log.

use std::time::Duration;

use crate::WindowUnit;

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
    let unit = units
        .into_iter()
        .find(|(length, _)| seconds.is_multiple_of(*length));
    let (length, name) = unit.unwrap_or((1, 's'));
    format!("{}{name}", seconds / length)
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
}
