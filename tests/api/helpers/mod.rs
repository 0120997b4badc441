//! What the tests share: the gate's builder, a gate that runs, tokens, requests and the clock. The names of the library
//! that the tests need are all imported here.

mod app;
mod clock;
mod entry;
mod gate;
mod request;
mod token;

pub(crate) use imgwire_gate::{
    cli,
    config::{
        origin::{Origin, OriginPattern, Trust},
        outbound::ExtraAuthorities,
    },
    outbound::tls_config,
    sandbox::emulator::{
        Billing, CLIENT_KEY, ClientKey, CorsOrigin, ENVIRONMENT, Emulator, Endpoint, ErrorType,
        IdempotencyScope, ListOrder, Misbehaviour, SERVER_API_KEY, Scenario, ServerKey,
    },
    server::{Application, Builder, settings},
    stores::{
        Access, LeaseStore, SessionAction, SessionBackend, Store, StoreContext, StoreSettings,
        Stores, UrlSource, UsedStore,
    },
    telemetry::Metrics,
};

/// Their names are also those of other things.
pub(crate) mod records {
    pub(crate) use imgwire_gate::stores::{
        Backlog, Begun, Completed, ERASURE_KEPT, Ending, Erasure, EventKind, FileFacts, Holder,
        ImagePage, Intent, NewEvent, Origin, Page, Progress, ReadRate, Reconciled, Reconciliation,
        Record, RecordId, RecordQuery, RecordStore, Replay, StoredEvent, UploadState,
    };
}

pub(crate) use self::{
    app::TestApp,
    clock::{TestClock, eventually, within},
    entry::{
        Entry, discovered_jwt, expression, forwarded, introspection, jwt, published_jwt, quota,
        rate_limit, remote_decision, remote_session, session, signed_in, storage, upload_intent,
        upload_route, workspace_member,
    },
    gate::{Gate, env},
    request::{Answer, Request, keys},
    token::Token,
};

pub(crate) const ROUTE: &str = "/api/imgwire/upload-token";
pub(crate) const SESSION: &str = "/api/imgwire/session";
pub(crate) const SECRET: &str =
    "the shared secret of the tests' app, long enough for HS512 or any other";
/// Of events to the app: the example of the Standard Webhooks specification.
pub(crate) const EVENTS_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const SESSION_KEY: &str =
    "the key that the tests' session cookie is encrypted with, at least 64 bytes long";
