//! Why a request is denied, and the stable code of each reason.

use std::time::Duration;

use crate::IdentityName;

/// A denial of a policy. `Display` is the reason for the log; only the [code](Denial::code) reaches the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// No credential at all.
    #[error("no credential was presented")]
    NotSignedIn,
    /// A bad credential, or one that addresses no accepted identity.
    #[error("{0}")]
    InvalidCredentials(String),
    /// An expired credential.
    #[error("the credential has expired")]
    CredentialsExpired,
    /// A credential that a browser sent by itself, from a page of another site.
    #[error("the request comes from a foreign site: {0}")]
    CrossSite(String),
    /// The denial of the identity that judged the credential.
    #[error("identity `{identity}`: {}", in_words(denial))]
    Identity {
        /// The identity.
        identity: IdentityName,
        /// Why it denies.
        denial: Box<Denial>,
    },
    /// No workspace was named, and the subject does not have exactly one.
    #[error("no workspace was named, and the subject does not have exactly one")]
    WorkspaceRequired,
    /// Unknown workspace, not a member, or role too low: clients cannot distinguish them.
    #[error("{0}")]
    WorkspaceForbidden(String),
    /// The purpose of the upload is not allowed here.
    #[error("{0}")]
    PurposeForbidden(String),
    /// The client did not declare something of its file that a policy requires.
    #[error("{0} was not declared")]
    FileRequired(&'static str),
    /// The declared type of the file is not allowed.
    #[error("{0}")]
    FileTypeForbidden(String),
    /// The declared size of the file is not allowed.
    #[error("the file has {declared} bytes, {most} are allowed")]
    FileTooLarge {
        /// The size, in bytes.
        declared: u64,
        /// The largest that is allowed.
        most: u64,
    },
    /// A rule of the app denies.
    #[error("{0}")]
    RuleForbidden(String),
    /// A rate limit is hit.
    #[error("the rate limit is hit")]
    RateLimited {
        /// How long until a next attempt can pass.
        retry_after: Duration,
    },
    /// A limit of `[server]` is reached, which applies regardless of policies.
    #[error("[server] {key}: the limit is reached")]
    ServerLimited {
        /// The limit's key.
        key: &'static str,
        /// How long until a next attempt can pass.
        retry_after: Duration,
    },
    /// A quota is used up.
    #[error("the quota is used up")]
    QuotaExhausted {
        /// How long until the next window.
        retry_after: Duration,
    },
}

fn in_words(denial: &Denial) -> String {
    match denial {
        Denial::NotSignedIn => "it knows no user with this credential".to_owned(),
        denial => denial.to_string(),
    }
}

/// The class of a denial. The service chooses the status of its response by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenialClass {
    /// The client is not signed in.
    Unauthenticated,
    /// The client is not allowed to do this.
    #[default]
    Forbidden,
    /// The client has reached a limit, and may try again later.
    Limited,
}

impl Denial {
    /// The stable code that clients see, for example `quota_exhausted`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.describe().0
    }

    /// The class of the denial.
    #[must_use]
    pub fn class(&self) -> DenialClass {
        self.describe().1
    }

    /// How long the client should wait before it tries again. `None` unless the class is [`DenialClass::Limited`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Identity { denial, .. } => denial.retry_after(),
            Self::RateLimited { retry_after }
            | Self::ServerLimited { retry_after, .. }
            | Self::QuotaExhausted { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    fn describe(&self) -> (&'static str, DenialClass) {
        use DenialClass::{Forbidden, Limited, Unauthenticated};

        match self {
            Self::Identity { denial, .. } => denial.describe(),
            Self::NotSignedIn => ("not_signed_in", Unauthenticated),
            Self::InvalidCredentials(_) => ("invalid_credentials", Unauthenticated),
            Self::CredentialsExpired => ("credentials_expired", Unauthenticated),
            Self::CrossSite(_) => ("cross_site", Forbidden),
            Self::WorkspaceRequired => ("workspace_required", Forbidden),
            Self::WorkspaceForbidden(_) => ("workspace_forbidden", Forbidden),
            Self::PurposeForbidden(_) => ("purpose_forbidden", Forbidden),
            Self::FileRequired(_) => ("file_required", Forbidden),
            Self::FileTypeForbidden(_) => ("file_type_forbidden", Forbidden),
            Self::FileTooLarge { .. } => ("file_too_large", Forbidden),
            Self::RuleForbidden(_) => ("rule_forbidden", Forbidden),
            Self::RateLimited { .. } | Self::ServerLimited { .. } => ("rate_limited", Limited),
            Self::QuotaExhausted { .. } => ("quota_exhausted", Limited),
        }
    }

    /// The identity that judged the credential, if any.
    #[must_use]
    pub fn identity(&self) -> Option<&IdentityName> {
        match self {
            Self::Identity { identity, .. } => Some(identity),
            _ => None,
        }
    }

    /// Whether a limit of `[server]` rejected the request before it was judged.
    #[must_use]
    pub fn is_of_server(&self) -> bool {
        match self {
            Self::Identity { denial, .. } => denial.is_of_server(),
            denial => matches!(denial, Self::ServerLimited { .. }),
        }
    }
}
