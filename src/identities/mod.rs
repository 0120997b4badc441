//! Who a request comes from. One kind of identity is one file: its settings, its checks and what judges.
//!
//! - `kind`: what a kind is. To add one, implement [`IdentityKind`] in a file of its own and register it in
//!   [`IdentityKinds::default`].
//! - `registry`, `section`, `profile`, `accept_check`: how `[identities.*]` is read and checked.
//! - `authenticate`: which identity judges a request.
//! - `case`, `request_view`, `credential`, `token`: what a request presents, and how identities read it.
//! - `claims`, `issuer`, `keys`: what several kinds share.
//! - `client_address`, `cross_site`, `limits`: who sent the request, and what it may cost.

mod accept_check;
mod authenticate;
mod case;
mod claims;
mod client_address;
mod credential;
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
mod session;
mod token;

pub use secrecy::SecretString;

pub(crate) use self::{
    accept_check::ChainIdentities, profile::Profiles, registry::ConfiguredIdentities,
    section::SectionFacts,
};
pub use self::{
    authenticate::{Identities, RequestCredentials, UnknownIdentity},
    case::Case,
    claims::KeptClaims,
    client_address::ClientAddress,
    credential::TokenSource,
    cross_site::CrossSite,
    issuer::{Issuers, SubjectPrefix},
    keys::{KeysState, PublishedKeys},
    kind::{Build, BuildContext, Identity, IdentityKind, Judgement},
    limits::{Limited, ServerLimits},
    profile::{CacheKind, Place, Profile, Takes},
    registry::{IdentityKinds, ResolvedIdentity},
    request_view::{Cookie as RequestCookie, InMemoryCredentials, PresentedCredentials},
    section::Section,
    session::{SIGNED_IN, SignedIn, UNAVAILABLE},
    token::Token,
};
