//! The state in which Imgwire refuses every request of the gate until the operator acts.

use std::fmt;

use parking_lot::Mutex;

use super::error_body::ErrorKind;

/// Why Imgwire refuses requests. No retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    KeyRefused,
    NotAuthorized,
    NotAllowed,
    PaymentRequired,
    NotFound,
    InvalidRequest,
    WrongBaseUrl,
}

impl Refusal {
    pub const ALL: [Self; 7] = [
        Self::KeyRefused,
        Self::NotAuthorized,
        Self::NotAllowed,
        Self::PaymentRequired,
        Self::NotFound,
        Self::InvalidRequest,
        Self::WrongBaseUrl,
    ];

    /// Classifies a response that is not 200: first by its error type, because Imgwire documents few statuses. Returns
    /// `None` if a retry may help.
    pub(super) fn classify(status: u16, kind: Option<ErrorKind>) -> Option<Self> {
        Some(match (kind, status) {
            (Some(ErrorKind::InvalidToken), _) => Self::KeyRefused,
            (Some(ErrorKind::ResourceNotAuthorized), _) => Self::NotAuthorized,
            (Some(ErrorKind::OperationNotAllowed), _) => Self::NotAllowed,
            (Some(ErrorKind::PaymentRequired), _) => Self::PaymentRequired,
            (Some(ErrorKind::ResourceNotFound), _) => Self::NotFound,
            (Some(ErrorKind::Validation), _) => Self::InvalidRequest,
            (Some(ErrorKind::Other) | None, status) => match status {
                408 | 429 | 500..=599 => return None,
                401 => Self::KeyRefused,
                402 => Self::PaymentRequired,
                403 => Self::NotAllowed,
                404 => Self::NotFound,
                // A web server that does not know the path usually answers a POST with 405.
                405 => Self::WrongBaseUrl,
                400..=499 => Self::InvalidRequest,
                // A redirect, or a success without a token.
                _ => Self::WrongBaseUrl,
            },
        })
    }

    /// Whether Imgwire refuses every call for this reason, whatever it asks for.
    pub(super) fn concerns_all_calls(self) -> bool {
        match self {
            Self::KeyRefused | Self::WrongBaseUrl => true,
            Self::NotAuthorized
            | Self::NotAllowed
            | Self::PaymentRequired
            | Self::NotFound
            | Self::InvalidRequest => false,
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyRefused => "key_refused",
            Self::NotAuthorized => "not_authorized",
            Self::NotAllowed => "not_allowed",
            Self::PaymentRequired => "payment_required",
            Self::NotFound => "not_found",
            Self::InvalidRequest => "invalid_request",
            Self::WrongBaseUrl => "wrong_base_url",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyRefused => "Imgwire refuses the Server API Key",
            Self::NotAuthorized => "Imgwire denies the Server API Key access to the environment",
            Self::NotAllowed => "Imgwire does not allow the Server API Key to create upload tokens",
            Self::PaymentRequired => "Imgwire requires payment: plan, subscription or capacity",
            Self::NotFound => "Imgwire does not find the path or the environment",
            Self::InvalidRequest => "Imgwire rejects the gate's request as invalid",
            Self::WrongBaseUrl => "the base URL does not lead to Imgwire's API",
        })
    }
}

/// Whether Imgwire refuses the gate's requests. Shared by all workers.
#[derive(Default)]
pub struct RefusalState(Mutex<Seen>);

/// The state when an attempt began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    refusal: Option<Refusal>,
    changes: u64,
}

impl Seen {
    pub(super) fn refusal(self) -> Option<Refusal> {
        self.refusal
    }
}

/// A change of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The state began, or has another reason.
    Refuses(Refusal),
    /// The state ended.
    Accepts,
}

impl RefusalState {
    #[must_use]
    pub fn current(&self) -> Option<Refusal> {
        self.0.lock().refusal
    }

    /// Must be called when an attempt begins.
    pub(super) fn see(&self) -> Seen {
        *self.0.lock()
    }

    /// Ends the state, and ignores the results of the attempts that have begun.
    pub(super) fn forget(&self) {
        let mut state = self.0.lock();
        *state = Seen {
            refusal: None,
            changes: state.changes + 1,
        };
    }

    /// Records that Imgwire refused an attempt, or accepted it. The result counts only if the state has not changed since
    /// the attempt began: a late result of an old attempt neither ends a state nor begins it again, and of concurrent
    /// attempts one changes the state.
    #[must_use]
    pub(super) fn record(&self, seen: Seen, refusal: Option<Refusal>) -> Option<Change> {
        if seen.refusal == refusal {
            return None;
        }
        let mut state = self.0.lock();
        if *state != seen {
            return None;
        }
        *state = Seen {
            refusal,
            changes: seen.changes + 1,
        };
        Some(refusal.map_or(Change::Accepts, Change::Refuses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_result_of_an_old_attempt_does_not_change_the_state() {
        let state = RefusalState::default();
        let (first, second, third) = (state.see(), state.see(), state.see());
        let refused = Some(Refusal::KeyRefused);
        assert_eq!(state.record(first, None), None);
        let begins = Some(Change::Refuses(Refusal::KeyRefused));
        assert_eq!(state.record(second, refused), begins);
        // The third began before the refusal, and was accepted before it.
        assert_eq!(state.record(third, None), None);
        assert_eq!(state.record(first, refused), None);
        assert_eq!(state.current(), refused);

        let (during, also_during) = (state.see(), state.see());
        assert_eq!(state.record(during, refused), None);
        assert_eq!(state.record(during, None), Some(Change::Accepts));
        // This one was refused before Imgwire accepted the other.
        let payment = Some(Refusal::PaymentRequired);
        assert_eq!(state.record(also_during, payment), None);
        assert_eq!(state.record(also_during, refused), None);
        assert_eq!(state.current(), None);

        assert_eq!(state.record(state.see(), refused), begins);
        let changes = Some(Change::Refuses(Refusal::PaymentRequired));
        assert_eq!(state.record(state.see(), payment), changes);
        assert_eq!(state.record(state.see(), None), Some(Change::Accepts));
    }
}
