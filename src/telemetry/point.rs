//! What `doctor` and the audit of a running gate report about one part of the config.

use jiff::SignedDuration;
use serde::Serialize;

/// A clock that differs by this much is a warning. Tokens with short lifetimes and windows of limits are then judged
/// slightly wrong.
const CLOCK_WARNING: SignedDuration = SignedDuration::from_secs(2);

/// A clock that differs by this much fails. Valid tokens are then rejected, or expired ones accepted.
const CLOCK_FAILURE: SignedDuration = SignedDuration::from_secs(60);

/// One part of the config that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// For example `stores.main`.
    pub part: String,
    pub state: PointState,
    /// Never shows a secret.
    pub message: String,
    /// What to change, in the words of the config file or of Imgwire's dashboard. Only a point that is ok has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum PointState {
    #[serde(rename = "ok")]
    Ok,
    /// It works, but not as it should.
    #[serde(rename = "warning")]
    Warning,
    #[serde(rename = "failed")]
    Failed,
    /// It was tried, and the result does not tell.
    #[serde(rename = "unknown")]
    Unknown,
    #[serde(rename = "not tried")]
    NotTried,
}

impl PointState {
    pub const ALL: [Self; 5] = [
        Self::Ok,
        Self::Warning,
        Self::Failed,
        Self::Unknown,
        Self::NotTried,
    ];

    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::NotTried => "not tried",
        }
    }
}

impl Point {
    #[must_use]
    pub fn ok(part: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            state: PointState::Ok,
            message: message.into(),
            remedy: None,
        }
    }

    #[must_use]
    pub fn warning(
        part: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::with_remedy(part, PointState::Warning, message, remedy)
    }

    #[must_use]
    pub fn failed(
        part: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::with_remedy(part, PointState::Failed, message, remedy)
    }

    #[must_use]
    pub fn unknown(
        part: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::with_remedy(part, PointState::Unknown, message, remedy)
    }

    #[must_use]
    pub fn not_tried(
        part: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::with_remedy(part, PointState::NotTried, message, remedy)
    }

    fn with_remedy(
        part: impl Into<String>,
        state: PointState,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            state,
            remedy: Some(remedy.into()),
            ..Self::ok(part, message)
        }
    }

    /// Compares a clock with ours. `ahead` is how far it is ahead.
    #[must_use]
    pub fn clock(part: impl Into<String>, ahead: SignedDuration) -> Self {
        let off = ahead.abs();
        if off < CLOCK_WARNING {
            return Self::ok(part, "the clocks agree within 2 seconds");
        }
        let direction = if ahead.is_positive() {
            "behind"
        } else {
            "ahead of"
        };
        let seconds = off.as_secs();
        let message = format!("the clock of this machine is {seconds} seconds {direction} it");
        let remedy = "synchronize the clock of this machine by NTP; if it is right, tell the operator of the other one";
        if off < CLOCK_FAILURE {
            Self::warning(part, message, remedy)
        } else {
            Self::failed(part, message, remedy)
        }
    }

    /// Puts the part below `section`. An empty part becomes the section itself.
    #[must_use]
    pub fn within(self, section: &str) -> Self {
        let part = match self.part.as_str() {
            "" => section.to_owned(),
            part => format!("{section}.{part}"),
        };
        Self { part, ..self }
    }

    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.state == PointState::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_two_seconds() {
        for (millis, state) in [
            (0, PointState::Ok),
            (-1999, PointState::Ok),
            (2000, PointState::Warning),
            (-59_999, PointState::Warning),
            (-60_000, PointState::Failed),
            (600_000, PointState::Failed),
        ] {
            let point = Point::clock("clock", SignedDuration::from_millis(millis));
            assert_eq!(point.state, state, "{millis}");
            assert_eq!(point.remedy.is_none(), state == PointState::Ok);
        }
    }

    #[test]
    fn the_clock_that_is_late_is_named() {
        let ahead = SignedDuration::from_mins(10);
        let message = "the clock of this machine is 600 seconds behind it";
        assert_eq!(Point::clock("clock", ahead).message, message);
        let message = "the clock of this machine is 600 seconds ahead of it";
        assert_eq!(Point::clock("clock", -ahead).message, message);
    }
}
