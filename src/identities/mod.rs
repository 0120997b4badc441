//! Identities: who sent a request. Each kind of identity is one file with its settings, its checks and its code.
//!
//! - `kind`: the traits [`IdentityKind`] and [`Identity`]. To add a kind, implement them in a file of its own, and register
//!   it in [`IdentityKinds::default`].
//! - `registry`, `section`, `profile`, `chain_checks`: how `[identities.*]` is read and checked.
//! - `authenticate`: which identity authenticates a request.
//! - `auth_request`, `request_view`, `cookies`: what identities read of a request, and the tokens in it.
//! - `claims`, `claim_values`, `issuer`, `keys`, `service_lookup`: what several kinds share; `constant_headers`: a part of `remote`.
//! - `client_address`, `cross_site`, `limits`: proxies, origins, and the limits of `[server]`.

mod auth_request;
mod authenticate;
mod chain_checks;
mod claim_values;
mod claims;
mod client_address;
mod constant_headers;
mod cookies;
mod cross_site;
mod forwarded;
mod introspection;
mod issuer;
mod jwt;
mod keys;
mod kind;
mod limits;
mod profile;
mod registry;
mod remote;
mod request_view;
mod section;
mod service_lookup;
mod session;

pub use secrecy::SecretString;

pub use self::{
    auth_request::{AuthRequest, Token},
    authenticate::{Identities, RequestCredentials, UnknownIdentity},
    claims::ClaimFilter,
    client_address::ClientAddress,
    cookies::{CookieSource, find_cookie},
    cross_site::CrossSite,
    issuer::{Issuers, SubjectPrefix},
    keys::{KeysState, PublishedKeys},
    kind::{AuthError, Authentication, Build, BuildContext, Identity, IdentityKind},
    limits::{AppliedLimits, ServerLimits},
    profile::{Accepts, CacheKind, Place, Profile},
    registry::{IdentityKinds, ResolvedIdentity},
    request_view::{InMemoryRequest, RequestView, TokenSource},
    section::Section,
    session::{SIGNED_IN, SignedIn, UNAVAILABLE},
};
pub(crate) use self::{
    chain_checks::ChainIdentities, profile::Profiles, registry::ConfiguredIdentities,
    section::OtherSections,
};
