//! Tests of the gate over HTTP, as its clients and its operator use it: one file for each subject.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test ends where it fails, and its world has the machine's clock"
)]

mod accept;
mod addresses;
mod addressing;
mod answers;
mod api_description;
#[path = "../../examples/api_keys/identity.rs"]
mod api_keys;
mod app_answers;
mod app_cookies;
mod app_guides;
mod architecture;
mod auth_apps;
mod backends;
mod bad_days;
mod book;
mod bounds;
mod browsers;
#[path = "../../examples/business_hours/policy.rs"]
mod business_hours;
mod chains;
mod check_connect;
mod claims;
mod client_metrics;
mod clusters;
mod command_line;
mod commands;
mod config;
mod cookie_tokens;
mod cookies;
mod crashes;
mod decision_log;
mod deployment;
mod every_kind;
mod examples;
mod explain;
mod floods;
mod forwarded;
mod guides;
mod helpers;
mod hostile_peer;
mod imgwire_errors;
mod imgwire_refusals;
mod imgwire_text;
mod introspection;
mod issuers;
mod judges;
mod key_outages;
mod key_rotation;
mod keys;
mod limits;
mod log_filter;
mod lookups;
mod management;
mod members;
mod origin_patterns;
mod origins;
mod outbound;
mod outbound_calls;
mod outbound_connections;
mod own_identities;
mod own_origin;
mod own_policies;
mod places;
mod playground;
mod postgres;
mod process;
mod provider_guides;
mod providers;
mod proxies;
mod proxy_configs;
mod quota_stores;
mod rate_limit_stores;
mod real_parts;
mod redis_server;
mod reload;
mod remote;
mod remote_members;
mod remote_rules;
mod request_lines;
mod restarts;
mod retention;
mod rules;
mod sandbox;
mod scaling;
mod secrets;
mod service;
mod session_claims;
mod session_sources;
mod session_stores;
mod sessions;
mod shared_servers;
mod side_doors;
mod signing;
mod slow_clients;
mod sockets;
mod spelling;
mod store_failures;
mod store_faults;
mod store_hosts;
mod store_probes;
mod strangers;
mod tcp_proxy;
mod tokens;
mod traces;
mod upstream;
mod watched;
