//! Denials: why a request is denied, and the stable code of each reason.

use std::{collections::BTreeSet, time::Duration};

use strum::{IntoStaticStr, VariantNames};

use crate::{IdentityName, StorageFull, engine::reached_limit::ReachedLimit};

/// The denial of a request. `Display` is the reason for the log. Only the [code](Denial::code) is sent to the client:
/// the name of the variant in snake case, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr, VariantNames, thiserror::Error)]
#[strum(serialize_all = "snake_case")]
pub enum Denial {
    /// The request has no credential.
    #[error("the request has no credential")]
    NotSignedIn,
    /// The service that knows the users says that the credential belongs to none.
    #[error("{0}")]
    #[strum(serialize = "not_signed_in")]
    SignedOut(String),
    /// A credential is invalid, or belongs to no accepted identity.
    #[error("{0}")]
    InvalidCredentials(String),
    /// The credential expired this long ago.
    #[error("the credential expired {}", ago(*_0))]
    CredentialsExpired(Duration),
    /// A browser sent the credential by itself, from a page of another site.
    #[error("the request comes from another site: {0}")]
    CrossSite(String),
    /// The identity that checked the credential denied it, or the credential is for none of the accepted identities.
    #[error("{}{}", identity.as_ref().map(|name| format!("identity `{name}`: ")).unwrap_or_default(), in_words(denial))]
    #[strum(serialize = "invalid_credentials")]
    Identity {
        /// The name of the identity, if the credential is for one.
        identity: Option<IdentityName>,
        /// Why the credential was denied.
        denial: Box<Denial>,
        /// What a denied JWT says about itself.
        token: Option<Box<TokenOrigin>>,
    },
    /// The request names no workspace, and the text says why the user's only one is unknown.
    #[error("the request names no workspace, and {0}")]
    WorkspaceRequired(String),
    /// The workspace is unknown, the user is not a member, or the role is not allowed. Clients cannot distinguish them.
    #[error("{0}")]
    WorkspaceForbidden(String),
    /// The declared purpose of the upload is not allowed.
    #[error("{0}")]
    PurposeForbidden(String),
    /// The client did not declare a property of its file that a policy requires.
    #[error("the request does not declare {0}")]
    FileRequired(&'static str),
    /// The declared type of the file is not allowed.
    #[error("{0}")]
    FileTypeForbidden(String),
    /// The declared size of the file is not allowed.
    #[error("the file has {declared} bytes, but at most {most} are allowed")]
    FileTooLarge {
        /// The declared size in bytes.
        declared: u64,
        /// The largest allowed size in bytes.
        most: u64,
    },
    /// An expression or a remote service denied the request.
    #[error("{0}")]
    RuleForbidden(String),
    /// A rate limit is exceeded.
    #[error("the rate limit is exceeded")]
    RateLimited {
        /// The time until another attempt can be allowed.
        retry_after: Duration,
        /// The limit and its counter.
        reached: Box<ReachedLimit>,
    },
    /// A limit of `[server]` is reached. Such a limit applies to all policies.
    #[error("[server] {key}: the limit is reached")]
    #[strum(serialize = "rate_limited")]
    ServerLimited {
        /// The key of the limit in `[server]`.
        key: &'static str,
        /// The time until another attempt can be allowed.
        retry_after: Duration,
        /// The limit and its counter.
        reached: Box<ReachedLimit>,
    },
    /// A quota is used up.
    #[error("the quota is used up{}", note.as_ref().map(|note| format!("; {note}")).unwrap_or_default())]
    QuotaExhausted {
        /// Why the default limit applies, if the limit depends on a claim.
        note: Option<String>,
        /// The time until the next window.
        retry_after: Duration,
        /// The limit and its counter.
        reached: Box<ReachedLimit>,
    },
    /// The upload does not fit into the storage. Waiting does not help: something must be deleted, or an open upload must
    /// end.
    #[error("the storage is full: {0}")]
    StorageFull(Box<StorageFull>),
}

/// What an unverified JWT says about who issued it, for the log. Both are shortened, and have no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenOrigin {
    /// `iss`
    pub issuer: Option<String>,
    /// `kid` of the header.
    pub kid: Option<String>,
}

/// A time in the past, in the unit that tells most.
fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        1 => "1 second ago".to_owned(),
        0..120 => format!("{seconds} seconds ago"),
        120..7200 => format!("{} minutes ago", seconds / 60),
        7200..172_800 => format!("{} hours ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

fn in_words(denial: &Denial) -> String {
    match denial {
        Denial::NotSignedIn => "no user has this credential".to_owned(),
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
    /// All codes, each once.
    #[must_use]
    pub fn codes() -> BTreeSet<&'static str> {
        Self::VARIANTS.iter().copied().collect()
    }

    /// The denial without the identity that it comes from.
    #[must_use]
    pub fn cause(&self) -> &Self {
        match self {
            Self::Identity { denial, .. } => denial,
            denial => denial,
        }
    }

    /// The stable code that clients see, for example `quota_exhausted`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.cause().into()
    }

    /// The class of the denial.
    #[must_use]
    pub fn class(&self) -> DenialClass {
        match self {
            Self::Identity { denial, .. } => denial.class(),
            Self::NotSignedIn
            | Self::SignedOut(_)
            | Self::InvalidCredentials(_)
            | Self::CredentialsExpired(_) => DenialClass::Unauthenticated,
            Self::CrossSite(_)
            | Self::WorkspaceRequired(_)
            | Self::WorkspaceForbidden(_)
            | Self::PurposeForbidden(_)
            | Self::FileRequired(_)
            | Self::FileTypeForbidden(_)
            | Self::FileTooLarge { .. }
            | Self::RuleForbidden(_) => DenialClass::Forbidden,
            Self::RateLimited { .. }
            | Self::ServerLimited { .. }
            | Self::QuotaExhausted { .. }
            | Self::StorageFull(_) => DenialClass::Limited,
        }
    }

    /// How long the client should wait before it tries again. `None` unless the class is [`DenialClass::Limited`], and if
    /// waiting does not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.cause() {
            Self::RateLimited { retry_after, .. }
            | Self::ServerLimited { retry_after, .. }
            | Self::QuotaExhausted { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Returns the identity that denied the credential, if any.
    #[must_use]
    pub fn identity(&self) -> Option<&IdentityName> {
        match self {
            Self::Identity { identity, .. } => identity.as_ref(),
            _ => None,
        }
    }

    /// Returns what the denied JWT says about itself, if the credential is one.
    #[must_use]
    pub fn token(&self) -> Option<&TokenOrigin> {
        match self {
            Self::Identity { token, .. } => token.as_deref(),
            _ => None,
        }
    }

    /// Returns the limit per time that is reached, if any.
    #[must_use]
    pub fn reached(&self) -> Option<&ReachedLimit> {
        match self.cause() {
            Self::RateLimited { reached, .. }
            | Self::ServerLimited { reached, .. }
            | Self::QuotaExhausted { reached, .. } => Some(reached),
            _ => None,
        }
    }

    /// Whether the denial comes from a limit of `[server]`, and not from a policy.
    #[must_use]
    pub fn is_of_server(&self) -> bool {
        match self {
            Self::Identity { denial, .. } => denial.is_of_server(),
            denial => matches!(denial, Self::ServerLimited { .. }),
        }
    }
}
