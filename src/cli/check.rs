//! `imgwire-gate check`

use policies::Mode;

use crate::{
    config::EventKeys,
    gate::{
        route_paths::{CREATE_UPLOAD, RouteAction},
        rules::OnMismatch,
    },
    http::error::status_of,
    server::settings::{PolicySettings, RouteSettings, Settings},
};

use super::{Config, Failure, print};

/// Prints the chain of each route, and warnings.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    let settings = config.load()?;
    print(describe_chains(&settings).trim_end())?;
    for warning in settings.warnings.lines() {
        print(&format!("warning: {warning}"))?;
    }
    Ok(())
}

/// Draws the chain of each route: its policies in order, what each requires, and the status with which it denies. Then
/// shows where events go.
#[must_use]
pub fn describe_chains(settings: &Settings) -> String {
    let mut text = String::new();
    for route in &settings.routes {
        let purpose = route.purpose.as_ref();
        let purpose = purpose.map_or_else(String::new, |purpose| format!(" (purpose: {purpose})"));
        let called = match route.action {
            RouteAction::Token => "",
            RouteAction::Upload => CREATE_UPLOAD,
        };
        text.push_str(&format!("POST {}{called}{purpose}\n", route.path));
        for (index, name) in route.policies.iter().enumerate() {
            let Some(PolicySettings {
                common,
                kind,
                requirements,
                ..
            }) = settings.policy(name)
            else {
                continue;
            };
            let when = match &common.when {
                None => String::new(),
                Some(when) => format!(", when {when}"),
            };
            let (observed, refuses) = match common.mode {
                Mode::Enforce => {
                    let status = status_of(requirements.denies_with).as_u16();
                    ("", format!("; else {status}"))
                }
                Mode::Observe => (", observe only", String::new()),
            };
            text.push_str(&format!(
                "  │ {}. {name} ({}{observed}{when}): {}{refuses}\n",
                index + 1,
                kind.kind(),
                kind.describe(),
            ));
        }
        text.push_str(&format!("  ╰ {}\n", describe_action(route)));
    }
    if let Some((events, EventKeys(keys))) = &settings.events {
        let (url, keep) = (
            events.url.as_str(),
            humantime::format_duration(events.keep.get()),
        );
        let signed = match keys.len() {
            1 => "signed".to_owned(),
            count => format!("signed with {count} secrets"),
        };
        text.push_str(&format!(
            "events: POST {url}, {signed}, retried for {keep}\n"
        ));
    }
    text
}

/// What the client gets, and what is recorded.
fn describe_action(route: &RouteSettings) -> String {
    let store = route.store.as_ref();
    let recorded = store.map(|store| format!("recorded in {store}"));
    let parts = match route.action {
        RouteAction::Token => vec![Some("200 with an upload token".to_owned()), recorded],
        RouteAction::Upload => {
            let names = |what: &str, names: Vec<&str>| {
                (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
            };
            let own = route.metadata.iter().flatten().map(|(key, _)| key.as_str());
            vec![
                Some("200 with an upload (action: upload)".to_owned()),
                recorded,
                names("with the metadata", own.collect()),
                names("clients may set", texts(route.client_metadata.as_ref())),
                names(
                    "images of others may be deleted as",
                    texts(route.delete_roles.as_ref()),
                ),
                (route.on_mismatch == Some(OnMismatch::Delete))
                    .then(|| "deleted if the file differs from what was declared".to_owned()),
            ]
        }
    };
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    parts.join("; ")
}

fn texts(list: Option<&Vec<String>>) -> Vec<&str> {
    list.into_iter().flatten().map(String::as_str).collect()
}
