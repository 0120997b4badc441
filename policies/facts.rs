//! The facts of a request, as remote policies see them.

use std::net::IpAddr;

use serde_json::{Map, json};

use crate::{Clock, Facts, UploadRequest};

/// The facts as JSON: what a remote policy is told. A fact that is missing has no key.
pub(crate) fn to_json(
    request: &UploadRequest,
    known: &Facts,
    clock: &dyn Clock,
) -> serde_json::Value {
    let mut document = Map::new();
    if let Some(subject) = &known.subject {
        let subject = json!({
            "id": subject.id,
            "identity": subject.identity,
            "session": subject.session,
            "claims": subject.claims,
        });
        document.insert("subject".to_owned(), subject);
    }
    if let Some(membership) = &known.membership {
        let mut workspace = json!({ "id": membership.workspace });
        if let Some(role) = &membership.role {
            workspace["role"] = json!(role);
        }
        document.insert("workspace".to_owned(), workspace);
    }
    let mut asked = json!({
        "route": request.route,
        "ip": request.ip,
        "time": clock.now(),
    });
    if let Some(purpose) = &request.purpose {
        asked["purpose"] = json!(purpose);
    }
    if let Some(file) = &request.file {
        let mut declared = Map::new();
        declared.extend(
            file.name
                .as_ref()
                .map(|name| ("name".to_owned(), json!(name))),
        );
        let mime_type = file.mime_type.as_ref();
        declared.extend(mime_type.map(|mime_type| ("mime_type".to_owned(), json!(mime_type))));
        declared.extend(file.size.map(|size| ("size".to_owned(), json!(size))));
        asked["file"] = declared.into();
    }
    document.insert("request".to_owned(), asked);
    document.into()
}

/// The facts but the time in bytes, the same for the same facts alone: each is told from its neighbours by its length.
pub(crate) fn without_time(request: &UploadRequest, known: &Facts) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut put = |fact: Option<&[u8]>| {
        let length = fact.map_or(u64::MAX, |fact| fact.len() as u64);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(fact.unwrap_or_default());
    };
    let subject = known.subject.as_deref();
    put(subject.map(|subject| subject.id.as_str().as_bytes()));
    put(subject.map(|subject| subject.identity.as_str().as_bytes()));
    put(subject
        .map(|subject| [u8::from(subject.session)])
        .as_ref()
        .map(|session| session.as_slice()));
    let membership = known.membership.as_ref();
    put(membership.map(|membership| membership.workspace.as_str().as_bytes()));
    put(membership.and_then(|membership| Some(membership.role.as_ref()?.as_bytes())));
    put(Some(request.route.as_str().as_bytes()));
    put(request
        .purpose
        .as_ref()
        .map(|purpose| purpose.as_str().as_bytes()));
    let file = request.file.as_ref();
    put(file.and_then(|file| Some(file.name.as_ref()?.as_bytes())));
    put(file.and_then(|file| Some(file.mime_type.as_ref()?.as_bytes())));
    let size = file.and_then(|file| file.size).map(u64::to_le_bytes);
    put(size.as_ref().map(|size| size.as_slice()));
    match request.ip {
        IpAddr::V4(ip) => put(Some(&ip.octets())),
        IpAddr::V6(ip) => put(Some(&ip.octets())),
    }
    put(file.is_some().then_some(&[]));
    if let Some(subject) = subject {
        // Writing to a Vec cannot fail, and a map of texts to JSON is JSON.
        let _ = serde_json::to_writer(&mut bytes, &subject.claims);
    }
    bytes
}
